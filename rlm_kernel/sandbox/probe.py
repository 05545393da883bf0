"""Does a container with the sandbox's locks start here, and does the stream reach its first process?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rlm_kernel import loops
from rlm_kernel.errors import RLMError
from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.docker_host import docker_errors, engine_traits
from rlm_kernel.sandbox.provisioner import SandboxSpec, container_options
from rlm_kernel.sandbox.rundir import RunDir
from rlm_kernel.sandbox.stream import Stream

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_SECONDS = 30


def sandbox_problem(client: DockerClient, image: str, *, runtime: str | None = None, tight: bool = True) -> str | None:
    """Why no kernel can live in a locked container of `image`; None if one can. Blocking, about a second."""
    run = RunDir.create(max_request=1, window=1)
    spec = SandboxSpec(image, run, asyncio.Event(), lambda channel: channel.close(), memory=256 << 20, runtime=runtime, tight=tight)
    try:
        with docker_errors():
            options = container_options(spec, **engine_traits(client)) | {
                "name": f"rlm-probe-{run.session_id}",
                "labels": containers.owner_labels(),
            }
            with containers.made(client, **options) as container:
                return loops.run(_problem(client, container))
    except RLMError as error:
        return error.message
    finally:
        run.remove()


async def _problem(client: DockerClient, container: Container) -> str | None:
    stream = await Stream.attach(client, container.id, lambda channel: channel.close())
    try:
        async with asyncio.timeout(_SECONDS):
            await asyncio.to_thread(container.start)
            await stream.greet({"session": {}, "key": ""})
    except OSError as error:
        said = stream.words().strip().splitlines()
        return said[-1] if said else f"what it says does not arrive: {str(error) or f'no word within {_SECONDS} s'}"
    finally:
        stream.close()
    return None

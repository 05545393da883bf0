"""Whether a container with the sandbox's locks starts here, and what it sees.

Does the stream reach its first process, and which folders does it see?
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rlm_contract import FILES

from rlm_kernel import loops
from rlm_kernel.config import SandboxSettings
from rlm_kernel.errors import RLMError
from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.container_spec import SandboxSpec, container_options
from rlm_kernel.sandbox.docker_host import engine_traits
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.rundir import RunDir
from rlm_kernel.sandbox.shares import Share, Shares
from rlm_kernel.sandbox.stream import Stream

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_SECONDS = 30


def folders_of(paths: Iterable[Path]) -> Shares:
    """Folders to be looked at from inside a container (`sandbox_problem`)."""
    return Shares([Share(path, PurePosixPath(FILES, str(number)), True) for number, path in enumerate(paths)])


def sandbox_problem(
    client: DockerClient, image: str, sandbox: SandboxSettings | None = None, shares: Shares | None = None
) -> str | None:
    """Why no kernel can live in a locked container of `image`; None if one can. Blocking, about a second.

    Afterwards `shares.unseen` has those folders whose files are not the same inside. An engine that refuses
    to mount a folder is asked again without it.
    """
    shares, small = shares or Shares(), (sandbox or SandboxSettings()).model_copy(update={"memory": "256m"})
    run = RunDir.create(max_request=1, window=1)
    spec = SandboxSpec(
        image, run, asyncio.Event(), lambda channel: channel.close(), sandbox=small, shares=shares
    )
    try:
        while True:
            try:
                return _try(client, spec)
            except RLMError as error:
                if not shares.refused(error.message):
                    return error.message
    finally:
        run.remove()


def _try(client: DockerClient, spec: SandboxSpec) -> str | None:
    with docker_errors():
        options = container_options(spec, **engine_traits(client) | {"here": False}) | {
            "name": f"rlm-probe-{spec.run.session_id}",
            "labels": containers.owner_labels(),
        }
        with containers.made(client, **options) as container:
            return loops.run(_problem(client, container, spec.shares))


async def _problem(client: DockerClient, container: Container, shares: Shares) -> str | None:
    expected: dict[str, Any] = await asyncio.to_thread(shares.expected)
    stream = await Stream.attach(client, container.id, lambda channel: channel.close())
    try:
        async with asyncio.timeout(_SECONDS):
            await asyncio.to_thread(container.start)
            await stream.greet({"session": {}, "key": "", **expected})
        await asyncio.to_thread(shares.agrees, expected, stream.welcome.result())
    except OSError as error:
        said = stream.words().strip().splitlines()
        return (
            said[-1]
            if said
            else f"its messages do not arrive: {str(error) or f'nothing within {_SECONDS} s'}"
        )
    finally:
        stream.close()
    return None

"""Does a container with the sandbox's locks start here, and do unix sockets cross its bind mount?"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.sandbox.rundir import container_ids
from rlm_kernel.sandbox.syscalls import security_options

if TYPE_CHECKING:
    from docker import DockerClient

_CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect('/rlm/host/s')"


def sandbox_problem(client: DockerClient, image: str, *, runtime: str | None = None, tight: bool = True) -> str | None:
    """Why a locked container of `image` cannot reach a unix socket of this host; None if it can. Blocking, about a second.

    None means that kernels can be spoken to over `ipc`; otherwise the engine is remote, in a virtual machine, or lacks something.
    """
    import docker

    uid, gid = container_ids()
    with tempfile.TemporaryDirectory(prefix="rlm-", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(0o755)
        listener.bind(f"{folder}/s")
        Path(folder, "s").chmod(0o666)
        listener.listen(1)
        try:
            client.containers.run(
                image,
                ["/opt/rlm/bin/python", "-ISc", _CONNECT],
                entrypoint=[],
                user=f"{uid}:{gid}",
                init=True,
                read_only=True,
                network_mode="none",
                cap_drop=["ALL"],
                security_opt=security_options(tight),
                mem_limit="256m",
                pids_limit=32,
                runtime=runtime,
                mounts=[docker.types.Mount("/rlm/host", folder, type="bind", read_only=True)],
                remove=True,
                stderr=True,
            )
        except docker.errors.ContainerError as error:
            return (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:][0] if error.stderr else str(error)
        except docker.errors.DockerException as error:
            return str(getattr(error, "explanation", None) or error)
    return None

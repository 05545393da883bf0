"""Does a container with the sandbox's locks start here, and do unix sockets and the lease's lock cross its bind mount?"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.sandbox import containers, lease
from rlm_kernel.sandbox.docker_host import takes_profile_files
from rlm_kernel.sandbox.isolation import is_rootless
from rlm_kernel.sandbox.rundir import container_user, own
from rlm_kernel.sandbox.syscalls import security_options

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_SECONDS = 30
_TRY = """
import fcntl, os, socket, struct
lock = struct.Struct("hhqqi4x")
try:
    lease = open("/rlm/host/lease", "rb")
except PermissionError:
    raise SystemExit("its user may not read what the host gives it, as where the engine maps users or is another user's rootless one")
with lease:
    held = lock.unpack(fcntl.fcntl(lease, fcntl.F_OFD_GETLK, lock.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)))[0] != fcntl.F_UNLCK
if not held:
    raise SystemExit("the host's locks on files do not reach it, by which it knows that its owner lives")
socket.socket(socket.AF_UNIX).connect("/rlm/host/s")
"""


def sandbox_problem(client: DockerClient, image: str, *, runtime: str | None = None, tight: bool = True) -> str | None:
    """Why no kernel can live in a locked container of `image`; None if one can. Blocking, about a second.

    None means that kernels can be spoken to over `ipc`, and know whether their owner lives; otherwise the engine is remote, in a virtual
    machine, maps users, or lacks something, or the runtime keeps the host's files too far away.
    """
    import docker

    with tempfile.TemporaryDirectory(prefix="rlm-", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(0o755)
        listener.bind(f"{folder}/s")
        Path(folder, "s").chmod(0o666)
        listener.listen(1)
        owner = os.open(f"{folder}/lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            own(Path(folder, "lease"))
            lease.take(owner)
            with containers.made(
                client,
                f"rlm-probe-{secrets.token_hex(4)}",
                image=image,
                command=["/opt/rlm/bin/python", "-ISc", _TRY],
                labels=containers.owner_labels(),
                entrypoint=[],
                user=container_user(is_rootless(client.info())),
                read_only=True,
                network_mode="none",
                cap_drop=["ALL"],
                security_opt=security_options(tight, Path(folder, "seccomp.json") if takes_profile_files(client) else None),
                mem_limit="256m",
                pids_limit=32,
                runtime=runtime,
                mounts=[docker.types.Mount("/rlm/host", folder, type="bind", read_only=True)],
            ) as container:
                return _last_words(container)
        except (docker.errors.DockerException, OSError) as error:
            return str(getattr(error, "explanation", None) or error)
        finally:
            os.close(owner)


def _last_words(container: Container) -> str | None:
    """Run it; what it said last if it failed."""
    # Not docker's own `run`: it leaves what does not start, and waits for podman's log, which does not end.
    container.start()
    status = container.wait(timeout=_SECONDS)["StatusCode"]
    said = container.logs(stdout=False, stderr=True).decode(errors="replace").strip()
    return (said.splitlines()[-1] if said else f"it ended with status {status}") if status else None

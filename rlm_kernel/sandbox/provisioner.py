"""The Docker kernel provisioner: what starts, watches and ends the container of a kernel.

Registered as `rlm-docker` in the entry point group `jupyter_client.kernel_provisioners`, so that AsyncKernelManager and every Jupyter
program on top of it get the same container with the same locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Any as AnyTrait

from rlm_kernel.errors import DockerError, KernelError, RLMError
from rlm_kernel.sandbox import containers
from rlm_kernel.sandbox.containers import LOST, UNKNOWN, end_of, remove_container
from rlm_kernel.sandbox.disk import LOOK_SECONDS, MAX_FILE, DiskGuard, remove_tree
from rlm_kernel.sandbox.docker_host import in_daemon
from rlm_kernel.sandbox.isolation import is_rootless
from rlm_kernel.sandbox.rundir import RunDir, container_user
from rlm_kernel.sandbox.syscalls import security_options

if TYPE_CHECKING:
    from docker.models.containers import Container

PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
"""With ipc transport a port is the ending of a socket's name."""
EXIT_OOM = 97
"""The container's status when the kernel was killed for memory (`rlm_runtime.__main__`)."""
_KILLED = 128 + 9
"""The container's status when the machine killed its first process, which is for memory, too."""
_LOG_TAIL = 8_000
"""Bytes."""
_HEAR_SECONDS = 2.0


@dataclass(frozen=True)
class SandboxSpec:
    """What a kernel's container is made of. `memory` in bytes, `tmp` (size of /tmp, which counts as memory) too."""

    image: str
    run: RunDir
    ready: asyncio.Event
    """Set when the kernel has said hello on the broker."""
    memory: int = 2 << 30
    cpus: float = 2.0
    pids: int = 256
    tmp: int = 512 << 20
    network: str = "none"
    runtime: str | None = None
    tight: bool = True
    """System calls as `sandbox.syscalls` allows them, else as the engine does."""
    mounts: list[tuple[str, str]] = field(default_factory=list)
    start_timeout: float = 60.0
    admit: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext
    """Entered before the session's first container is made, and left once it is started: waits for room (`sandbox.room`)."""


def container_options(spec: SandboxSpec, sockets: str, *, rootless: bool = False, profile_file: bool = False) -> dict[str, Any]:
    """The keywords for docker's `containers.create`: every lock of the sandbox is here.

    `rootless`: for an engine of that kind. `profile_file`: for one that takes the seccomp profile as a file, which is then written.
    """
    from docker.types import LogConfig, Mount, Ulimit

    binds = [(str(spec.run.host), "/rlm/host", True), (sockets, "/rlm/run", False), *((s, t, True) for s, t in spec.mounts)]
    return {
        "image": spec.image,
        "command": ["/opt/rlm/bin/python", "-m", "rlm_runtime", "-f", "/rlm/host/connection.json"],
        "entrypoint": [],
        "name": spec.run.container_name,
        "labels": {
            f"{containers.LABEL}.session": spec.run.session_id,
            f"{containers.LABEL}.lease": str(spec.run.host / "lease"),
            f"{containers.LABEL}.memory": str(spec.memory),
            f"{containers.LABEL}.idle": f"{spec.run.idle:g}",
            **containers.owner_labels(),
        },
        # Nothing of the host's environment: it has the API keys.
        "use_config_proxy": False,  # the client's configuration may hold a proxy with a password
        # A fixed hash seed: the order of a set is the same at replay.
        "environment": {"HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"},
        "user": container_user(rootless),
        "working_dir": "/tmp",
        "init": False,  # the lease's watcher is the first process: nobody inside can stop that one
        "auto_remove": True,
        "network_mode": spec.network,
        "runtime": spec.runtime,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": security_options(spec.tight, spec.run.path / "seccomp.json" if profile_file else None),
        "privileged": False,
        "ipc_mode": "private",
        "mem_limit": spec.memory,
        "memswap_limit": spec.memory,
        "nano_cpus": int(spec.cpus * 1e9),
        "pids_limit": spec.pids,
        "ulimits": [Ulimit(name=name, soft=most, hard=most) for name, most in (("nofile", 4096), ("core", 0), ("fsize", MAX_FILE))],
        "shm_size": "64m",
        "tmpfs": {"/tmp": f"rw,nosuid,nodev,size={spec.tmp},mode=1777"},  # podman takes no uid
        "mounts": [Mount(target, source, type="bind", read_only=read_only) for source, target, read_only in binds],
        "log_config": LogConfig(type="none"),  # its last words are heard from outside, as it starts
    }


class DockerProvisioner(KernelProvisionerBase):
    """One container for one kernel. jupyter_client calls these methods, on one event loop; Docker is spoken to in threads."""

    spec = AnyTrait(help="SandboxSpec of the session")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._container: Container | None = None
        self._creation: asyncio.Task[Container] | None = None
        self._sockets = ""
        self._words: LastWords | None = None
        self._guarding: asyncio.Task[None] | None = None
        self.engine_said = ""
        """Why the engine cannot say how the container ended, in its own words."""
        self.too_much = ""
        """What it did to the host's disk, if it was killed for that."""
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def has_process(self) -> bool:
        return self._container is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Settle where the sockets are, as the host and as the container see them."""
        manager: Any = self.parent
        self.exited = asyncio.get_running_loop().create_future()  # the last one was for the kernel before a restart
        self._sockets = str(self.spec.run.new_launch())
        manager.transport = "ipc"
        manager.ip = self.spec.run.address
        manager.cache_ports = False
        for name, number in PORTS.items():
            setattr(manager, name, number)
        info = manager.get_connection_info()
        inside = {**info, "key": info["key"].decode(), "ip": "/rlm/run/k"}
        self.spec.run.give("connection.json", json.dumps(inside))
        # jupyter_client takes an existing file for the truth, and waits for ever without one.
        manager.connection_file = str(self.spec.run.keep("connection.json", json.dumps({**info, "key": info["key"].decode()})))
        # kwargs["env"] is a copy of the host's environment, with its keys: it goes no further.
        return await super().pre_launch(cmd=["rlm-docker"], **{k: v for k, v in kwargs.items() if k not in ("cmd", "env")}, env={})

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the container and wait until its kernel is up. Raises KernelError, DockerError."""
        from rlm_kernel.sandbox.docker_host import connect, docker_errors, takes_profile_files

        self.spec.ready.clear()
        loop, exited = asyncio.get_running_loop(), self.exited
        # A kernel that takes the place of one that died has that one's room.
        admitted = self.spec.admit if self.spec.run.launches == 1 else contextlib.nullcontext

        def create() -> Container:
            with docker_errors(), contextlib.ExitStack() as failing:
                client = connect()
                failing.callback(client.close)
                traits = {"rootless": is_rootless(client.info()), "profile_file": takes_profile_files(client)}
                options = container_options(self.spec, self._sockets, **traits)
                container = containers.create(client, **options)
                failing.callback(containers.remove_late, client, container.name)  # one that does not start is not removed by itself
                threading.Thread(target=self._watch, args=(container, loop, exited), daemon=True).start()
                self._words = LastWords(container)
                container.start()
                failing.pop_all()
                return container

        async with admitted():
            self._creation = asyncio.create_task(asyncio.to_thread(create))
            self._container = await asyncio.shield(self._creation)
        ready = asyncio.create_task(self.spec.ready.wait())
        try:
            await asyncio.wait({ready, self.exited}, timeout=self.spec.start_timeout, return_when=asyncio.FIRST_COMPLETED)
            if not self.spec.ready.is_set():
                raise await self._start_failure()
        finally:
            ready.cancel()
            self._hang_up()
        # Now: the kernel listens, and no code that it does not trust has run in it.
        self.spec.run.link_sockets()
        self._guarding = asyncio.create_task(self._guard_disk())
        manager: Any = self.parent
        self.connection_info = manager.get_connection_info()
        return self.connection_info

    async def join(self) -> bool:
        """Take over the container that an earlier owner of the session left. False if it does not run any more. Raises DockerError."""
        from docker.errors import NotFound

        from rlm_kernel.sandbox.docker_host import connect, docker_errors

        def find() -> Container | None:
            with docker_errors(), contextlib.ExitStack() as failing:
                client = connect()
                failing.callback(client.close)
                with contextlib.suppress(NotFound):
                    container = client.containers.get(self.spec.run.container_name)
                    failing.pop_all()
                    return container
                return None

        container = await asyncio.to_thread(find)
        if container is None:
            return False
        self._container, self._sockets = container, str(self.spec.run.sockets)
        self._guarding = asyncio.create_task(self._guard_disk())
        loop, exited = asyncio.get_running_loop(), self.exited
        threading.Thread(target=self._watch, args=(container, loop, exited, "not-running"), daemon=True).start()
        return bool(container.status == "running")

    async def _guard_disk(self) -> None:
        """Kill a kernel that takes too much of the host's disk."""
        guard, self.too_much = DiskGuard(Path(self._sockets)), ""
        while not self.exited.done() and not self.too_much:
            await asyncio.wait({self.exited}, timeout=LOOK_SECONDS)
            self.too_much = await asyncio.to_thread(guard.look)
        if self.too_much:
            await self.kill()

    async def unguard(self) -> None:
        """Look at its disk no more. Idempotent."""
        if self._guarding is not None:
            self._guarding.cancel()
            await asyncio.gather(self._guarding, return_exceptions=True)

    def _watch(
        self, container: Container, loop: asyncio.AbstractEventLoop, exited: asyncio.Future[int], condition: str = "next-exit"
    ) -> None:
        """In a thread of its own: wait for the container's end, however long that takes."""
        code, self.engine_said = end_of(container, condition)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_ended, exited, code)

    def _hang_up(self) -> None:
        if self._words is not None:
            self._words.hang_up()
            self._words = None

    async def _start_failure(self) -> RLMError:
        from rlm_kernel.sandbox.docker_host import start_hint

        if self.exited.done() and self.exited.result() == LOST:
            why = f": {self.engine_said}" if self.engine_said else ""
            return DockerError(f"The Docker engine was lost while it started the kernel's container{why}.", hint=start_hint())
        if self.exited.done() and self.exited.result() in (EXIT_OOM, _KILLED):
            return KernelError(
                f"The container is too small: its kernel was killed as it started, with {self.spec.memory / (1 << 20):,.0f} MiB of memory "
                "(sandbox.memory).",
                hint="Give it more: RLM_SANDBOX__MEMORY=2g, which is the default.",
            )
        words = await asyncio.to_thread(self._words.said, self.exited.done()) if self._words else ""
        status = self.exited.result() if self.exited.done() else None
        what = (
            f"The kernel's container ended as it started ({'its status is not known' if status == UNKNOWN else f'status {status}'})."
            if self.exited.done()
            else f"The kernel did not start within {self.spec.start_timeout:.0f} s."
        )
        return KernelError(
            f"{what}\n{words}".strip(), hint="`rlm doctor` checks the set-up; `rlm image build --force` makes the image anew."
        )

    async def poll(self) -> int | None:
        if self.exited.done():
            return self.exited.result()
        return None if self._container is not None else 0

    async def wait(self) -> int | None:
        return await asyncio.shield(self.exited) if self._container is not None else 0

    async def send_signal(self, signum: int) -> None:
        await self._signal(signum)

    async def interrupt(self) -> None:
        """What Ctrl-C is in a terminal: the container's first process passes it on to the kernel and all that it has started."""
        await self._signal(signal.SIGINT)

    async def kill(self, restart: bool = False) -> None:
        await self._signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self._signal(signal.SIGKILL)  # nothing inside is worth a farewell

    async def _signal(self, signum: int) -> None:
        from docker.errors import APIError
        from requests.exceptions import RequestException

        if self._container is not None and not self.exited.done():
            with contextlib.suppress(APIError, RequestException):  # it ended by itself in the meantime, or the engine did
                await in_daemon(self._container.kill, int(signum))

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the container, even one whose creation was interrupted. Idempotent."""
        if self._creation is not None:
            with contextlib.suppress(Exception):
                self._container = await asyncio.shield(self._creation)
        self._hang_up()
        await self.unguard()
        if self._container is not None:
            await in_daemon(remove_container, self._container)
            self._container.client.close()
            await asyncio.to_thread(remove_tree, Path(self._sockets))
        self._container = None

    async def shutdown_requested(self, restart: bool = False) -> None:
        await self.kill(restart)


class LastWords:
    """What a container says as it starts: the end of it, should that go wrong. To be made before it is started, in a thread of one's own.

    Listened to from outside because an engine that removes a container as soon as it ends removes its log with it.
    """

    def __init__(self, container: Container) -> None:
        self._file = container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1})
        self._socket: socket.socket = self._file._sock  # the file alone would leave it open
        self._heard = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        from docker.utils.socket import frames_iter

        # Whatever becomes of the connection, what was heard is there.
        with self._socket, self._file, contextlib.suppress(Exception):
            for _, piece in frames_iter(self._file, tty=False):
                self._heard = (self._heard + piece)[-_LOG_TAIL:]

    def said(self, ended: bool) -> str:
        """What was said last. Blocking for a moment if the container has `ended`, to hear it out."""
        if ended:
            self._listener.join(_HEAR_SECONDS)
        return self._heard.decode(errors="replace")

    def hang_up(self) -> None:
        """Listen no more: what a kernel that runs writes there is nobody's concern. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _ended(exited: asyncio.Future[int], code: int) -> None:
    if not exited.done():
        exited.set_result(code)


def remove_containers(session_id: str) -> None:
    """Remove the containers of a session whose owner is gone. Blocking. Raises DockerError."""
    from rlm_kernel.sandbox.docker_host import connect, docker_errors

    with docker_errors():
        client = connect()
        try:
            for container in client.containers.list(
                ignore_removed=True, all=True, filters={"label": f"{containers.LABEL}.session={session_id}"}
            ):
                remove_container(container)
        finally:
            client.close()

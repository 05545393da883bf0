"""The Docker kernel provisioner: what starts, watches and ends the container of a kernel.

Registered as `rlm-docker` in the entry point group `jupyter_client.kernel_provisioners`, so that
AsyncKernelManager and every Jupyter program on top of it get the same container with the same locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Any as AnyTrait

from rlm_kernel import loops
from rlm_kernel.errors import DockerError, KernelError, RLMError
from rlm_kernel.sandbox import containers, engine_address, room
from rlm_kernel.sandbox.container_spec import Made, at_once, container_options
from rlm_kernel.sandbox.containers import is_gone_soon, remove_container
from rlm_kernel.sandbox.docker_host import connect, engine_traits, in_daemon, is_elsewhere
from rlm_kernel.sandbox.ended import CHECK, Ended
from rlm_kernel.sandbox.endpoints import Doors, Endpoints
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.stream import Stream, StreamLost

if TYPE_CHECKING:
    from docker.models.containers import Container

_SIGINT, _SIGKILL = 2, 9
"""Of the container, whatever the host's are."""
JOIN_SECONDS = 10.0
"""Seconds that a container which was left, and then the kernel in it, has to answer."""
END_SECONDS = 2.0
"""In which a container whose owner has hung up has ended and is gone, before it is killed."""
_UNKNOWN = -1
"""For Jupyter, in place of a status that nobody knows."""


class DockerProvisioner(KernelProvisionerBase):
    """One container for one kernel. jupyter_client calls these methods, on one event loop; Docker is spoken
    to in threads.
    """

    spec = AnyTrait(help="SandboxSpec of the session")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._container: Container | None = None
        self._creation: asyncio.Task[Container] | None = None
        self._stream: Stream | None = None
        self._watching: asyncio.Task[None] | None = None
        self._doors: Doors | None = None
        self._endpoints: Endpoints | None = None
        self._ends = False
        """The container ends by itself: nobody is at the other end of its stream any more."""
        self.exited: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    @property
    def has_process(self) -> bool:
        return self._container is not None

    @property
    def stream(self) -> Stream:
        """To the container, which has been started or joined."""
        assert self._stream is not None
        return self._stream

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Settle where the sockets are for clients on this host."""
        self.exited = (
            asyncio.get_running_loop().create_future()
        )  # the last one was for the kernel before a restart
        self.spec.run.new_launch(engine_address.find().place)
        self._settle()
        # kwargs["env"] is a copy of the host's environment, with its keys: it goes no further.
        return await super().pre_launch(
            cmd=["rlm-docker"], **{k: v for k, v in kwargs.items() if k not in ("cmd", "env")}, env={}
        )

    def _settle(self) -> None:
        """Have the same addresses for each kernel, and tell them. Raises SetupError."""
        manager: Any = self.parent
        if self._doors is None:
            with self.spec.run.errors():
                self._doors = Doors(self.spec.run.address)
        manager.cache_ports = False
        self._doors.tell(manager)
        info = manager.get_connection_info()
        # jupyter_client takes an existing file for the truth, and waits for ever without one.
        manager.connection_file = str(
            self.spec.run.keep("connection.json", json.dumps({**info, "key": info["key"].decode()}))
        )

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the container and wait until its kernel is up. Raises KernelError, DockerError."""
        self.spec.ready.clear()
        manager: Any = self.parent
        self.connection_info = manager.get_connection_info()
        # A kernel that takes the place of one that died has that one's room.
        admitted = self.spec.admit if self.spec.run.launches == 1 else at_once
        try:
            while not await self._try(admitted):  # some files were not those of this host, and are sent now
                admitted = at_once
        except OSError:
            raise await self._start_failure() from None
        except BaseException:
            await loops.to_its_end(self.cleanup())  # one that does not start is not removed by itself
            raise
        return self.connection_info

    async def _try(self, admitted: Callable[[], AbstractAsyncContextManager[Made]]) -> bool:
        """Start the container, and wait until its kernel is up.

        False if it does not have the files; then it is gone, and to be made anew.
        """
        shares = self.spec.shares
        await shares.send(self.spec.image, self.spec.sender)
        expected = await asyncio.to_thread(shares.expected)
        try:
            async with admitted() as made:
                self._creation = asyncio.create_task(asyncio.to_thread(self._create))
                self._container = await asyncio.shield(self._creation)
                made()
                if not shares.sends or await asyncio.to_thread(
                    shares.made, self._container, self.spec.sender
                ):
                    await self._there(self._connect())
                    async with asyncio.timeout(self.spec.start_timeout):
                        await self._there(self._greet(again=False, told=expected))
                        if await asyncio.to_thread(shares.agrees, expected, self.stream.welcome.result()):
                            await self._until_ready()
                            return True
        except DockerError as error:
            if not shares.refused(error.message):
                raise
        await loops.to_its_end(self._discard())
        self.exited = asyncio.get_running_loop().create_future()
        return False

    def _create(self) -> Container:
        from docker.errors import APIError

        with docker_errors(), contextlib.ExitStack() as failing:
            client = connect(known=True)
            failing.callback(client.close)
            traits = engine_traits(client)
            try:
                container = containers.create(client, **container_options(self.spec, **traits))
            except APIError as error:
                if not traits["here"] or "hosts" not in str(error):
                    raise
                is_elsewhere(client)  # an engine in a container of this machine, say
                container = containers.create(client, **container_options(self.spec, **engine_traits(client)))
            failing.pop_all()
            return container

    async def _connect(self) -> None:
        """Attach to the container that is made, and start it. On the stream's event loop."""
        await asyncio.to_thread(_start, await self._attach())

    async def _attach(self) -> Container:
        container = self._container
        assert container is not None
        stream = self._stream = await Stream.attach(container.client, container.id, self.spec.accept)
        self._watching = asyncio.create_task(self._watch(container, stream, self.exited))
        return container

    async def _watch(self, container: Container, stream: Stream, exited: asyncio.Future[Ended]) -> None:
        """Wait for the container's end, which is the stream's, however long that takes."""
        await asyncio.wait([stream.lost])
        if stream is not self._stream:  # we have hung up
            return
        end = stream.end or (Ended() if stream.malformed else await in_daemon(Ended.asked, container))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            exited.get_loop().call_soon_threadsafe(_ended, exited, end)

    async def _connect_again(self) -> None:
        """Attach to a container that runs. On the stream's event loop."""
        await self._attach()
        await self._greet(again=True)

    async def _greet(self, *, again: bool, told: Mapping[str, Any] | None = None) -> None:
        """Speak to the container's first process, and listen for Jupyter's programs.

        On the stream's event loop.
        """
        manager: Any = self.parent
        run, stream = self.spec.run, self.stream
        about = {
            "idle": run.idle,
            "session": run.told,
            "key": manager.session.key.decode(),
            "debugger": self.spec.debugger,
        }
        await stream.greet(about | dict(told or {}), again=again)
        assert self._doors is not None
        self._endpoints = Endpoints(stream, self._doors)
        with run.errors():
            await self._endpoints.open()

    async def _until_ready(self) -> None:
        """Wait for the kernel's hello. Raises StreamLost if the container ends first."""
        ready = asyncio.create_task(self.spec.ready.wait())
        try:
            await asyncio.wait({ready, self.exited}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self.spec.ready.is_set():
            raise StreamLost("the container has ended")

    async def join(self) -> bool:
        """Take over the container that an earlier owner of the session left.

        False if it does not run any more. Raises DockerError.
        """
        self._container = await asyncio.to_thread(
            containers.find, self.spec.run.container_name, self.spec.run.engine
        )
        if self._container is None:  # it ended by itself
            await asyncio.to_thread(containers.remove_containers, self.spec.run.session_id)
            return False
        self.spec.shares.joined(
            self._container
        )  # its volume goes with it, even if it is paused and of no use
        if self._container.status != "running":
            return False
        manager: Any = self.parent
        self._settle()
        self.connection_info = manager.get_connection_info()
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await self._there(self._connect_again())
        except (OSError, KernelError):
            return False
        return True

    async def _there(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something where the stream lives."""
        loop = self.spec.loop
        if loop is None or loop is asyncio.get_running_loop():
            await work
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    async def leave(self) -> None:
        """Hang up. The container of a kept session stays. Idempotent."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await self._there(self._hang_up(stream))

    async def _hang_up(self, stream: Stream) -> None:
        endpoints, self._endpoints = self._endpoints, None
        if endpoints is not None:
            await endpoints.close()
        # The first process of one whose kernel is up hears it, unless others may come: then it ends, which
        # costs less than a kill.
        self._ends = self.spec.ready.is_set() and not self.spec.run.idle
        stream.close()

    async def _start_failure(self) -> RLMError:
        stream, end, words = self._stream, None, ""
        if stream is None:
            end = Ended(lost=True)
        else:
            words = stream.words()
            if stream.lost.done():
                end = await asyncio.shield(self.exited)
        await loops.to_its_end(self.cleanup())
        if end is None:
            return KernelError(
                f"The kernel did not start within {self.spec.start_timeout:.0f} s.\n{words}".strip(),
                hint=CHECK,
            )
        return replace(end, words=end.words or words).as_it_started(self.spec.memory)

    async def poll(self) -> int | None:
        if self.exited.done():
            return self._status(self.exited.result())
        return None if self._container is not None else 0

    async def wait(self) -> int | None:
        return self._status(await asyncio.shield(self.exited)) if self._container is not None else 0

    @staticmethod
    def _status(end: Ended) -> int:
        return _UNKNOWN if end.status is None else end.status

    async def send_signal(self, signum: int) -> None:
        if signum == _SIGINT:
            await self.interrupt()
        else:
            await self._signal(signum)

    async def interrupt(self) -> None:
        """What Ctrl-C is in a terminal: the container's first process passes it on to the kernel and all that
        it has started.
        """
        if self._stream is not None:
            await self._there(self._interrupt(self._stream))

    async def _interrupt(self, stream: Stream) -> None:
        stream.interrupt()

    async def kill(self, restart: bool = False) -> None:
        await self._signal(_SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self._signal(_SIGKILL)  # nothing inside is worth a farewell

    async def _signal(self, signum: int) -> None:
        from docker.errors import APIError
        from requests.exceptions import RequestException

        if self._container is not None and not self.exited.done():
            with contextlib.suppress(
                APIError, RequestException
            ):  # it ended by itself in the meantime, or the engine did
                await in_daemon(self._container.kill, int(signum))

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the container, even one whose creation was interrupted. Idempotent."""
        await self._discard()
        if not restart and self._doors is not None:
            self._doors.close()
            self._doors = None

    async def _discard(self) -> None:
        if self._creation is not None:
            with contextlib.suppress(Exception):
                self._container = await asyncio.shield(self._creation)
        await self.leave()
        if self._container is not None:
            if not (self._ends and await in_daemon(is_gone_soon, self._container, END_SECONDS)):
                await in_daemon(remove_container, self._container)
            if self.spec.shares.sent:
                with contextlib.suppress(Exception):  # the engine is gone
                    await in_daemon(self.spec.shares.ended, self._container.client)
            self._container.client.close()
            room.ended()
        self._container = self._creation = None
        self._ends = False

    async def shutdown_requested(self, restart: bool = False) -> None:
        await self.kill(restart)


def _start(container: Container) -> None:
    with docker_errors():
        container.start()


def _ended(exited: asyncio.Future[Ended], end: Ended) -> None:
    if not exited.done():
        exited.set_result(end)

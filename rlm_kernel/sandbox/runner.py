"""Runs one cell at a time on a kernel that is up, and always comes back.

Every wait is raced against the kernel's death and the cell's time-out. The end of a cell is both its reply
(shell) and `status: idle` (iopub) for the same request; iopub may lag, and a flood may lose its messages.

Other clients may use the kernel too: a cell of ours waits for theirs, so its time counts from
`execute_input`, when the kernel takes it up. What iopub says in answer to others is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlm_contract import VARIABLES

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox.channels import MAX_IOPUB, Channel, Channels
from rlm_kernel.sandbox.ended import Ended
from rlm_kernel.sandbox.kernel_says import Message, Reply, cell_ended, variables
from rlm_kernel.sandbox.outputs import OutputCollector

IDLE_GRACE = 5.0
"""Seconds that iopub may lag behind the reply."""
_LOST_GRACE = 0.2
"""The same behind a reply that was lost."""
_STEP = 0.1
"""Seconds at least between two looks at how long a cell has run."""
_SETTLE_SECONDS = 0.5
"""Seconds in which a kernel that runs nothing answers."""
_LOST = "lost"
"""Status of a reply that will not come."""
EVALUATE_SECONDS = 30.0
"""In which the kernel gives the value of an expression of ours."""
_NUDGE_SECONDS = 0.5
"""In which it does so if no reply is lost."""
_WELCOME_SECONDS = 0.5
"""Seconds in which a kernel that is up welcomes who listens."""
_DEATH_SECONDS = 5.0
"""Seconds in which Docker says that a kernel has died whose sockets were closed."""


@dataclass
class RunState:
    """A cell in progress, and then its end as the kernel tells it."""

    collector: OutputCollector = field(default_factory=OutputCollector)
    status: Literal["ok", "error", "interrupted", "died"] = "died"
    execution_count: int | None = None
    variables: dict[str, str] | None = None
    timed_out: bool = False
    began: bool = False
    cut_off: bool = False
    """Code in the kernel closed the connection, or broke its protocol."""
    waited: float = 0.0
    """Seconds until the kernel took it up, as far as it `began`."""


class _Cell:
    """A cell of ours between its sending and its end, on the loop that made it."""

    def __init__(self, on_output: Callable[[OutputCollector], None]) -> None:
        self.state = RunState()
        self._on_output = on_output
        self._sent = time.monotonic()
        self.early: Literal["", "stopped", "timed out"] = ""
        """Why the kernel was interrupted before it was heard that the cell had begun."""
        self.hit = False
        """It ended by an interrupt, as it says."""
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.replied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.request: str | None = None
        """The id of the request; nothing that the kernel says answers it before it was sent."""

    def ask(self, request: str) -> None:
        """It was sent, as the request of that id."""
        self.request = request
        self.idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(self, kind: str, content: Mapping[Any, Any]) -> None:
        """Take an iopub message that answers it."""
        if kind == "execute_input" and not self.began.done():
            self.state.began, self.state.waited = True, time.monotonic() - self._sent
            self.began.set_result(None)
        elif kind == "status":
            if cell_ended(kind, content) and not self.idle.done():
                self.idle.set_result(None)
        else:
            self.state.collector.add(kind, content)
            self._on_output(self.state.collector)


class CellRunner:
    """Speaks the Jupyter protocol with one kernel.

    Owned by one task; `interrupt` may be called from another of the same loop.

    Use: wait_until_listening, run …, close. `on_other` hears the iopub messages that answer other clients.
    `signal` sends the kernel a SIGINT, by a way that does not need its GIL.
    """

    def __init__(
        self,
        channels: Channels,
        exited: asyncio.Future[Ended],
        signal: Callable[[], Awaitable[None]],
        on_other: Callable[[Message], None],
    ) -> None:
        self._channels = channels
        self._exited = exited
        self._signal = signal
        self._on_other = on_other
        self._interrupts = asyncio.Event()
        self._cell: _Cell | None = None
        self._awaited: tuple[str, asyncio.Future[Reply]] = ("", asyncio.get_running_loop().create_future())
        """The id of the request that is to be answered, and its reply."""
        self._nudges: set[str] = set()
        """Ids of the requests that were sent behind it."""
        self._listening: asyncio.Task[None] = asyncio.create_task(self._welcomed())

    async def wait_until_listening(self, timeout: float) -> None:
        """Wait for the kernel's welcome on iopub, or another word of it there, after which no output is lost.

        Raises KernelError.
        """
        deadline = time.monotonic() + timeout
        await _first(min(timeout, _WELCOME_SECONDS), self._listening, self._exited)
        while not _any(self._listening, self._exited) and (left := deadline - time.monotonic()) > 0:
            # A kernel that publishes something at the moment somebody subscribes forgets the welcome: ZeroMQ
            # tells of it once, and the sending takes that. Any request makes the kernel publish its status.
            self._channels.control.send(self._channels.session.msg("kernel_info_request", {}))
            await _first(min(left, _WELCOME_SECONDS), self._listening, self._exited)
        if not self._listening.done() or self._listening.exception():
            raise KernelError(
                "The kernel's container runs, but its kernel does not answer.",
                hint="`rlm doctor` checks the installation.",
            )
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Listen no more, and close the channels."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._channels.close()

    async def _welcomed(self) -> None:
        await self._channels.iopub.next()

    async def _listen(self) -> None:
        """Read as long as the kernel lives.

        Fails with what a listener raises, which fails the cell in progress or the next.
        """
        shell = asyncio.create_task(self._read(self._channels.shell, self._hear_reply))
        iopub = asyncio.create_task(self._read(self._channels.iopub, self._hear))
        try:
            await _first(None, shell, iopub)
            for reader in (shell, iopub):
                if reader.done():
                    reader.result()
            # A connection was closed, which a kernel's death does a little before one hears of it.
            await _first(_DEATH_SECONDS, self._exited)
        finally:
            shell.cancel()
            iopub.cancel()
            await asyncio.gather(shell, iopub, return_exceptions=True)

    async def _read(self, channel: Channel, hear: Callable[[Message | None], None]) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                hear(await channel.next())

    def _hear(self, message: Message | None) -> None:
        if message is None:
            if self._cell is not None:
                self._cell.state.collector.leave_out(MAX_IOPUB)
            return
        if self._cell is not None and message.request == self._cell.request:
            self._cell.hear(message.kind, message.content)
        elif message.session != self._channels.session.session:
            self._on_other(message)

    def _hear_reply(self, message: Message | None) -> None:
        request, reply = self._awaited
        if reply.done():
            return
        if message is None:  # too large; it may be the one
            reply.set_result(Reply(status="error"))
        elif message.request == request:
            reply.set_result(Reply.part(message.content))
        elif message.request in self._nudges:
            # The kernel takes requests in their order. So it is through with ours, and an interrupt hit it as
            # it was about to reply.
            reply.set_result(Reply(status=_LOST))

    def interrupt(self) -> None:
        """End the cell in progress as at a time-out. No-op when idle."""
        self._interrupts.set()

    async def run(
        self,
        cell_id: str,
        code: str,
        *,
        timeout: float | None,
        grace: float,
        on_output: Callable[[OutputCollector], None],
        on_interrupt: Callable[[], None] = lambda: None,
        paused: Callable[[], float] = lambda: 0.0,
    ) -> RunState:
        """Run code to an end.

        On time-out or interrupt: SIGINT in the kernel, then `grace` seconds; after these the state is `died`.

        `timeout` counts from when the kernel takes the cell up, without the seconds that `paused` tells.
        Other clients' cells before it have as long; then they are interrupted. `on_interrupt` is called as
        soon as the cell itself is.
        """
        cell = self._cell = _Cell(on_output)
        self._interrupts.clear()
        done = asyncio.create_task(self._follow(cell, cell_id, code))
        stop = asyncio.create_task(self._interrupts.wait())
        try:
            await self._see_through(cell, done, stop, timeout, grace, on_interrupt, paused)
            if self._listening.done():
                self._listening.result()
                cell.state.cut_off = not done.done() and not self._exited.done()
            if not done.done() and self._exited.done():
                # What it printed before it died may still be on its way.
                await _first(0.2, done)
        finally:
            stop.cancel()
            if not done.done():
                done.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await done
            self._cell = None
        if done.done() and not done.cancelled():
            done.result()
            if (
                cell.early and cell.hit
            ):  # it was the one that ran, and had begun unheard: the thread that tells of it needs the GIL
                cell.state.timed_out, cell.state.waited = (
                    cell.state.timed_out or cell.early == "timed out",
                    0.0,
                )
            if cell.state.status == "error" and (cell.state.timed_out or self._interrupts.is_set()):
                cell.state.status = "interrupted"
        return cell.state

    async def _see_through(
        self,
        cell: _Cell,
        done: asyncio.Task[None],
        stop: asyncio.Task[Any],
        timeout: float | None,
        grace: float,
        on_interrupt: Callable[[], None],
        paused: Callable[[], float],
    ) -> None:
        over = (done, self._exited, self._listening)
        await _first(timeout, cell.began, stop, *over)
        if not _any(cell.began, *over):
            cell.early = "stopped" if stop.done() else "timed out"
            await self._interrupt(grace, cell.began, *over)
        if not _any(*over) and cell.began.done():
            await _timed(timeout, paused, stop, *over)
            if not _any(*over):
                cell.state.timed_out = not stop.done()
                on_interrupt()
                await self._interrupt(grace, cell.replied, *over)
                if cell.replied.done():  # it has stopped; what it said before may still be on its way
                    await _first(None, *over)

    async def settle(self, grace: float) -> bool:
        """Bring the kernel to rest: whatever runs in it is interrupted.

        False if it does not stop within `grace` seconds.
        """
        reply = asyncio.create_task(self._ask("", "", {}, silent=True))
        over = (reply, self._exited, self._listening)
        await _first(_SETTLE_SECONDS, *over)
        if not _any(*over):
            await self._interrupt(grace, *over)
        at_rest = reply.done()
        reply.cancel()
        return at_rest

    async def evaluate(self, expression: str) -> Any:
        """The same as `evaluate_all`, of one expression; None if it fails."""
        return (await self.evaluate_all({"value": expression})).get("value")

    async def evaluate_all(self, expressions: dict[str, str]) -> dict[str, Any]:
        """The values of Python literals that expressions of ours give in the kernel, still to be read; none
        of those that fail, or where all take longer than EVALUATE_SECONDS.

        An interrupt of the cell before may hit the kernel as late as it answers this: then it is asked again.
        """
        deadline = time.monotonic() + EVALUATE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            reply = asyncio.create_task(self._ask("", "", expressions, silent=True))
            over = (reply, self._exited, self._listening)
            try:
                await _first(min(left, _NUDGE_SECONDS), *over)
                if not _any(*over):
                    self._nudge()
                    await _first(deadline - time.monotonic(), *over)
            finally:
                if not reply.done():
                    reply.cancel()
            if not reply.done() or reply.cancelled():
                return {}
            if reply.result().status != _LOST:
                return reply.result().user_expressions
        return {}

    async def _ask(
        self,
        cell_id: str,
        code: str,
        expressions: dict[str, str],
        *,
        silent: bool = False,
        cell: _Cell | None = None,
    ) -> Reply:
        """Have the kernel execute something; its reply."""
        while True:
            message = self._request(cell_id, code, expressions, silent=silent)
            if cell is not None:
                cell.ask(message["header"]["msg_id"])
            self._awaited, self._nudges = (
                (message["header"]["msg_id"], asyncio.get_running_loop().create_future()),
                set(),
            )
            self._channels.shell.send(message)
            reply = await self._awaited[1]
            if reply.status != "aborted":
                return reply
            # Another client's cell raised an error, and with it the kernel dropped all that was waiting.
            await asyncio.sleep(0.05)

    def _request(
        self, cell_id: str, code: str, expressions: dict[str, str], *, silent: bool = False
    ) -> dict[str, Any]:
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": expressions,
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message: dict[str, Any] = self._channels.session.msg(
            "execute_request", content, metadata={"cellId": cell_id}
        )
        return message

    async def _interrupt(self, grace: float, *until: asyncio.Future[Any]) -> None:
        """Interrupt what runs, and wait for one of `until`, so many seconds."""
        deadline = time.monotonic() + grace
        await self._signal()
        while not _any(*until) and (left := deadline - time.monotonic()) > 0:
            if left < grace / 2:
                # Code that catches everything may have caught it: a further one gets through that, one level
                # each.
                await self._signal()
            # A top-level await sleeps on through an interrupt until its loop has something else to do: keep
            # nudging it.
            self._nudge()
            await _first(min(left, 0.3), *until)

    def _nudge(self) -> None:
        """Ask something behind what is asked: its reply wakes a sleeping loop, and tells of a lost reply."""
        nudge = self._channels.session.msg("kernel_info_request", {})
        self._nudges.add(nudge["header"]["msg_id"])
        self._channels.shell.send(nudge)

    async def _follow(self, cell: _Cell, cell_id: str, code: str) -> None:
        reply = await self._ask(cell_id, code, {"variables": VARIABLES}, cell=cell)
        cell.replied.set_result(None)
        await _first(IDLE_GRACE if reply.status != _LOST else _LOST_GRACE, cell.idle, self._listening)
        cell.state.status = "ok" if reply.status == "ok" else "error"
        cell.hit = reply.ename == "KeyboardInterrupt"
        cell.state.execution_count = reply.execution_count
        cell.state.variables = variables(reply.user_expressions.get("variables"))


async def _first(timeout: float | None, *awaited: asyncio.Future[Any]) -> None:
    """Wait until one is done, or for so many seconds. Cancels nothing."""
    await asyncio.wait(awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _timed(timeout: float | None, paused: Callable[[], float], *awaited: asyncio.Future[Any]) -> None:
    """Wait until one is done, or for so many seconds and those that `paused` tells besides."""
    started = time.monotonic()
    while not _any(*awaited):
        left = None if timeout is None else timeout + paused() - (time.monotonic() - started)
        if left is not None and left <= 0:
            return
        await _first(None if left is None else max(left, _STEP), *awaited)


def _any(*awaited: asyncio.Future[Any]) -> bool:
    return any(future.done() for future in awaited)

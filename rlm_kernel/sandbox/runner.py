"""Runs one cell at a time on a kernel that is up, and always comes back.

Every wait is raced against the kernel's death and the cell's time-out. The end of a cell is both its reply (shell) and `status: idle`
(iopub) for the same request; iopub may lag, and a flood may lose its messages.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox.outputs import OutputCollector, execution_count

MAX_MESSAGE = 64 << 20
"""Bytes of one message from the kernel; ZMQ closes the connection on a larger one."""
IDLE_GRACE = 5.0
"""Seconds that iopub may lag behind the reply."""
_VARIABLES = "__import__('rlm_runtime.api', fromlist=['api']).SHOW_VARS()"


def zmq_context() -> zmq.asyncio.Context:
    """A context for the kernel's sockets.

    They never reconnect: the host connects once, when the kernel is up and before any cell runs, so that code in a cell cannot put a
    link in a socket's place for the host to follow.
    """
    context = zmq.asyncio.Context()
    context.setsockopt(zmq.RECONNECT_IVL, -1)
    context.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
    context.setsockopt(zmq.RCVHWM, 100)
    context.setsockopt(zmq.SNDTIMEO, 1000)  # a send to a kernel that is gone would block the loop
    context.setsockopt(zmq.LINGER, 0)
    return context


@dataclass
class RunState:
    """A cell in progress, and then its end as the kernel tells it."""

    collector: OutputCollector = field(default_factory=OutputCollector)
    status: Literal["ok", "error", "interrupted", "died"] = "died"
    execution_count: int | None = None
    variables: dict[str, str] | None = None
    timed_out: bool = False


class CellRunner:
    """Speaks the Jupyter protocol with one kernel. Owned by one task; `interrupt` may be called from another of the same loop."""

    def __init__(self, client: AsyncKernelClient, exited: asyncio.Future[int]) -> None:
        self._client = client
        self._exited = exited
        self._interrupts = asyncio.Event()
        self.malformed = 0
        """Messages that were no Jupyter messages."""

    async def wait_until_listening(self, timeout: float) -> None:
        """Wait for the kernel's welcome on iopub, after which no output is lost. Raises KernelError."""
        welcome = asyncio.create_task(self._welcomed())
        await _first(timeout, welcome, self._exited)
        if not welcome.done():
            welcome.cancel()
            raise KernelError("The kernel's container runs, but its kernel does not answer.", hint="`rlm doctor` checks the set-up.")

    async def _welcomed(self) -> None:
        while (await self._next(self._client.iopub_channel))["msg_type"] != "iopub_welcome":
            pass

    def interrupt(self) -> None:
        """End the cell in progress as at a time-out. No-op when idle."""
        self._interrupts.set()

    async def run(
        self, cell_id: str, code: str, *, timeout: float | None, grace: float, on_output: Callable[[OutputCollector], None]
    ) -> RunState:
        """Run code to an end. On time-out or interrupt: SIGINT in the kernel, then `grace` seconds; after these the state is `died`."""
        state = RunState()
        self._interrupts.clear()
        message = self._request(cell_id, code, {"variables": _VARIABLES})
        self._send(self._client.shell_channel, message)
        cell = asyncio.create_task(self._follow(message["header"]["msg_id"], state, on_output))
        stop = asyncio.create_task(self._interrupts.wait())
        try:
            await _first(timeout, cell, stop, self._exited)
            if not cell.done() and not self._exited.done():
                state.timed_out = not stop.done()
                await self._interrupt(cell, grace)
            if not cell.done() and self._exited.done():
                # What it printed before it died may still be on its way.
                await _first(0.2, cell)
        finally:
            stop.cancel()
            if not cell.done():
                cell.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await cell
        if cell.done() and not cell.cancelled():
            cell.result()
            if state.status == "error" and (state.timed_out or self._interrupts.is_set()):
                state.status = "interrupted"
        return state

    async def evaluate(self, expression: str) -> Any:
        """The value of a Python literal that an expression of ours gives in the kernel; None if that fails."""
        message = self._request("", "", {"value": expression}, silent=True)
        self._send(self._client.shell_channel, message)
        reply = asyncio.create_task(self._reply(message["header"]["msg_id"]))
        await _first(30, reply, self._exited)
        if not reply.done():
            reply.cancel()
            return None
        return _literal(reply.result(), "value")

    def _request(self, cell_id: str, code: str, expressions: dict[str, str], *, silent: bool = False) -> dict[str, Any]:
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": expressions,
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message: dict[str, Any] = self._client.session.msg("execute_request", content, metadata={"cellId": cell_id})
        return message

    async def _interrupt(self, cell: asyncio.Task[None], grace: float) -> None:
        self._send(self._client.control_channel, self._client.session.msg("interrupt_request", {}))
        deadline = asyncio.get_running_loop().time() + grace
        while not cell.done() and not self._exited.done() and (left := deadline - asyncio.get_running_loop().time()) > 0:
            # A top-level await sleeps on through an interrupt until its loop has something else to do: keep nudging it.
            self._send(self._client.shell_channel, self._client.session.msg("kernel_info_request", {}))
            await _first(min(left, 0.3), cell, self._exited)

    def _send(self, channel: Any, message: dict[str, Any]) -> None:
        with contextlib.suppress(zmq.Again):  # the kernel is gone: `exited` will say so
            channel.send(message)

    async def _follow(self, msg_id: str, state: RunState, on_output: Callable[[OutputCollector], None]) -> None:
        idle = asyncio.create_task(self._collect(msg_id, state.collector, on_output))
        try:
            content = await self._reply(msg_id)
            await _first(IDLE_GRACE, idle)
            state.status = "ok" if content.get("status") == "ok" else "error"
            state.execution_count = execution_count(content)
            found = _literal(content, "variables")
            state.variables = found if isinstance(found, dict) else None
        finally:
            idle.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await idle

    async def _next(self, channel: Any) -> dict[str, Any]:
        """The next well-formed message. Code in a cell knows the session's key and can send anything."""
        while True:
            try:
                message: dict[str, Any] = await channel.get_msg(timeout=None)
                if isinstance(message["content"], dict) and isinstance(message["parent_header"], dict):
                    return message
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                pass
            self.malformed += 1

    async def _reply(self, msg_id: str) -> dict[str, Any]:
        while True:
            message = await self._next(self._client.shell_channel)
            if message["parent_header"].get("msg_id") == msg_id:
                content: dict[str, Any] = message["content"]
                return content

    async def _collect(self, msg_id: str, collector: OutputCollector, on_output: Callable[[OutputCollector], None]) -> None:
        while True:
            message = await self._next(self._client.iopub_channel)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "status":
                if message["content"].get("execution_state") == "idle":
                    return
                continue
            collector.add(message["msg_type"], message["content"])
            on_output(collector)


def _literal(content: dict[str, Any], name: str) -> Any:
    """The value of a user expression in a reply. It comes from the kernel: anything odd is None."""
    try:
        text = content["user_expressions"][name]["data"]["text/plain"]
        return ast.literal_eval(text) if len(text) < 200_000 else None
    except (KeyError, TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return None


async def _first(timeout: float | None, *awaited: asyncio.Future[Any]) -> None:
    """Wait until one is done, or for so many seconds. Cancels nothing."""
    await asyncio.wait(awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

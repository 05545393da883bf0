"""The host's end of host calls: a ZMQ ROUTER on a unix socket in the read-only mount.

All that arrives is hostile: a request is one JSON frame of bounded size and exact shape, with the session's token and the id of the cell
that is running; anything else is counted and dropped, or answered with an error. At most `MAX_IN_FLIGHT` requests are worked on at once;
beyond that the socket is simply not read, and the kernel waits. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import zmq
import zmq.asyncio
from pydantic import BaseModel, ConfigDict, Field

from rlm_kernel.engine.protocols import MODEL_CALLS, HostCall, HostCallHandler
from rlm_kernel.errors import CallCancelled, RLMError
from rlm_kernel.sandbox.rundir import RunDir, own

MAX_REQUEST = 64 << 20
"""Bytes of one request: a prompt or an answer of about that many characters."""
MAX_IN_FLIGHT = 1024
UNTIMED = "rlm_query"
"""Kind of calls whose time is not the cell's: what is asked for has limits of its own."""
_CANCELLED = "This call was cancelled, because its cell was interrupted or has ended."
_log = logging.getLogger(__name__)


class Request(BaseModel):
    """A host call as it arrives."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: Annotated[str, Field(max_length=64)]
    cell: Annotated[str, Field(max_length=64)]
    call: Annotated[str, Field(max_length=80, pattern=r"^[0-9-]+$")]
    nth: Annotated[int, Field(ge=0)] = 0
    kind: Annotated[str, Field(max_length=32)]
    body: dict[str, Any]


class Broker:
    """Answers the host calls of one session. `refused` counts what was turned away, by reason."""

    def __init__(self, run: RunDir, handlers: Mapping[str, HostCallHandler]) -> None:
        self._run = run
        self.handlers = dict(handlers)
        """One for each kind of host call."""
        self._tasks: dict[asyncio.Task[None], Request] = {}
        self._serving: asyncio.Task[None] | None = None
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket | None = None
        self.ready = asyncio.Event()
        self.cell: str | None = None
        """The cell in progress; calls in another's name are refused. None between cells."""
        self._interrupted = False
        self._closing = False
        self._untimed = 0
        self._untimed_since = 0.0
        self._untimed_seconds = 0.0
        self.any_cell = False
        """Nobody here knows which cell runs (Jupyter runs them), so that calls are answered whatever cell they name."""
        self.refused: Counter[str] = Counter()

    def begin(self, cell: str) -> None:
        """A cell starts."""
        self.cell, self._interrupted, self._untimed_seconds = cell, False, 0.0
        self._untimed_since = time.monotonic()

    async def end(self) -> None:
        """The cell in progress has ended: its calls are dropped."""
        self.cell = None
        await self.cancel_calls()

    def interrupt(self) -> None:
        """The cell in progress is interrupted: its calls are dropped now, and it makes no more that cost something."""
        self._interrupted = True
        for task in self._tasks:
            task.cancel()

    def untimed(self) -> float:
        """Seconds of the cell in which child RLMs worked for it."""
        return self._untimed_seconds + (time.monotonic() - self._untimed_since if self._untimed else 0.0)

    async def start(self) -> None:
        """Bind the socket and serve. Call before the container starts."""
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST + 4096)
        socket.setsockopt(zmq.RCVHWM, 64)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(f"ipc://{self._run.broker_socket}")
        self._run.broker_socket.chmod(0o600)
        own(self._run.broker_socket)
        self._socket = socket
        self._serving = asyncio.create_task(self._serve(socket))

    async def stop(self) -> None:
        """Cancel what is in flight and close. Idempotent."""
        self._closing = True
        if self._serving is not None:
            self._serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
            self._serving = None
        await self.cancel_calls()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._context.term()

    async def cancel_calls(self) -> None:
        """Drop all calls in flight: who waits for one is told that it was cancelled."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            if len(self._tasks) >= MAX_IN_FLIGHT:
                await asyncio.wait(list(self._tasks), return_when=asyncio.FIRST_COMPLETED)
            frames = await socket.recv_multipart()
            request = self._accept(frames)
            if request is None:
                continue
            if request.kind == "cancel":
                self._cancel(request.body.get("calls"))
                continue
            task = asyncio.create_task(self._answer(socket, frames[0], request))
            self._tasks[task] = request
            task.add_done_callback(self._tasks.pop)

    def _cancel(self, calls: Any) -> None:
        """Drop calls that nobody waits for any more."""
        given_up = {call for call in calls if isinstance(call, str)} if isinstance(calls, list) else set()
        for task, request in self._tasks.items():
            if request.call in given_up:
                task.cancel()

    def _accept(self, frames: list[bytes]) -> Request | None:
        if len(frames) != 2:
            self.refused["frames"] += 1
            return None
        try:
            # Not model_validate_json: it refuses lone surrogates, and the cell would wait for ever for its reply.
            request = Request.model_validate(json.loads(frames[1]))
        except (ValueError, RecursionError):
            self.refused["shape"] += 1
            return None
        if not hmac.compare_digest(request.token.encode(), self._run.token.encode()):
            self.refused["token"] += 1
            return None
        return request

    async def _answer(self, socket: zmq.asyncio.Socket, peer: bytes, request: Request) -> None:
        reply: dict[str, Any] = {"call": request.call}
        try:
            payload = json.dumps(reply | {"ok": True, "value": await self._handle(request)})
        except RLMError as error:
            payload = json.dumps(reply | {"ok": False, "error": {"type": error.in_cell, "message": str(error)}})
        except asyncio.CancelledError:
            # A thread may wait for it, and with it the cell that was interrupted.
            if self._closing:
                raise
            payload = json.dumps(reply | {"ok": False, "error": {"type": "Cancelled", "message": _CANCELLED}})
        except Exception as error:  # a defect of ours must not hang the cell
            _log.exception("host call failed")
            message = f"internal error: {type(error).__name__}"
            payload = json.dumps(reply | {"ok": False, "error": {"type": "HostCallError", "message": message}})
        with contextlib.suppress(zmq.ZMQError):  # the asker is gone
            await socket.send_multipart([peer, payload.encode()])

    async def _handle(self, request: Request) -> Any:
        if request.kind == "hello":
            self.ready.set()
            return None
        if not self.any_cell and (self.cell is None or request.cell != self.cell):
            self.refused["cell"] += 1
            raise RLMError(
                "Calls to the host (llm_query, load_file, budget, FINAL …) are answered only while the model's cell runs, and only those "
                "of that cell: a person's cell has none, and none may outlive its cell."
            )
        handler = self.handlers.get(request.kind)
        if handler is None:
            self.refused["kind"] += 1
            raise RLMError("There is no such host call.")
        call = HostCall(request.cell, request.call, request.body, request.nth)
        if request.kind not in MODEL_CALLS:
            return await handler(call)
        if self._interrupted:
            raise CallCancelled(_CANCELLED)
        if request.kind != UNTIMED:
            return await handler(call)
        self._time(+1)
        try:
            return await handler(call)
        finally:
            self._time(-1)

    def _time(self, change: int) -> None:
        now = time.monotonic()
        if self._untimed:
            self._untimed_seconds += now - self._untimed_since
        self._untimed, self._untimed_since = self._untimed + change, now

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
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import zmq
import zmq.asyncio
from pydantic import BaseModel, ConfigDict, Field

from rlm_kernel.engine.protocols import HostCall, HostCallHandler
from rlm_kernel.errors import RLMError
from rlm_kernel.sandbox.rundir import RunDir, own

MAX_REQUEST = 64 << 20
"""Bytes of one request: a prompt or an answer of about that many characters."""
MAX_IN_FLIGHT = 512
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket | None = None
        self.ready = asyncio.Event()
        self.cell: str | None = None
        """The cell in progress; calls in another's name are refused. None between cells."""
        self.any_cell = False
        """Nobody here knows which cell runs (Jupyter runs them), so that calls are answered whatever cell they name."""
        self.refused: Counter[str] = Counter()

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
        """Drop all calls in flight, unanswered: their cell was interrupted or their kernel died."""
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
            task = asyncio.create_task(self._answer(socket, frames[0], request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

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
        return await handler(HostCall(request.cell, request.call, request.body, request.nth))

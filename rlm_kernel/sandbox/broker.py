"""The host's end of host calls, on channels that code in the container opens.

All that arrives is hostile. A request is the sizes of its head and its body, a head of exact shape, with the
session's token and the id of the cell that is running, and a body, which is read only then: a JSON object of
bounded size and perhaps pictures behind it, or a piece of what is handed over. Anything else is counted and
passed over, or answered with an error. So many requests at once are worked on, and so many bytes of them;
others are not read, and the kernel waits. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rlm_contract import SIZE, SIZES

from rlm_kernel import bounded
from rlm_kernel.engine.protocols import TOLD_CALLS, HostCall, HostCallHandler, ReplyText
from rlm_kernel.errors import BudgetExceeded, CallCancelled, ModelError, NoAnswer, NoRecord, RLMError
from rlm_kernel.sandbox.child_input import MAX_PIECE, Spool
from rlm_kernel.sandbox.kernel_says import Cancelled, Head
from rlm_kernel.sandbox.rundir import RunDir
from rlm_kernel.sandbox.stream import Channel

MAX_REQUEST = 16 << 20
"""Bytes of one request: a prompt or an answer of about that many characters."""
MAX_IN_FLIGHT = 1024
MAX_BYTES = 48 << 20
"""Bytes of the requests in flight and the replies that are not yet sent; passed by no more than the last
request and its reply.
"""
MAX_GIVEN_UP = 16_384
"""Calls of one cell that were given up before they were read, and are remembered as such."""
_MAX_HEAD = 4096
_SMALL = 16 << 10
"""Bytes of a body that is read at once. Larger ones are read one after the other."""
_LIMITS = dict.fromkeys((*TOLD_CALLS, "final"), MAX_REQUEST) | {
    "cancel": 128 << 10,
    "hello": 1 << 10,
    "received": 1 << 10,
    "planned": 1 << 10,
    "hand": MAX_PIECE,
    "unhand": 0,
}
"""Bytes of a body, by kind."""
_LIMIT = 1 << 20
"""Bytes of a body of any other kind."""
_AT_ONCE = ("cancel", "received", "planned")
"""Kinds that calls in flight wait for, or who watches them: they wait for no room."""
_RAW = ("hand", "unhand")
"""Kinds whose body is no JSON, and that have no reply."""
_BODY_SECONDS = 10.0
"""In which a large body has to come, once its turn is there."""
_LAST_REPLY_SECONDS = 1.0
"""In which who is told that its call was cancelled has to read that."""
_CANCELLED = "This call was cancelled, because its cell was interrupted or has ended."
_log = logging.getLogger(__name__)


class Broker:
    """Answers the host calls of one session. `refused` counts what was turned away, by reason."""

    def __init__(self, run: RunDir, handlers: Mapping[str, HostCallHandler]) -> None:
        self._run = run
        self.handlers = dict(handlers)
        """One for each kind of host call."""
        self._tasks: dict[asyncio.Task[None], Head] = {}
        self._spool = Spool(run.spool)
        self._connections: set[asyncio.Task[None]] = set()
        self._large = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._replying: set[asyncio.Task[None]] = set()
        """Of `_tasks` those whose answer is on its way: given up half-way it would cost its reader the
        connection.
        """
        self._bytes = 0
        self._room = asyncio.Event()
        self.ready = asyncio.Event()
        self.cell: str | None = None
        """The cell in progress; calls in another's name are refused. None between cells."""
        self._interrupted = False
        self._given_up: set[str] = set()
        """Ids of calls that were given up before they were read: what tells us of it comes by another
        connection.
        """
        self._closing = False
        self._paused = 0
        self._paused_since = 0.0
        self._paused_seconds = 0.0
        self.any_cell = False
        """Nobody here knows which cell runs (Jupyter runs them), so that calls are answered whatever cell
        they name. A person reads what comes of them.
        """
        self.asking_seconds: Callable[[], float] = lambda: 0.0
        """Seconds so far in which the user was asked whether calls may be made: code is told, for the
        time-outs of its batches.
        """
        self.refused: Counter[str] = Counter()

    def begin(self, cell: str) -> None:
        """A cell starts."""
        self.cell, self._interrupted, self._paused_seconds = cell, False, 0.0
        self._paused_since = time.monotonic()
        self._given_up.clear()

    async def end(self) -> None:
        """The cell in progress has ended: its calls are dropped."""
        self.cell = None
        await self.cancel_calls()
        if self._spool.holds:
            await asyncio.to_thread(self._spool.clear)

    def interrupt(self) -> None:
        """The cell in progress is interrupted: its calls are dropped now, and it makes no more that cost
        something.
        """
        self._interrupted = True
        self._drop(list(self._tasks))

    def paused_seconds(self) -> float:
        """Seconds of the cell in which calls did what is not of its time (`HostCall.pause_timer`)."""
        return self._paused_seconds + (time.monotonic() - self._paused_since if self._paused else 0.0)

    def accept(self, channel: Channel) -> None:
        """Serve what is asked on a channel, until it ends."""
        task = asyncio.create_task(self._serve(channel))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def stop(self) -> None:
        """Cancel what is in flight and close. Idempotent."""
        self._closing = True
        await self.cancel_calls()
        await _cancelled(list(self._connections))

    async def cancel_calls(self) -> None:
        """Drop all calls in flight: who waits for one is told that it was cancelled."""
        tasks = list(self._tasks)
        self._drop(tasks)
        if tasks:
            _, unread = await asyncio.wait(tasks, timeout=_LAST_REPLY_SECONDS)
            await _cancelled(list(unread))

    async def _serve(self, peer: Channel) -> None:
        try:
            while True:
                await self._request(peer)
        except TimeoutError:
            self.refused["slow"] += 1
        except OSError:
            pass  # it has gone
        finally:
            peer.close()

    async def _request(self, peer: Channel) -> None:
        """Read a request and set about answering it. Raises OSError, TimeoutError."""
        first, size = SIZES.unpack(await peer.read(SIZES.size))
        if first > _MAX_HEAD:
            raise self._misframed()
        head = self._head(await peer.read(first))
        error = self._refusal(head, size) if head is not None else None
        if head is None or error is not None:
            await peer.skip(size)
            if head is not None and error is not None and head.kind not in _RAW:
                await _reply(peer, _failure(head, error, brief=self.any_cell))
            return
        async with self._large if size > _SMALL else contextlib.nullcontext():
            body = await _body(peer, size)
            if head.kind in _RAW:
                await self._hand(head, body)
                return
            async with (
                self._turn if head.kind not in _AT_ONCE else contextlib.nullcontext()
            ):  # one at most is parsed and waits
                error = await self._take(peer, head, body)
        if error is not None:
            await _reply(peer, _failure(head, error, brief=self.any_cell))

    async def _hand(self, head: Head, piece: bytes | bytearray) -> None:
        """Keep what is handed over to a child, until that is asked for."""
        if head.kind == "unhand":
            await asyncio.to_thread(self._spool.drop, head.call)
        elif not await asyncio.to_thread(self._spool.add, head.call, piece):
            self.refused["handed"] += 1

    def _misframed(self) -> ConnectionError:
        """What costs its sender the connection: it may go on for ever."""
        self.refused["frames"] += 1
        return ConnectionError("no request")

    def _head(self, frame: bytes | bytearray) -> Head | None:
        head = Head.parse(frame)
        if head is None:
            self.refused["shape"] += 1
            return None
        if not hmac.compare_digest(head.token.encode("utf-8", "replace"), self._run.token.encode()):
            self.refused["token"] += 1
            return None
        return head

    def _refusal(self, head: Head, size: int) -> RLMError | None:
        """Why the body of a request is not even read."""
        limit = _LIMITS.get(head.kind, _LIMIT)
        if size > limit:
            self.refused["size"] += 1
            return RLMError(f"A {head.kind} request has a body of at most {limit:,} bytes.")
        if head.kind == "hello":
            return None
        if not self.any_cell and (self.cell is None or head.cell != self.cell):
            self.refused["cell"] += 1
            return RLMError(
                "Calls to the host (llm_query, load_file, budget, FINAL …) are answered only while the "
                "model's cell runs, and only those "
                "of that cell: a person's cell has none, and none may outlive its cell."
            )
        if head.call in self._given_up:
            self._given_up.discard(head.call)
            return CallCancelled(_CANCELLED)
        if head.kind not in ("cancel", *_RAW) and head.kind not in self.handlers:
            self.refused["kind"] += 1
            return RLMError("There is no such host call.")
        return None

    async def _take(self, peer: Channel, head: Head, frame: bytes | bytearray) -> RLMError | None:
        """Parse a body and, as soon as there is room, have it worked on. Or else why not."""
        try:
            body = _parsed(frame, head.images)
        except ValueError as wrong:
            self.refused["shape"] += 1
            return RLMError(
                f"This {head.kind} request cannot be taken: {wrong}. Send less, or as text (json.dumps)."
            )
        if head.kind == "cancel":
            self._cancel(set(Cancelled.part(body).calls))
            return None
        if head.kind == "planned":
            with contextlib.suppress(RLMError):  # nobody waits for a reply
                await self._handle(head, body)
            return None
        if head.kind in _AT_ONCE:
            await self._answer(peer, head, body)
            return None
        size = bounded.size_of(body)
        while not self._has_room(head, size):
            self._room.clear()
            await self._room.wait()
        error = self._refusal(head, 0)  # its cell may have ended
        if error is None:
            self._start(peer, head, body, size)
        return error

    def _has_room(self, head: Head, size: int) -> bool:
        # The answers to these are large: one at a time.
        if head.kind == "history" and any(other.kind == head.kind for other in self._tasks.values()):
            return False
        return not self._tasks or (len(self._tasks) < MAX_IN_FLIGHT and self._bytes + size <= MAX_BYTES)

    def _start(self, peer: Channel, head: Head, body: dict[str, Any], size: int) -> None:
        def done(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            self._bytes -= size
            self._room.set()

        self._bytes += size
        task = asyncio.create_task(self._answer(peer, head, body))
        self._tasks[task] = head
        task.add_done_callback(done)

    def _cancel(self, given_up: set[str]) -> None:
        """Drop calls that nobody waits for any more."""
        tasks = {head.call: task for task, head in self._tasks.items() if head.call in given_up}
        self._drop(list(tasks.values()))
        self._given_up.update(itertools.islice(given_up - tasks.keys(), MAX_GIVEN_UP - len(self._given_up)))

    def _drop(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            if task not in self._replying:
                task.cancel()

    async def _answer(self, peer: Channel, head: Head, body: dict[str, Any]) -> None:
        try:
            value = await self._handle(head, body)
            more: dict[str, Any] = {"cut": value.cut} if isinstance(value, ReplyText) else {}
            if asking := self.asking_seconds():
                more["asking"] = asking
            reply = json.dumps({"call": head.call, "ok": True, "value": value, **more}).encode()
        except RLMError as error:
            reply = _failure(head, error, brief=self.any_cell, asking=self.asking_seconds())
        except asyncio.CancelledError:
            # A thread may wait for it, and with it the cell that was interrupted.
            if self._closing:
                raise
            reply = _failure(head, CallCancelled(_CANCELLED))
        except Exception as error:  # a defect of ours must not hang the cell
            _log.exception("host call failed")
            reply = _failure(head, RLMError(f"internal error: {type(error).__name__}"))
        task = asyncio.current_task()
        assert task is not None
        self._replying.add(task)
        self._bytes += len(reply)
        try:
            with contextlib.suppress(OSError):  # the asker is gone
                await _reply(peer, reply)
        finally:
            self._bytes -= len(reply)
            self._replying.discard(task)

    async def _handle(self, head: Head, body: dict[str, Any]) -> Any:
        if head.kind == "hello":
            self.ready.set()
            return None
        handler = self.handlers[head.kind]
        call = HostCall(head.cell, head.call, body, head.nth, self._standing_still)
        if head.kind in TOLD_CALLS and self._interrupted:
            raise CallCancelled(_CANCELLED)
        return await handler(call)

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """The cell's clock, meanwhile."""
        self._time(+1)
        try:
            yield
        finally:
            self._time(-1)

    def _time(self, change: int) -> None:
        now = time.monotonic()
        if self._paused:
            self._paused_seconds += now - self._paused_since
        self._paused, self._paused_since = self._paused + change, now


def _parsed(frame: bytes | bytearray, sizes: Sequence[int]) -> dict[str, Any]:
    """A body: its JSON, and under "images" the pictures behind it as bytes, which JSON has none of.

    Raises ValueError.
    """
    end = len(frame) - sum(sizes)
    if end < 0:
        raise ValueError("it ends within a picture")
    body = bounded.parse(frame[:end] if sizes else frame)
    if not isinstance(body, dict):
        raise ValueError("it is no object")
    if sizes:
        places = itertools.accumulate(sizes, initial=end)
        with memoryview(frame) as view:
            body["images"] = [bytes(view[low:high]) for low, high in itertools.pairwise(places)]
    return body


async def _body(peer: Channel, size: int) -> bytes | bytearray:
    if size <= _SMALL:
        return await peer.read(size)
    async with asyncio.timeout(_BODY_SECONDS):
        return await peer.read(size)


async def _reply(peer: Channel, reply: bytes) -> None:
    await peer.write(SIZE.pack(len(reply)), reply)


def _failure(head: Head, error: RLMError, *, brief: bool = False, asking: float = 0.0) -> bytes:
    """The reply with an error. `brief`: a person sees it, and no model; not of what stands in a recording,
    which is shown as it was. `asking`: as of the reply.
    """
    told: dict[str, Any] = {"type": error.in_cell, "message": str(error)}
    if brief and isinstance(error, BudgetExceeded | ModelError | NoAnswer | NoRecord):
        told["brief"] = True
    more = {"asking": asking} if asking else {}
    return json.dumps({"call": head.call, "ok": False, "error": told, **more}).encode()


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

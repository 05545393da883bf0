"""The answers of a trace's host calls, found again by cell, digest and number, and given in the order in
which they came then.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rlm_kernel.engine.protocols import CANCELLED, CallRecord, HostCall
from rlm_kernel.trace.reader import TraceCell, code_digest
from rlm_kernel.trace.schema import CallMeta, CellMeta

PATIENCE = 0.5
"""Seconds without any answer after which a recorded call that does not come is no longer waited for."""
RECEIPT = 0.1
"""Seconds at most that an answer to another thread waits until the one before it has been received, so that
threads go on in that order.
"""
LATENCY = 0.02
"""Seconds at most that a call which was not alone takes again: time in which the code that made it went on
then.
"""
_NOT_ANSWERED = ("file", "final")
"""Kinds that are done anew: where a file lies differs from container to container.

A file that was refused then is refused again, in its cell: it may have been named since.
"""
_NOT_SENT = "not asked: the time-out of the whole batch was over"
_SHORT_DIGEST = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _InOrder:
    """Lets calls through in the order of their numbers, and waits for none that does not come."""

    def __init__(self) -> None:
        self._next = 0
        self._passed: set[int] = set()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = 0
        self._timer: asyncio.TimerHandle | None = None
        self._given = ""
        self._has_it = asyncio.Event()

    async def turn(self, number: int, call_id: str) -> None:
        """Returns when it is this call's turn."""
        if number in self._passed and not self._waiting:
            self._next, self._passed = 0, set()  # the cell runs once more
        if number > self._next:
            future = asyncio.get_running_loop().create_future()
            self._ticket += 1
            heapq.heappush(self._waiting, (number, self._ticket, future))
            self._arm()
            await future
        if self._given and _thread(self._given) != _thread(call_id):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_it.wait(), RECEIPT)
        self._given = call_id
        self._has_it.clear()
        self._pass(number)

    def received(self, call_id: str) -> None:
        if call_id == self._given:
            self._has_it.set()

    def _pass(self, number: int) -> None:
        self._passed.add(number)
        while self._next in self._passed:
            self._next += 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and (self._waiting[0][0] <= self._next or self._waiting[0][2].done()):
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._skip)

    def _skip(self) -> None:
        """What is waited for does not come: the code is not what it was, or makes its calls in another
        order.
        """
        self._timer = None
        if self._waiting:
            self._next = max(self._next, self._waiting[0][0])
            self._wake()


_Wanted = Callable[[CellMeta, CallMeta], bool]


class _Calls:
    """The recorded calls of one cell, or of all, that are `wanted`: each has a place, in the order in which
    they ended.
    """

    def __init__(self, metas: Sequence[CellMeta], wanted: _Wanted) -> None:
        self.order = _InOrder()
        self._metas = metas
        self._where = array("q"), array("q")  # of each place the cell, and the call in it
        self._places: dict[str, list[int]] = {}
        self._occurrences: dict[str, dict[int, list[int]]] = {}
        self._turns: dict[tuple[str, int], int] = defaultdict(int)
        self._together: set[int] = set()
        started, seconds, counters = array("q"), array("d"), array("q")
        for cell, meta in enumerate(metas):
            for number, call in enumerate(meta.calls):
                if wanted(meta, call):
                    self._places.setdefault(call.prompt_digest, []).append(len(started))
                    self._where[0].append(cell)
                    self._where[1].append(number)
                    started.append((call.started - _EPOCH) // timedelta(microseconds=1))
                    seconds.append(call.seconds)
                    counters.append(_counter(call.id))
        self._in_order_asked(started, seconds, counters)

    def _in_order_asked(self, started: array[int], seconds: array[float], counters: array[int]) -> None:
        """Put those that asked the same into the order in which they were asked, and see which were under way
        together.
        """
        order = sorted(sorted(range(len(started)), key=counters.__getitem__), key=started.__getitem__)
        rank = array("q", bytes(8 * len(order)))
        last, ended = 0, -1
        for number, place in enumerate(order):
            rank[place] = number
            if started[place] < ended:
                self._together |= {last, place}
            if (end := started[place] + round(seconds[place] * 1e6)) > ended:
                last, ended = place, end
        for places in self._places.values():
            places.sort(key=rank.__getitem__)

    def _call(self, place: int) -> CallMeta:
        return self._metas[self._where[0][place]].calls[self._where[1][place]]

    def record(self, place: int) -> CallRecord:
        return self._call(place).record()

    def latency(self, place: int) -> float:
        """Seconds that a call is to take."""
        return min(LATENCY, self._call(place).seconds) if place in self._together else 0.0

    def find(self, digest: str, occurrence: int) -> int | None:
        """The place of the call that asked this, at that occurrence."""
        same = self._places.get(digest, [])
        if (
            digest not in self._occurrences
        ):  # numbered when it is first asked for: the same may have been asked many thousand times
            numbered: dict[int, list[int]] = {}
            for place in same:
                numbered.setdefault(self._call(place).nth, []).append(place)
            self._occurrences[digest] = numbered
        numbered = self._occurrences[digest]
        if occurrence not in numbered:
            # Records that were never counted are taken in the order in which they were asked.
            return same[occurrence] if occurrence < len(same) and set(numbered) == {0} else None
        # Forked processes count each for itself, so that several may have the same number: they take turns.
        turn = self._turns[digest, occurrence]
        self._turns[digest, occurrence] += 1
        return numbered[occurrence][turn % len(numbered[occurrence])]


class TraceRecording:
    """Implements `engine.protocols.Recording` over a trace's cells.

    Looking up uses nothing up: a cell can run as often as one likes.

    A cell whose record was lost by an edit (split, copied, its metadata dropped) is served from all cells'
    records. A call that had no answer when its cell was interrupted has none now, so that the cell can be
    interrupted again; without `waiting`, which is for a person who runs the cells, it fails at once.

    `going_on`: the run goes on behind the trace. Then cells that the trace does not have are new, and one
    that was cut off has its own records alone: what else they ask is for the models.
    """

    def __init__(self, cells: Iterable[TraceCell], *, waiting: bool = True, going_on: bool = False) -> None:
        self._waiting, self._going_on = waiting, going_on
        self._metas: dict[str, CellMeta | None] = {}
        self._edited: set[str] = set()
        self._by_code: dict[str, list[str]] = defaultdict(list)
        self._known: dict[str, _Calls] = {}
        for cell in cells:
            if cell.code:
                self._metas[cell.id] = cell.meta
                if cell.edited:
                    self._edited.add(cell.id)
                self._by_code[code_digest(cell.source)[:_SHORT_DIGEST]].append(cell.id)

    def has(self, cell: str) -> bool:
        return self.cell_id(cell) in self._metas

    async def find(self, call: HostCall, digest: str) -> CallRecord | None:
        name = self.cell_id(call.cell)
        cell = self._of(name)
        place = cell.find(digest, call.occurrence) if cell else None
        if cell is None or place is None:
            if self._going_on and self._is_new(name):
                return None
            place = self._all.find(digest, call.occurrence)
            found = self._never_read(call, name, digest) if place is None else self._all.record(place)
            return None if found is None else await self._ended(found)
        await asyncio.sleep(cell.latency(place))
        await cell.order.turn(place, call.id)
        return await self._ended(cell.record(place))

    def _never_read(self, call: HostCall, name: str, digest: str) -> CallRecord | None:
        """What a call had that is not recorded, in a cell whose calls were cut off; None in any other.

        The last answers came then as the cell was cut off, and its code did not go on from them: it made no
        such call. Now it has them in time.
        """
        meta = self._metas.get(name)
        if meta is None or name in self._edited or meta.status == "running":
            return None
        if meta.status != "ok" and any(map(_cancelled, meta.calls)):
            return _failed(call, digest, CANCELLED, None)
        return _failed(call, digest, _NOT_SENT, "TimedOut") if meta.batch_cut else None

    def _is_new(self, cell: str) -> bool:
        """Whether the trace does not have the cell, or not the whole of what it did."""
        meta = self._metas.get(cell)
        return cell not in self._metas or (meta is not None and meta.status == "running")

    def _of(self, cell: str) -> _Calls | None:
        """The calls of a cell, put in order when it first makes one."""
        if cell not in self._metas:
            return None
        if cell not in self._known:
            meta = self._metas[cell]
            self._known[cell] = _Calls([meta] if meta else [], _refusals_too if self._waiting else _answered)
        return self._known[cell]

    @cached_property
    def _all(self) -> _Calls:
        return _Calls([meta for meta in self._metas.values() if meta], _had_an_end)

    def received(self, cell: str, call_id: str) -> None:
        known = self._of(self.cell_id(cell))
        if known is not None:
            known.order.received(call_id)

    async def _ended(self, record: CallRecord) -> CallRecord:
        """The record; for ever nothing where there was no answer before the cell ended."""
        if self._waiting and _cancelled(record):
            await asyncio.get_running_loop().create_future()
        return record

    def cell_id(self, stated: str) -> str:
        """The id of the cell that a call states.

        A client without cell ids states the code's digest and how often it was run before
        (`rlm_runtime.wire.begin_cell`).
        """
        kind, _, rest = stated.partition("-")
        digest, _, run = rest.partition("-")
        same = self._by_code.get(digest) if kind == "code" and run.isdecimal() else None
        return same[min(int(run), len(same) - 1)] if same else stated


def _failed(call: HostCall, digest: str, error: str, error_type: str | None) -> CallRecord:
    made = CallRecord(call.id, "llm_query", digest, "", datetime.now(UTC), 0.0, occurrence=call.occurrence)
    return replace(made, error=error, error_type=error_type, calls=0)


def _answered(meta: CellMeta, call: CallMeta) -> bool:
    """Whether a call can be answered.

    Where the run itself was cut off in a cell, those that were cancelled are still to be made.
    """
    return call.kind not in _NOT_ANSWERED and not (meta.status == "running" and _cancelled(call))


def _had_an_end(meta: CellMeta, call: CallMeta) -> bool:
    return _answered(meta, call) and not _cancelled(call)


def _refusals_too(meta: CellMeta, call: CallMeta) -> bool:
    return _answered(meta, call) or (
        call.kind == "file" and call.error is not None and not (meta.status == "running" and _cancelled(call))
    )


def _cancelled(call: CallRecord | CallMeta) -> bool:
    return call.error is not None and call.error_type is None and call.error.startswith("cancelled")


def _thread(call_id: str) -> str:
    """Process and thread of a call's id."""
    return call_id.rpartition("-")[0]


def _counter(call_id: str) -> int:
    """The number at the end of a call's id, which counts up in its process."""
    last = call_id.rpartition("-")[2]
    return int(last) if last.isascii() and last.isdecimal() and len(last) < 18 else 0

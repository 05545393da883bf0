"""The model calls of a running cell, as the live view tells of them: how far a batch is, and which calls wait
for another attempt.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rlm_kernel.engine.approval import dollars
from rlm_kernel.engine.events import CallsPlanned
from rlm_kernel.engine.protocols import Retry
from rlm_kernel.engine.totals import counted, duration, fine_dollars

_SECONDS = 1.0
"""Time of a batch before which nothing is said of its pace."""
_LIKE = 2
"""Calls that must have ended before."""
MANY = 20
"""Calls of a batch from which on it is told before they are made."""
DEAR = 0.05
"""US dollars that a batch is expected to cost, likewise."""


@dataclass(frozen=True)
class Progress:
    """How far a batch is: `done` of `total` calls, of which `failed` gave no answer.

    `pace`: calls a second, and `left`: about how many seconds it takes still; None as long as too little is
    known. `spent` in US dollars, of the replies whose price is known; `cost`: about what all of it costs, by
    the engine's reckoning, or None.
    """

    total: int
    done: int
    failed: int
    pace: float | None
    left: float | None
    spent: float
    cost: float | None

    @property
    def speed(self) -> str:
        """`12/s`, `6.0/min`, or ""."""
        if self.pace is None:
            return ""
        return f"{self.pace:.0f}/s" if self.pace >= 1 else f"{self.pace * 60:.1f}/min"

    @property
    def time_left(self) -> str:
        """`about 15 s left`, or ""."""
        return "" if self.left is None else f"about {duration(math.ceil(self.left))} left"

    @property
    def money(self) -> str:
        """`$0.0123`, `$0.0123 of about $0.0400`, or "" where nothing is known."""
        spent = fine_dollars(self.spent)
        if self.cost:
            return f"{spent} of about {fine_dollars(self.cost)}"
        return spent if self.spent else ""


class Forecast:
    """What is told of a cell's batches before their calls are made. One for each cell."""

    def __init__(self) -> None:
        self._calls = 0
        self._cost = 0.0

    def line(self, planned: CallsPlanned) -> str:
        """`batch: 500 calls, about $1.20, limit $5`; "" where there is little to tell."""
        calls, cost = planned.calls - self._calls, (planned.cost or 0.0) - self._cost
        self._calls, self._cost = planned.calls, planned.cost or 0.0
        if calls <= 0 or (calls < MANY and cost <= DEAR):
            return ""
        about = [f"about {dollars(cost)}"] if cost else [] if planned.cost is not None else ["cost unknown"]
        limit = [f"limit {dollars(planned.limit)}"] if planned.limit is not None else []
        return ", ".join([f"batch: {counted(calls, 'call')}", *about, *limit])


class Batch:
    """Calls of one cell, counted from when none was under way.

    `planned`: how many there are in all, by the word of the cell's code.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Another cell."""
        self._begun = self._ended = self._failed = self._planned = 0
        self._cost: float | None = None
        self._before()

    def _before(self) -> None:
        """What is counted from here on is another batch."""
        self._first, self._failed_before, self._asked = self._ended, self._failed, 0
        self._spent = 0.0
        self._started = self._clock()

    def plan(self, calls: int, cost: float | None = None) -> None:
        if self._ended >= self._begun and calls > self._planned:
            self._before()
        self._planned, self._cost = calls, cost

    def started(self) -> None:
        if self._ended >= self._begun >= self._planned:
            self._before()
        self._begun += 1

    def ended(self, *, failed: bool, stored: bool, cost: float | None = None) -> None:
        """`stored`: it was not asked for, and says nothing of how long the others take."""
        self._ended += 1
        self._failed += failed
        self._asked += not stored
        self._spent += cost or 0.0

    @property
    def under_way(self) -> int:
        """Calls that have begun and not ended."""
        return self._begun - self._ended

    def progress(self) -> Progress | None:
        """None where no batch is under way."""
        if self._planned - self._first < 2:
            return None
        total, done = max(self._planned, self._begun) - self._first, self._ended - self._first
        if done >= total:
            return None
        seconds = self._clock() - self._started
        known = self._asked >= _LIKE and seconds >= _SECONDS
        pace = self._asked / seconds if known else None
        return Progress(
            total,
            done,
            self._failed - self._failed_before,
            pace,
            (total - done) / pace if pace else None,
            self._spent,
            self._cost,
        )

    def line(self) -> str:
        """How far it is; "" where there is nothing to tell."""
        progress = self.progress()
        if progress is None:
            alone = self._planned - self._first < 2 and self.under_way > 1
            return f"{self.under_way:,} calls under way" if alone else ""
        return ", ".join(
            filter(
                None,
                (
                    f"batch: {progress.done:,} of {progress.total:,} done",
                    f"{progress.failed:,} failed" if progress.failed else "",
                    progress.speed,
                    progress.time_left,
                ),
            )
        )


class Waiting:
    """Calls that failed and wait for their next attempt, by key.

    They come on one thread and are told on another. What is told costs the same however many wait.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: dict[str, tuple[Retry, float]] = {}
        self._reasons: Counter[str] = Counter()
        self._due: list[tuple[float, str]] = []
        """A heap of when the calls are made again; some wait no more."""

    def add(self, key: str, retry: Retry) -> None:
        with self._lock:
            self._drop(key)
            due = self._clock() + retry.seconds
            self._calls[key] = (retry, due)
            self._reasons[retry.reason] += 1
            heapq.heappush(self._due, (due, key))

    def drop(self, key: str) -> None:
        """It waits no more."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: str) -> None:
        if (call := self._calls.pop(key, None)) is not None:
            self._reasons[call[0].reason] -= 1

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
            self._reasons.clear()
            self._due.clear()

    def line(self) -> str:
        """Why how many wait, and until when; "" where none does."""
        with self._lock:
            now, soonest = self._clock(), self._soonest()
            if soonest is None:
                return ""
            soon = f"next in {max(1, math.ceil(soonest - now)):,} s"
            if len(self._calls) == 1:
                ((retry, _),) = self._calls.values()
                return f"{attempt(retry)}, {soon}"
            reasons = self._reasons.most_common(3)
        told = [
            f"{reason}: {counted(calls, 'call')} wait{'s' if calls == 1 else ''}"
            for reason, calls in reasons
            if calls
        ]
        return f"{'; '.join(told)}, {soon}"

    def _soonest(self) -> float | None:
        """When the first of those that wait is made again; those whose time has come wait no more."""
        now = self._clock()
        while self._due:
            due, key = self._due[0]
            waits = self._calls.get(key, (None, None))[1] == due
            if waits and due > now:
                return due
            if waits:
                self._drop(key)
            heapq.heappop(self._due)
        return None


def attempt(retry: Retry) -> str:
    """`rate-limited, attempt 3 of 5`."""
    return f"{retry.reason}, attempt {retry.attempt:,} of {retry.attempts:,}"

"""The model calls of a running cell, as the live view tells of them: how far a batch is, and which calls wait
for another attempt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from rlm_kernel.engine.approval import dollars
from rlm_kernel.engine.events import CallsPlanned
from rlm_kernel.engine.protocols import Retry
from rlm_kernel.engine.totals import counted, duration

_SECONDS = 1.0
"""Time of a batch before which nothing is said of its pace."""
_LIKE = 2
"""Calls that must have ended before."""


MANY = 20
"""Calls of a batch from which on it is told before they are made."""
DEAR = 0.05
"""US dollars that a batch is expected to cost, likewise."""


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
        about = f"about {dollars(cost)}" if planned.cost is not None else "cost unknown"
        limit = [f"limit {dollars(planned.limit)}"] if planned.limit is not None else []
        return ", ".join([f"batch: {counted(calls, 'call')}", about, *limit])


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
        self._before()

    def _before(self) -> None:
        """What is counted from here on is another batch."""
        self._first, self._failed_before, self._asked = self._ended, self._failed, 0
        self._started = self._clock()

    def plan(self, calls: int) -> None:
        if self._ended >= self._begun and calls > self._planned:
            self._before()
        self._planned = calls

    def started(self) -> None:
        if self._ended >= self._begun >= self._planned:
            self._before()
        self._begun += 1

    def ended(self, *, failed: bool, stored: bool) -> None:
        """`stored`: it was not asked for, and says nothing of how long the others take."""
        self._ended += 1
        self._failed += failed
        self._asked += not stored

    def line(self) -> str:
        """How far it is; "" where there is nothing to tell."""
        if self._planned - self._first < 2:
            under_way = self._begun - self._ended
            return f"{under_way:,} calls under way" if under_way > 1 else ""
        total, done, failed = (
            max(self._planned, self._begun) - self._first,
            self._ended - self._first,
            self._failed - self._failed_before,
        )
        if done >= total:
            return ""
        return ", ".join(
            [
                f"batch: {done:,} of {total:,} done",
                *([f"{failed:,} failed"] if failed else []),
                *self._pace(total - done),
            ]
        )

    def _pace(self, left: int) -> list[str]:
        seconds = self._clock() - self._started
        if self._asked < _LIKE or seconds < _SECONDS:
            return []
        pace = self._asked / seconds
        return [
            f"{pace:.0f}/s" if pace >= 1 else f"{pace * 60:.1f}/min",
            f"about {duration(math.ceil(left / pace))} left",
        ]


class Waiting:
    """Calls that failed and wait for their next attempt, by key."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls: dict[str, tuple[Retry, float]] = {}

    def add(self, key: str, retry: Retry) -> None:
        self._calls[key] = (retry, self._clock() + retry.seconds)

    def drop(self, key: str) -> None:
        """It waits no more."""
        self._calls.pop(key, None)

    def clear(self) -> None:
        self._calls.clear()

    def line(self) -> str:
        """Why how many wait, and until when; "" where none does."""
        now = self._clock()
        # Copies: the events come while another thread draws.
        late = [key for key, (_, due) in list(self._calls.items()) if due <= now]
        for key in late:
            self.drop(key)
        waiting = list(self._calls.values())
        if not waiting:
            return ""
        soon = f"next in {max(1, math.ceil(min(due for _, due in waiting) - now)):,} s"
        if len(waiting) == 1:
            return f"{attempt(waiting[0][0])}, {soon}"
        reasons = Counter(retry.reason for retry, _ in waiting).most_common(3)
        told = [
            f"{reason}: {counted(calls, 'call')} wait{'s' if calls == 1 else ''}" for reason, calls in reasons
        ]
        return f"{'; '.join(told)}, {soon}"


def attempt(retry: Retry) -> str:
    """`rate-limited, attempt 3 of 5`."""
    return f"{retry.reason}, attempt {retry.attempt:,} of {retry.attempts:,}"

"""Nodes with places for kernels, and sessions that wait for one: the simulation of `scale.py`."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

DAY = 86_400.0


@dataclass(frozen=True)
class Node:
    """A machine. `kept`: the part of its memory that is for no kernel, as rlm keeps it."""

    cores: int
    memory: float
    kept: float = 0.25

    def places(self, each: float) -> int:
        """Kernels of so many bytes that fit."""
        return math.floor(self.memory * (1 - self.kept) / each)


@dataclass(frozen=True)
class Costs:
    """Of a session: CPU seconds of its start and of the rest, and bytes of its kernel."""

    start: float
    run: float
    memory: float


@dataclass(frozen=True)
class Outcome:
    """What came of a simulation. `waits` (seconds from the question to a kernel that is ready) are sorted.

    `used`: the mean part of places that were taken, of CPU that was spent, in the whole time and in its
    busiest hour. `line`: the longest that it was.
    """

    waits: Sequence[float]
    used: float
    used_most: float
    cpu: float
    cpu_most: float
    line: int

    def wait(self, part: float) -> float:
        """That so many of the sessions did not pass."""
        return self.waits[min(len(self.waits) - 1, math.ceil(part * len(self.waits)) - 1)]


class _Cluster:
    """Nodes with places for kernels, and cores on which kernels start."""

    def __init__(self, nodes: int, node: Node, costs: Costs) -> None:
        self._start = costs.start
        self._free = [node.places(costs.memory)] * nodes
        self._order = [(-free, number) for number, free in enumerate(self._free)]
        heapq.heapify(self._order)
        self._cores = [[0.0] * node.cores for _ in range(nodes)]
        self.ends: list[tuple[float, int]] = []

    def take(self) -> int | None:
        """A place on the node that has the most."""
        while self._order:
            free, number = heapq.heappop(self._order)
            if -free == self._free[number] and -free > 0:
                self._free[number] -= 1
                heapq.heappush(self._order, (-self._free[number], number))
                return number
        return None

    def give_back(self) -> tuple[float, int]:
        """The place whose session ends first, and when."""
        when, number = heapq.heappop(self.ends)
        self._free[number] += 1
        heapq.heappush(self._order, (-self._free[number], number))
        return when, number

    def start(self, number: int, now: float, duration: float) -> float:
        """When the kernel is ready: a start keeps one core busy."""
        cores = self._cores[number]
        ready = max(now, heapq.heappop(cores)) + self._start
        heapq.heappush(cores, ready)
        heapq.heappush(self.ends, (ready + duration, number))
        return ready


def simulate(
    arrivals: Iterable[float], duration: Callable[[], float], nodes: int, node: Node, costs: Costs
) -> Outcome:
    """Sessions in the order in which they come, on so many nodes. Each waits for a place, then for a core.

    `duration`: seconds of a session after its start.
    """
    cluster = _Cluster(nodes, node, costs)
    line: deque[float] = deque()
    waits: list[float] = []
    taken, spent = _Hours(), _Hours()
    longest = 0

    def begin(number: int, asked: float, now: float) -> None:
        seconds = duration()
        ready = cluster.start(number, now, seconds)
        waits.append(ready - asked)
        taken.add(now, ready + seconds)
        spent.add(now, ready + seconds, costs.start + costs.run)

    def end_until(when: float) -> None:
        while cluster.ends and cluster.ends[0][0] <= when:
            now, _ = cluster.give_back()
            if line and (free := cluster.take()) is not None:
                begin(free, line.popleft(), now)

    for asked in arrivals:
        end_until(asked)
        if not line and (free := cluster.take()) is not None:
            begin(free, asked, asked)
        else:
            line.append(asked)
            longest = max(longest, len(line))
    end_until(math.inf)
    places = nodes * node.places(costs.memory)
    cores = nodes * node.cores
    return Outcome(
        sorted(waits),
        taken.mean / places,
        taken.most / places,
        spent.mean / cores,
        spent.most / cores,
        longest,
    )


class _Hours:
    """Sums what goes on, hour by hour."""

    def __init__(self) -> None:
        self._sums: dict[int, float] = {}

    def add(self, begin: float, end: float, amount: float | None = None) -> None:
        """So much in that time, evenly; by default its seconds."""
        each = 1.0 if amount is None else amount / (end - begin) if end > begin else 0.0
        at = begin
        while at < end:
            hour = int(at // 3600)
            until = min(end, (hour + 1) * 3600.0)
            self._sums[hour] = self._sums.get(hour, 0.0) + (until - at) * each
            at = until

    @property
    def most(self) -> float:
        return max(self._sums.values(), default=0.0) / 3600

    @property
    def mean(self) -> float:
        return sum(self._sums.values()) / (3600 * max(1, len(self._sums)))


def day(sessions: int, peak: float, random_numbers: random.Random) -> Iterator[float]:
    """When questions come in a day: at random, at noon `peak` times as often as in the mean (2 at most)."""
    most = sessions / DAY * peak
    now = 0.0
    while (now := now + random_numbers.expovariate(most)) < DAY:
        rate = sessions / DAY * (1 - (peak - 1) * math.cos(2 * math.pi * now / DAY))
        if random_numbers.random() * most < rate:
            yield now


def durations(
    own: Sequence[float], median: float, sigma: float, random_numbers: random.Random
) -> Callable[[], float]:
    """Seconds of a session: one of `own`, which were measured with models that answer at once, and what real
    models take beside, which is lognormal.
    """
    middle = math.log(median)
    return lambda: random_numbers.choice(own) + random_numbers.lognormvariate(middle, sigma)


def mean_duration(own: Sequence[float], median: float, sigma: float) -> float:
    return statistics.mean(own) + median * math.exp(sigma**2 / 2)

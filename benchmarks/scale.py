"""How many machines so many sessions a day take: measured costs of a session, and a simulation of nodes.

    python benchmarks/scale.py                      # from benchmarks/scale.json, as in docs/scale.md
    python benchmarks/scale.py --measure            # measures anew, and writes that file first

`--measure` runs sessions in containers, for some minutes; nothing else should run meanwhile. `--levels 64`
measures that many at once alone, and keeps the other figures. The simulation needs neither containers nor models. Its random numbers have a fixed seed.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_suffix(".json")
DAY = 86_400.0
GB = 1e9
SEED = 1


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


# What is printed


def per_session(figures: Mapping[str, Any]) -> str:
    """A table of what each session costs, by how many there are at once."""
    heads = ["sessions", "ready", "answered", "left", "start, s", "kernel at rest, MB", "at most, MB"]
    heads += [
        "host, MB",
        "descriptors",
        "CPU of a start: kernel, engine, host, s",
        "CPU in all: kernel, host, s",
    ]
    heads += ["notebook, beside it, journal, KB"]
    rows = []
    for one in figures["levels"]:
        rows.append(
            [
                f"{one['sessions']:.0f}",
                f"{one['at_once']:.0f}",
                f"{one['answered']:.0f}",
                f"{one['left']:.0f}",
                f"{one['start_seconds']:.1f}",
                f"{one['rest_memory'] / 1e6:.0f}",
                f"{one['run_memory'] / 1e6:.0f}",
                f"{one['host_memory'] / 1e6:.1f}",
                f"{one['descriptors']:.0f}",
                ", ".join(f"{one[f'start_{whose}_cpu']:.2f}" for whose in ("container", "engine", "host")),
                f"{one['run_container_cpu']:.2f}, {one['host_cpu']:.2f}",
                f"{one['notebook'] / 1e3:.0f}, {one['beside'] / 1e3:.0f}, {one['journal'] / 1e3:.0f}",
            ]
        )
    return _table(heads, rows)


def costs_of(figures: Mapping[str, Any], memory: float) -> Costs:
    """Of a session at the highest level that was measured, where the engine and the host share their work."""
    one = figures["levels"][-1]
    start = one["start_container_cpu"] + one["start_engine_cpu"] + one["start_host_cpu"]
    whole = one["run_container_cpu"] + one["start_engine_cpu"] + one["host_cpu"]
    return Costs(start, max(0.0, whole - start), memory)


def needs(figures: Mapping[str, Any], options: argparse.Namespace) -> str:
    """A table of what so many sessions a day take, by multiplication alone."""
    one = figures["levels"][-1]
    costs = costs_of(figures, 0)
    rate = options.sessions / DAY
    seconds = mean_duration(figures["seconds"], options.median, options.sigma)
    at_once = rate * seconds
    tokens = one["tokens_read"], one["tokens_written"]
    money = (tokens[0] * options.prices[0] + tokens[1] * options.prices[1]) / 1e6
    calls = one["root_calls"] + one["sub_calls"]
    disk = (one["notebook"] + one["beside"]) * options.sessions
    rows = [
        ["sessions", f"{rate:.1f} a second", f"{rate * options.peak:.1f} a second"],
        ["a session's seconds, in the mean", f"{seconds:.0f}", ""],
        ["sessions at once", f"{at_once:,.0f}", f"{at_once * options.peak:,.0f}"],
        *(
            [
                f"kernels' memory, {label}",
                f"{at_once * size / GB:,.0f} GB",
                f"{at_once * size * options.peak / GB:,.0f} GB",
            ]
            for label, size in (
                ("as used in a run", one["run_memory"]),
                ("with a limit of 512 MB each", 512 * 2**20),
                ("with the default limit of 2 GB each", 2 * 2**30),
            )
        ),
        [
            "hosts' memory (processes of rlm)",
            f"{at_once * one['host_memory'] / GB:,.1f} GB",
            f"{at_once * one['host_memory'] * options.peak / GB:,.1f} GB",
        ],
        [
            "hosts' descriptors",
            f"{at_once * one['descriptors']:,.0f}",
            f"{at_once * one['descriptors'] * options.peak:,.0f}",
        ],
        ["cores for starts", f"{rate * costs.start:.1f}", f"{rate * costs.start * options.peak:.1f}"],
        [
            "cores in all",
            f"{rate * (costs.start + costs.run):.1f}",
            f"{rate * (costs.start + costs.run) * options.peak:.1f}",
        ],
        ["model calls", f"{rate * calls:,.0f} a second", f"{rate * calls * options.peak:,.0f} a second"],
        [
            "tokens read",
            f"{rate * tokens[0] * 60 / 1e6:.1f} million a minute",
            f"{rate * tokens[0] * options.peak * 60 / 1e6:.1f} million a minute",
        ],
        ["tokens, read and written", f"{sum(tokens) * options.sessions / 1e9:.1f} billion a day", ""],
        [
            f"money, at ${options.prices[0]:g} and ${options.prices[1]:g} a million tokens",
            f"${money * options.sessions:,.0f} a day",
            "",
        ],
        ["traces", f"{disk / GB:,.0f} GB and {options.sessions * 2 / 1e6:.0f} million files a day", ""],
    ]
    return _table(["what", "in the mean", f"at the peak of {options.peak:g}"], rows)


def simulated(figures: Mapping[str, Any], options: argparse.Namespace) -> str:
    """A table of simulated days, by limit of memory and number of nodes."""
    node = Node(options.cores, options.node_memory * GB)
    rows = []
    for label, memory in (("2 GB", 2 * 2**30), ("512 MB", 512 * 2**20)):
        costs = costs_of(figures, memory)
        seconds = costs.start + mean_duration(figures["seconds"], options.median, options.sigma)
        wanted = options.sessions / DAY * options.peak * seconds / node.places(memory)
        for part in options.parts:
            nodes = max(1, round(wanted * part))
            numbers = random.Random(SEED)
            took = durations(figures["seconds"], options.median, options.sigma, numbers)
            outcome = simulate(day(options.sessions, options.peak, numbers), took, nodes, node, costs)
            rows.append(
                [
                    label,
                    f"{nodes}",
                    f"{nodes * node.places(memory):,}",
                    f"{outcome.used:.0%}, {outcome.used_most:.0%}",
                    f"{outcome.cpu:.0%}, {outcome.cpu_most:.0%}",
                    ", ".join(f"{outcome.wait(part):,.1f}" for part in (0.5, 0.99, 1.0)),
                    f"{outcome.line:,}",
                ]
            )
    heads = ["limit of a kernel", "nodes", "places", "places taken: day, busiest hour"]
    heads += ["CPU: day, busiest hour", "wait: half, 99 %, longest, s", "longest line"]
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


async def _measure(options: argparse.Namespace) -> None:
    """Measure the levels, and write each as soon as it is there; others that were measured before stay."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.scale_figures import measure

    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"levels": []}
    async for one in measure(options.levels, options.limit):
        if one["sessions"] == 1:
            known["seconds"] = one["seconds"]
            one["seconds"] = statistics.median(one["seconds"])
        kept = [other for other in known["levels"] if other["sessions"] != one["sessions"]]
        known["levels"] = sorted([*kept, one], key=lambda level: level["sessions"])
        FIGURES.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{one['sessions']:.0f} at once", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure a session's costs first")
    parser.add_argument(
        "--levels", type=int, nargs="+", default=(1, 2, 4, 8, 16, 32), help="sessions at once to measure"
    )
    parser.add_argument("--limit", default="300m", help="memory of a kernel, when measuring")
    parser.add_argument("--sessions", type=int, default=1_000_000, help="a day")
    parser.add_argument("--peak", type=float, default=2.0, help="the rate at noon, to that in the mean")
    parser.add_argument(
        "--median", type=float, default=60.0, help="seconds that the models take in a session"
    )
    parser.add_argument("--sigma", type=float, default=0.8, help="how far these seconds are spread")
    parser.add_argument("--prices", type=float, nargs=2, default=(0.25, 2.0), help="$ a million tokens")
    parser.add_argument("--cores", type=int, default=16, help="of a node")
    parser.add_argument("--node-memory", type=float, default=64.0, help="of a node, in GB")
    parser.add_argument("--parts", type=float, nargs="+", default=(0.8, 0.9, 1.0, 1.1, 1.25))
    options = parser.parse_args(arguments)
    if options.measure:
        asyncio.run(_measure(options))
    figures = json.loads(FIGURES.read_text())
    print(f"{per_session(figures)}\n\n{needs(figures, options)}\n\n{simulated(figures, options)}")


if __name__ == "__main__":
    main()

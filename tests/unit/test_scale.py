"""The simulation of benchmarks/scale.py: its arithmetic, by hand and by what queueing theory knows."""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale import FIGURES, PAGE, costs_of, needs, parsed, per_session, written
from benchmarks.scale_days import (
    DAY,
    Costs,
    Node,
    Outcome,
    day,
    durations,
    mean_duration,
    simulate,
)


def one_place(cores: int = 1) -> Node:
    return Node(cores, memory=1.0, kept=0.0)


def lasting(*seconds: float) -> Callable[[], float]:
    left = iter(seconds)
    return lambda: next(left)


def test_a_node_keeps_a_part_of_its_memory() -> None:
    assert Node(16, 64e9).places(2 * 2**30) == 22
    assert Node(16, 64e9, kept=0.0).places(64e9) == 1


def test_who_finds_no_place_waits_for_the_session_that_ends_first() -> None:
    outcome = simulate([0, 1, 2], lasting(10, 5, 1), 1, one_place(), Costs(0, 0, 1.0))
    assert outcome.waits == [0, 9, 13]
    assert outcome.line == 2
    assert outcome.wait(0.5) == 9
    assert outcome.wait(1.0) == 13


def test_kernels_start_one_after_the_other_where_there_is_one_core() -> None:
    node = Node(cores=1, memory=3.0, kept=0.0)
    outcome = simulate([0, 0, 0], lasting(100, 100, 100), 1, node, Costs(2, 0, 1.0))
    assert outcome.waits == [2, 4, 6]
    both = simulate([0, 0, 0], lasting(100, 100, 100), 1, Node(2, 3.0, 0.0), Costs(2, 0, 1.0))
    assert both.waits == [2, 2, 4]


def test_sessions_go_to_the_node_with_the_most_places_free() -> None:
    node = Node(cores=1, memory=2.0, kept=0.0)
    outcome = simulate([0, 0], lasting(9, 9), 2, node, Costs(1, 0, 1.0))
    assert outcome.waits == [1, 1], "both started on one node"


def test_what_is_used_is_counted_by_the_hour() -> None:
    hour = 3600.0
    outcome = simulate([0, hour], lasting(hour, hour / 2), 1, one_place(), Costs(0, 90.0, 1.0))
    assert (outcome.used, outcome.used_most) == (0.75, 1.0)
    assert outcome.cpu == pytest.approx(2 * 90 / (2 * hour))
    assert outcome.cpu_most == pytest.approx(90 / hour)


@pytest.mark.parametrize("servers", [1, 3])
def test_waits_are_those_of_a_queue_that_theory_knows(servers: int) -> None:
    numbers = random.Random(7)
    load, seconds = 0.7 * servers, 10.0
    times, now = list[float](), 0.0
    for _ in range(60_000):
        times.append(now := now + numbers.expovariate(load / seconds))
    node = Node(cores=1, memory=float(servers), kept=0.0)
    outcome = simulate(times, lambda: numbers.expovariate(1 / seconds), 1, node, Costs(0, 0, 1.0))
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    waits = last / (sum(load**n / math.factorial(n) for n in range(servers)) + last)  # Erlang's C
    assert statistics.mean(outcome.waits) == pytest.approx(waits * seconds / (servers - load), rel=0.1)
    assert outcome.used == pytest.approx(0.7, rel=0.03)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=40),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_every_session_begins_once_and_none_before_it_came(
    sessions: list[tuple[float, float]], nodes: int, places: int
) -> None:
    arrivals = sorted(when for when, _ in sessions)
    node = Node(cores=2, memory=float(places), kept=0.0)
    outcome = simulate(arrivals, lasting(*(took for _, took in sessions)), nodes, node, Costs(1, 0, 1.0))
    assert len(outcome.waits) == len(sessions)
    assert min(outcome.waits) >= 1 - 1e-9
    assert outcome.used_most <= 1 + 1e-9


def test_a_day_has_its_sessions_and_its_peak_at_noon() -> None:
    times = list(day(100_000, 2.0, random.Random(1)))
    assert len(times) == pytest.approx(100_000, rel=0.02)
    assert times == sorted(times)
    noon = sum(abs(when - DAY / 2) < 1_800 for when in times) / 3_600
    assert noon == pytest.approx(2 * 100_000 / DAY, rel=0.05)
    assert list(day(1_000, 2.0, random.Random(3))) == list(day(1_000, 2.0, random.Random(3)))


def test_durations_have_the_mean_that_needs_are_reckoned_with() -> None:
    took = durations([1.0, 3.0], 60.0, 0.8, random.Random(1))
    assert statistics.mean(took() for _ in range(100_000)) == pytest.approx(
        mean_duration([1.0, 3.0], 60.0, 0.8), rel=0.02
    )


def test_a_part_of_the_waits_is_never_outside_of_them() -> None:
    outcome = Outcome([1.0, 2.0, 3.0, 4.0], 0, 0, 0, 0, 0)
    assert [outcome.wait(part) for part in (0.25, 0.5, 0.99, 1.0)] == [1.0, 2.0, 4.0, 4.0]


def test_tables_are_made_of_the_figures_that_are_kept() -> None:
    figures = json.loads(FIGURES.read_text())
    costs = costs_of(figures, 5.0)
    assert costs.start > 0
    assert costs.run >= 0
    assert costs.memory == 5.0
    assert per_session(figures).count("\n") == len(figures["levels"]) + 1
    options = argparse.Namespace(sessions=86_400, peak=2.0, median=1e-9, sigma=0.0, prices=(1.0, 1.0))
    figures["seconds"] = [10.0]
    table = needs(figures, options)
    assert "| sessions | 1.0 a second | 2.0 a second |" in table
    assert "| sessions at the same time | 10 | 20 |" in table


def test_the_page_has_the_tables_of_the_figures_that_are_kept() -> None:
    figures, page = json.loads(FIGURES.read_text()), PAGE.read_text("utf-8")
    tables = {"costs": per_session(figures), "needs": needs(figures, parsed([]))}
    assert written(page, tables) == page, "python benchmarks/scale.py --write"

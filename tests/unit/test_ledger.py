from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Completion, Usage
from rlm_kernel.errors import BudgetExceeded


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reply(prompt: int = 0, completion: int = 0, cost: float | None = 0.0, cached: int = 0) -> Completion:
    return Completion("text", "m", Usage(prompt, completion, cached), cost)


def refusal(ledger: Ledger) -> str | None:
    """Reserve a call; the limit that refuses it."""
    try:
        ledger.reserve_call()
    except BudgetExceeded as refused:
        return refused.limit
    return None


@given(limit=st.integers(0, 20), tries=st.integers(0, 40))
def test_calls_never_exceed_their_limit(limit: int, tries: int) -> None:
    ledger = Ledger(Limits(calls=limit))
    refusals = [refusal(ledger) for _ in range(tries)]
    made = min(limit, tries)
    assert refusals == [None] * made + ["calls"] * (tries - made)
    assert ledger.totals().calls == made
    assert ledger.left()["calls"] == limit - made


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), st.integers(1, 300))
def test_tokens_pass_their_limit_by_no_more_than_the_call_in_flight(replies: list[tuple[int, int]], limit: int) -> None:
    ledger = Ledger(Limits(tokens=limit))
    for prompt, completion in replies:
        spent = ledger.totals().root_usage.total + ledger.totals().sub_usage.total
        assert refusal(ledger) == (None if spent < limit else "tokens")
        if spent < limit:
            ledger.settle("sub" if prompt % 2 else "root", reply(prompt, completion))


def test_turns_are_counted_and_refused() -> None:
    ledger = Ledger(Limits(turns=2))
    ledger.reserve_turn()
    ledger.reserve_turn()
    with pytest.raises(BudgetExceeded, match=r"limit of turns is reached: 2 of 2 used") as caught:
        ledger.reserve_turn()
    assert (caught.value.limit, ledger.totals().turns) == ("turns", 2)


def test_cost_is_refused_once_it_is_reached() -> None:
    ledger = Ledger(Limits(cost=0.5))
    ledger.reserve_call()
    ledger.settle("sub", reply(cost=0.5))
    for reserve in (ledger.reserve_call, ledger.reserve_turn):
        with pytest.raises(BudgetExceeded, match=r"0\.5 of 0\.5 US dollars used") as caught:
            reserve()
        assert caught.value.limit == "cost"


def test_seconds_are_refused_once_they_are_over() -> None:
    clock = Clock()
    ledger = Ledger(Limits(seconds=10), clock=clock)
    clock.now += 9.5
    ledger.reserve_turn()
    assert ledger.seconds_left() == 0.5
    clock.now += 1
    assert ledger.seconds_left() == 0
    with pytest.raises(BudgetExceeded, match=r"10\.5 of 10 s used") as caught:
        ledger.reserve_turn()
    assert caught.value.limit == "seconds"
    assert ledger.totals().seconds == 10.5


def test_a_refused_reservation_counts_nothing() -> None:
    ledger = Ledger(Limits(tokens=1))
    ledger.settle("root", reply(1))
    for reserve in (ledger.reserve_turn, ledger.reserve_call):
        with pytest.raises(BudgetExceeded):
            reserve()
    assert (ledger.totals().turns, ledger.totals().calls) == (0, 0)


def test_an_unknown_price_makes_the_cost_unknown_while_tokens_are_held() -> None:
    ledger = Ledger(Limits(tokens=15))
    ledger.settle("root", reply(5, 5, cost=1.0))
    assert ledger.totals().cost == 1.0
    ledger.settle("sub", reply(3, 2, cost=None, cached=2))
    totals = ledger.totals()
    assert totals.cost is None
    assert (totals.root_usage, totals.sub_usage) == (Usage(5, 5), Usage(3, 2, 2))
    with pytest.raises(BudgetExceeded):
        ledger.reserve_call()


def test_left_names_every_limit_and_is_never_negative() -> None:
    clock = Clock()
    ledger = Ledger(Limits(turns=3, calls=2, cost=1.0, tokens=100, seconds=10), clock=clock)
    assert ledger.left() == {"turns": 3, "calls": 2, "cost": 1.0, "tokens": 100, "seconds": 10}
    ledger.reserve_turn()
    ledger.reserve_call()
    ledger.settle("sub", reply(60, 70, cost=0.1 + 0.2))
    clock.now += 99
    assert ledger.left() == {"turns": 2, "calls": 1, "cost": 0.7, "tokens": 0, "seconds": 0}


def test_without_limits_nothing_is_refused_but_turns() -> None:
    ledger = Ledger(Limits())
    ledger.settle("root", reply(10**9, 10**9, cost=1e6))
    ledger.reserve_call()
    ledger.reserve_turn()
    assert ledger.left() == {"turns": 29, "calls": None, "cost": None, "tokens": None, "seconds": None}
    assert ledger.seconds_left() is None

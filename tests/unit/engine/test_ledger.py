from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Completion, Role, Shares, Totals, Usage
from rlm_kernel.engine.purse import LocalPurse
from rlm_kernel.errors import BudgetExceeded


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reply(
    prompt: int = 0, completion: int = 0, cost: float | None = 0.0, cached: int = 0, stored: bool = False
) -> Completion:
    return Completion("text", "m", Usage(prompt, completion, cached), cost, stored=stored)


async def call(
    ledger: Ledger, role: Role = "sub", used: Completion | None = None, *, chars: int = 10, last: bool = False
) -> str | None:
    """Make a call that takes a moment; the limit that refuses it."""
    try:
        async with ledger.call(role, chars, last=last) as made:
            await asyncio.sleep(0)
            made.settle(used or reply())
    except BudgetExceeded as refused:
        return refused.limit
    return None


def run(ledger: Ledger, *calls: Any) -> list[str | None]:
    """Calls one after the other."""

    async def each() -> list[str | None]:
        return [await call(ledger, *one) for one in calls]

    return asyncio.run(each())


@given(limit=st.integers(0, 20), tries=st.integers(0, 40))
def test_calls_never_exceed_their_limit(limit: int, tries: int) -> None:
    ledger = Ledger(Limits(calls=limit))
    made = min(limit, tries)
    assert run(ledger, *[("sub",)] * tries) == [None] * made + ["calls"] * (tries - made)
    assert ledger.totals().calls == made
    assert ledger.left()["calls"] == limit - made


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), st.integers(1, 300))
def test_tokens_pass_their_limit_by_no_more_than_the_call_in_flight(
    replies: list[tuple[int, int]], limit: int
) -> None:
    ledger = Ledger(Limits(tokens=limit))
    for prompt, completion in replies:
        spent = ledger.totals().sub_usage.total
        assert run(ledger, ("sub", reply(prompt, completion))) == [None if spent < limit else "tokens"]


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 64))
def test_a_flood_of_equal_calls_stops_at_the_limit_of_money_exactly(
    affordable: int, cents: int, at_once: int
) -> None:
    ledger = Ledger(Limits(cost=affordable * cents / 100))

    async def flood() -> list[str | None]:
        slots = asyncio.Semaphore(at_once)

        async def one() -> str | None:
            async with slots:
                return await call(ledger, "sub", reply(1, 1, cost=cents / 100))

        return await asyncio.gather(*(one() for _ in range(100)))

    refused = asyncio.run(flood())
    assert refused.count(None) == affordable
    assert set(refused) <= {None, "cost"}
    assert ledger.totals().cost == pytest.approx(affordable * cents / 100)


async def test_near_a_limit_a_call_waits_for_those_in_flight_and_is_not_refused_for_what_they_may_use() -> (
    None
):
    ledger = Ledger(Limits(cost=1.0))
    assert await call(ledger, "sub", reply(1, 1, cost=0.6)) is None  # the next may use 0.6, too
    async with ledger.call("sub", 10) as first:
        second = asyncio.create_task(call(ledger, "sub", reply(1, 1, cost=0.1)))
        await asyncio.sleep(0.01)
        assert not second.done()
        first.settle(reply(1, 1, cost=0.1))
    assert await second is None
    assert ledger.totals().cost == pytest.approx(0.8)


async def test_a_cancelled_call_holds_nothing_back() -> None:
    ledger = Ledger(Limits(cost=1.0, calls=2))
    entered = asyncio.Event()

    async def hang() -> None:
        async with ledger.call("sub", 10):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.wait_for(call(ledger, "sub", reply(1, 1, cost=0.5)), 5) is None


async def give_up(ledger: Ledger, role: Role = "sub", *, chars: int = 10, sent: bool = True) -> None:
    """Make a call that has no reply before it is given up."""

    async def hang() -> None:
        async with ledger.call(role, chars) as made:
            if sent:
                made.sent()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hang(), 0.001)


async def test_a_call_that_is_given_up_on_its_way_counts_as_what_it_may_have_used() -> None:
    ledger = Ledger(Limits(cost=1.0, tokens=1000))
    await call(ledger, "sub", reply(90, 10, cost=0.1), chars=400)
    await give_up(ledger, chars=400)
    await give_up(ledger, chars=800)
    assert (ledger.left()["cost"], ledger.left()["tokens"]) == (pytest.approx(0.6), 600)
    assert (ledger.totals().cost, ledger.totals().sub_usage) == (0.1, Usage(90, 10)), (
        "the account has what is known"
    )
    await give_up(ledger, chars=400, sent=False)
    assert ledger.left()["tokens"] == 600


@pytest.mark.parametrize(
    ("prices", "heard", "cost", "tokens"),
    [
        ((10.0, 40.0), 0, 0.01, 1_000),
        ((10.0, 40.0), 100, 0.014, 1_100),
        (None, 0, 0.0, 1_000),  # nobody knows what it costs: limits of tokens hold
        (None, 100, 0.0, 1_100),
    ],
)
async def test_the_very_first_call_that_is_given_up_counts_as_its_prompt_and_what_came(
    prices: tuple[float, float] | None, heard: int, cost: float, tokens: int
) -> None:
    purse = LocalPurse()
    ledger = Ledger(Limits(), purse=purse)

    async def left_on_its_way() -> None:
        async with ledger.call("root", 1_000, prices=prices) as made:
            made.sent()
            made.heard(heard)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await left_on_its_way()
    totals = ledger.totals()
    assert (totals.lost_cost, totals.lost_tokens) == (pytest.approx(cost), tokens)
    assert (purse.spent.cost, purse.spent.tokens) == (pytest.approx(cost), tokens)
    assert totals.cost == 0.0, "the account has what is known"


async def test_a_first_call_that_still_waits_for_its_place_counts_nothing() -> None:
    purse = LocalPurse()
    ledger = Ledger(Limits(), purse=purse)
    with pytest.raises(asyncio.CancelledError):
        async with ledger.call("root", 1_000, prices=(10.0, 40.0)):
            raise asyncio.CancelledError
    assert (ledger.totals().lost_tokens, purse.spent.tokens, purse.spent.cost) == (0, 0, 0)


async def test_the_first_calls_that_are_given_up_count_as_turns_of_the_root_do() -> None:
    top = Ledger(Limits(tokens=10_000, depth=1))
    await call(top, "root", reply(900, 100), chars=4000)
    for ledger in (top, top.child()):
        await give_up(ledger, chars=100)
    assert top.left()["tokens"] == 10_000 - 3 * 1000 - 1000  # what is kept for the last answer, too


@pytest.mark.parametrize("known", [True, False])
async def test_before_the_first_sub_call_has_its_reply_others_go_beside_it_if_the_root_models_tell_what_they_may_use(
    known: bool,
) -> None:
    ledger = Ledger(Limits(tokens=10_000))
    await call(ledger, "root", reply(900, 100) if known else reply(0, 0), chars=4000)
    async with ledger.call("sub", 4000) as first:
        others = [asyncio.create_task(call(ledger, "sub", reply(10, 10), chars=4000)) for _ in range(20)]
        for _ in range(200):
            await asyncio.sleep(0)
        assert sum(other.done() for other in others) == (20 if known else 0)
        first.settle(reply(10, 10))
    assert set(await asyncio.gather(*others)) == {None}


async def test_a_longer_prompt_is_expected_to_cost_more() -> None:
    ledger = Ledger(Limits(tokens=1000))
    assert await call(ledger, "sub", reply(90, 10), chars=400) is None
    async with ledger.call("sub", 400) as first:
        long = asyncio.create_task(call(ledger, "sub", reply(900, 10), chars=4000))
        await asyncio.sleep(0.01)
        assert not long.done()  # ten times as long: 1,000 tokens, of which there are 800
        first.settle(reply(90, 10))
    assert await long is None


async def test_a_long_reply_to_a_short_prompt_does_not_hold_up_longer_prompts_that_use_less() -> None:
    ledger = Ledger(Limits(tokens=100_000))
    assert await call(ledger, "sub", reply(10, 4990), chars=10) is None
    assert await call(ledger, "sub", reply(3000, 1000), chars=10_000) is None
    async with ledger.call("sub", 10_000):
        assert await asyncio.wait_for(call(ledger, chars=10_000), 5) is None, (
            "5,000 tokens each, not 5,000,000"
        )


async def test_some_is_kept_for_the_last_answer_which_is_always_made() -> None:
    ledger = Ledger(Limits(cost=1.0))
    assert await call(ledger, "root", reply(1, 1, cost=0.05)) is None
    assert ledger.left()["cost"] == pytest.approx(0.9)
    assert await call(ledger, "sub", reply(1, 1, cost=0.9)) is None
    assert await call(ledger) == "cost"
    with pytest.raises(
        BudgetExceeded, match=r"0\.95 of 1 US dollars used, and 0\.05 kept for the last answer"
    ):
        ledger.check_turn()
    assert await call(ledger, "root", reply(1, 1, cost=0.05), last=True) is None
    assert ledger.totals().cost == pytest.approx(1.0)


def test_turns_are_counted_and_refused() -> None:
    ledger = Ledger(Limits(turns=2))
    for _ in range(2):
        ledger.check_turn()
        ledger.count_turn()
    with pytest.raises(BudgetExceeded, match=r"limit of turns is reached: 2 of 2 used") as caught:
        ledger.check_turn()
    assert (caught.value.limit, ledger.totals().turns) == ("turns", 2)


async def test_cost_is_refused_once_it_is_reached() -> None:
    ledger = Ledger(Limits(cost=0.5))
    assert await call(ledger, "sub", reply(cost=0.5)) is None
    assert await call(ledger) == "cost"
    with pytest.raises(BudgetExceeded, match=r"0\.5 of 0\.5 US dollars used"):
        ledger.check_turn()


async def test_code_that_is_refused_a_call_is_told_what_is_left() -> None:
    ledger = Ledger(Limits(turns=7, calls=1, cost=0.5))
    assert await call(ledger, "sub", reply(1, 1, cost=0.125)) is None
    with pytest.raises(BudgetExceeded) as refused:
        async with ledger.call("sub", 10):
            pass
    assert (
        str(refused.value)
        == "The limit of calls is reached: 1 of 1 used.\nLeft: 7 turns, 0 calls, 0.375 US dollars."
    )


def test_seconds_are_refused_once_they_are_over() -> None:
    clock = Clock()
    ledger = Ledger(Limits(seconds=10), clock=clock)
    clock.now += 9.5
    ledger.check_turn()
    assert ledger.seconds_left() == 0.5
    clock.now += 1
    assert ledger.seconds_left() == 0
    with pytest.raises(BudgetExceeded, match=r"10\.5 of 10 s used") as caught:
        ledger.check_turn()
    assert caught.value.limit == "seconds"
    assert ledger.totals().seconds == 10.5


async def test_a_refused_reservation_counts_nothing() -> None:
    ledger = Ledger(Limits(tokens=1))
    assert await call(ledger, "root", reply(1)) is None
    assert await call(ledger) == "tokens"
    with pytest.raises(BudgetExceeded):
        ledger.check_turn()
    assert (ledger.totals().turns, ledger.totals().calls) == (0, 0)


async def test_an_unknown_price_makes_the_cost_unknown_while_tokens_are_held() -> None:
    ledger = Ledger(Limits(tokens=15))
    assert await call(ledger, "root", reply(5, 5, cost=1.0)) is None
    assert ledger.totals().cost == 1.0
    assert await call(ledger, "sub", reply(3, 2, cost=None, cached=2)) is None
    totals = ledger.totals()
    assert (totals.cost, totals.known_cost, totals.unpriced) == (None, 1.0, 1)
    assert (totals.root_usage, totals.sub_usage) == (Usage(5, 5), Usage(3, 2, 2))
    assert await call(ledger) == "tokens"


async def test_left_names_every_limit_and_is_never_negative() -> None:
    clock = Clock()
    ledger = Ledger(Limits(turns=3, calls=2, cost=1.0, tokens=100, seconds=10, depth=2), clock=clock)
    assert ledger.left() == {"turns": 3, "calls": 2, "cost": 1.0, "tokens": 100, "seconds": 10, "depth": 2}
    ledger.count_turn()
    assert await call(ledger, "sub", reply(60, 70, cost=0.1 + 0.2)) is None
    clock.now += 99
    assert ledger.left() == {"turns": 2, "calls": 1, "cost": 0.7, "tokens": 0, "seconds": 0, "depth": 2}


async def test_without_limits_nothing_is_refused_but_turns() -> None:
    ledger = Ledger(Limits())
    assert await call(ledger, "root", reply(10**9, 10**9, cost=1e6)) is None
    assert await call(ledger) is None
    ledger.count_turn()
    assert ledger.left() == {
        "turns": 29,
        "calls": None,
        "cost": None,
        "tokens": None,
        "seconds": None,
        "depth": 0,
    }
    assert ledger.seconds_left() is None


async def test_each_limit_that_is_nearly_used_up_is_told_once() -> None:
    ledger = Ledger(Limits(cost=1.0, calls=10))
    assert ledger.newly_near() == []
    await call(ledger, "sub", reply(1, 1, cost=0.8))
    assert ledger.newly_near() == ["80% of the limit of cost are used: 0.8 of 1 US dollars."]
    assert ledger.newly_near() == []


async def test_replies_from_the_cache_are_counted_apart() -> None:
    ledger = Ledger(Limits())
    await call(ledger, "sub", reply(stored=True))
    await call(ledger)
    assert (ledger.totals().calls, ledger.totals().stored) == (2, 1)


# A tree


async def test_what_a_child_uses_counts_all_the_way_up_and_its_turns_as_calls() -> None:
    top = Ledger(Limits(turns=5, depth=2))
    child = top.child()
    grandchild = child.child()
    top.count_turn()
    await call(top, "root", reply(1, 1, cost=0.1))
    top.child()  # one that never begins counts nothing
    for ledger in (child, grandchild):
        ledger.begin()
        ledger.count_turn()
        await call(ledger, "root", reply(2, 1, cost=0.2))
        await call(ledger, "sub", reply(3, 1, cost=0.3))
    assert top.totals().turns == child.totals().turns == 1
    assert [ledger.calls for ledger in (top, child, grandchild)] == [4, 4, 2]
    assert [ledger.totals().calls for ledger in (top, child, grandchild)] == [4, 3, 1], (
        "its own turns are no calls to itself"
    )
    assert [ledger.totals().child_turns for ledger in (top, child, grandchild)] == [2, 1, 0]
    assert [ledger.totals().children for ledger in (top, child, grandchild)] == [2, 1, 0]
    assert [ledger.totals().cost for ledger in (top, child, grandchild)] == [
        pytest.approx(cost) for cost in (1.1, 1.0, 0.5)
    ]


async def test_limits_of_the_top_hold_for_the_whole_tree_and_none_grows_on_the_way_down() -> None:
    top = Ledger(Limits(turns=3, calls=3, cost=1.0, depth=1))
    first, second = top.child(), top.child()
    assert first.left() == top.left() | {"depth": 0}
    assert await call(first, "sub", reply(1, 1, cost=0.9)) is None
    assert await call(second, "root", reply(1, 1, cost=0.1)) is None
    for ledger in (top, first, second):
        assert await call(ledger) == "cost"
        with pytest.raises(BudgetExceeded):
            ledger.check_turn()
    with pytest.raises(BudgetExceeded, match="depth"):
        first.child()
    with pytest.raises(BudgetExceeded, match="cost"):
        top.child()


async def test_the_turns_of_children_are_bounded_by_the_limit_of_calls() -> None:
    top = Ledger(Limits(calls=2, depth=1))
    children = [top.child() for _ in range(3)]
    assert [await call(child, "root") for child in children] == [None, None, "calls"]
    with pytest.raises(BudgetExceeded, match="calls"):
        top.child()
    assert await call(top, "root") is None  # the root's own turns are no such calls


async def test_code_that_is_refused_a_child_is_told_what_is_left() -> None:
    top = Ledger(Limits(turns=3, calls=1, cost=1.0, depth=1))
    child = top.child()
    await call(top, "sub", reply(1, 1, cost=0.25))
    for refused in (top.child, child.check):
        with pytest.raises(
            BudgetExceeded, match=r"(?s)limit of calls.*Left: 3 turns, 0 calls, 0\.75 US dollars\."
        ):
            refused()


def test_what_an_earlier_part_of_the_run_used_counts() -> None:
    ledger = Ledger(
        Limits(cost=1.0), spent=Totals(turns=2, calls=3, known_cost=0.75, seconds=5.0), clock=Clock()
    )
    assert (ledger.totals().turns, ledger.totals().calls, ledger.totals().seconds) == (2, 3, 5.0)
    assert ledger.left()["cost"] == 0.25


def test_a_turn_counts_when_its_reply_is_there() -> None:
    ledger = Ledger(Limits())
    ledger.check_turn()
    assert ledger.totals().turns == 0, "one that is interrupted is asked for again"


async def test_calls_without_a_reply_are_counted_as_failed_here_and_above() -> None:
    top = Ledger(Limits(depth=1))
    child = top.child()
    child.begin()
    for ledger in (top, child):
        with pytest.raises(ValueError, match="no reply"):
            async with ledger.call("sub", 1):
                raise ValueError("no reply")
    with pytest.raises(ValueError, match="no reply"):
        async with top.call("root", 1):
            raise ValueError("no reply")
    assert (top.totals().calls, top.totals().failed) == (2, 2), "the root model's own are turns, and no calls"
    assert (child.totals().calls, child.totals().failed) == (1, 1)


async def test_what_was_given_up_counts_against_the_limits_of_who_goes_on() -> None:
    ledger = Ledger(Limits(tokens=100))
    await call(ledger, "sub", reply(20, 10, cost=0.5))

    async def given_up() -> None:
        async with ledger.call("sub", 1) as made:
            made.sent()
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await given_up()
    spent = ledger.totals()
    assert (spent.usage.total, spent.lost_tokens, spent.cost, spent.lost_cost) == (30, 30, 0.5, 0.5), (
        "known, and estimated"
    )
    assert Ledger(Limits(tokens=100), spent=spent).left()["tokens"] == 40


async def test_the_account_without_children_at_work_has_those_that_have_ended() -> None:
    top = Ledger(Limits(depth=2))
    await call(top, "sub", reply(1, 1, cost=0.1))
    child = top.child()
    child.begin()
    grandchild = child.child()
    grandchild.begin()
    for ledger in (child, grandchild):
        await call(ledger, "root", reply(2, 1, cost=0.2))
        ledger.count_turn()
        await call(ledger, "sub", reply(3, 1, cost=None))
    assert replace(top.closed(), seconds=0) == Totals(
        calls=1,
        sub_usage=Usage(1, 1),
        known_cost=pytest.approx(0.1),
        models=Shares.one("sub", calls=1, usage=Usage(1, 1), known_cost=pytest.approx(0.1)),
    )
    assert (child.closed().calls, child.closed().turns, child.closed().children) == (1, 1, 0)
    grandchild.end()
    grandchild.end()
    assert (child.closed().calls, child.closed().children, child.closed().child_turns) == (3, 1, 1)
    child.end()
    assert replace(top.closed(), seconds=0) == replace(top.totals(), seconds=0)
    assert (top.totals().calls, top.totals().child_turns, top.totals().children) == (5, 2, 2)


@pytest.mark.parametrize(
    ("under_way", "cost", "tokens"),
    [(True, 0.25 + 0.01, 50 + 1_000), (False, 0.25, 50)],
)
async def test_a_call_that_is_given_up_after_attempts_that_failed_counts_what_these_have_used_too(
    under_way: bool, cost: float, tokens: int
) -> None:
    purse = LocalPurse()
    ledger = Ledger(Limits(), purse=purse)

    async def given_up() -> None:
        async with ledger.call("root", 1_000, prices=(10.0, 40.0)) as made:
            made.sent()
            made.attempted(Usage(50, 0), 0.25)
            if under_way:
                made.sent()
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await given_up()
    totals = ledger.totals()
    assert (totals.lost_cost, totals.lost_tokens) == (pytest.approx(cost), tokens)
    assert (purse.spent.cost, purse.spent.tokens) == (pytest.approx(cost), tokens)
    assert totals.usage.total == 0, "the account has what is known"


async def test_a_call_whose_attempts_were_refused_has_used_nothing_when_it_is_given_up_between_them() -> None:
    ledger = Ledger(Limits())

    async def given_up() -> None:
        async with ledger.call("root", 1_000, prices=(10.0, 40.0)) as made:
            made.sent()
            made.attempted(Usage(), 0.0)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await given_up()
    assert (ledger.totals().lost_cost, ledger.totals().lost_tokens) == (0, 0)


async def test_what_attempts_have_used_counts_once_where_the_last_has_a_reply() -> None:
    ledger = Ledger(Limits())
    async with ledger.call("root", 10) as made:
        made.attempted(Usage(50, 0), 0.25)
        made.settle(reply(90, 10, cost=0.5))
    assert (ledger.totals().cost, ledger.totals().usage.total, ledger.totals().lost_tokens) == (0.5, 100, 0)

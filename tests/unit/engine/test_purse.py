"""A budget that runs share: it is passed by no more than one call, nothing that is held back is lost."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Completion, Role, Usage
from rlm_kernel.engine.purse import NOTHING, LocalPurse, RemotePurse, Spent, Ticket, Used
from rlm_kernel.engine.subcalls import complete
from rlm_kernel.errors import BudgetExceeded, SetupError
from rlm_kernel.models.scripted import ScriptedModels

ASKED = Asked("sub", "sub", 100)


def reply(cost: float, tokens: int = 0, *, stored: bool = False) -> Completion:
    return Completion("text", "m", Usage(tokens), cost, stored=stored)


async def rounds(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def call(run: Ledger, cost: float, tokens: int = 0, *, role: Role = "sub", last: bool = False) -> str:
    """Which limit refused it; "" if none did."""
    try:
        async with run.call(role, 100, last=last) as made:
            made.sent()
            await asyncio.sleep(0)
            made.settle(reply(cost, tokens))
    except BudgetExceeded as refused:
        return refused.limit
    return ""


async def broken_off(run: Ledger, error: BaseException) -> None:
    async with run.call("sub", 100) as made:
        made.sent()
        raise error


def runs(purse: Any, number: int = 2, **limits: Any) -> list[Ledger]:
    return [Ledger(Limits(**limits), purse=purse) for _ in range(number)]


@dataclass(frozen=True)
class Planned:
    """A call of a run, and how it ends after some rounds of the event loop."""

    role: Role
    cents: int
    chars: int
    how: Literal["replies", "stored", "fails", "given up", "given up early"]
    before: int
    takes: int


PLANS = st.lists(
    st.lists(
        st.builds(
            Planned,
            st.sampled_from(["root", "sub"]),
            st.integers(0, 10),
            st.integers(0, 1000),
            st.sampled_from(
                ["replies", "replies", "replies", "stored", "fails", "given up", "given up early"]
            ),
            st.integers(0, 5),
            st.integers(0, 5),
        ),
        max_size=12,
    ),
    min_size=1,
    max_size=6,
)
DEAREST = 0.10


@settings(deadline=None)
@given(PLANS, st.integers(0, 100), st.booleans())
def test_over_any_interleaving_of_any_runs_the_limit_is_passed_by_no_more_than_one_call(
    plans: list[list[Planned]], cents: int, far: bool
) -> None:
    before = 2 * DEAREST
    purse = LocalPurse(cost=cents / 100 + before)
    paying: Any = Far(purse) if far else purse

    async def make(run: Ledger, one: Planned) -> None:
        await rounds(one.before)
        async with run.call(one.role, one.chars) as made:
            if one.how != "given up early":
                made.sent()
            if one.how.startswith("given up"):
                raise asyncio.CancelledError
            await rounds(one.takes)
            if one.how == "fails":
                raise SetupError("no")
            made.settle(reply(one.cents / 100, stored=one.how == "stored"))

    async def all_of_them() -> None:
        first = Ledger(Limits(), purse=paying)
        for role in ("root", "sub"):  # what the dearest call of each model uses is known
            async with first.call(role, 1000) as made:
                made.settle(reply(DEAREST))
        together = [
            make(run, one)
            for plan, top in zip(plans, runs(paying, len(plans), depth=1), strict=True)
            for run in (top, top.child())
            for one in plan
        ]
        for failure in await asyncio.gather(*together, return_exceptions=True):
            if isinstance(failure, BudgetExceeded):
                assert purse.spent.cost >= cents / 100 + before - 1e-9, "refused only where nothing is left"

    asyncio.run(asyncio.wait_for(all_of_them(), 60))
    assert purse.spent.cost <= cents / 100 + before + DEAREST + 1e-9
    assert_nothing_is_held(purse)


def assert_nothing_is_held(purse: LocalPurse) -> None:
    assert purse._admission.flight.of() == (0, 0.0, 0.0)
    assert not purse._held
    assert not purse._waiting
    assert not any(purse._admission._waiting.values())


class Far(RemotePurse):
    """In another process: what is sent arrives later, and in another order."""

    def __init__(self, purse: LocalPurse, holder: str = "far", delay: Callable[[], int] = lambda: 3) -> None:
        self.purse, self._delay = purse, delay
        super().__init__(holder, self.request, self.tell)

    async def request(self, ticket: Ticket, asked: Asked) -> str:
        async def there() -> str:
            await rounds(self._delay())
            return await self.purse.admit(*pickle.loads(pickle.dumps((ticket, asked))))

        # It goes on there, also if nobody waits for it here.
        return await asyncio.shield(asyncio.ensure_future(there()))

    def tell(self, ticket: Ticket, used: Used) -> None:
        asyncio.get_running_loop().call_soon(self.purse.end, ticket, pickle.loads(pickle.dumps(used)))


async def test_all_runs_stop_where_the_limit_that_they_share_is_reached() -> None:
    purse = LocalPurse(cost=1.0)
    one, other = runs(purse)
    assert [await call(run, 0.5) for run in (one, other, one, other)] == ["", "", "batch", "batch"]
    assert purse.spent == Spent(1.0, 0.0, 2)
    with pytest.raises(BudgetExceeded, match=r"The batch's limit of cost is reached: 1 of 1 US dollars used"):
        purse.check()


async def test_a_limit_that_is_raised_lets_through_what_waits_for_it() -> None:
    purse = LocalPurse(cost=1.0, whose="The key ann")
    one, other = runs(purse)
    assert [await call(run, 0.5) for run in (one, other)] == ["", ""]
    with pytest.raises(BudgetExceeded, match=r"The key ann's limit of cost is reached: 1 of 1 US dollars"):
        purse.check()
    purse.allow(cost=1.5)
    assert [await call(run, 0.5) for run in (one, other)] == ["", "batch"]
    purse.allow(cost=10.0)
    async with one.call("sub", 1):  # what it may use is 0.5
        purse.allow(cost=1.8)
        waiting = asyncio.create_task(call(other, 0.1))
        await asyncio.sleep(0)
        assert not waiting.done()
        purse.allow(cost=3.0)
        assert await waiting == ""
    purse.allow()
    assert await call(other, 100.0) == ""


@pytest.mark.parametrize(
    ("limits", "made"),
    [({"tokens": 100}, 2), ({"calls": 3}, 3), ({}, 6), ({"calls": 0}, 0), ({"cost": 0.0}, 0)],
)
async def test_each_limit_holds_for_the_calls_of_root_models_too(limits: Any, made: int) -> None:
    purse = LocalPurse(**limits)
    one, other = runs(purse)
    refused = [await call(run, 0.0, 50, role=role) for run in (one, other, one) for role in ("root", "sub")]
    assert refused.count("") == purse.spent.calls == made


async def test_a_flood_of_equal_calls_of_many_runs_stops_at_the_limit_exactly() -> None:
    purse = LocalPurse(cost=1.0)
    refused = await asyncio.gather(*(call(run, 0.1) for run in runs(purse, 50) for _ in range(4)))
    assert (refused.count(""), refused.count("batch")) == (10, 190)
    assert purse.spent.cost == pytest.approx(1.0)


async def test_what_an_earlier_part_of_the_batch_has_used_counts() -> None:
    purse = LocalPurse(cost=1.0, spent=Spent(0.9, 10, 3))
    (run,) = runs(purse, 1)
    assert (await call(run, 0.2), await call(run, 0.2)) == ("", "batch")
    assert purse.spent.calls == 4


async def test_the_first_call_goes_ahead_and_what_it_used_is_known_to_all_runs() -> None:
    purse = LocalPurse(cost=10.0)
    first, *others = runs(purse, 20)
    async with first.call("sub", 100) as made:
        waiting = [asyncio.create_task(call(run, 0.1)) for run in others]
        await rounds()
        assert purse.spent.calls == 1
        made.settle(reply(0.1))
    assert set(await asyncio.gather(*waiting)) == {""}


async def test_calls_wait_in_order_also_if_those_behind_would_fit() -> None:
    purse, order = LocalPurse(tokens=1000), []
    (run,) = runs(purse, 1)
    await call(run, 0.0, 100)

    async def of(chars: int) -> None:
        async with run.call("sub", chars) as made:
            order.append(chars)
            made.settle(reply(0.0, 100))

    async with run.call("sub", 800) as made:
        long = asyncio.create_task(of(801))
        await rounds()
        short = asyncio.create_task(of(1))
        await rounds()
        assert order == []
        made.settle(reply(0.0, 800))
    await asyncio.gather(long, short, return_exceptions=True)
    assert order[0] == 801


async def test_a_last_answer_is_refused_by_an_empty_purse_and_made_by_another() -> None:
    one, other = runs(LocalPurse(cost=0.5), cost=1.0)
    assert [await call(one, 0.2, last=True), await call(one, 0.3)] == ["", ""]
    assert await call(other, 0.1, role="root", last=True) == "batch"


async def test_a_run_asks_its_own_limits_first_and_a_refused_call_is_none() -> None:
    purse = LocalPurse(cost=0.5)
    one, other = runs(purse, cost=0.4, calls=2)
    assert [await call(one, 0.4), await call(one, 0.4)] == ["", "cost"]
    assert purse.spent.calls == 1
    assert [await call(other, 0.1), await call(other, 0.1)] == ["", "batch"]
    assert other.totals().calls == 1
    assert other.left()["calls"] == 1


async def test_a_refusal_of_the_purse_says_so_and_nothing_of_what_the_run_has_left() -> None:
    (run,) = runs(LocalPurse(cost=0.0), 1, cost=5.0)
    with pytest.raises(
        BudgetExceeded, match=r"The batch's limit of cost is reached: 0 of 0 US dollars"
    ) as told:
        await run.call("sub", 10).__aenter__()
    assert "Left" not in told.value.hint


async def test_a_call_that_is_given_up_on_its_way_counts_in_the_purse_as_what_it_may_have_used() -> None:
    purse = LocalPurse(cost=5.0)
    one, other = runs(purse)
    await call(one, 1.0)
    for run, counted in ((one, 2.0), (other, 3.0)):  # the other has made no call of which it could tell
        with pytest.raises(asyncio.CancelledError):
            await broken_off(run, asyncio.CancelledError())
        assert purse.spent.cost == pytest.approx(counted)
    assert_nothing_is_held(purse)


async def test_a_call_that_failed_costs_nothing_and_holds_nothing_back() -> None:
    purse = LocalPurse(cost=1.0)
    (run,) = runs(purse, 1)
    await call(run, 0.5)
    with pytest.raises(SetupError):
        await broken_off(run, SetupError("refused"))
    assert purse.spent == Spent(0.5, 0, 2)
    assert_nothing_is_held(purse)


async def test_a_purse_that_fails_fails_the_call_and_leaves_nothing_held_back_in_the_run() -> None:
    async def gone(_ticket: Ticket, _asked: Asked) -> str:
        raise SetupError("The purse is gone.")

    ended: list[Ticket] = []
    run = Ledger(Limits(cost=1.0, calls=5), purse=RemotePurse("w", gone, lambda one, _: ended.append(one)))
    for _ in range(3):
        with pytest.raises(SetupError):
            await run.call("sub", 100).__aenter__()
    assert run.totals().calls == 0
    assert run._admission.flight.of()[0] == 0
    assert [one.number for one in ended] == [1, 2, 3], "it may have been admitted there"


async def test_a_run_that_is_cancelled_while_it_waits_for_a_purse_far_away_leaves_no_ticket() -> None:
    purse = LocalPurse(cost=1.0)
    far = Far(purse)
    (run,) = runs(far, 1, calls=5)
    await call(run, 0.6)
    async with run.call("sub", 100) as made:  # 0.6 is held back: another has to wait
        for patience in range(12):
            waiting = asyncio.create_task(call(run, 0.6))
            await rounds(patience)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await rounds()
        assert (purse.spent.calls, len(purse._held)) == (2, 1)
        made.settle(reply(0.1))
    await rounds()
    assert_nothing_is_held(purse)
    assert run.totals().calls == 2


async def test_an_end_that_comes_before_its_request_or_twice_counts_once() -> None:
    purse, ticket, other = LocalPurse(cost=1.0), Ticket("w", 1), Ticket("w", 2)
    purse.end(ticket)
    assert await purse.admit(ticket, ASKED)
    assert await purse.admit(other, ASKED) == ""
    assert await purse.admit(other, ASKED) == "", "the same request"
    for _ in range(2):
        purse.end(other, Used(0.5, 10, replied=True))
    assert purse.spent == Spent(0.5, 10, 1)
    assert_nothing_is_held(purse)


async def test_what_is_remembered_of_tickets_that_were_given_up_is_bounded() -> None:
    purse = LocalPurse(cost=1.0)
    for number in range(25_000):
        purse.end(Ticket("w", number))
    assert len(purse._given_up) == 10_000
    assert await purse.admit(Ticket("w", 24_999), ASKED) == "The call was given up."


async def test_a_process_that_is_gone_holds_nothing_back_and_its_calls_count_as_what_they_may_have_used() -> (
    None
):
    purse = LocalPurse(cost=2.0)
    dead, alive = Far(purse, "dead"), Far(purse, "alive")
    await call(Ledger(Limits(), purse=dead), 0.7)
    stack = AsyncExitStack()
    payment = await stack.enter_async_context(dead.paying(ASKED))
    waits = [asyncio.create_task(call(Ledger(Limits(), purse=one), 0.1)) for one in (dead, alive, dead)]
    await rounds(20)
    assert purse.spent.cost == 0.7
    for _ in range(2):
        purse.forget("dead")
    assert await waits[1] == ""
    assert [await waits[0], await waits[2]] == ["batch", "batch"]
    assert purse.spent.cost == pytest.approx(0.7 + 0.7 + 0.1)
    payment.settle(reply(0.2))
    await stack.aclose()  # a word of it that was still on its way
    assert await call(Ledger(Limits(), purse=dead), 0.1) == "batch", "a request that was still on its way"
    await rounds()
    assert purse.spent.cost == pytest.approx(1.5)
    assert_nothing_is_held(purse)


async def test_what_is_settled_is_settled_once_and_at_once() -> None:
    ended: list[Used] = []

    async def admit(_ticket: Ticket, _asked: Asked) -> str:
        return ""

    far = RemotePurse("w", admit, lambda _, used: ended.append(used))
    async with far.paying(ASKED) as payment:
        payment.settle(reply(0.5, 10))
        payment.lost(9.0, 9)
        payment.settle(reply(7.0, 7))
    async with far.paying(replace(ASKED, last=True)):
        pass
    assert ended == [Used(0.5, 10, replied=True), NOTHING]


async def test_what_is_held_back_for_calls_in_flight_grows_when_a_dearer_one_is_seen() -> None:
    purse = LocalPurse(cost=1.0)
    first, second, third = runs(purse, 3)
    await call(first, 0.01)
    async with second.call("sub", 100) as made:
        await call(first, 0.55)  # the one in flight, which was let through for a cent, may cost as much
        assert purse._admission.flight.of() == (1, pytest.approx(0.55), 0.0)
        waiting = asyncio.create_task(call(third, 0.4))
        await rounds()
        assert not waiting.done(), "with the one in flight the limit might be passed by two calls"
        made.settle(reply(0.01))
    assert await waiting == ""
    assert_nothing_is_held(purse)


async def test_estimates_of_calls_that_go_by_the_root_models_grow_with_these() -> None:
    purse = LocalPurse(cost=1.0)
    (run,) = runs(purse, 1)
    await call(run, 0.01, 10, role="root")
    async with run.call("sub", 100):
        await call(run, 0.2, 10, role="root")
        assert purse._admission.flight.of("sub")[1] == pytest.approx(0.2)
    assert_nothing_is_held(purse)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_time_that_a_run_waits_for_the_calls_of_others_is_not_of_the_run() -> None:
    purse, clock = LocalPurse(cost=1.0), Clock()
    (other,) = runs(purse, 1)
    run = Ledger(Limits(seconds=10.0), purse=purse, clock=clock)
    await call(other, 0.6)
    async with other.call("sub", 100) as made:
        clock.now = 3.0
        waits = [asyncio.create_task(call(one, 0.1)) for one in (run, run)]
        await rounds()
        clock.now = 100.0
        assert (run.seconds_left(), run.totals().seconds) == (7.0, 3.0)
        made.settle(reply(0.1))
    assert await asyncio.gather(*waits) == ["", ""]
    clock.now = 101.0
    assert run.seconds_left() == 6.0


async def test_time_counts_while_a_call_of_the_run_itself_holds_the_budget_back() -> None:
    purse, clock = LocalPurse(cost=1.0), Clock()
    run = Ledger(Limits(seconds=10.0, depth=1), purse=purse, clock=clock)
    await call(run, 0.6)
    async with run.call("sub", 100) as made:
        waits = asyncio.create_task(call(run.child(), 0.1))
        await rounds()
        clock.now = 4.0  # the one in flight may never end
        assert run.seconds_left() == 6.0
        made.settle(reply(0.1))
    assert await waits == ""


async def test_time_outs_of_the_run_stand_still_while_it_waits_and_go_on_then() -> None:
    purse = LocalPurse(cost=1.0)
    other, run = runs(purse, 2)
    await call(other, 0.6)

    async def within() -> None:
        async with run.paying.timeout(0.01) as limit:
            async with other.call("sub", 100) as made:
                waits = asyncio.create_task(call(run, 0.1))
                await rounds()
                assert limit.when() is None
                await asyncio.sleep(0.05)
                made.settle(reply(0.1))
            assert await waits == ""
            assert not limit.expired()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await within()


async def test_the_cells_clock_stands_still_while_its_call_waits_for_those_of_other_runs() -> None:
    purse, paused = LocalPurse(cost=1.0), 0
    other, run = runs(purse, 2)
    models = ScriptedModels(["root"], str.upper)

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        nonlocal paused
        paused += 1
        try:
            yield
        finally:
            paused -= 1

    await call(other, 0.6)
    async with other.call("sub", 100) as made:
        asking = asyncio.create_task(
            complete(models, run, [{"role": "user", "content": "a"}], role="sub", waiting=waiting)
        )
        await rounds()
        assert paused == 1
        made.settle(reply(0.1))
    assert (await asking).text == "A"
    assert paused == 0


async def test_code_that_asks_a_purse_far_away_for_ever_and_is_refused_comes_to_the_end_of_its_time() -> None:
    clock, paused, asked = Clock(), 0.0, 0

    async def admit(_ticket: Ticket, _asked: Asked) -> str:
        nonlocal asked
        asked, clock.now = asked + 1, clock.now + 1.0
        return "Nothing is left." if asked != 50 else ""

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        nonlocal paused
        before = clock.now
        try:
            yield
        finally:
            paused += clock.now - before

    run = Ledger(Limits(seconds=100.0), purse=RemotePurse("far", admit, lambda *_: None), clock=clock)
    for _ in range(49):
        with pytest.raises(BudgetExceeded):
            async with run.call("sub", 10, waiting=waiting):
                pass
    assert (run.seconds_left(), paused) == (52.0, 1.0)
    async with run.call("sub", 10):  # there is more again, and what follows is waited for as before
        assert run.seconds_left() == 51.0
    with pytest.raises(BudgetExceeded):
        async with run.call("sub", 10, waiting=waiting):
            pass
    assert (run.seconds_left(), paused) == (51.0, 2.0)

"""Before code spends much, its user is asked: once for a batch, before anything of it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Awaitable, Iterable, Iterator
from typing import Any

import pytest

from rlm_kernel.config import Settings
from rlm_kernel.engine.approval import Approval, Expected, dollars
from rlm_kernel.engine.events import CallsPlanned
from rlm_kernel.engine.expected import CHILD_TURNS, REPLY_TOKENS, Expectation
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Card, Completion, HostCall, Message, Usage
from rlm_kernel.engine.subcalls import SubCalls, complete
from rlm_kernel.errors import BudgetExceeded
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.environment import Host, ledger_of
from tests.support.engine import Recorder, locate

CELL = "turn-01-a"
PROMPT = "x" * 3706
"""A thousand tokens, by the estimate."""


class Priced(ScriptedModels):
    """Each call of the sub model costs a cent, if its prompt is PROMPT: by its card, and really."""

    def __init__(self, cost: float | None = 0.01) -> None:
        super().__init__(
            ["root"] * 1000,
            str.upper,
            cards=[Card("sub", "some/sub", None, 10.0, 0.0), Card("root", "some/root", None, 10.0, 0.0)],
        )
        self.sent = 0
        self.cost = cost

    async def complete(self, messages: Any, **options: Any) -> Completion:
        self.sent += 1
        await asyncio.sleep(0)
        reply = await super().complete(messages, **options)
        return Completion(reply.text, reply.model, Usage(1000, 10), self.cost)


class User:
    """Answers as told, one after the other, and then no more."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Expected] = []

    async def __call__(self, wanted: Expected) -> Any:
        self.asked.append(wanted)
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Run:
    def __init__(self, *answers: Any, above: float = 1.0, models: Priced | None = None) -> None:
        self.user = User(*answers)
        self.models = models or Priced()
        self.ledger = Ledger(Limits(depth=1), approval=Approval(self.user, above))
        self.heard = Recorder()
        self.paused = 0
        self.calls = HostCalls(SubCalls(self.models, self.ledger), self.heard, locate)
        self.calls.begin(CELL)

    async def plan(self, calls: int, tokens: int | None = None, model: str | None = None) -> None:
        batch = ["llm_query", calls, 1000 * calls if tokens is None else tokens, model]
        await self.calls.handlers()["planned"](HostCall(CELL, "p", {"calls": calls, "batches": [batch]}))

    async def ask(self, number: int = 0) -> Any:
        call = HostCall(CELL, f"1-1-{number}", {"prompt": PROMPT}, number, self._pause)
        return await self.calls.handlers()["llm_query"](call)

    @contextlib.contextmanager
    def _pause(self) -> Iterator[None]:
        self.paused += 1
        yield

    async def batch(self, calls: int, window: int = 16) -> int:
        """How many of so many calls were answered, as a batch makes them."""
        await self.plan(calls)
        answered = 0
        for first in range(0, calls, window):
            many = range(first, min(calls, first + window))
            found = await asyncio.gather(*map(self.ask, many), return_exceptions=True)
            assert all(isinstance(one, str | BudgetExceeded) for one in found), found
            answered += sum(isinstance(one, str) for one in found)
        return answered


async def test_a_batch_is_asked_about_once_before_any_of_it_is_sent() -> None:
    run = Run(True)
    assert await run.batch(500) == 500
    (asked,) = run.user.asked
    assert (asked.calls, asked.model, asked.spent) == (500, "some/sub", 0.0)
    assert asked.cost == pytest.approx(5.0, rel=1e-4)


async def test_after_a_no_nothing_is_sent_and_a_smaller_batch_is() -> None:
    run = Run(False, True)
    assert await run.batch(500) == 0
    assert run.models.sent == 0
    assert len(run.user.asked) == 1
    assert run.ledger.totals().calls == 0
    assert await run.batch(50) == 50, "half a dollar needs no question"
    assert await run.batch(500) == 0
    assert run.models.sent == 50
    assert len(run.user.asked) == 1, "in the same cell the answer stands"
    run.calls.end()
    run.calls.begin(CELL)
    assert await run.batch(500) == 500
    assert len(run.user.asked) == 2
    assert run.user.asked[1].spent == pytest.approx(0.5)


async def test_the_words_of_a_refusal_say_how_to_go_on() -> None:
    run = Run(False)
    await run.plan(5000)
    with pytest.raises(BudgetExceeded) as refused:
        await run.ask()
    told = str(refused.value)
    assert "The user did not allow 5,000 calls of some/sub for about $50" in told
    assert "nothing was sent" in told
    assert "about $1 more are made without a question" in told
    assert "fewer" in told
    assert refused.value.limit == "cost"


async def test_the_user_is_asked_again_when_twice_of_what_they_allowed_is_reached() -> None:
    run = Run(True, True, True, models=Priced(cost=0.04))  # four times of what was expected
    assert await run.batch(200) == 200
    totals = [asked.spent + asked.cost for asked in run.user.asked]
    assert 2 <= len(totals) <= 3
    assert totals[0] == pytest.approx(2.0, rel=1e-4)
    assert all(later > 1.5 * before for before, later in itertools.pairwise(totals))


@pytest.mark.parametrize("at_once", [1, 40])
async def test_calls_that_nobody_planned_are_asked_about_when_together_they_pass_the_amount(
    at_once: int,
) -> None:
    run = Run(False)
    answered = 0
    for first in range(0, 200, at_once):
        many = range(first, first + at_once)
        found = await asyncio.gather(*map(run.ask, many), return_exceptions=True)
        answered += sum(isinstance(one, str) for one in found)
    assert 95 <= answered <= 101
    assert len(run.user.asked) == 1
    assert run.user.asked[0].spent == pytest.approx(1.0, abs=0.05)


async def test_lies_about_the_plan_change_nothing_of_what_is_sent() -> None:
    run = Run(False)
    told: list[Any] = [
        [["llm_query", 0, 0, None]],
        [["llm_query", 1, 0, None]] * 33,
        [["llm_query", 10**30, 5, None]],
        [["llm_query", -5, -5, None]],
        [["other", 5, 5, None]],
        [["llm_query", 5, 5, {"a": 1}]],
        [["llm_query", 5, math.inf, None]],
        "batches",
        [[]],
        {"llm_query": 5},
    ]
    for batches in told:
        await run.calls.handlers()["planned"](HostCall(CELL, "p", {"calls": 5, "batches": batches}))
        await run.ask()
    assert not run.user.asked
    found = [await asyncio.gather(run.ask(number), return_exceptions=True) for number in range(200)]
    assert sum(isinstance(one, str) for (one,) in found) <= 95
    await run.plan(10_000_000, 10**13)
    with pytest.raises(BudgetExceeded):
        await run.ask()
    assert len(run.user.asked) == 1


async def test_always_is_for_the_rest_of_the_run() -> None:
    run = Run("always")
    for _ in range(3):
        assert await run.batch(500) == 500
    assert len(run.user.asked) == 1


async def test_while_the_user_thinks_the_cells_clock_stands_and_only_then() -> None:
    run = Run(True)
    await run.ask()
    before = run.paused  # each model's call is time that is none of the cell's
    await run.batch(200)
    assert run.paused - before > 200
    assert before == 1


async def test_a_question_that_is_called_off_is_put_again_by_the_next_call() -> None:
    run = Run(asyncio.CancelledError(), True)
    await run.plan(500)
    found = await asyncio.gather(*map(run.ask, range(3)), return_exceptions=True)
    assert [isinstance(one, str) for one in found] == [False, True, True]
    assert len(run.user.asked) == 2


async def test_who_cannot_be_asked_has_not_allowed_it() -> None:
    run = Run(ZeroDivisionError("no window"))
    await run.plan(500)
    with pytest.raises(BudgetExceeded, match="could not be asked: no window"):
        await run.ask()
    assert run.models.sent == 0


async def test_a_function_that_is_not_async_may_answer() -> None:
    approval = Approval(lambda wanted: wanted.cost < 5, 1.0)
    await approval.check(1, "m", 4.0, contextlib.nullcontext)
    with pytest.raises(BudgetExceeded):
        await approval.check(1, "m", 40.0, contextlib.nullcontext)


async def test_the_turns_of_a_child_count_and_are_asked_about() -> None:
    run = Run(False)
    child = run.ledger.child()
    messages: list[Message] = [{"role": "user", "content": PROMPT}]
    with pytest.raises(BudgetExceeded):
        await _all(complete(run.models, child, messages, role="root") for _ in range(200))
    assert 95 <= run.models.sent <= 101
    await complete(run.models, child, messages, role="root", last=True)  # the last answer is always made
    for _ in range(50):
        await complete(
            run.models, run.ledger, messages, role="root"
        )  # the run's own turns are no calls of code
    assert len(run.user.asked) == 1


async def _all(calls: Iterable[Awaitable[Any]]) -> None:
    for call in calls:
        await call


async def test_what_a_batch_will_cost_is_told_with_the_limit() -> None:
    run = Run()
    await run.plan(50)
    assert run.heard.of(CallsPlanned) == [CallsPlanned(CELL, 50, pytest.approx(0.5), None)]
    unknown = Run(models=Priced())
    unknown.models._cards["sub"] = Card("sub", "some/sub")
    await unknown.plan(500)
    assert unknown.heard.of(CallsPlanned) == [CallsPlanned(CELL, 500, None, None)]
    assert not unknown.user.asked


@pytest.mark.parametrize(
    ("changes", "asks"), [({}, True), ({"cost": 5}, False), ({"ask": None}, False), ({"ask": 0}, True)]
)
async def test_who_has_set_a_limit_is_not_asked(changes: dict[str, Any], asks: bool) -> None:
    user = User(True)
    ledger = ledger_of(Host(Settings.model_validate({"limits": changes}), approve=user))
    await ledger.approval.check(1, "m", 1e6, contextlib.nullcontext)
    assert bool(user.asked) == asks
    nobody = ledger_of(Host(Settings()))
    await nobody.approval.check(1, "m", 1e6, contextlib.nullcontext)


def test_a_call_is_expected_to_take_what_those_before_took() -> None:
    known, card = Expectation(), Card("sub", "some/sub", None, 2.0, 8.0)
    assert known.of_calls(card, 10, 10_000) == pytest.approx((10_000 * 2 + 10 * REPLY_TOKENS * 8) / 1e6)
    known.see(Asked("sub", "sub", 250), Completion("", "m", Usage(500, 40), 0.5))
    assert known.of_calls(card, 10, 10_000) == pytest.approx((20_000 * 2 + 10 * 40 * 8) / 1e6)
    without = Card("sub", "some/sub")
    assert known.of_calls(without, 10, 10_000) == pytest.approx(5.0), "by what replies cost"
    assert Expectation().of_calls(without, 10, 10_000) is None
    assert known.of_calls(Card("sub", "local", None, 0.0, 0.0), 10, 10_000) == 0.0


def test_a_child_is_expected_to_take_what_those_before_took_or_some_turns() -> None:
    known, card = Expectation(), Card("root", "some/root", None, 1.0, 1.0)
    known.see(Asked("root", "root", 1000), Completion("", "m", Usage(1000, 500), 0.0015))
    assert known.of_children(card, 2) == pytest.approx(2 * CHILD_TURNS * 0.0015)
    known.see_child(None)
    known.see_child(0.5)
    assert known.of_children(card, 2) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (12.4, "$12.40"),
        (1234.5, "$1,234.50"),
        (5, "$5"),
        (0, "$0"),
        (0.0031, "$0.0031"),
        (1e300, f"${1e300:,.2f}"),
    ],
)
def test_amounts_are_told_as_people_write_them(amount: float, told: str) -> None:
    assert dollars(amount) == told


async def test_the_time_that_code_gave_its_call_stands_still_while_the_user_is_asked() -> None:
    decided, asked = asyncio.Event(), asyncio.Event()

    async def user(_wanted: Expected) -> bool:
        asked.set()
        await decided.wait()
        return True

    approval = Approval(user, 1.0)

    async def limited(seconds: float, done: asyncio.Event) -> bool:
        with contextlib.suppress(TimeoutError):
            async with approval.asking.timeout(seconds):
                await done.wait()
                return True
        return False

    never, done = asyncio.Event(), asyncio.Event()
    calls = [asyncio.create_task(limited(0.05, one)) for one in (done, never)]
    question = asyncio.create_task(approval.check(1, "m", 4.0, contextlib.nullcontext))
    await asyncio.wait_for(asked.wait(), 5)
    later = asyncio.create_task(limited(0.05, done))  # begun while the user thinks
    await asyncio.sleep(0.2)
    assert approval.asking.seconds() >= 0.15
    assert not any(call.done() for call in (*calls, later))
    done.set()
    decided.set()
    await question
    assert await asyncio.wait_for(asyncio.gather(*calls, later), 5) == [True, False, True]
    told = approval.asking.seconds()
    await asyncio.sleep(0.01)
    assert approval.asking.seconds() == told


async def test_a_time_out_that_is_over_as_the_user_is_asked_is_over() -> None:
    approval = Approval(lambda _: True, 1.0)

    async def late() -> None:
        async with approval.asking.timeout(0.0):
            await asyncio.sleep(0)
            await approval.check(1, "m", 4.0, contextlib.nullcontext)
            await asyncio.sleep(1)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late(), 0.5)

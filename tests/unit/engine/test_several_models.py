"""Models beside root and sub: who is asked, who is refused, and what each has used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger, Limits, ModelLimits
from rlm_kernel.engine.protocols import Card, Completion, HostCall, Role, Share, Shares, Totals, Usage
from rlm_kernel.engine.subcalls import SubCalls, card_for
from rlm_kernel.errors import BudgetExceeded, ModelError
from rlm_kernel.models.scripted import ScriptedModels
from tests.support.engine import Recorder, locate

CELL = "turn-01-a"
CARDS = (
    Card("fast", "a/small", 10_000, 0.1, 0.4, about="short labels"),
    Card("strong", "a/large", 200_000, 3.0, 15.0),
)
PRICES = {"a/small": 0.01, "a/large": 0.5, "scripted/sub": 0.1, "scripted/root": 0.2}


class Priced(ScriptedModels):
    """Each call uses 10 and 2 tokens, and costs what its model costs."""

    def __init__(self) -> None:
        super().__init__([], str.upper, others={"fast": str.lower, "strong": str.title}, cards=CARDS)

    async def complete(self, *arguments: Any, **options: Any) -> Completion:
        reply = await super().complete(*arguments, **options)
        await asyncio.sleep(0)
        return replace(reply, usage=Usage(10, 2, 4, False, 3, 1), cost=PRICES[reply.model])


class Host:
    def __init__(self, limits: Limits | None = None, models: Any = None) -> None:
        self.ledger = Ledger(limits or Limits())
        self.calls = HostCalls(SubCalls(models or Priced(), self.ledger), Recorder(), locate)
        self.calls.begin(CELL)

    async def ask(self, kind: str = "llm_query", **body: Any) -> Any:
        return await self.calls.handlers()[kind](HostCall(CELL, "1-1-1", body))

    def records(self) -> Any:
        return self.calls.end()[0]


async def test_a_model_is_asked_by_its_name_or_by_its_providers() -> None:
    host = Host()
    said = [await host.ask(prompt="Two Words", model=model) for model in (None, "fast", "a/small", "strong")]
    assert said == ["TWO WORDS", "two words", "two words", "Two Words"]
    assert await host.ask(prompt="Two Words", model="scripted/sub") == "TWO WORDS"
    records = host.records()
    assert [(one.role, one.model) for one in records] == [
        ("sub", "scripted/sub"),
        ("fast", "a/small"),
        ("fast", "a/small"),
        ("strong", "a/large"),
        ("sub", "scripted/sub"),
    ]
    totals = host.ledger.totals()
    assert totals.models["fast"] == Share(2, Usage(20, 4, 8, False, 6, 2), 0.02)
    assert {name: share.calls for name, share in totals.models.items()} == {"sub": 2, "fast": 2, "strong": 1}
    assert totals.calls == 5
    assert totals.usage == totals.sub_usage == Usage(50, 10, 20, False, 15, 5)
    assert totals.known_cost == pytest.approx(sum(share.known_cost for share in totals.models.values()))


@pytest.mark.parametrize("name", ["Fast", "fast ", "root", "sub", "gpt-4", "", "x" * 500])
async def test_an_unknown_name_raises_with_those_there_are_and_costs_nothing(name: str) -> None:
    host = Host(Limits(calls=3))
    for _ in range(5):
        with pytest.raises(ModelError, match="There is no model") as caught:
            await host.ask(prompt="p", model=name)
    assert "'fast' (a/small), for short labels; 'strong' (a/large)" in caught.value.hint
    assert "Without model=, scripted/sub is asked." in caught.value.hint
    assert len(str(caught.value)) < 500
    assert host.ledger.totals().nothing
    assert {one.calls for one in host.records()} == {0}


def test_without_others_the_names_of_root_and_sub_are_told() -> None:
    with pytest.raises(ModelError) as caught:
        card_for(ScriptedModels([], {}), "sub", "gpt-9")
    assert caught.value.hint.startswith("Known: scripted/sub and scripted/root")


async def test_calls_of_a_model_never_exceed_its_own_limit_however_many_are_made_at_once() -> None:
    host = Host(Limits(models={"fast": ModelLimits(calls=3)}))
    found = await asyncio.gather(
        *(host.ask(prompt=f"p{n}", model="fast") for n in range(10)), return_exceptions=True
    )
    refused = [one for one in found if isinstance(one, BudgetExceeded)]
    assert len(refused) == 7
    assert refused[0].message == "The limit of calls of the model fast is reached: 3 of 3 used."
    assert refused[0].hint == "Left: 30 turns, 0 calls of fast."
    assert await host.ask(prompt="p") == "P"
    assert await host.ask("budget") == {
        "turns": 30, "calls": None, "cost": None, "tokens": None, "seconds": None, "depth": 0,
        "models": {"fast": {"calls": 0}},
    }  # fmt: skip


async def test_money_of_a_model_is_passed_by_no_more_than_one_call() -> None:
    host = Host(Limits(models={"strong": ModelLimits(cost=1.2), "fast": ModelLimits(cost=0.05)}))
    found = await asyncio.gather(
        *(host.ask(prompt=f"p{n}", model="strong") for n in range(20)),
        *(host.ask(prompt=f"p{n}", model="fast") for n in range(3)),
        return_exceptions=True,
    )
    spent = host.ledger.totals().models
    assert spent["strong"].known_cost <= 1.2 + 0.5
    assert spent["fast"].calls == 3
    refused = [one for one in found if isinstance(one, BudgetExceeded)]
    assert len(refused) == 20 - spent["strong"].calls
    assert "of the model strong is reached" in refused[-1].message
    assert host.ledger.left()["models"]["fast"] == {"cost": pytest.approx(0.02)}


async def test_the_first_calls_of_a_dear_model_are_not_reckoned_like_cheap_ones() -> None:
    host = Host(Limits(cost=1.0))
    await host.ask(prompt="p", model="fast")
    await asyncio.gather(
        *(host.ask(prompt=f"p{n}", model="strong") for n in range(20)), return_exceptions=True
    )
    assert host.ledger.totals().known_cost <= 1.0 + 0.5


async def _use(ledger: Ledger, role: Role, model: str) -> None:
    async with ledger.call(role, 10, model=model) as call:
        call.settle(Completion("x", "m", Usage(1, 1), 0.25))


async def test_limits_of_a_model_hold_for_the_whole_tree_and_after_a_run_is_taken_up() -> None:
    limits = Limits(depth=2, models={"strong": ModelLimits(calls=4)})
    top = Ledger(limits)
    await _use(top, "sub", "strong")
    child = top.child("strong")
    child.begin()
    await _use(child, "root", "strong")
    child.count_turn()
    await _use(child, "sub", "strong")
    assert child.totals().models == Shares(strong=Share(2, Usage(2, 2), 0.5))
    assert top.totals().models == Shares(strong=Share(3, Usage(3, 3), 0.75))
    assert top.closed().models == Shares(strong=Share(1, Usage(1, 1), 0.25))
    assert (top.totals().calls, top.totals().child_turns) == (3, 1)
    again = Ledger(limits, spent=top.totals())
    await _use(again, "sub", "strong")
    assert again.newly_near() == ["80% of the limit of calls of the model strong are used: 4 of 4."]
    with pytest.raises(BudgetExceeded, match="calls of the model strong"):
        again.child("strong")
    assert again.child().is_child
    with pytest.raises(BudgetExceeded, match="calls of the model strong"):
        await _use(again, "sub", "strong")


async def test_a_call_that_is_given_up_counts_against_its_models_money() -> None:
    ledger = Ledger(Limits(models={"strong": ModelLimits(cost=0.6)}))
    await _use(ledger, "sub", "strong")

    async def give_up() -> None:
        async with ledger.call("sub", 10, model="strong") as call:
            call.sent()
            raise asyncio.CancelledError

    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await give_up()
    with pytest.raises(BudgetExceeded, match="cost of the model strong"):
        await _use(ledger, "sub", "strong")
    await _use(ledger, "sub", "sub")


def test_the_line_for_people_has_the_cost_by_model_only_where_others_were_asked() -> None:
    two = Totals(turns=1, calls=1, sub_usage=Usage(9_000, 3_000, 8_000), known_cost=0.5, seconds=1.0)
    two.models = Shares(root=Share(1, Usage(), 0.4), sub=Share(1, Usage(), 0.1))
    assert two.line() == "1 turn, 1 sub-call, 12,000 tokens (8,000 cached), $0.5000, 1.0 s"
    many = replace(two, models=two.models + Shares(fast=Share(2, Usage(), 0.0, 2)))
    assert "$0.5000 (root $0.4000, sub $0.1000, fast cost unknown), 1.0 s" in many.line()
    crowd = Shares({f"m{n}": Share(1, Usage(), n / 10) for n in range(20)})
    assert (
        "(m19 $1.9000, m18 $1.8000, m17 $1.7000, m16 $1.6000, 16 more)" in replace(two, models=crowd).line()
    )
    told = many.as_json()
    assert told["tokens"] == {
        "prompt": 9_000, "completion": 3_000, "cached": 8_000, "written": 0, "reasoning": 0,
    }  # fmt: skip
    assert {name: (one["calls"], one["cost"]) for name, one in told["models"].items()} == {
        "root": (1, 0.4), "sub": (1, 0.1), "fast": (2, None),
    }  # fmt: skip

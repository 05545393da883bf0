"""A conversation that outgrows the root model's window in mid-run, and calls of tools that nobody offered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from rlm_kernel.engine.events import Summarized
from rlm_kernel.engine.messages import AFTER_MEMORY, SUM_UP
from rlm_kernel.engine.protocols import Completion, Message, Role
from rlm_kernel.engine.values import Card
from rlm_kernel.errors import ModelError
from rlm_kernel.models.scripted import ScriptedModels
from tests.support.engine import Run
from tests.support.story import repl

LONG = "say(context[:0] + 'x' * 9000)"
SUMMARY = "It says hello. Next: answer."


class Narrow(ScriptedModels):
    """Plays `replies`, sums up when asked to, and refuses what has more than `most` characters; with `tells`
    it says its window.
    """

    def __init__(self, replies: Sequence[str], most: int, *, tells: bool = True) -> None:
        super().__init__(self._speak, str.upper)
        self._replies = list(replies)
        self._most = most
        self._tells = tells
        self._told: int | None = None
        self.refused = 0

    def card(self, which: str) -> Card:
        return Card(which, f"test/{which}", self._told)

    def _speak(self, messages: Sequence[Message]) -> str:
        if sum(len(message["content"]) for message in messages) > self._most:
            self.refused += 1
            self._told = self._most // 4 if self._tells else None
            raise ModelError("The prompt is too long.", fault="too_long", model="narrow", hint="Send less.")
        return SUMMARY if SUM_UP in messages[-1]["content"] else self._replies.pop(0)


def narrow(replies: Sequence[str], most: int, *, share: float | None = 0.6, **options: Any) -> Run:
    run = Run(Narrow(replies, most, **options))
    run.loop.conversation.share = share
    return run


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("most", [1_500, 6_000, 12_000])
async def test_a_prompt_that_is_too_long_has_the_turns_summed_up_and_the_run_goes_on(
    most: int, tells: bool
) -> None:
    run = narrow([repl(LONG), repl(LONG), repl("FINAL(context)")], most, tells=tells)
    outcome = await run.outcome()
    assert outcome.answer is not None
    assert outcome.answer.text == "hello world"
    assert run.told().startswith(AFTER_MEMORY)
    assert len(run.heard.of(Summarized)) >= 1
    assert any("longer than the root model's window" in note for note in run.heard.notes)


async def test_of_what_is_summed_up_each_message_keeps_its_ends() -> None:
    run = narrow([repl(LONG), repl("FINAL(context)")], 6_000)
    await run.outcome()
    asked = next(request for request in run.models.requests if SUM_UP in request[-1]["content"])
    assert "characters left out here" in asked[-1]["content"]
    assert asked[-1]["content"].endswith(SUM_UP)
    assert asked[-1]["content"].startswith("Output of the cell:")


async def test_the_window_is_learnt_so_that_the_next_turns_are_summed_up_before_they_are_refused() -> None:
    run = narrow([repl(LONG)] * 4 + [repl("FINAL(context)")], 24_000)
    assert (await run.outcome()).answer is not None
    assert run.models.refused <= 1


async def test_a_first_message_that_is_too_long_by_itself_is_an_error_and_not_asked_for_ever() -> None:
    run = narrow([repl(LONG)], 10)
    with pytest.raises(ModelError, match="too long"):
        await run.outcome()
    assert run.models.refused == 1


async def test_where_no_summary_fits_either_the_run_ends_with_the_error() -> None:
    run = narrow([repl(LONG), repl("FINAL(1)")], 420)
    with pytest.raises(ModelError, match="too long"):
        await run.outcome()
    assert run.models.refused <= 5


async def test_where_memory_is_off_the_error_says_so() -> None:
    run = narrow([repl(LONG), repl("FINAL(1)")], 3_000, share=None)
    with pytest.raises(ModelError) as caught:
        await run.outcome()
    assert "memory_compaction.enabled is off" in caught.value.hint


class Calling(ScriptedModels):
    """Calls a tool in its first reply."""

    async def complete(self, messages: Sequence[Message], *, role: Role, **options: Any) -> Completion:
        reply = await super().complete(messages, role=role, **options)
        return replace(reply, tools=("search",)) if len(messages) == 2 else reply


async def test_a_model_that_calls_a_tool_is_told_that_there_are_none_and_goes_on() -> None:
    run = Run(Calling(['[called a tool: search({"q": "alpha"})]', repl("FINAL(context)")], str.upper))
    outcome = await run.outcome()
    assert outcome.answer is not None
    assert outcome.answer.text == "hello world"
    assert "You called the tool 'search', but there are no tools here" in run.told()
    assert run.ledger.totals().turns == 2

"""Conversation memory: a summary stands for the turns of a question, in what the root model sees, and nowhere
else.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_contract.tokens import tokens

from rlm_kernel.config import load_settings
from rlm_kernel.engine import memory, messages
from rlm_kernel.engine.conversation import Past, PastTurn
from rlm_kernel.engine.events import Summarized
from rlm_kernel.engine.ledger import Limits
from rlm_kernel.engine.messages import AFTER_MEMORY, SUM_UP
from rlm_kernel.engine.protocols import CellResult, Completion, Memory, Message, Role, Usage
from rlm_kernel.engine.values import Card
from rlm_kernel.errors import ModelError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.views.live import LiveView
from tests.support.engine import INFO, Run, failure, stream
from tests.support.story import repl

LONG = "say(context[:0] + 'x' * 3000)"
NOTHING = Usage()
SUMMARY = "The file says hello; x holds it."
ANSWERING = [repl(LONG), repl("say(context)"), repl("FINAL('hello')")]


class Remembering(ScriptedModels):
    """Plays `replies`, and gives `summary` whenever it is asked for one.

    `usage` is what each call is said to have used.
    """

    def __init__(
        self,
        replies: Sequence[str],
        summary: Any = SUMMARY,
        *,
        window: int | None = None,
        usage: Usage = NOTHING,
    ) -> None:
        super().__init__(self._speak, str.upper)
        self._replies = list(replies)
        self._summary = summary
        self._window = window
        self._usage = usage
        self.summaries: list[list[Message]] = []

    def card(self, which: str) -> Card:
        return Card(which, f"test/{which}", self._window)

    async def complete(
        self, messages: Sequence[Message], *, role: Role, model: str | None = None, **options: Any
    ) -> Completion:
        reply = await super().complete(messages, role=role, model=model, **options)
        return Completion(reply.text, reply.model, self._usage, 0.25, 1.5)

    async def _speak(self, messages: Sequence[Message]) -> str:
        if SUM_UP not in messages[-1]["content"]:
            return self._replies.pop(0)
        self.summaries.append(list(messages))
        if isinstance(self._summary, Exception):
            raise self._summary
        return str(await self._summary() if callable(self._summary) else self._summary)


def ran(code: str, said: str = "", cell_id: str = "turn-01-a") -> CellResult:
    return CellResult(cell_id, code, "ok", [stream(said)] if said else [], datetime.now(UTC), 0.1)


TURNS = [
    PastTurn(1, repl(LONG), [ran(LONG, "x" * 3000)]),
    PastTurn(2, repl("say(context)"), [ran("say(context)", "seen at last", "turn-02-a")]),
    PastTurn(
        3, repl("FINAL('hello')"), [ran("FINAL('hello')", "", "turn-03-a")], [messages.answer_given("hello")]
    ),
]
AND_WHY = messages.Asked("And why?")


def going_on(models: Remembering, *, verbatim: int = 500, **options: Any) -> Run:
    run = Run(models, **options)
    run.loop.conversation.share = 0.6
    run.loop.conversation.verbatim = verbatim
    return run


async def further(models: Remembering, turns: Sequence[PastTurn] = TURNS, **options: Any) -> Run:
    """A further question after these turns."""
    run = going_on(models, **options)
    assert (await run.outcome(past=Past(turns, question="And why?"))).answer is not None
    return run


def roles(said: Sequence[Message]) -> list[str]:
    return [message["role"] for message in said]


def alternate(said: Sequence[Message]) -> bool:
    """One system prompt, then user and assistant in turn; the user has the last word."""
    return roles(said) == ["system", *["user", "assistant"] * (len(said) // 2 - 1), "user"]


# Before a further question


async def test_before_a_further_question_a_summary_stands_for_long_turns() -> None:
    models = Remembering([repl("FINAL('x')")])
    run = await further(models)
    (summed,) = run.heard.of(Summarized)
    assert (summed.memory.text, summed.memory.since) == (SUMMARY, 1)
    (asked,), request = models.summaries, run.models.requests[-1]
    assert roles(request) == ["system", "user", "assistant", "user"]
    assert asked[:2] == request[:2], "what the provider has in its prefix cache comes first"
    assert request[2]["content"] == SUMMARY
    told = request[3]["content"]
    assert told.startswith(AFTER_MEMORY)
    assert str(AND_WHY) in told
    assert "Output of" not in told
    assert [cell_id for cell_id, _ in run.kernel.ran] == ["turn-04-a"]


async def test_short_turns_stay_as_they_are_and_no_summary_is_asked_for() -> None:
    models = Remembering([repl("FINAL('x')")])
    run = await further(models, verbatim=8_000)
    assert (models.summaries, run.heard.of(Summarized)) == ([], [])
    request = run.models.requests[-1]
    assert [message["content"] for message in request if message["role"] == "assistant"] == [
        turn.reply for turn in TURNS
    ]
    assert "The answer that you gave: hello" in request[-1]["content"], "code delivered it: no message has it"
    assert str(AND_WHY) in request[-1]["content"]


async def test_after_an_answer_nothing_is_summed_up() -> None:
    models = Remembering(ANSWERING)
    run = going_on(models, verbatim=0)
    await run.outcome()
    assert models.summaries == []


async def test_the_request_for_a_summary_has_the_last_output_and_the_answer_and_not_the_question() -> None:
    models = Remembering([repl("FINAL('x')")])
    await further(models, [*TURNS[:2], PastTurn(3, "FINAL(hello)", [], [messages.answer_given("hello")])])
    (asked,) = models.summaries
    assert alternate(asked)
    assert "seen at last" in asked[-3]["content"]
    told = asked[-1]["content"]
    assert "The answer that you gave: hello" in told
    assert "And why?" not in told
    assert told.endswith(SUM_UP)


async def test_the_next_question_follows_a_summary_that_is_there() -> None:
    run = Run(Remembering([repl("FINAL('x')")]))
    past = Past([PastTurn(3, SUMMARY, memory=True)], question="And why?")
    outcome = await run.outcome(past=past)
    assert outcome.answer is not None, "a summary counts as having looked at the input"
    request = run.models.requests[0]
    assert roles(request) == ["system", "user", "assistant", "user"]
    assert request[2]["content"] == SUMMARY
    assert request[3]["content"].startswith(AFTER_MEMORY)
    assert [cell_id for cell_id, _ in run.kernel.ran] == ["turn-04-a"]


async def test_the_system_prompt_and_the_files_are_told_as_ever() -> None:
    run = Run(Remembering([repl("FINAL('x')")]))
    await run.outcome(past=Past([PastTurn(1, SUMMARY, memory=True)], question="And why?"))
    plain = Run(Remembering([repl("FINAL(context)")]))
    await plain.outcome()
    assert run.models.requests[0][:2] == plain.models.requests[0]
    assert "a.txt (11 characters)" in run.models.requests[0][1]["content"]


async def test_what_was_summed_up_before_is_not_summed_up_again() -> None:
    models = Remembering([repl("FINAL('y')")], "The second summary.")
    before = PastTurn(1, SUMMARY, memory=True, remarks=[messages.Asked("Which one?")])
    later = [PastTurn(turn.number + 1, turn.reply, turn.results) for turn in TURNS]
    run = await further(models, [before, *later])
    (summed,) = run.heard.of(Summarized)
    assert summed.memory.since == 2
    request = run.models.requests[-1]
    contents = [message["content"] for message in request]
    assert [contents[2], contents[4]] == [SUMMARY, "The second summary."]
    assert "Which one?" in contents[3]
    assert models.summaries[0][:4] == request[:4], "all up to the last summary is as it was"


async def test_the_turns_after_the_last_summary_alone_are_measured() -> None:
    models = Remembering([repl("FINAL('y')")])
    before = PastTurn(1, "s" * 3000, memory=True, remarks=[messages.Asked("Which one?")])
    await further(models, [before, PastTurn(2, repl("FINAL(1)"), [ran("FINAL(1)")])])
    assert models.summaries == []


async def test_further_questions_that_a_summary_covers_stay_in_the_users_words() -> None:
    models = Remembering([repl("FINAL('y')")])
    asked = [messages.answer_given("hello"), messages.Asked("Never tell names. How many?")]
    second = PastTurn(4, repl("FINAL(5)"), [ran("FINAL(5)")], [messages.answer_given("5")])
    run = await further(models, [*TURNS[:2], PastTurn(3, TURNS[2].reply, [], asked), second])
    told = run.models.requests[-1][-1]["content"]
    assert told.index("Never tell names. How many?") < told.index("And why?")
    assert len(run.models.requests[-1]) == 4


@pytest.mark.parametrize(
    ("summary", "why"),
    [
        (
            ModelError("It refused.", fault="refused", model="m", hint="Ask another."),
            "the model gave no summary: It refused.",
        ),
        ("  \n", "the summary was empty"),
        ("x" * 9000, "the summary was not shorter than the messages it replaces"),
    ],
)
async def test_a_summary_that_failed_leaves_all_as_it_is(summary: Any, why: str) -> None:
    run = await further(Remembering([repl("FINAL('x')")], summary))
    assert run.heard.of(Summarized) == []
    assert run.heard.notes == [f"The conversation is kept in full: {why.rstrip('.')}."]
    said = [message["content"] for message in run.models.requests[-1] if message["role"] == "assistant"]
    assert said == [turn.reply for turn in TURNS]
    assert str(AND_WHY) in run.told()


async def test_a_summary_that_does_not_come_in_time_leaves_all_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0.01)
    run = await further(Remembering([repl("FINAL('x')")], asyncio.Event().wait))
    assert run.heard.notes == ["The conversation is kept in full: the model gave no summary: time-out."]


async def test_a_summary_has_no_more_time_than_the_run() -> None:
    models = Remembering(["FINAL(in time)"], asyncio.Event().wait)
    run = going_on(models, limits=Limits(seconds=0.2))
    outcome = await asyncio.wait_for(run.outcome(past=Past(TURNS, question="And why?")), 30)
    assert outcome.answer is not None
    assert outcome.answer.text == "in time"


async def test_what_an_unusable_summary_cost_is_in_the_account() -> None:
    run = await further(Remembering([repl("FINAL('x')")], "", usage=Usage(100, 10)))
    assert (run.ledger.totals().root_usage, run.ledger.totals().cost) == (Usage(200, 20), 0.5)


async def test_without_money_no_summary_is_asked_for() -> None:
    models = Remembering(["FINAL(a guess)"])
    run = await further(models, limits=Limits(cost=0.0))
    assert models.summaries == []
    assert "The limit of cost is reached" in run.heard.notes[0]


async def test_a_short_work_is_not_worth_a_summary() -> None:
    models = Remembering([repl("FINAL(context)")])
    run = await further(models, TURNS[1:], verbatim=0)
    assert (models.summaries, run.heard.notes) == ([], [])


async def test_one_turn_with_a_large_output_is_worth_one() -> None:
    models = Remembering([repl("FINAL('x')")], "y" * 500)
    await further(models, TURNS[:1])
    assert len(models.summaries) == 1


async def test_a_summary_is_no_turn() -> None:
    run = await further(Remembering([repl("FINAL('x')")]), limits=Limits(turns=1))
    assert run.ledger.totals().turns == 1


async def test_where_it_is_off_all_turns_stay() -> None:
    models = Remembering([repl("FINAL('x')")])
    run = Run(models)
    run.loop.conversation.share, run.loop.conversation.verbatim = None, 0
    await run.outcome(past=Past(TURNS, question="And why?"))
    assert models.summaries == []


async def test_turns_that_crowd_a_small_window_are_summed_up_however_short() -> None:
    models = Remembering([repl("FINAL('x')")], window=1000)
    await further(models, verbatim=8_000)
    assert len(models.summaries) == 1


@pytest.mark.parametrize(("read", "summed"), [(0, 0), (9_000, 1)])
async def test_the_turns_are_measured_by_the_providers_count(read: int, summed: int) -> None:
    """In some languages and codes a token has one character or two."""
    models = Remembering([repl("FINAL('x')")])
    await further(models, [*TURNS[:2], replace(TURNS[2], read=read)], verbatim=5_000)
    assert len(models.summaries) == summed


async def test_cancelling_it_leaves_nothing_behind() -> None:
    waiting = asyncio.Event()

    async def forever() -> str:
        waiting.set()
        await asyncio.Event().wait()
        return ""

    run = going_on(Remembering([], forever))
    task = asyncio.create_task(run.loop.run("?", INFO, from_files=True, past=Past(TURNS, question="Why?")))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.heard.of(Summarized) == []


# Tokens saved


async def test_tokens_are_the_providers_where_it_counts_them() -> None:
    models = Remembering([repl("FINAL('x')")], usage=Usage(2000, 30, 1500))
    (summed,) = (await further(models)).heard.of(Summarized)
    kept, (asked,) = summed.memory, models.summaries
    assert not kept.estimated
    assert kept.after == 30
    everything, given = memory.estimated(asked), memory.estimated(asked[:2])
    assert kept.before == pytest.approx(2000 * (everything - given - tokens(SUM_UP)) / everything, abs=5)
    assert kept.reply.usage == Usage(2000, 30, 1500)


async def test_else_they_are_estimated_and_said_to_be() -> None:
    (summed,) = (await further(Remembering([repl("FINAL('x')")]))).heard.of(Summarized)
    kept = summed.memory
    assert kept.estimated
    assert kept.after == len(SUMMARY) / 4
    replaced = 3000 + sum(len(turn.reply) for turn in TURNS)
    assert replaced / 4 <= kept.before <= (replaced + 800) / 4


@pytest.mark.parametrize(("estimated", "about"), [(False, ""), (True, "about ")])
def test_the_tokens_saved_are_shown(estimated: bool, about: str) -> None:
    shown = io.StringIO()
    reply = Completion(SUMMARY, "m", Usage(12_500, 410), 0.5)
    LiveView(lines=False, stream=shown)(Summarized(Memory(SUMMARY, 12_340, 410, estimated, reply)))
    assert shown.getvalue() == f"memory: {about}12,340 → 410 tokens\n"


def test_it_is_on_unless_the_settings_say_otherwise() -> None:
    assert load_settings(None, {}).memory_share == 0.6
    assert load_settings(None, {"memory_compaction.share": 0.3}).memory_share == 0.3
    assert load_settings(None, {"memory_compaction.enabled": False}).memory_share is None
    assert load_settings(None, {}).memory_compaction.tokens == 8_000


# Within a run


async def test_turns_that_crowd_the_window_are_summed_up_before_the_next() -> None:
    models = Remembering([repl(LONG), repl("say('kept')"), repl("FINAL(context)")], window=1000)
    run = Run(models)
    run.loop.conversation.share = 0.6
    await run.outcome()
    assert len(models.summaries) == 1
    assert alternate(models.summaries[0])
    assert "x" * 3000 in models.summaries[0][-1]["content"], "the last output is summed up as well"
    first, second = run.models.requests[0], run.models.requests[2]
    assert second[: len(first)] == first
    assert second[len(first)]["content"] == SUMMARY
    assert second[-1]["content"].startswith(AFTER_MEMORY)
    assert [cell_id for cell_id, _ in run.kernel.ran] == ["turn-01-a", "turn-02-a", "turn-03-a"]
    assert len(run.heard.of(Summarized)) == 1


async def test_the_window_is_measured_by_the_providers_count() -> None:
    def run_with(prompt: int) -> Remembering:
        return Remembering(
            [repl("say(context * 150)"), repl("FINAL(context)")], window=10_000, usage=Usage(prompt, 1)
        )

    summed = []
    for prompt in (4_000, 7_000):
        models = run_with(prompt)
        run = Run(models)
        run.loop.conversation.share = 0.6
        await run.outcome()
        summed.append(len(models.summaries))
    assert summed == [0, 1]


@pytest.mark.parametrize(("turns", "crowds"), [(1_600, False), (2_400, True)])
def test_instructions_that_fill_half_of_a_small_window_leave_the_turns_their_share_of_the_rest(
    turns: int, crowds: bool
) -> None:
    said: list[Message] = [
        {"role": "system", "content": "i" * 16_000},
        {"role": "user", "content": "t" * turns * 4},
    ]
    assert memory.crowded(said, 1, Usage(prompt=4_000 + turns), 2, 8_000, 0.5) == crowds
    assert memory.crowded(said, 1, Usage(), 0, 8_000, 0.5) == crowds, "the same by an estimate"


@pytest.mark.parametrize("share", [None, 1.0])
async def test_below_the_share_and_where_it_is_off_nothing_is_summed_up(share: float | None) -> None:
    models = Remembering(
        [repl(LONG)] * 3 + [repl("FINAL(context)")], window=1000 if share is None else 100_000
    )
    run = Run(models)
    run.loop.conversation.share = share
    await run.outcome()
    assert models.summaries == []


async def test_a_window_that_is_not_known_is_taken_as_a_usual_one() -> None:
    models = Remembering([repl("say('x' * 400_000)")] * 2 + [repl("FINAL(context)")])
    run = Run(models, output_chars=400_000)
    run.loop.conversation.share = 0.6
    await run.outcome()
    assert len(models.summaries) == 1


async def test_where_it_does_not_help_it_is_not_tried_turn_after_turn() -> None:
    code = [repl(f"{LONG} or {turn}") for turn in range(6)]
    models = Remembering([*code, repl("FINAL(context)")], "", window=10)
    run = Run(models)
    run.loop.conversation.share = 0.1
    await run.outcome()
    assert len(models.summaries) == 3
    assert all(alternate(request) for request in run.models.requests)


async def test_a_summary_takes_in_the_one_before_it() -> None:
    models = Remembering([repl(LONG)] * 5 + [repl("FINAL(context)")], window=500)
    run = Run(models)
    run.loop.conversation.share = 0.5
    await run.outcome()
    assert len(models.summaries) >= 2
    assert [m["content"] for m in models.summaries[1] if m["role"] == "assistant"].count(SUMMARY) == 1
    assert all([m["content"] for m in request].count(SUMMARY) <= 1 for request in run.models.requests)


async def test_a_conversation_that_crowds_the_window_when_a_question_is_put_goes_on() -> None:
    models = Remembering([repl("FINAL('x')")], "", window=100)
    run = Run(models)
    run.loop.conversation.share = 0.5
    turns = [PastTurn(number, repl(LONG), [ran(LONG, "x" * 3000)]) for number in (1, 2)]
    outcome = await run.outcome(past=Past(turns, question="And why?"))
    assert outcome.answer is not None
    assert "And why?" in run.models.requests[-1][-1]["content"]


async def test_a_run_cut_off_right_after_a_summary_goes_on_with_the_next_turn() -> None:
    """The summary is no reply whose cells are left to run."""
    run = Run(Remembering([repl("FINAL('x')")]))
    summed = PastTurn(2, "I ran\n```repl\nsay('again')\n```\nand found it.", memory=True)
    await run.outcome(past=Past([summed], "It was interrupted.", unfinished=True))
    assert run.kernel.ran == [("turn-03-a", "FINAL('x')")]
    told = run.told(0)
    assert told.startswith(AFTER_MEMORY)
    assert "It was interrupted." in told
    assert run.heard.notes == ["It was interrupted."]


# The order of roles

words = st.text("ab .\n", max_size=8)
results = st.builds(
    lambda code, said, status: CellResult(
        "c", code, status, [failure("E", said)] if said else [], datetime.now(UTC), 0.1
    ),
    st.just("say(context)"),
    words,
    st.sampled_from(["ok", "error", "timeout", "died"]),
)
replies = st.one_of(
    st.just(""), words, st.just(repl("say(1)")), st.just(repl("fail()", "say(2)")), st.just("FINAL_VAR(none)")
)
turns = st.builds(
    PastTurn,
    st.integers(1, 99),
    replies,
    st.lists(results, max_size=2),
    st.lists(words | st.builds(messages.Asked, words) | results, max_size=3),
    st.booleans(),
    st.lists(st.builds(messages.Asked, words), max_size=2),
)
pasts = st.builds(Past, st.lists(turns, max_size=5), words, words, st.booleans())


@settings(max_examples=300, deadline=None)
@given(
    past=st.none() | pasts,
    said=st.lists(replies, max_size=4),
    summary=st.sampled_from([SUMMARY, "", "x" * 9000]),
    limit=st.integers(1, 5),
    window=st.sampled_from([None, 50]),
)
def test_no_two_messages_of_one_role_in_a_row(
    past: Past | None, said: list[str], summary: str, limit: int, window: int | None
) -> None:
    async def converse() -> Run:
        models = Remembering(
            [*said, *[repl("say('x' * 1500)", "FINAL('done')")] * 20], summary, window=window
        )
        run = Run(models, limits=Limits(turns=limit))
        run.loop.conversation.share = 0.5
        run.loop.conversation.verbatim = 0
        await run.outcome(past=past)
        return run

    run = asyncio.run(converse())
    for request in run.models.requests:
        assert alternate(request), roles(request)
        assert request[0]["content"].startswith("SYSTEM")
        assert f"a.txt ({INFO.total_chars} characters)" in request[1]["content"]

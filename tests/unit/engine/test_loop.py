from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from rlm_kernel.engine import loop as loop_module
from rlm_kernel.engine import messages as say
from rlm_kernel.engine.events import (
    CallFinished,
    CellFinished,
    CellStarted,
    TurnPiece,
    TurnReplied,
    TurnStarted,
)
from rlm_kernel.engine.ledger import Limits
from rlm_kernel.engine.prompts import Profile
from rlm_kernel.engine.protocols import Answer, Completion, ContextInfo, Message, Role, Usage
from rlm_kernel.engine.purse import LocalPurse
from rlm_kernel.errors import KernelError, ModelError, TraceError
from rlm_kernel.models.scripted import ScriptedModels
from tests.support.engine import INFO, PROFILE, Recorder, Run


def repl(*codes: str) -> str:
    return "\n".join(f"```repl\n{code}\n```" for code in codes)


LOOK = repl("say(context[:5])")


def scripted(*replies: str, **options: Any) -> Run:
    return Run(ScriptedModels(replies, str.upper), **options)


class Priced(ScriptedModels):
    """Each reply uses 100 tokens and costs a dollar."""

    async def complete(
        self, messages: Sequence[Message], *, role: Role, model: str | None = None, **options: Any
    ) -> Completion:
        reply = await super().complete(messages, role=role, model=model, **options)
        return replace(reply, usage=Usage(60, 40), cost=1.0)


class Ending(ScriptedModels):
    """Replies end for a reason."""

    def __init__(self, replies: Sequence[str], reason: str) -> None:
        super().__init__(replies)
        self._reason = reason

    async def complete(
        self, messages: Sequence[Message], *, role: Role, model: str | None = None, **options: Any
    ) -> Completion:
        return replace(
            await super().complete(messages, role=role, model=model, **options), finish_reason=self._reason
        )


# Cells


async def test_cells_run_in_order_and_their_output_comes_back() -> None:
    run = scripted(repl("say(context)", "say(2)"), repl("FINAL('done')"))
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("done"), "answered", False)
    assert run.kernel.ran == [
        ("turn-01-a", "say(context)"),
        ("turn-01-b", "say(2)"),
        ("turn-02-a", "FINAL('done')"),
    ]
    assert "Output of cell 1:\nhello world\n\nOutput of cell 2:\n2" in run.told()


async def test_the_first_error_stops_the_rest_and_says_so() -> None:
    run = scripted(repl("say(context)", "fail()", "say(3)", "say(4)"), repl("FINAL(str('x'))"))
    await run.outcome()
    assert "say(3)" not in run.cells
    assert "Output of cell 2 (it raised an error):\nValueError: it failed" in run.told()
    assert "The last 2 blocks did not run, because of the error above." in run.told()


@pytest.mark.parametrize(
    ("second", "remarked"),
    [("say(f'{context}, In[{nth()}]')", True), ("say(f'{context}, In[{nth()}] ')", False)],
)
async def test_code_that_gives_the_same_again_is_remarked_upon_whatever_its_cells_number(
    second: str, remarked: bool
) -> None:
    run = scripted(repl("say(f'{context}, In[{nth()}]')"), repl(second), repl("FINAL(1)"))
    await run.outcome()
    assert (say.REPEATED in run.told()) == remarked


async def test_cells_after_the_answer_do_not_run() -> None:
    run = scripted(repl("say(context)", "FINAL(7)", "say(3)"))
    assert (await run.outcome()).answer == Answer("7", 7)
    assert run.cells == ["say(context)", "FINAL(7)"]


async def test_a_kernel_that_died_is_told_and_the_run_goes_on() -> None:
    run = scripted(repl("say(context)", "die()", "say(3)"), repl("FINAL(str('x'))"))
    assert (await run.outcome()).stop_reason == "answered"
    assert "Output of cell 2 (the kernel died)" in run.told()


async def test_a_kernel_that_is_lost_for_good_ends_the_run() -> None:
    with pytest.raises(KernelError, match="lost"):
        await scripted(repl("lose()")).outcome()


async def test_more_cells_than_letters_have_ids_of_their_own() -> None:
    run = scripted(repl(*["say(context)"] * 30), repl("FINAL(1)"))
    await run.outcome()
    ids = [cell_id for cell_id, _ in run.kernel.ran]
    assert len(set(ids)) == len(ids)
    assert ids[25:27] == ["turn-01-z", "turn-01-27"]


async def test_output_is_truncated_in_the_middle_with_a_notice() -> None:
    run = scripted(repl("say('a' * 600 + 'b' * 600)", "say(context)"), repl("FINAL(1)"), output_chars=111)
    await run.outcome()
    assert "a" * 50 + "\n… [1,100 of 1,200 characters left out here] …\n" + "b" * 50 in run.told()


async def test_a_small_models_profile_caps_the_output_further() -> None:
    run = scripted(
        repl("say('a' * 600 + context)"), repl("FINAL(1)"), profile=replace(PROFILE, output_chars=20)
    )
    await run.outcome()
    assert "of 611 characters left out" in run.told()


async def test_host_calls_and_answer_are_part_of_their_cell() -> None:
    run = scripted(repl("ask_all([context, 'b'])"), repl("FINAL('x')"))
    await run.outcome()
    first, second = [event.result for event in run.heard.of(CellFinished)]
    assert sorted(call.answer for call in first.calls) == ["B", "HELLO WORLD"]
    assert second.answer == Answer("x")
    assert "['HELLO WORLD', 'B']" in run.told()


async def test_set_up_cells_are_in_the_trace_and_in_no_turn() -> None:
    run = scripted()
    result = await run.loop.set_up("parameters", "load('/a.txt')")
    assert result.status == "ok"
    assert [call.kind for call in result.calls] == ["file"]
    assert run.heard.of(CellStarted) == [CellStarted("parameters", 0, "load('/a.txt')")]


# Answers


async def test_final_in_prose_after_looking_is_taken() -> None:
    run = scripted(LOOK, 'So:\nFINAL(It\'s "hello" (twice).)')
    assert (await run.outcome()).answer == Answer('It\'s "hello" (twice).')


async def test_quotes_around_an_answer_in_prose_are_taken_off() -> None:
    assert (await scripted(LOOK, "FINAL('it\\'s')").outcome()).answer == Answer("it's")


async def test_final_var_in_prose_takes_the_variable_from_the_kernel() -> None:
    run = scripted(LOOK, "FINAL_VAR(report)")
    run.kernel.variables["report"] = "a long report"
    assert (await run.outcome()).answer == Answer("a long report")
    assert run.kernel.ran[-1] == ("turn-02-final", "FINAL_VAR('report')")


async def test_a_bare_name_in_final_is_tried_as_a_variable() -> None:
    run = scripted(LOOK, "FINAL(report)")
    run.kernel.variables["report"] = "a long report"
    assert (await run.outcome()).answer == Answer("a long report")


async def test_a_bare_word_that_is_no_variable_is_the_answer() -> None:
    assert (await scripted(LOOK, "FINAL(Paris)").outcome()).answer == Answer("Paris")


async def test_final_var_of_an_unknown_name_is_told() -> None:
    run = scripted(LOOK, "FINAL_VAR(nothing)", repl("FINAL('x')"))
    assert (await run.outcome()).answer == Answer("x")
    assert "no variable named 'nothing'" in run.told()


async def test_final_var_beside_code_is_taken_after_the_code() -> None:
    run = scripted(repl("say(context)") + "\nFINAL_VAR(context)")
    assert (await run.outcome()).answer == Answer("hello world")


async def test_final_beside_code_is_not_taken() -> None:
    run = scripted(LOOK + "\nFINAL(guess)", "FINAL(I have seen it)")
    assert (await run.outcome()).answer == Answer("I have seen it")
    assert "FINAL(...) outside code was not taken" in run.told(1)


async def test_an_answer_beside_code_that_failed_is_not_taken() -> None:
    run = scripted(repl("say(context)", "fail()") + "\nFINAL_VAR(context)", repl("FINAL(str('x'))"))
    assert (await run.outcome()).answer == Answer("x")
    assert "turn-01-final" not in dict(run.kernel.ran)


async def test_an_empty_final_in_prose_is_no_answer_and_is_told() -> None:
    run = scripted(LOOK, "FINAL()", repl("FINAL(1)"))
    assert (await run.outcome()).answer == Answer("1", 1)
    assert "the form of an answer and not the answer" in run.told()


@pytest.mark.parametrize("premature", ["FINAL(Paris it is)", repl("FINAL('Paris')"), "FINAL_VAR(context)"])
async def test_an_answer_before_looking_is_guarded_against_once(premature: str) -> None:
    run = scripted(premature, premature)
    assert (await run.outcome()).answer is not None
    assert len(run.models.requests) == 2
    assert "before any code had looked at the input" in run.told()
    assert sum("before any code" in note for note in run.heard.notes) == 1


@pytest.mark.parametrize(
    "hasty", ["FINAL(0)", repl("FINAL(0)"), repl('FINAL_VAR("context")'), repl("FINAL(context[0])")]
)
async def test_an_answer_right_after_an_error_is_asked_for_twice(hasty: str) -> None:
    run = scripted(repl("fail(context)"), hasty, hasty)
    assert (await run.outcome()).answer is not None
    assert len(run.models.requests) == 3
    assert "the cell before it ended in an error" in run.told()


@pytest.mark.parametrize(
    "sound", [repl("FINAL(len(context))"), "```repl\nsay(context)\n```\n```repl\nFINAL(1)\n```"]
)
async def test_an_answer_that_was_computed_after_an_error_is_taken(sound: str) -> None:
    run = scripted(repl("fail(context)"), sound)
    assert (await run.outcome()).answer is not None
    assert len(run.models.requests) == 2


async def test_an_answer_is_taken_once_the_error_was_mended() -> None:
    run = scripted(repl("fail(context)"), LOOK, "FINAL(0)")
    assert (await run.outcome()).answer == Answer("0", 0)


async def test_the_same_code_with_the_same_output_is_remarked_upon() -> None:
    run = scripted(LOOK, LOOK, LOOK, "FINAL(0)")
    await run.outcome()
    assert "the same code as before" not in run.told(1)
    assert "the same code as before" in run.told(2)
    assert "the same code as before" in run.told(3)


@pytest.mark.parametrize(("reason", "cells"), [("length", 1), ("stop", 2)])
async def test_code_that_the_length_cut_off_does_not_run(reason: str, cells: int) -> None:
    run = Run(Ending([f"{LOOK}\nAnd then:\n```repl\nsay(2)", "FINAL(0)"], reason))
    await run.outcome()
    assert len(run.cells) == cells
    assert ("was cut off in the middle of its code" in run.told()) == (reason == "length")


async def test_without_an_input_there_is_nothing_to_look_at() -> None:
    run = scripted("FINAL(Paris it is)")
    assert (await run.outcome(info=ContextInfo("None", 0))).answer == Answer("Paris it is")


async def test_replies_with_nothing_to_run_are_nudged_and_after_three_given_up() -> None:
    run = scripted(LOOK, "Hm.", "Let me think.", "Well.", "FINAL(a guess)")
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("a guess"), "no_answer", True)
    assert "neither a ```repl block nor FINAL" in run.told(2)
    assert "The last 3 replies had nothing to run." in outcome.detail


async def test_the_same_code_with_the_same_output_is_given_up_after_four_times() -> None:
    run = scripted(LOOK, LOOK, "It should be right.", LOOK, LOOK, "FINAL(a guess)", LOOK)
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("a guess"), "no_answer", True)
    assert "The same code was run 4 times, and gave the same." in outcome.detail


async def test_the_same_code_that_gives_something_else_each_time_goes_on() -> None:
    run = scripted(*[repl("say(context[:5] * nth())")] * 6, "FINAL(six)")
    assert (await run.outcome()).stop_reason == "answered"


async def test_a_cell_ends_the_count_of_idle_replies() -> None:
    run = scripted("Hm.", "Hm.", LOOK, "Hm.", "Hm.", "FINAL(I know)")
    assert (await run.outcome()).stop_reason == "answered"


# Limits


async def test_turns_at_their_end_force_one_answer() -> None:
    run = scripted(LOOK, LOOK, "FINAL(about five)", limits=Limits(turns=2))
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("about five"), "turns", True)
    assert "Give your best answer now" in run.told()
    assert run.ledger.totals().turns == 3, "the forced one is a reply, too"
    assert "No turn is left." in run.told()


@pytest.mark.parametrize(("limits", "reason"), [(Limits(tokens=150), "tokens"), (Limits(cost=1.5), "cost")])
async def test_tokens_and_money_at_their_end_force_one_answer(limits: Limits, reason: str) -> None:
    run = Run(Priced([LOOK, LOOK, "FINAL(this)"]), limits)
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("this"), reason, True)
    assert (run.ledger.totals().cost, run.ledger.totals().root_usage.total) == (3.0, 300)


async def test_a_run_ends_with_what_it_has_when_the_batchs_budget_is_used_up_and_asks_for_no_last_answer() -> (
    None
):
    run = Run(Priced([LOOK, LOOK, "FINAL(this)"]), purse=LocalPurse(cost=1.5))
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (None, "batch", False)
    assert outcome.detail == "The batch's limit of cost is reached: 2 of 1.5 US dollars used."
    assert len(run.models.requests) == 2
    assert outcome.detail in run.heard.notes


async def test_a_last_answer_that_the_batchs_budget_refuses_is_told_with_the_limit_that_asked_for_it() -> (
    None
):
    run = Run(Priced([LOOK, "FINAL(this)"]), Limits(turns=1), purse=LocalPurse(cost=1.0))
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason) == (None, "batch")
    assert "limit of turns is reached" in outcome.detail
    assert "The batch's limit of cost is reached: 1 of 1 US dollars used." in outcome.detail


async def test_code_is_told_that_the_batchs_budget_refuses_its_calls() -> None:
    purse = LocalPurse(calls=3)
    run = scripted(repl("ask_all([context, 'b', 'c'])"), repl("FINAL('x')"), purse=purse)
    assert (await run.outcome()).stop_reason == "batch"
    assert purse.spent.calls == 3
    errors = [finished.call.error_type for finished in run.heard.of(CallFinished)]
    assert errors == [None, None, "BudgetExceeded"]


async def test_calls_at_their_end_raise_in_the_cell_and_the_run_goes_on() -> None:
    run = scripted(repl("ask_all([context, 'b', 'c'])"), repl("FINAL('x')"), limits=Limits(calls=2))
    assert (await run.outcome()).stop_reason == "answered"
    assert "'BudgetExceeded'" in run.told()
    assert run.ledger.totals().calls == 2
    assert "Left: 0 sub-model calls." in run.told()


async def test_a_run_over_its_seconds_interrupts_the_cell() -> None:
    run = scripted(repl("wait()", "say(context)"), "FINAL(not found)", limits=Limits(seconds=0.2))
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("not found"), "seconds", True)
    assert run.kernel.interrupts == 1
    assert "Interrupted" in run.told()


async def test_a_run_over_its_seconds_stops_waiting_for_the_root_model() -> None:
    async def root(messages: Sequence[Message]) -> str:
        if "best answer now" not in messages[-1]["content"]:
            await asyncio.Event().wait()
        return "FINAL(late)"

    outcome = await Run(ScriptedModels(root), Limits(seconds=0.1)).outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("late"), "seconds", True)


async def test_a_variable_can_still_be_delivered_when_the_seconds_are_over() -> None:
    run = scripted(repl("wait()"), "FINAL_VAR(context)", limits=Limits(seconds=0.1))
    original = run.kernel.run_cell

    async def slowly(cell_id: str, code: str) -> Any:
        if cell_id.endswith("-final"):
            await asyncio.sleep(0.05)
        return await original(cell_id, code)

    run.kernel.run_cell = slowly  # type: ignore[method-assign]
    outcome = await run.outcome()
    assert (outcome.answer, outcome.forced) == (Answer("hello world"), True)
    assert run.kernel.interrupts == 1


async def test_a_forced_answer_may_come_in_code() -> None:
    run = scripted(LOOK, repl("say(1)", "FINAL(context)"), limits=Limits(turns=1))
    assert (await run.outcome()).answer == Answer("hello world")
    assert "say(1)" not in run.cells


async def test_forced_words_without_final_are_the_answer() -> None:
    outcome = await scripted(LOOK, "It is five.", limits=Limits(turns=1)).outcome()
    assert (outcome.answer, outcome.forced) == (Answer("It is five."), True)


@pytest.mark.parametrize("last", ["", repl("say(1)"), "FINAL_VAR(unknown)"])
async def test_a_forced_reply_without_an_answer_is_none(last: str) -> None:
    outcome = await scripted(LOOK, last, limits=Limits(turns=1)).outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (None, "turns", False)
    assert "limit of turns" in outcome.detail


async def test_a_forced_answer_that_does_not_come_is_none_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcome = await scripted(LOOK, limits=Limits(turns=1)).outcome()
    assert (outcome.answer, outcome.stop_reason) == (None, "turns")
    assert "has 1 replies" in outcome.detail

    async def root(messages: Sequence[Message]) -> str:
        return LOOK if len(messages) == 2 else await asyncio.Event().wait() or ""

    monkeypatch.setattr(loop_module, "LAST_ANSWER_SECONDS", 0.05)
    outcome = await Run(ScriptedModels(root), Limits(turns=1)).outcome()
    assert (outcome.answer, outcome.detail.endswith("The last answer did not come: time-out")) == (None, True)


async def test_a_failing_root_model_ends_the_run() -> None:
    with pytest.raises(ModelError):
        await scripted(LOOK).outcome()


# The conversation


async def test_the_history_is_append_only() -> None:
    run = scripted(LOOK, "Hm.", repl("fail()"), LOOK, LOOK, "FINAL(z)", limits=Limits(turns=5))
    await run.outcome()
    requests = run.models.requests
    assert len(requests) == 6
    for earlier, later in pairwise(requests):
        assert later[: len(earlier)] == earlier
        assert later[len(earlier)]["role"] == "assistant"


async def test_the_first_messages_are_system_examples_and_question() -> None:
    examples: tuple[Message, ...] = (
        {"role": "user", "content": "example?"},
        {"role": "assistant", "content": "so"},
    )
    profile = Profile("small", "SYSTEM {context_hint}", examples, "", 2000, 5)
    run = scripted(repl("FINAL(context)"), profile=profile)
    await run.outcome()
    system, *shown, question = run.models.requests[0]
    assert (system["role"], system["content"]) == ("system", "SYSTEM It is one str.")
    assert tuple(shown) == examples
    assert question["content"].splitlines() == [
        "Context: str, 11 characters in 1 piece.",
        "Files: a.txt (11 characters)",
        "Starts with: 'hello'",
        "Question: What is it?",
        "Turn 1 of 30.",
    ]


async def test_every_message_says_turn_and_budget() -> None:
    run = scripted(repl("ask(context)"), "Hm.", repl("FINAL(1)"), limits=Limits(turns=9, calls=5))
    await run.outcome()
    lines = [request[-1]["content"].splitlines()[-1] for request in run.models.requests]
    assert lines == [
        "Turn 1 of 9. Left: 5 sub-model calls.",
        "Turn 2 of 9. Left: 4 sub-model calls.",
        "Turn 3 of 9. Left: 4 sub-model calls.",
    ]


async def test_the_trace_hears_everything_in_order() -> None:
    run = scripted(LOOK, repl("FINAL(1)"))
    await run.outcome()
    turn = [TurnStarted, TurnReplied, CellStarted]
    kinds = [kind for kind in run.heard.kinds if kind is not TurnPiece]
    assert kinds == [*turn, CellFinished, *turn, CallFinished, CellFinished]
    assert run.heard.of(TurnReplied)[0].prose == ""


# Cancellation


async def cancelled(run: Run) -> None:
    task = asyncio.ensure_future(run.outcome())
    await asyncio.wait_for(run.kernel.running.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling_the_run_cancels_its_cell() -> None:
    run = scripted(repl("wait()"))
    await cancelled(run)
    assert run.kernel.cancelled == 1


async def test_a_cell_that_fails_while_it_is_cancelled_does_not_hide_the_cancellation() -> None:
    run = scripted(repl("wait()"))

    async def run_cell(_cell_id: str, _code: str) -> Any:
        run.kernel.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise KernelError("gone")

    run.kernel.run_cell = run_cell  # type: ignore[method-assign]
    await cancelled(run)


async def test_cancelling_while_the_model_thinks_ends_at_once() -> None:
    thinking = asyncio.Event()

    async def root(_messages: Sequence[Message]) -> str:
        thinking.set()
        await asyncio.Event().wait()
        return ""

    task = asyncio.ensure_future(Run(ScriptedModels(root), Limits(seconds=60)).outcome())
    await thinking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_a_trace_that_cannot_be_written_ends_the_run_without_a_cell_left_over() -> None:
    with pytest.raises(TraceError):
        await Run(ScriptedModels([LOOK]), heard=Recorder(CellStarted, TraceError("disk full"))).outcome(
            info=INFO
        )
    gc.collect()  # a coroutine that nobody awaited would warn, and warnings are errors

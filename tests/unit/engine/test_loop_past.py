"""The loop takes a run up: the conversation is as it was, and what was cut off is done first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from rlm_kernel.engine import messages
from rlm_kernel.engine.conversation import Past, PastTurn
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, CellResult, CellStatus, Totals, Usage
from rlm_kernel.errors import BudgetExceeded
from rlm_kernel.models.scripted import ScriptedModels
from tests.support.engine import Run, failure, stream


def repl(*codes: str) -> str:
    return "\n".join(f"```repl\n{code}\n```" for code in codes)


def ran(
    cell_id: str, code: str, said: str = "", status: CellStatus = "ok", answer: Answer | None = None
) -> CellResult:
    outputs = [failure("ValueError", said)] if status == "error" else [stream(said)] if said else []
    return CellResult(cell_id, code, status, outputs, datetime.now(UTC), 0.1, answer=answer)


def run_with(*replies: str) -> Run:
    return Run(ScriptedModels(replies, str.upper))


LOOKED = PastTurn(1, repl("say(context)"), [ran("turn-01-a", "say(context)", "hello")])


async def test_the_conversation_is_as_it_would_have_been() -> None:
    whole = run_with(repl("say(context)"), repl("say(2)"), repl("FINAL(3)"))
    await whole.outcome()
    taken_up = run_with(repl("FINAL(3)"))
    turns = [
        PastTurn(1, repl("say(context)"), [ran("turn-01-a", "say(context)", "hello world")]),
        PastTurn(2, repl("say(2)"), [ran("turn-02-a", "say(2)", "2")]),
    ]
    await taken_up.outcome(past=Past(turns, unfinished=True))

    def without_progress(request: Any) -> list[str]:
        return [message["content"].rpartition("Turn ")[0] or message["content"] for message in request]

    assert without_progress(taken_up.models.requests[0]) == without_progress(whole.models.requests[-1])


async def test_cells_go_on_with_the_next_turns_number() -> None:
    run = run_with(repl("FINAL(3)"))
    await run.outcome(past=Past([LOOKED, PastTurn(4, "nothing")]))
    assert [cell_id for cell_id, _ in run.kernel.ran] == ["turn-05-a"]


async def test_the_rest_of_a_turn_that_was_cut_off_is_run_before_the_model_is_asked() -> None:
    run = run_with(repl("FINAL('x')"))
    cut = PastTurn(2, repl("say(1)", "say(2)", "say(3)"), [ran("turn-02-a", "say(1)", "1")])
    await run.outcome(past=Past([LOOKED, cut], "It was interrupted.", unfinished=True))
    assert run.kernel.ran[:2] == [("turn-02-b", "say(2)"), ("turn-02-c", "say(3)")]
    told = run.told(0)
    assert "Output of cell 1:\n1\n\nOutput of cell 2:\n2\n\nOutput of cell 3:\n3" in told
    assert "It was interrupted." in told
    assert run.heard.notes == ["It was interrupted."]


async def test_an_answer_that_had_been_delivered_stands_without_any_model() -> None:
    run = run_with()
    last = PastTurn(2, repl("FINAL(7)"), [ran("turn-02-a", "FINAL(7)", answer=Answer("7", 7))])
    outcome = await run.outcome(past=Past([LOOKED, last], unfinished=True))
    assert (outcome.answer, outcome.stop_reason) == (Answer("7", 7), "answered")
    assert not run.models.requests


async def test_a_cell_that_failed_then_ends_its_turn_as_it_did() -> None:
    run = run_with(repl("FINAL(str('x'))"))
    cut = PastTurn(2, repl("fail()", "say(2)"), [ran("turn-02-a", "fail()", "bad", "error")])
    await run.outcome(past=Past([LOOKED, cut], unfinished=True))
    assert [code for _, code in run.kernel.ran] == ["FINAL(str('x'))"]
    assert "The last block did not run, because of the error above." in run.told(0)


async def test_a_name_that_stood_in_prose_is_tried_again() -> None:
    run = run_with()
    run.kernel.variables["total"] = 5
    outcome = await run.outcome(past=Past([LOOKED, PastTurn(2, "FINAL_VAR(total)")], unfinished=True))
    assert outcome.answer == Answer("5", 5)


async def test_a_further_question_is_put_after_what_was_there() -> None:
    run = run_with(repl("FINAL('x')"))
    answered = PastTurn(2, repl("FINAL(1)", "say(2)"), [ran("turn-02-a", "FINAL(1)", answer=Answer("1"))])
    await run.outcome(past=Past([LOOKED, answered], "A copy.", "And why?"))
    told = run.told(0)
    assert "The last block did not run.\n\nA copy.\n\nThe next question" in told
    assert "And why?" in told
    assert run.cells == ["FINAL('x')"]


async def test_without_any_turn_the_message_goes_with_the_question() -> None:
    run = run_with(repl("FINAL(context)"))
    await run.outcome(past=Past([], "It was interrupted.", unfinished=True))
    told = run.told(0)
    assert "Question: What is it?" in told
    assert told.endswith("It was interrupted.")
    assert run.cells == ["FINAL(context)"]


async def test_what_was_looked_at_and_remarked_then_counts() -> None:
    run = run_with(repl("FINAL(1)"))
    assert (await run.outcome(past=Past([LOOKED]))).answer == Answer("1", 1)
    warned = run_with(repl("FINAL(1)"))
    turns = [PastTurn(1, "FINAL(1)", [], [messages.NOT_LOOKED])]
    assert (await warned.outcome(past=Past(turns))).answer == Answer("1", 1)


async def test_the_model_is_told_what_a_person_ran() -> None:
    run = run_with(repl("say(context)"), repl("FINAL(1)"))
    run.kernel.persons = [ran("person-01", "x = 41", "41")]
    await run.outcome()
    assert "A person ran this in your kernel:\n```python\nx = 41\n```\nOutput:\n41" in run.told(1)
    assert run.kernel.persons == []


def test_what_was_spent_counts_against_the_limits() -> None:
    spent = Totals(3, 2, Usage(10, 5), Usage(20, 5), 0.5, 7.0)
    ledger = Ledger(
        Limits(turns=3, calls=5, cost=1.0, tokens=100, seconds=10), spent=spent, clock=lambda: 100.0
    )
    assert ledger.totals() == spent
    assert ledger.left() == {"turns": 0, "calls": 3, "cost": 0.5, "tokens": 60, "seconds": 3, "depth": 0}
    with pytest.raises(BudgetExceeded):
        ledger.check_turn()
    assert Ledger(Limits(), spent=Totals(unpriced=1)).totals().cost is None

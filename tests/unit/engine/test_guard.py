"""The guard over answers: each objection is made once, and what was said in an earlier part of a run is not
said again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.guard import Exhausted, Guard
from rlm_kernel.engine.protocols import CellResult
from rlm_kernel.engine.replies import Reply, parse_reply
from tests.support.engine import failure, stream
from tests.support.trace import result
from tests.support.tree import repl

DELIVERS = parse_reply(repl("FINAL(found)"))
LOOKS = parse_reply(repl("print(context[:20])"))
FAILED = [result("turn-01-a", "print(context[:20])", "error", [failure("ValueError", "bad")])]


def looked() -> Guard:
    guard = Guard()
    guard.looked = True
    return guard


def test_an_answer_before_code_has_looked_at_the_input_is_turned_down_once() -> None:
    guard = Guard()
    guard.see("found = 41")
    assert [guard.objection(hasty=False) for _ in range(2)] == [say.NOT_LOOKED, None]


def test_an_answer_stands_once_code_has_looked_at_the_input() -> None:
    guard = Guard()
    guard.see("print(context[:20])")
    assert guard.objection(hasty=False) is None


def test_an_answer_after_an_error_is_turned_down_once() -> None:
    guard = looked()
    assert not guard.hasty(DELIVERS), "nothing has failed"
    guard.turn_ended(LOOKS, FAILED)
    assert (guard.hasty(DELIVERS), guard.hasty(LOOKS)) == (True, False)
    assert guard.objection(hasty=True) == say.AFTER_ERROR
    assert not guard.hasty(DELIVERS), "it gives the answer again, so it means it"


def test_a_further_question_has_nothing_to_do_with_an_error_before_it() -> None:
    guard = looked()
    guard.turn_ended(LOOKS, FAILED)
    guard.new_question()
    assert not guard.hasty(DELIVERS)


@pytest.mark.parametrize(
    ("codes", "remarks", "objections"),
    [
        (["print(context)"], [], [None, say.AFTER_ERROR]),
        ([], [say.NOT_LOOKED], [None, say.AFTER_ERROR]),
        ([], [], [say.NOT_LOOKED, say.AFTER_ERROR]),
        (["print(context)"], [say.AFTER_ERROR], [None, None]),
    ],
)
def test_what_an_earlier_part_of_the_run_has_seen_and_said_counts(
    codes: Sequence[str], remarks: Sequence[str], objections: Sequence[Any]
) -> None:
    guard = Guard()
    guard.recall([result("turn-01-a", code) for code in codes], remarks)
    guard.turn_ended(LOOKS, FAILED)
    assert [guard.objection(hasty=False), guard.objection(hasty=guard.hasty(DELIVERS))] == objections


@pytest.mark.parametrize(
    ("reply", "printed", "repeated"),
    [(LOOKS, "5", True), (LOOKS, "6", False), (parse_reply(repl("print(context[:30])")), "5", False)],
)
def test_the_same_code_that_gives_the_same_is_a_repetition(
    reply: Reply, printed: str, repeated: bool
) -> None:
    guard = looked()
    assert not guard.turn_ended(LOOKS, shown("5"))
    assert not guard.turn_ended(parse_reply("Hm."), []), "a turn without cells is none"
    assert guard.turn_ended(reply, shown(printed)) is repeated


def test_replies_with_nothing_to_run_end_the_run_when_three_come_in_a_row() -> None:
    guard = looked()
    for results in ([], [], shown("5"), [], []):
        guard.count(results)
    with pytest.raises(Exhausted, match="last 3 replies had nothing to run") as end:
        guard.count([])
    assert end.value.reason == "no_answer"


def shown(text: str) -> list[CellResult]:
    return [result("turn-01-a", "print(context[:20])", outputs=[stream(text)])]

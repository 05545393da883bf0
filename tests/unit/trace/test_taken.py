"""Cells of a trace that is taken up: cut-off cells have ended, a question that is taken back is gone with all
that came of it.
"""

from __future__ import annotations

from typing import Any

from rlm_kernel.trace.taken import before_last_question, ended


def cell(kind: str, cell_id: str = "", **ours: Any) -> dict[str, Any]:
    outputs: dict[str, Any] = (
        {"outputs": [], "cell_type": "code"} if kind == "code" else {"cell_type": "markdown"}
    )
    return {"id": cell_id or kind, "metadata": {"rlm": {"kind": kind, **ours}}, "source": "", **outputs}


def test_a_cell_that_was_cut_off_counts_as_interrupted() -> None:
    (cut,) = ended([cell("code", status="running", seconds=2.5)])
    assert cut["metadata"]["rlm"]["status"] == "error"
    assert cut["metadata"]["rlm"]["seconds"] == 2.5
    assert [output["ename"] for output in cut["outputs"]] == ["KeyboardInterrupt"]


def test_what_has_ended_stays_as_it_is() -> None:
    whole = [
        cell("title"),
        cell("code", status="ok"),
        {"id": "x", "cell_type": "code", "metadata": {}, "outputs": []},
    ]
    assert ended(whole) == whole


def test_the_first_question_taken_back_leaves_the_set_up() -> None:
    cells = [
        cell("title"),
        cell("parameters"),
        cell("setup"),
        cell("model"),
        cell("code"),
        cell("answer"),
        cell("summary"),
    ]
    assert before_last_question(cells) == cells[:3]


def test_a_further_question_taken_back_leaves_the_one_before_whole() -> None:
    first = [
        cell("title"),
        cell("setup"),
        cell("model", "turn-01"),
        cell("code"),
        cell("answer", "answer-01"),
        cell("memory"),
    ]
    assert before_last_question([*first, cell("question"), cell("model", "turn-02"), cell("answer")]) == first


def test_without_a_question_there_is_nothing_to_take_back() -> None:
    assert before_last_question([cell("title"), cell("setup"), cell("person")]) is None

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

from rlm_kernel.engine.events import (
    CallFinished,
    CellFinished,
    CellStarted,
    Event,
    RunFinished,
    TurnReplied,
    TurnStarted,
)
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Totals, Usage
from rlm_kernel.errors import SetupError, TraceError, UsageError
from rlm_kernel.report import records
from rlm_kernel.session.result import Result
from rlm_kernel.trace.packed import MANY
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.growth import LIMIT, growth
from tests.support.trace import STORY, WHEN, call, meta, result, tell

OUTCOME = Outcome(Answer("5"), "answered")


def result_of(path: Path, events: list[Event], question: int | None = None) -> Result:
    with_end = [*events, RunFinished(OUTCOME, Totals(turns=1))]
    writer = NotebookWriter(path, meta(), [])
    tell(writer, with_end)
    writer.close()
    return Result.of(OUTCOME, Totals(turns=1), path, question)


def turn(number: int, *calls: Any) -> list[Event]:
    cell = f"turn-{number:02d}-a"
    return [
        TurnStarted(number),
        TurnReplied(number, Completion(f"reply {number}", "openai/root", Usage(100, 20), 0.5), "I look."),
        CellStarted(cell, number, "x"),
        *(CallFinished(cell, one) for one in calls),
        CellFinished(number, result(cell, "x", calls=calls)),
    ]


def test_each_call_of_a_model_is_a_row_and_other_host_calls_are_none(tmp_path: Path) -> None:
    told = result_of(tmp_path / "t.ipynb", STORY[:-1])
    rows = told.records()
    assert [(row["id"], row["cell"], row["turn"], row["kind"]) for row in rows] == [
        ("7-1-1", "turn-01-a", 1, "llm_query"),
        ("7-1-2", "turn-01-a", 1, "llm_query"),
    ]
    assert list(rows[0]) == list(records.CALLS)
    assert (rows[0]["answer"], rows[0]["cost"], rows[0]["prompt_tokens"], rows[0]["started"]) == (
        "5", 0.25, 10, WHEN,
    )  # fmt: skip
    frame = told.calls
    assert list(frame.columns) == list(records.CALLS)
    assert frame["cost"].sum() == 0.5
    assert frame.groupby("model")["seconds"].sum()["openai/sub"] == 1.0


def test_what_is_not_known_stays_so_and_numbers_stay_numbers(tmp_path: Path) -> None:
    failed = call(2, answer=None, error="The model timed out.", cost=None, model=None)
    child = call(3, kind="rlm_query", trace="t.children/turn-01-a-1.ipynb", answer={"a": [1]}, calls=4)
    told = result_of(tmp_path / "t.ipynb", turn(1, call(1), failed, child))
    frame = told.calls
    assert frame.dtypes.astype(str).to_dict() == records.CALLS
    assert frame["cost"].isna().tolist() == [False, True, False]
    assert frame["error"].isna().tolist() == [True, False, True]
    assert frame["answer"].tolist() == ["5", None, {"a": [1]}]
    assert frame["trace"].tolist() == [None, None, "t.children/turn-01-a-1.ipynb"]
    assert frame["turn"].tolist() == [1, 1, 1]


def test_a_run_without_calls_has_an_empty_frame_of_the_same_columns(tmp_path: Path) -> None:
    told = result_of(tmp_path / "t.ipynb", turn(1))
    assert told.calls.empty
    assert told.calls.dtypes.astype(str).to_dict() == records.CALLS


def test_turns_tell_what_became_of_their_cells(tmp_path: Path) -> None:
    frame = result_of(tmp_path / "t.ipynb", STORY[:-1]).turns
    assert list(frame.columns) == list(records.TURNS)
    assert frame[["turn", "cells", "failed_cells", "calls"]].values.tolist() == [[1, 2, 1, 2], [2, 1, 1, 0]]
    assert frame["reply"][0].startswith("I look.")


def test_many_calls_of_one_cell_are_rows_as_few_are(tmp_path: Path) -> None:
    many = tuple(call(number, preview=f"Count {number}") for number in range(MANY + 5))
    rows = result_of(tmp_path / "t.ipynb", turn(1, *many)).records()
    assert [row["prompt"] for row in rows] == [f"Count {number}" for number in range(MANY + 5)]


def test_a_question_of_a_session_has_its_own_calls_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    writer = NotebookWriter(path, meta(), [])
    tell(writer, turn(1, call(1)))
    assert records.questions_asked(read_trace(path)) == 1
    writer.question("And then?")
    tell(writer, turn(2, call(2), call(3)))
    writer.close()
    of = [[row["id"] for row in Result.of(OUTCOME, Totals(), path, one).records()] for one in (0, 1, 2, None)]
    assert of == [["7-1-1"], ["7-1-2", "7-1-3"], [], ["7-1-1", "7-1-2", "7-1-3"]]


def test_a_prompt_that_the_notebook_has_in_part_is_told(tmp_path: Path) -> None:
    told = result_of(tmp_path / "t.ipynb", turn(1, call(1, preview="p" * 200), call(2, preview="short")))
    assert [row["prompt_complete"] for row in told.records()] == [False, True]


def test_a_trace_that_was_moved_or_is_none_is_named(tmp_path: Path) -> None:
    told = result_of(tmp_path / "t.ipynb", turn(1, call(1)))
    (tmp_path / "t.ipynb").rename(tmp_path / "moved.ipynb")
    with pytest.raises(UsageError, match=r"t\.ipynb no longer exists") as moved:
        _ = told.calls
    assert "dataclasses.replace" in moved.value.hint
    (tmp_path / "t.ipynb").write_text("no notebook")
    with pytest.raises(TraceError):
        told.records()


def test_without_pandas_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = result_of(tmp_path / "t.ipynb", turn(1, call(1)))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SetupError) as missing:
        _ = told.calls
    assert "pip install pandas" in missing.value.hint
    assert len(told.records()) == 1


def test_a_frame_of_rows_has_times_that_pandas_can_reckon_with(tmp_path: Path) -> None:
    frame = result_of(tmp_path / "t.ipynb", turn(1, call(1))).calls
    assert frame["started"][0] + pandas.to_timedelta(frame["seconds"][0], unit="s") > WHEN


def test_the_time_of_the_rows_grows_with_the_calls(tmp_path: Path) -> None:
    def make(size: int) -> Result:
        calls = tuple(call(number) for number in range(size))
        return result_of(tmp_path / f"{size}-{len(list(tmp_path.iterdir()))}.ipynb", turn(1, *calls))

    assert growth(make, Result.records, 300) <= LIMIT

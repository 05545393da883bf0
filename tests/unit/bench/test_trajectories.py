"""Trajectories for training: what a batch has answered, with its prompts and a reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.trajectories import trajectories
from rlm_kernel.errors import UsageError
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "traces" / "a.ipynb"
    path.parent.mkdir()
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY)
    writer.close()
    return tmp_path / "results.jsonl"


def _lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_answer_has_its_calls_in_order_and_a_reward(results: Path, tmp_path: Path) -> None:
    tasks = _lines(tmp_path / "t.jsonl", {"id": "a", "question": "?", "expected": 5, "scorer": "number"})
    _lines(
        results,
        {"id": "a", "status": "answered", "answer": "6", "trace": "traces/a.ipynb"},
        {"id": "a", "status": "answered", "answer": "It is 5.", "trace": "traces/a.ipynb"},
    )
    (one,) = trajectories(tasks, results)
    assert (one["id"], one["reward"], one["answer"]) == ("a", 1.0, "It is 5.")
    assert [call["call"] for call in one["calls"]][:3] == ["root", "sub", "sub"]
    assert all(call["messages"] for call in one["calls"])
    assert json.loads(json.dumps(one)) == one


def test_what_has_no_answer_has_no_reward_and_what_has_no_trace_is_left_out(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ("failed", "gone", "never", "strange")
    tasks = _lines(tmp_path / "t.jsonl", *({"id": name, "expected": ""} for name in ids))
    _lines(
        results,
        {"id": "failed", "status": "failed", "answer": None, "trace": "traces/a.ipynb"},
        {"id": "gone", "status": "answered", "answer": "x", "trace": "traces/gone.ipynb"},
        {"id": "never", "status": "failed", "trace": None},
        {"id": "unknown", "status": "answered", "answer": "x", "trace": "traces/a.ipynb"},
    )
    assert [(one["id"], one["reward"]) for one in trajectories(tasks, results)] == [("failed", 0.0)]
    assert "gone" in capsys.readouterr().err


@pytest.mark.parametrize("task", ['{"id": "a"}', '{"id": "a", "expected": 1, "scorer": "no"}', "[1]", "{"])
def test_a_task_that_cannot_be_scored_is_told(task: str, results: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(task)
    _lines(results)
    with pytest.raises(UsageError):
        list(trajectories(tmp_path / "t.jsonl", results))

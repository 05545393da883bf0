"""The notebook of a conversation: questions and answers one after the other, summaries, and what closes
it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_kernel.engine.events import CellStarted, RunFinished, Summarized, TurnReplied, TurnStarted
from rlm_kernel.engine.protocols import Answer, Completion, Memory, Outcome, Totals, Usage
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.schema import NotebookMeta, OriginMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, WHEN, cell, load, meta, tell

SUMMARY = "The first file says hello."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.ipynb"


def begun(path: Path) -> Path:
    """A kept session's trace without any question."""
    NotebookWriter(path, meta("", name="work"), [])
    return path


def ids(path: Path) -> list[str]:
    return [cell.id for cell in load(path).cells]


def read_meta(path: Path) -> NotebookMeta:
    return NotebookMeta.model_validate(load(path).metadata.rlm)


def taken_up(path: Path) -> NotebookWriter:
    trace = read_trace(path)
    return NotebookWriter(path, trace.meta, [], trace.node.cells)


def test_a_notebook_without_a_question_has_the_sessions_name_for_a_title(path: Path) -> None:
    begun(path)
    assert cell(load(path), "title").source.startswith("# Session work\n")


def test_the_first_question_becomes_the_notebooks_own(path: Path) -> None:
    begun(path)
    taken_up(path).question("How many?")
    assert ids(path) == ["title"]
    assert cell(load(path), "title").source.startswith("# How many?\n")
    assert (read_meta(path).question, read_meta(path).status) == ("How many?", "running")


def test_a_further_question_is_a_cell_and_the_title_stays(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    taken_up(path).question("And why?")
    assert ids(path)[-2:] == ["answer-01", "question-02-1"]
    assert "summary" not in ids(path)
    notebook = load(path)
    assert cell(notebook, "answer-01").metadata.rlm.kind == "answer"
    assert (
        cell(notebook, "answer-01").source
        == "## Answer\n\nAbout 5.\n\n*Best-effort answer: the limit of turns was reached.*"
    )
    assert cell(notebook, "question-02-1").source == "## Question\n\n> And why?"
    assert cell(notebook, "title").source.startswith("# How many?\n")


def test_a_question_opens_the_account_again(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    taken_up(path).question("And why?")
    found = read_meta(path)
    assert (found.status, found.stop_reason, found.forced, found.detail) == ("running", None, False, "")
    assert found.totals is not None, "what was used before counts on"
    assert found.question == "How many?"


def test_answers_are_numbered_as_they_came(path: Path) -> None:
    writer = NotebookWriter(path, meta("Question 0?"), [])
    for number in range(1, 4):
        writer(TurnStarted(number))
        writer(TurnReplied(number, Completion("x", "m"), "x"))
        writer(RunFinished(Outcome(Answer(f"Answer {number}"), "answered"), Totals(turns=number)))
        writer = taken_up(path)
        writer.question(f"Question {number}?")
    notebook = load(path)
    assert ids(path) == [
        "title", "turn-01", "answer-01", "question-01-1", "turn-02", "answer-02", "question-02-2", "turn-03", "answer-03", "question-03-3",
    ]  # fmt: skip
    assert [cell(notebook, f"answer-0{number}").metadata.rlm.text for number in (1, 2, 3)] == [
        "Answer 1",
        "Answer 2",
        "Answer 3",
    ]


def test_a_trace_that_is_closed_again_has_one_summary(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    writer = taken_up(path)
    writer.question("And why?")
    writer(RunFinished(Outcome(Answer("So."), "answered"), Totals(turns=3)))
    writer(Summarized(Memory(SUMMARY, 1234, 56, False, Completion(SUMMARY, "m", Usage(1300, 60), 0.5))))
    writer(RunFinished(Outcome(Answer("So."), "answered"), Totals(turns=3, root_usage=Usage(1300, 60))))
    assert ids(path)[-5:] == ["answer-01", "question-02-1", "answer", "summary", "memory-02-1"]
    found = read_meta(path)
    assert (found.status, found.stop_reason) == ("finished", "answered")
    assert found.totals is not None
    assert found.totals.root_prompt == 1300


def test_who_answers_is_said_anew(path: Path) -> None:
    begun(path)
    writer = taken_up(path)
    writer.set_models({"root": "a/one", "sub": "b/two"}, "short", "1" * 64)
    assert read_meta(path).models == {"root": "a/one", "sub": "b/two"}
    title = cell(load(path), "title").source
    assert "Root model `a/one`, sub model `b/two`" in title
    assert ids(path) == ["title"]


def test_secrets_are_hidden_in_questions_models_and_summaries(path: Path) -> None:
    begun(path)
    trace = read_trace(path)
    writer = NotebookWriter(path, trace.meta, ["sesame-open-12"], trace.node.cells)
    writer.question("Is sesame-open-12 it?")
    writer(TurnStarted(1))
    writer(TurnReplied(1, Completion("x", "m"), "x"))
    writer.question("And sesame-open-12?")
    writer.set_models({"root": "sesame-open-12", "sub": "b"}, "default", "0" * 64)
    writer(Summarized(Memory("It is sesame-open-12.", 9, 9, True, Completion("It is sesame-open-12.", "m"))))
    assert "sesame" not in path.read_text()


def test_a_summary_is_a_cell_with_its_tokens_and_its_cost(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:-1])
    reply = Completion(SUMMARY, "openai/root", Usage(1300, 60, 1200), 0.5, 2.5)
    writer(Summarized(Memory(SUMMARY, 12_340, 60, False, reply)))
    writer(Summarized(Memory("Second.", 100, 10, True, Completion("Second.", "openai/root"))))
    notebook = load(path)
    shown = cell(notebook, "memory-02-1")
    assert shown.source == f"**Memory.** 12,340 → 60 tokens.\n\n> {SUMMARY}"
    assert dict(shown.metadata.rlm) == {
        "kind": "memory", "turn": 2, "text": SUMMARY, "model": "openai/root", "seconds": 2.5, "prompt_tokens": 1300,
        "completion_tokens": 60, "cached_tokens": 1200, "cost": 0.5, "tokens_before": 12_340, "tokens_after": 60,
    }  # fmt: skip
    assert cell(notebook, "memory-02-2").source.startswith("**Memory.** about 100 → 10 tokens.")


def test_summaries_are_in_the_account_of_a_run_that_was_cut_off(path: Path) -> None:
    def spent() -> Totals:
        return read_trace(path).spent()

    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:15])
    before = spent()
    writer(
        Summarized(
            Memory(SUMMARY, 1234, 60, False, Completion(SUMMARY, "openai/root", Usage(1300, 60, 1200), 0.5))
        )
    )
    assert spent().root_usage == before.root_usage + Usage(1300, 60, 1200)
    assert (spent().cost, spent().turns) == ((before.cost or 0) + 0.5, before.turns)


def test_a_running_cell_says_how_long_it_has_run(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    writer(CellStarted("turn-01-a", 1, "x"))
    assert cell(load(path), "turn-01-a").metadata.rlm.seconds >= 0


def test_a_rebuilt_session_says_so(path: Path) -> None:
    origin = OriginMeta(kind="rebuild", trace="/t.ipynb", session="1a2b3c4d", cell="turn-02-a", at=WHEN)
    NotebookWriter(path, meta(origins=[origin]), [])
    assert (
        "- Rebuilt from `/t.ipynb` at `turn-02-a`, 2026-01-02 03:04:05 UTC"
        in cell(load(path), "title").source
    )
    assert read_meta(path).origins == [origin]

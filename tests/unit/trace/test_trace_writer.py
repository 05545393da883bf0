from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rlm_kernel.engine.events import (
    CallFinished,
    CellFinished,
    CellOutput,
    CellStarted,
    Event,
    Noted,
    RunFinished,
    TurnStarted,
    UserCellFinished,
)
from rlm_kernel.engine.ledger import Limits
from rlm_kernel.engine.protocols import Answer, Outcome, Totals, Usage
from rlm_kernel.errors import TraceError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.trace import document, running_writer
from rlm_kernel.trace import writer as writer_module
from rlm_kernel.trace.accounts import TotalsMeta
from rlm_kernel.trace.parts import is_made
from rlm_kernel.trace.reader import code_digest
from rlm_kernel.trace.schema import CallMeta, CellMeta, FileMeta, NotebookMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import FakeKernel, Run, stream
from tests.support.sandbox import until
from tests.support.trace import PICTURE, STORY, WHEN, call, cell, load, meta, result, tell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "t.ipynb"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress of a running cell is written with every event."""
    monkeypatch.setattr(NotebookWriter, "_save_now_and_then", NotebookWriter._save_running)


@pytest.mark.usefixtures("at_once")
def test_the_notebook_is_valid_after_every_event(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    load(path)
    tell(writer, STORY, lambda: load(path))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("events", range(len(STORY)))
def test_a_run_cut_off_anywhere_leaves_what_was_heard(path: Path, events: int) -> None:
    tell(NotebookWriter(path, meta(), []), STORY[:events])
    notebook = load(path)
    assert notebook.metadata.rlm.get("status", "running") == "running"
    if 9 <= events <= 14:
        running = notebook.cells[-1]
        assert (running.id, running.metadata.rlm.status, running.execution_count) == (
            "turn-01-a",
            "running",
            None,
        )
        shown = ["", "so far", "so far", "so far", "so far", "so far, so good"][events - 9]
        assert "".join(output.get("text", "") for output in running.outputs) == shown
        assert len(running.metadata.rlm.get("calls", [])) == [0, 0, 0, 1, 2, 2][events - 9]


@pytest.mark.usefixtures("at_once")
def test_an_end_in_the_middle_of_a_cell_keeps_what_it_had(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, [*STORY[:12], RunFinished(Outcome(None, "interrupted"), Totals())])
    notebook = load(path)
    kept = cell(notebook, "turn-01-a")
    assert kept.metadata.rlm.status == "running"
    assert is_made(kept.outputs[0])
    assert kept.outputs[1].text == "so far"
    assert [c.answer for c in kept.metadata.rlm.calls] == ["5"]
    assert (notebook.metadata.rlm.status, notebook.metadata.rlm.stop_reason) == ("finished", "interrupted")


def test_ids_are_deterministic(path: Path) -> None:
    for _ in range(2):
        tell(NotebookWriter(path, meta(), []), STORY)
        assert [cell.id for cell in load(path).cells] == [
            "title", "parameters", "setup", "turn-01", "turn-01-a", "turn-01-b", "note-01-1", "turn-02", "turn-02-a", "note-02-2",
            "answer", "summary",
        ]  # fmt: skip


def test_the_same_run_gives_the_same_file(path: Path) -> None:
    texts = set()
    for _ in range(2):
        tell(NotebookWriter(path, meta(), []), STORY)
        texts.add(path.read_text())
    assert len(texts) == 1


def test_it_reads_as_a_document(path: Path) -> None:
    tell(NotebookWriter(path, meta("How many?\nCount them all."), []), STORY)
    notebook = load(path)
    kinds = [cell.metadata.rlm.kind for cell in notebook.cells]
    assert kinds == [
        "title",
        "parameters",
        "setup",
        "model",
        "code",
        "code",
        "note",
        "model",
        "code",
        "note",
        "answer",
        "summary",
    ]
    lines = notebook.cells[0].source.splitlines()
    begin, end = lines.index(document._BOX.strip()), lines.index(document._BOX_END.strip())
    assert lines[begin + 1 : end] == [
        "",
        "**Best-effort answer** (the limit of turns was reached)",
        "",
        "About 5.",
        "",
    ]
    assert lines[:begin] + lines[end + 2 :] == [
        "# How many?",
        "",
        "> How many?",
        "> Count them all.",
        "",
        "- Root model `openai/root`, sub model `openai/sub`, prompt profile `default`",
        "- Input `/data/a.txt` (1,234 bytes)",
        "- Session `1a2b3c4d`, 2026-01-02 03:04:05 UTC, rlm_kernel 0.1.0, image `rlm-kernel:abc`",
    ]
    assert cell(notebook, "turn-01").source == "## Turn 1 · 2 sub-calls · 3.0 s · $1.00\n\nI look."
    assert cell(notebook, "turn-02").source == "## Turn 2 · 0.2 s"
    assert cell(notebook, "note-01-1").source == "> **Note to the model.** Write code."


def test_cells_keep_code_outputs_counts_times_and_tags(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    notebook = load(path)
    shown = cell(notebook, "turn-01-a")
    assert (shown.source, shown.execution_count) == ("x", 3)
    assert shown.outputs[1:] == [stream("all\n"), PICTURE]
    assert is_made(shown.outputs[0])
    assert shown.metadata.execution == {
        "iopub.execute_input": "2026-01-02T03:04:05+00:00",
        "shell.execute_reply": "2026-01-02T03:04:05.250000+00:00",
    }
    assert cell(notebook, "parameters").metadata.tags == ["parameters"]
    assert cell(notebook, "turn-01-b").metadata.tags == ["raises-exception"]
    assert "tags" not in shown.metadata
    assert cell(notebook, "turn-02-a").metadata.rlm.status == "died"
    assert notebook.metadata.kernelspec.language == "python"


def test_metadata_make_the_round_trip_through_their_models(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    notebook = load(path)
    found = NotebookMeta.model_validate(notebook.metadata.rlm)
    end = STORY[-1]
    assert isinstance(end, RunFinished)
    assert found == meta(
        status="finished",
        stop_reason="turns",
        forced=True,
        detail=end.outcome.detail,
        totals=TotalsMeta.of(end.totals),
        seal=found.seal,
        sealed=found.sealed,
    )
    assert found.seal
    assert CellMeta.model_validate(cell(notebook, "turn-01-a").metadata.rlm) == CellMeta(
        kind="code",
        turn=1,
        status="ok",
        truncated=True,
        seconds=0.25,
        calls=[CallMeta.of(call(1)), CallMeta.of(call(2))],
        code_digest=code_digest(cell(notebook, "turn-01-a").source),
    )
    model = CellMeta.model_validate(cell(notebook, "turn-01").metadata.rlm)
    assert model == CellMeta(
        kind="model",
        turn=1,
        seconds=2.5,
        model="openai/root",
        reply="I look.\n```repl\nx\n```",
        prompt_tokens=100,
        completion_tokens=20,
        cached_tokens=5,
        cost=0.5,
    )


def test_files_can_be_told_more_of_later(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    files = [FileMeta(path="/data/a.txt", size=1234, sha256="f" * 64)]
    writer.set_files(files)
    assert NotebookMeta.model_validate(load(path).metadata.rlm).files == files


# Answer and summary


def finished(path: Path, outcome: Outcome, totals: Totals | None = None) -> tuple[str, str]:
    writer = NotebookWriter(path, meta(), [])
    writer(RunFinished(outcome, totals or Totals()))
    notebook = load(path)
    return cell(notebook, "answer").source, cell(notebook, "summary").source


def test_the_answer_is_a_cell_and_a_best_effort_answer_says_so(path: Path) -> None:
    assert finished(path, Outcome(Answer("# 5\nof them"), "answered"))[0] == "## Answer\n\n### 5\nof them"
    whys = {
        "turns": "the limit of turns was reached",
        "no_answer": "the replies of the root model had nothing to run",
    }
    for reason, why in whys.items():
        best, _ = finished(path, Outcome(Answer("5"), reason, True))  # type: ignore[arg-type]
        assert best == f"## Answer\n\n5\n\n*Best-effort answer: {why}.*"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("cost", "The money was used up. Why."),
        ("interrupted", "The run was interrupted. Why."),
        ("error", "The run failed. Why."),
    ],
)
def test_without_an_answer_the_cell_says_why(path: Path, reason: Any, words: str) -> None:
    assert finished(path, Outcome(None, reason, detail="Why."))[0] == f"## No answer\n\n{words}"


def test_a_giant_answer_is_cut_with_a_notice(path: Path) -> None:
    answer, _ = finished(path, Outcome(Answer("a" * (document.ANSWER_CAP + 5)), "answered"))
    assert answer.endswith("aaa\n\n… 5 more characters.")


def test_the_cost_table_names_models_calls_and_tokens(path: Path) -> None:
    _, summary = finished(
        path, Outcome(Answer("5"), "answered"), Totals(2, 1200, Usage(3000, 20, 100), Usage(4, 5), 1.5, 61.25)
    )
    assert "| Root model | `openai/root` | 2 | 3,000 | 100 | 20 |" in summary
    assert "| Sub model | `openai/sub` | 1,200 | 4 | 0 | 5 |" in summary
    assert summary.endswith(
        "\nTogether: 2 turns, 1,200 sub-calls, 3,029 tokens (100 cached), $1.5000, 61.2 s."
    )


def test_an_unknown_cost_is_said_to_be_unknown(path: Path) -> None:
    _, summary = finished(path, Outcome(Answer("5"), "answered"), Totals(unpriced=1))
    assert "cost unknown" in summary
    assert "$" not in summary


# Saving


def test_the_file_is_replaced_and_never_written_in_place(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    with path.open() as before:
        tell(writer, STORY)
        assert [c["id"] for c in json.load(before)["cells"]] == ["title"]
    assert os.listdir(path.parent) == ["t.ipynb"]


def test_a_link_in_the_place_of_the_file_that_is_being_written_is_not_followed(
    path: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".{path.name}.tmp").symlink_to(tmp_path / "mine")
    tell(NotebookWriter(path, meta(), []), STORY)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not path.is_symlink()
    load(path)


def test_progress_is_saved_now_and_then_and_the_end_always(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_writer, "SAVE_SECONDS", 1e9)
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    before = path.stat().st_ino
    tell(writer, STORY[9:14])
    assert path.stat().st_ino == before
    tell(writer, STORY[14:15])
    assert cell(load(path), "turn-01-a").outputs[1].text == "all\n"


async def test_the_last_progress_is_saved_without_another_event(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_writer, "SAVE_SECONDS", 0.02)
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    tell(writer, [CellOutput("turn-01-a", [stream("last")])])
    await until(lambda: "last" in path.read_text(), 5)
    load(path)


async def test_a_disk_that_fills_up_is_said_at_the_next_event_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    monkeypatch.setattr(running_writer, "SAVE_SECONDS", 0.02)
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    tried = asyncio.Event()

    def full(*_: Any, **__: Any) -> NoReturn:
        tried.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        tell(writer, [CellOutput("turn-01-a", [stream("last")])])
        await asyncio.wait_for(tried.wait(), 5)
        await asyncio.sleep(0)
        with pytest.raises(TraceError, match="No space left on device"):
            writer(Noted("x"))
    assert faults == []
    load(path)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("days", [1, -1])
def test_the_seconds_of_a_running_cell_do_not_follow_the_machines_clock(
    path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=days)

    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    monkeypatch.setattr(writer_module, "datetime", Moved)
    tell(writer, [CellOutput("turn-01-a", [stream("x")])])
    assert 0 <= cell(load(path), "turn-01-a").metadata.rlm.seconds < 60


def test_events_of_another_cell_are_not_taken(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, [*STORY[:8], CellOutput("turn-01-a", [stream("x")]), CallFinished("turn-01-a", call())])
    tell(writer, STORY[8:9])
    assert cell(load(path), "turn-01-a").outputs == []


@pytest.mark.parametrize(
    "name", ["file/t.ipynb", "file/deeper/t.ipynb", "folder", "n" * 300 + ".ipynb", "n" * 252]
)
def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TraceError, match="cannot be written") as caught:
        NotebookWriter(tmp_path / name, meta(), [])
    assert "--trace" in caught.value.hint
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_folder_that_may_not_be_written_is_a_clear_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = NotebookWriter(path, meta(), [])

    def denied(*_: Any, **__: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        for name in ("open", "unlink"):
            patch.setattr(Path, name, denied)
        with pytest.raises(TraceError, match="Permission denied"):
            writer(Noted("x"))
    load(path)


# A whole run


@pytest.mark.usefixtures("at_once")
async def test_the_notebook_is_valid_after_every_event_of_a_run(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])

    def checked(event: Event) -> None:
        tell(writer, [event], lambda: load(path))

    replies = [
        "Hm.",
        "```repl\nask_all([context, 'b'])\n```\n```repl\nfail()\n```",
        "```repl\ndie()\n```",
        "FINAL_VAR(nothing)",
        "```repl\nsay(context)\n```",
        "FINAL(five)",
    ]
    run = Run(ScriptedModels(replies, str.upper), Limits(turns=5), heard=checked)
    await run.loop.set_up("parameters", "load('/a.txt')")
    outcome = await run.outcome()
    run.heard(RunFinished(outcome, run.ledger.totals()))
    notebook = load(path)
    assert [c.id for c in notebook.cells if c.cell_type == "code"] == [
        "parameters", "turn-02-a", "turn-02-b", "turn-03-a", "turn-04-final", "turn-05-a", "turn-06-final",
    ]  # fmt: skip
    assert cell(notebook, "answer").source.startswith("## Answer\n\nfive")
    assert isinstance(run.kernel, FakeKernel)


def test_an_answer_of_one_line_is_shown_as_it_is_and_a_longer_one_as_markdown() -> None:
    def shown(text: str) -> str:
        return document.answer(Outcome(Answer(text), "answered"))

    assert shown("__init__ [1] <b>") == r"## Answer" + "\n\n" + r"\_\_init\_\_ \[1\] <b\>"
    assert shown("# Two\n**lines**") == "## Answer\n\n### Two\n**lines**"


# A trace that is taken up


def taken_up(path: Path, events: int) -> tuple[NotebookWriter, Any]:
    """A trace that was cut off after so many events, and a writer that goes on with it."""
    tell(NotebookWriter(path, meta(), []), STORY[:events])
    before = load(path)
    return NotebookWriter(path, meta(), [], [cell for cell in before.cells if cell.id != "title"]), before


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("events", range(1, len(STORY) - 1))
def test_a_trace_that_is_taken_up_is_what_it_was(path: Path, events: int) -> None:
    _, before = taken_up(path, events)
    assert load(path).cells == before.cells


@pytest.mark.usefixtures("at_once")
def test_a_trace_that_is_taken_up_goes_on_as_if_nothing_had_been(path: Path) -> None:
    writer, _ = taken_up(path, 18)
    tell(writer, STORY[18:])
    resumed = load(path).cells
    tell(NotebookWriter(path, meta(), []), STORY)
    assert resumed == load(path).cells


@pytest.mark.usefixtures("at_once")
def test_answers_of_a_cell_that_was_cut_off_are_kept_until_it_has_run_again(path: Path) -> None:
    writer, _ = taken_up(path, 13)
    writer(CellStarted("turn-01-a", 1, "x"))
    writer(CallFinished("turn-01-a", call(1)))
    writer(
        CallFinished(
            "turn-01-a",
            call(1, prompt_digest="e" * 64, answer="new, of another process with the same number"),
        )
    )
    kept = cell(load(path), "turn-01-a").metadata.rlm
    assert [c.get("answer") for c in kept.calls] == [
        "5",
        None,
        "new, of another process with the same number",
    ]
    writer(CellFinished(1, result("turn-01-a", "x", calls=(call(1),))))
    assert len(cell(load(path), "turn-01-a").metadata.rlm.calls) == 1


def test_a_cell_that_is_run_again_keeps_what_a_person_made_of_it(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    cells = load(path).cells
    own = {
        "cell_type": "code",
        "id": "mine",
        "metadata": {"tags": ["hide-input"]},
        "source": "1",
        "outputs": [],
        "execution_count": None,
    }
    cells[4].metadata["jupyter"] = {"source_hidden": True}
    writer = NotebookWriter(path, meta(), [], [*cells, own])
    writer(CellFinished(1, result(cells[4].id, "x")))
    writer(CellFinished(0, result("mine", "1")))
    notebook = load(path)
    assert cell(notebook, cells[4].id).metadata.jupyter == {"source_hidden": True}
    mine = cell(notebook, "mine").metadata
    assert (mine.rlm.kind, mine.tags) == ("person", ["hide-input"])


def test_notes_and_questions_never_take_an_id_that_is_taken(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY[:-1])
    cells = [cell for cell in load(path).cells if cell.id not in ("title", "note-01-1")]
    writer = NotebookWriter(path, meta(), [], cells)
    writer(Noted("one"))
    writer.question("And why?")
    notebook = load(path)
    assert {"note-02-2", "note-02-3", "question-02-1"} <= {cell.id for cell in notebook.cells}
    assert cell(notebook, "question-02-1").metadata.rlm.text == "And why?"


def test_a_persons_cells_stand_where_the_kernel_ran_them(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])

    def person(code: str, seconds: float) -> None:
        # The number is the kernel's; in a trace that is taken up it may be taken.
        writer(
            UserCellFinished(
                replace(result("person-01", code, "error"), started=WHEN + timedelta(seconds=seconds))
            )
        )

    writer(TurnStarted(1))
    person("before = 1", 1)
    writer(CellStarted("turn-01-a", 1, "print(before, waited)"))
    person("waited = 1", 2)
    person("after = 1", 9)
    writer(
        CellFinished(
            1, replace(result("turn-01-a", "print(before, waited)"), started=WHEN + timedelta(seconds=3))
        )
    )
    notebook = load(path)
    assert [cell.id for cell in notebook.cells] == [
        "title",
        "person-01",
        "person-02",
        "turn-01-a",
        "person-03",
    ]
    cells = [cell for cell in notebook.cells if cell.id.startswith("person")]
    assert [cell.source for cell in cells] == ["before = 1", "waited = 1", "after = 1"]
    metas = [CellMeta.model_validate(cell.metadata.rlm) for cell in cells]
    assert {(each.kind, each.turn, each.status) for each in metas} == {("person", 1, "error")}
    assert cells[0].metadata.tags == ["raises-exception"]


def test_an_answer_that_is_opened_again_never_takes_an_id_that_is_taken(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    (answered,) = [found for found in load(path).cells if found.id == "answer"]
    earlier = {**answered, "id": "answer-02", "source": "earlier"}
    writer = NotebookWriter(
        path, meta(), [], [{**found} for found in [*load(path).cells[:-2], earlier, answered]]
    )
    writer.question("And why?")
    notebook = load(path)
    assert cell(notebook, "answer-02").source == "earlier"
    assert cell(notebook, "answer-03").source == answered.source


def test_the_heading_of_a_turn_that_is_taken_up_tells_the_time_of_its_cells_as_they_ran_anew(
    path: Path,
) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    (turn,) = [one.metadata.rlm.turn for one in load(path).cells if one.id == "turn-01-a"]
    writer = NotebookWriter(path, meta(), [], load(path).cells)
    anew = replace(result("turn-01-a"), seconds=71.0)
    tell(writer, [CellFinished(turn, anew), RunFinished(Outcome(Answer("5"), "answered"), Totals())])
    heading = cell(load(path), "turn-01").source.partition("\n")[0]
    assert " · 1 min · " in heading

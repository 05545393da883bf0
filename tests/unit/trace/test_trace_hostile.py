"""A trace of a hostile run: harmless to open, bounded, and with the exact words for those who go on from
it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlm_kernel.engine.events import CellFinished, CellStarted, Noted, RunFinished, TurnReplied
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Totals
from rlm_kernel.session.conversation import conversation, full_history, recorded, turns_of
from rlm_kernel.trace import cell_writer, document
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support import hostile_text
from tests.support.engine import stream
from tests.support.trace import cell, load, meta, result

EVIL = (
    "\n\n".join(text.format(url="http://evil.example/x") for text in hostile_text.MARKDOWN.values())
    + hostile_text.EVIL
)
KINDS = (
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "application/javascript",
    "application/vnd.vegalite.v5+json",
)
DISPLAY = {
    "output_type": "display_data",
    "data": dict.fromkeys(KINDS, EVIL) | {"text/plain": "<X>"},
    "metadata": {},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.ipynb"


def run_through(path: Path) -> None:
    writer = NotebookWriter(path, meta(question=EVIL), [])
    writer(TurnReplied(1, Completion(EVIL, "openai/root"), EVIL))
    writer(CellStarted("turn-01-a", 1, "x"))
    writer(CellFinished(1, result("turn-01-a", "x", outputs=[DISPLAY])))
    writer(Noted(EVIL))
    writer(RunFinished(Outcome(Answer(EVIL), "answered"), Totals()))
    writer.question(EVIL)
    writer(TurnReplied(2, Completion(EVIL, "openai/root"), EVIL))
    writer(RunFinished(Outcome(None, "error", detail=EVIL), Totals()))


def test_no_cell_of_it_shows_a_picture_or_html(path: Path) -> None:
    run_through(path)
    shown = [found.source for found in load(path).cells if found.cell_type == "markdown"]
    assert len(shown) == 8
    for source in shown:
        for ours in (document._BOX, document._BOX_END):
            source = source.replace(ours, "")
        source = re.sub(r'<img src="data:image/svg\+xml;base64,[\w+/=]+" alt="[^"<>]*">', "", source)
        assert not re.search(r"!\[|<[A-Za-z/!?]|[`~]{3}\s*mermaid", source, re.IGNORECASE)
    *tables, output = cell(load(path), "turn-01-a").outputs
    assert all("<img" not in str(table) for table in tables)
    assert set(output.data) == {"text/html", "text/markdown", "text/plain"}
    assert "<img" not in str(output)


def test_who_goes_on_from_it_gets_the_exact_words(path: Path) -> None:
    run_through(path)
    trace = read_trace(path)
    assert trace.meta.question == EVIL
    turns = turns_of(trace.cells, recorded(trace.cells))
    assert [turn.reply for turn in turns] == [EVIL, EVIL]
    assert EVIL in turns[0].remarks
    assert conversation(trace) == [(EVIL, EVIL), (EVIL, None)]
    assert full_history(trace)[0]["answer"] == EVIL


def test_a_replay_of_such_outputs_is_the_same(path: Path) -> None:
    run_through(path)
    (written,) = read_trace(path).code_cells
    assert compare(Ran(written.outputs), Ran([DISPLAY])) is None


def test_taken_up_again_it_stays_as_it_is(path: Path) -> None:
    run_through(path)
    before = load(path)
    writer = NotebookWriter(path, meta(question=EVIL), [], cells=before.cells)
    writer(Noted("more"))
    assert [found.source for found in load(path).cells][1:-1] == [found.source for found in before.cells][1:]


def test_outputs_of_all_cells_together_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_writer, "MAX_OUTPUTS", 10_000)
    writer = NotebookWriter(path, meta(), [])
    for number in range(10):
        writer(CellStarted(f"turn-{number:02}-a", number, "x"))
        writer(CellFinished(number, result(f"turn-{number:02}-a", "x", outputs=[stream("x" * 4_000)])))
    cells = [found for found in load(path).cells if found.cell_type == "code"]
    assert [len(found.outputs[0].text) > 1_000 for found in cells] == [True] * 3 + [False] * 7
    assert [found.metadata.rlm.get("truncated", False) for found in cells] == [False] * 3 + [True] * 7
    assert "left out of the trace" in cells[-1].outputs[0].text

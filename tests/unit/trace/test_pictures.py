"""The pictures of calls, as a trace shows them."""

from __future__ import annotations

import base64
from pathlib import Path

from rlm_kernel.engine.events import CallFinished, CellFinished, CellStarted, TurnStarted
from rlm_kernel.engine.protocols import PictureNote
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import call, cell, load, meta, result, tell
from tests.unit.engine.test_pictures import JPEG, PNG


def note(number: int, data: bytes) -> PictureNote:
    return PictureNote(f"{number:064x}", "image/jpeg", 123_456, 1568, 1045, base64.b64encode(data).decode())


CALLS = (
    call(1, images=(note(1, JPEG), note(2, PNG))),
    call(2, images=(note(1, JPEG), note(3, b""))),
    call(3),
)


def test_the_trace_shows_the_pictures_below_the_cell_that_sent_them(tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    writer = NotebookWriter(path, meta(), [])
    events = [
        TurnStarted(1),
        CellStarted("turn-01-a", 1, "x"),
        *(CallFinished("turn-01-a", one) for one in CALLS),
        CellFinished(1, result("turn-01-a", "x", calls=CALLS)),
        CellStarted("turn-01-b", 1, "y"),
        CellFinished(1, result("turn-01-b", "y", calls=(call(4),))),
    ]
    tell(writer, events, lambda: load(path))
    notebook = load(path)
    assert [one.id for one in notebook.cells] == ["title", "turn-01-a", "turn-01-a-pictures", "turn-01-b"]
    shown = cell(notebook, "turn-01-a-pictures")
    assert dict(shown.attachments) == {
        "picture-1.jpeg": {"image/jpeg": base64.b64encode(JPEG).decode()},
        "picture-2.png": {"image/png": base64.b64encode(PNG).decode()},
    }
    assert "![picture-1.jpeg](attachment:picture-1.jpeg) 1,568 x 1,045 pixels, 123,456 bytes" in shown.source
    (read,) = [one for one in read_trace(path).cells if one.kind == "pictures"]
    assert read.turn == 1
    calls = next(one for one in read_trace(path).code_cells if one.id == "turn-01-a").meta.calls  # type: ignore[union-attr]
    assert [one.record().images for one in calls] == [one.images for one in CALLS]


def test_a_trace_that_is_taken_up_keeps_its_pictures_and_a_cell_that_runs_again_has_them_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.ipynb"
    ran = [CellStarted("turn-01-a", 1, "x"), CellFinished(1, result("turn-01-a", "x", calls=CALLS))]
    tell(NotebookWriter(path, meta(), []), [TurnStarted(1), *ran])
    again = NotebookWriter(path, meta(), [], load(path).cells)
    tell(again, [*ran, CellStarted("turn-01-b", 1, "y")])
    again.close()
    notebook = load(path)
    assert [one.id for one in notebook.cells] == ["title", "turn-01-a", "turn-01-a-pictures", "turn-01-b"]
    assert len(cell(notebook, "turn-01-a-pictures").attachments) == 2

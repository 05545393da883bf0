"""The events of a run, and how its notebook is read back, for tests of the trace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import nbformat

from rlm_kernel.engine.events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellOutput,
    CellStarted,
    Event,
    Listener,
    Noted,
    RunFinished,
    TurnReplied,
    TurnStarted,
)
from rlm_kernel.engine.protocols import (
    Answer,
    CallRecord,
    CellResult,
    CellStatus,
    Completion,
    Outcome,
    Totals,
    Usage,
)
from rlm_kernel.trace.schema import CellMeta, FileMeta, NotebookMeta
from tests.support.engine import failure, stream

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def meta(question: str = "How many?", **changes: Any) -> NotebookMeta:
    fields: dict[str, Any] = {
        "session": "1a2b3c4d",
        "created": WHEN,
        "rlm_version": "0.1.0",
        "question": question,
        "models": {"root": "openai/root", "sub": "openai/sub"},
        "prompt_profile": "default",
        "prompt_digest": "0" * 64,
        "image": "rlm-kernel:abc",
        "image_digest": "sha256:1",
        "limits": {"turns": 30, "cost": None},
        "sandbox": {"memory": "2g", "network": "none"},
        "files": [FileMeta(path="/data/a.txt", size=1234)],
    }
    return NotebookMeta(**fields | changes)


def call(number: int = 1, **changes: Any) -> CallRecord:
    fields: dict[str, Any] = {
        "id": f"7-1-{number}",
        "kind": "llm_query",
        "prompt_digest": "d" * 64,
        "preview": "Count",
        "started": WHEN,
        "seconds": 0.5,
        "answer": "5",
        "model": "openai/sub",
        "usage": Usage(10, 2, 1),
        "cost": 0.25,
    }
    return CallRecord(**fields | changes)


def result(
    cell_id: str,
    code: str = "print(1)",
    status: CellStatus = "ok",
    outputs: Sequence[Any] = (),
    **changes: Any,
) -> CellResult:
    return CellResult(cell_id, code, status, outputs, WHEN, 0.25, **{"execution_count": 3} | changes)


PICTURE = {
    "output_type": "display_data",
    "data": {"image/png": "AAAA", "text/plain": "<Figure>"},
    "metadata": {},
}
FORCED = Outcome(Answer("About 5."), "turns", True, "The limit of turns is reached.")
STORY: list[Event] = [
    CellStarted("parameters", 0, "question = 'How many?'"),
    CellFinished(0, result("parameters", "question = 'How many?'")),
    CellStarted("setup", 0, "load_files(paths)"),
    CallStarted("setup", "7-1-0", "file"),
    CallFinished("setup", call(0, kind="file", answer={"inside": "/rlm/files/0"}, model=None, usage=Usage(), cost=None)),
    CellFinished(0, result("setup", "load_files(paths)", outputs=[stream("a.txt: 1,234 characters\n")])),
    TurnStarted(1),
    TurnReplied(1, Completion("I look.\n```repl\nx\n```", "openai/root", Usage(100, 20, 5), 0.5, 2.5), "I look."),
    CellStarted("turn-01-a", 1, "x"),
    CellOutput("turn-01-a", [stream("so far")]),
    CallStarted("turn-01-a", "7-1-1", "llm_query"),
    CallFinished("turn-01-a", call(1)),
    CallFinished("turn-01-a", call(2, answer=None, error="The model timed out.")),
    CellOutput("turn-01-a", [stream("so far, so good"), PICTURE]),
    CellFinished(1, result("turn-01-a", "x", outputs=[stream("all\n"), PICTURE], calls=(call(1), call(2)), truncated=True)),
    CellStarted("turn-01-b", 1, "y"),
    CellFinished(1, result("turn-01-b", "y", "error", [failure("ValueError", "bad")])),
    Noted("Write code."),
    TurnStarted(2),
    TurnReplied(2, Completion("", "openai/root"), ""),
    CellStarted("turn-02-a", 2, "z"),
    CellFinished(2, result("turn-02-a", "z", "died", execution_count=None)),
    Noted("And again."),
    RunFinished(FORCED, Totals(2, 2, Usage(100, 20, 5), Usage(20, 4, 2), 1.0, 9.87654)),
]  # fmt: skip


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


def load(path: Path) -> Any:
    """The notebook, checked: JSON that any reader takes, valid, its metadata ours, and nothing left beside
    it.
    """
    text = path.read_text("utf-8")
    json.loads(text, parse_constant=no_constant)
    notebook = nbformat.reads(text, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    NotebookMeta.model_validate(notebook.metadata.rlm)
    for cell in notebook.cells:
        CellMeta.model_validate(cell.metadata.rlm)
    assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]
    return notebook


def tell(writer: Listener, events: Sequence[Event], after: Callable[[], Any] = lambda: None) -> None:
    for event in events:
        writer(event)
        after()


def cell(notebook: Any, cell_id: str) -> Any:
    return next(cell for cell in notebook.cells if cell.id == cell_id)

"""A trace as it is on disk: written by us, perhaps cut off, perhaps edited and saved by JupyterLab."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_kernel.engine.protocols import MODEL_CALLS, Totals, Usage
from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.trace import journal
from rlm_kernel.trace.schema import VERSION, CellMeta, NotebookMeta

_NOT_COUNTED = ("BudgetExceeded", "NoRecord")
"""Calls that failed in these ways were never made, but for child RLMs that had begun: these have a trace."""
_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""As nbformat has it, which only warns of others. The traces of child RLMs are files that are named after the cell."""


def code_digest(code: str) -> str:
    """sha256 (hex) of a cell's code."""
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class TraceCell:
    """A cell of a trace. `meta` is None of one that a person added."""

    id: str
    code: bool
    source: str
    outputs: Sequence[dict[str, Any]]
    execution_count: int | None
    meta: CellMeta | None
    tags: Sequence[str] = ()
    started: datetime | None = None

    @property
    def kind(self) -> str:
        """`person` for a code cell that nobody but a person can have made."""
        return self.meta.kind if self.meta else "person" if self.code else "note"

    @property
    def turn(self) -> int:
        """0 outside turns."""
        return (self.meta.turn or 0) if self.meta else 0

    @property
    def edited(self) -> bool:
        """Its code is not what was run when it was recorded."""
        return bool(self.meta and self.meta.code_digest) and self.meta.code_digest != code_digest(self.source)  # type: ignore[union-attr]

    @property
    def never_run(self) -> bool:
        """A person's cell without outputs or a count: there is nothing to compare with."""
        return self.meta is None and self.execution_count is None and not self.outputs


@dataclass(frozen=True)
class TraceFile:
    """A trace that was read. `node` is the whole notebook as nbformat has it."""

    path: Path
    meta: NotebookMeta
    cells: Sequence[TraceCell]
    node: Any

    @cached_property
    def code_cells(self) -> list[TraceCell]:
        return [cell for cell in self.cells if cell.code]

    def spent(self) -> Totals:
        """What the run has used so far: its own account, or that of its cells where it was cut off before it had one."""
        if self.meta.totals is not None:
            return self.meta.totals.totals()
        metas = [cell.meta for cell in self.cells if cell.meta]
        replies = [meta for meta in metas if meta.kind in ("model", "memory")]
        calls = [
            call
            for meta in metas
            for call in meta.calls
            if call.kind in MODEL_CALLS and (call.trace or call.error_type not in _NOT_COUNTED)
        ]
        costs = [meta.cost for meta in replies] + [call.cost for call in calls if call.error is None or call.cost is not None]
        known = [cost for cost in costs if cost is not None]
        return Totals(
            turns=sum(meta.kind == "model" for meta in metas),
            calls=sum(call.calls for call in calls),
            root_usage=sum((Usage(m.prompt_tokens or 0, m.completion_tokens or 0, m.cached_tokens or 0) for m in replies), Usage()),
            sub_usage=sum((call.record().usage for call in calls), Usage()),
            known_cost=sum(known),
            unpriced=len(costs) - len(known),
            seconds=sum(meta.seconds or 0 for meta in metas),
            children=sum(bool(call.trace) for call in calls),
            stored=sum(call.stored for call in calls),
        )


def read_trace(path: Path) -> TraceFile:
    """Read a trace. Raises UsageError if there is none, TraceError, naming the cell, for one that cannot be used."""
    from nbformat.reader import NotJSONError

    try:
        with contextlib.suppress(OSError):  # where it may not be written, it is completed as it is read
            journal.fold(path, lambda: _as_it_is(path))
        node = read_notebook(path)
    except FileNotFoundError as error:
        raise UsageError(f"There is no trace {path}.", hint="Traces are in rlm-traces/, or where --trace said.") from error
    except (OSError, IsADirectoryError) as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.", hint="Name a trace: a file that ends in .ipynb.") from error
    except (NotJSONError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} is no notebook: it is not whole, or not JSON.", hint="Fetch it again, or use another copy.") from error
    except Exception as error:  # nbformat raises what it likes on a notebook of odd shape
        raise TraceError(f"{path} is no notebook that can be read: {error}.") from error
    return trace_of(node, path)


def read_notebook(path: Path) -> Any:
    """A notebook as programs save it, also with a byte-order mark, and completed from its journal. Raises OSError, and whatever nbformat
    does.
    """
    return journal.completed(path, lambda: _as_it_is(path))


def fold_all(folder: Path) -> list[Path]:
    """Complete the notebooks of a folder, and below it, whose runs were killed and left journals. Those that could be completed."""
    return journal.fold_all(folder, _as_it_is)


def _as_it_is(path: Path) -> Any:
    import nbformat

    raw = path.read_bytes()
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    with warnings.catch_warnings():
        # Of two cells with one id the second gets another: so has it a person who copied a cell with its metadata.
        warnings.simplefilter("ignore")
        return nbformat.reads(raw.decode(encoding), 4)  # type: ignore[no-untyped-call]


def trace_of(node: Any, path: Path) -> TraceFile:
    """The trace that a notebook in memory (nbformat 4) is; `path` is its place. Raises TraceError."""
    try:
        meta = _notebook_meta(path, node)
        cells = [_cell(path, number, cell) for number, cell in enumerate(node.cells, 1)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # nbformat takes much that is no notebook
        raise TraceError(f"The trace {path} is damaged: it does not have the form of a notebook ({error}).") from error
    return TraceFile(path.absolute(), meta, cells, node)


def _notebook_meta(path: Path, node: Any) -> NotebookMeta:
    found = node.metadata.get("rlm")
    if not isinstance(found, dict):
        raise TraceError(f"{path} is a notebook, but no trace of rlm_kernel: it has no metadata.rlm.")
    version = found.get("version")
    if isinstance(version, int) and version > VERSION:
        writer = found.get("rlm_version", "(a newer one)")
        raise TraceError(
            f"{path} was written by rlm_kernel {writer}: its format is {version}, this one reads {VERSION}.",
            hint="Update: pip install -U rlm-kernel",
        )
    try:
        return NotebookMeta.model_validate(found)
    except ValidationError as error:
        raise TraceError(f"The trace {path} is damaged: its metadata.rlm does not hold: {_first(error)}.") from error


def _cell(path: Path, number: int, cell: Any) -> TraceCell:
    name = str(cell.get("id") or f"cell-{number}")
    if not _CELL_ID.fullmatch(name):
        raise TraceError(f"The trace {path} is damaged: {name[:100]!r} is no id for its cell {number}.")
    found = cell.metadata.get("rlm")
    try:
        meta = CellMeta.model_validate(found) if found is not None else None
    except ValidationError as error:
        raise TraceError(f"The trace {path} is damaged: metadata.rlm of its cell {name} does not hold: {_first(error)}.") from error
    code = cell.cell_type == "code"
    return TraceCell(
        id=name,
        code=code,
        source=cell.source,
        outputs=[dict(output) for output in cell.get("outputs", [])] if code else [],
        execution_count=cell.get("execution_count"),
        meta=meta,
        tags=list(cell.metadata.get("tags", [])),
        started=_instant(cell.metadata.get("execution")),
    )


def _instant(execution: Any) -> datetime | None:
    """When a cell began to run, by its metadata `execution`; None where they are missing or odd."""
    try:
        return datetime.fromisoformat(execution["iopub.execute_input"])
    except (TypeError, KeyError, ValueError):
        return None


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"

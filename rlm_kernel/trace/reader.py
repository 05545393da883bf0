"""A trace as it is on disk: written by us, perhaps cut off, perhaps edited and saved by JupyterLab."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError as SchemaError

from rlm_kernel.engine.protocols import Shares, Totals
from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.trace import journal, shape
from rlm_kernel.trace.calls import PackedCalls, cell_meta, is_told, spent_on
from rlm_kernel.trace.fields import INSTANT
from rlm_kernel.trace.nodes import as_read, node_of
from rlm_kernel.trace.packed import parse
from rlm_kernel.trace.parts import is_made
from rlm_kernel.trace.plain import read_plain
from rlm_kernel.trace.schema import VERSION, CallMeta, CellMeta, NotebookMeta, usage_of

_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""As nbformat has it, which only warns of others.

The traces of child RLMs are files that are named after the cell.
"""


_ANOTHER = "Fetch it again, or use another copy."


def code_digest(code: str) -> str:
    """sha256 (hex) of a cell's code."""
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class TraceCell:
    """A cell of a trace. `meta` is None of one that a person added; `outputs` are the kernel's."""

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
    def cut_off(self) -> bool:
        """The recording ended while it ran."""
        return self.meta is not None and self.meta.status == "running"

    @property
    def never_run(self) -> bool:
        """A person's cell without outputs or a count: there is nothing to compare with."""
        return self.meta is None and self.execution_count is None and not self.outputs


def numbered(cells: Iterable[TraceCell]) -> Iterator[tuple[int, TraceCell, CallMeta]]:
    """The calls of models and tools in the cells, numbered from 1 on as they stand in the trace."""
    number = 0
    for cell in cells:
        for call in cell.meta.calls if cell.meta else ():
            if is_told(call):
                number += 1
                yield number, cell, call


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

    @property
    def questions(self) -> int:
        """How many were asked."""
        return bool(self.meta.question) + sum(cell.kind == "question" for cell in self.cells)

    def spent(self) -> Totals:
        """What the run has used so far: its own account, or that of its cells where it was cut off before it
        had one.
        """
        if self.meta.totals is not None:
            return self.meta.totals.totals()
        metas = [cell.meta for cell in self.cells if cell.meta]
        spent = Totals(seconds=sum(meta.seconds or 0 for meta in metas))
        for meta in metas:
            if meta.kind in ("model", "memory") and not meta.again:
                used, known, unpriced = usage_of(meta), meta.cost or 0.0, int(meta.cost is None)
                spent += Totals(
                    turns=int(meta.kind == "model"),
                    root_usage=used,
                    known_cost=known,
                    unpriced=unpriced,
                    models=Shares.one("root", calls=1, usage=used, known_cost=known, unpriced=unpriced),
                )
            spent += meta.calls.spent if isinstance(meta.calls, PackedCalls) else spent_on(meta.calls)
        return spent


def read_trace(path: Path, *, follow: bool = True) -> TraceFile:
    """Read a trace.

    Raises UsageError if there is none, TraceError, naming the cell, for one that cannot be used.

    `follow`: a path that the user named may be a link; one that a trace names may not.
    """
    try:
        with contextlib.suppress(OSError):  # where it may not be written, it is completed as it is read
            _fold(path, follow=follow)
        node = read_notebook(path, follow=follow)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no trace {path}.",
            hint="Traces are in rlm-traces/, or in the place that --trace named.",
        ) from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="Name a trace: a file that ends in .ipynb.",
        ) from error
    return trace_of(node, path)


def read_notebook(path: Path, *, follow: bool = True) -> Any:
    """A notebook (nbformat 4) as programs save it, also with a byte-order mark, and completed from its
    journal.

    Calls of a cell are a list, or Packed if they are many. Raises OSError, TraceError.
    """
    try:
        node = journal.completed(path, lambda: _as_it_is(path, follow=follow))
    except ValueError as error:
        raise _odd_journal(path, str(error)) from error
    if fault := shape.fault(node):
        raise _odd_journal(path, fault)
    return node


def fold_all(folder: Path) -> list[Path]:
    """Complete the notebooks of a folder, and below it, whose runs were killed and left journals.

    Those that could be completed.
    """
    done = []
    for path in journal.left_in(folder):
        with contextlib.suppress(Exception):  # no notebook, or none that may be written: it is let alone
            if _fold(path, follow=False):
                done.append(path)
    return done


def _fold(path: Path, *, follow: bool) -> bool:
    """As of the journal; nothing is written that could not be read. Raises OSError, TraceError."""

    def check(node: Any) -> None:
        try:
            trace_of(node, path)
        except TraceError as error:
            raise ValueError(error.message) from error

    try:
        return journal.fold(path, lambda: _as_it_is(path, follow=follow), check)
    except ValueError as error:
        raise _odd_journal(path, str(error)) from error


def _odd_journal(path: Path, why: str) -> TraceError:
    found = journal.journal_path(path)
    return TraceError(
        f"{path} cannot be completed from its journal {found.name}: {why}",
        hint=f"To read the last complete notebook, move the journal away: mv {found} elsewhere",
    )


def _as_it_is(path: Path, *, follow: bool = True) -> Any:
    """The notebook alone, as nbformat 4 has it. Raises OSError, TraceError."""
    raw = read_plain(path, follow=follow)
    try:
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raw = raw.decode("utf-16").encode()
        found = parse(raw.removeprefix(codecs.BOM_UTF8))
    except UnicodeError as error:
        raise _no_notebook(path, "it is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        what, hint = _instead(raw) or (f"it is incomplete, or not JSON ({error})", _ANOTHER)
        raise TraceError(f"{path} is not a notebook: {what}.", hint=hint) from error
    except ValueError as error:
        raise _no_notebook(path, str(error)) from error
    return _as_nbformat(found, path)


def _instead(raw: bytes) -> tuple[str, str] | None:
    """What a file is that is often met in a notebook's place, and what to do; None for anything else."""
    begin = raw[:1_000].lstrip().lower()
    if not begin:
        return "it is empty", _ANOTHER
    if begin.startswith(b"version https://git-lfs."):
        return "it is only a Git LFS pointer", "Fetch it: git lfs pull"
    if begin.startswith((b"<!doctype html", b"<html")):
        return "it is a web page", "Download the file itself; on GitHub, use the button Raw."
    if re.search(rb"^<{7} ", raw, re.MULTILINE) and re.search(rb"^>{7} ", raw, re.MULTILINE):
        return "it has merge conflict markers from git", "Choose one side: git checkout --ours FILE"
    return None


def _as_nbformat(found: Any, path: Path) -> Any:
    """The notebook as nbformat 4 has it. Raises TraceError."""
    if not isinstance(found, dict):
        raise _no_notebook(path, "it is not a JSON object")
    major, minor = found.get("nbformat", 1), found.get("nbformat_minor", 0)
    if type(major) is not int or type(minor) is not int or not 1 <= major <= 4:
        raise _no_notebook(
            path, f"its nbformat is {str(major)[:40]}.{str(minor)[:40]}; rlm supports whole numbers up to 4"
        )
    if major == 4:
        if fault := shape.fault(found):
            raise _no_notebook(path, fault)
        node = as_read(found)
    else:
        node = _converted(found, major, minor, path)
    _give_ids(node)
    return node


def _converted(found: dict[str, Any], major: int, minor: int, path: Path) -> Any:
    """A notebook of an older format. Raises TraceError."""
    from nbformat import convert, versions

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node = convert(versions[major].to_notebook_json(found, minor=minor), 4)  # type: ignore[no-untyped-call]
    except Exception as error:  # nbformat raises what it likes on a notebook of odd shape
        raise _no_notebook(path, str(error)[:500] or type(error).__name__) from error
    return node_of(node)


def _give_ids(node: Any) -> None:
    """Of two cells with one id the second gets another, as where a person copied a cell with its metadata;
    who has none gets one.
    """
    node["nbformat_minor"] = max(5, node.get("nbformat_minor", 0))
    known = {cell.get("id") for cell in node.get("cells", ())}
    seen: set[str] = set()
    for number, cell in enumerate(node.get("cells", ()), 1):
        name = cell.get("id")
        if not name or name in seen:
            names = (f"cell-{number}-{copy}" for copy in itertools.count(1))
            cell["id"] = name = next(one for one in names if one not in known)
        known.add(name)
        seen.add(name)


def _no_notebook(path: Path, why: str) -> TraceError:
    return TraceError(f"{path} is not a readable notebook: {why}.", hint="Repair it, or use another copy.")


def trace_of(node: Any, path: Path) -> TraceFile:
    """The trace that a notebook in memory (nbformat 4) is; `path` is its place. Raises TraceError."""
    if fault := shape.fault(node):
        raise _no_notebook(path, fault)
    try:
        meta = _notebook_meta(path, node)
        cells = [_cell(path, number, cell) for number, cell in enumerate(node.cells, 1)]
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:  # nbformat takes much that is no notebook
        raise TraceError(f"The trace {path} is damaged: it is not a valid notebook ({error}).") from error
    return TraceFile(path.absolute(), meta, cells, node)


def _notebook_meta(path: Path, node: Any) -> NotebookMeta:
    found = node.metadata.get("rlm")
    if not isinstance(found, dict):
        raise TraceError(
            f"{path} is a notebook, but not a trace of rlm_kernel: it has no metadata.rlm.",
            hint="rlm traces lists the traces that rlm ask, run and chat have written.",
        )
    version = found.get("version")
    if isinstance(version, int) and version > VERSION:
        writer = found.get("rlm_version", "(a newer one)")
        raise TraceError(
            f"{path} was written by rlm_kernel {writer}: its format is {version}, but this version reads "
            f"only {VERSION}.",
            hint="Update: pip install -U rlm-kernel",
        )
    try:
        return NotebookMeta.model_validate(found)
    except SchemaError as error:
        raise TraceError(
            f"The trace {path} is damaged: its metadata.rlm is not valid: {_first(error)}.",
            hint=_ANOTHER,
        ) from error


def _cell(path: Path, number: int, cell: Any) -> TraceCell:
    name = str(cell.get("id") or f"cell-{number}")
    if not _CELL_ID.fullmatch(name):
        raise TraceError(
            f"The trace {path} is damaged: {name[:100]!r} is not a valid id for its cell {number}."
        )
    found = cell.metadata.get("rlm")
    try:
        meta = cell_meta(found) if found is not None else None
    except SchemaError as error:
        raise TraceError(
            f"The trace {path} is damaged: metadata.rlm of its cell {name} is not valid: {_first(error)}.",
            hint=_ANOTHER,
        ) from error
    code = cell.cell_type == "code"
    return TraceCell(
        id=name,
        code=code,
        source=cell.source,
        outputs=[dict(one) for one in cell.get("outputs", []) if not is_made(one)] if code else [],
        execution_count=cell.get("execution_count"),
        meta=meta,
        tags=list(cell.metadata.get("tags", [])),
        started=instant(cell.metadata.get("execution")),
    )


def instant(execution: Any) -> datetime | None:
    """When a cell began to run, by its metadata `execution`; None where they are missing or odd."""
    try:
        return INSTANT.validate_python(execution["iopub.execute_input"])
    except (TypeError, KeyError, ValueError):
        return None


def _first(error: SchemaError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")

"""What a trace says of its run as a whole, read without its cells: for lists of thousands of them."""

from __future__ import annotations

import codecs
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError as SchemaError

from rlm_kernel.engine.protocols import Totals
from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.trace import journal
from rlm_kernel.trace.plain import read_plain
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.schema import NotebookMeta

SETTING_UP_SECONDS = 3_600.0
"""After which a run has written to the notebook whose name it has taken."""


class NotATrace(Exception):
    """`foreign`: it is a notebook, but of another program; else it is damaged, or cannot be read."""

    def __init__(self, *, foreign: bool) -> None:
        super().__init__()
        self.foreign = foreign


@dataclass(frozen=True)
class Head:
    """A trace without its cells. `answer` is the last one, where it was asked for; `size` in bytes.

    `changed`: when it was last written, in seconds since 1970.
    """

    path: Path
    meta: NotebookMeta
    spent: Totals
    size: int
    changed: float
    answer: str = ""

    @property
    def is_child(self) -> bool:
        return self.meta.parent is not None


def notebooks_in(folder: Path) -> list[Path]:
    """The notebooks of a folder, none of a folder below it, the newest first; no links, nothing hidden, and
    none that only holds the name of a run which is being set up.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".ipynb") and not entry.name.startswith("."):
                with contextlib.suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and not _is_being_set_up(entry.path):
                        found.append((_changed(Path(entry.path)), entry.path))
    return [Path(path) for _, path in sorted(found, reverse=True)]


def _is_being_set_up(path: str) -> bool:
    """Whether it is empty, and new: an old one was left, or lost what it had."""
    found = os.lstat(path)
    return not found.st_size and time.time() - found.st_mtime < SETTING_UP_SECONDS


def _changed(path: Path) -> float:
    """When a trace was last written, by its notebook and its journal."""
    times = [path.lstat().st_mtime]
    with contextlib.suppress(OSError):
        times.append(journal.journal_path(path).lstat().st_mtime)
    return max(times)


def head_of(path: Path, *, answer: bool = False, follow: bool = False) -> Head:
    """The head of a trace. `answer`: with its answer, for which its cells are looked at.

    One that is still running, or was cut off, is read whole, since its journal has the rest. Raises
    NotATrace.
    """
    try:
        raw = read_plain(path, follow=follow)
        changed = _changed(path)
    except OSError as error:
        raise NotATrace(foreign=False) from error
    found, cells = _decoded(raw, answer=answer)
    if not isinstance(found, dict):
        raise NotATrace(foreign=True)
    try:
        meta = NotebookMeta.model_validate(found)
    except SchemaError as error:
        raise NotATrace(foreign=False) from error
    said = next((text for kind, text in reversed(cells) if kind == "answer" and text), "")
    if meta.status == "finished" and meta.totals is not None:
        return Head(path, meta, meta.totals.totals(), len(raw), changed, said)
    return _unfinished(path, len(raw), changed, follow=follow)


def _unfinished(path: Path, size: int, changed: float, *, follow: bool) -> Head:
    try:
        trace = read_trace(path, follow=follow)
    except (TraceError, UsageError) as error:
        raise NotATrace(foreign=False) from error
    texts = [cell.meta.text for cell in trace.cells if cell.meta and cell.meta.kind == "answer"]
    said = next((text for text in reversed(texts) if text), "")
    return Head(path, trace.meta, trace.spent(), size, changed, said)


def _decoded(raw: bytes, *, answer: bool) -> tuple[Any, list[tuple[str, str]]]:
    """`metadata.rlm`, None where there is none, and of cells their kinds and texts. Raises NotATrace."""
    import msgspec

    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with contextlib.suppress(UnicodeError):
            raw = raw.decode("utf-16").encode()
    try:
        # Cells are passed over: no object is made of what they hold.
        found = _decoder(answer).decode(raw.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotATrace(foreign=False) from error
    cells = [cell.metadata.rlm for cell in found.cells] if answer else []
    return found.metadata.get("rlm"), [(cell.kind, cell.text or "") for cell in cells if cell is not None]


@cache
def _decoder(answer: bool) -> Any:
    import msgspec

    ours = msgspec.defstruct("Ours", [("kind", str, ""), ("text", str | None, None)])
    about = msgspec.defstruct("About", [("rlm", ours | None, None)])
    cell = msgspec.defstruct("Cell", [("metadata", about)])
    cells = list[cell] if answer else msgspec.Raw  # type: ignore[valid-type]
    notebook = msgspec.defstruct("Notebook", [("metadata", dict[str, Any]), ("cells", cells)])
    return msgspec.json.Decoder(notebook)


def newest(folder: Path) -> Iterator[Head]:
    """The traces in a folder that no other trace has as a child, the newest first."""
    for path in notebooks_in(folder):
        with contextlib.suppress(NotATrace):
            head = head_of(path)
            if not head.is_child:
                yield head

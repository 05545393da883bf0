"""The text of OpenDocument files (.odt, .odp): paragraphs, lists, tables, slides with their notes, footnotes
and comments, with all tracked changes accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from rlm_runtime.unpacking import Unreadable
from rlm_runtime.wordtext import Parts
from rlm_runtime.xmlwalk import child_of, name_of, value_of

_DEEP = 200
_SKIPPED = frozenset(
    (
        "tracked-changes",
        "forms",
        "note-citation",
        "sequence-decls",
        "variable-decls",
        "user-field-decls",
        "settings",
        "desc",
        "date-time-decl",
        "header-decl",
        "page-thumbnail",
        "ruby-text",
    )
)
_GROUPS = frozenset(("table-header-rows", "table-rows", "table-row-group"))
_MOST = 1_000
"""Repetitions of a cell or a space that are taken at their word."""


def odf_text(file: IO[bytes], room: int) -> tuple[str, list[str]]:
    """The text of a document or of slides, and what of it could not be read.

    Raises Unreadable (a password), and what zipfile and lxml raise where there is no text at all.
    """
    parts = Parts(file, room)
    if "META-INF/manifest.xml" in parts.names() and b"encryption-data" in parts.bytes_of(
        "META-INF/manifest.xml"
    ):
        raise Unreadable("it is encrypted, and needs a password. Save a copy without one, and name that.")
    body = child_of(parts.root("content.xml"), "body")
    if body is None:
        raise ValueError("there is no document in it")
    walk = _Walk()
    walk.blocks(body, 0)
    return "\n".join(walk.lines).strip("\n"), parts.damaged


class _Walk:
    """Goes through blocks, and gathers lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._pages = 0

    def blocks(self, parent: Any, depth: int) -> None:
        for block in parent:
            name = name_of(block)
            if name in ("p", "h"):
                self.lines += "".join(self._inline(block, depth)).split("\n")
            elif name == "table":
                self.lines += self._rows(block, depth)
            elif name == "page":
                self._pages += 1
                self.lines += [*([""] if self.lines else []), f"[slide {self._pages}]"]
                self.blocks(block, depth + 1)
            elif name == "notes":
                self.lines += [f"[notes] {line}" for line in _within(block, depth) if line.strip()]
            elif name not in _SKIPPED and depth < _DEEP:
                self.blocks(block, depth + 1)

    def _inline(self, piece: Any, depth: int) -> Iterator[str]:
        yield _folded(piece.text)
        for inner in piece:
            name = name_of(inner)
            if name == "s":
                yield " " * _times(inner, "c")
            elif name == "tab":
                yield "\t"
            elif name == "line-break":
                yield "\n"
            elif name in ("note", "annotation"):
                words = " ".join(line.strip() for line in _within(inner, depth) if line.strip())
                yield f"[{'comment' if name == 'annotation' else 'note'}: {words}]" if words else ""
            elif name in ("text-box", "table"):
                walked = _within(inner, depth) if name == "text-box" else self._rows(inner, depth)
                yield "\n" + "\n".join(walked) + "\n"
            elif name not in _SKIPPED and depth < _DEEP:
                yield from self._inline(inner, depth + 1)
            yield _folded(inner.tail)

    def _rows(self, table: Any, depth: int) -> list[str]:
        """A line for each row, with tabs between cells."""
        lines = []
        for row in _rows_of(table, depth):
            cells: list[str] = []
            for cell in row:
                if name_of(cell) in ("table-cell", "covered-table-cell") and depth < _DEEP:
                    words = " ".join(
                        line.strip().replace("\t", " ") for line in _within(cell, depth) if line.strip()
                    )
                    cells += [words] * _times(cell, "number-columns-repeated")
            lines.append("\t".join(cells).rstrip("\t"))
        return lines


def _rows_of(table: Any, depth: int) -> Iterator[Any]:
    """The rows of a table itself, and not of tables in it."""
    for child in table:
        if name_of(child) == "table-row":
            yield child
        elif name_of(child) in _GROUPS and depth < _DEEP:
            yield from _rows_of(child, depth + 1)


def _within(parent: Any, depth: int) -> list[str]:
    walk = _Walk()
    if depth < _DEEP:
        walk.blocks(parent, depth + 1)
    return walk.lines


def _times(element: Any, name: str) -> int:
    times = value_of(element, name) or "1"
    return min(int(times), _MOST) if times.isdecimal() and len(times) < 9 else 1


def _folded(text: str | None) -> str:
    """White space as OpenDocument counts it: line ends of the XML are spaces."""
    return " ".join(part for part in (text or "").replace("\t", " ").split("\n")) if text else ""

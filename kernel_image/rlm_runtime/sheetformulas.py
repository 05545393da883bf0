"""Cells of a workbook (.xlsx, .xlsm) with a formula and no value.

A program wrote the file, and none has computed it. Readers of values find such cells empty.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator

_PIECE = 1 << 20
_LONGEST = 1 << 14
"""Bytes of a cell that are looked at."""
_CELL = re.compile(
    rb"<(?:\w+:)?c\b([^<>]*)>\s*<(?:\w+:)?f\b[^<>]*(?:/>|>[^<]*</(?:\w+:)?f>)\s*+"
    rb"(?:(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)\s*)?</(?:\w+:)?c>"
)
"""No part of it may begin within another, or many such would take the square of their number."""
_PLACE = re.compile(rb'\br="([A-Z]+[0-9]+)"')
_TEXT = re.compile(rb'\bt="str"')
"""A text that was computed, and is empty."""
_SHEET = re.compile(r"<(?:\w+:)?sheet\b[^>]*>")
_LINK = re.compile(r"<(?:\w+:)?Relationship\b[^>]*>")


def uncomputed(path: str) -> list[str]:
    """For each sheet, in the order of the workbook, what is to be said of such cells; "" for none."""
    try:
        with zipfile.ZipFile(path) as book:
            return [_told(list(_cells(book, name))) for name in _sheets(book)]
    except Exception:  # what is wrong with the file its reader says
        return []


def _sheets(book: zipfile.ZipFile) -> list[str]:
    links = book.read("xl/_rels/workbook.xml.rels").decode("utf-8", "replace")
    targets = {_value(link, "Id"): _value(link, "Target") for link in _LINK.findall(links)}
    found = []
    for sheet in _SHEET.findall(book.read("xl/workbook.xml").decode("utf-8", "replace")):
        target = targets.get(_value(sheet, r"\w+:id"), "")
        found.append(target.lstrip("/") if target.startswith("/") else posixpath.join("xl", target))
    return found


def _value(tag: str, name: str) -> str:
    found = re.search(rf"""\s{name}\s*=\s*["']([^"']*)["']""", tag)
    return found[1] if found else ""


def _cells(book: zipfile.ZipFile, name: str) -> Iterator[str]:
    """The places of such cells of a sheet."""
    if name not in book.namelist():
        return
    rest = b""
    with book.open(name) as part:
        while piece := part.read(_PIECE):
            data, at = rest + piece, 0
            for cell in _CELL.finditer(data):
                at = cell.end()
                if not _TEXT.search(cell[1]):
                    place = _PLACE.search(cell[1])
                    yield place[1].decode() if place else ""
            rest = data[max(at, len(data) - _LONGEST) :]


def _told(places: list[str]) -> str:
    if not places:
        return ""
    first = f" (such as {places[0]})" if places[0] else ""
    return (
        f"formulas that nobody has computed: {len(places):,}{first}. Their cells are empty here: open it in "
        "a spreadsheet program, and save it"
    )

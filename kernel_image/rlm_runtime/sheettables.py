"""The sheets of a workbook (.xlsx, .xlsm, .xlsb, .xls, .ods) as tables, by calamine.

Cells have the values that were last computed. A workbook knows no integers, so numbers that are whole are
written as such.
"""

from __future__ import annotations

import mmap
import tempfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rlm_runtime.sheetformulas import uncomputed
from rlm_runtime.tablewriter import Table
from rlm_runtime.unpacking import Unreadable

_EXACT = 2**53
"""Up to here all whole numbers are exact in a workbook."""
_OLE = b"\xd0\xcf\x11\xe0"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_PASSWORD = "it is encrypted, and needs a password. Save a copy without one, and name that."


def tables(path: str, _name: str) -> list[Table]:
    """The sheets in the order of the workbook. Raises Unreadable."""
    from python_calamine import (
        CalamineError,
        CalamineWorkbook,
        PasswordError,
        SheetTypeEnum,
        SheetVisibleEnum,
    )

    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder, f"book{_ending(path)}")  # its reader goes by the ending
        named.symlink_to(path)
        try:
            book = CalamineWorkbook.from_path(named)
        except PasswordError:
            raise Unreadable(_PASSWORD) from None
        except CalamineError as error:
            raise Unreadable(
                f"it is damaged, or encrypted ({error}). Open it, and save it as .xlsx or .csv anew."
            ) from None
    lacks = dict(enumerate(uncomputed(path)))
    return [
        Table(
            sheet.name,
            partial(_rows, book, place),
            "" if sheet.visible == SheetVisibleEnum.Visible else "a hidden sheet",
            lacks.get(place, ""),
        )
        for place, sheet in enumerate(book.sheets_metadata)
        if sheet.typ not in (SheetTypeEnum.ChartSheet, SheetTypeEnum.Vba)
    ]


def _ending(path: str) -> str:
    """The ending that a workbook of this content has. Raises Unreadable."""
    with open(path, "rb") as file:
        if file.read(len(_OLE)) == _OLE:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if data.find(_ENCRYPTED) >= 0:
                    raise Unreadable(_PASSWORD)
            return ".xls"
        file.seek(0)
        try:
            names = zipfile.ZipFile(file).namelist()
        except Exception as error:  # of a damaged zip anything
            raise Unreadable(f"it is damaged or cut off ({error}). Copy it again, or save it anew.") from None
    lower = [name.lower().replace("\\", "/").lstrip("/") for name in names]
    if "content.xml" in lower:
        return ".ods"
    if any(name.startswith("xl/") for name in lower):
        return ".xlsb" if "xl/workbook.bin" in lower else ".xlsx"
    for part, kind in (("word/", "a Word file"), ("ppt/", "slides")):
        if any(name.startswith(part) for name in lower):
            raise Unreadable(f"there is no workbook in it: it is {kind}")
    if "[content_types].xml" in lower:
        return ".xlsx"
    raise Unreadable("there is no workbook in it: it is a zip of other files")


def _rows(book: Any, place: int) -> Iterator[list[Any]]:
    """The rows between the first and the last that have a value, as wide as the widest of them."""
    sheet = book.get_sheet_by_index(place)
    first, last, width = 0, 0, 0
    for number, row in enumerate(sheet.iter_rows(), 1):
        filled = next((len(row) - at for at, value in enumerate(reversed(row)) if value != ""), 0)
        if filled:
            first, last, width = first or number, number, max(width, filled)
    for number, row in enumerate(sheet.iter_rows(), 1):
        if first <= number <= last:
            cells = [_value(value) for value in row[:width]]
            yield cells if any(cell != "" for cell in cells) else []


def _value(value: Any) -> Any:
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value

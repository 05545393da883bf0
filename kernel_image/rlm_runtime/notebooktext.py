"""The sources of a notebook's cells, whatever version of the format it is in, and whatever is missing."""

from __future__ import annotations

import json
from typing import Any


def notebook_text(text: str) -> str:
    """The sources, each after `[cell N: type]`. Raises ValueError for what is no notebook."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("there is no notebook in it")
    cells, sheets = found.get("cells"), found.get("worksheets")
    if not isinstance(cells, list):  # before version 4, cells lay in sheets
        cells = (
            [cell for sheet in sheets if isinstance(sheet, dict) for cell in _list(sheet.get("cells"))]
            if _list(sheets)
            else None
        )
    if cells is None:
        raise ValueError("there are no cells in it")
    parts = []
    for number, cell in enumerate(cells, 1):
        cell = cell if isinstance(cell, dict) else {}
        parts.append(
            f"[cell {number}: {cell.get('cell_type', 'unknown')}]\n"
            f"{_source(cell.get('source', cell.get('input', '')))}"
        )
    return "\n\n".join(parts)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _source(source: Any) -> str:
    return (
        source
        if isinstance(source, str)
        else "".join(line for line in _list(source) if isinstance(line, str))
    )

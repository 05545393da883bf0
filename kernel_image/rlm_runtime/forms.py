"""The form of a text that one of Python's parsers reads, told with the code that does. Judged by the text's beginning alone."""

from __future__ import annotations

import csv
import json
from typing import Any

_HEAD = 20_000
"""Characters that are looked at."""
_LINES = 20
_NAMES = 30
_NAME = 40
_DELIMITERS = {",": "", "\t": r', delimiter="\t"', ";": ', delimiter=";"', "|": ', delimiter="|"'}


def form(text: Any) -> str:
    """What the text is, with its names, and code for its rows; "" for what is just text."""
    head = str(text[:_HEAD])
    lines = head.split("\n")
    if len(text) > len(head):
        lines.pop()  # cut off
    lines = [line for line in lines if line.strip()][:_LINES]
    return _json_lines(lines) or _table(lines) or _json(head)


def _json_lines(lines: list[str]) -> str:
    try:
        rows = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return ""
    if len(rows) < 2 or not all(isinstance(row, dict) for row in rows):
        return ""
    return f"JSON lines with {_listed(list(rows[0]))}; rows = [json.loads(line) for line in context.splitlines() if line.strip()]"


def _table(lines: list[str]) -> str:
    for delimiter, how in _DELIMITERS.items():
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        names = rows[0] if rows else []
        if len(rows) < 3 or len(names) < 3 or any(len(row) != len(names) for row in rows):
            continue
        if len(set(names)) == len(names) and all(name.strip() and len(name) <= _NAME and not _number(name) for name in names):
            return f"a table with the columns {_listed(names)}; rows = list(csv.DictReader(context.splitlines(){how}))"
    return ""


def _json(head: str) -> str:
    return (
        "JSON; data = json.loads(context)" if head.lstrip()[:1] in ("{", "[") and head.lstrip()[1:].lstrip()[:1] in ('"', "{", "[") else ""
    )


def _number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _listed(names: list[str]) -> str:
    shown = [json.dumps(name[:_NAME], ensure_ascii=False) for name in names[:_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")

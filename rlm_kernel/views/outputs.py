"""The last lines of a cell's outputs, and what it raised, as views show them: at a cost that does not grow
with the outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlm_kernel.engine.protocols import CellResult

_LOOKED_AT = 8_000
"""Characters of the outputs, from their end, that are looked at."""
_ERROR = 500
_CODES = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
"""Colours and the like: what a terminal would be told."""
_STATUS = {"timeout": "its time was over", "died": "the kernel died"}


def last_lines(outputs: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """The last lines that hold anything, at most `most`; of a line that was written over, what stands."""
    found: list[str] = []
    room = _LOOKED_AT
    for output in reversed(list(outputs)):
        if room <= 0 or len(found) >= most:
            break
        text = _text(output)[-room:]
        room -= len(text) + 1
        lines = [line for line in map(_standing, _CODES.sub("", text).split("\n")) if line.strip()]
        found = [*lines[-(most - len(found)) :], *found]
    return found


def error_line(result: CellResult) -> str:
    """Why a cell failed, on one line."""
    for output in reversed(result.outputs):
        if output.get("output_type") == "error":
            return " ".join(_text(output)[:_ERROR].split())
    return _STATUS.get(result.status, result.status)


def _standing(line: str) -> str:
    """A progress bar goes back to the beginning of its line."""
    return line.rstrip("\r").rpartition("\r")[2]


def _text(output: Mapping[str, Any]) -> str:
    match output:
        case {"output_type": "stream", "text": str(text)}:
            return text
        case {"output_type": "error", "ename": name, "evalue": value}:
            return f"{str(name)[:_ERROR]}: {str(value)[:_ERROR]}"
        case {"data": {"text/plain": str(text)}}:
            return text
    return ""

"""Paths, JSON and lines as commands print them."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from rlm_kernel.cli._streams import takes_all_of_unicode
from rlm_kernel.pathtext import seen_from
from rlm_kernel.printable import printable

_NARROW = 40
"""Columns of a terminal, below which lines are broken by itself."""
_NAME = re.compile(r"\S+ {2,}| +")


def shown_path(path: Path) -> str:
    """A path as it is typed from here; the whole one if it is on another drive of Windows."""
    return seen_from(path)


def json_line(value: Any) -> str:
    """One line of JSON for stdout, escaped where a terminal may obey its characters, or where the encoding
    lacks some.
    """
    return json.dumps(value, ensure_ascii=sys.stdout.isatty() or not takes_all_of_unicode())


def print_lines(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Print lines, which in a terminal go on below what they say, and not in the middle of a word.

    `file`: default stdout.
    """
    out = sys.stdout if file is None else file
    columns = shutil.get_terminal_size().columns
    fills = out.isatty() and columns >= _NARROW
    for text in printable("\n".join(lines)).split("\n"):
        print(_filled(text, columns) if fills else text, file=out)


def _filled(line: str, columns: int) -> str:
    name = _NAME.match(line)
    indent = len(name[0]) if name else 0
    if len(max(line.split(), key=len, default="")) > columns - indent:
        return line  # a path, which has no place on any line
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * (indent if indent < columns // 2 else 0),
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )

"""Paths and JSON as commands print them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rlm_kernel.cli._streams import takes_all_of_unicode
from rlm_kernel.pathtext import seen_from


def shown_path(path: Path) -> str:
    """A path as it is typed from here; the whole one if it is on another drive of Windows."""
    return seen_from(path)


def json_line(value: Any) -> str:
    """One line of JSON for stdout, escaped where a terminal may obey its characters, or where the encoding
    lacks some.
    """
    return json.dumps(value, ensure_ascii=sys.stdout.isatty() or not takes_all_of_unicode())

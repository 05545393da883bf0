"""The trace that a command is about: the one that was named, or the last one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.cli._text import shown_path
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.config import Settings


def chosen(trace: Path | None, settings: Callable[[], Settings], *, quiet: bool = False) -> Path:
    """`trace`, or else the last one, which stderr is told. Raises UsageError where there is none."""
    if trace is not None:
        return trace
    from rlm_kernel.session.lasttrace import last_trace

    found = last_trace(settings())
    if not quiet:
        print(f"rlm: the last trace is {printable(shown_path(found))}", file=sys.stderr)
    return found

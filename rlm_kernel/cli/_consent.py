"""Asks the user, in the terminal, whether the model may read a file that they did not name."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent
    from rlm_kernel.views.live import LiveView


def consent_in(view: LiveView) -> Consent | None:
    """What asks, with the live view paused; None where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    from rlm_kernel.cli._terminal import forget_typed, line

    async def ask(path: Path) -> bool:
        size = await asyncio.to_thread(_size, path)
        with view.paused():
            print(
                f"rlm: the model wants to read {_shown(path)} ({size}), which you did not name. Allow? "
                "[y/N] ",
                end="",
                file=sys.stderr,
            )
            sys.stderr.flush()
            try:
                forget_typed(sys.stdin.fileno())  # it was no answer to this
                answer = (await line(sys.stdin.fileno())).strip().lower()
            except asyncio.CancelledError:  # interrupted, or the cell's time was over
                print(file=sys.stderr)
                raise
            return answer in ("y", "yes")

    return ask


def _shown(path: Path) -> str:
    """On one line, so that a file's name cannot look like more than that."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in printable(str(path))
    )


def _size(path: Path) -> str:
    try:
        if path.is_dir():
            return "a folder"
        size = float(path.stat().st_size)
    except OSError:
        return "size unknown"
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"

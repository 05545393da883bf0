"""Asks the user in the terminal: whether the model may read a file that they did not name, and whether its
code may spend much.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from rlm_kernel import system
from rlm_kernel.engine.approval import Approve, Expected, dollars
from rlm_kernel.engine.toolcalls import preview
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent
    from rlm_kernel.tools.tool import AllowCall
    from rlm_kernel.views.live import LiveView


def _can_ask() -> bool:
    return system.is_attended(sys.stdin) and system.is_attended(sys.stderr)


def consent_in(view: LiveView) -> Consent | None:
    """What asks, with the live view paused; None where nobody can be asked."""
    if not _can_ask():
        return None

    async def ask(path: Path) -> bool:
        size = await asyncio.to_thread(_size, path)
        wants = f"the model wants to read {_shown(path)} ({size}), which you did not name. Allow? [y/N] "
        return await _answer(view, wants) in _YES

    return ask


def approval_in(view: LiveView) -> Approve | None:
    """The same for what code is about to spend. "always" holds for all runs of this process."""
    if not _can_ask():
        return None
    always = False

    async def ask(wanted: Expected) -> bool | Literal["always"]:
        nonlocal always
        if not always:
            answer = await _answer(view, f"{_worded(wanted)} Continue? [y/N/a=always for this run] ")
            always = answer in ("a", "always")
            if not always:
                return answer in _YES
        return "always"

    return ask


def calls_in(view: LiveView) -> AllowCall | None:
    """The same for calls of a tool that asks."""
    if not _can_ask():
        return None

    async def ask(name: str, arguments: Mapping[str, Any]) -> bool | Literal["always"]:
        wants = f"the code wants to call {_one_line(preview(name, arguments))}"
        answer = await _answer(view, f"{wants}. Allow? [y/N/a=always for this tool] ")
        return "always" if answer in ("a", "always") else answer in _YES

    return ask


def asking_in(view: LiveView) -> dict[str, Any]:
    """All of them, as keywords of the session functions."""
    return {"consent": consent_in(view), "approve": approval_in(view), "allow_call": calls_in(view)}


_YES = ("y", "yes")
_at_keyboard: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""One question at a time."""


async def _answer(view: LiveView, question: str) -> str:
    """What the user types, with the live view paused."""
    from rlm_kernel.cli._terminal import forget_typed, line

    async with _at_keyboard.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        with view.paused():
            print(f"rlm: {question}", end="", file=sys.stderr)
            sys.stderr.flush()
            try:
                forget_typed(sys.stdin.fileno())  # it was no answer to this
                return (await line(sys.stdin.fileno())).strip().lower()
            except asyncio.CancelledError:  # interrupted, or the cell's time was over
                print(file=sys.stderr)
                raise


def _worded(wanted: Expected) -> str:
    model = _one_line(wanted.model)
    spent = f"have cost about {dollars(wanted.spent)} so far"
    if wanted.calls == 1 and wanted.spent:
        what = f"the code's calls {spent}, and it wants to continue to call {model}"
    else:
        calls = f"{wanted.calls:,} calls" if wanted.calls != 1 else "a call"
        before = f", in addition to calls that {spent}" if wanted.spent else ""
        what = f"the code wants to make {calls} of {model}, for about {dollars(wanted.cost)}{before}"
    return f"{what}; no cost limit is set."


def _shown(path: Path) -> str:
    return _one_line(str(path))


def _one_line(text: str) -> str:
    """On one line, so that a name cannot look like more than that."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in printable(text))


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

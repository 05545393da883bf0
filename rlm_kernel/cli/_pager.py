"""Long output in a terminal, a page at a time, by the user's pager."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from rlm_kernel import system


def page(lines: Iterable[str], *, paged: bool = True) -> None:
    """Show lines, which may have colours: by $PAGER, else by less, where stdout is a terminal; else print
    them.

    They are made as they are read: whoever leaves the pager early ends it.
    """
    command = _pager() if paged and system.is_attended(sys.stdout) and sys.stdin.isatty() else []
    if command:
        try:
            _through(command, lines)
            return
        except (OSError, ValueError) as error:  # before it has begun
            print(f"rlm: the pager {command[0]} cannot be started: {error}", file=sys.stderr)
    for line in lines:
        print(line)
        if _is_gone():
            return


def _pager() -> list[str]:
    """The words of the user's pager; none where there is none, or where it is cat."""
    if (given := os.environ.get("PAGER")) is not None:
        with contextlib.suppress(ValueError):
            words = system.words(given)
            return [] if words == ["cat"] else _with_colours(words)
        return []
    return _with_colours(["less"]) if shutil.which("less") else []


def _with_colours(words: list[str]) -> list[str]:
    """With the option that has less show colours, which LESS may lack."""
    return [*words, "-R"] if words and os.path.basename(words[0]) in ("less", "less.exe") else words


def _through(command: list[str], lines: Iterable[str]) -> None:
    # As git does it: colours, one page is only printed, and the screen stays.
    environ = {**os.environ, "LESS": os.environ.get("LESS", "FRX"), "LESSCHARSET": "utf-8"}
    pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ)
    assert pager.stdin is not None
    # Ctrl-C is the pager's, which stops a search by it; it ends at its own key.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.suppress(BrokenPipeError, OSError):  # it was left before the end
            for line in lines:
                pager.stdin.write(f"{line}\n".encode("utf-8", "replace"))
        with contextlib.suppress(OSError):
            pager.stdin.close()
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        with contextlib.suppress(OSError):
            pager.stdin.close()


def _is_gone() -> bool:
    """Whether nobody reads stdout any more, as in `rlm show | head`: that is no fault then."""
    raw: Any = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = getattr(raw, "error", None)
    if error is None or error.errno != errno.EPIPE:
        return error is not None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, raw.fileno())
    os.close(nowhere)
    raw.error = None
    return True

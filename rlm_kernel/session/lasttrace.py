"""The trace that a command means which is given none: the last one that a user's run has written."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rlm_kernel.config import Settings
from rlm_kernel.errors import UsageError
from rlm_kernel.session.state import SessionFolder, sessions
from rlm_kernel.trace.heads import Head, NotATrace, head_of, newest


def last_trace(settings: Settings) -> Path:
    """The trace in `trace.dir`, or of a session of this folder, that was written last.

    Traces of child RLMs are not meant, and none that a link leads to. Blocking. Raises UsageError where there
    is none.
    """
    found = [*_of_sessions(settings.session.dir), *_first(settings.trace.dir)]
    if not found:
        raise UsageError(
            f"There is no trace in {settings.trace.dir}.",
            hint="Name one: a file that ends with .ipynb. rlm ask and rlm chat write traces to the folder "
            "in the setting trace.dir, or to the file in --trace.",
        )
    return max(found, key=lambda head: head.changed).path


def _first(folder: Path) -> list[Head]:
    head = next(newest(folder), None)
    return [head] if head else []


def _of_sessions(base: Path) -> list[Head]:
    """The traces of this folder's sessions, wherever they are."""
    found = []
    for name in sessions(base):
        with contextlib.suppress(UsageError, NotATrace):  # it is damaged, or another user's
            state = SessionFolder(base, name).read()
            if state is not None:
                found.append(head_of(state.trace))
    return found

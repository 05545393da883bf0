"""Which of the runs in progress a person means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.sandbox.rundir import LiveSession

_SHOWN = 100
"""Characters of a question in a list of sessions."""


def find_session(wanted: str | None = None) -> LiveSession:
    """The live session of that id, of an id that begins so, or of the trace at that path; without `wanted`
    the only one there is.

    Raises UsageError if there is none, or more than one.
    """
    from rlm_kernel.sandbox.rundir import live_sessions

    sessions = live_sessions()
    if not sessions:
        raise UsageError(
            "No run is in progress.",
            hint='Start one in another terminal (rlm ask "…" -f FILE), and attach while it runs.',
        )
    found = sessions if wanted is None else [session for session in sessions if _is_meant(session, wanted)]
    if not found:
        raise UsageError(f"No run in progress is called {wanted}.", hint=_list(sessions))
    if len(found) > 1:
        what = "are in progress" if wanted is None else f"match {wanted}"
        raise UsageError(
            f"{len(found)} runs {what}: name one of them.",
            hint=f"{_list(found)}\nType for example `rlm attach {found[-1].about.session}`.",
        )
    return found[0]


def _is_meant(session: LiveSession, wanted: str) -> bool:
    about = session.about
    return about.session.startswith(wanted) or Path(wanted).resolve() == about.trace.resolve()


def _list(sessions: Sequence[LiveSession]) -> str:
    return "\n".join(
        f"  {s.about.session}  {' '.join(s.about.question.split())[:_SHOWN]}  ({s.about.trace})"
        for s in sessions
    )

"""The last trace: what commands take that are given none."""

from __future__ import annotations

from pathlib import Path

from rlm_kernel.config import Settings
from rlm_kernel.errors import UsageError


def last_trace(settings: Settings) -> Path:
    """The newest trace in `trace.dir`. Raises UsageError if there is none. Blocking."""
    try:
        found = [
            (path.stat().st_mtime, path) for path in settings.trace.dir.glob("*.ipynb") if path.is_file()
        ]
    except OSError:
        found = []
    if not found:
        raise UsageError(
            f"There is no trace in {settings.trace.dir}.", hint="Name one: a file that ends in .ipynb."
        )
    return max(found)[1]

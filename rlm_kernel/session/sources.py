"""Where a trace's prompts and answer come from, by the files as they are now. Blocking."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from rlm_kernel.proof.answers import answer_of, answer_sources
from rlm_kernel.proof.findings import Provenance
from rlm_kernel.proof.sources import call_sources
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.tracefiles import check_files
from rlm_kernel.trace.reader import TraceFile

_TOLD_AFTER = 1.0
"""Seconds after which it is told that the files are being read."""


def shown_with(
    trace: TraceFile, given: Mapping[str, Path] | None = None, say: Say = silent
) -> Provenance | None:
    """What a document of a trace shows of it by default; None for a run without files or answer. Arguments as
    of `provenance`.
    """
    found = provenance(trace, given, say)
    return found if trace.meta.files and found.answer.pieces else None


def provenance(trace: TraceFile, given: Mapping[str, Path] | None = None, say: Say = silent) -> Provenance:
    """Find the trace's files, and in them what prompts and answer held.

    Files that are missing or have changed refuse nothing: they are told in the result's `trouble`. `given`:
    where a file is now, by its path or name in the trace. `say` is called in another thread.

    Raises UsageError for a name that the trace does not have.
    """
    told = threading.Timer(_TOLD_AFTER, say, ["reading the trace's files …"])
    told.daemon = True
    told.start()
    try:
        checked = check_files(trace, given)
        places = {one.meta.path: one.path for one in checked if one.path is not None}
        found = call_sources(trace, places, answer_of(trace))
    finally:
        told.cancel()
    found.trouble += [one.fault for one in checked if one.fault]
    return Provenance(found, answer_sources(trace, found))

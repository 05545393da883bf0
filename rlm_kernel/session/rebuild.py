"""A kept session's kernel, rebuilt from its trace by replay: after a reboot, the engine's restart, or its idle time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.events import CellFinished, Listener
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import CellResult
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import FileRefused
from rlm_kernel.secrets import known_secrets
from rlm_kernel.session.answering import check_setup
from rlm_kernel.session.children import Children
from rlm_kernel.session.conversation import full_history
from rlm_kernel.session.digests import file_meta
from rlm_kernel.session.live import Live, make
from rlm_kernel.session.replay import Replayer, Verdict, image_remarks, restored
from rlm_kernel.session.stage import Say, keep_of
from rlm_kernel.session.tracefiles import look_up_files
from rlm_kernel.trace.reader import TraceCell, TraceFile, trace_of
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.schema import OriginMeta
from rlm_kernel.trace.taken import ended
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent


async def rebuild(
    trace: TraceFile, settings: Settings, listeners: Listener, say: Say, depot: Path, consent: Consent | None
) -> tuple[Live, NotebookWriter, str]:
    """Run the trace's cells in a new kernel, with the recorded answers: no model is asked.

    The kernel, a writer that goes on with the trace, and what is to be told of it. Raises FileRefused (a file is gone), SetupError,
    KernelError, UsageError (the input cannot be loaded).
    """
    from nbformat import from_dict

    node = from_dict({**trace.node, "cells": ended(trace.node.cells)})  # type: ignore[no-untyped-call]
    trace = trace_of(node, trace.path)
    try:
        found = await look_up_files(trace, allow_changed=True, say=say)
    except FileRefused as refused:
        raise FileRefused(refused.message, hint="Put it back where it was, or begin anew: rlm stop, and rlm init.") from refused
    idle = settings.session.idle
    live = await make(found.paths, settings, listeners, say, depot=depot, known_as=found.known_as, consent=consent, idle=idle)
    try:
        results, verdicts = await _replay(trace, settings, live, listeners, say)
    except BaseException:
        await live.end()
        raise
    last = trace.cells[-1].id if trace.cells else ""
    origin = OriginMeta(kind="rebuild", trace=str(trace.path), session=trace.meta.session, cell=last, at=datetime.now(UTC))
    changes: dict[str, Any] = {"origins": [*trace.meta.origins, origin], "session": live.on.run.session_id}
    if found.changed:
        # What the cells gave now is of the files as they are now. Their digests are taken with the next question.
        now = await asyncio.to_thread(lambda: [file_meta(path) for path in found.paths])
        changes["files"] = [file.model_copy(update={"path": then.path}) for file, then in zip(now, trace.meta.files, strict=True)]
    writer = NotebookWriter(trace.path, trace.meta.model_copy(update=changes), known_secrets(os.environ), trace.node.cells)
    for cell, verdict in zip(trace.code_cells, verdicts, strict=True):
        if verdict.verdict != "same":
            writer(CellFinished(cell.turn, results[cell.id]))
    told = restored("The session was taken up again", verdicts, [*found.changed, *image_remarks(trace, live.on)])
    return live, writer, told


async def _replay(
    trace: TraceFile, settings: Settings, live: Live, listeners: Listener, say: Say
) -> tuple[dict[str, CellResult], list[Verdict]]:
    children = Children(live.on, trace.path)
    calls = HostCalls(
        SubCalls(None, Ledger(Limits()), children),
        listeners,
        live.on.locate,
        recording=TraceRecording(trace.cells),
        history=lambda cell: full_history(trace, seen_by=cell),
        keep=keep_of(settings),
    )
    live.broker.handlers = calls.handlers()
    replayer = Replayer(Cells(live.kernel, calls, listeners), live=False)
    results: dict[str, CellResult] = {}
    verdicts: list[Verdict] = []
    cells: Sequence[TraceCell] = trace.code_cells
    for number, cell in enumerate(cells, 1):
        say(f"rebuilding the session from its trace … cell {number} of {len(cells)}")
        verdict, results[cell.id] = await replayer.run(cell)
        verdicts.append(verdict)
        if cell.kind == "setup":
            check_setup(results[cell.id], settings)
    return results, verdicts

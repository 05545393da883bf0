"""A kept session's kernel, rebuilt from its trace by replay: after a reboot, the engine's restart, or its
idle time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import FileRefused
from rlm_kernel.session.answering import Children
from rlm_kernel.session.assembly import Assembly, history_of
from rlm_kernel.session.digests import file_meta
from rlm_kernel.session.environment import Host
from rlm_kernel.session.replaying import Replayer, Restored, image_remarks, restore
from rlm_kernel.session.running import GivenFiles, RunningKernel, new_kernel
from rlm_kernel.session.tracefiles import TraceFiles, look_up_files
from rlm_kernel.session.traces import new_writer
from rlm_kernel.trace.nodes import node_of
from rlm_kernel.trace.reader import TraceFile, trace_of
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.schema import OriginMeta
from rlm_kernel.trace.taken import ended
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.image import ImageInfo


@dataclass(frozen=True)
class Rebuilt:
    """A rebuilt kernel, a writer that goes on with the trace, and what is to be told of it."""

    running: RunningKernel
    writer: NotebookWriter
    told: str


async def rebuild(trace: TraceFile, host: Host, image: ImageInfo, depot: Path, view: Listener) -> Rebuilt:
    """Run the trace's cells in a new kernel, with the recorded answers: no model is asked.

    `view` hears of it.

    Raises FileRefused (a file is gone), SetupError, KernelError, UsageError (the input cannot be loaded).
    """
    trace = await asyncio.to_thread(_as_ended, trace)
    try:
        found = await look_up_files(trace, allow_changed=True, say=host.say)
    except FileRefused as refused:
        raise FileRefused(
            refused.message, hint="Put it back to its old place, or start again: rlm stop, then rlm init."
        ) from refused
    files = GivenFiles(found.paths, found.known_as, depot=depot)
    running = await new_kernel(host, image, files, replayed=True, idle=host.settings.session.idle)
    try:
        await running.start()
        restored = await _restored(trace, running, view)
        writer = await _goes_on(trace, running, found)
    except BaseException:
        await running.close()
        raise
    restored.write(writer)
    told = restored.told(
        "The session was taken up again", [*found.changed, *image_remarks(trace, running.environment)]
    )
    return Rebuilt(running, writer, told)


def _as_ended(trace: TraceFile) -> TraceFile:
    """The trace with cells that were cut off as ones that were interrupted."""
    node = node_of({**trace.node, "cells": ended(trace.node.cells)})
    return trace_of(node, trace.path)


async def _restored(trace: TraceFile, running: RunningKernel, view: Listener) -> Restored:
    environment = running.environment
    host, cells = environment.host, trace.code_cells
    run = Assembly(environment, SubCalls(None, Ledger(Limits()), Children(environment, trace.path)), view)
    calls = run.host_calls(history_of(lambda: trace), recording=TraceRecording(trace.cells))

    def progress(number: int) -> None:
        host.say(f"rebuilding the session from its trace … cell {number} of {len(cells)}")

    async with running.attached(calls, view):
        return await restore(
            cells, Replayer(run.cells(running, calls), live=False), host.settings, progress=progress
        )


async def _goes_on(trace: TraceFile, running: RunningKernel, found: TraceFiles) -> NotebookWriter:
    """A writer that goes on with the trace. Nothing is written yet."""
    last = trace.cells[-1].id if trace.cells else ""
    origin = OriginMeta(
        kind="rebuild", trace=str(trace.path), session=trace.meta.session, cell=last, at=datetime.now(UTC)
    )
    environment = running.environment
    changes: dict[str, Any] = {
        "origins": [*trace.meta.origins, origin],
        "session": environment.run.session_id,
    }
    if found.changed:
        # What the cells gave now is of the files as they are now. Their digests are taken with the next
        # question.
        now = await asyncio.to_thread(lambda: [file_meta(path) for path in found.paths])
        changes["files"] = [
            file.model_copy(update={"path": then.path})
            for file, then in zip(now, trace.meta.files, strict=True)
        ]
    return new_writer(
        trace.path,
        trace.meta.model_copy(update=changes),
        environment.host.settings,
        trace.node.cells,
        say=environment.host.say,
    )

"""The cell that runs: what it has shown and called so far is written at most every SAVE_SECONDS."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from rlm_kernel.errors import TraceNotWritten
from rlm_kernel.trace.frame_writer import FrameWriter
from rlm_kernel.trace.notebook_file import RATE
from rlm_kernel.trace.progress import Progress, RunningCell
from rlm_kernel.trace.schema import CallMeta, CellMeta, NotebookMeta

SAVE_SECONDS = 0.5


class RunningWriter(FrameWriter):
    """A part of the notebook writer: keeps the cell in progress on disk."""

    def __init__(self, path: Path, meta: NotebookMeta, secrets: Sequence[str], outputs: int | None) -> None:
        super().__init__(path, meta, secrets, outputs)
        self._running: RunningCell | None = None
        self._save_cost = 0.0
        self._due: asyncio.TimerHandle | None = None

    def _write_running(self, cell: RunningCell, ended: CellMeta | None = None) -> None:
        """`ended`: what its record says in the end, where the run ends in it."""
        meta = ended or self._meta_of(cell)
        times = {"iopub.execute_input": cell.started.isoformat()}
        outputs = self._code_cell(cell.cell_id, cell.code, cell.outputs, meta, None, times, check=False)
        cell.progress, cell.stale = Progress(), False
        cell.progress.written(outputs)

    def _meta_of(self, cell: RunningCell) -> CellMeta:
        kind, calls = self._code_kind(cell.cell_id), list(map(CallMeta.of, cell.calls))
        return CellMeta(
            kind=kind, turn=self._turn or None, status="running", seconds=cell.seconds, calls=calls
        )

    def _save_now_and_then(self) -> None:
        # With thousands of calls in a cell its own serialisation costs something: keep that under a tenth of
        # the time.
        wait = self._saved + max(SAVE_SECONDS, 10 * self._save_cost) - time.monotonic()
        if wait <= 0:
            self._save_running()
        else:
            self._save_later(wait)

    def _save_later(self, wait: float) -> None:
        if self._due is None:
            with contextlib.suppress(RuntimeError):  # without an event loop the next event saves
                self._due = asyncio.get_running_loop().call_later(wait, self._save_when_due)

    def _cancel_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _save_running(self) -> None:
        self._cancel_due()
        if (cell := self._running) is not None:
            started = time.monotonic()
            if cell.progress is None or self._file.wait() == 0:
                self._write_running(cell)
                self._save()
            else:
                self._write_progress(cell, cell.progress)
            self._save_cost = time.monotonic() - started

    def _write_progress(self, cell: RunningCell, progress: Progress) -> None:
        outputs = self._written(cell.cell_id, cell.outputs)
        change = progress.change(outputs)
        if change is not None and not self._file.affords(repeated := progress.repeated(outputs, change)):
            change = None
            self._save_later(repeated / RATE)
        if not progress.calls and change is None:
            return
        calls = [self._writable.meta(call) for call in map(CallMeta.of, progress.calls)]
        done = {"seconds": cell.seconds, "calls": calls, **({"outputs": change} if change else {})}
        with self._writing():
            self._file.progress(cell.cell_id, done, self._ours())
        if change is not None:
            progress.written(outputs)
        progress.calls = []
        self._saved = time.monotonic()
        self._arm_whole()

    def _refresh(self) -> None:
        """Put the running cell as it is now."""
        if self._running is not None and self._running.stale:
            self._write_running(self._running)

    def _save_when_due(self) -> None:
        with contextlib.suppress(TraceNotWritten):  # nobody here to hear it; the next event raises it again
            self._save_running()

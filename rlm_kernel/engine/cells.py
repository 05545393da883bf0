"""One cell with its host calls, told to the trace: what the loop and a replay have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from rlm_kernel.engine.events import CellFinished, CellStarted, Listener
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.protocols import CellResult, Kernel

ENDING_SECONDS = 10.0
"""How long a cell that has delivered its answer may go on."""


@dataclass(frozen=True)
class Cells:
    """Runs the cells of one kernel."""

    kernel: Kernel
    calls: HostCalls
    tell: Listener

    async def run(
        self, cell_id: str, code: str, turn: int, *, setup: bool = False, seconds: float | None = None
    ) -> CellResult:
        """Run a cell to its end; after `seconds` of the run it is interrupted.

        `setup`: it loads the input (`Kernel.set_up`).

        Raises SetupError and TraceNotWritten where that is why a call of it failed: the cell counts as cut
        off.
        """
        self.tell(CellStarted(cell_id, turn, code))
        self.calls.begin(cell_id)
        try:
            running = self.kernel.set_up(cell_id, code) if setup else self.kernel.run_cell(cell_id, code)
            result = await self._within(seconds, running)
        finally:
            calls, answer = self.calls.end()
        if self.calls.broken is not None:
            raise self.calls.broken
        result = replace(
            result,
            calls=calls,
            answer=answer,
            left_out=self.calls.left_out,
            partial=self.calls.partial,
        )
        if result.lost_answers:
            self.calls.keep_answers()
        self.tell(CellFinished(turn, result))
        return result

    async def _within(self, seconds: float | None, running: Coroutine[Any, Any, CellResult]) -> CellResult:
        task = asyncio.create_task(running)
        delivered = asyncio.create_task(self.calls.delivered.wait())
        try:
            with contextlib.suppress(TimeoutError):
                async with self.calls.ledger.paying.timeout(seconds):
                    await asyncio.wait({task, delivered}, return_when=asyncio.FIRST_COMPLETED)
            if delivered.done():
                await asyncio.wait({task}, timeout=ENDING_SECONDS)
            return await self._ended(task)
        except asyncio.CancelledError:
            if self.calls.delivered.is_set() and not task.done():
                # The answer is there, and is not lost: only what the cell does after it is.
                self.calls.cut_short = True
                with contextlib.suppress(asyncio.CancelledError):
                    return await self._ended(task)
            task.cancel()
            # Its own failure while it ends must not hide that the run was cancelled.
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            delivered.cancel()

    async def _ended(self, task: asyncio.Task[CellResult]) -> CellResult:
        """The result; what still runs is interrupted first. A cancellation leaves the task as it is."""
        if not task.done():
            await self.kernel.interrupt()
            await asyncio.wait({task})
        return task.result()

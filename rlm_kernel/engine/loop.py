"""The algorithm: ask the root model, run its cells, give the output back, until the answer is delivered or a limit is reached.

The conversation is append-only, so that providers' prefix caches hit. Owned by one task; cancelling it is how a run is interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.prompts import Profile, system_prompt
from rlm_kernel.engine.protocols import (
    Answer,
    CellResult,
    ContextInfo,
    Kernel,
    Message,
    Models,
    Outcome,
    StopReason,
    Trace,
)
from rlm_kernel.engine.replies import ProseFinal, Reply, looks_at_input, parse_reply, unquote
from rlm_kernel.errors import BudgetExceeded, ModelError

LAST_ANSWER_SECONDS = 120.0
"""Time for the forced answer, and again for a cell that delivers it, when the run's own is up."""
_RunCell = Callable[[str, str], Coroutine[Any, Any, CellResult]]
_PATIENCE = 3
"""Replies in a row with nothing to run before the run is given up."""


class _Exhausted(Exception):
    """The run must end: one last answer is asked for."""

    def __init__(self, reason: StopReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass
class Loop:
    """One question, from its first message to its outcome. `output_chars` of each cell go back to the root model."""

    kernel: Kernel
    models: Models
    calls: HostCalls
    ledger: Ledger
    trace: Trace
    profile: Profile
    output_chars: int = 20_000
    _history: list[Message] = field(default_factory=list)
    _looked: bool = False
    _guarded: bool = False
    _idle: int = 0
    _last: bool = False
    _answer: Answer | None = None

    async def set_up(self, cell_id: str, code: str) -> CellResult:
        """Run a set-up cell (parameters, loading of the input). Its result is in the trace; the caller judges it."""
        return await self._cell(cell_id, code, 0, self.kernel.set_up)

    async def run(self, question: str, info: ContextInfo, *, from_files: bool) -> Outcome:
        """Answer a question. Raises ModelError when the root model gives no reply, KernelError when no kernel can be had."""
        self._open(question, info, from_files)
        try:
            while True:
                await self._turn()
                if self._answer is not None:
                    return Outcome(self._answer, "answered")
        except BudgetExceeded as limit:
            reason: StopReason = limit.limit  # type: ignore[assignment]
            return await self._last_answer(reason, limit.message)
        except _Exhausted as end:
            return await self._last_answer(end.reason, end.detail)

    def _open(self, question: str, info: ContextInfo, from_files: bool) -> None:
        self.output_chars = min(self.output_chars, self.profile.output_chars)
        self._looked = info.total_chars == 0
        system = system_prompt(self.profile, info, output_chars=self.output_chars, sub_window=self.models.window("sub"))
        first = say.question_message(question, info, from_files, self.profile.head_chars, say.progress_line(self.ledger, 1))
        self._history = [{"role": "system", "content": system}, *self.profile.examples, {"role": "user", "content": first}]

    async def _turn(self) -> None:
        """One reply and its cells. Sets the answer if one was delivered and stands."""
        self.ledger.reserve_turn()
        turn = self.ledger.totals().turns
        parsed = await self._ask(turn)
        results, not_run = await self._run_cells(turn, parsed.cells)
        remarks = await self._judge(turn, parsed, results)
        if self._answer is not None:
            return
        self._idle = 0 if results else self._idle + 1
        if self._idle >= _PATIENCE:
            raise _Exhausted("no_answer", f"The last {self._idle} replies had nothing to run.")
        for remark in remarks:
            self.trace.note(remark)
        progress = say.progress_line(self.ledger, turn + 1)
        self._say(say.output_message(results, not_run, self.output_chars, remarks, progress))

    async def _ask(self, turn: int) -> Reply:
        self.trace.turn_started(turn)
        async with self._deadline():
            reply = await self.models.complete(self._history, role="root")
        self.ledger.settle("root", reply)
        self._history.append({"role": "assistant", "content": reply.text})
        parsed = parse_reply(reply.text)
        self.trace.turn_replied(turn, reply, parsed.prose)
        return parsed

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        left = self.ledger.seconds_left()
        try:
            async with asyncio.timeout(left):
                yield
        except TimeoutError:
            raise BudgetExceeded(f"The limit of {self.ledger.limits.seconds:g} seconds is reached.", limit="seconds") from None

    def _say(self, text: str) -> None:
        self._history.append({"role": "user", "content": text})

    async def _run_cells(self, turn: int, cells: Sequence[str]) -> tuple[list[CellResult], int]:
        results: list[CellResult] = []
        for index, code in enumerate(cells):
            cell_id = f"turn-{turn:02d}-{chr(ord('a') + index) if index < 26 else index + 1}"
            result = await self._cell(cell_id, code, turn, self.kernel.run_cell)
            self._looked = self._looked or looks_at_input(code)
            results.append(result)
            if result.answer is not None or result.status != "ok":
                break
        return results, len(cells) - len(results)

    async def _cell(self, cell_id: str, code: str, turn: int, run: _RunCell) -> CellResult:
        self.trace.cell_started(cell_id, turn, code)
        self.calls.begin(cell_id)
        try:
            result = await self._within_time(run(cell_id, code))
        finally:
            calls, answer = self.calls.end()
        result = replace(result, calls=calls, answer=answer)
        self.trace.cell_finished(turn, result)
        return result

    async def _within_time(self, running: Coroutine[Any, Any, CellResult]) -> CellResult:
        """The cell's result; at the run's deadline the cell is interrupted first."""
        task = asyncio.create_task(running)
        try:
            await asyncio.wait({task}, timeout=LAST_ANSWER_SECONDS if self._last else self.ledger.seconds_left())
            if not task.done():
                await self.kernel.interrupt()
            return await task
        except asyncio.CancelledError:
            task.cancel()
            # Its own failure while it ends must not hide that the run was cancelled.
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _judge(self, turn: int, parsed: Reply, results: Sequence[CellResult]) -> list[str]:
        """Take the answer, if there is one and it stands; else what to remark."""
        failed = any(result.status != "ok" for result in results)
        answer = results[-1].answer if results else None
        remarks: list[str] = []
        if answer is None and parsed.final is not None and not failed:
            if results and parsed.final.kind == "FINAL":
                remarks.append(say.BESIDE_CODE)
            else:
                answer = await self._prose_answer(turn, parsed.final, remarks)
        if answer is None and not results and not remarks:
            remarks.append(say.NO_CODE)
        if answer is not None and not self._looked and not self._guarded:
            self._guarded = True
            remarks.append(say.NOT_LOOKED)
        else:
            self._answer = answer
        return remarks

    async def _prose_answer(self, turn: int, final: ProseFinal, remarks: list[str]) -> Answer | None:
        """The answer of FINAL or FINAL_VAR outside code. A name is tried as a variable of the kernel."""
        name = unquote(final.text).strip()
        if final.kind == "FINAL_VAR" or final.text.isidentifier():
            cell_id = f"turn-{turn:02d}-final"
            code = f"FINAL_VAR({name!r})"
            result = await self._cell(cell_id, code, turn, self.kernel.run_cell)
            if result.answer is not None:
                return result.answer
            if final.kind == "FINAL_VAR":
                remarks.append(say.truncate(say.output_text(result.outputs), self.output_chars))
                return None
        return Answer(name) if name else None

    async def _last_answer(self, reason: StopReason, detail: str) -> Outcome:
        """Ask once more, for an answer from what was seen. It is marked as forced."""
        self._last = True
        self.trace.note(detail)
        self._say(say.forced_message(detail))
        turn = self.ledger.totals().turns + 1
        self.trace.turn_started(turn)
        try:
            async with asyncio.timeout(LAST_ANSWER_SECONDS):
                reply = await self.models.complete(self._history, role="root")
        except (ModelError, TimeoutError) as error:
            return Outcome(None, reason, detail=f"{detail} The last answer did not come: {str(error) or 'time-out'}")
        self.ledger.settle("root", reply)
        parsed = parse_reply(reply.text)
        self.trace.turn_replied(turn, reply, parsed.prose)
        answer: Answer | None = None
        if parsed.final is not None:
            answer = await self._prose_answer(turn, parsed.final, [])
        elif parsed.cells and "FINAL" in parsed.cells[-1]:
            # Told not to, models still answer in code. What that code spends stays within the ledger's limits.
            results, _ = await self._run_cells(turn, parsed.cells[-1:])
            answer = results[0].answer
        elif parsed.prose:
            answer = Answer(parsed.prose)
        return Outcome(answer, reason, forced=answer is not None, detail=detail)

"""What host calls do: sub-model calls, files, the answer, the budget. Every one is recorded for the trace."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rlm_kernel.engine import kernel_says
from rlm_kernel.engine.events import CallFinished, CallRetried, CallsPlanned, CallStarted, Listener, Noted
from rlm_kernel.engine.evidence import Check, final_body, none_taken
from rlm_kernel.engine.kept import Kept
from rlm_kernel.engine.kernel_says import Batch, Query
from rlm_kernel.engine.protocols import (
    CANCELLED,
    Answer,
    CallKind,
    CallRecord,
    HostCall,
    HostCallHandler,
    Locate,
    Partial,
    Recording,
    ReplyText,
    Tools,
)
from rlm_kernel.engine.records import Keep, Kind, Records, at_once, no_wait
from rlm_kernel.engine.subcalls import SubCalls, Work, tokens
from rlm_kernel.engine.toolcalls import ToolCalls
from rlm_kernel.engine.toolcalls import digest as digest
from rlm_kernel.errors import ModelError, RecordedFailure, RLMError, SetupError, TraceNotWritten

PREVIEW = 200
"""Characters of a prompt that the trace shows; its digest stands for the whole."""
MAX_FREE = 10_000
"""Records kept of one cell's calls that the ledger does not bound: a loop must not fill memory and disk."""


class HostCalls:
    """Does the host calls of one run.

    The broker calls `handlers`; each cell is bracketed with `begin` and `end`.

    With a `recording`, a call that it knows is answered from there: nothing is sent and nothing counted. So
    is one whose answer was `kept` of an earlier cell. What neither knows is asked of the models, and without
    models refused with NoRecord.
    """

    def __init__(
        self,
        sub_calls: SubCalls,
        tell: Listener,
        locate: Locate,
        *,
        recording: Recording | None = None,
        history: Callable[[str], Any] | None = None,
        keep: Keep | None = None,
        kept: Kept | None = None,
        check: Check | None = None,
        tools: Tools | None = None,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`sub_calls` makes those that cost something.

        `locate` finds a host path for the kernel. `history` gives the conversation in
        full as a cell sees it, by its id, as JSON data, the same each time; it may block. `keep`: how much is
        recorded. `kept`: of cells of the session before this run; by default none. `check` reads the passages
        of evidence where they are said to stand; it may block, and raises RLMError. By default none is taken.
        `tools`: what code may call, by default nothing. `room` returns when one more prompt can be kept.
        """
        self._sub_calls = sub_calls
        self.ledger = sub_calls.ledger
        self._tell = tell
        self._locate = locate
        self._recording = recording
        self._history = history
        self._check = check or none_taken
        self._room = room or no_wait
        self._tools = ToolCalls(tools, sub_calls.ledger, recording, tell, self._record)
        self._cell: str | None = None
        self._records = Records(keep or Keep(), MAX_FREE)
        self._kept = Kept() if kept is None else kept
        self._full: set[Kind] = set()
        self._cost: float | None = None
        """About what the calls that the cell has planned cost."""
        self._talk: Any = None
        self._answer: Answer | None = None
        self.delivered = asyncio.Event()
        """The cell in progress has delivered an answer."""
        self.cut_short = False
        """The run was cancelled when the cell had delivered: see `check_cut_short`."""
        self.unrecorded = 0
        """Calls of the cell in progress (or the last) that the recording did not know."""
        self.partial: Partial | None = None
        """Of the batch that was cut off in the cell in progress (or the last)."""
        self.broken: SetupError | TraceNotWritten | None = None
        """What the machine lacks all of a sudden, an engine or room on the disk for a child RLM: the run is
        to end as soon as the cell has.
        """

    def handlers(self) -> dict[str, HostCallHandler]:
        """One for each kind of host call."""
        return {
            "llm_query": self._llm_query,
            "rlm_query": self._rlm_query,
            "file": self._file,
            "final": self._final,
            "budget": self._budget,
            "history": self._conversation,
            "received": self._received,
            "order": self._order,
            "planned": self._planned,
            "cut_off": self._cut_off,
            "tool": self._tool,
        }

    def begin(self, cell_id: str) -> None:
        self._cell, self._talk, self._answer, self.unrecorded = cell_id, None, None, 0
        self._records.begin()
        self._cost = None
        self.ledger.approval.planned_no_more(self)
        if not self.ledger.is_child:
            self.ledger.approval.begin()
        self.cut_short, self.partial = False, None
        self.delivered.clear()

    def end(self) -> tuple[tuple[CallRecord, ...], Answer | None]:
        """The cell's calls, in the order in which its code had their answers, and the answer that it
        delivered last.
        """
        self._cell = None
        self.ledger.approval.planned_no_more(self)
        return tuple(self._records.kept), self._answer

    @property
    def left_out(self) -> int:
        """Calls of the cell in progress (or the last) that are not recorded, because they were too many."""
        return self._records.left_out

    def keep_answers(self) -> None:
        """The last cell was cut off: later cells have the answers of its calls again."""
        self._kept.add(self._records.kept)

    def check_cut_short(self) -> None:
        """Raise CancelledError if the run was cancelled when the cell had delivered: its answer did not
        stand.
        """
        if self.cut_short:
            raise asyncio.CancelledError

    async def _llm_query(self, call: HostCall) -> Any:
        query = Query.of(call.body)
        # To hash pictures takes a moment.
        identity = await asyncio.to_thread(query.identity) if query.images else query.identity()
        return await self._asked(
            call, "llm_query", query, identity, lambda work: self._sub_calls.complete(query, work)
        )

    async def _rlm_query(self, call: HostCall) -> Any:
        query = Query.of(call.body, "question")
        handed = await self._sub_calls.take(call.body.get("context"))
        identity = query.identity() | {"context": handed.digest}
        return await self._asked(
            call, "rlm_query", query, identity, lambda work: self._sub_calls.child(query, handed, call, work)
        )

    async def _asked(
        self,
        call: HostCall,
        kind: CallKind,
        query: Query,
        identity: Mapping[str, Any],
        do: Callable[[Work], Awaitable[CallRecord]],
    ) -> Any:
        """Answer as the recording has it, else `do` it, and record it."""
        prompt_digest = digest(kind, identity)
        await self._room()
        self._tell(CallStarted(call.cell, call.id, kind, query.prompt, query.schema, prompt_digest))
        barred = not self.ledger.approval.take(self)
        if self._recording is not None:
            past = await self._recording.find(call, prompt_digest)
            if past is not None:
                if past.again:
                    self._kept.take(prompt_digest)
                return self._again(call, past)
        if (answer := self._kept_for(call, kind, query, prompt_digest)) is not None:
            return self._again(call, answer.again_at(call))
        self.unrecorded += self._recording is not None
        preview, clock = query.prompt[:PREVIEW], time.monotonic()
        record = CallRecord(
            call.id,
            kind,
            prompt_digest,
            preview,
            datetime.now(UTC),
            0.0,
            occurrence=call.occurrence,
            images=query.notes(),
        )
        work = Work(
            record, lambda retry: self._tell(CallRetried(call.cell, call.id, retry)), call.pause_timer
        )
        done: CallRecord | None = None
        failure: RLMError | None = None
        try:
            cost = await self._allowed(call, kind, query, barred=barred)
            clock = time.monotonic()  # what the user took to think is none of the call's
            with self.ledger.approval.sent(cost):
                done = await self._within(query.timeout, do(work))
            return _handed(kind, done.answer, cut=done.cut)
        except (SetupError, TraceNotWritten) as error:
            self.broken = error  # recorded as a call that was cut off: it is made when the run is taken up
            raise
        except RLMError as error:
            failure = error
            raise
        finally:
            error_text, error_type = (str(failure), failure.in_cell) if failure else (CANCELLED, None)
            found = done or replace(work.spent(failure), error=error_text, error_type=error_type)
            model = found.model or (self._sub_calls.name(query.model) or "")[:PREVIEW] or None
            found = replace(found, model=model, seconds=time.monotonic() - clock)
            self._record(call.cell, found, work.sent)

    async def _allowed(self, call: HostCall, kind: CallKind, query: Query, *, barred: bool) -> float | None:
        """About what the call costs, once the user allows that, should they have to be asked.

        Raises BudgetExceeded if they do not. `barred`: they did not allow the batch that it is one of.
        """
        if barred:
            raise self.ledger.approval.refusal
        model, cost = self._sub_calls.expected(kind, query.model, 1, tokens([query.as_message()]))
        await self.ledger.approval.check(self, model, cost, call.pause_timer)
        return cost if kind == "llm_query" else None  # what a child RLM calls counts by itself

    async def _within(self, seconds: float | None, doing: Awaitable[CallRecord]) -> CallRecord:
        """Raises ModelError when the time that code gave its call is up; while the user is asked, it stands
        still.
        """
        if seconds is None:
            return await doing
        try:
            async with self.ledger.approval.asking.timeout(seconds) as limit:
                return await doing
        except TimeoutError:
            if not limit.expired():
                raise
            raise ModelError(
                f"There was no answer within the call's own time-out of {round(seconds, 1):g} s.",
                fault="own_timeout",
                model="",
            ) from None

    def _kept_for(self, call: HostCall, kind: CallKind, query: Query, digest: str) -> CallRecord | None:
        """The kept answer to a call of this cell."""
        if call.cell != self._cell or digest not in self._kept:
            return None
        found = self._kept.take(digest, self._sub_calls.name(query.model) if kind == "llm_query" else None)
        return None if query.anew else found

    def _again(self, call: HostCall, past: CallRecord) -> Any:
        """Answer as the recording has it, and record it as it was."""
        self._record(call.cell, past)
        if past.error is not None:
            raise RecordedFailure(past.error, past.error_type or "LLMError")
        return _handed(past.kind, past.answer, cut=past.cut)

    async def _file(self, call: HostCall) -> Any:
        path = kernel_says.path(call.body)
        past = await self._recording.find(call, digest("file", {"path": path})) if self._recording else None
        if past is not None and past.error is not None:
            return self._again(call, past)
        try:
            found = dict(await self._locate(path, self.ledger.approval.asking.beside(call.pause_timer)))
        except RLMError as error:
            self._simple(call, "file", {"path": path}, failure=error)
            raise
        self._simple(call, "file", {"path": path}, answer=found)
        return found

    async def _final(self, call: HostCall) -> Any:
        answer = kernel_says.answer(call.body)
        said = final_body(len(answer.text), answer.evidence)
        if answer.evidence:
            checked = await asyncio.to_thread(self._check, answer.evidence)
            answer = replace(answer, evidence=tuple(checked))
        if call.cell == self._cell:
            self._answer = answer
            self.delivered.set()
            # The answer itself is in the trace's closing cell; here its digest is enough.
            self._simple(call, "final", said, answer=len(answer.text))
        return None

    async def _tool(self, call: HostCall) -> Any:
        return await self._tools.call(call, self.ledger.approval.asking.beside(call.pause_timer))

    async def _received(self, call: HostCall) -> Any:
        if self._recording is not None:
            self._recording.received(call.cell, kernel_says.received(call.body))

    async def _order(self, call: HostCall) -> Any:
        """Put the records into the order in which code in the kernel had the answers: it can be another than
        that in which we gave them.
        """
        if call.cell == self._cell:
            place = {name: number for number, name in enumerate(kernel_says.order(call.body))}
            # Others, such as those of forked processes, stay where they are.
            records = self._records.kept
            slots = [number for number, record in enumerate(records) if record.id in place]
            known = sorted((records[slot] for slot in slots), key=lambda record: place[record.id])
            for slot, record in zip(slots, known, strict=True):
                records[slot] = record

    async def _planned(self, call: HostCall) -> None:
        """Tell who watches how many calls the cell makes in all, by its own word, and about what they cost.

        It is recorded nowhere. It decides when the user is asked whether they want that, but for calls that
        are recorded.
        """
        calls, batches = kernel_says.planned(call.body), kernel_says.batches(call.body)
        if call.cell != self._cell or calls is None:
            return
        if not batches:
            self.ledger.approval.planned_no_more(self)
        elif self._recording is None or not self._recording.has(call.cell):
            for batch in batches:
                self._plan(batch)
        self._tell(CallsPlanned(call.cell, calls, self._cost, self.ledger.cost_limit))

    def _plan(self, batch: Batch) -> None:
        model, cost = self._sub_calls.expected(batch.kind, batch.model, batch.calls, batch.tokens)
        if cost is not None:
            self._cost = (self._cost or 0.0) + cost
        self.ledger.approval.plan(self, model, batch.calls, cost or 0.0)

    async def _cut_off(self, call: HostCall) -> None:
        """A batch was cut off, by the word of code: the root model is told, and the answers of the cell are
        kept, also if it comes to its end.
        """
        if call.cell == self._cell:
            self.partial = kernel_says.partial(call.body)

    async def _budget(self, call: HostCall) -> Any:
        past = await self._recording.find(call, digest("budget", {})) if self._recording else None
        if past is not None:
            return self._again(call, past)
        left = self.ledger.left()
        self._simple(call, "budget", {}, answer=left)
        return left

    async def _conversation(self, call: HostCall) -> Any:
        """The conversation.

        It is not recorded but for its digest: it stands in the trace, from which a replay makes it anew.
        """
        past = await self._recording.find(call, digest("history", {})) if self._recording else None
        if past is not None and not isinstance(past.answer, dict):  # an older trace has it whole
            return self._again(call, past)
        if self._talk is None:
            talk = await asyncio.to_thread(self._history, call.cell) if self._history else []
            told = json.dumps(talk, sort_keys=True).encode()
            self._talk = talk, {"sha256": hashlib.sha256(told).hexdigest(), "bytes": len(told)}
        talk, about = self._talk
        if past is not None:
            self._record(call.cell, past)
        else:
            self._simple(call, "history", {}, answer=about)
        return talk

    def _simple(
        self,
        call: HostCall,
        kind: CallKind,
        body: Mapping[str, Any],
        *,
        answer: Any = None,
        failure: RLMError | None = None,
    ) -> None:
        """Record a call that takes no time."""
        self._record(
            call.cell, at_once(call, kind, digest(kind, body), json.dumps(body)[:PREVIEW], answer, failure)
        )

    def _record(self, cell: str, record: CallRecord, sent: str = "") -> None:
        if cell != self._cell:
            return
        if (kept := self._records.take(record)) is not None:
            self._tell(CallFinished(cell, kept, sent))
        elif (full := self._records.full) is not None and full not in self._full:
            self._full.add(full)
            self._tell(Noted(self._records.keep.words(full)))


def _handed(kind: CallKind, answer: Any, *, cut: bool) -> Any:
    """An answer as code in the kernel gets it: with a model's reply, whether that is whole."""
    told = isinstance(answer, str) and (kind == "llm_query" or cut)
    return ReplyText.of(answer, cut=cut) if told else answer

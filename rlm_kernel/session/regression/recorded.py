"""A recorded run as the models of a new one: requests that are the same are answered from its trace, the
others go to a model, or to none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.events import CellFinished, Event
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import (
    MODEL_CALLS,
    UNWATCHED,
    CallRecord,
    Card,
    Completion,
    HostCall,
    Message,
    Models,
    Role,
    Shares,
    Totals,
    Watch,
)
from rlm_kernel.engine.toolcalls import preview
from rlm_kernel.errors import NoRecord
from rlm_kernel.session.replaying import differing
from rlm_kernel.trace.calls import spent_on
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.prompts import PromptFile
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.schema import CallMeta, usage_of

_PROGRESS = re.compile(r"^(?:Turn \d+ of \d+\.(?: Left: .*)?|No turn is left\.)$", re.MULTILINE)
"""The line at the end of each message that tells what is left: of money and time, other amounts each time."""
_DIFF_LINES = 8
_CHARS = 80
OTHER_ROOT = "the root model is different"
HOW_TO_ASK = "To ask a model: rlm test --live, or name a model with --model"
HOW_TO_CALL = "To call the tools: rlm test --tools FILE.py, or --mcp FILE"


class Course:
    """How far a run is still the recorded one.

    `parted`: the first thing that was not as recorded, "" as long as there is none. `trouble`: why the run
    cannot go on: there is nobody who could be asked. `reused`: what the recorded replies that were used again
    had cost. `remarks`: what else is to be said.
    """

    def __init__(self, *, live: bool, others: frozenset[str] = frozenset(), worded: bool = False) -> None:
        """`live`: what has no record is asked of models. `others`: the roles whose models are others than
        then. `worded`: the prompt is another one than then.
        """
        self.live = live
        self.others = others
        self.worded = worded
        self.parted = ""
        self.trouble = ""
        self.reused = Totals()
        self.remarks: dict[str, None] = {}

    def part(self, why: str) -> None:
        """Something is not as recorded; without models that is the end, which is raised as NoRecord."""
        self.parted = self.parted or why
        if not self.live:
            self.end(why, HOW_TO_ASK)

    def end(self, why: str, hint: str) -> NoReturn:
        """The run cannot go on, whatever code makes of that. Raises NoRecord."""
        self.parted = self.parted or why
        self.trouble = self.trouble or why
        raise NoRecord(f"{why}.", hint=hint)


class RecordedCalls:
    """Implements `engine.protocols.Recording`: the recorded answers that still hold. They count as they
    counted then.
    """

    def __init__(
        self, recording: TraceRecording, course: Course, ledger: Ledger, tools: Collection[str] = ()
    ) -> None:
        """`tools`: the names of those that are called for real."""
        self._recording = recording
        self._course = course
        self._ledger = ledger
        self._tools = tools

    def has(self, cell: str) -> bool:
        return not self._course.parted and self._recording.has(cell)

    def received(self, cell: str, call_id: str) -> None:
        self._recording.received(cell, call_id)

    async def find(self, call: HostCall, digest: str) -> CallRecord | None:
        found = await self._recording.find(call, digest)
        if _tool_of(call) in self._tools or (found is not None and self._is_other(found)):
            return None
        if found is None:
            self._miss(call)
            return None
        if found.kind == "tool":
            self._ledger.count_tool_call()
        if found.kind in MODEL_CALLS and not found.again:
            if found.calls:
                self._ledger.check(calls=True)
            used = spent_on([CallMeta.of(found)])
            self._ledger.add(used)
            self._course.reused += used
        return found

    def _miss(self, call: HostCall) -> None:
        """A call has no record. Raises NoRecord where nobody can be asked for its answer."""
        who = f"{call.cell[:64]} makes a call that has no record"
        prompt = call.body.get("prompt", call.body.get("question"))
        if isinstance(prompt, str) and not self._course.live:
            self._course.part(f"{who}: {_start(prompt)!r}")
        elif name := _tool_of(call):
            given = call.body.get("arguments")
            self._course.end(
                f"{who}: {preview(name, given) if isinstance(given, dict) else name}", HOW_TO_CALL
            )

    def _is_other(self, found: CallRecord) -> bool:
        """Whether the answer would be another one now; failures of models are not the question's."""
        course = self._course
        if found.kind == "tool":
            return False
        if found.kind not in MODEL_CALLS:
            return bool(course.parted)
        child = found.kind == "rlm_query"
        return found.role in course.others or (child and course.worded) or (course.live and bool(found.error))


def _tool_of(call: HostCall) -> str:
    """The name of the tool that is called; "" where it is another kind of call."""
    name = call.body.get("name") if "arguments" in call.body else None
    return name[:_CHARS] if isinstance(name, str) else ""


def _start(text: str) -> str:
    return " ".join(text[: 4 * _CHARS].split())[:_CHARS]


class RecordedRoot:
    """The root model as it was recorded, as long as it is asked what it was asked then. Implements
    `engine.protocols.Models`; a listener hears from it what the cells gave.

    A request is the same if all cells before it gave what they gave then, but for what must differ, and if
    rlm's own words are the same. Without models the recorded replies are used also where rlm's words are
    others, which becomes a remark.
    """

    def __init__(self, trace: TraceFile, models: Models, prompts: PromptFile, course: Course) -> None:
        """`models`: those who are asked otherwise."""
        self._trace = trace
        self._models = models
        self._prompts = prompts
        self._course = course
        self._code = {cell.id: cell for cell in trace.code_cells}
        self._script: Sequence[TraceCell] = ()
        self._at = 0
        self._ran: set[str] = set()
        self._other = ""
        self._told = False
        self._began = datetime.now(UTC)

    def name(self, role: Role) -> str:
        return self._models.name(role)

    def card(self, which: str) -> Card:
        return self._models.card(which)

    @property
    def others(self) -> Sequence[Card]:
        return self._models.others

    async def aclose(self) -> None:
        """What has the models closes them."""

    def begin(self, replies: Sequence[TraceCell]) -> None:
        """A question begins, which had these replies and summaries."""
        self._script, self._at = replies, 0

    def hear(self, event: Event) -> None:
        """Compare what a cell gave with what it gave then."""
        if not isinstance(event, CellFinished):
            return
        result = event.result
        self._ran.add(result.cell_id)
        if self._other:
            return
        recorded = self._code.get(result.cell_id)
        if recorded is None:
            self._other = f"{result.cell_id} ran, but did not run in the recording"
        elif what := differing(recorded, result):
            self._other = f"{result.cell_id} gave something else than in the recording: {_first(what)}"

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """The recorded reply to the same request, else that of the model. Raises NoRecord, ModelError."""
        if self._course.trouble and self._course.live:
            raise NoRecord(f"{self._course.trouble}.", hint=HOW_TO_CALL)
        if role == "root" and not self._course.parted:
            entry = self._script[self._at] if self._at < len(self._script) else None
            if "root" in self._course.others:
                self._course.part(OTHER_ROOT)
            elif why := self._why_other(entry, messages):
                where = f"turn {entry.turn}" if entry else "after the last turn"
                self._course.part(f"{where}: the request differs from the recorded one: {why}")
            else:
                assert entry is not None
                assert entry.meta is not None
                self._at += 1
                watch.sent()
                return self._reply(entry)
        return await self._models.complete(messages, role=role, model=model, schema=schema, watch=watch)

    def _why_other(self, entry: TraceCell | None, messages: Sequence[Message]) -> str:
        """Why the request is not the recorded one; "" if it is."""
        course, wanted = self._course, "memory" if _asks_summary(messages) else "model"
        if course.trouble:
            return course.trouble
        if self._other:
            return self._other
        if entry is None:
            return "the run asks for one more reply than was recorded"
        if entry.kind != wanted:
            return (
                f"a {'summary' if wanted == 'memory' else 'reply'} is asked for, which was not asked for in "
                "the recording"
            )
        missing = [
            cell.id for cell in self._code.values() if 0 < cell.turn < entry.turn and self._is_missing(cell)
        ]
        if missing:
            return f"{missing[0]} did not run, but ran in the recording"
        words = self._other_words(entry, messages)
        if words and course.live:
            return words
        if words and not self._told:
            self._told = True  # what is in one message is in all that come after it
            course.remarks[f"turn {entry.turn}: rlm's own words differ: {words}"] = None
        return ""

    def _is_missing(self, cell: TraceCell) -> bool:
        return cell.kind == "code" and cell.id not in self._ran

    def _other_words(self, entry: TraceCell, messages: Sequence[Message]) -> str:
        """What of the messages differs that no cell gave; "" for nothing."""
        course = self._course
        if course.worded and not course.live:
            return ""  # that is told once
        assert entry.meta is not None
        recorded = (
            self._prompts.messages_of_turn(entry.turn)
            if entry.kind == "model"
            else self._prompts.messages_of_memory(entry.meta.text or "")
        )
        if recorded is None:
            return "the recording does not have the whole request" if course.live else ""
        system = 0 if course.live else 1  # what a model's card says stands there, and may be better known now
        if len(recorded) != len(messages):
            return f"{len(messages)} messages, then it was {len(recorded)}"
        for one, other in list(zip(recorded, messages, strict=True))[system:]:
            if one["role"] != other["role"]:
                return f"a message of {other['role']} in place of one of {one['role']}"
            if what := self._differs(one["content"], other["content"]):
                return what
        return ""

    def _differs(self, recorded: str, now: str) -> str:
        if recorded == now:
            return ""
        meta = self._trace.meta
        seconds = meta.totals.seconds if meta.totals else 0.0
        sides = [
            Ran([{"output_type": "stream", "name": "stdout", "text": _PROGRESS.sub("", text)}], began, lasted)
            for text, began, lasted in (
                (recorded, meta.created, seconds),
                (now, self._began, (datetime.now(UTC) - self._began).total_seconds()),
            )
        ]
        what = compare(*sides)
        return _first(what) if what else ""

    def _reply(self, cell: TraceCell) -> Completion:
        meta = cell.meta
        assert meta is not None
        notes = {
            note.meta.text
            for note in self._trace.cells
            if note.kind == "note" and note.meta and note.turn == cell.turn
        }
        ended = "length" if say.CUT_OFF in notes else "stopped" if say.LOOPED in notes else "stop"
        used, cost = usage_of(meta), meta.cost
        self._course.reused += Totals(
            root_usage=used,
            known_cost=cost or 0.0,
            unpriced=int(cost is None),
            models=Shares.one("root", calls=1, usage=used, known_cost=cost or 0.0),
        )
        text = (meta.reply if cell.kind == "model" else meta.text) or ""
        return Completion(
            text,
            meta.model or self._models.name("root"),
            used,
            cost,
            finish_reason=ended,
            thoughts=meta.thoughts,
            thinking=meta.thinking,
        )


def _asks_summary(messages: Sequence[Message]) -> bool:
    return bool(messages[-1]["content"].endswith(say.SUM_UP))


def _first(what: str) -> str:
    """The first lines that differ, in one."""
    lines = [line for line in what.splitlines() if not line.startswith(("---", "+++", "@@"))]
    changed = [line for line in lines if line.startswith(("-", "+"))] or lines
    return " ".join(" ".join(changed[:_DIFF_LINES]).split())[:300]

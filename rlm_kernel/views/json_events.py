"""What happens in a run as lines of JSON, for other programs. `event_lines` has the kinds of lines.

`python -m rlm_kernel.views.json_events` prints the JSON schema of a line.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

from rlm_kernel._version import __version__
from rlm_kernel.engine import events
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import MODEL_CALLS, Answer, Outcome, Totals
from rlm_kernel.secrets import redact, redact_cut
from rlm_kernel.views import event_lines as lines
from rlm_kernel.views.event_lines import Line
from rlm_kernel.views.event_parts import MAX_TEXT, Passage, Tokens, Used

OUTPUT_SECONDS = 0.2
"""Between two lines of one cell's output at least."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_PATH = 64

Put = Callable[[str, bool], None]
"""Takes a line, with its end; whether it may be left out where nobody reads fast enough."""


@dataclass
class _Shown:
    """How much of a running cell's output was told, and when."""

    outputs: int = 0
    last: int = 0
    at: float = -math.inf


class JsonEvents:
    """A listener (`engine.events`) that writes a line for each event.

    Lines are ASCII and one JSON object each, whatever the texts in them are; they have no secrets. `put`
    takes them. They come on the run's event loop, so it must not block.
    """

    def __init__(
        self,
        put: Put,
        *,
        secrets: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.secrets = list(secrets)
        """What is replaced wherever it turns up; more may be added."""
        self._put = put
        self._clock = clock
        self._now = now
        self._began = clock()
        self._shown: dict[tuple[tuple[int, ...], str], _Shown] = {}
        self._outcome: Outcome | None = None
        self._used = Totals()

    def __call__(self, event: events.Event) -> None:
        path: tuple[int, ...] = ()
        while isinstance(event, events.ChildEvent):
            path, event = (*path, event.child), event.event
            if len(path) > _MAX_PATH:
                return
        head = _Head(self, path)
        match event:
            case events.CellOutput():
                self._output(head, event)
            case events.CellFinished(result=result):
                self._shown.pop((path, result.cell_id), None)
                self._write(_of_cell(head, event))
            case events.RunFinished(outcome, totals) if not path:
                self._outcome, self._used = outcome, self._used + totals
                self._write(_of_run(head, event))
            case _:
                self._write(_line(head, event), droppable=isinstance(event, events.TurnPiece))

    # What no event tells

    def begin(self, command: str) -> None:
        """The first line."""
        head = _Head(self)
        self._write(
            lines.Begin(**head.fields(), version=lines.VERSION, rlm_kernel=__version__, command=command)
        )

    def say(self, text: str) -> None:
        """Something for people."""
        head = _Head(self)
        if told := head.text("text", text.rstrip()):
            self._write(lines.Said(text=told, **head.fields()))

    def question(self, told: Mapping[str, Any]) -> None:
        """A question of a batch is done: the fields of `QuestionDone`."""
        head = _Head(self)
        texts = {
            name: head.text(name, told[name]) for name in ("id", "error", "node") if told[name] is not None
        }
        self._write(lines.QuestionDone(**{**told, **texts, **head.fields()}))

    def running(self, told: Mapping[str, Any]) -> None:
        """A question of a batch goes on: the fields of `QuestionRunning`."""
        head = _Head(self)
        texts = {name: head.text(name, told[name]) for name in ("id", "node")}
        self._write(lines.QuestionRunning(**{**told, **texts, **head.fields()}), droppable=True)

    def dropped(self, count: int) -> str:
        """The line that stands for so many that were left out; it is not put."""
        return self._encoded(lines.Dropped(**_Head(self).fields(), count=count))

    def end(
        self, exit_code: int, *, interrupted: bool = False, trace: str | None = None, error: str = ""
    ) -> str:
        """The last line; it is not put."""
        head, outcome = _Head(self), self._outcome
        answer = outcome.answer if outcome else None
        line = lines.End(
            status=_status(exit_code, outcome, interrupted=interrupted),
            exit_code=exit_code,
            answer=head.text("answer", answer.text) if answer else None,
            evidence=_passages(head, answer),
            stop_reason=outcome.stop_reason if outcome else None,
            detail=head.text("detail", outcome.detail if outcome else ""),
            used=Used.of(self._used),
            trace=head.text("trace", trace) if trace else None,
            error=head.text("error", error) if error else None,
            **head.fields(),
        )
        return self._encoded(line)

    def cleaned(self, text: str) -> str:
        """A text, or its beginning, as it may stand in a line."""
        cut = (
            redact_cut(text[:MAX_TEXT], self.secrets) if len(text) > MAX_TEXT else redact(text, self.secrets)
        )
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", cut)

    def fields(self, path: tuple[int, ...], lengths: Mapping[str, int]) -> dict[str, Any]:
        """What every line has."""
        at = self._now().isoformat(timespec="milliseconds")
        seconds = round(self._clock() - self._began, 3)
        return {"at": at, "seconds": seconds, "path": path, "lengths": dict(lengths)}

    def _output(self, head: _Head, event: events.CellOutput) -> None:
        shown = self._shown.setdefault((head.path, event.cell_id), _Shown())
        now, count = self._clock(), len(event.outputs)
        if now - shown.at < OUTPUT_SECONDS or not count:
            return
        # Of a stream that grows, what is new is behind what was told.
        first = shown.outputs - 1
        known = len(_stream(event.outputs[first])) if 0 <= first < count else 0
        again = count < shown.outputs or known < shown.last
        first, behind = (0, 0) if again else (max(0, first), shown.last)
        new = [dict(output) for output in event.outputs[first:]]
        if behind and new:
            rest = _stream(new[0])[behind:]
            new[:1] = [{**new[0], "text": rest}] if rest else []
        shown.outputs, shown.last, shown.at = count, len(_stream(event.outputs[-1])), now
        if text := output_text(new):
            told = head.text("text", text)
            line = lines.CellOutput(cell=event.cell_id, text=told, again=again, **head.fields())
            self._write(line, droppable=True)

    def _write(self, line: Line, *, droppable: bool = False) -> None:
        self._put(self._encoded(line), droppable)

    @staticmethod
    def _encoded(line: Line) -> str:
        return json.dumps(vars(line), default=vars, ensure_ascii=True, allow_nan=False) + "\n"


class _Head:
    """What a line has beside its own fields: when, which RLM, and which of its texts were cut."""

    def __init__(self, lines: JsonEvents, path: tuple[int, ...] = ()) -> None:
        self._lines = lines
        self.path = path
        self._lengths: dict[str, int] = {}

    def text(self, name: str, text: str) -> str:
        """The text of the field of that name, cut to its bound. To be used before `fields`."""
        if len(text) > MAX_TEXT:
            self._lengths[name] = len(text)
        return self._lines.cleaned(text)

    def json(self, name: str, value: Any) -> str | None:
        """A value as text: a text itself, all else as JSON."""
        if value is None or isinstance(value, str):
            return value if value is None else self.text(name, value)
        try:
            return self.text(name, json.dumps(value, ensure_ascii=False))
        except (TypeError, ValueError, RecursionError):
            return self.text(name, "[not JSON]")

    def fields(self) -> dict[str, Any]:
        return self._lines.fields(self.path, self._lengths)


def _status(exit_code: int, outcome: Outcome | None, *, interrupted: bool) -> Any:
    if interrupted:
        return "interrupted"
    if outcome is None:
        return "failed" if exit_code else "done"
    if outcome.answer is not None:
        return "answered"
    return "failed" if outcome.stop_reason == "error" else "no_answer"


def _stream(output: Mapping[str, Any]) -> str:
    text = output.get("text")
    return text if isinstance(text, str) and output.get("output_type") == "stream" else ""


def _cost(cost: float | None) -> float | None:
    return cost if cost is not None and math.isfinite(cost) else None


def _line(head: _Head, event: events.Event) -> Line:
    match event:
        case events.RunOpened(question, _, before):
            told = head.text("question", question)
            return lines.Opened(question=told, before=Used.of(before), **head.fields())
        case events.TurnStarted() | events.TurnPiece() | events.TurnCutOff() | events.TurnReplied():
            return _of_turn(head, event)
        case events.CellStarted(cell, turn, code):
            return lines.CellStarted(cell=cell, turn=turn, code=head.text("code", code), **head.fields())
        case events.CellFinished() | events.UserCellFinished():
            return _of_cell(head, event)
        case events.CallStarted() | events.CallRetried() | events.CallsPlanned() | events.CallFinished():
            return _of_call(head, event)
        case events.Summarized(memory):
            text = head.text("text", memory.text)
            return lines.Summarized(
                text=text, tokens_before=memory.before, tokens_after=memory.after, **head.fields()
            )
        case events.Noted(text, to_model):
            return lines.Noted(text=head.text("text", text), to_model=to_model, **head.fields())
        case events.RunFinished():
            return _of_run(head, event)
        case events.CellOutput() | events.ChildEvent():
            raise TypeError("told elsewhere")
        case _:
            assert_never(event)


def _of_turn(
    head: _Head, event: events.TurnStarted | events.TurnPiece | events.TurnCutOff | events.TurnReplied
) -> Line:
    match event:
        case events.TurnStarted(turn):
            return lines.TurnStarted(turn=turn, **head.fields())
        case events.TurnPiece(turn, text, thought):
            return lines.TurnPiece(turn=turn, text=head.text("text", text), thought=thought, **head.fields())
        case events.TurnCutOff(turn, text, thoughts):
            told, thought_of = head.text("text", text), head.text("thoughts", thoughts)
            return lines.TurnCutOff(turn=turn, text=told, thoughts=thought_of, **head.fields())
        case events.TurnReplied(turn=turn, reply=reply, messages=messages):
            return lines.TurnReplied(
                turn=turn,
                text=head.text("text", reply.text),
                thoughts=head.text("thoughts", reply.thoughts),
                model=head.text("model", reply.model),
                tokens=Tokens.of(reply.usage),
                cost=_cost(reply.cost),
                reply_seconds=round(reply.seconds, 3),
                attempts=reply.attempts,
                finish_reason=head.json("finish_reason", reply.finish_reason),
                messages=len(messages),
                **head.fields(),
            )


def _of_cell(head: _Head, event: events.CellFinished | events.UserCellFinished) -> Line:
    result = event.result
    output = head.text("output", output_text(result.outputs))
    if isinstance(event, events.UserCellFinished):
        return lines.UserCellFinished(
            cell=head.text("cell", result.cell_id),
            code=head.text("code", result.code),
            status=result.status,
            output=output,
            cell_seconds=round(result.seconds, 3),
            **head.fields(),
        )
    return lines.CellFinished(
        cell=result.cell_id,
        turn=event.turn,
        status=result.status,
        output=output,
        cell_seconds=round(result.seconds, 3),
        calls=sum(call.kind in MODEL_CALLS for call in result.calls),
        answered=result.answer is not None,
        **head.fields(),
    )


def _of_call(
    head: _Head, event: events.CallStarted | events.CallRetried | events.CallsPlanned | events.CallFinished
) -> Line:
    match event:
        case events.CallStarted(cell, call_id, kind, prompt, schema, digest):
            return lines.CallStarted(
                cell=cell,
                call=head.text("call", call_id),
                kind=kind,
                prompt=head.text("prompt", prompt),
                schema=head.json("schema", schema),
                digest=digest,
                **head.fields(),
            )
        case events.CallRetried(cell, call_id, retry):
            return lines.CallRetried(
                cell=cell,
                call=head.text("call", call_id),
                reason=head.text("reason", retry.reason),
                attempt=retry.attempt,
                attempts=retry.attempts,
                wait_seconds=round(retry.seconds, 3),
                **head.fields(),
            )
        case events.CallsPlanned(cell, calls, cost):
            return lines.CallsPlanned(cell=cell, calls=calls, cost=_cost(cost), **head.fields())
        case events.CallFinished(cell, call):
            return lines.CallFinished(
                cell=cell,
                call=head.text("call", call.id),
                kind=call.kind,
                digest=call.prompt_digest,
                preview=head.text("preview", call.preview),
                model=head.json("model", call.model),
                answer=head.json("answer", call.answer) if call.error is None else None,
                error=head.json("error", call.error),
                error_type=call.error_type,
                tokens=Tokens.of(call.usage),
                cost=_cost(call.cost),
                call_seconds=round(call.seconds, 3),
                attempts=call.attempts,
                stored=call.stored,
                again=call.again,
                truncated=call.cut,
                trace=head.text("trace", call.trace),
                **head.fields(),
            )


def _passages(head: _Head, answer: Answer | None) -> list[Passage]:
    return [
        Passage(**asdict(one) | {name: head.text(name, getattr(one, name)) for name in ("path", "quote")})
        for one in (answer.evidence if answer else ())
    ]


def _of_run(head: _Head, event: events.RunFinished) -> Line:
    outcome = event.outcome
    return lines.RunFinished(
        answer=head.text("answer", outcome.answer.text) if outcome.answer else None,
        evidence=_passages(head, outcome.answer),
        stop_reason=outcome.stop_reason,
        forced=outcome.forced,
        detail=head.text("detail", outcome.detail),
        used=Used.of(event.totals),
        **head.fields(),
    )


if __name__ == "__main__":
    print(lines.json_schema(), end="")

"""A run as OpenTelemetry spans, named by the semantic conventions for generative AI (`CONVENTIONS`).

The run is `invoke_agent`, a reply of the root model and a sub-call are `chat`, a cell is `execute_tool`, and
so is a tool's call below it; a child RLM is an `invoke_agent` below the cell that asked it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlm_kernel._version import __version__
from rlm_kernel.engine import events
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import MODEL_CALLS, CallRecord, CellResult, Message, Outcome, Totals, Usage
from rlm_kernel.secrets import redact

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

CONVENTIONS = "1.41.0"
"""Version of the semantic conventions whose names these are."""
SCHEMA = f"https://opentelemetry.io/schemas/{CONVENTIONS}"
AGENT, TOOL = "rlm", "python"
MAX_TEXT = 4_000
"""Characters of a prompt or an answer, where these are captured."""
MAX_OPEN = 100_000
"""Calls under way that are followed."""
_MAX_PATH = 64
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""The conventions' names of providers, by those before a model's name where they differ."""
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
Now = Callable[[], int]
"""Nanoseconds since 1970."""


@dataclass
class _Run:
    """What is open of one RLM's run. Times in nanoseconds."""

    span: Span
    began: int
    turn: int | None = None
    """Since when the root model is asked."""
    cell: Span | None = None
    calls: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Since when each call of the cell is made, and its prompt where that is captured."""


class Spans:
    """A listener (`engine.events`) that makes spans.

    It raises nothing: what fails in it ends the spans, and not the run. `capture`: prompts, code, outputs and
    answers, too, at most MAX_TEXT characters of each; otherwise no text of a run is in a span.
    """

    def __init__(
        self,
        tracer: Tracer,
        *,
        parent: Context | None = None,
        capture: bool = False,
        secrets: Sequence[str] = (),
        now: Now = time.time_ns,
    ) -> None:
        self._tracer = tracer
        self._parent = parent
        self._capture = capture
        self._secrets = tuple(secrets)
        self._now = now
        self._runs: dict[tuple[int, ...], _Run] = {}
        self._broken = False

    def __call__(self, event: events.Event) -> None:
        if self._broken:
            return
        path: tuple[int, ...] = ()
        while isinstance(event, events.ChildEvent) and len(path) < _MAX_PATH:
            path, event = (*path, event.child), event.event
        try:
            self._hear(path, event)
        except Exception:
            self._broken = True

    def _hear(self, path: tuple[int, ...], event: events.Event) -> None:
        if isinstance(event, events.RunOpened):
            self._open(path, event.question)
        run = self._runs.get(path)
        if run is None:
            return
        match event:
            case events.TurnStarted():
                run.turn = self._now()
            case events.TurnReplied():
                self._turn(run, event)
            case events.TurnCutOff():
                self._no_reply(run, "cancelled")
            case events.CellStarted(cell_id, turn, code):
                about = {"rlm.turn": turn, **self._text("gen_ai.tool.call.arguments", code)}
                run.cell = self._start(f"execute_tool {TOOL}", run.span, _tool(cell_id) | about)
            case events.CellFinished(result=result):
                self._cell_ends(run, result)
            case events.UserCellFinished(result):
                began = int(result.started.timestamp() * 1e9)
                about = {"rlm.user": True, **self._text("gen_ai.tool.call.arguments", result.code)}
                span = self._start(f"execute_tool {TOOL}", run.span, _tool(result.cell_id) | about, began)
                self._end_cell(span, result)
            case events.CallStarted(call_id=call_id, prompt=prompt) if len(run.calls) < MAX_OPEN:
                run.calls[call_id] = self._now(), prompt[:MAX_TEXT] if self._capture else ""
            case events.CallFinished(call=call) if call.kind in MODEL_CALLS:
                self._call(run, call)
            case events.CallFinished(call=call) if call.kind == "tool":
                self._tool_call(run, call)
            case events.RunFinished(outcome, totals):
                self._close(path, outcome, totals)

    # The run

    def _open(self, path: tuple[int, ...], question: str) -> None:
        above = self._runs.get(path[:-1]) if path else None
        parent = (above.cell or above.span) if above is not None else None
        about = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": AGENT,
            "gen_ai.agent.version": __version__,
            **self._messages("gen_ai.input.messages", [{"role": "user", "content": question}]),
        }
        self._close(path, Outcome(None, "error"), Totals())  # one that had no end
        self._runs[path] = _Run(self._start(f"invoke_agent {AGENT}", parent, about), self._now())

    def _close(self, path: tuple[int, ...], outcome: Outcome, totals: Totals) -> None:
        """The run ends, and with it those beneath it that have not."""
        for below in [key for key in self._runs if key[: len(path)] == path and len(key) > len(path)]:
            self._close(below, Outcome(None, "interrupted"), Totals())
        run = self._runs.pop(path, None)
        if run is None:
            return
        self._no_reply(run, outcome.stop_reason)
        if run.cell is not None:
            _fail(run.cell, outcome.stop_reason)
            run.cell.end(self._now())
        about: dict[str, Any] = _used(totals.usage) | {
            "rlm.stop_reason": outcome.stop_reason,
            "rlm.turns": totals.turns,
            "rlm.calls": totals.calls,
        }
        if totals.cost is not None:
            about["rlm.cost"] = totals.cost
        if outcome.answer is not None:
            answer = {"role": "assistant", "content": outcome.answer.text}
            about |= self._messages("gen_ai.output.messages", [answer], finish="stop")
        else:
            _fail(run.span, outcome.stop_reason)
        run.span.set_attributes(about)
        run.span.end(self._now())

    # Calls of models

    def _turn(self, run: _Run, event: events.TurnReplied) -> None:
        reply, began = event.reply, run.turn or self._now()
        run.turn = None
        model = _model(reply.model)
        run.span.set_attributes(model)
        finish = reply.finish_reason or "stop"
        system = [one for one in event.messages if one.get("role") == "system"]
        about = {
            **_chat(model, reply.usage, finish),
            "rlm.turn": event.turn,
            "rlm.attempts": reply.attempts,
            **({"rlm.cost": reply.cost} if reply.cost is not None else {}),
            **self._messages("gen_ai.input.messages", [one for one in event.messages if one not in system]),
            **self._messages("gen_ai.system_instructions", system, parts_alone=True),
            **self._messages(
                "gen_ai.output.messages", [{"role": "assistant", "content": reply.text}], finish=finish
            ),
        }
        name = f"chat {model['gen_ai.request.model']}"
        self._start(name, run.span, about, began, client=True).end(self._now())

    def _no_reply(self, run: _Run, why: str) -> None:
        """The root model was asked, and there is no reply."""
        if run.turn is not None:
            span = self._start("chat", run.span, {"gen_ai.operation.name": "chat"}, run.turn, client=True)
            run.turn = None
            _fail(span, why)
            span.end(self._now())

    def _call(self, run: _Run, call: CallRecord) -> None:
        began, prompt = run.calls.pop(call.id, (self._now(), ""))
        replayed = call.again or call.started.timestamp() * 1e9 < run.began
        if replayed or (call.kind == "rlm_query" and call.trace):
            return  # nobody was asked; or a child RLM, which has a span of its own
        child = call.kind == "rlm_query" and call.role != "sub"
        if call.model is None:
            model: dict[str, Any] = {}
        else:
            model = _model(call.model)
        if child:
            about: dict[str, Any] = {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": AGENT,
                **model,
            }
            name = f"invoke_agent {AGENT}"
        else:
            about = _chat(
                model, call.usage, "length" if call.cut else "stop" if call.error is None else "error"
            )
            name = f"chat {model.get('gen_ai.request.model', '')}".rstrip()
        about |= {"rlm.attempts": call.attempts, "rlm.stored": call.stored}
        if call.cost is not None:
            about["rlm.cost"] = call.cost
        about |= self._messages("gen_ai.input.messages", [{"role": "user", "content": prompt}])
        if call.error is None:
            answer = call.answer if isinstance(call.answer, str) else json.dumps(call.answer, default=str)
            about |= self._messages(
                "gen_ai.output.messages", [{"role": "assistant", "content": answer}], finish="stop"
            )
        span = self._start(name, run.cell or run.span, about, began, client=not child)
        if call.error is not None:
            _fail(span, call.error_type or "cancelled", self._described(call.error))
        span.end(self._now())

    # Tools and cells

    def _tool_call(self, run: _Run, call: CallRecord) -> None:
        """A call of a function of the host. Its preview is `name(arguments)`."""
        began, _ = run.calls.pop(call.id, (self._now(), ""))
        if call.again or call.started.timestamp() * 1e9 < run.began:
            return  # replayed: nobody was asked
        name, _, arguments = call.preview.partition("(")
        name = name[:100] if name.isidentifier() else "_OTHER"
        about = {**_tool(call.id, name), **self._text("gen_ai.tool.call.arguments", arguments[:-1])}
        if call.error is None:
            about |= self._text("gen_ai.tool.call.result", json.dumps(call.answer, default=str))
        span = self._start(f"execute_tool {name}", run.cell or run.span, about, began)
        if call.error is not None:
            _fail(span, call.error_type or "cancelled", self._described(call.error))
        span.end(self._now())

    def _cell_ends(self, run: _Run, result: CellResult) -> None:
        run.calls.clear()
        span, run.cell = run.cell, None
        if span is not None:
            self._end_cell(span, result)

    def _end_cell(self, span: Span, result: CellResult) -> None:
        if self._capture:
            span.set_attributes(self._text("gen_ai.tool.call.result", output_text(result.outputs)))
        if result.status != "ok":
            raised = next((one for one in result.outputs if one.get("output_type") == "error"), {})
            kind = raised.get("ename") if result.status == "error" else result.status
            _fail(span, kind, self._described(raised.get("evalue")))
        span.end(self._now())

    # What spans are made of

    def _start(
        self,
        name: str,
        parent: Span | None,
        about: Mapping[str, Any],
        began: int | None = None,
        *,
        client: bool = False,
    ) -> Span:
        from opentelemetry.trace import SpanKind, set_span_in_context

        context = self._parent if parent is None else set_span_in_context(parent)
        kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
        return self._tracer.start_span(
            name, context=context, kind=kind, attributes=dict(about), start_time=began or self._now()
        )

    def _clean(self, text: str) -> str:
        cut = redact(text[: MAX_TEXT + 200], self._secrets)[:MAX_TEXT]
        return cut.encode("utf-8", "replace").decode()

    def _described(self, text: Any) -> str:
        """What went wrong, where texts are captured: it may tell of prompts and answers."""
        return self._clean(text)[:500] if self._capture and isinstance(text, str) else ""

    def _text(self, name: str, text: str) -> dict[str, str]:
        return {name: self._clean(text)} if self._capture else {}

    def _messages(
        self, name: str, messages: Sequence[Message], *, finish: str = "", parts_alone: bool = False
    ) -> dict[str, str]:
        """Messages as an attribute, which is JSON in a text."""
        if not self._capture or not messages:
            return {}
        parts = [[{"type": "text", "content": self._clean(str(one["content"]))}] for one in messages]
        if parts_alone:
            return {name: json.dumps([part for one in parts for part in one])}
        told = [{"role": one["role"], "parts": part} for one, part in zip(messages, parts, strict=True)]
        return {name: json.dumps([{**one, "finish_reason": finish} if finish else one for one in told])}


def _model(name: str) -> dict[str, Any]:
    """What is known of a model by its name, `provider/model`."""
    provider, slash, model = name.partition("/")
    model = model if slash else name
    return {
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
    }


def _chat(model: Mapping[str, Any], usage: Usage, finish: str) -> dict[str, Any]:
    told = {"gen_ai.operation.name": "chat", "gen_ai.response.finish_reasons": [finish]}
    return {**told, **model, **_used(usage)}


def _used(usage: Usage) -> dict[str, Any]:
    used = {"gen_ai.usage.input_tokens": usage.prompt, "gen_ai.usage.output_tokens": usage.completion}
    more = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached,
        "gen_ai.usage.cache_creation.input_tokens": usage.written,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
    }
    return used | {name: tokens for name, tokens in more.items() if tokens}


def _tool(call_id: str, name: str = TOOL) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": call_id[:100],
    }


def _fail(span: Span, kind: Any, described: str = "") -> None:
    from opentelemetry.trace import Status, StatusCode

    named = kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else "_OTHER"
    span.set_attribute("error.type", named)
    span.set_status(Status(StatusCode.ERROR, described or None))

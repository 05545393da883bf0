"""A run as OpenTelemetry spans: what they are called, how they nest, what they do not tell, and that nothing of
them delays or fails a run.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rlm_kernel.engine import events
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, Outcome, Totals
from rlm_kernel.session.environment import silent
from rlm_kernel.session.listeners import with_spans
from rlm_kernel.views import otel
from rlm_kernel.views.spans import MAX_TEXT, Spans
from tests.support.every_event import CELL, every_event, record, reply, result
from tests.support.otlp import Receiver

OPENED = events.RunOpened("Q", Ledger(Limits()), Totals())
ENDED = events.RunFinished(Outcome(Answer("42"), "answered"), Totals(turns=1, calls=2, known_cost=0.5))


class Made:
    """Spans in memory. `tree`: the name of each with those of its ancestors."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.hear = Spans(self.provider.get_tracer("t"), **options)

    def __call__(self, *given: events.Event) -> list[Any]:
        for event in given:
            self.hear(event)
        return list(self._exporter.get_finished_spans())

    @property
    def tree(self) -> set[str]:
        spans = {span.context.span_id: span for span in self()}

        def path(span: Any) -> str:
            above = spans.get(span.parent.span_id) if span.parent else None
            return f"{path(above)} > {span.name}" if above else span.name

        return {path(span) for span in spans.values()}

    def one(self, name: str) -> Any:
        (found,) = [span for span in self() if span.name == name]
        return found


def child(number: int, *given: events.Event) -> list[events.Event]:
    return [events.ChildEvent(number, event) for event in given]


def run(*cell: events.Event) -> list[events.Event]:
    """A run of one turn, in whose cell these happen."""
    turn = events.TurnReplied(
        1, reply(), "", "", [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    )
    begun = [OPENED, events.TurnStarted(1), turn, events.CellStarted(CELL, 1, "code")]
    return [*begun, *cell, events.CellFinished(1, result()), ENDED]


def called(**changes: Any) -> list[events.Event]:
    made_later = datetime.now(UTC) + timedelta(minutes=1)
    call = replace(record(), **{"started": made_later, **changes})
    return [events.CallStarted(CELL, call.id, call.kind, "the prompt"), events.CallFinished(CELL, call)]


def test_turns_cells_calls_and_children_are_spans_within_each_other() -> None:
    made = Made()
    grandchild = child(1, *child(1, *run(*called())))
    made(
        *run(
            *called(),
            *child(1, OPENED, events.CellStarted("c", 1, "x")),
            *grandchild,
            *child(1, ENDED),
            *child(2, *run()),
        )
    )
    top, cell = "invoke_agent rlm", "execute_tool python"
    assert made.tree == {
        top,
        f"{top} > chat root",
        f"{top} > {cell}",
        f"{top} > {cell} > chat sub",
        f"{top} > {cell} > {top}",
        f"{top} > {cell} > {top} > chat root",
        f"{top} > {cell} > {top} > {cell}",
        f"{top} > {cell} > {top} > {cell} > {top}",
        f"{top} > {cell} > {top} > {cell} > {top} > chat root",
        f"{top} > {cell} > {top} > {cell} > {top} > {cell}",
        f"{top} > {cell} > {top} > {cell} > {top} > {cell} > chat sub",
    }
    assert len({span.context.trace_id for span in made()}) == 1


def test_attributes_have_the_names_of_the_conventions() -> None:
    made = Made()
    made(*run(*called(model="vertex_ai/gemini-3", cut=True)))
    chat, sub = made.one("chat root"), made.one("chat gemini-3")
    assert chat.kind is sub.kind is SpanKind.CLIENT
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "some",
        "gen_ai.request.model": "root",
        "gen_ai.response.model": "root",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.response.finish_reasons": ("stop",),
        "rlm.turn": 1,
        "rlm.attempts": 1,
        "rlm.cost": 0.25,
    }
    assert sub.attributes["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert sub.attributes["gen_ai.response.finish_reasons"] == ("length",)
    cell = made.one("execute_tool python").attributes
    assert (cell["gen_ai.operation.name"], cell["gen_ai.tool.name"], cell["gen_ai.tool.call.id"]) == (
        "execute_tool",
        "python",
        CELL,
    )
    agent = made.one("invoke_agent rlm")
    assert agent.kind is SpanKind.INTERNAL
    told = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "rlm",
        "gen_ai.request.model": "root",
        "rlm.cost": 0.5,
        "rlm.stop_reason": "answered",
    }
    assert told.items() <= dict(agent.attributes).items()
    assert agent.status.status_code is StatusCode.UNSET


def test_a_call_of_a_tool_is_a_span_below_its_cell_with_arguments_only_where_texts_are_captured() -> None:
    tool = {"kind": "tool", "preview": "weather(city='Bonn')", "answer": {"value": 21}, "model": None}
    for capture in (False, True):
        made = Made(capture=capture)
        made(
            *run(
                *called(id="1", **tool),
                *called(
                    id="2",
                    **{**tool, "preview": "mail()", "answer": None},
                    error="no",
                    error_type="ToolError",
                ),
                *called(id="3", **tool, again=True),
                *called(id="4", **{**tool, "preview": "two words()"}),
            )
        )
        top, cell = "invoke_agent rlm", "execute_tool python"
        names = ("weather", "mail", "_OTHER")
        assert {f"{top} > {cell} > execute_tool {name}" for name in names} <= made.tree
        span = made.one("execute_tool weather")
        assert span.kind is SpanKind.INTERNAL
        told = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "weather",
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": "1",
        }
        texts = {"gen_ai.tool.call.arguments": "city='Bonn'", "gen_ai.tool.call.result": '{"value": 21}'}
        assert dict(span.attributes) == (told | texts if capture else told)
        failed = made.one("execute_tool mail")
        assert failed.attributes["error.type"] == "ToolError"
        assert failed.status.status_code is StatusCode.ERROR


def test_what_fails_has_its_kind_of_error() -> None:
    made = Made()
    failed = replace(
        result(status="error"),
        outputs=[{"output_type": "error", "ename": "KeyError", "evalue": "secret", "traceback": []}],
    )
    made(
        OPENED,
        events.CellStarted(CELL, 1, "x"),
        *called(error="no", error_type="LLMError"),
        *called(id="2", error="cancelled", model=None),
    )
    made(*called(id="3", kind="rlm_query", error="the limit", error_type="BudgetExceeded", role="root"))
    made(
        events.CellFinished(1, failed),
        events.CellStarted(CELL, 1, "x"),
        events.CellFinished(1, result(status="timeout")),
    )
    made(
        events.CellStarted(CELL, 1, "x"),
        events.CellFinished(1, replace(failed, outputs=[{"output_type": "error", "ename": "a b\u2028"}])),
    )
    made(
        events.TurnStarted(2),
        events.CellStarted("open", 2, "x"),
        events.RunFinished(Outcome(None, "interrupted"), Totals()),
    )
    found = [(span.name, span.attributes.get("error.type"), span.status.description) for span in made()]
    assert found == [
        ("chat sub", "LLMError", None),
        ("chat", "cancelled", None),
        ("invoke_agent rlm", "BudgetExceeded", None),
        ("execute_tool python", "KeyError", None),
        ("execute_tool python", "timeout", None),
        ("execute_tool python", "_OTHER", None),
        ("chat", "interrupted", None),
        ("execute_tool python", "interrupted", None),
        ("invoke_agent rlm", "interrupted", None),
    ]
    assert all(span.status.status_code is StatusCode.ERROR for span in made())


def test_what_a_resumed_run_replays_is_no_call_of_a_model() -> None:
    made = Made()
    made(
        *run(
            *called(started=datetime.now(UTC) - timedelta(hours=1)), *called(again=True), *called(stored=True)
        )
    )
    (sub,) = [span for span in made() if span.name == "chat sub"]
    assert sub.attributes["rlm.stored"] is True


def test_no_text_of_a_run_is_in_a_span_unless_it_is_captured() -> None:
    secret = "sk-0123456789"
    text = f"the text \ud800 {secret}"
    quiet = Made()
    assert "the text" not in "".join(span.to_json() for span in quiet(*every_event(text)))
    made = Made(capture=True, secrets=[secret])
    long = events.TurnReplied(2, reply("y" * 100_000), "", "", [{"role": "user", "content": "z" * 100_000}])
    told = "".join(
        span.to_json() for span in made(*every_event(text)[:-1], events.TurnStarted(2), long, ENDED)
    )
    assert secret not in told
    assert len(told) < 40 * MAX_TEXT
    made = Made(capture=True)
    made(*run(*called()))
    chat = made.one("chat root").attributes
    assert json.loads(chat["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "U"}]}
    ]
    assert json.loads(chat["gen_ai.system_instructions"]) == [{"type": "text", "content": "S"}]
    assert json.loads(chat["gen_ai.output.messages"])[0]["finish_reason"] == "stop"
    assert "the prompt" in made.one("chat sub").attributes["gen_ai.input.messages"]
    cell = made.one("execute_tool python").attributes
    assert (cell["gen_ai.tool.call.arguments"], cell["gen_ai.tool.call.result"]) == ("code", "4")


def test_a_listener_that_fails_ends_the_spans_and_not_the_run() -> None:
    class Broken:
        def start_span(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

    hear = Spans(Broken())  # type: ignore[arg-type]
    for event in every_event():
        hear(event)


def test_ten_thousand_calls_at_once_need_little_memory() -> None:
    hear = Spans(TracerProvider(shutdown_on_exit=False).get_tracer("t"))
    tracemalloc.start()
    try:
        for event in run()[:-2]:
            hear(event)
        for number in range(200_000):
            hear(events.CallStarted(CELL, str(number), "llm_query", "x" * 1000))
        before, _ = tracemalloc.get_traced_memory()
        assert before < 60_000_000
        for number in range(10_000):
            hear(called(id=str(number))[1])
        hear(events.CellFinished(1, result()))
        after, _ = tracemalloc.get_traced_memory()
        assert after < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, ""),
        ({"OTEL_SERVICE_NAME": "x"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ""),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ""),
    ],
)
def test_spans_are_made_where_a_variable_asks_for_them(environ: dict[str, str], variable: str) -> None:
    assert otel.asked_for(environ) == variable


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No provider of spans is there yet, and none stays."""
    monkeypatch.setattr(otel, "_own", None)
    monkeypatch.setattr(otel, "_used", set())
    logger = logging.getLogger("opentelemetry")
    before, propagate = list(logger.handlers), logger.propagate
    yield monkeypatch
    if otel._own is not None:
        threading.Thread(target=otel._own.shutdown, daemon=True).start()
    logger.handlers[:], logger.propagate = before, propagate


async def test_spans_reach_a_receiver_below_the_span_that_the_environment_names(
    sending: pytest.MonkeyPatch,
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with Receiver() as receiver:
        sending.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        sending.setenv("TRACEPARENT", f"00-{trace}-{parent}-01")
        heard: list[events.Event] = []
        listener = await with_spans(heard.append, print)
        assert listener is not None
        for event in run(*called()):
            listener(event)
        otel.flush()
    assert len(heard) == 8
    assert {span.name for span in receiver.spans} == {
        "invoke_agent rlm",
        "chat root",
        "chat sub",
        "execute_tool python",
    }
    assert {span.trace_id.hex() for span in receiver.spans} == {trace}
    (top,) = [span for span in receiver.spans if span.name == "invoke_agent rlm"]
    assert top.parent_span_id.hex() == parent
    assert receiver.resources[0]["service.name"] == "rlm"
    assert receiver.schemas == {"https://opentelemetry.io/schemas/1.41.0"}


async def test_a_program_with_spans_of_its_own_has_ours_below_its_current_one(
    sending: pytest.MonkeyPatch,
) -> None:
    made = Made()
    sending.setattr("opentelemetry.trace.get_tracer_provider", lambda: made.provider)
    with made.provider.get_tracer("theirs").start_as_current_span("theirs"):
        listener = await with_spans(None, print)
    assert listener is not None
    for event in run():
        listener(event)
    assert "theirs > invoke_agent rlm > chat root" in made.tree


@pytest.mark.parametrize("dead", [True, False])
async def test_a_receiver_that_is_dead_or_hangs_delays_nothing(
    dead: bool, sending: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    with Receiver(hang) as receiver:
        sending.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9" if dead else receiver.url)
        listener = await with_spans(None, lambda _line: None)
        assert listener is not None
        began = time.monotonic()
        for event in run(*(event for number in range(3000) for event in called(id=str(number)))):
            listener(event)
        assert time.monotonic() - began < 10
        began = time.monotonic()
        otel.flush(0.5)
        assert time.monotonic() - began < 3
        hang.set()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "localhost:4318"])
async def test_that_no_span_arrives_is_told_once(endpoint: str, sending: pytest.MonkeyPatch) -> None:
    sending.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    sending.setattr(logging.getLogger(), "handlers", [])  # as in a program that keeps no log
    lines: list[str] = []
    listener = await with_spans(None, lines.append)
    assert listener is not None
    for _ in range(2):
        for event in run(*called()):
            listener(event)
        otel.flush(0.5)
    (line,) = lines
    assert line.startswith("Sending spans failed: ")
    assert endpoint.removeprefix("http://127.0.0.1:") in line


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "jaeger"},
            "OTEL_TRACES_EXPORTER must be otlp, console or none, not 'jaeger'.",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "http/protobuf, not over grpc",
        ),
    ],
)
async def test_what_cannot_be_done_is_told_in_a_line(
    environ: dict[str, str], told: str, sending: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        sending.setenv(name, value)
    lines: list[str] = []
    assert await with_spans(None, lines.append) is None
    (line,) = lines
    assert told in line
    assert line.endswith(".")
    with pytest.warns(RuntimeWarning, match="OTEL|http/protobuf"):
        await with_spans(None, silent)


def test_where_the_package_is_missing_a_line_says_what_to_install() -> None:
    code = """
import asyncio, sys
for name in ("opentelemetry", "opentelemetry.sdk"):
    sys.modules[name] = None
from rlm_kernel.session.listeners import with_spans
asyncio.run(with_spans(None, print))
"""
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    assert done.stdout == (
        "OTEL_EXPORTER_OTLP_ENDPOINT asks for OpenTelemetry, which is not installed, so rlm sends no spans. "
        "Type: pip "
        "install 'rlm-kernel[otel]'.\n"
    )


def test_without_a_variable_nothing_of_opentelemetry_is_imported() -> None:
    code = """
import asyncio, sys
from rlm_kernel.session.listeners import with_spans
assert asyncio.run(with_spans(None, print)) is None
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)

"""`--json-events`: every event a line of JSON that fits the published schema, whatever is in it, and a reader
that is slow or gone costs nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rlm_kernel.cli import _events
from rlm_kernel.cli._events import CROWDED, Outlet
from rlm_kernel.engine import events
from rlm_kernel.engine.events import CallStarted, CellOutput, Event, RunFinished, TurnPiece
from rlm_kernel.engine.protocols import Answer, Outcome, Totals
from rlm_kernel.views import event_lines
from rlm_kernel.views.event_lines import json_schema
from rlm_kernel.views.event_parts import MAX_TEXT
from rlm_kernel.views.json_events import JsonEvents
from tests.support.every_event import CELL, every_event, result, stream

PUBLISHED = Path(__file__).parents[3] / "docs" / "events-schema.json"
VALIDATOR = Draft202012Validator(json.loads(json_schema()))
HOSTILE = 'a\u2028b\x85c\r\n\x1b[2J\u202e\ud800"\\\x00\x7f{}[]'


def question(text: str) -> dict[str, Any]:
    """What is told of a question of a batch."""
    return {
        "id": text,
        "status": "failed",
        "error": text,
        "node": text,
        "done": 3,
        "failed": 1,
        "running": 2,
        "total": None,
        "spent": 0.25,
    }


def running(text: str) -> dict[str, Any]:
    """What is told of one that goes on."""
    return {"id": text, "turns": 2, "calls": 40, "tokens": 1_000, "spent": 0.25, "node": text}


class Told:
    """The lines that a listener wrote."""

    def __init__(self, **options: Any) -> None:
        self.raw: list[str] = []
        self.time = 0.0
        self.events = JsonEvents(
            lambda line, _droppable: self.raw.append(line), clock=lambda: self.time, **options
        )

    def __call__(self, *given: Event) -> list[dict[str, Any]]:
        """The lines of these events."""
        before = len(self.raw)
        for event in given:
            self.events(event)
        return [json.loads(line) for line in self.raw[before:]]


def test_the_published_schema_is_that_of_the_lines() -> None:
    assert PUBLISHED.read_text("utf-8") == json_schema(), (
        "write it again: python -m rlm_kernel.views.json_events > docs/events-schema.json"
    )
    Draft202012Validator.check_schema(json.loads(json_schema()))


def test_the_docs_name_each_kind_of_line() -> None:
    told = (PUBLISHED.parent / "events.md").read_text("utf-8")
    for kind in get_args(event_lines.ANY):
        assert f"`{kind.event}`" in told


def test_every_event_gives_a_line_that_fits_the_schema() -> None:
    told, given = Told(), every_event()
    told.events.begin("ask")
    told.events.say("Building the image.")
    told.events.question(question("a"))
    told.events.running(running("a"))
    lines = [
        *map(json.loads, told.raw),
        *told(*given),
        json.loads(told.events.dropped(3)),
        json.loads(told.events.end(0)),
    ]
    for line in lines:
        VALIDATOR.validate(line)
    assert {line["event"] for line in lines} == {kind.event for kind in get_args(event_lines.ANY)}
    assert {type(event) for event in given} == set(get_args(Event))
    assert [line["path"] for line in lines if line["event"] == "run_opened"] == [[], [1, 2]]


@given(st.text(st.characters(), max_size=60))
def test_whatever_the_texts_are_each_line_is_one_line_of_ascii(text: str) -> None:
    told = Told()
    told.events.say(text)
    told.events.question(question(HOSTILE + text))
    told.events.running(running(HOSTILE + text))
    told(*every_event(HOSTILE + text))
    told.raw.append(told.events.end(1, error=text, trace=text))
    for line in told.raw:
        assert line.isascii()
        assert line.splitlines() == [line[:-1]]
        VALIDATOR.validate(value := json.loads(line))
        json.dumps(value, ensure_ascii=False).encode()  # no half of a pair, which strict readers refuse


def test_a_long_text_is_cut_and_its_length_told() -> None:
    long = "x" * 3_000_000
    for line in Told()(*every_event(long)):
        assert len(json.dumps(line)) < 6 * MAX_TEXT
        if line["event"] in ("call_started", "turn_piece", "turn_replied", "noted", "run_finished"):
            assert 3_000_000 in line["lengths"].values()


def test_secrets_are_in_no_line() -> None:
    told = Told(secrets=["sk-0123456789"])
    told(*every_event("the key sk-0123456789 is here"))
    cut = told(CallStarted(CELL, "1", "llm_query", "x" * (MAX_TEXT - 9) + "sk-0123456789"))
    assert "sk-01234" not in "".join(told.raw)
    assert cut[0]["prompt"].endswith("[redacted]")


def test_of_a_growing_output_each_line_has_what_is_new_and_not_every_time() -> None:
    told = Told()

    def at(seconds: float, *outputs: dict[str, str]) -> list[tuple[str, bool]]:
        told.time = seconds
        return [(line["text"], line["again"]) for line in told(CellOutput(CELL, outputs))]

    assert at(1, stream("one\n")) == [("one", False)]
    assert at(1.1, stream("one\ntwo\n")) == []
    assert at(1.3, stream("one\ntwo\nthree\n")) == [("two\nthree", False)]
    assert at(2, stream("one\ntwo\nthree\n"), stream("four", "stderr")) == [("four", False)]
    assert at(3, stream("one\ntwo\nthree\n"), stream("four", "stderr")) == []
    assert at(4, stream("anew")) == [("anew", True)]
    assert [line["output"] for line in told(events.CellFinished(1, result("anew\nat last")))] == [
        "anew\nat last"
    ]


@pytest.mark.parametrize(
    ("code", "outcome", "status"),
    [
        (0, Outcome(Answer("4"), "answered"), "answered"),
        (1, Outcome(None, "turns"), "no_answer"),
        (1, Outcome(None, "error", detail="broken"), "failed"),
        (130, Outcome(None, "interrupted"), "interrupted"),
        (3, None, "failed"),
        (0, None, "done"),
    ],
)
def test_the_last_line_tells_how_it_ended(code: int, outcome: Outcome | None, status: str) -> None:
    told = Told()
    for _ in range(2):  # a chat may have several questions
        told(*([RunFinished(outcome, Totals(turns=2))] if outcome else []))
    last = json.loads(told.events.end(code, interrupted=code == 130, trace="a.ipynb", error="why"))
    assert (last["status"], last["exit_code"], last["trace"], last["error"]) == (
        status,
        code,
        "a.ipynb",
        "why",
    )
    assert last["used"]["turns"] == (4 if outcome else 0)


def test_numbers_that_are_none_are_not_told() -> None:
    (line,) = Told()(events.CallsPlanned(CELL, 5, float("nan")))
    assert line["cost"] is None


def test_a_reader_that_does_not_read_delays_nothing_and_is_told_what_is_missing() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        outlet = Outlet(stream, lambda count: f"dropped {count}\n")
        began = time.monotonic()
        for number in range(300):
            outlet.put(f"{number} {'x' * 10_000}\n", droppable=True)
        outlet.put("call\n")
        assert time.monotonic() - began < 2
        outlet.end("end\n", patience=0.3)  # gives up
        assert time.monotonic() - began < 4
    with os.fdopen(reader) as read:
        lines = read.read().splitlines()
    assert lines[0].startswith("0 x")
    assert len(lines) * 10_000 < CROWDED


def test_a_slow_reader_has_all_lines_and_the_last_one() -> None:
    reader, writer = os.pipe()
    found: list[str] = []

    def read() -> None:
        with os.fdopen(reader) as lines:
            for line in lines:
                found.append(line)
                time.sleep(0.0005)

    thread = threading.Thread(target=read)
    thread.start()
    with os.fdopen(writer, "w") as stream:
        outlet = Outlet(stream, lambda count: f"dropped {count}\n")
        for number in range(1000):
            outlet.put(f"{number}\n" if number % 10 else f"{number} {'x' * 9000}\n")
        outlet.end("end\n")
    thread.join()
    assert [int(line.split()[0]) for line in found[:-1]] == list(range(1000))
    assert found[-1] == "end\n"


def test_what_crowds_is_left_out_and_counted() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        outlet = Outlet(stream, lambda count: f"dropped {count}\n")
        for _ in range(400):
            outlet.put(f"{'x' * 9_999}\n", droppable=True)
        outlet.put("call\n")
        thread = threading.Thread(target=outlet.end, args=("end\n",))
        thread.start()
        with os.fdopen(reader) as read:
            lines = [next(read)]
            while lines[-1] != "end\n":
                lines.append(next(read))
        thread.join()
    told = int(lines[-3].split()[1])
    assert lines[-3:] == [f"dropped {told}\n", "call\n", "end\n"]
    dropped = [int(line.split()[1]) for line in lines if line.startswith("dropped")]
    assert sum(dropped) + sum(line.startswith("x") for line in lines) == 400


def test_a_reader_that_is_gone_costs_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        outlet = Outlet(stream, lambda count: f"dropped {count}\n")
        for _ in range(100):
            outlet.put("x" * 10_000)
        outlet.end("end\n")
        outlet.put("more")


def test_what_anything_prints_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    _events.begin("ask")
    _events.begin("ask")  # once is enough
    print("a warning\nof two lines", file=sys.stderr)
    print("begun", end="", file=sys.stderr)
    _events.listener(TurnPiece(1, "word", thought=False))
    _events.trace_is(lambda: str(Path("gone").resolve(strict=True)))  # there is none
    _events.end(0)
    _events.end(0)
    print("prose", file=sys.stderr)
    *lines, prose = capsys.readouterr().err.splitlines()
    told = [json.loads(line) for line in lines]
    assert [line["event"] for line in told] == ["begin", "said", "said", "turn_piece", "said", "end"]
    assert [line["text"] for line in told if line["event"] == "said"] == [
        "a warning",
        "of two lines",
        "begun",
    ]
    assert prose == "prose"
    assert not _events.on()


@pytest.mark.parametrize("command", ["ask", "run", "resume", "fork", "chat"])
def test_a_command_that_cannot_begin_ends_with_the_error_as_a_line(command: str) -> None:
    given = [command, *(["x"] if command != "chat" else []), "--json-events", "--set", "limits.tuns=3"]
    done = subprocess.run(
        [sys.executable, "-m", "rlm_kernel", *given], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    first, *_, last = map(json.loads, done.stderr.splitlines())
    assert (first["event"], first["command"]) == ("begin", command)
    assert (last["event"], last["status"], last["exit_code"], done.returncode) == ("end", "failed", 2, 2)
    assert "limits.turns" in last["error"]


def test_a_closed_stderr_costs_nothing() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m rlm_kernel ask x --json-events --set limits.tuns=3 2>&-"],
        check=False,
    )
    assert done.returncode == 2

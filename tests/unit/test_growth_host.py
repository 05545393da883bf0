"""Work on the host grows with its input, and not with the square of it: whatever a model, a trace or a folder
holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nbformat import from_dict

from rlm_kernel import nearest, pathtext, sanitize
from rlm_kernel.engine import finals, messages, python
from rlm_kernel.engine.drafts import Voice, without_drafts
from rlm_kernel.engine.events import (
    CallFinished,
    CallRetried,
    CallStarted,
    CellStarted,
    ChildEvent,
    RunOpened,
    TurnReplied,
    TurnStarted,
)
from rlm_kernel.engine.hearing import Hearing
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.memory import crowded
from rlm_kernel.engine.protocols import CellResult, Completion, Retry, Totals, Usage
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.printable import printable
from rlm_kernel.secrets import redact, redact_cut
from rlm_kernel.session.conversation import conversation, full_history, recorded, turns_of
from rlm_kernel.session.jupyter.notebook import files_of
from rlm_kernel.session.questions import extract_paths, missing_paths
from rlm_kernel.trace import document, shape
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.packed import parse
from rlm_kernel.trace.reader import TraceFile, trace_of
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.taken import before_last_question, ended
from rlm_kernel.views.state import Branch, Told
from tests.support.engine import stream
from tests.support.growth import LIMIT, growth
from tests.support.odd_replies import REPLIES
from tests.support.trace import WHEN, call, meta

LENGTH = 50_000
MARKED = [
    name for name, make in REPLIES.items() if any(mark in make(10) for mark in ("<", "[", "◁", "assistant"))
]
TEXTS: dict[str, Callable[[str], object]] = {
    "final_at": lambda text: finals.final_at(f"FINAL({text}"),
    "final_in_sentence": finals.final_in_sentence,
    "whole_final": finals.whole_final,
    "meaning": finals.meaning,
    "is_template": finals.is_template,
    "unmarked": finals.unmarked,
    "as_meant": python.as_meant,
    "end_of_code": lambda text: python.end_of_code(text, 3),
    "strings_of": python.strings_of,
    "code_in_json": python.code_in_json,
    "only_delivers": python.only_delivers,
    "output_text": lambda text: messages.output_text([stream(text)]),
    "truncate": lambda text: messages.truncate(text, 1_000),
    "markdown": sanitize.markdown,
    "html": sanitize.html,
    "redact": lambda text: redact(text, ["secret-of-mine", "another-secret"]),
    "redact_cut": lambda text: redact_cut(text, ["secret-of-mine", "another-secret"]),
    "printable": printable,
    "model_words": lambda text: document.model_words(1, text),
    "folded": lambda text: document.folded(text, len(text)),
    "Hearing": lambda text: Hearing(lambda _text, _thought: None)(text, False),
    "Voice": lambda text: Voice().say(text),
    "pathtext": lambda text: pathtext.from_text(f"bytes:{pathtext.to_text(text)}"),
    "compare": lambda text: compare(Ran([stream(text)], WHEN, 1.0), Ran([stream(f"{text}x")], WHEN, 1.0)),
}
"""Readers of one text."""


def in_proportion(make: Callable[[int], Any], work: Callable[[Any], object], size: int) -> bool:
    """Whether the work grows with the size.

    What takes next to nothing for ten times the size has no growth that could be measured.
    """
    given = make(10 * size)
    begun = time.process_time()
    work(given)
    return time.process_time() - begun < 0.1 or growth(make, work, size) <= LIMIT


def long(make: Callable[[int], str]) -> Callable[[int], str]:
    """The text by its length."""
    each = max(1, len(make(100)) // 100)
    return lambda length: make(max(2, length // each))


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_is_read_in_proportion_to_its_length(name: str) -> None:
    assert in_proportion(long(REPLIES[name]), parse_reply, LENGTH // 10)


@pytest.mark.parametrize("name", MARKED)
def test_drafts_are_taken_off_in_proportion_to_the_length_of_a_reply(name: str) -> None:
    assert in_proportion(long(REPLIES[name]), without_drafts, LENGTH // 10)


@pytest.mark.parametrize("reader", TEXTS)
def test_a_text_of_any_form_is_read_in_proportion_to_its_length(reader: str) -> None:
    slow = [
        name for name, make in REPLIES.items() if not in_proportion(long(make), TEXTS[reader], LENGTH // 50)
    ]
    assert not slow


# Traces


def _node(cells: int, calls: int = 0, **changes: Any) -> Any:
    """A trace of so many turns, or with so many calls in one cell."""
    made = [{"cell_type": "markdown", "id": "title", "source": "# t", "metadata": {"rlm": {"kind": "title"}}}]
    for number in range(1, cells + 1):
        ours = {"kind": "model", "turn": number, "reply": "x"}
        made.append(
            {"cell_type": "markdown", "id": f"turn-{number:02}", "source": "x", "metadata": {"rlm": ours}}
        )
        code: dict[str, Any] = {
            "cell_type": "code",
            "id": f"turn-{number:02}-a",
            "source": "x",
            "outputs": [stream("x")],
        }
        made.append(
            code
            | {
                "execution_count": 1,
                "metadata": {"rlm": {"kind": "code", "turn": number, "status": "ok", "seconds": 0.1}},
            }
        )
        made.append(
            {
                "cell_type": "markdown",
                "id": f"q-{number}",
                "source": "x",
                "metadata": {"rlm": {"kind": "question", "text": "q"}},
            }
        )
    if calls:
        one = {
            "kind": "llm_query",
            "preview": "p",
            "started": WHEN.isoformat(),
            "seconds": 0.1,
            "answer": "a",
        }
        told = [one | {"id": f"7-1-{n}", "nth": n, "prompt_digest": "d" * 64} | changes for n in range(calls)]
        made[2]["metadata"]["rlm"]["calls"] = told  # type: ignore[index]
    whole = {
        "cells": made,
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"rlm": meta().model_dump(mode="json")},
    }
    return from_dict(whole)  # type: ignore[no-untyped-call]


def _trace(cells: int, calls: int = 0, **changes: Any) -> TraceFile:
    return trace_of(_node(cells, calls, **changes), Path("t.ipynb"))


def _find_all(trace: TraceFile) -> None:
    recording = TraceRecording(trace.cells)
    calls = recording._of("turn-01-a")
    assert calls is not None
    assert calls.find("d" * 64, 0) is not None
    for one in trace.code_cells[0].meta.calls:  # type: ignore[union-attr]
        calls.find(one.prompt_digest, one.nth)


TRACES: dict[str, Callable[[TraceFile], object]] = {
    "spent": lambda trace: trace.spent(),
    "conversation": conversation,
    "turns_of": lambda trace: turns_of(trace.cells, recorded(trace.cells)),
    "full_history": full_history,
    "ended": lambda trace: ended(trace.node.cells),
    "before_last_question": lambda trace: before_last_question(trace.node.cells),
    "files_of": lambda trace: files_of(None, trace.node, None, []),
    "trace_of": lambda trace: trace_of(trace.node, trace.path),
    "shape": lambda trace: shape.fault(trace.node),
}
"""Readers of a trace."""


@pytest.mark.parametrize("reader", TRACES)
def test_a_trace_is_read_in_proportion_to_its_cells(reader: str) -> None:
    assert in_proportion(_trace, TRACES[reader], 100)


@pytest.mark.parametrize(
    "changes", [{}, {"nth": 0}, {"id": "x"}, {"started": (WHEN + timedelta(1)).isoformat()}]
)
def test_recorded_calls_that_asked_the_same_are_found_in_proportion_to_their_number(
    changes: dict[str, Any],
) -> None:
    assert in_proportion(lambda calls: _trace(1, calls, **changes), _find_all, 200)


def test_the_account_of_many_calls_is_taken_in_proportion_to_their_number() -> None:
    assert in_proportion(lambda calls: _trace(1, calls), lambda trace: trace.spent(), 1_000)


@pytest.mark.parametrize(
    "unit", [b"[],", b'{"a":1},', b'"\\\\",', b'"x",', b"1,", b'"\\ud83d\\ude00",', b"NaN,"]
)
def test_json_is_parsed_in_proportion_to_its_length(unit: bytes) -> None:
    assert in_proportion(
        lambda length: b'{"cells":[],"more":[' + unit * (length // len(unit)) + b"0]}", parse, 100_000
    )


LINES: dict[str, Callable[[int], tuple[str, str]]] = {
    "all differ": lambda n: ("a\n" * n, "b\n" * n),
    "none in order": lambda n: (
        "".join(f"{k}\n" for k in range(n)),
        "".join(f"{k}\n" for k in reversed(range(n))),
    ),
    "times": lambda n: ("took 1.5 s\n" * n, "took 2.5 s\n" * n),
    "times on a line": lambda n: ("took 1.5 s " * n, "took 2.5 s " * n),
    "digits": lambda n: ("1" * n, "2" * n),
    "addresses": lambda n: ("at 0x7f00aa " * n, "at 0x7f00bb " * n),
    "carriage returns": lambda n: ("a\r" * n, "b\r" * n),
    "escapes": lambda n: ("\x1b[" * n, "\x1b]" * n),
    "one is longer": lambda n: ("a\n" * n, "a\n" * (2 * n)),
}


@pytest.mark.parametrize("name", LINES)
def test_outputs_are_compared_in_proportion_to_their_length(name: str) -> None:
    def work(texts: tuple[str, str]) -> None:
        compare(Ran([stream(texts[0])], WHEN, 1.0), Ran([stream(texts[1])], WHEN, 1.0))

    assert in_proportion(LINES[name], work, 2_000)


# Questions, names, conversations, views

QUESTIONS: dict[str, Callable[[int], str]] = {
    "words": lambda n: "some/where " * n,
    "one word": lambda n: "a/" * n,
    "quotes": lambda n: "'a/b" * n,
    "back quotes": lambda n: "`a.b" * n,
    "backslashes": lambda n: "a\\ b.c " * n,
    "only backslashes": lambda n: "\\" * n,
    "marks": lambda n: "." * n,
    "opening marks": lambda n: "(" * n + "a.b",
    "requests": lambda n: "GET  " * n,
    "home folders": lambda n: "~a/b " * n,
    "addresses": lambda n: "file:///a " * n,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_paths_are_looked_for_in_proportion_to_the_length_of_a_question(name: str, tmp_path: Path) -> None:
    assert in_proportion(QUESTIONS[name], lambda question: extract_paths(question, tmp_path), 500)
    assert in_proportion(QUESTIONS[name], lambda question: missing_paths(question, tmp_path), 500)


def test_the_nearest_of_many_names_is_found_in_proportion_to_their_number() -> None:
    assert in_proportion(
        lambda number: [f"name{n}" for n in range(number)], lambda names: nearest.nearest("nome7", names), 500
    )


def test_messages_grow_with_the_cells_of_a_turn() -> None:
    def cells(number: int) -> list[CellResult]:
        return [CellResult(f"a-{n}", "x", "ok", [stream("x\n")], WHEN, 0.1) for n in range(number)]

    assert in_proportion(cells, lambda results: messages.output_message(results, 0, 1_000, [], ""), 500)
    assert in_proportion(cells, messages.without_counts, 500)


def test_a_conversation_is_measured_in_proportion_to_its_length() -> None:
    def work(said: Any) -> None:
        crowded(said, 2, Usage(), 0, 128_000, 0.5)

    assert in_proportion(lambda number: [{"role": "user", "content": "x" * 100}] * number, work, 1_000)


def test_what_a_run_used_is_summed_up_in_proportion_to_its_parts() -> None:
    assert in_proportion(lambda number: [Totals(turns=1)] * number, lambda parts: sum(parts, Totals()), 1_000)


def test_the_live_view_hears_events_in_proportion_to_their_number() -> None:
    def hear(number: int) -> None:
        told: list[Told] = []
        branch = Branch(told.append)
        for n in range(number):
            branch(TurnStarted(n))
            branch(TurnReplied(n, Completion("x", "m"), "x"))
            branch(CellStarted(f"a-{n}", n, "x"))
            branch(CallStarted(f"a-{n}", f"c-{n}", "llm_query"))
            branch(CallRetried(f"a-{n}", f"c-{n}", Retry("rate-limited", 1, 5, 1.0)))
            branch(CallFinished(f"a-{n}", call(n)))
            branch(ChildEvent(n, RunOpened(f"question {n}", Ledger(Limits()), Totals())))
        branch.status()
        branch.details()

    assert in_proportion(lambda number: number, hear, 300)

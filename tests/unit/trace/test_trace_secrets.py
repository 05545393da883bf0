"""No secret is ever written, and no text breaks the notebook."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.engine.events import (
    CallFinished,
    CellFinished,
    CellOutput,
    CellStarted,
    Noted,
    RunFinished,
    TurnReplied,
)
from rlm_kernel.engine.protocols import Answer, CallRecord, Completion, Outcome, Totals
from rlm_kernel.trace import document
from rlm_kernel.trace.schema import FileMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import failure, stream
from tests.support.trace import STORY, Event, call, cell, load, meta, result, tell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "t.ipynb"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress of a running cell is written with every event."""
    monkeypatch.setattr(NotebookWriter, "_save_now_and_then", NotebookWriter._save_running)


def secret_story(secret: str, calls: Sequence[CallRecord]) -> list[Event]:
    text = f"before {secret} after"
    outputs = [
        stream(text),
        failure("E", text),
        {
            "output_type": "display_data",
            "data": {"text/plain": text, "application/json": {text: [text]}},
            "metadata": {"a": text},
        },
    ]
    return [
        CellStarted("setup", 0, text),
        CellOutput("setup", outputs),
        CellFinished(0, result("setup", text, outputs=outputs, calls=calls)),
        TurnReplied(1, Completion(text, f"model-{secret}"), text),
        Noted(text),
        RunFinished(Outcome(Answer(text), "turns", True, text), Totals()),
    ]


SECRETS = [
    "sk-0123456789abcdef",
    'quote"and\\backslash',
    "line one\nline two\nline three",
    "tab\tand\r\nreturn",
    "ünïcödé-sécrét",
    "\u2028separator\u2028",
    "control\x01\x7f\x1b",
    "half\udcffbyte",
    "</script><b>&amp;",
    "12345678",
    "2026-01-02",
    '"metadata": {',
    "cell_type",
    "markdown",
    "metadata",
    "finished",
    "display_data",
    "kernelspec",
    "print(1)",
]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_secrets_are_redacted_wherever_they_turn_up(path: Path, secret: str) -> None:
    text = f"before {secret} after"
    calls = [
        call(1, preview=text, answer=text, model=text),
        call(2, answer=None, error=text),
        call(3, kind="file", answer={"path": text}),
    ]
    fields = {
        "models": {"root": text, "sub": secret},
        "sandbox": {"image": text},
        "files": [FileMeta(path=text, size=1)],
    }
    writer = NotebookWriter(path, meta(text, **fields), [secret])
    tell(writer, secret_story(secret, calls), lambda: load(path))
    writer.set_files([FileMeta(path=f"/{secret}/a", size=1)])
    notebook = load(path)
    parts = [c.source for c in notebook.cells] + [c.get("outputs", []) for c in notebook.cells]
    shown = [
        value
        for part in [*parts, notebook.metadata.rlm, [c.metadata.rlm for c in notebook.cells]]
        for value in strings(part)
    ]
    ours = (
        "finished",
        "display_data",
        "2026-01-02T03:04:05",
    )  # words of the format and times are no text of anybody
    assert not [value for value in shown if secret in value and not value.startswith(ours)]
    assert sum("[redacted]" in value for value in shown) > 20
    assert all(f"before {secret}" not in value for value in shown)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [
            text
            for key, item in value.items()
            for text in [*strings(item), *([] if key.isidentifier() else [key])]
        ]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_a_secret_printed_as_json_is_redacted_too(path: Path) -> None:
    secret = 'a"b\\c\nüdefg'
    writer = NotebookWriter(path, meta(), [secret])
    writer(Noted(json.dumps(secret) + json.dumps(secret, ensure_ascii=False)))
    assert "defg" not in path.read_text()


def test_a_secret_that_was_cut_in_two_leaves_no_half(path: Path) -> None:
    secret = "sk-" + "0123456789" * 10
    writer = NotebookWriter(path, meta("q" * 90 + secret + "?"), [secret])
    tell(writer, [STORY[0], CallFinished("parameters", call(preview="p" * 150 + secret[:50]))])
    tell(writer, [CellFinished(0, result("parameters", calls=[call(preview="p" * 150 + secret[:50])]))])
    writer(RunFinished(Outcome(Answer("a" * (document.ANSWER_CAP - 50) + secret), "answered"), Totals()))
    assert "sk-" not in path.read_text()


def test_text_without_secrets_is_unchanged(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    plain = path.read_text()
    tell(NotebookWriter(path, meta(), SECRETS[:7]), STORY)
    assert path.read_text() == plain


def test_a_limit_of_infinity_is_none_in_json(path: Path) -> None:
    NotebookWriter(path, meta(limits={"turns": 3, "seconds": float("inf")}), [])
    assert load(path).metadata.rlm.limits == {"turns": 3, "seconds": None}


# Any text

_ANY = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    ["\ud800", "a\udcffb", "\0", "\r", "\x85\u2028", "```\n", "</script>"]
)
_SECRETS = st.lists(
    st.text(st.characters(codec=None), min_size=8, max_size=12) | st.sampled_from(SECRETS), max_size=2
)


@given(
    words=_ANY,
    code=_ANY,
    secrets=_SECRETS,
    value=st.recursive(_ANY | st.floats() | st.none(), lambda c: st.lists(c, max_size=2), max_leaves=3),
)
@settings(max_examples=30, deadline=None)
def test_any_text_leaves_a_valid_notebook(words: str, code: str, secrets: list[str], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.ipynb")
        writer = NotebookWriter(path, meta(words, detail=words), secrets)
        records = [call(preview=words, answer=value, error=words, model=words)]
        events: list[Event] = [
            TurnReplied(1, Completion(words, words, cost=float("nan")), words),
            CellStarted("turn-01-a", 1, code),
            CallFinished("turn-01-a", records[0]),
            CellFinished(
                1, result("turn-01-a", code, outputs=[stream(words), failure(words, words)], calls=records)
            ),
            Noted(words),
            RunFinished(Outcome(Answer(words), "answered", detail=words), Totals()),
        ]
        tell(writer, events[:3])
        load(path)
        tell(writer, events[3:])
        load(path)
        if not secrets:
            written = cell(load(path), "turn-01-a")
            assert written.source == code.encode("utf-8", "replace").decode()
            assert written.outputs[1].text == words.encode("utf-8", "replace").decode()

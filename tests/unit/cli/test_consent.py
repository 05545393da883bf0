"""The question in the terminal, at a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlm_kernel.cli._consent import approval_in, asking_in, calls_in, consent_in
from rlm_kernel.engine.approval import Expected
from rlm_kernel.sandbox.grants import Consent
from rlm_kernel.views.live import LiveView

QUESTION = "Allow? [y/N] "


class Terminal:
    """Both ends: `type` is what the user does, `shown` what they have seen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.keyboard, inner = os.openpty()
        self.inner = os.fdopen(inner, "r+b", buffering=0)
        self.stdin = os.fdopen(os.dup(inner), encoding="utf-8")
        self.stderr = os.fdopen(os.dup(inner), "w", encoding="utf-8")
        self.shown = ""

    def sit(self) -> None:
        """Have this process at the terminal.

        Called in the test itself: pytest sets the streams when it begins.
        """
        for name in ("stdin", "stderr"):
            self._monkeypatch.setattr(f"sys.{name}", getattr(self, name))

    def consent(self, view: LiveView) -> Consent:
        found = consent_in(view)
        assert found is not None
        return found

    def view(self) -> LiveView:
        self.sit()
        return LiveView()

    def type(self, text: str) -> None:
        os.write(self.keyboard, text.encode())

    async def until(self, text: str, count: int = 1) -> None:
        """Read what is shown until it has that text so often."""
        async with asyncio.timeout(30):
            while self.shown.count(text) < count:
                self.shown += (await asyncio.to_thread(os.read, self.keyboard, 65536)).decode()

    def close(self) -> None:
        for file in (self.inner, self.stdin, self.stderr):
            file.close()
        os.close(self.keyboard)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "allowed"),
    [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("what?\n", False), ("\x04", False)],
)
async def test_only_a_yes_allows(typed: str, allowed: bool, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"x" * 1_234_567)
    with terminal.view() as view:
        consent = terminal.consent(view)
        asking = asyncio.ensure_future(consent(tmp_path / "x.log"))
        await terminal.until(QUESTION)
        terminal.type(typed)
        assert await asking is allowed
    shown = terminal.shown.replace("\r\n", "")
    assert (
        f"rlm: the model wants to read {tmp_path / 'x.log'} (1.2 MB), which you did not name. Allow? [y/N] "
        in shown
    )


async def test_what_was_typed_before_is_no_answer(terminal: Terminal, tmp_path: Path) -> None:
    consent = terminal.consent(terminal.view())
    terminal.type("y\n")
    asking = asyncio.ensure_future(consent(tmp_path))
    await terminal.until(QUESTION)
    terminal.type("n\n")
    assert await asking is False
    assert "(a folder)" in terminal.shown


async def test_a_files_name_cannot_look_like_more_than_that(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\nrlm: all is well\u202e\r"
    path.write_text("")
    consent = terminal.consent(terminal.view())
    asking = asyncio.ensure_future(consent(path))
    await terminal.until(QUESTION)
    assert "a�[2J�rlm: all is well�� (0 bytes)" in terminal.shown
    terminal.type("\n")
    await asking


async def test_the_live_line_is_away_while_it_asks_and_back_afterwards(
    terminal: Terminal, tmp_path: Path
) -> None:
    with terminal.view() as view:
        await terminal.until("starting")
        consent = terminal.consent(view)
        asking = asyncio.ensure_future(consent(tmp_path))
        await terminal.until(QUESTION)
        asked = terminal.shown.index(QUESTION)
        await asyncio.sleep(0.6)  # more than two redraws of the line, were it there
        terminal.type("\n")
        await asking
        view.say("going on")
        await terminal.until("going on")
        between = terminal.shown[asked : terminal.shown.index("going on")]
    assert len(re.findall("turn 0", between)) <= 2


async def test_an_interrupted_question_leaves_the_terminal_to_the_next(
    terminal: Terminal, tmp_path: Path
) -> None:
    consent = terminal.consent(terminal.view())
    asking = asyncio.ensure_future(consent(tmp_path))
    await terminal.until(QUESTION)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    again = asyncio.ensure_future(consent(tmp_path))
    await terminal.until(QUESTION, 2)
    terminal.type("y\n")
    assert await again


def test_where_nobody_can_be_asked_there_is_no_question(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    terminal.sit()
    assert consent_in(LiveView()) is not None
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert consent_in(LiveView()) is None
    monkeypatch.setattr("sys.stdin", terminal.stdin)
    with open(os.devnull, "w") as nothing:
        monkeypatch.setattr("sys.stderr", nothing)
        assert consent_in(LiveView()) is None
    monkeypatch.setattr("sys.stderr", terminal.stderr)
    monkeypatch.setenv("CI", "true")
    assert not any(asking_in(LiveView()).values())
    monkeypatch.setenv("CI", "false")
    assert all(asking_in(LiveView()).values())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("y\n", True),
        ("YES\n", True),
        ("\n", False),
        ("n\n", False),
        ("5\n", False),
        ("a\n", "always"),
        ("Always\n", "always"),
    ],
)
async def test_only_a_yes_or_always_lets_code_spend(typed: str, said: object, terminal: Terminal) -> None:
    approve = approval_in(terminal.view())
    assert approve is not None
    asking = asyncio.ensure_future(approve(Expected(5000, "openai/x", 12.4)))  # type: ignore[arg-type]
    await terminal.until("always for this run] ")
    assert (
        "rlm: the code wants to make 5,000 calls of openai/x, for about $12.40; no cost limit is set. Continue? "
        "[y/N/a=always for this run] "
    ) in terminal.shown
    terminal.type(typed)
    assert await asking == said
    if said == "always":
        assert await approve(Expected(9000, "openai/x", 900.0)) == "always", "nobody is asked any more"  # type: ignore[misc]


async def test_a_question_of_money_waits_for_one_of_files_and_is_on_one_line(
    terminal: Terminal, tmp_path: Path
) -> None:
    view = terminal.view()
    consent, approve = terminal.consent(view), approval_in(view)
    assert approve is not None
    first = asyncio.ensure_future(consent(tmp_path))
    await terminal.until(QUESTION)
    wanted = Expected(1, "x\nrlm: all is well\x1b[2J", 0.01, spent=1.02)
    second = asyncio.ensure_future(approve(wanted))  # type: ignore[arg-type]
    terminal.type("n\n")
    assert await first is False
    await terminal.until("always for this run] ")
    assert (
        "calls have cost about $1.02 so far, and it wants to continue to call x�rlm: all is well�[2J;"
        in terminal.shown
    )
    terminal.type("y\n")
    assert await second is True
    for count, beside in enumerate((Expected(5, "m", 2.0, 1.5), Expected(1, "m", 2.0)), 2):
        third = asyncio.ensure_future(approve(beside))  # type: ignore[arg-type]
        await terminal.until("always for this run] ", count)
        terminal.type("\n")
        assert await third is False
    assert (
        "wants to make 5 calls of m, for about $2, in addition to calls that have cost about $1.50 so far;"
        in terminal.shown
    )
    assert "wants to make a call of m, for about $2;" in terminal.shown


async def test_a_call_of_a_tool_is_shown_with_its_arguments_on_one_line(terminal: Terminal) -> None:
    allow = calls_in(terminal.view())
    assert allow is not None
    arguments = {"to": "a@b\x1b[2J\nrlm: allowed", "n": 3}
    for number, (typed, expected) in enumerate([("y\n", True), ("\n", False), ("a\n", "always")], 1):
        asking = asyncio.ensure_future(allow("send", arguments))  # type: ignore[arg-type]
        await terminal.until("always for this tool] ", number)
        terminal.type(typed)
        assert await asking == expected
    wanted = r"rlm: the code wants to call send(to='a@b\x1b[2J\nrlm: allowed', n=3). Allow?"
    assert wanted in terminal.shown

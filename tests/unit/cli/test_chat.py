"""`rlm chat` from a pipe, and what it makes of a message and of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from rlm_kernel.cli._answer import show_answer
from rlm_kernel.cli._chat_input import Pipe, is_open, typed
from rlm_kernel.config import Settings
from rlm_kernel.session.environment import Host
from rlm_kernel.session.models import ModelSet
from rlm_kernel.session.session import Session
from rlm_kernel.session.state import SessionFolder
from tests.support.chatting import MARKDOWN, FakeSession, chat_over


class Piped:
    """A chat whose messages come from a pipe, and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    async def __call__(
        self,
        typed: str | bytes,
        *,
        as_json: bool = False,
        quiet: bool = False,
        talk: Sequence[tuple[str, str | None]] = (),
    ) -> FakeSession:
        stdin_is(typed, self._monkeypatch)
        chat, session = chat_over(as_json=as_json, quiet=quiet, talk=talk)
        self.code = await chat.run()
        self.out, self.err = self._capsys.readouterr()
        return session


def stdin_is(typed: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = typed if isinstance(typed, bytes) else typed.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))


@pytest.fixture
def piped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Piped:
    return Piped(capsys, monkeypatch)


async def test_each_line_is_a_message_and_answers_alone_go_to_stdout(piped: Piped) -> None:
    session = await piped("one\n\n   \nmarkdown\ntwo")
    assert session.asked == ["one", "markdown", "two"]
    assert piped.out == f"one\n{MARKDOWN}\ntwo\n"
    assert piped.err.count("memory: 12,340 → 410 tokens") == 2, "before each further question"
    assert piped.err.count("2 turns, 0 sub-calls") == 3
    assert piped.code == 0


async def test_lines_that_go_on_are_one_message(piped: Piped) -> None:
    session = await piped(
        'one \\\nline\nread\n```\na = 1\n\nb = 2\n```\n"""x\ny"""\nleft ```open\nto the end'
    )
    assert session.asked == [
        "one \nline",
        "read",
        "```\na = 1\n\nb = 2\n```",
        '"""x\ny"""',
        "left ```open\nto the end",
    ]


async def test_the_exit_code_is_that_of_the_last_question(piped: Piped) -> None:
    await piped("find nothing\n/cost\n")
    assert piped.code == 1
    assert "no answer (turns)" in piped.err
    await piped("find nothing\none\n")
    assert piped.code == 0
    await piped("one\nbe lost\n")
    assert piped.code == 1


async def test_an_error_is_told_and_the_chat_goes_on(piped: Piped, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await piped("be lost\nrebuild\n")
    assert session.asked == ["be lost", "rebuild"]
    assert "rlm: The kernel was lost.\nAsk again.\n" in piped.err
    assert "It was rebuilt." in piped.err
    assert "Traceback" not in piped.err
    monkeypatch.setenv("RLM_DEBUG", "1")
    session = await piped("be lost\nrebuild\n")
    assert session.asked == ["be lost", "rebuild"]
    assert "Traceback" in piped.err


@pytest.mark.parametrize(
    "failure",
    [
        RecursionError("too deep"), MemoryError(), ValueError("4300 digits"), asyncio.InvalidStateError("done"),
        ExceptionGroup("unhandled errors in a TaskGroup", [KeyError("a")]), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"),
    ],
    ids=lambda failure: type(failure).__name__,
)  # fmt: skip
async def test_whatever_fails_in_a_question_or_its_viewer_the_chat_goes_on(
    failure: Exception, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise failure

    named = "KeyError" if isinstance(failure, ExceptionGroup) else type(failure).__name__
    for broken in ("tests.support.chatting.FakeSession._finish", "rlm_kernel.cli._chat.show_answer"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, fail)
            session = await piped("one\n/status\ntwo\n")
        assert session.asked == ["one", "two"]
        assert piped.err.count(f"rlm: This is a bug in rlm_kernel: {named}") == 2
        assert "found: list, 2 long" in piped.err
        assert "Traceback" not in piped.err


async def test_json_is_an_object_a_question(piped: Piped) -> None:
    await piped("one\n/status\nbe lost\n/nonsense\nfind nothing\n", as_json=True)
    first, lost, nothing = map(json.loads, piped.out.splitlines())
    assert (first["question"], first["answer"], first["turns"], first["trace"]) == (
        "one",
        "one",
        2,
        "a.ipynb",
    )
    assert (lost["question"], lost["answer"], lost["error"], lost["hint"]) == (
        "be lost",
        None,
        "The kernel was lost.",
        "Ask again.",
    )
    assert (nothing["answer"], nothing["stop_reason"]) == (None, "turns")


async def test_commands_do_what_they_say_on_stderr(piped: Piped) -> None:
    session = await piped(
        "/help\n/files\n/status\n/trace\n/cost\n/load 'a b' c\\ d\n/undo\n/undo\n", talk=[("q", "a")]
    )
    assert session.asked == []
    assert session.loaded == ["a b", "c d"]
    assert piped.out == ""
    for said in [
        "/load PATH …",
        "b.log: 1,234 characters (active)",
        "found: list, 2 long",
        "a.ipynb",
        "5 turns, 1,234 sub-calls",
    ]:
        assert said in piped.err
    for said in [
        "loaded a b\nloaded c d",
        "It was taken back.",
        "There is no question to undo.\nAsk one first.",
    ]:
        assert said in piped.err


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("/hlep", "There is no command /hlep.\nDid you mean /help?"),
        ("/STATUS", "There is no command /STATUS."),
        ("/xyzzy now", "There is no command /xyzzy.\n/help lists the commands."),
        ("/load", "No file is named."),
        ("/load 'a", "not valid paths"),
        ("/load -", "your messages come from there"),
        ("/load a -", "your messages come from there"),
    ],
)
async def test_what_is_no_command_is_told_and_not_sent(message: str, said: str, piped: Piped) -> None:
    session = await piped(message)
    assert session.asked == session.loaded == []
    assert said in piped.err


@pytest.mark.parametrize(
    "message",
    [
        "/etc/passwd has how many lines?",
        "/tmp",
        "/no/such has what?",
        "what is /help",
        "/" + "x/" * 3000,
        "// is a comment",
    ],
)
async def test_what_looks_like_a_path_is_a_message(message: str, piped: Piped) -> None:
    assert (await piped(message)).asked == [message]


async def test_a_word_too_long_for_a_file_system_is_no_command(piped: Piped) -> None:
    session = await piped("/" + "x" * 5000)
    assert session.asked == []
    assert "There is no command /xxx" in piped.err


@pytest.mark.parametrize("message", ["/quit", "/exit", "/quit now", "  /quit  "])
async def test_leaving_leaves_the_rest_unasked(message: str, piped: Piped) -> None:
    session = await piped(f"one\n{message}\ntwo\n")
    assert session.asked == ["one"]
    assert "ends by itself after 2 h without use" in piped.err


@pytest.mark.parametrize("message", ["exit", "quit", "quit()", ":q", "Q", "/q", ":wq"])
async def test_people_leave_as_they_leave_other_programs(message: str, piped: Piped) -> None:
    session = await piped(f"one\n{message}\ntwo\n")
    assert session.asked == ["one"]
    assert not session.stopped
    assert "The session keeps running" in piped.err


@pytest.mark.parametrize("message", ["/stop", "stop", "rlm stop", " rlm  stop "])
async def test_stop_ends_the_session_and_the_chat(message: str, piped: Piped) -> None:
    session = await piped(f"one\n{message}\ntwo\n")
    assert session.asked == ["one"]
    assert session.stopped
    assert "The session has ended. Its trace: a.ipynb" in piped.err
    assert "The session keeps running" not in piped.err


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("help", "/load PATH"),
        ("?", "/load PATH"),
        ("rlm --help", "/load PATH"),
        ("rlm status", "found: list, 2 long"),
        ("rlm status --json", "was not sent to a model.\nTo run it, leave with Ctrl-D"),
        ("rlm stop --keep", "is a shell command"),
        ('rlm ask "How many?" -f a.log', "Type a question here as it is"),
        ("rlm replay t.ipynb", "was not sent to a model"),
    ],
)
async def test_commands_of_the_shell_are_no_questions(message: str, said: str, piped: Piped) -> None:
    session = await piped(f"{message}\n")
    assert session.asked == []
    assert said in piped.err


@pytest.mark.parametrize(
    "message",
    ["'rlm stop'", "rlm is what?", "stop words: how many?", "exit codes", "rlm", "help me", "quit rate?"],
)
async def test_questions_with_such_words_are_questions(message: str, piped: Piped) -> None:
    assert (await piped(f"{message}\n")).asked == [message]


async def test_nothing_more_is_asked_once_nobody_reads_the_answers(
    piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_kernel.cli._chat.lost", lambda: BrokenPipeError())
    assert (await piped("one\ntwo\n")).asked == ["one"]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("a question\r", "a question"),
        ("\n\r\n", ""),
        ("one\rtwo\n", "one\ntwo"),
        ("\x1b[A\x1b[1;5Cx\x1bOP\x1by", "x"),
        ("\x1b[200~pas\tted\x1b[201~", "pas\tted"),
        ("\x04\x03a\x00\x7f", "a"),
        ("für ü \U0001f600", "für ü \U0001f600"),
        ("cut \x1b[", "cut"),
    ],
)
def test_of_keys_that_were_typed_ahead_their_text_is_kept(keys: str, text: str) -> None:
    assert typed(keys) == text


async def test_bytes_that_are_no_text_are_replaced(piped: Piped) -> None:
    assert (await piped(b"caf\xe9 \xff?\nsp\xc3\xa4t\r\n")).asked == ["caf� �?", "spät"]


async def test_the_greeting_says_what_the_session_has(piped: Piped) -> None:
    await piped("", talk=[("How many?", "Three."), ("And\nnow?", "x" * 1000)])
    for said in [
        "The kernel is as you left it.", "default: idle; ends after 2 h", "a.ipynb", "root some/root, sub "
                                                                                     "some/root", "b.log", "c.log",
        "2 questions so far, the last: And now?", "Its answer: " + "x" * 300 + "…\n", "Ctrl-D leaves",
    ]:  # fmt: skip
        assert said in piped.err
    assert "found" not in piped.err, "variables are for /status"
    await piped("", talk=[("How many?", None)])
    assert "1 question so far, the last: How many?\nIt has no answer." in piped.err


async def test_quiet_says_nothing_but_errors_and_what_is_asked_for(piped: Piped) -> None:
    await piped("one\n/trace\n/nonsense\n", quiet=True)
    assert piped.out == "one\n"
    assert piped.err == "a.ipynb\nrlm: There is no command /nonsense.\n/help lists the commands.\n"


def test_an_answer_in_a_terminal_is_markdown_that_can_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stdout(screen):
        show_answer(MARKDOWN)
    shown = screen.getvalue()
    assert "# Title" not in shown
    assert "**" not in shown
    assert "\x1b[1mbold\x1b[0m" in shown
    assert "[red]not markup[/red]" in shown
    assert "link (https://x.example)" in re.sub(r"\x1b\[[0-9;]*m", "", shown), "where it leads is seen"
    assert "\x1b]8" not in shown
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown
    assert shown.endswith("\n")
    assert not shown.endswith("\n\n")
    assert not [line for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\n") if line.endswith(" ")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("```", True),
        ("```a```", False),
        ('"""', True),
        ('"""\n```\n"""', True),
        ("a `b`", False),
    ],
)
def test_a_block_is_open_until_it_is_closed(text: str, expected: bool) -> None:
    assert is_open(text) is expected


async def test_a_pipe_that_is_slow_does_not_stop_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(read, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        line = asyncio.ensure_future(Pipe().line())
        await asyncio.sleep(0)
        os.write(write, b"late\n")
        assert await line == "late"
        os.close(write)
        with pytest.raises(EOFError):
            await Pipe().line()


async def test_a_question_stopped_while_the_models_get_ready_leaves_them_to_the_next() -> None:
    models: asyncio.Future[ModelSet] = asyncio.get_running_loop().create_future()
    folder = SessionFolder(Path(".rlm_state"))
    kept = Session(folder, folder.begin(Path("a.ipynb"), {}), Host(Settings()))
    kept.models = models
    turn = asyncio.ensure_future(kept.ask("one"))
    await asyncio.sleep(0)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert not models.cancelled()

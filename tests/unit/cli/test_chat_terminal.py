"""`rlm chat` in a pseudo-terminal, over a session that is none: what keys do."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.sandbox import until
from tests.support.terminal import Terminal

CHAT = (sys.executable, "-m", "tests.support.chatting")
PASTE = "\x1b[200~{}\x1b[201~"
ENTER, UP, CTRL_C, CTRL_D, TAB = "\r", "\x1b[A", "\x03", "\x04", "\t"


@pytest.fixture
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
async def chat(_importable: None) -> AsyncIterator[Terminal]:
    """Prints the messages that it gets as JSON, so that they can be read as they arrived."""
    async with Terminal(*CHAT, "--json") as terminal:
        await terminal.type("", "›")
        yield terminal


async def test_messages_of_several_lines(chat: Terminal) -> None:
    await chat.type("one\x1b\rtwo\\\rthree" + ENTER, r'"question": "one\ntwo\nthree"')
    await chat.type("", "2 turns, 0 sub-calls")
    await chat.type("", "›")
    await chat.type("```\rx = 1\r```" + ENTER, r'"question": "```\nx = 1\n```"')
    await chat.type("", "2 turns, 0 sub-calls")
    await chat.type("", "›")
    await chat.type(PASTE.format("a\nb\n\nc"), "c")
    assert chat.text.count('"question"') == 2, "what is pasted is not sent"
    await chat.type(ENTER, r'"question": "a\nb\n\nc"')


async def test_lines_are_edited_and_remembered_beyond_the_chat(chat: Terminal) -> None:
    await chat.type(
        "wrold\x02\x02\x02\x02\x04\x1b[Cr" + ENTER, '"question": "world"'
    )  # back to the r, away with it, on, and in again
    await chat.type("", "›")  # before the prompt, a Ctrl-D is nobody's
    await chat.type(CTRL_D, "rlm stop` ends it")
    assert await chat.ended() == 0
    async with Terminal(*CHAT, "--json") as again:
        await again.type("", "›")
        await again.type(UP + "!" + ENTER, '"question": "world!"')


async def test_lines_that_come_at_once_are_one_message_also_where_pasting_is_not_marked(
    chat: Terminal,
) -> None:
    await chat.type("first\rsecond\rthird\r", "third")
    os.write(chat.keyboard, ENTER.encode())
    # On a busy machine the last of the lines may come alone, and send them.
    await until(lambda: r'"question": "first\nsecond\nthird"' in chat.text)
    await chat.type("", "2 turns, 0 sub-calls")
    await chat.type("", "›")
    # The editor has begun: what comes before is typed ahead, and is not sent.
    await until(lambda: not termios.tcgetattr(chat.keyboard)[3] & (termios.ICANON | termios.ECHO))
    await chat.type("twice by mistake\r\r", r'"question": "twice by mistake"')
    await chat.type("", "2 turns, 0 sub-calls")
    await chat.type("", "›")
    assert chat.text.count('"question"') == 2


async def test_what_is_typed_ahead_is_there_to_be_edited_and_is_not_sent(chat: Terminal) -> None:
    await chat.type("wait" + ENTER, "now waiting, number 1")
    await chat.type("ahead\rand mo", "and mo")  # shown by the terminal itself
    chat.process.send_signal(signal.SIGINT)  # the key would have the terminal forget what was typed
    await chat.type("", "Stopped")
    await chat.type("", "and mo")
    await chat.type("re" + ENTER, r'"question": "ahead\nand more"')
    assert chat.text.count('"question"') == 1


async def test_of_what_is_typed_ahead_commands_are_done_as_they_cost_nothing(chat: Terminal) -> None:
    await chat.type("wait" + ENTER, "now waiting, number 1")
    await chat.type("/quit" + ENTER, "/quit")
    chat.process.send_signal(signal.SIGINT)
    await chat.type("", "rlm stop` ends it")
    assert await chat.ended() == 1


async def test_commands_and_paths_are_completed(isolated: Path, chat: Terminal) -> None:
    for name in ("a file.txt", "other"):
        (isolated / "cwd" / name).mkdir()
    await chat.type("/tra" + TAB, "ce")
    await chat.type(ENTER, "a.ipynb")
    await chat.type("", "›")
    await chat.type("/load a" + TAB, "file.txt")
    await chat.type(" oth" + TAB, "er")
    await chat.type(ENTER, "loaded other")
    assert "loaded a file.txt" in chat.text


async def test_ctrl_c_clears_the_line_and_says_how_to_leave(chat: Terminal) -> None:
    await chat.type("not this", "this")
    await chat.type(CTRL_C, "(Ctrl-D or /quit leaves)")
    await chat.type("", "›")
    await chat.type("but this" + ENTER, '"question": "but this"')


async def test_ctrl_c_stops_a_question_and_the_next_one_is_answered(chat: Terminal) -> None:
    await chat.type("wait" + ENTER, "now waiting, number 1")
    await chat.type(CTRL_C, "Stopped. The session continues.")
    await chat.type("", "›")
    await chat.type("wait" + ENTER, "now waiting, number 2")
    chat.process.send_signal(signal.SIGINT)
    await chat.type("", "Stopped. The session continues.")
    await chat.type("", "›")
    await chat.type("and now" + ENTER, '"question": "and now"')
    await chat.type("", "2 turns, 0 sub-calls")
    await chat.type("", "›")
    await chat.type("/quit" + ENTER, "rlm stop` ends it")
    assert await chat.ended() == 0


async def test_a_second_ctrl_c_leaves_and_gives_the_cursor_back(chat: Terminal) -> None:
    await chat.type("wait stubbornly" + ENTER, "now waiting")
    await chat.type(CTRL_C, "does not stop")
    os.write(chat.keyboard, CTRL_C.encode())
    assert await chat.ended() == 130
    await until(lambda: chat.seen.rfind(b"\x1b[?25h") > chat.seen.rfind(b"\x1b[?25l"))


@pytest.mark.parametrize("moment", ["at the prompt", "in a question"])
async def test_sigterm_leaves_whatever_is_done(moment: str, chat: Terminal) -> None:
    if moment == "in a question":
        await chat.type("wait" + ENTER, "now waiting")
    chat.process.send_signal(signal.SIGTERM)
    assert await chat.ended() == 130


async def test_ctrl_d_leaves_a_question_that_found_nothing_with_its_code(chat: Terminal) -> None:
    await chat.type("find nothing" + ENTER, "no answer")
    await chat.type("", "›")
    await chat.type(CTRL_D, "rlm stop` ends it")
    assert await chat.ended() == 1


@pytest.mark.usefixtures("_importable")
async def test_answers_are_rendered_and_the_account_stands_below() -> None:
    async with Terminal(*CHAT) as chat:
        await chat.type("", "›")
        await chat.type("one" + ENTER, "2 turns, 0 sub-calls")
        await chat.type("", "›")
        await chat.type("markdown" + ENTER, "2 turns, 0 sub-calls, 12,750 tokens")
        assert "[red]not markup[/red]" in chat.text
        assert "**" not in chat.text
        assert b"\x1b[2J" not in chat.seen
        assert (
            chat.text.index("memory:")
            < chat.text.index("not markup")
            < chat.text.index("2 turns, 0 sub-calls, 12,750 tokens")
        )

"""The live view of a real run in a real pseudo-terminal: a window that changes, Ctrl-Z and `fg`, Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from pathlib import Path

import pytest

from tests.support.model_server import ModelServer
from tests.support.sandbox import until
from tests.support.terminal import Terminal

ROOT = "I wait.\n```repl\nimport time\nprint('begun')\ntime.sleep(600)\n```"


def sized(terminal: Terminal, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def cursor_shown(terminal: Terminal) -> bool:
    return terminal.seen.rfind(b"\x1b[?25h") > terminal.seen.rfind(b"\x1b[?25l")


@pytest.mark.usefixtures("openai_env")
async def test_a_window_that_changes_ctrl_z_fg_and_ctrl_c_leave_a_clean_terminal(
    openai_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai_env.root = [ROOT]
    monkeypatch.delenv("NO_COLOR", raising=False)
    rlm = f"{sys.executable} -m rlm_kernel ask Q -m openai/root --trace {tmp_path / 't.ipynb'}"
    # A shell that controls jobs, as it is typed at.
    async with Terminal("bash", "--norc", "--noprofile", "-i") as terminal:
        sized(terminal, 80, 24)
        await terminal.type("PS1='> '\r", "> ")
        await terminal.type(f"{rlm}\r", "begun")
        assert not cursor_shown(terminal)
        sized(terminal, 44, 24)
        mark = len(terminal.seen)
        await until(lambda: b"turn 1" in terminal.seen[mark:])
        os.write(terminal.keyboard, b"\x1a")
        await terminal.type("", "Stopped")
        assert cursor_shown(terminal)
        await terminal.type("echo still-here\r", "still-here\r\n")
        await terminal.type("fg\r", "cell turn-01-a runs")
        assert not cursor_shown(terminal)
        await terminal.type("\x03", "rlm: interrupted")
        await terminal.type("", "> ")
        assert cursor_shown(terminal)
        after = terminal.text[terminal.text.rfind("rlm: interrupted") :]
        assert "runs" not in after, "no frame is drawn any more"
        await terminal.type("exit\r", "exit")

"""`rlm chat`, `rlm init` and `rlm run` in a pseudo-terminal, with models over HTTP: as people use them."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.messages import SUM_UP
from rlm_kernel.session.running import discard
from rlm_kernel.session.state import SessionFolder, sessions
from tests.integration.conftest import Rlm
from tests.support.model_server import ModelServer
from tests.support.sandbox import until
from tests.support.terminal import Terminal

pytestmark = pytest.mark.usefixtures("kernel_image")
RLM = (sys.executable, "-m", "rlm_kernel")
_LOAD = re.compile(r"(?:Load|Summarise|in) (?:the file at )?(/\S+?)[.?]?(?:\n|$)")


def root(messages: list[dict[str, Any]]) -> str:
    """Loads what it is told to load, and answers with what it has; sums up when it is asked to."""
    texts = [message["content"] for message in messages if message["role"] == "user"]
    if SUM_UP in texts[-1]:
        return "The log was looked at."
    question = re.findall(r"(?:Question|are there): (.*)", "\n".join(texts))[-1]
    if "sleep" in question:
        return "```repl\nprint(context[:4], 'asleep'); import time; time.sleep(1000)\n```"
    if named := _LOAD.search(question):
        return f"```repl\ntext = load_file({named[1]!r})\nFINAL(f'**loaded** {{len(text)}} characters')\n```"
    return (
        "```repl\nprint('looking ' * 200)\nFINAL(f'# Lines\\n\\n{len(context.splitlines())} in "
        "`{list(files)}`')\n```"
    )


@pytest.fixture
def talk(openai_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    openai_env.root = root
    monkeypatch.setenv("RLM_MODEL", "openai/root")
    monkeypatch.setenv("RLM_SUB_MODEL", "openai/sub")
    monkeypatch.setenv("RLM_SANDBOX__MEMORY", "1g")
    yield openai_env
    for name in sessions(Path(".rlm_state").absolute()):
        state = SessionFolder(Path(".rlm_state"), name).read()
        if state is not None:
            discard(state.run)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.write_text("one\ntwo\nthree\n")
    return path


async def test_init_then_chat(talk: ModelServer, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MEMORY_COMPACTION__TOKENS", "100")
    async with Terminal(*RLM, "init", str(log)) as terminal:
        assert await terminal.ended() == 0
        assert "a.log: 14 characters (active)" in terminal.text
    async with Terminal(*RLM, "chat") as chat:
        await chat.type("", "Ctrl-D leaves")
        assert "as you left it" in chat.text
        await chat.type("How many lines?\r", "3 in")
        assert not re.search(r"^# Lines\r?$", chat.text, re.MULTILINE), "markdown is rendered"
        await chat.type("", "1 turn,")
        await chat.type("", "›")
        assert "memory:" not in chat.text, "nothing is summed up before there is another question"
        await chat.type("Do sleep now\r", "memory:")
        await chat.type("", "cell turn-02-a runs")
        await chat.type("\x03", "The session continues.")
        await chat.type("/status\r", "ends after 10 min without use")
        await chat.type("/hlep\r", "Did you mean /help?")
        await chat.type("", "›")
        await chat.type("How many\x1b\rlines now?\r", "3 in")
        await chat.type("", "1 turn,")
        await until(lambda: chat.text.rstrip("\b ").endswith("›"))
        await chat.type("/undo\r", "was undone")
        await until(lambda: chat.text.rstrip("\b ").endswith("›"))
        await chat.type("\x04", "rlm stop` ends it")
        assert await chat.ended() == 0


async def test_chat_then_load_the_file_at_an_absolute_path(talk: ModelServer, log: Path) -> None:
    async with Terminal(*RLM, "chat") as chat:
        await chat.type("", "Ctrl-D leaves")
        await chat.type(f"Load the file at {log}\r", "14 characters")
        assert "**loaded** 14" not in chat.text
        await chat.type("", "›")
        await chat.type("How many lines?\r", "3 in")
        await chat.type("/files\r", "a.log: 14 characters")
        await chat.type("/trace\r", ".ipynb")
        await chat.type("/quit\r", "keeps running")
        assert await chat.ended() == 0


async def test_run_with_a_path_in_the_question(talk: ModelServer, log: Path) -> None:
    async with Terminal(*RLM, "run", f"How many characters are in {log}") as run:
        assert await run.ended() == 0
        assert "loaded 14 characters" in run.text


def test_from_a_pipe_each_line_is_a_message_and_answers_are_raw(
    talk: ModelServer, log: Path, rlm: Rlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"How many lines?\n\n/nonsense\nAnd now?\n"))
    )
    done = rlm("chat", "-f", str(log))
    assert done.stdout == "# Lines\n\n3 in `['a.log']`\n" * 2
    assert "There is no command /nonsense" in done.stderr
    assert done.returncode == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "2 questions so far, the last: And now?" in rlm("chat").stderr
    done = rlm("run", "How many lines?", "--json", "--quiet")
    assert json.loads(done.stdout)["answer"] == "# Lines\n\n3 in `['a.log']`"
    assert done.stderr == ""

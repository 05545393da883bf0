"""Whole runs of `rlm` whose standard streams fail: the answer is in the trace, and nothing that nobody can
read is paid for.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rlm_kernel.session.running import discard
from rlm_kernel.session.state import SessionFolder
from rlm_kernel.trace.reader import read_trace
from tests.support.model_server import ModelServer
from tests.support.sandbox import until
from tests.support.terminal import Terminal

pytestmark = pytest.mark.usefixtures("kernel_image")
RLM = f"{shlex.quote(sys.executable)} -m rlm_kernel"
ASK = "ask Q -m openai/root -f a.log --trace"


@pytest.fixture(autouse=True)
def _log(openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    Path("a.log").write_text("one\ntwo\n")
    openai_env.root = lambda messages: (
        "```repl\nllm_query('any'); FINAL(f'{len(context.splitlines())} lines \\u20ac \\ud800 \\x00')\n```"
    )


def start(line: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {line}"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def ended(running: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=110)
    told = err.decode()
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    return running.returncode, out.decode("ascii", "backslashreplace"), told


def answer_in(trace: str) -> str:
    return next(str(cell.source) for cell in nbformat.read(trace, 4).cells if cell.id == "answer")


def test_the_answer_is_in_the_trace_wherever_it_could_not_be_written() -> None:
    full = start(f"{RLM} {ASK} full.ipynb --json --quiet > /dev/full")
    closed = start(f"{RLM} {ASK} closed.ipynb >&- 2>&- <&-")
    code, _, told = ended(full)
    assert (code, "No space left on device" in told, "trace: full.ipynb" in told) == (1, True, True)
    assert ended(closed) == (1, "", "")
    unread = start(f"{{ {RLM} {ASK} unread.ipynb; }} | true")
    ask = ASK.replace("Q", "-")
    plain = start(
        f"umask 077; printf 'caf\\xe9?' | PYTHONIOENCODING=ascii {RLM} {ask} plain.ipynb --json 2>&-"
    )
    code, _, told = ended(unread)
    assert (code, "its reader has closed it" in told) == (1, True)
    code, out, _ = ended(plain)
    assert (code, json.loads(out)["answer"].startswith("2 lines \u20ac")) == (0, True)
    assert nbformat.read("plain.ipynb", 4).metadata.rlm.question == "caf\N{REPLACEMENT CHARACTER}?"
    for trace in ("full", "closed", "unread", "plain"):
        assert "2 lines \u20ac" in answer_in(f"{trace}.ipynb")
    replayed = [
        start(f"{RLM} replay plain.ipynb {place}") for place in ("> /dev/full", ">&- 2>&-", "2> /dev/full")
    ]
    assert [ended(one)[0] for one in replayed] == [1, 1, 0]


def test_a_session_goes_on_and_a_chat_that_nobody_reads_asks_no_more(openai_env: ModelServer) -> None:
    folder = SessionFolder(Path(".rlm_state").absolute())
    try:
        assert ended(start(f"{RLM} init a.log --quiet >&- 2>&-"))[0] == 0
        assert ended(start(f"{RLM} run Q -m openai/root > /dev/full"))[0] == 1
        code, _, told = ended(
            start(f"printf 'one\\ntwo\\nthree\\n' | {RLM} chat -m openai/root --json | true")
        )
        assert (code, "its reader has closed it" in told) == (1, True)
        state = folder.read()
        assert state is not None
        questions = [cell.source for cell in read_trace(state.trace).cells if cell.kind == "question"]
        assert not any("two" in question for question in questions)
    finally:
        state = folder.read()
        if state is not None:
            discard(state.run)


async def test_a_terminal_that_goes_away_interrupts_the_run_which_closes_its_trace(
    openai_env: ModelServer,
) -> None:
    openai_env.root = lambda messages: (
        "```repl\nprint('be' + 'gun', flush=True)\nimport time; time.sleep(99)\n```"
    )
    async with Terminal(sys.executable, "-m", "rlm_kernel", *ASK.split(), "t.ipynb") as terminal:
        await until(lambda: Path("t.ipynb").exists() and "begun" in Path("t.ipynb").read_text(), 60)
        asyncio.get_running_loop().remove_reader(terminal.keyboard)
        os.close(terminal.keyboard)
        terminal.keyboard = os.open(os.devnull, os.O_RDWR)
        assert await terminal.ended() == 130
    assert read_trace(Path("t.ipynb")).meta.stop_reason == "interrupted"

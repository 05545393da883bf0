"""What cells print, show, raise and answer, against real sessions: in the host's memory, in the trace, in a
terminal, in JupyterLab.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel import RLM, ScriptedModels
from tests.integration.conftest import Rlm
from tests.support import hostile_text
from tests.support.model_server import ModelServer
from tests.support.output_attacks import QUICK, SLOW, Attack, HostMemory, checked, session
from tests.support.terminal import Terminal
from tests.support.trace import load

MAX_GROWTH = 200_000_000
EVIL = hostile_text.EVIL


@pytest.fixture
async def warm(kernel_image: Any, tmp_path: Path) -> None:
    """What is imported and allocated once is no growth."""
    await session(tmp_path / "warm.ipynb", ["print('x' * 1_000_000)"])


async def attacked(path: Path, attacks: list[Attack], **options: Any) -> None:
    with HostMemory() as memory:
        result = await session(path, [attack.code for attack in attacks], **options)
    assert result.answer == "reached"
    checked(path, attacks)
    assert memory.grown < MAX_GROWTH, f"{memory.grown / 1e6:.0f} MB"


async def test_output_floods_are_capped_and_told_and_the_session_goes_on(warm: None, tmp_path: Path) -> None:
    await attacked(tmp_path / "t.ipynb", list(QUICK.values()))


@pytest.mark.hostile
@pytest.mark.parametrize("name", SLOW)
async def test_long_output_floods_are_capped_and_the_session_goes_on(
    warm: None, tmp_path: Path, name: str
) -> None:
    started = time.monotonic()
    await attacked(tmp_path / "t.ipynb", [SLOW[name]])
    assert time.monotonic() - started < 60


@pytest.mark.hostile
async def test_outputs_of_many_cells_are_bounded_together(warm: None, tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    flood = (
        "for n in range(10): display({'image/png': 'A' * 1_900_000, 'text/plain': str(n)}, raw=True)\n"
        "print('x' * 500_000)"
    )
    with HostMemory() as memory:
        result = await session(path, [f"{flood}  # {n}" for n in range(20)])
    assert result.answer == "reached"
    cells = [found for found in load(path).cells if found.cell_type == "code"]
    assert path.stat().st_size < 65_000_000
    assert "left out of the trace" in str(cells[-2].outputs)
    assert memory.grown < MAX_GROWTH, f"{memory.grown / 1e6:.0f} MB"


@pytest.mark.hostile
@pytest.mark.parametrize("answer", ["'é' * 4_000_000", "'x' * 16_000_000", "['abc' * 20] * 200_000"])
def test_a_large_answer_that_is_not_too_large_reaches_stdout_whole(
    kernel_image: Any, openai_env: ModelServer, answer: str
) -> None:
    openai_env.root = [f"```repl\nprint(context)\nFINAL({answer})\n```"] * 2
    command = [sys.executable, "-m", "rlm_kernel", "ask", "Q", "-m", "openai/root", "-q"]
    done = subprocess.run(command, capture_output=True, timeout=110, check=True)
    expected = eval(answer)
    said = expected if isinstance(expected, str) else json.dumps(expected)
    assert done.stdout.decode() == said + "\n"


# Terminals

HOSTILE_CELL = f"""print({EVIL!r})
globals()[{EVIL!r}] = 1
try: llm_query({EVIL!r})
except LLMError as error: print(error)
raise type({EVIL.replace(chr(0), "")!r}, (Exception,), {{}})({EVIL!r})"""
QUESTION = "Q\x9b2J\u202e?"


def hostile_root(openai_env: ModelServer) -> None:
    openai_env.root = [
        f"{EVIL}\n```repl\n{HOSTILE_CELL}\n```",
        f"FINAL_VAR(nothing {EVIL})",
        f"```repl\nprint(rlm_query({EVIL!r}))\n```",
        f"```repl\nFINAL({EVIL!r})\n```",
        f"```repl\nFINAL({EVIL!r})\n```",
    ]


ASK = (
    "ask",
    QUESTION,
    "-m",
    "openai/root",
    "--sub-model",
    "openai/sub",
    "--trace",
    "t.ipynb",
    "--max-depth",
    "2",
)


async def test_a_terminal_gets_nothing_that_it_obeys(kernel_image: Any, openai_env: ModelServer) -> None:
    hostile_root(openai_env)
    async with Terminal(sys.executable, "-m", "rlm_kernel", *ASK) as terminal:
        assert await terminal.ended() == 0
    assert "OWNED" in terminal.text
    assert "1 child RLM" in terminal.text
    assert not hostile_text.strange(terminal.seen)
    load(Path("t.ipynb"))


@pytest.mark.hostile
def test_a_pipe_gets_the_answer_as_it_is_and_stderr_nothing_strange(
    rlm: Rlm, openai_env: ModelServer
) -> None:
    hostile_root(openai_env)
    done = rlm(*ASK)
    assert done.stdout == EVIL + "\n"
    assert "child 1 begins" in done.stderr
    assert not hostile_text.strange(done.stderr)


@pytest.mark.hostile
@pytest.mark.parametrize("arguments", [("ask", "--json"), ("run",), ("run", "--json")])
async def test_other_ways_to_an_answer_are_as_safe(
    kernel_image: Any, openai_env: ModelServer, arguments: tuple[str, ...]
) -> None:
    openai_env.root = [f"{EVIL}\n```repl\nprint({EVIL!r}, context)\nFINAL([{EVIL!r}])\n```"] * 4
    command, *options = arguments
    async with Terminal(
        sys.executable, "-m", "rlm_kernel", command, QUESTION, "-m", "openai/root", *options
    ) as terminal:
        assert await terminal.ended() == 0
    assert "OWNED" in terminal.text
    assert not hostile_text.strange(terminal.seen.replace(b"\x7f", b""))
    if command == "run":
        async with Terminal(sys.executable, "-m", "rlm_kernel", "stop") as terminal:
            assert await terminal.ended() == 0


# JupyterLab


@pytest.fixture
def listener() -> Iterator[tuple[int, set[str]]]:
    """A server on loopback that notes what it is asked for: its port, and the paths."""
    asked: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.add(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def hostile_trace(path: Path, port: int) -> None:
    def url(name: str) -> str:
        return hostile_text.URL.format(port=port, name=name.replace(" ", "-"))

    markdown = {name: text.format(url=url(f"m-{name}")) for name, text in hostile_text.MARKDOWN.items()}
    html = {name: text.format(url=url(f"h-{name}")) for name, text in hostile_text.HTML.items()}
    vega = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"url": url("vega")},
        "mark": "bar",
        "encoding": {},
    }
    shows = [{"text/markdown": text} for text in markdown.values()] + [
        {"text/html": text} for text in html.values()
    ]
    shows += [
        {
            "image/svg+xml": hostile_text.HTML["svg"]
            .replace("<svg>", "<svg xmlns='http://www.w3.org/2000/svg'>")
            .format(url=url("svg"))
        },
        {"application/javascript": f"fetch('{url('javascript')}')"},
        {"application/vnd.vegalite.v5+json": vega},
        {"text/latex": f"$\\style{{background-image:url({url('latex')})}}{{x}} \\require{{{url('latex')}}}$"},
    ]
    prose = "\n\n".join(markdown.values())
    code = f"for shown in {shows!r}: display(shown, raw=True)"
    replies = [f"{prose.replace('```', '~~~')}\n```repl\n{code}\n```", f"```repl\nFINAL({prose!r})\n```"]
    result = asyncio.run(RLM(models=ScriptedModels(replies)).aask("Q\n\n" + prose, trace=path))
    assert result.answer == prose


# The trace first: once there is a page, this thread has a running loop.
@pytest.mark.hostile
@pytest.mark.timeout(240)
def test_a_hostile_trace_in_jupyterlab_fetches_nothing(
    kernel_image: Any, tmp_path: Path, listener: tuple[int, set[str]]
) -> None:
    from playwright.sync_api import sync_playwright

    from tests.integration.test_jupyterlab import CHROMIUM, server

    assert CHROMIUM, "no Chromium: install the package chromium, or Google Chrome"
    port, asked = listener
    folder = tmp_path / "lab"
    folder.mkdir()
    hostile_trace(folder / "t.ipynb", port)
    control = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(f"![a]({hostile_text.URL.format(port=port, name='control')})")]
    )
    nbformat.write(control, folder / "control.ipynb")
    with server(folder) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        for name, cells in (("t", 5), ("control", 1)):
            page = browser.new_page(viewport={"width": 1200, "height": 20_000})
            page.goto(f"{url}lab/tree/{name}.ipynb?token=t")
            page.wait_for_function(
                "() => document.querySelectorAll('.jp-MarkdownCell.jp-mod-rendered, "
                f".jp-MarkdownOutput').length >= {cells}",
                timeout=60_000,
            )
            page.wait_for_load_state("networkidle")
            if name == "t":
                page.screenshot(path=tmp_path / "t.png")
                assert asked == set()
            page.close()
        browser.close()
    assert asked == {"/control"}

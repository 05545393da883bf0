"""Calls that were paid for are shown below their cell, however that came to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import nbformat
import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.trace.parts import is_made
from rlm_kernel.trace.reader import read_trace
from tests.support.sandbox import until
from tests.support.story import repl
from tests.support.trace import cell

pytestmark = pytest.mark.usefixtures("kernel_image")
OPTIONS = {"sandbox.memory": "256m"}
ANSWERED = 5
BATCH = "found = llm_query_batched([f'part {n}' for n in range(20)])"


def kill_the_container() -> None:
    client = docker.from_env()
    try:
        for one in client.containers.list(filters={"label": f"rlm-kernel.owner={os.getpid()}"}):
            one.kill()
    finally:
        client.close()


def kill_the_program() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def ask(trace: Path, end: Callable[[], None]) -> None:
    """A batch of which five calls are answered when `end` is called."""
    asked = 0

    async def sub(prompt: str) -> str:
        nonlocal asked
        asked += 1
        if asked <= ANSWERED:
            return prompt.upper()
        if asked == ANSWERED + 3:
            await until(lambda: "PART 4" in trace.read_text("utf-8"))
            await asyncio.to_thread(end)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("it is cut off")

    rlm = RLM(models=ScriptedModels([repl(BATCH), repl("FINAL(len(context))")], sub), options=OPTIONS)
    await rlm.aask("Which?", "one", trace=trace)


def shown(trace: Path) -> Any:
    """The output of the cell's calls, as any program finds it in the file."""
    (table,) = (
        one for one in cell(nbformat.read(trace, nbformat.NO_CONVERT), "turn-01-a").outputs if is_made(one)
    )
    return table.data["text/html"]


async def test_a_cell_whose_container_dies_amid_a_batch(isolated: Path) -> None:
    trace = isolated / "died.ipynb"
    await ask(trace, kill_the_container)
    assert next(one for one in read_trace(trace).cells if one.id == "turn-01-a").meta.status == "died"  # type: ignore[union-attr]
    assert "20 sub-calls · 15 failed" in shown(trace)
    assert "PART 0" in shown(trace)


def test_a_cell_whose_program_was_killed_amid_a_batch(isolated: Path) -> None:
    trace = isolated / "killed.ipynb"
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom tests.integration.test_calls_shown import *\n"
        "asyncio.run(ask(Path(sys.argv[1]), kill_the_program))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, str(trace)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert "5 sub-calls" in shown(trace), "also before a command of rlm completes it"
    read_trace(trace)
    assert "5 sub-calls" in shown(trace)
    assert "PART 4" in shown(trace)

"""A real run at a terminal asks before much is spent: nothing of the batch is sent after a no."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.engine.approval import Expected
from rlm_kernel.session.ask import ask
from tests.support.model_server import ModelServer
from tests.support.terminal import Terminal

CODE = """```repl
import asyncio
from concurrent.futures import ThreadPoolExecutor
try:
    llm_query_batched(["p" * 4000 + str(i) for i in range(500)])
except BudgetExceeded as error:
    told = str(error)
small = llm_query_batched([f"small {i}" for i in range(5)])
many = await asyncio.gather(*(allm_query("g" * 4000 + str(i)) for i in range(500)), return_exceptions=True)
FINAL(f"{sum(map(bool, small))} {sum(isinstance(one, str) for one in many)} {told[:40]}")
```"""


async def test_after_a_no_in_the_terminal_nothing_of_the_batch_is_sent(
    kernel_image: Any, openai_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai_env.root = lambda _messages: CODE
    monkeypatch.setenv("RLM_SUB_LLM__INPUT_PRICE", "5")
    monkeypatch.setenv("RLM_SUB_LLM__OUTPUT_PRICE", "20")
    (tmp_path / "a.txt").write_text("hay")
    models = ("-m", "openai/root", "--sub-model", "openai/sub", "-f", str(tmp_path / "a.txt"))
    async with Terminal(sys.executable, "-m", "rlm_kernel", "ask", "Q", *models) as terminal:
        await terminal.type("", "500 calls of openai/sub, for about $5.20; no cost limit is set.")
        await terminal.type("", "always for this run] ")
        await terminal.type("n\n", "5 0 The user did not allow 500 calls")
        assert await terminal.ended() == 0
    assert "5 0 The user" in terminal.text
    assert terminal.text.count("Continue?") == 1, "in the same cell the answer stands"


SLOW_USER = """```repl
found = llm_query_batched(["p" * 4000 + str(i) for i in range(300)], timeout=5)
FINAL(f"{sum(map(bool, found))} answers")
```"""


async def test_a_batchs_own_time_out_stands_still_while_the_user_is_asked(
    kernel_image: Any, openai_env: ModelServer, tmp_path: Path
) -> None:
    """More calls than are under way at once: those after the first are reckoned in the kernel."""
    openai_env.root = lambda _messages: SLOW_USER
    heard: list[Expected] = []

    async def thinks(wanted: Expected) -> Literal["always"]:
        heard.append(wanted)
        await asyncio.sleep(6)
        return "always"

    sub = {"sub_llm.model": "openai/sub", "sub_llm.input_price": 5, "sub_llm.output_price": 20}
    settings = load_settings(overrides={"root_llm.model": "openai/root", **sub})
    result = await ask("Q", "hay", settings=settings, trace=tmp_path / "t.ipynb", approve=thinks)
    assert result.answer == "300 answers"
    assert len(heard) == 1

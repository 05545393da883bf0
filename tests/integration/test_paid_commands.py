"""Answers that were paid for are never lost by whole commands: a run that is stopped in a batch and resumed, a
question that is stopped and the one after it.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM
from rlm_kernel.engine.protocols import CallRecord
from rlm_kernel.session.manager import open_session
from rlm_kernel.trace.reader import TraceFile, read_trace
from tests.support.model_server import ModelServer
from tests.support.sandbox import until

BATCH = "prompts = [f'item {n}' for n in range(500)]\nfound = llm_query_batched(prompts)"
ANSWERED = 192


def calls_of(trace: TraceFile) -> list[CallRecord]:
    return [call.record() for cell in trace.cells if cell.meta for call in cell.meta.calls]


PLAYED = """```repl
import time
prompts = [f'item {n}' for n in range(500)]
found = llm_query_batched(prompts, timeout=4)
```"""
AGAIN = """```repl
found = llm_query_batched(prompts)
print(len([a for a in found if a]))
```"""


def test_a_run_that_is_stopped_in_a_batch_is_resumed_and_replayed_and_pays_each_answer_once(
    kernel_image: Any, openai_env: ModelServer, up_to: Any
) -> None:
    heard: list[int] = []

    def root(messages: list[dict[str, Any]]) -> str:
        heard.append(len(messages))
        return [PLAYED, AGAIN, "```repl\nFINAL(len([a for a in found if a]))\n```"][
            sum(message["role"] == "assistant" for message in messages)
        ]

    openai_env.root = root
    up_to(ANSWERED)
    options = ("-m", "openai/root", "--sub-model", "openai/sub", "-q")
    with subprocess.Popen(
        [sys.executable, "-m", "rlm_kernel", "ask", "How many?", *options, "--trace", "t.ipynb"],
        stderr=subprocess.PIPE,
    ) as running:
        try:
            asyncio.run(until(lambda: len(heard) == 2 and openai_env.in_progress("sub") == 64, 60))
            first = openai_env.sent("sub")
            up_to(first + 100)
            asyncio.run(until(lambda: openai_env.sent("sub") >= first + 100, 60))
            asyncio.run(asyncio.sleep(1))  # the trace is written now and then
            running.send_signal(signal.SIGINT)
            _, told = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130, told
    before = read_trace(Path("t.ipynb"))
    assert [cell.id for cell in before.code_cells if cell.cut_off] == ["turn-02-a"]
    answered = {call.prompt_digest for call in calls_of(before) if call.error is None}
    of_the_first = sum(call.again for call in calls_of(before))
    assert 0 < of_the_first <= ANSWERED < len(answered) < 400
    begun = openai_env.sent("sub")
    up_to(10_000)
    result = RLM().resume(Path("t.ipynb"))
    assert result.answer == "500"
    assert openai_env.sent("sub") - begun == 500 - len(answered)
    after = read_trace(Path("t.ipynb"))
    assert after.spent().calls == result.totals.calls
    assert sum(call.again for call in calls_of(after)) == of_the_first
    notes = [cell.source for cell in after.cells if cell.kind == "note" and cell.turn == 1]
    assert any(f"partial_results has {of_the_first} of 500 answers" in note for note in notes)
    again = RLM().replay(Path("t.ipynb"))
    assert again.same, [(verdict.cell, verdict.detail, verdict.diff) for verdict in again.verdicts]


async def test_a_stopped_question_tells_the_next_one_of_the_partial_results(
    kernel_image: Any, openai_env: ModelServer, up_to: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def root(messages: list[dict[str, Any]]) -> str:
        heard.append(messages[-1]["content"])
        if "And now?" in heard[-1]:
            return "```repl\nFINAL([len([a for a in partial_results if a]), len([a for a in llm_query_batched(prompts) if a])])\n```"
        return f"```repl\n{BATCH}\n```" if "Again" in heard[-1] else "```repl\nFINAL(1)\n```"

    openai_env.root = root
    up_to(ANSWERED)
    monkeypatch.chdir(tmp_path)
    changes = {"sandbox.memory": "1g", "root_llm.model": "openai/root", "sub_llm.model": "openai/sub"}
    async with open_session(changes=changes) as kept:
        try:
            await kept.ask("First?")
            asked = asyncio.create_task(kept.ask("Again?"))
            await until(lambda: openai_env.sent("sub") == ANSWERED + 64, 60)
            await asyncio.sleep(1)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            begun = openai_env.sent("sub")
            up_to(10_000)
            answer = (await kept.ask("And now?")).value
            assert "The batch was cut off: partial_results has 192 of 500 answers" in heard[-1]
            assert answer == [ANSWERED, 500]
            assert openai_env.sent("sub") - begun == 308
            await kept.ask("And at last?")
            assert "partial_results has" not in heard[-1].rpartition("The next question")[2]
        finally:
            await kept.stop()

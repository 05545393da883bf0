"""The same question at the same moment, over different inputs: as in a loop over documents."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.trace.reader import read_trace


@pytest.mark.usefixtures("kernel_image", "isolated")
async def test_runs_that_begin_together_have_their_own_input_and_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reply = "```repl\nFINAL(context['number'])\n```"
    rlm = RLM(models=ScriptedModels(lambda _messages: reply), options={"sandbox.memory": "512m"})
    contexts: list[Any] = [{"number": number} for number in range(4)]
    results = await asyncio.gather(*(rlm.aask("Which number?", one) for one in contexts))
    assert [result.value for result in results] == [0, 1, 2, 3]
    assert len({result.trace for result in results}) == 4
    for result in results:
        trace = await asyncio.to_thread(read_trace, result.trace)
        assert trace.meta.stop_reason == "answered"

"""`async for event in rlm.stream(…)`: the events of a real run, and what leaving the loop does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path
from typing import Any

import docker
import pytest

from rlm_kernel import RLM, ModelError, ScriptedModels, UsageError
from rlm_kernel.engine.events import (
    CallFinished,
    CellFinished,
    CellStarted,
    RunFinished,
    RunOpened,
    TurnReplied,
)
from rlm_kernel.trace.reader import read_trace
from tests.support.sandbox import until
from tests.support.story import repl

pytestmark = [pytest.mark.usefixtures("kernel_image"), pytest.mark.xdist_group("stream")]
SMALL = {"sandbox.memory": "512m"}
SLEEPS = [repl("print('asleep', flush=True); import time; time.sleep(1000)")]


def rlm(root: list[str], sub: Any = str.upper) -> RLM:
    return RLM(models=ScriptedModels(root, sub), options=SMALL)


def containers_of(trace: Path) -> list[Any]:
    """The containers of the run that wrote a trace."""
    session = read_trace(trace).meta.session
    client = docker.from_env()
    try:
        return [one for one in client.containers.list(all=True, ignore_removed=True) if session in one.name]
    finally:
        client.close()


async def test_all_events_come_in_order_and_then_there_is_the_result(isolated: Path) -> None:
    stream = rlm([repl("FINAL(llm_query_batched(context))")]).stream("Which?", ["one", "two"])
    with pytest.raises(UsageError, match="no result yet"):
        _ = stream.result
    seen = [event async for event in stream]
    kinds = [type(event) for event in seen]
    assert kinds[0] is RunOpened
    assert kinds[-1] is RunFinished
    order = [TurnReplied, CellStarted, CallFinished, CellFinished]
    last = len(kinds) - 1 - kinds[::-1].index(CellStarted)  # after the set-up cells
    assert [kind for kind in kinds[last - 1 :] if kind in order] == [
        order[0],
        order[1],
        *[order[2]] * 3,
        order[3],
    ]
    assert stream.result.value == ["ONE", "TWO"]
    with pytest.raises(UsageError, match="once"):
        aiter(stream)


async def test_what_goes_wrong_is_raised_by_the_loop(isolated: Path) -> None:
    with pytest.raises(ModelError):
        async for _ in rlm([]).stream("Which?", ["one"]):
            pass


@pytest.mark.parametrize("how", ["break", "raise", "cancel", "closed"])
async def test_leaving_the_loop_ends_the_run_and_leaves_nothing(
    how: str, isolated: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "t.ipynb"

    async def leave() -> None:
        async for event in rlm(SLEEPS).stream("Which?", "text", trace=trace):
            if isinstance(event, CellStarted) and event.turn == 1:
                if how == "break":
                    break
                if how == "raise":
                    raise KeyError
                if how == "cancel":
                    asyncio.current_task().cancel()  # type: ignore[union-attr]

    async def closed() -> None:
        async with contextlib.aclosing(aiter(rlm(SLEEPS).stream("Which?", "text", trace=trace))) as events:
            async for event in events:
                if isinstance(event, CellStarted) and event.turn == 1:
                    return

    with contextlib.suppress(KeyError, asyncio.CancelledError):
        await asyncio.create_task(closed() if how == "closed" else leave())
    gc.collect()
    await until(lambda: read_trace(trace).meta.status == "finished")
    assert read_trace(trace).meta.stop_reason == "interrupted"
    await until(lambda: not containers_of(trace))


async def test_a_slow_reader_gets_whole_replies_and_holds_up_nothing(isolated: Path) -> None:
    reply = " ".join(f"word{number}" for number in range(2_000)) + "\n" + repl("FINAL(1)")
    heard: list[Any] = []
    stream = rlm([reply]).stream("Which?", "text", view=heard.append)
    pieces = ""
    async for event in stream:
        if type(event).__name__ == "RunOpened":
            await until(lambda: any(isinstance(one, RunFinished) for one in heard))
        pieces += event.text if type(event).__name__ == "TurnPiece" else ""
    assert pieces in ("", reply), "models that stream not at all have no pieces"
    assert stream.result.value == 1

"""Answers that were paid for are never lost: batches that are cut off in every way, and what the same calls
cost when they are made again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel.engine.ledger import Limits
from rlm_kernel.engine.messages import kept_answers, output_text
from rlm_kernel.engine.protocols import CellResult
from rlm_kernel.sandbox.rundir import RunDir
from tests.integration.test_subcalls import Host, Serve, serve
from tests.support.model_server import ModelServer
from tests.support.sandbox import MAX_REQUEST, Sandbox, until

__all__ = ["serve"]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("paid")]
TIMEOUT = 2.0
"""Of a cell, in seconds."""
PROMPTS = "prompts = [f'item {n}' for n in range(500)]\n"
BATCH = f"{PROMPTS}found = llm_query_batched(prompts)"
ANSWERED = 192
PARTS = "[len(partial_results), len([n for n, a in enumerate(partial_results) if a == f'echo: item {n}'])]"
"""How many answers stand at the place of their prompt. Which ones they are is for the provider to say: calls that
are made side by side reach it in any order.
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(kernel_image: Any) -> AsyncIterator[Sandbox]:
    """A kernel like that of a session, whose cells have little time."""
    made = Sandbox(
        kernel_image, run_dir=RunDir.create(max_request=MAX_REQUEST, window=128), cell_timeout=TIMEOUT
    )
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def told(result: CellResult) -> list[str]:
    """What the root model is told of the cell's calls."""
    return kept_answers([result])


async def interrupted(host: Host, code: str, answers: int = ANSWERED) -> CellResult:
    """Run code and interrupt it when so many of its calls have been answered."""
    running = asyncio.create_task(host.run(code))
    await until(lambda: len([r for r in host.calls._records.kept if r.error is None]) == answers)
    await host.box.kernel.interrupt()
    return await running


async def test_of_an_interrupted_batch_the_answers_are_there_and_only_the_rest_is_asked(
    serve: Serve, openai_env: ModelServer, up_to: Any
) -> None:
    up_to(ANSWERED)
    host = await serve()
    cut = await interrupted(host, BATCH)
    assert cut.status == "error"
    (note,) = told(cut)
    there = re.fullmatch(
        r"The batch was cut off: partial_results has (\d+) of 500 answers, in the order of the prompts; the others "
        r"are falsy\. The same call again asks only the rest\.",
        note,
    )
    assert there is not None, note
    assert 0 < int(there[1]) <= ANSWERED, "some may have been on their way to the kernel"
    assert await host.value("", PARTS) == [500, int(there[1])]
    assert await host.value("", "[bool(partial_results[300]), type(partial_results[300]).__name__]") == [
        False,
        "CallFailed",
    ]
    begun, cost = openai_env.sent("sub"), host.ledger.calls
    up_to(10_000)
    again = await host.run(f"{BATCH}\nprint(len([a for a in found if a]), found[499])")
    assert output_text(again.outputs) == "500 echo: item 499"
    assert openai_env.sent("sub") - begun == host.ledger.calls - cost == 308
    had = [record for record in again.calls if record.again]
    assert len(had) == ANSWERED
    assert {(r.cost, r.usage.total, r.calls, r.attempts, r.error) for r in had} == {(0.0, 0, 0, 0, None)}
    # That cell came to its end: who asks the same now wants other answers.
    await host.run(BATCH)
    assert host.ledger.calls - cost == 808


SWALLOWED = """
def ask(prompts):
    try:
        return llm_query_batched(prompts, schema=int)
    except BaseException:
        return []
first = llm_query_batched(['a', 'b'])
numbers = ask([f'item {n}' for n in range(9)])
"""
THREAD = """
import threading, time
def ask():
    global found
    found = llm_query_batched([f'item {n}' for n in range(9)])
thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""
GATHER = """
import asyncio
slots = asyncio.Semaphore(7)
async def one(n):
    async with slots:
        return await allm_query(f'item {n}')
found = await asyncio.gather(*(one(n) for n in range(9)))
"""
LOOP = "found = []\nfor n in range(9):\n    found.append(llm_query(f'item {n}'))"
POOL = """
from multiprocessing import Pool
with Pool(2) as pool:
    found = pool.map(llm_query, [f'item {n}' for n in range(9)], chunksize=1)
"""


@pytest.mark.parametrize(
    ("code", "answers", "left"),
    [
        (THREAD, 4, [4, 9]),
        (GATHER, 4, [4, 9]),
        (LOOP, 4, None),
        (POOL, 4, None),
    ],
    ids=["a thread", "gathered", "one by one", "processes"],
)
async def test_calls_that_are_cut_off_as_models_write_them(
    serve: Serve, openai_env: ModelServer, up_to: Any, code: str, answers: int, left: list[int] | None
) -> None:
    up_to(answers)
    host = await serve(concurrency=7)
    cut = await interrupted(host, code, answers)
    assert (cut.partial and [cut.partial.answers, cut.partial.prompts]) == left
    assert cut.status == "error"
    assert cut.lost_answers == answers
    begun = host.ledger.calls
    up_to(10_000)
    assert await host.value(code, "found") == [f"echo: item {n}" for n in range(9)]
    assert host.ledger.calls - begun == 9 - answers


async def test_an_interrupt_in_the_second_round_of_a_schema_that_code_swallows_loses_nothing(
    serve: Serve, openai_env: ModelServer
) -> None:
    async def sub(prompt: str) -> str:
        if "was not taken" in prompt and prompt.startswith(("item 5", "item 6")):
            await asyncio.Event().wait()
        return (
            "none"
            if prompt.startswith(("item 4", "item 5", "item 6")) and "was not taken" not in prompt
            else "7"
        )

    openai_env.sub = sub
    host = await serve()
    cut = await interrupted(host, SWALLOWED, 2 + 9 + 1)
    assert cut.status == "ok"
    assert "partial_results has 7 of 9 answers" in told(cut)[0]
    assert await host.value("", "[[a if a else 'none' for a in partial_results], first, numbers]") == [
        [7, 7, 7, 7, 7, "none", "none", 7, 7],
        ["7", "7"],
        [],
    ]


async def test_a_limit_or_a_time_out_in_the_middle_leaves_what_came(
    serve: Serve, openai_env: ModelServer, up_to: Any
) -> None:
    up_to(10_000)
    host = await serve(Limits(calls=ANSWERED))
    cut = await host.run(f"{BATCH}\nprint(len([a for a in found if a]), found == partial_results)")
    assert output_text(cut.outputs) == "192 True"
    assert told(cut)[0].startswith("The batch was cut off by a limit: partial_results has 192 of 500 answers")
    refused = await host.text("llm_query_batched(prompts[192:])")
    assert "BudgetExceeded" in refused
    assert await host.value("", PARTS) == [500, ANSWERED], "what was refused as a whole takes nothing away"
    assert await host.value("again = llm_query_batched(prompts[:192])", "all(again)")
    assert openai_env.sent("sub") == ANSWERED
    up_to(ANSWERED + 4)
    host = await serve()
    code = "found = llm_query_batched([f'late {n}' for n in range(9)], timeout=1.5)"
    assert "partial_results has 4 of 9 answers" in told(await host.run(code))[0]
    begun = host.ledger.calls
    up_to(10_000)
    assert await host.value(code, "found") == [f"echo: late {n}" for n in range(9)]
    assert host.ledger.calls - begun == 5


async def test_what_was_answered_is_there_for_code_that_went_wrong_and_for_a_kernel_that_died(
    serve: Serve, openai_env: ModelServer
) -> None:
    host = await serve()
    wrong = await host.run("found = [int(a) for a in llm_query_batched(['a', 'b', 'a'])]")
    assert wrong.lost_answers == 3
    right = await host.run("print(llm_query_batched(['a', 'b', 'a', 'a']))")
    assert len([r for r in right.calls if r.again]) == 3, "each answer is given once"
    died = await host.run("llm_query_batched(['c', 'd']); import os; os.kill(os.getpid(), 9)")
    assert (died.status, died.lost_answers) == ("died", 2)
    assert told(died) == [
        "2 answers that its calls had are kept: the same calls, made again, have them at once and cost nothing."
    ]
    assert await host.text("print(llm_query_batched(['c', 'd']))") == "['echo: c', 'echo: d']"
    assert host.ledger.calls == 6
    # Replies that do not fit are of no use: who asks again hears others.
    assert "does not fit the schema, twice" in await host.text("llm_query('x', schema=int)")
    openai_env.sub = lambda _prompt: "5"
    assert await host.text("print(llm_query('x', schema=int))") == "5"


SPIN = """
import threading, time
threading.Thread(target=llm_query, args=('slow',), daemon=True).start()
while True:
    pass
"""


async def test_time_that_models_take_is_none_of_the_cells_and_computing_is(
    serve: Serve, openai_env: ModelServer
) -> None:
    async def sub(prompt: str) -> str:
        await asyncio.sleep(TIMEOUT / 2 if prompt != "slow" else TIMEOUT)
        return f"echo: {prompt}"

    openai_env.sub = sub
    host = await serve(concurrency=2)
    waited = await host.run(
        "found = llm_query_batched(list('abcde')); import time; time.sleep(0.5)\nprint(found)"
    )
    assert (waited.status, waited.seconds > 1.5 * TIMEOUT) == ("ok", True)
    started = time.monotonic()
    spun = await host.run(SPIN)
    assert spun.status in ("timeout", "died")
    assert 2 * TIMEOUT - 0.5 < time.monotonic() - started < 2 * TIMEOUT + 6
    assert "in which time that models take does not count" in output_text(spun.outputs)

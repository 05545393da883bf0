"""`with RLM(…)` and `async with RLM(…)`: one kernel over several questions."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from rlm_kernel import RLM, RLMError, ScriptedModels, UsageError
from rlm_kernel.engine.approval import Expected
from rlm_kernel.engine.events import Event, RunFinished
from rlm_kernel.engine.protocols import Card
from rlm_kernel.trace.reader import read_trace
from tests.support.story import repl

pytestmark = [pytest.mark.usefixtures("kernel_image"), pytest.mark.xdist_group("kept-rlm")]
SMALL = {"sandbox.memory": "512m"}


def rlm(*root: str, sub: Any = str.upper) -> RLM:
    return RLM(models=ScriptedModels([repl(code) for code in root], sub), options=SMALL)


@pytest.fixture(autouse=True)
def others(kernel_image: object) -> None:
    """Kept sessions of tests before this one may still be there."""
    _others.clear()
    _others.update(_containers())


_others: set[str] = set()


def containers() -> list[str]:
    """The names of this test's containers."""
    return [name for name in _containers() if name not in _others]


def _containers() -> list[str]:
    client = docker.from_env()
    try:
        label = f"rlm-kernel.owner={os.getpid()}"
        return [
            one.name
            for one in client.containers.list(all=True, ignore_removed=True)
            if one.labels.get("rlm-kernel.owner", "").partition("-")[0] == label.partition("=")[2]
        ]
    finally:
        client.close()


async def test_questions_share_variables_and_a_trace_and_each_brings_its_context(isolated: Path) -> None:
    asking = rlm(
        "kept = context.upper(); FINAL(kept)",
        "FINAL([kept, context['n'], context_2['n'], len(files)])",
        "FINAL([context, context_2['n'], sorted(files.values()) == ['one', 'two'], len(context)])",
    )
    async with asking:
        assert containers() == []
        first = await asking.aask("First?", "one")
        assert len(containers()) == 1
        second = await asking.aask("Second?", {"n": 2})
        third = await asking.aask("Third?", "two")
    assert containers() == []
    assert (first.answer, second.value) == ("ONE", ["ONE", 2, 2, 1])
    assert third.value[1:] == [2, True, 2]
    assert first.trace == second.trace == third.trace
    assert (first.question, second.question, third.question) == (0, 1, 2)
    answers = [
        cell.meta.text for cell in read_trace(first.trace).cells if cell.kind == "answer" and cell.meta
    ]
    assert answers[0] == "ONE"


async def test_the_options_of_a_question_hold_for_it_alone(isolated: Path) -> None:
    heard: list[Event] = []
    given: list[Any] = []
    asking = rlm("FINAL([1, 2])", "FINAL('free')")
    async with asking:
        typed = await asking.aask(
            "Numbers?", "x", answer_type=list[int], view=heard.append, answered=given.append
        )
        count = len(heard)
        free = await asking.aask("Words?")
    assert typed.value == [1, 2]
    assert free.answer == "free"
    assert [type(event) for event in heard].count(RunFinished) == 1
    assert len(heard) == count
    assert len(given) == 1


async def test_questions_at_once_wait_for_one_another_in_order(isolated: Path) -> None:
    asking = rlm("n = 1; FINAL(n)", "n += 1; FINAL(n)", "n += 1; FINAL(n)")
    async with asking:
        results = await asyncio.gather(*(asking.aask(f"Question {number}?", "x") for number in range(3)))
    assert [result.value for result in results] == [1, 2, 3]


async def test_a_question_that_is_cancelled_leaves_the_kernel_to_the_next(isolated: Path) -> None:
    begun = asyncio.Event()
    asking = rlm("kept = 7; print('in it', flush=True); import time; time.sleep(1000)", "FINAL(kept)")

    def hear(event: Event) -> None:
        if "in it" in str(event):
            begun.set()

    async with asking:
        task = asyncio.create_task(asking.aask("Sleep?", "x", view=hear))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await asking.aask("What was kept?")).value == 7
    assert containers() == []


async def test_a_kernel_that_is_lost_is_rebuilt(isolated: Path) -> None:
    asking = rlm("kept = context * 2; FINAL(kept)", "FINAL(kept)")
    async with asking:
        await asking.aask("Keep?", "ab")
        client = docker.from_env()
        client.containers.get(containers()[0]).kill()
        client.close()
        assert (await asking.aask("What was kept?")).answer == "abab"
    assert containers() == []


async def test_leaving_stops_what_is_asked_still(isolated: Path) -> None:
    begun = asyncio.Event()
    asking = rlm("print('in it', flush=True); import time; time.sleep(1000)")
    async with asking:
        task = asyncio.create_task(
            asking.aask("Sleep?", "x", view=lambda event: begun.set() if "in it" in str(event) else None)
        )
        await begun.wait()
    with pytest.raises(UsageError, match="has ended"):
        await task
    assert containers() == []


async def test_a_stream_is_asked_in_the_kept_kernel(isolated: Path) -> None:
    asking = rlm("kept = 3; FINAL(kept)", "FINAL(kept)")
    async with asking:
        await asking.aask("Keep?", "x")
        stream = asking.stream("What was kept?")
        assert RunFinished in [type(event) async for event in stream]
    assert stream.result.value == 3


def test_without_a_loop_the_kernel_is_kept_too(isolated: Path) -> None:
    asking = rlm("kept = context; FINAL(1)", "FINAL(kept)")
    with asking:
        asking.ask("Keep?", ["a"])
        assert asking.ask("What was kept?").value == ["a"]
    assert containers() == []
    with pytest.raises(UsageError, match="has ended"):
        asking.ask("Again?", "x")


async def test_what_cannot_be_done_is_told(isolated: Path) -> None:
    asking = rlm("FINAL(1)")
    async with asking:
        with pytest.raises(UsageError, match="entered already"):
            await asking.__aenter__()
        with pytest.raises(UsageError, match="async with"):
            asking.ask("Sync?", "x")
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, asking.aask("Elsewhere?", "x"))
        with pytest.raises(UsageError, match="empty"):
            await asking.aask(" ", "x")
        assert (await asking.aask("Well?", "x")).value == 1
        with pytest.raises(UsageError, match="go into the same trace"):
            await asking.aask("Elsewhere?", trace="other.ipynb")
    with pytest.raises(UsageError, match="has ended"):
        await asking.aask("After?", "x")


async def test_a_run_that_fails_leaves_nothing(isolated: Path) -> None:
    async with rlm() as asking:
        with pytest.raises(RLMError):
            await asking.aask("No reply?", "x")
    assert containers() == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests were begun in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def press_unheard() -> None:
    """As an interrupt that comes in the moment before the main thread begins to wait: nothing wakes it."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("interrupt", [press_ctrl_c, press_unheard])
def test_an_interrupt_stops_the_question_and_the_kernel_stays(
    isolated: Path, interruptible: None, interrupt: Callable[[], None]
) -> None:
    asking = rlm("kept = 7; print('in it', flush=True); import time; time.sleep(1000)", "FINAL(kept)")
    pressed: list[bool] = []

    def press(event: Event) -> None:
        if "in it" in str(event) and not pressed:
            pressed.append(True)
            interrupt()

    with asking:
        with pytest.raises(KeyboardInterrupt):
            asking.ask("Sleep?", "x", view=press)
        (kept,) = containers()
        assert asking.ask("What was kept?").value == 7
        assert containers() == [kept]
    assert containers() == []


async def test_one_question_may_ask_before_much_is_spent_and_cite_and_the_next_does_not(
    isolated: Path,
) -> None:
    (isolated / "a.log").write_text("pump 1 fine\npump 2 broke\n")
    asked: list[Expected] = []

    async def approve(wanted: Expected) -> bool:
        asked.append(wanted)
        return False

    spends = "try:\n    llm_query('label')\nexcept BudgetExceeded as error:\n    FINAL(type(error).__name__)"
    models = ScriptedModels(
        [
            repl(spends),
            repl("FINAL(len(grep('broke')))"),
            repl("FINAL(f\"It broke {cite(grep('broke')[0])}.\")"),
            repl("FINAL(llm_query('label'))"),
        ],
        str.upper,
        cards=[Card("sub", "scripted/sub", 1000, input_price=100.0, output_price=100.0)],
    )
    async with RLM(models=models, options={**SMALL, "limits.ask": 0.000001}) as asking:
        refused = await asking.aask("Label?", isolated / "a.log", approve=approve)
        cited = await asking.aask("What broke?", cite=True)
        free = await asking.aask("Label again?")
    assert refused.answer == "BudgetExceeded"
    assert len(asked) == 1
    assert [one.quote for one in cited.evidence] == ["pump 2 broke"]
    assert free.answer == "LABEL"
    assert not free.evidence

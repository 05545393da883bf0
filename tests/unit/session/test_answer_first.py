"""Whoever asked has the answer as soon as it is there; nothing that comes after it takes it away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rlm_kernel.engine import cells
from rlm_kernel.engine.events import RunFinished
from rlm_kernel.engine.protocols import Answer, Outcome, Totals
from rlm_kernel.errors import DockerError, KernelError, TraceError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session import delivery
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.result import Result
from rlm_kernel.session.traces import closing_trace
from tests.support.engine import Recorder, Run
from tests.support.tree import repl

ANSWERED = Outcome(Answer("42"), "answered")
FORCED = Outcome(Answer("about 40"), "turns", forced=True, detail="The limit of turns was reached.")
NONE = Outcome(None, "turns")
Work = Callable[[Give], Awaitable[Result]]


def result(outcome: Outcome = ANSWERED) -> Result:
    return Result.of(outcome, Totals(), Path("a.ipynb"))


class Heard:
    """Who asked: `answers` as they came, and what was `said`."""

    def __init__(self) -> None:
        self.answers: list[str | None] = []
        self.said: list[str] = []
        self.told = asyncio.Event()

    def answered(self, given: Result) -> None:
        self.answers.append(given.answer)
        self.told.set()

    async def ask(self, work: Work) -> Result:
        return await answer_first(work, self.answered, self.said.append)


def hangs(outcome: Outcome = ANSWERED) -> Work:
    """Gives the answer, and then closes things one by one, of which none ever comes to an end."""

    async def work(give: Give) -> Result:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                stack.push_async_callback(asyncio.Event().wait)
            give(result(outcome))
        return result(outcome)

    return work


@pytest.mark.parametrize("outcome", [ANSWERED, FORCED], ids=["answered", "forced"])
async def test_what_hangs_after_the_answer_is_not_waited_for(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "CLOSING_SECONDS", 0.05)
    heard = Heard()
    asking = asyncio.create_task(heard.ask(hangs(outcome)))
    await heard.told.wait()
    assert not asking.done(), "it is told before anything is closed"
    assert outcome.answer is not None
    assert (await asking).answer == outcome.answer.text
    assert len(heard.answers) == 1


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_cancellation_after_the_answer_changes_nothing_of_it(times: int) -> None:
    heard = Heard()
    asking = asyncio.create_task(heard.ask(hangs()))
    await heard.told.wait()
    for _ in range(times):
        asking.cancel()
        await asyncio.sleep(0)
    assert (await asking).answer == "42"


async def test_a_cancellation_at_the_moment_of_the_answer_does_not_lose_it() -> None:
    heard = Heard()

    async def work(give: Give) -> Result:
        asking.cancel()
        give(result())
        await asyncio.Event().wait()
        return result()

    asking = asyncio.create_task(heard.ask(work))
    assert (await asking).answer == "42"


async def test_what_stubbornly_goes_on_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "CLOSING_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "_STEP", 0.01)
    heard, over = Heard(), asyncio.Event()

    async def work(give: Give) -> Result:
        give(result())
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()
        raise DockerError("nobody hears of it")

    assert (await heard.ask(work)).answer == "42"
    assert delivery._left
    over.set()
    await asyncio.gather(*delivery._left, return_exceptions=True)
    assert not delivery._left


@pytest.mark.parametrize(
    "failure", [DockerError("The engine is gone."), RuntimeError("a fault")], ids=["ours", "any"]
)
async def test_what_fails_after_the_answer_is_told_and_no_failure(failure: Exception) -> None:
    heard = Heard()

    async def work(give: Give) -> Result:
        give(result())
        raise failure

    assert (await heard.ask(work)).answer == "42"
    (said,) = heard.said
    assert str(failure) in said


async def test_without_an_answer_all_is_as_if_it_was_awaited() -> None:
    heard, begun, closed = Heard(), asyncio.Event(), []

    async def nothing(give: Give) -> Result:
        give(result(NONE))
        return result(NONE)

    async def fails(_give: Give) -> Result:
        raise KernelError("The kernel is lost.")

    async def long(_give: Give) -> Result:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)
        return result()

    assert (await heard.ask(nothing)).answer is None
    with pytest.raises(KernelError):
        await heard.ask(fails)
    asking = asyncio.create_task(heard.ask(long))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (heard.answers, closed) == ([], [True])


async def test_a_trace_is_closed_once_and_by_the_answer() -> None:
    heard, said = Recorder(), list[str]()

    async def run(failure: BaseException) -> None:
        async with closing_trace(heard, Totals, Path("t.ipynb"), said.append) as close:
            close(ANSWERED)
            raise failure

    for failure in (asyncio.CancelledError(), DockerError("The engine is gone.")):
        with pytest.raises(type(failure)):
            await run(failure)
    assert [event.outcome for event in heard.of(RunFinished)] == [ANSWERED, ANSWERED]
    assert said == []


async def test_an_answer_that_the_trace_cannot_take_is_an_answer_and_that_is_told() -> None:
    said: list[str] = []
    full = Recorder(RunFinished, TraceError("The trace a.ipynb cannot be written: No space left on device."))
    async with closing_trace(full, Totals, Path("t.ipynb"), said.append) as close:
        close(FORCED)
    assert said == [
        "The answer is not in the trace. The trace a.ipynb cannot be written: No space left on device."
    ]
    with pytest.raises(TraceError):
        async with closing_trace(full, Totals, Path("t.ipynb"), said.append) as close:
            close(NONE)


@pytest.mark.parametrize("first", [True, False])
async def test_a_view_that_fails_at_the_end_keeps_nobody_from_hearing_it(first: bool) -> None:
    said: list[str] = []
    broken, heard = Recorder(RunFinished, RuntimeError("no terminal any more")), Recorder()
    async with closing_trace(
        everyone(*((broken, heard) if first else (heard, broken))), Totals, Path("t.ipynb"), said.append
    ) as close:
        close(ANSWERED)
    assert [event.outcome for event in heard.of(RunFinished)] == [ANSWERED]
    assert said == ["The end of the run could not be shown. no terminal any more"]


async def late(run: Run, final: Awaitable[None]) -> None:
    await final
    await run.kernel._wait()


def run_of(*replies: str) -> Run:
    run = Run(ScriptedModels(list(replies), "x"))
    run.kernel.variables["late"] = lambda final: late(run, final)
    return run


@pytest.mark.parametrize("stopped", [False, True], ids=["by itself", "by a cancellation"])
async def test_a_cell_that_goes_on_after_its_answer_is_ended_and_the_answer_stands(
    stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "ENDING_SECONDS", 60.0 if stopped else 0.05)
    run = run_of(repl("context"), repl("late(FINAL('42'))"))
    asking = asyncio.ensure_future(run.outcome())
    await run.calls.delivered.wait()
    if stopped:
        asking.cancel()
    outcome = await asking
    assert (outcome.stop_reason, outcome.answer and outcome.answer.text, run.kernel.interrupts) == (
        "answered",
        "42",
        1,
    )


async def test_a_cancellation_after_an_answer_that_does_not_stand_is_one() -> None:
    run = run_of(repl("late(FINAL('42'))"), repl("FINAL('43')"))  # no code has looked at the input
    asking = asyncio.ensure_future(run.outcome())
    await run.calls.delivered.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

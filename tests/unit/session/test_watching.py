"""`progress=True`: what is shown never fails a run, and says at the end what became of it."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import loops
from rlm_kernel.engine.events import Event, Noted, RunOpened, TurnStarted
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, Outcome, Totals
from rlm_kernel.errors import ModelError
from rlm_kernel.session import watching
from rlm_kernel.session.result import Result
from rlm_kernel.session.watching import Watched


class Recorder:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(type(event).__name__)

    def __enter__(self) -> None:
        self.heard.append("enter")

    def __exit__(self, *_: object) -> None:
        self.heard.append("exit")

    def say(self, text: str) -> None:
        self.heard.append(text)

    tell = say

    def finish(self, what: str, trace: Path | None = None) -> None:
        self.heard.append(f"{what} {trace}")


class Broken:
    """A view all of whose parts fail."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __call__(self, event: Event) -> None:
        raise RuntimeError

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        raise RuntimeError


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(watching, "_chosen", lambda: made)
    return made


def found(answer: str | None = "5", *, forced: bool = False) -> Result:
    outcome = Outcome(
        Answer(answer) if answer else None, "cost" if forced or not answer else "answered", forced
    )
    return Result.of(outcome, Totals(), Path("t.ipynb"))


def test_the_callers_listener_hears_all_with_progress_and_without(recorder: Recorder) -> None:
    heard: list[Event] = []
    for progress in (False, True):
        with Watched(progress, heard.append) as shown:
            assert shown.view is not None
            shown.view(Noted("x"))
    assert heard == [Noted("x")] * 2
    assert recorder.heard == ["enter", "Noted", "exit", "Ended None"]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (found(), "Answered t.ipynb"),
        (found(forced=True), "Best-effort answer (cost) t.ipynb"),
        (found(None), "No answer (cost) t.ipynb"),
    ],
)
def test_the_end_says_what_became_of_it(recorder: Recorder, result: Result, told: str) -> None:
    with Watched(True) as shown:
        assert shown.done(result) is result
    assert recorder.heard[-1] == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (asyncio.CancelledError(), "Interrupted t.ipynb"),
        (KeyboardInterrupt(), "Interrupted t.ipynb"),
        (ModelError("No key.", fault="auth", model="m", attempts=1), "Failed: No key. t.ipynb"),
        (ValueError("x"), "Failed: ValueError t.ipynb"),
    ],
)
def test_so_it_does_of_a_run_that_has_no_end(recorder: Recorder, error: BaseException, told: str) -> None:
    with pytest.raises(type(error)), Watched(True, trace=Path("t.ipynb")):
        raise error
    assert recorder.heard[-2:] == ["exit", told]


@pytest.mark.parametrize("fails", [Broken, None])
def test_a_view_that_fails_fails_no_run(fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_chosen", fails or (lambda: 1 / 0))
    heard: list[Event] = []
    with Watched(True, heard.append) as shown:
        assert shown.view is not None
        shown.view(Noted("x"))
        shown.say("Loading.")
        shown.done(found())
    assert heard == [Noted("x")]


def test_off_notebooks_lines_come_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with Watched(True) as shown:
        assert shown.view is not None
        shown.say("loading the model… 2 s")
        shown.view(RunOpened("Q", Ledger(Limits()), Totals()))
        shown.view(TurnStarted(1))
        shown.done(found())
    told = capsys.readouterr()
    assert told.out == ""
    assert "loading the model" in told.err
    assert (
        told.err.splitlines()[-1]
        == "Answered: 0 turns, 0 sub-calls, 0 tokens, $0.0000, 0.0 s. Trace: t.ipynb"
    )


def test_lines_of_runs_beside_one_another_say_whose_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with Watched(True) as one, Watched(True) as other:
        one.say("Loading this.")
        other.say("Loading that.")
        assert other.view is not None
        other.view(RunOpened("And\nthat?", Ledger(Limits()), Totals()))
    with Watched(True) as alone:
        alone.say("Loading all.")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["[1] Loading this.", "[2] Loading that."]
    assert lines[2] == "[2] question: And that?"
    assert [line[:4] for line in lines[3:5]] == ["[2] ", "[1] "]
    assert lines[5] == "Loading all."


def interrupt_soon() -> None:
    """As Jupyter does it: a signal to the main thread, which waits."""
    main = threading.main_thread().ident or 0
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()


async def test_the_stop_button_stops_a_run_that_a_notebook_waits_for() -> None:
    stopped = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_soon()
        with pytest.raises(KeyboardInterrupt):
            loops.waited_for(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.is_set()


async def test_an_answer_that_is_there_at_the_stop_is_given() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "there"
        return ""

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_soon()
        assert loops.waited_for(work) == "there"
    finally:
        signal.signal(signal.SIGINT, before)

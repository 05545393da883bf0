"""Cancelled at any step, a run leaves nothing: no container, folder, task, descriptor or thread. Each test goes through its run once undisturbed and counts the
steps of its event loop; then it is cancelled at points that are spread over all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ScriptedModels
from rlm_kernel.sandbox.containers import LABEL
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.sandbox.rundir import first_base
from rlm_kernel.session.manager import stop_session
from rlm_kernel.session.state import sessions
from rlm_kernel.trace.reader import read_trace
from tests.support.sandbox import until
from tests.support.story import repl

pytestmark = [pytest.mark.usefixtures("kernel_image"), pytest.mark.xdist_group("cancelled")]
POINTS = int(os.environ.get("RLM_TEST_POINTS", "17"))
"""For each of the ways; more are tried with RLM_TEST_POINTS=52."""
AT_ONCE = 4
"""Runs beside one another, each in a loop and a thread of its own and cancelled at a point of its own."""
OPTIONS = {"sandbox.memory": "128m"}


class Counting(asyncio.SelectorEventLoop):
    """Counts what is put to be run, and cancels its work at a step, and again so many steps later."""

    def __init__(self) -> None:
        self.steps = 0
        self.points: list[int] = []
        self.work: asyncio.Task[Any] | None = None
        super().__init__()

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        if self.work is not None and not self.work.done():
            self.steps += 1
            if self.points and self.steps >= self.points[0]:
                self.points.pop(0)
                super().call_soon(self.work.cancel)
        return super().call_soon(callback, *args, context=context)


@dataclass
class Ended:
    steps: int
    cancelled: bool
    tasks: list[str]


def go(work: Callable[[], Awaitable[object]], points: list[int]) -> Ended:
    """Do the work in a loop of its own, cancelled at these steps."""

    async def main() -> Ended:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Counting)

        async def run() -> None:
            await work()

        loop.points = list(points)
        loop.work = task = loop.create_task(run())
        await asyncio.wait([task])
        await asyncio.sleep(0)  # callbacks of what has just ended
        left = [str(one) for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        if not task.cancelled():
            task.result()
        return Ended(loop.steps, task.cancelled(), left)

    with asyncio.Runner(loop_factory=Counting) as runner:
        return runner.run(main())


def containers() -> list[str]:
    client = connect()
    try:
        found = client.containers.list(
            all=True, ignore_removed=True, filters={"label": f"{LABEL}.owner={os.getpid()}"}
        )
        return [one.name for one in found]
    finally:
        client.close()


def folders() -> set[str]:
    """Those of sessions, and of kept kernels."""
    return {path.name for path in [*first_base().glob("rlm-*"), *Path(os.environ["TMPDIR"]).glob("rlm-*")]}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it comes true in time; without an event loop, which has descriptors of its own."""
    until = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return met


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("rlm", "asyncio"))}


def rlm() -> RLM:
    code = ["kept = llm_query('one'); FINAL(kept)", "FINAL(kept)"]
    return RLM(models=ScriptedModels([repl(one) for one in code], str.upper), options=OPTIONS)


async def asked(trace: Path) -> None:
    await rlm().aask("Which?", ["one"], trace=trace)


async def kept(trace: Path) -> None:
    async with rlm() as asking:
        await asking.aask("Which?", ["one"], trace=trace)
        await asking.aask("And now?", "two")


async def streamed(trace: Path) -> None:
    async for _ in rlm().stream("Which?", ["one"], trace=trace):
        pass


async def mapped(trace: Path) -> None:
    def root(_messages: object) -> str:
        return repl("FINAL([llm_query('one'), len(context)])")

    asking = RLM(models=ScriptedModels(root, str.upper), options=OPTIONS)
    asked_all = asking.map(["Which?", "And which?"], [["one"], ["two"]], traces=trace.with_suffix(""))
    async with contextlib.aclosing(aiter(asked_all)) as answers:
        async for done in answers:
            assert done.result is not None


async def in_session(trace: Path) -> None:
    """It stays by design, whenever it is cancelled: `stop_sessions` ends it."""
    async with rlm().session(trace.stem, trace=trace) as session:
        await session.ask("Which?")
        await session.ask("And now?")
        await session.stop()


def stop_sessions() -> None:
    for name in sessions(Path(".rlm_state")):
        asyncio.run(stop_session(name))


async def with_tools(trace: Path) -> None:
    def blocks(word: str) -> str:
        time.sleep(0.05)
        return word.upper()

    async def waits(word: str) -> Path:
        await asyncio.sleep(0.05)
        file = trace.with_suffix(".txt")
        file.write_text(word)
        return file

    code = "found = [blocks('one'), waits('two')]; FINAL(len(context) and found)"
    asking = RLM(models=ScriptedModels([repl(code)]), options=OPTIONS, tools=[blocks, waits])
    await asking.aask("Which?", ["one"], trace=trace)


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="rlmc-", dir="/tmp"))  # short, for the names of sockets
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "again", [False, pytest.param(True, marks=pytest.mark.hostile)], ids=["once", "twice"]
)
@pytest.mark.parametrize(
    "work", [asked, kept, streamed, mapped, in_session, with_tools], ids=lambda work: work.__name__
)
def test_cancelled_at_any_step_nothing_is_left(
    work: Callable[[Path], Awaitable[None]], again: bool, isolated: Path, own_folder: None
) -> None:
    others = set(containers())  # kept sessions of tests before this one
    whole = go(lambda: work(isolated / "whole.ipynb"), [])
    assert not whole.cancelled
    assert whole.tasks == []
    before, begun = descriptors(), threads()
    points = [1 + whole.steps * number // POINTS for number in range(POINTS)]

    def at(point: int) -> tuple[int, Ended]:
        stops = [point, point + 1 + point % 23] if again else [point]
        return point, go(lambda: work(isolated / f"{point}.ipynb"), stops)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(at, points))
    assert [(point, end.tasks) for point, end in ended if end.tasks] == []
    assert sum(end.cancelled for _, end in ended) > POINTS / 2
    stop_sessions()
    assert set(containers()) <= others
    assert folders() == set()
    running = [
        path.name
        for path in isolated.rglob("*.ipynb")
        if (meta := read_trace(path).meta).question and meta.status == "running"
    ]
    assert running == []
    asyncio.run(until(lambda: threads() <= begun, 5))
    gc.collect()
    assert within(5, lambda: descriptors() <= before), descriptors()

"""Set-up: the same on every path, all of it at once, and one plain error where it fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.config import Settings, load_settings
from rlm_kernel.engine.protocols import Models
from rlm_kernel.errors import DockerError, FileRefused, ImageError, InternalError, ModelError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox import rundir
from rlm_kernel.session import digests, environment, manager, replay, resume, session, tracefiles
from rlm_kernel.session import models as session_models
from rlm_kernel.session.ask import ask
from rlm_kernel.session.digests import file_meta
from rlm_kernel.session.environment import Host
from rlm_kernel.session.manager import open_session
from rlm_kernel.session.models import models_of
from rlm_kernel.session.setup import at_once, set_up
from rlm_kernel.session.state import SessionFolder
from rlm_kernel.session.tracefiles import look_up_files
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell

MODEL = {"root_llm.model": "openai/x"}
NO_KEY = ModelError("There is no key.", fault="auth", model="openai/x")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Of a run that was cut off, with a file that is as it was."""
    (tmp_path / "a.txt").write_text("some text")
    path = tmp_path / "t.ipynb"
    files = [file_meta(tmp_path / "a.txt", digest_until=threading.Event())]
    writer = NotebookWriter(path, meta(files=files), [])
    tell(writer, STORY[:9])
    writer.close()
    return path


async def begin(_trace: Path, **options: Any) -> None:
    async with open_session(changes=MODEL, **options):
        pass


async def take_up(trace: Path, **options: Any) -> None:
    folder = SessionFolder(Path(".rlm_state"))
    folder.path.mkdir(parents=True)
    folder.write(folder.begin(trace, {}))
    await begin(trace, **options)


async def asked(_trace: Path, **options: Any) -> None:
    await ask("What?", "text", settings=load_settings(None, MODEL), **options)


async def resumed(trace: Path, **options: Any) -> None:
    await resume.resume(trace, changes=MODEL, **options)


async def forked(trace: Path, **options: Any) -> None:
    await resume.fork(trace, "And?", changes=MODEL, **options)


async def replayed(trace: Path, **options: Any) -> None:
    await replay.replay(trace, changes=MODEL, live=True, **options)


Way = Callable[..., Awaitable[None]]
every_way = pytest.mark.parametrize("way", [asked, resumed, forked, replayed, begin, take_up])
ways_with_a_trace = pytest.mark.parametrize("way", [resumed, forked, replayed, take_up])


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The image is not there; what was done to build it. That fails, since all else is ready by then."""
    done: list[str] = []

    def find_or_build(_settings: Settings, _say: Any, *, build: bool = True) -> Any:
        if not build:
            raise ImageError("It is not built.")
        done.append("built")
        raise DockerError("There is no room.")

    monkeypatch.setattr(environment, "find_or_build_image", find_or_build)
    monkeypatch.setattr(rundir, "sweep", lambda: done.append("swept") or [])
    return done


def opening(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None, ended: list[str] | None = None
) -> None:
    """Have the models of the settings opened so, or not at all."""

    @contextlib.asynccontextmanager
    async def open_models(*_: Any) -> AsyncIterator[Models]:
        await asyncio.sleep(0.05)  # importing litellm takes a while, too
        if failure is not None:
            raise failure
        try:
            yield ScriptedModels([])
        finally:
            if ended is not None:
                ended.append("closed")

    monkeypatch.setattr(session_models, "open_models", open_models)


@every_way
async def test_a_missing_key_is_told_before_an_image_is_built(
    way: Way, trace: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening(monkeypatch, NO_KEY)
    with pytest.raises(ModelError, match="no key"):
        await way(trace)
    assert built == ["swept"]


@every_way
async def test_what_killed_runs_have_left_is_removed_before_a_kernel_is_started(
    way: Way, trace: Path, built: list[str]
) -> None:
    with pytest.raises(DockerError, match="no room"):
        await way(trace, models=ScriptedModels([]))
    assert built == ["swept", "built"]


@every_way
async def test_models_that_were_given_are_used_and_those_of_the_settings_not_opened(
    way: Way, trace: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening(monkeypatch, NO_KEY)
    with pytest.raises(DockerError):
        await way(trace, models=ScriptedModels([]))


@ways_with_a_trace
async def test_no_trace_is_read_and_no_file_hashed_on_the_event_loop(
    way: Way, trace: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where: dict[str, bool] = {}

    def noted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*given: Any, **named: Any) -> Any:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop()
                where[name] = True
            where.setdefault(name, False)
            return work(*given, **named)

        return noting

    for module in (resume, replay, session):
        monkeypatch.setattr(module, "read_trace", noted("read", read_trace))
    monkeypatch.setattr(digests, "_sha256", noted("hashed", digests._sha256))
    monkeypatch.setattr(
        manager, "swept_image", noted("image", lambda *_: asyncio.sleep(0))
    )  # on to the trace of a kept session
    with pytest.raises((DockerError, InternalError)):
        await way(trace, models=ScriptedModels([]))
    assert where.pop("image", True)
    assert where == {"read": False, "hashed": False}


async def test_a_file_that_has_changed_is_told_before_an_image_is_built(
    trace: Path, built: list[str]
) -> None:
    (trace.parent / "a.txt").write_text("other text than before")
    with pytest.raises(FileRefused, match="changed"):
        await replayed(trace, models=ScriptedModels([]))
    assert "built" not in built


async def test_what_fails_stops_the_others_and_closes_what_was_opened(
    trace: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    opening(monkeypatch, None, ended)
    with pytest.raises(DockerError, match="no room"):
        async with set_up(Host(Settings()), models_of(load_settings(None, MODEL), None, print)):
            pass
    assert ended == ["closed"]


async def test_reading_files_ends_with_who_waits_for_it(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, stopped = threading.Event(), threading.Event()

    def slow(*_: Any, stop: threading.Event, **__: Any) -> None:
        reading.set()
        if stop.wait(10):
            stopped.set()

    monkeypatch.setattr(tracefiles, "find_files", slow)
    task = asyncio.create_task(look_up_files(read_trace(trace)))
    await asyncio.to_thread(reading.wait, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.to_thread(stopped.wait, 10)


def names(models: Models) -> dict[str, str]:
    return {"root": models.name("root"), "sub": models.name("sub")}


async def test_a_trace_names_given_models_as_they_are_called_and_a_local_one_as_the_user_calls_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, given = load_settings(None, {"root_llm.model": "local:0.5b"}), ScriptedModels([])
    async with models_of(settings, given, print) as chosen:
        assert chosen.names == names(given)
    opening(monkeypatch, None)
    async with models_of(settings, None, print) as chosen:
        assert chosen.names == {"root": "local:0.5b", "sub": "local:0.5b"}
        assert chosen.profile.name == "small"


# at_once


async def fail(error: Exception, after: float = 0.0) -> None:
    await asyncio.sleep(after)
    raise error


def all_of(*work: Coroutine[Any, Any, Any]) -> Callable[[asyncio.TaskGroup], list[asyncio.Task[Any]]]:
    return lambda group: [group.create_task(one) for one in work]


async def test_what_is_done_at_once_gives_its_results() -> None:
    tasks = await at_once(all_of(asyncio.sleep(0.01, "slow"), asyncio.sleep(0, "fast")))
    assert [task.result() for task in tasks] == ["slow", "fast"]


async def test_of_two_failures_the_first_is_raised_as_it_is() -> None:
    first = ValueError("first")
    first.__cause__ = KeyError("cause")
    with pytest.raises(ValueError, match="first") as caught:
        await at_once(all_of(fail(TypeError("second"), after=0.01), fail(first)))
    assert caught.value is first
    assert isinstance(first.__cause__, KeyError)


async def test_a_failure_stops_what_goes_on_beside_it_and_leaves_nobody_cancelled() -> None:
    stopped = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            stopped.set()

    with pytest.raises(ValueError, match="it failed"):
        await at_once(all_of(wait(), fail(ValueError("it failed"))))
    assert stopped.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_interrupt_is_one_also_where_something_fails_as_it_is_stopped() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError("it cannot be stopped")

    task = asyncio.create_task(at_once(all_of(stubborn())))  # type: ignore[var-annotated]
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_group_within_a_group_raises_one_error() -> None:
    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(ValueError("deep")))

    with pytest.raises(ValueError, match="deep"):
        await at_once(all_of(inner()))

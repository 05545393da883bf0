"""Which questions are asked again when workers end, and which are given up: without Ray."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Totals
from rlm_kernel.errors import DockerError, RLMError, SetupError
from rlm_kernel.session.batch import ray_cluster
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.item import Done, Item
from rlm_kernel.session.batch.ray_cluster import CAREFUL, Cluster, Lost, WorkerHandle
from rlm_kernel.session.batch.ray_engine import BLAME, OnRay, RayEngine
from rlm_kernel.session.batch.ray_joining import join, silence
from rlm_kernel.session.batch.ray_worker import Order, Plan, Ready, Reply, State, Told
from rlm_kernel.session.result import Result


class _Cluster:
    """Workers that are replaced at once."""

    def __init__(self, workers: int, places: int) -> None:
        self.handles: dict[str, WorkerHandle] = {}
        self.changed = asyncio.Event()
        self.broken: RLMError | None = None
        self.ended = 0
        self._places, self._numbers = places, itertools.count()
        for _ in range(workers):
            self._begin()

    def _begin(self) -> None:
        handle = WorkerHandle(None, f"node-{next(self._numbers)}", "")
        handle.name, handle.places = handle.node, self._places
        if not self.ended:
            handle.trusted = math.inf
        self.handles[handle.node] = handle
        self.changed.set()

    async def lose(self, handle: WorkerHandle, _why: str) -> None:
        if handle.gone.is_set():
            return
        self.ended += 1
        handle.gone.set()
        handle.blamed = handle.busy
        del self.handles[handle.node]
        self._begin()

    def put_aside(self, handle: WorkerHandle, error: RLMError) -> None:
        self.handles.pop(handle.node, None)
        if not self.handles:
            self.broken = error
        self.changed.set()


class _Engine(RayEngine):
    """Whose worker ends when it is asked `poison`, and all with it, at once."""

    def __init__(self, cluster: _Cluster, lacking: str = "") -> None:
        super().__init__(load_settings(None), OnRay())
        self._cluster: Any = cluster
        self._lacking = lacking

    async def _by(self, handle: WorkerHandle, order: Order, _parcels: Any, trace: Path) -> Reply:
        from rlm_kernel.session.batch.ray_engine import _Unfit

        if handle.node == self._lacking:
            raise _Unfit(DockerError("No engine."))
        if order.item.question == "poison":
            await asyncio.sleep(0)  # others begin there
            await self._cluster.lose(handle, "")
            raise Lost("It ended.")
        for _ in range(20):
            await asyncio.sleep(0)
            if handle.gone.is_set():
                raise Lost("It ended.")
        handle.trusted += 1
        return Reply(1, Result("yes", None, trace, "answered", False, "", Totals()))


async def _answers(engine: RayEngine, folder: Path, *questions: str) -> list[Done]:
    asked = [engine.answer(Item(str(n), text), folder / f"{n}.ipynb") for n, text in enumerate(questions)]
    return list(await asyncio.gather(*asked))


async def test_what_ends_workers_is_given_up_and_the_others_have_their_answers(tmp_path: Path) -> None:
    cluster = _Cluster(workers=2, places=4)
    done = await _answers(_Engine(cluster), tmp_path, *["fine?"] * 7, "poison", *["fine?"] * 20)
    assert [one.failure.kind for one in done if one.failure] == ["WorkerLost"]
    assert done[7].failure is not None
    assert done[7].failure.passing
    assert BLAME <= cluster.ended < 4 * BLAME  # both had all their places full, and then two at a time


async def test_a_question_that_is_always_beside_what_ends_workers_is_not_given_up_with_it(
    tmp_path: Path,
) -> None:
    cluster = _Cluster(workers=1, places=2)
    ends, fine = await _answers(_Engine(cluster), tmp_path, "poison", "fine?")
    assert ends.failure is not None
    assert ends.failure.kind == "WorkerLost"
    assert fine.failure is None
    assert BLAME <= cluster.ended <= 2 + BLAME  # beside each other at most twice, and then alone


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["fine?", "fine?", "fine?", "poison"]), min_size=1, max_size=24),
    st.integers(1, 3),
    st.integers(1, 5),
)
def test_only_what_ends_workers_is_given_up_in_any_order_and_company(
    tmp_path: Path, questions: list[str], workers: int, places: int
) -> None:
    cluster = _Cluster(workers, places)
    done = asyncio.run(_answers(_Engine(cluster), tmp_path, *questions))
    assert [one.failure is not None for one in done] == [text == "poison" for text in questions]
    assert all(handle.busy == 0 and not handle.alone for handle in cluster.handles.values())


async def test_alone_on_its_worker_it_is_given_up_at_once(tmp_path: Path) -> None:
    cluster = _Cluster(workers=1, places=1)
    (done,) = await _answers(_Engine(cluster), tmp_path, "poison")
    assert done.failure is not None
    assert "3 workers" in done.failure.message
    assert cluster.ended == 3


async def test_what_a_node_told_of_questions_that_it_has_answered_by_now_is_not_told(tmp_path: Path) -> None:
    cluster = _Cluster(workers=1, places=4)
    engine = _Engine(cluster)
    handle = cluster.handles["node-0"]
    handle.doing = {"0": Doing(1, 5, 90, 0.25), "before": Doing(3, 3, 3, 3.0)}
    answering = asyncio.create_task(_answers(engine, tmp_path, "fine?"))
    while not handle.busy:  # noqa: ASYNC110  # until it is asked
        await asyncio.sleep(0)
    assert engine.doing() == {"0": Doing(1, 5, 90, 0.25, node="node-0")}
    await answering
    assert engine.doing() == {}


async def test_a_worker_in_the_place_of_another_is_asked_few_questions_at_first(tmp_path: Path) -> None:
    cluster = _Cluster(workers=1, places=8)
    engine = _Engine(cluster)
    assert engine.places == 8
    await cluster.lose(cluster.handles["node-0"], "")
    assert engine.places == CAREFUL
    await _answers(engine, tmp_path, *["fine?"] * 20)
    assert engine.places == 8


async def test_a_node_that_lacks_something_has_no_more_questions(tmp_path: Path) -> None:
    done = await _answers(_Engine(_Cluster(2, 2), "node-0"), tmp_path, *["fine?"] * 8)
    assert {one.node for one in done} == {"node-1"}


@pytest.mark.parametrize("changes", [{}, {"prompt.whole": 0.0, "limits.calls": 0}, {"sandbox.runtime": "x"}])
async def test_a_node_that_lacks_something_is_left_out_for_questions_with_limits_of_their_own_too(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """As those of a benchmark's strategies."""

    class Remote:
        def __init__(self, reply: Any) -> None:
            self._reply = reply

        async def remote(self, *_: Any) -> Any:
            return self._reply

    class Actor:
        drop = Remote(None)

        def __init__(self, reply: Reply) -> None:
            self.answer = Remote(reply)

    class Calling(_Cluster):
        async def of(self, handle: WorkerHandle, method: str, *given: Any) -> Any:
            reply = getattr(handle.actor, method).remote(*given)
            return await reply

    cluster = Calling(workers=2, places=1)
    good = Result("yes", None, tmp_path / "a.ipynb", "answered", False, "", Totals())
    replies = Reply(1, error=Told.of(DockerError("No engine."))), Reply(1, good)
    for handle, reply in zip(cluster.handles.values(), replies, strict=True):
        handle.actor = Actor(reply)
    engine = RayEngine(load_settings(None), OnRay())
    engine._cluster = cluster  # type: ignore[assignment]
    answer = engine.answer(Item("a", "fine?", changes=changes), tmp_path / "a.ipynb")
    if "sandbox.runtime" in changes:
        with pytest.raises(DockerError):
            await answer
    else:
        assert (await answer).node == "node-1"


async def test_without_a_node_that_has_all_the_batch_ends_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DockerError, match="No engine"):
        await _answers(_Engine(_Cluster(1, 2), "node-0"), tmp_path, "fine?")


async def test_a_file_that_is_not_there_concerns_its_question_alone(tmp_path: Path) -> None:
    engine = _Engine(_Cluster(1, 1))
    done = await engine.answer(Item("a", "?", tmp_path / "nothing"), tmp_path / "a.ipynb")
    assert done.failure is not None
    assert done.failure.kind == "FileRefused"


class _Reference:
    """Of Ray's: to what a call will give."""

    def __init__(self, reply: Future[Any]) -> None:
        self._reply = reply

    def future(self) -> Future[Any]:
        return self._reply


class _Actor:
    """Of a Ray that is not there: each of its methods does what it was made with, and replies what that gives."""

    def __init__(self, take: Callable[[str], Any]) -> None:
        self._take = take

    def __getattr__(self, method: str) -> Any:
        def remote(*_given: Any) -> _Reference:
            given = self._take(method)
            if isinstance(given, Future):
                return _Reference(given)
            reply: Future[Any] = Future()
            reply.set_result(given)
            return _Reference(reply)

        return SimpleNamespace(remote=remote)


def _calling(take: Callable[[str], Any]) -> tuple[Cluster, WorkerHandle]:
    class Raised(Exception):
        pass

    cluster = Cluster(None, (None, None), lambda _text: None)
    exceptions = SimpleNamespace(RayTaskError=Raised, RayError=Raised)
    cluster._ray = SimpleNamespace(exceptions=exceptions)
    return cluster, WorkerHandle(_Actor(take), "node", "")


async def test_a_connection_that_ray_client_has_given_up_ends_the_batch_with_what_to_do_next() -> None:
    def refuse(_method: str) -> Any:
        raise Exception("Ray Client is not connected.")

    cluster, handle = _calling(refuse)
    with pytest.raises(Lost):
        await cluster.of(handle, "answer")
    assert cluster.broken is not None
    assert "connection to the Ray cluster is lost" in cluster.broken.message
    assert cluster.broken.hint


async def test_a_call_that_is_not_waited_for_any_more_leaves_rays_future_as_it_is() -> None:
    reply: Future[str] = Future()
    called = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take(_method: str) -> Any:
        loop.call_soon_threadsafe(called.set)
        return reply

    cluster, handle = _calling(take)
    asked = asyncio.create_task(cluster.call(handle.actor, "answer"))
    await called.wait()
    while not reply._done_callbacks:  # type: ignore[attr-defined]  # noqa: ASYNC110  # until it is waited for
        await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait([asked])
    assert not reply.cancelled()
    reply.set_result("late")


class _SlowHead:
    """It takes a call when the event loop says so, and at the latest after some seconds, which is too late."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self._may = threading.Event()
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def take(self, method: str) -> str:
        self._loop.call_soon_threadsafe(self.asked.set)
        assert self._may.wait(5)
        self.taken.append(method)
        return f"{method} was taken"

    def go_on(self) -> None:
        self._may.set()


async def test_the_event_loop_goes_on_while_the_head_is_slow_to_take_a_call() -> None:
    head = _SlowHead()
    cluster, handle = _calling(head.take)
    asked = asyncio.create_task(cluster.of(handle, "answer"))
    await head.asked.wait()
    head.go_on()
    assert await asked == "answer was taken"


async def test_the_event_loop_goes_on_while_the_head_is_slow_to_make_a_worker() -> None:
    head = _SlowHead()
    cluster, _ = _calling(head.take)
    cluster._plan = Plan("1", load_settings(None))
    made = _Actor(lambda _method: Ready("n1", 3, 42))

    class Made:
        def options(self, **_options: Any) -> Made:
            return self

        def remote(self, *_given: Any) -> _Actor:
            head.take("a worker")
            return made

    cluster._ray.remote = lambda _kind: Made()
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *_, **__: None)
    cluster._ray.util = SimpleNamespace(scheduling_strategies=strategies)
    starting = asyncio.create_task(cluster._start("node", {}))
    await head.asked.wait()
    head.go_on()
    await starting
    assert cluster.handles["node"].places == 3


async def test_what_is_to_stop_a_question_comes_to_its_worker_after_the_question() -> None:
    """Else it would be answered for nobody."""
    head = _SlowHead()
    cluster, handle = _calling(head.take)
    asked = asyncio.create_task(cluster.of(handle, "answer"))
    await head.asked.wait()
    asked.cancel()
    await asyncio.wait([asked])
    dropped = asyncio.create_task(cluster.of(handle, "drop"))
    head.go_on()
    await dropped
    assert head.taken == ["answer", "drop"]


async def test_what_a_node_lacks_is_told_in_one_line_with_what_to_do() -> None:
    told: list[str] = []
    cluster = Cluster(None, (None, None), told.append)
    cluster._refuse("node", "n1", SetupError("No image:\nE: no network", hint="Type `rlm image build`."))
    assert told == ["n1 answers no more questions for now: No image: E: no network Type `rlm image build`."]


async def test_a_lost_connection_begins_no_cluster_on_this_machine() -> None:
    killed: list[object] = []
    cluster = Cluster(None, (None, None), lambda _text: None)
    cluster._ray = SimpleNamespace(is_initialized=lambda: False, kill=killed.append)
    cluster._kill("actor")
    assert not killed


def test_what_ray_client_says_of_files_that_are_sent_is_not_on_stderr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where machines read events, say."""
    monkeypatch.setitem(sys.modules, "ray._private.worker", ModuleType("ray._private.worker"))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        silence()
        warnings.warn("More than 10MB of messages have been created to schedule tasks on", stacklevel=1)
        warnings.warn("Something else", stacklevel=1)
    assert [str(one.message) for one in heard] == ["Something else"]


@pytest.mark.parametrize(
    ("said", "attempts"),
    [
        ("RuntimeError( Starting Ray client server failed. See a.err", 3),
        ("RuntimeError( Proxy failed to Connect to backend! Check a.err", 3),
        ("connection timed out", 1),
    ],
)
def test_a_head_that_is_too_busy_for_a_client_is_asked_again_and_no_other(said: str, attempts: int) -> None:
    asked: list[str] = []

    def refuse(address: str, **_options: Any) -> None:
        asked.append(address)
        raise ConnectionAbortedError(said)

    with pytest.raises(SetupError, match=r"Cannot connect"):
        join(SimpleNamespace(init=refuse), "ray://head:10001")
    assert asked == ["ray://head:10001"] * attempts


def test_a_head_that_was_busy_is_joined_in_the_end() -> None:
    told = iter([ConnectionAbortedError("Starting Ray client server failed."), None])

    def begin(**_options: Any) -> None:
        if (error := next(told)) is not None:
            raise error

    join(SimpleNamespace(init=begin), "ray://head:10001")
    assert not list(told)


async def test_a_worker_that_is_slow_to_tell_how_it_is_is_asked_once_and_heard_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_cluster, "LOOK_SECONDS", 0.01)
    cluster, handle = Cluster(None, (None, None), print), WorkerHandle(None, "node", "holder")
    asked, told = list[str](), asyncio.Event()

    async def of(_handle: WorkerHandle, method: str) -> State:
        asked.append(method)
        await told.wait()
        return State(3, {})

    monkeypatch.setattr(cluster, "of", of)
    for _ in range(2):
        await cluster._ask_state(handle)
        assert (asked, handle.places) == (["state"], 0)
    told.set()
    await cluster._ask_state(handle)
    assert (asked, handle.places) == (["state"], 3)

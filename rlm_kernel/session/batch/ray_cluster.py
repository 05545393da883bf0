"""A Ray cluster as the driver sees it: its nodes, and the workers on them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from rlm_kernel.engine.purse import Spent
from rlm_kernel.errors import InternalError, RLMError, SetupError
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.ray_joining import (
    RESOURCE,
    check_pickled,
    first_line,
    import_ray,
    join,
    nodes,
    own_node,
    silence,
)
from rlm_kernel.session.batch.ray_shared import Shared
from rlm_kernel.session.batch.ray_worker import Plan, Ready, State, Worker

T = TypeVar("T")
LOOK_SECONDS = 1.0
"""Between two looks at the nodes."""
CAREFUL = 2
"""Questions at one time for a worker that takes the place of one that has ended, at first: what ends workers
is soon told from the rest, and little is lost when many end.
"""
UNFIT_SECONDS = 30.0
"""Before a node whose worker could not begin is tried again."""
OPEN_SECONDS = 300.0
"""For a worker to be ready: its image may have to be built."""
_CLOSE_SECONDS = 30.0
_AGAIN = "Type the same command again: it continues where it stopped."


class Lost(Exception):
    """The worker has ended, or cannot be reached, and what it was asked for with it."""


class WorkerHandle:
    """A worker, from the driver's side."""

    def __init__(self, actor: Any, node: str, holder: str) -> None:
        """`node`: by Ray's id; `holder`: its name for the shared budget."""
        self.actor, self.node, self.holder = actor, node, holder
        self.name, self.pid = "", 0
        """Its machine, and its process there."""
        self.places = self.busy = 0
        self.alone = False
        """What it answers is to be alone there."""
        self.trusted: float = CAREFUL
        """It is asked so many questions at one time at most: one more with each answer. Infinite for one that
        began before any had ended.
        """
        self.blamed = math.inf
        """How many questions it was answering when it was lost; infinite where none is at fault."""
        self.doing: Mapping[str, Doing] = {}
        """Of the questions that it answers, by their ids, at the last look."""
        self.asked: asyncio.Task[State] | None = None
        """How it is: asked, and not answered yet."""
        self.gone = asyncio.Event()
        """It is lost, or given up."""
        self.sending: dict[str, asyncio.Lock] = {}
        """Files that are on their way to it, by their digests."""

    @property
    def room(self) -> int:
        """How many questions it is asked at one time."""
        return int(min(self.places, self.trusted))


def _looked_at(task: asyncio.Task[State]) -> None:
    """Nobody may ask for its error any more: the worker is lost."""
    if not task.cancelled():
        task.exception()


class Cluster:
    """The nodes of a cluster, with a worker on each as long as it is open. Belongs to one event loop."""

    def __init__(
        self,
        address: str | None,
        limits: tuple[float | None, int | None],
        say: Callable[[str], None],
    ) -> None:
        """`address`: of Ray Client (`ray://host:port`), or None for the cluster that is configured, else one
        of this machine alone. `limits`: US dollars and tokens of all questions together.
        """
        self._address, self._limits, self._say = address, limits, say
        self._ray: Any = None
        self._calling = ThreadPoolExecutor(1, "rlm-ray")
        """The thread that makes actors and calls: Ray Client waits for an answer of the head in each. One
        thread, so that an actor has the calls in the order in which they were made.
        """
        self._owned = False
        self.shared: Any = None
        """The actor with what the workers share (`ray_shared.Shared`)."""
        self._plan: Plan
        self._watch: asyncio.Task[None] | None = None
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._unfit: dict[str, tuple[float, RLMError]] = {}
        self.handles: dict[str, WorkerHandle] = {}
        """The workers that are ready, by their nodes."""
        self._any_lost = False
        self.changed = asyncio.Event()
        """Something may be free, or has ended."""
        self.broken: RLMError | None = None
        """Why nothing can be asked any more."""

    async def open(self, plan: Plan) -> None:
        """Join the cluster, and have a worker ready. Raises SetupError, UsageError."""
        self._ray = await asyncio.to_thread(import_ray)
        self._owned = not self._ray.is_initialized()
        if self._owned:
            await asyncio.to_thread(join, self._ray, self._address)
            silence()
        await asyncio.to_thread(check_pickled, self._ray, plan)
        self._plan = plan
        self.shared = await self._in_turn(self._make_shared)
        await self.spent()
        self._watch = asyncio.create_task(self._look_after())
        while not self.handles and self.broken is None:
            self.changed.clear()
            await self.changed.wait()
        if self.broken is not None:
            raise self.broken

    async def close(self) -> None:
        """End all workers. Idempotent."""
        tasks = [task for task in (self._watch, *self._starting.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        handles, self.handles = list(self.handles.values()), {}
        await asyncio.gather(*map(self._end, handles))
        if self.shared is not None:
            await asyncio.to_thread(self._kill, self.shared)
        if self._owned:
            await asyncio.to_thread(self._ray.shutdown)
        self._calling.shutdown(wait=False)

    async def _end(self, handle: WorkerHandle) -> None:
        if handle.asked is not None:
            handle.asked.cancel()
        with contextlib.suppress(Lost, RLMError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.of(handle, "close")
        await asyncio.to_thread(self._kill, handle.actor)

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(Exception):  # it has ended, or its node
            if self._ray.is_initialized():  # without a connection Ray would begin a cluster of its own here
                self._ray.kill(actor)

    async def call(self, actor: Any, method: str, *given: Any) -> Any:
        """What an actor's method gives. Raises Lost, InternalError."""
        errors = self._ray.exceptions

        def ask() -> Future[Any]:
            reply: Future[Any] = getattr(actor, method).remote(*given).future()
            return reply

        try:
            reply = await self._in_turn(ask)
        except Exception as error:  # Ray Client's has no class of its own, once its connection is given up
            self._break(_cut_off(error))
            raise Lost(first_line(error)) from error
        try:
            # Ray Client's thread fails on a future that was cancelled, and then tells the others nothing.
            return await asyncio.shield(asyncio.wrap_future(reply))
        except errors.RayTaskError as error:
            raise InternalError(f"A worker of the cluster failed: {first_line(error)}") from error
        except errors.RayError as error:
            raise Lost(first_line(error)) from error
        except ConnectionError as error:
            self._break(_cut_off(error))
            raise Lost(first_line(error)) from error

    async def _in_turn(self, work: Callable[[], T]) -> T:
        """What it gives, by the thread that calls Ray. Cancelled before its turn, it is not done."""
        return await asyncio.get_running_loop().run_in_executor(self._calling, work)

    def _make_shared(self) -> Any:
        """Blocking."""
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_concurrency": 10_000}
        if here := own_node(self._ray):
            options["scheduling_strategy"] = self._only_on(here)
        return self._ray.remote(Shared).options(**options).remote(*self._limits)

    def _make_worker(self, handle: WorkerHandle, options: dict[str, Any]) -> Any:
        """Blocking."""
        made = self._ray.remote(Worker).options(
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=10_000,
            scheduling_strategy=self._only_on(handle.node),
            **options,
        )
        return made.remote(handle.holder, self.shared)

    def _only_on(self, node: str) -> Any:
        return self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def _forget(self, handle: WorkerHandle) -> None:
        """Its calls and places are the others' from now on. Nobody waits for that."""

        def tell() -> None:
            self.shared.forget.remote(handle.holder)

        self._calling.submit(tell)

    async def spent(self) -> Spent:
        """What all questions have used together. Raises SetupError where the actor that counts is gone."""
        try:
            spent: Spent = await self.call(self.shared, "spent")
        except Lost as error:
            self._break(SetupError(f"The actor that keeps the budget is lost: {error}", hint=_AGAIN))
            assert self.broken is not None
            raise self.broken from error
        return spent

    async def of(self, handle: WorkerHandle, method: str, *given: Any) -> Any:
        """The same of a worker; it is not waited for longer than it is there."""
        asked, gone = (
            asyncio.ensure_future(self.call(handle.actor, method, *given)),
            asyncio.ensure_future(handle.gone.wait()),
        )
        try:
            await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Lost("Its node is gone.")
            return asked.result()
        finally:
            gone.cancel()
            asked.cancel()

    async def lose(self, handle: WorkerHandle, why: str) -> None:
        """The worker is given up: what it does from now on counts for nothing. Idempotent."""
        if handle.gone.is_set():
            return
        handle.gone.set()
        self._any_lost = True
        handle.blamed = max(1, handle.busy)
        if self.handles.get(handle.node) is handle:
            del self.handles[handle.node]
        self._say(f"The worker on {handle.name} ended; its questions are asked again. {why}"[:300])
        self._forget(handle)
        self.changed.set()
        await asyncio.to_thread(self._kill, handle.actor)

    def put_aside(self, handle: WorkerHandle, error: RLMError) -> None:
        """Its node lacks something: no more questions for a while, there."""
        if self.handles.get(handle.node) is handle:
            del self.handles[handle.node]
            self._refuse(handle.node, handle.name, error)
            handle.gone.set()
            self._starting[handle.node] = asyncio.create_task(self._end(handle))
            self._forget(handle)

    def _refuse(self, node: str, name: str, error: RLMError) -> None:
        until = asyncio.get_running_loop().time() + UNFIT_SECONDS
        self._unfit[node] = until, error
        why = " ".join(error.message.split())[:500]
        hint = f" {error.hint}" if error.hint else ""
        self._say(f"{name or 'A node'} answers no more questions for now: {why}{hint}")

    def _break(self, error: RLMError) -> None:
        self.broken = self.broken or error
        self.changed.set()

    async def _look_after(self) -> None:
        """Have a worker on each node that can have one, as long as this runs."""
        while self.broken is None:
            try:
                await self.spent()
                alive = await asyncio.to_thread(nodes, self._ray)
            except Exception as error:
                self._break(SetupError(f"The Ray cluster is lost: {first_line(error)}", hint=_AGAIN))
                return
            for handle in [handle for handle in self.handles.values() if handle.node not in alive]:
                await self.lose(handle, "Its node is gone.")
            now = asyncio.get_running_loop().time()
            for node, options in alive.items():
                starting = self._starting.get(node)
                if starting is not None and starting.done():
                    self._starting.pop(node)
                    starting = None
                fit = self._unfit.get(node, (0.0, None))[0] <= now
                if node not in self.handles and starting is None and fit:
                    self._starting[node] = asyncio.create_task(self._start(node, options))
            self._check(alive)
            await asyncio.gather(*map(self._ask_state, self.handles.values()))
            await asyncio.sleep(LOOK_SECONDS)

    def _check(self, alive: dict[str, dict[str, Any]]) -> None:
        """Whether there is anybody left to answer."""
        if self.handles or self._starting:
            return
        if not alive:
            self._break(
                SetupError(
                    "No node of the Ray cluster can run a worker.",
                    hint=f"A node needs a CPU that Ray can assign, or the resource {RESOURCE}: "
                    f"ray start … --resources '{{\"{RESOURCE}\": 1}}'",
                )
            )
        elif all(node in self._unfit for node in alive):
            self._break(self._unfit[next(iter(alive))][1])

    async def _ask_state(self, handle: WorkerHandle) -> None:
        """One that is slow to tell does not keep the others waiting. It is asked once at a time, and that is
        not taken back: calls may wait longer for their turn, and a worker that is not asked ends.
        """
        if handle.asked is None:
            handle.asked = asyncio.create_task(self.of(handle, "state"))
            handle.asked.add_done_callback(_looked_at)
        await asyncio.wait({handle.asked}, timeout=LOOK_SECONDS)
        if not handle.asked.done():
            return
        asked, handle.asked = handle.asked, None
        try:
            state: State = asked.result()
            handle.places, handle.doing = state.places, state.doing
        except Lost as error:
            await self.lose(handle, str(error))
        self.changed.set()

    async def _start(self, node: str, options: dict[str, Any]) -> None:
        handle = WorkerHandle(None, node, uuid.uuid4().hex)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                handle.actor = await self._in_turn(lambda: self._make_worker(handle, options))
                ready: Ready = await self.call(handle.actor, "open", self._plan)
        except BaseException as error:
            await asyncio.to_thread(self._kill, handle.actor)
            if not isinstance(error, Exception):
                raise
            self._refuse(node, "", _not_begun(node, error))
            self.changed.set()
            return
        handle.name, handle.pid, handle.places = ready.name, ready.pid, ready.places
        if not self._any_lost:
            handle.trusted = math.inf
        if ready.error is not None:
            await asyncio.to_thread(self._kill, handle.actor)
            self._refuse(node, handle.name, ready.error.error())
        else:
            self._unfit.pop(node, None)
            self.handles[node] = handle
        self.changed.set()


def _cut_off(error: BaseException) -> RLMError:
    return SetupError(f"The connection to the Ray cluster is lost: {first_line(error)}", hint=_AGAIN)


def _not_begun(node: str, error: BaseException) -> RLMError:
    if isinstance(error, TimeoutError):
        return SetupError(
            f"The worker on node {node[:8]} was not ready within {OPEN_SECONDS:g} s.",
            hint="Type `rlm doctor` on that node: building a missing kernel image takes minutes.",
        )
    return SetupError(
        f"A worker could not start on node {node[:8]} of the cluster: {first_line(error)}",
        hint="Install the same version of rlm-kernel[ray] on each node, in the Python that runs Ray.",
    )

"""Questions of a batch, answered by the nodes of a Ray cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from rlm_kernel._version import __version__
from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.purse import Spent
from rlm_kernel.errors import RLMError, SetupError, WorkerLost
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.failures import failure_of, has_own
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.ray_cluster import Cluster, Lost, WorkerHandle
from rlm_kernel.session.batch.ray_files import Home, Member, Parcel, Parcels, pieces
from rlm_kernel.session.batch.ray_worker import Order, Plan, Reply, Sent
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.result import Result

BLAME, TRIES = 3, 30
"""When a question is given up that may be what ends workers: after so many that answered nothing else, or
after so many in any company.
"""
SUSPECT = 1.0
"""Each worker that ends is the fault, in equal parts, of the questions that it was answering. One whose parts
add up to this has a worker of its own from then on: only there it is known whether the fault is its own.
"""
_STOP_SECONDS = 30.0
_CLOUDS = {"bedrock": "AWS_", "sagemaker": "AWS_", "vertex_ai": "GOOGLE_", "gemini": "GOOGLE_"}


@dataclass(frozen=True)
class OnRay:
    """Which cluster, and how much of it.

    `address`: `ray://host:port`, or None for the cluster that is configured, else this machine. `cost` in US
    dollars and `tokens`: of all questions together; `jobs`: questions at one time. None is no limit.
    """

    address: str | None = None
    cost: float | None = None
    tokens: int | None = None
    jobs: int | None = None


class RayEngine:
    """An engine (`session.batch.engine`) whose places are those of all nodes of a cluster."""

    def __init__(
        self,
        settings: Settings,
        on: OnRay = OnRay(),
        *,
        models: Models | None = None,
        tools: Mapping[str, Any] | None = None,
        say: Say = silent,
    ) -> None:
        """`models`, `tools`: as of Asker; each worker has a copy."""
        self._settings, self._jobs, self._say = settings, on.jobs, say
        self._given = models, dict(tools or {})
        self._parcels = Parcels()
        self._turn = asyncio.Lock()
        self._cluster = Cluster(on.address, (on.cost, on.tokens), say)
        self._busy = 0
        self._answering: set[str] = set()
        self.lost = 0
        """How many answers were begun and lost with their workers."""

    @property
    def places(self) -> int:
        """As of Engine."""
        all_ = sum(handle.room for handle in list(self._cluster.handles.values()))
        return max(1, all_ if self._jobs is None else min(all_, self._jobs))

    def doing(self) -> Mapping[str, Doing]:
        """As of Engine."""
        return {
            name: replace(doing, node=handle.name)
            for handle in list(self._cluster.handles.values())
            for name, doing in handle.doing.items()
            if name in self._answering  # what a worker told may be a second old
        }

    @property
    def handles(self) -> list[WorkerHandle]:
        """The workers that are there now."""
        return list(self._cluster.handles.values())

    async def spent(self) -> Spent:
        """What all questions have used together."""
        return await self._cluster.spent()

    async def __aenter__(self) -> Self:
        """Raises SetupError, UsageError."""
        models, tools = self._given
        settings = await _with_keys(self._settings) if models is None else self._settings
        settings = settings.model_copy(
            update={"sandbox": settings.sandbox.model_copy(update={"question_files": False})}
        )
        plan = Plan(__version__, settings, _variables(settings), models, tools)
        try:
            await self._cluster.open(plan)
        except BaseException:
            await self._cluster.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cluster.close()

    async def answer(self, item: Item, trace: Path) -> Done:
        """As of Engine."""
        began = time.monotonic()
        node = ""

        def done(result: Result | None, failure: Failure | None, place: Path | None) -> Done:
            return Done(item, result, failure, place, time.monotonic() - began, node)

        self._answering.add(item.id)
        try:
            order, parcels = await self._order(item, trace)
            reply, node = await self._somewhere(order, parcels, trace)
            if reply.error is not None:
                raise reply.error.error()
        except RLMError as error:
            failure = failure_of(error, item)
            return done(None, failure, trace if await asyncio.to_thread(os.path.lexists, trace) else None)
        finally:
            self._answering.discard(item.id)
        assert reply.result is not None
        return done(replace(reply.result, trace=trace), None, trace)

    async def _order(self, item: Item, trace: Path) -> tuple[Order, list[Parcel]]:
        """What a worker is told, and the files for it. What is no file is written beside the trace here, as
        it would be without a cluster. Raises UsageError, FileRefused, TraceError.
        """
        from rlm_kernel.sandbox.grants import resolve
        from rlm_kernel.session.inputs import gather
        from rlm_kernel.session.questions import read_question, refuse_missing

        question = await read_question(
            item.question, item.schema, files=self._settings.sandbox.question_files
        )
        named = [file for file in question.named if file.is_file()]
        given = item.context if item.context is not None else named or None
        if given is None and not question.named:
            refuse_missing(question.absent)
        question.tell_absent(self._say)

        def look() -> tuple[list[Parcel], bool]:
            inputs = gather(given, trace)
            return [self._parcels.of(resolve(path)) for path in inputs.paths], inputs.made

        parcels, made = await asyncio.to_thread(look)
        files = tuple(Sent(parcel.digest, str(parcel.path)) for parcel in parcels)
        return Order(replace(item, context=None), trace.name, files, made), parcels

    async def _somewhere(self, order: Order, parcels: list[Parcel], trace: Path) -> tuple[Reply, str]:
        """Have it answered by a worker, and by another one where that ends. Raises RLMError."""
        lost, alone, blame = 0, 0, 0.0
        while True:
            async with self._place(alone=blame >= SUSPECT) as handle:
                if handle.gone.is_set():  # while it answered the rest
                    continue
                try:
                    return await self._by(handle, order, parcels, trace), handle.name
                except Lost as error:
                    await self._cluster.lose(handle, str(error))
                    lost, alone = lost + 1, alone + (handle.blamed == 1)
                    blame += 1 / handle.blamed
                    self.lost += 1
                except _Unfit as unfit:
                    self._cluster.put_aside(handle, unfit.error)
            if lost >= TRIES or alone >= BLAME:
                raise WorkerLost(
                    f"{lost} workers of the cluster ended while they answered this question.",
                    hint="This question may be the cause: ask it alone, without the cluster, and watch the "
                    "memory of its node.",
                )

    @contextlib.asynccontextmanager
    async def _place(self, alone: bool) -> AsyncIterator[WorkerHandle]:
        """A worker with a free place: the one that has most of its places free.

        `alone`: that one gets no other question from now on, and this one when it has answered the rest.
        """
        async with self._turn:  # questions begin in the order in which they came
            handle = await self._free()
            handle.alone = alone
            self._busy += 1
        try:
            while alone and handle.busy and not handle.gone.is_set():
                await self._change()
            handle.busy += 1
            try:
                yield handle
            finally:
                handle.busy -= 1
        finally:
            if alone:
                handle.alone = False
            self._busy -= 1
            self._cluster.changed.set()

    async def _free(self) -> WorkerHandle:
        """Raises RLMError when the cluster is broken."""
        while True:
            if self._cluster.broken is not None:
                raise self._cluster.broken
            handles = [one for one in self._cluster.handles.values() if not one.alone and one.busy < one.room]
            if handles and (self._jobs is None or self._busy < self._jobs):
                return min(handles, key=lambda one: one.busy / one.room)
            await self._change()

    async def _change(self) -> None:
        self._cluster.changed.clear()
        await self._cluster.changed.wait()

    async def _by(self, handle: WorkerHandle, order: Order, parcels: list[Parcel], trace: Path) -> Reply:
        """Have it answered by this worker, and bring home what it leaves.

        Raises Lost, _Unfit, InternalError, FileRefused, TraceNotWritten.
        """
        run = uuid.uuid4().hex
        try:
            if parcels:
                await self._send(handle, run, parcels)
            reply: Reply = await self._cluster.of(handle, "answer", run, order)
            handle.places = reply.places
            handle.trusted += 1
            error = reply.error.error() if reply.error is not None else None
            if isinstance(error, SetupError) and not has_own(order.item, "prompt.", "limits."):
                raise _Unfit(error)
            if reply.left:
                await self._bring(handle, run, reply, trace)
            return reply
        finally:
            await self._drop(handle, run)

    async def _drop(self, handle: WorkerHandle, run: str) -> None:
        """Nothing of the run is wanted any more: it has ended, or is to end."""
        if handle.gone.is_set():
            return
        dropped = asyncio.ensure_future(self._cluster.of(handle, "drop", run))
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            dropped.add_done_callback(lambda done: done.cancelled() or done.exception())
            return
        with contextlib.suppress(Lost, RLMError, TimeoutError):
            await asyncio.wait_for(asyncio.shield(dropped), _STOP_SECONDS)

    async def _send(self, handle: WorkerHandle, run: str, parcels: list[Parcel]) -> None:
        """Have the files on the worker's node. Raises Lost, FileRefused, _Unfit."""
        wanted = {parcel.digest: parcel for parcel in parcels}
        for digest in await self._cluster.of(handle, "need", run, list(wanted)):
            # Others wait for the same file, which comes once.
            async with handle.sending.setdefault(digest, asyncio.Lock()):
                if digest in await self._cluster.of(handle, "need", run, list(wanted)):
                    await self._send_one(handle, wanted[digest])
            handle.sending.pop(digest, None)

    async def _send_one(self, handle: WorkerHandle, parcel: Parcel) -> None:
        members, left = list(parcel.members), pieces(parcel)
        names = [replace(member, digest="") for member in members] if parcel.directory else members
        while (batch := await asyncio.to_thread(next, left, None)) is not None:
            few = {number: names[number] for number, _, _ in batch}
            order = {number: place for place, number in enumerate(few)}
            got = [(order[number], at, block) for number, at, block in batch]
            told = await self._cluster.of(handle, "put", parcel.digest, list(few.values()), got)
            if told is not None:
                raise _as_raised(told.error())
        told = await self._cluster.of(handle, "finish", parcel.digest, members, parcel.directory)
        if told is not None:
            raise _as_raised(told.error())

    async def _bring(self, handle: WorkerHandle, run: str, reply: Reply, trace: Path) -> None:
        """What it has left, beside the trace's place. Raises Lost, TraceError, TraceNotWritten."""
        home = Home(trace)
        await asyncio.to_thread(home.__enter__)
        try:
            for member in reply.left:
                await self._bring_one(handle, run, member, reply.small.get(member.name), home)
            await asyncio.to_thread(home.keep, reply.left)
        finally:
            await asyncio.to_thread(home.__exit__)

    async def _bring_one(
        self, handle: WorkerHandle, run: str, member: Member, small: bytes | None, home: Home
    ) -> None:
        if small is not None:
            await asyncio.to_thread(home.write, member, 0, small)
            return
        at = 0
        while at < member.size:
            block = await self._cluster.of(handle, "read", run, member.name, at)
            if not block:
                raise Lost("A file of a trace is incomplete.")
            await asyncio.to_thread(home.write, member, at, block)
            at += len(block)


class _Unfit(Exception):
    """The worker's node lacks something that every question needs."""

    def __init__(self, error: RLMError) -> None:
        super().__init__(error.message)
        self.error = error


def _as_raised(error: RLMError) -> Exception:
    return _Unfit(error) if isinstance(error, SetupError) else error


async def _with_keys(settings: Settings) -> Settings:
    """The settings with the keys of their models, as this machine has them."""
    from rlm_kernel.models._keyring import find_key

    async def known(section: str, llm: Any) -> Any:
        provider = (llm.model or "").partition("/")[0]
        key = await find_key(section, llm, provider) if provider and "/" in llm.model else None
        if key is None:
            return llm
        from pydantic import SecretStr

        return llm.model_copy(update={"api_key": SecretStr(key.value)})

    root = await known("root_llm", settings.root_llm)
    sub = settings.sub_llm
    if sub.model is not None:
        sub = await known("sub_llm", sub)
    others = {name: await known(f"models.{name}", llm) for name, llm in settings.models.items()}
    return settings.model_copy(update={"root_llm": root, "sub_llm": sub, "models": others})


def _variables(settings: Settings) -> dict[str, str]:
    """The variables of the environment that the models' providers read."""
    chosen = [settings.root_llm, settings.sub_llm, *settings.models.values()]
    providers = {one.model.partition("/")[0] for one in chosen if one.model}
    begin = tuple(
        {f"{one.upper()}_" for one in providers} | {_CLOUDS[one] for one in providers & set(_CLOUDS)}
    )
    named = {one.api_key_env for one in chosen if one.api_key_env}
    return {
        name: value
        for name, value in os.environ.items()
        if name in named or (begin and name.startswith(begin))
    }

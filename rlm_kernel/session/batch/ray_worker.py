"""A worker of a batch on a node of a Ray cluster: an actor that answers questions by that node's engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlm_kernel._version import __version__
from rlm_kernel.config import Settings
from rlm_kernel.errors import InternalError, RLMError, SetupError
from rlm_kernel.session.batch.doing import Doing, Meters
from rlm_kernel.session.batch.item import Item
from rlm_kernel.session.batch.ray_files import PIECE, Member, Piece, Store
from rlm_kernel.session.result import Result

_PLAIN = (str, int, float, bool, type(None))
_LISTEN_SECONDS, _SILENT = 10.0, 18
"""The driver asks each worker once a second how it is. A worker that hears nothing in this many waits of this
many seconds, one after the other, ends: three minutes. Ray gives up a node without a network after about one
minute, and the connection of Ray Client after one and a half, so nobody waits for this worker any more.
"""
_END_SECONDS = 30.0
"""In which such a worker stops its questions. What is left ends with its process."""


@dataclass(frozen=True)
class Plan:
    """What a worker is made of. Secrets in it are for its process alone, and shown nowhere.

    `environment`: variables of providers. `models`, `tools`: as of Asker.
    """

    version: str
    settings: Settings
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    models: Any = None
    tools: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """A file or folder that a question is asked of: its digest, and its path as the user has it."""

    digest: str
    known_as: str


@dataclass(frozen=True)
class Order:
    """A question for a worker, which has no context: its `files` are sent. `trace`: the notebook's name.
    `made`: as of `session.inputs.Placed`.
    """

    item: Item
    trace: str
    files: tuple[Sent, ...] = ()
    made: bool = False


@dataclass(frozen=True)
class Told:
    """An error as it travels: errors of ours cannot be pickled, for their arguments are keywords."""

    kind: str
    message: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, error: RLMError) -> Told:
        fields = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN)}
        return cls(type(error).__name__, error.message, fields)

    def error(self) -> RLMError:
        """The error again."""
        from rlm_kernel import errors

        kind = getattr(errors, self.kind, InternalError)
        known = kind if isinstance(kind, type) and issubclass(kind, RLMError) else InternalError
        made = known.__new__(known, self.message)
        made.__dict__.update({"hint": "", **self.fields, "message": self.message})
        return made


@dataclass(frozen=True)
class Reply:
    """What came of a question: a result, whose trace is the worker's, or an error; the files it left, and
    in `small` those for which there was room in the reply.
    """

    places: int
    result: Result | None = None
    error: Told | None = None
    left: Sequence[Member] = ()
    small: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """A worker that can answer questions: its machine's name, and how many at once."""

    name: str
    places: int
    pid: int
    error: Told | None = None


@dataclass(frozen=True)
class State:
    """How many questions a worker can answer at once, now, and `Meters.read` of those that it answers."""

    places: int
    doing: Mapping[str, Doing]


class Worker:
    """The actor. All methods but the constructor are coroutines, on its one event loop."""

    def __init__(self, holder: str, shared: Any) -> None:
        """`holder`: its name for the actor `shared` (`ray_shared.Shared`)."""
        self._holder, self._shared = holder, shared
        self._stack = contextlib.AsyncExitStack()
        self._runs: dict[str, asyncio.Task[Result]] = {}
        self._meters = Meters()
        self._heard = self._alone = False
        """Whether the driver was heard in this wait; whether it is given up."""
        self._store: Store
        self._asker: Any = None

    async def open(self, plan: Plan) -> Ready:
        """Make it ready. What is wrong with this node is in the reply."""
        try:
            await self._open(plan)
        except RLMError as error:
            await self.close()
            return Ready(socket.gethostname(), 0, os.getpid(), Told.of(error))
        return Ready(socket.gethostname(), self._asker.places, os.getpid())

    async def _open(self, plan: Plan) -> None:
        from rlm_kernel.models.factory import is_local, open_models
        from rlm_kernel.models.slots import slots_of
        from rlm_kernel.session.batch.ray_shared import purse_of, share
        from rlm_kernel.session.environment import Host, image_for, silent
        from rlm_kernel.session.many import Asker

        if plan.version != __version__:
            raise SetupError(
                f"The node {socket.gethostname()} has rlm-kernel {__version__}, and this machine "
                f"{plan.version}.",
                hint="Install the same version on all nodes.",
            )
        os.environ.update(plan.environment)
        settings = plan.settings
        self._store = await asyncio.to_thread(Store, self._holder)
        self._stack.callback(self._store.close)
        self._stack.push_async_callback(asyncio.to_thread, self._sweep)  # others may have been killed since
        await asyncio.to_thread(self._sweep)
        await image_for(Host(settings))
        models = plan.models
        chosen = [settings.root_llm, settings.sub_llm, *settings.models.values()]
        if models is None and not any(is_local(one.model) for one in chosen):
            models = await self._stack.enter_async_context(open_models(settings, silent))
        sharing = asyncio.create_task(share(self._holder, self._shared, slots_of(models)))
        self._stack.callback(sharing.cancel)
        asker = Asker(settings, models=models, purse=purse_of(self._holder, self._shared), **plan.tools)
        self._asker = await self._stack.enter_async_context(asker)
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        """End this process when the driver is silent for too long. Waits are counted, not seconds: a machine
        that slept for an hour has waited once.
        """
        silent = 0
        while silent < _SILENT:
            self._heard = False
            await asyncio.sleep(_LISTEN_SECONDS)
            silent = 0 if self._heard else silent + 1
        self._alone = True
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_END_SECONDS):
                await self.close()
        os._exit(1)  # a driver that comes back sees that it is lost, and has its questions asked again

    def _sweep(self) -> None:
        """Remove what workers have left on this machine that were killed. Blocking."""
        from rlm_kernel.sandbox.containers import remove_unstarted

        with contextlib.suppress(RLMError):  # without its engine there is nothing
            remove_unstarted(self._store.sweep())

    async def state(self) -> State:
        """How it is now."""
        self._heard = True
        return State(self._asker.places, self._meters.read())

    async def need(self, run: str, wanted: Sequence[str]) -> list[str]:
        """As `Store.pin`."""
        return await asyncio.to_thread(self._store.pin, run, wanted)

    async def put(self, digest: str, members: Sequence[Member], got: Sequence[Piece]) -> Told | None:
        """As `Store.put`."""
        return await _told(self._store.put, digest, members, got)

    async def finish(self, digest: str, members: Sequence[Member], directory: bool) -> Told | None:
        """As `Store.finish`."""
        return await _told(self._store.finish, digest, members, directory)

    async def answer(self, run: str, order: Order) -> Reply:
        """Ask a question."""
        task = asyncio.create_task(self._ask(run, order))
        self._runs[run] = task
        result, error = None, None
        try:
            result = await task
        except RLMError as failure:
            error = failure
        except asyncio.CancelledError:
            if self._alone:
                await asyncio.Future()  # until the process ends: a question with an error is not asked again
            error = InternalError("It was stopped.")
        finally:
            self._runs.pop(run, None)
        left = await asyncio.to_thread(self._store.left_by, run)
        small = await asyncio.to_thread(self._small, run, left)
        return Reply(self._asker.places, result, Told.of(error) if error else None, left, small)

    async def _ask(self, run: str, order: Order) -> Result:
        from rlm_kernel.session.inputs import Placed

        folder = self._store.run(run)
        await asyncio.to_thread(folder.mkdir)
        context = None
        if order.files:
            places = tuple(self._store.path(sent.digest) for sent in order.files)
            context = Placed(places, tuple(Path(sent.known_as) for sent in order.files), order.made)
        item = order.item
        with self._meters.of(item.id) as view:
            result: Result = await self._asker.ask(
                item.question,
                context,
                trace=folder / order.trace,
                schema=item.schema,
                view=view,
                changes=item.changes,
            )
        return result

    def _small(self, run: str, left: Sequence[Member]) -> dict[str, bytes]:
        room, small = PIECE, {}
        for member in sorted(left, key=lambda one: one.size):
            room -= member.size
            if room < 0:
                break
            small[member.name] = self._store.read(run, member.name, 0)
        return small

    async def read(self, run: str, name: str, at: int) -> bytes:
        """As `Store.read`."""
        return await asyncio.to_thread(self._store.read, run, name, at)

    async def drop(self, run: str) -> None:
        """Stop the run, if it is not over, and remove what it left."""
        if (task := self._runs.get(run)) is not None:
            task.cancel()
            await asyncio.wait([task])
        await asyncio.to_thread(self._store.drop, run)

    async def close(self) -> None:
        """End what runs, and remove all that is here. Idempotent."""
        for task in (tasks := list(self._runs.values())):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._stack.aclose()


async def _told(work: Any, *given: Any) -> Told | None:
    try:
        await asyncio.to_thread(work, *given)
    except RLMError as error:
        return Told.of(error)
    except OSError as error:
        return Told.of(
            SetupError(
                f"A node of the cluster cannot store files: {error.strerror or error}.",
                hint="Free some space in its folder for temporary files (TMPDIR).",
            )
        )
    return None

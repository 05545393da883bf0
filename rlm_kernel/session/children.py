"""Child RLMs: what code in a kernel hands over, and a child that works on it, with a kernel and a trace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.events import ChildEvent, Event, Listener, RunOpened
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.prompts import Profile
from rlm_kernel.engine.protocols import Handed, Models, Outcome, Role, Totals
from rlm_kernel.errors import NoRecord, TraceError, TraceNotWritten, UsageError
from rlm_kernel.session.answering import Asked, answer
from rlm_kernel.session.inputs import CONTEXT, TEXT, Inputs
from rlm_kernel.session.listeners import Gate
from rlm_kernel.session.live import Live
from rlm_kernel.session.stage import Stage
from rlm_kernel.session.warm import WarmKernels
from rlm_kernel.trace.calls import linked
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.saving import going_on
from rlm_kernel.trace.schema import ParentMeta

if TYPE_CHECKING:
    from rlm_kernel.sandbox.handed import HandedOver
    from rlm_kernel.sandbox.kernel import DockerKernel

MAX_COPIED = 8 << 30
"""Bytes that are handed over to children in one run, other than loaded files: each is kept, in a file beside the child's trace."""
MAX_TRACES = 10_000
"""Traces of one tree of children that are opened."""
MAX_TREE = 4 << 30
"""Bytes of these traces."""
MAX_LEVELS = 64
"""Levels of such a tree."""
FOLDER = ".children"
"""Ending, after the trace's stem, of the folder with the traces of its children."""


@dataclass
class Family:
    """What all RLMs of a run have in common. `names`: who plays, as the user named them; `copied`: bytes that were handed over so far."""

    settings: Settings
    models: Models
    names: Mapping[Role, str]
    profile: Profile
    kernels: WarmKernels
    copied: int = 0


class Children:
    """Implements `engine.protocols.Children` for the session `on`. Without a `family` children cannot be asked, but recorded answers
    be found again.
    """

    def __init__(self, on: Stage, trace: Path, family: Family | None = None, view: Listener | None = None, *, level: int = 0) -> None:
        """`trace`: that of the RLM itself; `view` hears the events of its children; `level`: how far it is beneath the topmost."""
        self._on = on
        self._trace = trace
        self._family = family
        self._view = view
        self._level = level
        self._born = itertools.count(1)
        self._numbers: dict[str, int] = {}

    async def take(self, given: Any) -> HandedOver:
        from rlm_kernel.sandbox.handed import take

        return await asyncio.to_thread(take, given, self._on.run, self._on.grants)

    async def ask(
        self,
        question: str,
        handed: Handed,
        schema: Mapping[str, Any] | None,
        *,
        name: str,
        ledger: Ledger,
        begun: Callable[[str], None],
    ) -> Outcome:
        from rlm_kernel.sandbox.handed import HandedOver

        if self._family is None:
            raise NoRecord("There are no child RLMs here.")
        assert isinstance(handed, HandedOver)
        family = self._family
        if family.copied + handed.size > MAX_COPIED:
            raise UsageError(
                f"Children were handed more than {MAX_COPIED:,} bytes in this run. Hand over loaded files, which need no copy."
            )
        family.copied += handed.size
        trace = self._new_trace(name)
        async with family.kernels.kernel(self._level + 1, handed.grants, ledger.check) as (live, gate):
            inputs = await self._inputs(handed, live, trace)
            number = next(self._born)

            def view(event: Event) -> None:
                if isinstance(event, RunOpened):
                    begun(f"{trace.parent.name}/{trace.name}")
                if self._view is not None:
                    self._view(ChildEvent(number, event))

            children = Children(live.on, trace, family, view, level=self._level + 1)
            asked = Asked(
                question,
                inputs,
                trace,
                family.settings,
                family.models,
                family.names,
                family.profile,
                ledger,
                view,
                schema=schema,
                parent=ParentMeta(trace=f"../{self._trace.name}", session=self._on.run.session_id, cell=name),
            )
            try:
                outcome, _ = await answer(asked, live.on, children, lambda calls, heard: _use(live, gate, calls, heard))
            except TraceNotWritten as error:  # it ends all RLMs above, too: what is taken up is the topmost
                raise TraceNotWritten(error.message, hint=going_on(self._trace)) from error
        return outcome

    def _new_trace(self, cell: str) -> Path:
        folder = _folder(self._trace)
        while True:
            self._numbers[cell] = self._numbers.get(cell, 0) + 1
            trace = folder / f"{cell}-{self._numbers[cell]}.ipynb"
            if not any(path.exists() for path in (trace, trace.with_suffix(CONTEXT), trace.with_suffix(TEXT))):
                return trace

    @staticmethod
    async def _inputs(handed: HandedOver, live: Live, trace: Path) -> Inputs:
        """What was handed over, in the child's session."""
        if handed.grants or not handed.form:
            return Inputs(tuple(live.on.grants.paths))
        kept = trace.with_suffix(CONTEXT if handed.form == "json" else TEXT)
        await asyncio.to_thread(handed.copy_to, kept)
        await live.on.grants.add(kept)
        return Inputs((kept,), made=handed.form == "json")


def child_traces(trace: TraceFile) -> list[Path]:
    """The traces of an RLM's children, each once, in the order in which these had answered. None of them is known to be there."""
    metas = [cell.meta for cell in trace.cells if cell.meta]
    return list(dict.fromkeys(trace.path.parent / call.trace for meta in metas for call in linked(meta)))


@dataclass
class Tree:
    """The traces of a tree of child RLMs, as they are opened from the topmost down: each file once, none by a link, and not without end.

    They may be a stranger's: a folder that is its own child would be walked for ever, and one that two name twice as often on each level.
    """

    seen: set[tuple[int, int]] = field(default_factory=set)
    room: int = MAX_TREE

    def open(self, path: Path, above: TraceFile, level: int) -> TraceFile | None:
        """The trace of a child of `above`; None if it was opened before. `level`: how far it is beneath the topmost.

        Raises TraceError, UsageError: it is not there, no plain file, not where a child of this one can be, or one too many.
        """
        path = Path(os.path.normpath(path))
        homes = [above.path.parent, *(Path(origin.trace).parent for origin in above.meta.origins if origin.kind == "fork")]
        home = next((home for home in homes if home.is_absolute() and path.is_relative_to(home)), None)
        if home is None:
            raise TraceError(f"The trace {above.path} names {path} as that of a child, which lies outside its folder: it is not opened.")
        if path.resolve() != home.resolve() / path.relative_to(home):
            raise TraceError(f"The trace {path} of a child RLM is reached by a link: it is not opened.")
        try:
            found = path.lstat()
        except OSError as error:
            raise UsageError(f"The trace {path} of a child RLM is not there.") from error
        if (found.st_dev, found.st_ino) in self.seen:
            return None
        if level > MAX_LEVELS or len(self.seen) >= MAX_TRACES or found.st_size > self.room:
            most = f"{MAX_TRACES:,} traces on {MAX_LEVELS} levels, of together {MAX_TREE:,} bytes"
            raise TraceError(f"The trace {path} of a child RLM is one too many: {most} are opened.")
        self.seen.add((found.st_dev, found.st_ino))
        self.room -= found.st_size
        return read_trace(path, follow=False)

    @classmethod
    def of(cls, top: TraceFile) -> Tree:
        """The tree beneath a trace that is open already."""
        tree = cls()
        with contextlib.suppress(OSError):
            found = top.path.stat()
            tree.seen.add((found.st_dev, found.st_ino))
        return tree


def spent_on_lost(trace: TraceFile) -> Totals:
    """What children have used that a run which was cut off had not recorded yet, by their own traces. Blocking."""
    tree = Tree.of(trace)
    lost = Totals()
    waiting = [(trace, 0)]
    while waiting:
        above, level = waiting.pop()
        if above.meta.status == "finished":
            continue  # it was closed, and all is in its account
        known = {path.name for path in child_traces(above)}
        for path in _beside(above.path):
            if path.name in known:
                continue
            with contextlib.suppress(TraceError, UsageError):
                child = tree.open(path, above, level + 1)
                if child is not None:
                    lost += _as_a_child(child.spent())
                    waiting.append((child, level + 1))
    return lost


def _as_a_child(spent: Totals) -> Totals:
    """What a child has used, in the account of who asked it."""
    return replace(
        spent,
        turns=0,
        calls=spent.calls + spent.turns,
        children=spent.children + 1,
        child_turns=spent.child_turns + spent.turns,
        seconds=0.0,
    )


def _beside(trace: Path) -> list[Path]:
    """The notebooks in the folder of a trace's children, which is no link."""
    folder = _folder(trace)
    if folder.is_symlink():
        return []
    return sorted(itertools.islice(folder.glob("*.ipynb"), MAX_TRACES))


def _folder(trace: Path) -> Path:
    return trace.with_name(trace.stem + FOLDER)


@contextlib.asynccontextmanager
async def _use(live: Live, gate: Gate, calls: HostCalls, heard: Listener) -> AsyncIterator[DockerKernel]:
    gate.listener, gate.open = heard, True
    live.broker.handlers = calls.handlers()
    yield live.kernel

"""A question, answered in a kernel with a trace: by the topmost RLM, and by the child RLMs that code asks
beneath it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.events import ChildEvent, Event, Listener, RunOpened
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import Handed, Outcome, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import NoRecord, TraceNotWritten, UsageError
from rlm_kernel.session.assembly import Assembly, history_of
from rlm_kernel.session.environment import Environment
from rlm_kernel.session.inputs import CONTEXT, TEXT, Inputs, check_setup
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.models import ModelSet
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.questions import Question
from rlm_kernel.session.running import RunningKernel
from rlm_kernel.session.toolbox import declared
from rlm_kernel.session.tracefiles import FileNotes, metas_of
from rlm_kernel.session.traces import closing_trace, new_meta, new_writer
from rlm_kernel.session.tree import folder_of
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.saving import going_on
from rlm_kernel.trace.schema import ParentMeta

if TYPE_CHECKING:
    from rlm_kernel.sandbox.child_input import ChildInput

MAX_COPIED = 8 << 30
"""Bytes that are handed over to children in one run, other than loaded files: each is kept, in a file beside
the child's trace.
"""


@dataclass
class Family:
    """What all RLMs of a run have in common. `copied`: bytes that were handed over so far."""

    models: ModelSet
    kernels: KernelPool
    copied: int = 0


@dataclass(frozen=True)
class Place:
    """Where an RLM stands in a run: its parent, how many levels it is beneath the topmost, and its root model
    where that is not the run's.
    """

    parent: ParentMeta | None = None
    level: int = 0
    model: str | None = None


@dataclass(frozen=True)
class Asked:
    """A question, what it is asked of, where its trace goes, and whose question it is.

    `view` hears the run's events, from when its trace is there.
    """

    question: Question
    inputs: Inputs
    trace: Path
    view: Listener | None = None
    place: Place = Place()


async def answer(
    asked: Asked,
    running: RunningKernel,
    family: Family,
    ledger: Ledger,
    ended: Callable[[Outcome, Totals], None] = lambda _outcome, _totals: None,
) -> tuple[Outcome, Totals]:
    """Answer it, with a trace that is closed whatever happens.

    `ended` hears the outcome before anything is closed. Raises RLMError.
    """
    environment, path, models = running.environment, asked.trace, family.models
    host, grants, worded = environment.host, environment.grants, asked.question.worded
    place = asked.place
    led = models if place.model is None else models.led_by(place.model, host.settings)
    meta = new_meta(environment, worded, led.names, led.profile)
    files = await asyncio.to_thread(metas_of, grants.places(), made=asked.inputs.made)
    more = {"files": files, "parent": place.parent, "limits": meta.limits | {"depth": ledger.limits.depth}}
    writer = new_writer(path, meta.model_copy(update=more), host.settings, say=host.say)
    listeners = everyone(writer, asked.view)
    async with closing_trace(listeners, ledger.totals, path, host.say) as close:
        listeners(RunOpened(asked.question.text, ledger, Totals()))
        async with FileNotes(environment, writer) as notes:
            children = Children(environment, path, family, asked.view, level=place.level)
            run = Assembly(environment, SubCalls(models.models, ledger, children), listeners)
            calls = run.host_calls(
                history_of(lambda: read_trace(path)), locate=notes.locate, beside=path, room=writer.room
            )
            async with running.attached(calls, listeners):
                loop = run.loop(run.cells(running, calls), led)
                for cell_id, code in asked.inputs.cells(
                    worded, grants.paths, asked.question.schema, declared(host.tools)
                ):
                    check_setup(await loop.set_up(cell_id, code), host.settings)
                info = await loop.look()
                outcome = await loop.run(
                    worded, info, from_files=not asked.inputs.made, **asked.question.loop_options()
                )
                totals = close(outcome)
                ended(outcome, totals)
    return outcome, totals


class Children:
    """Implements `engine.protocols.Children` for the session in an environment.

    Without a `family` children cannot be asked, but recorded answers be found again.
    """

    def __init__(
        self,
        environment: Environment,
        trace: Path,
        family: Family | None = None,
        view: Listener | None = None,
        *,
        level: int = 0,
    ) -> None:
        """`trace`: that of the RLM itself; `view` hears the events of its children; `level`: how far it is
        beneath the topmost.
        """
        self._environment = environment
        self._trace = trace
        self._family = family
        self._view = view
        self._level = level
        self._born = itertools.count(1)
        self._numbers: dict[str, int] = {}

    async def take(self, given: Any) -> ChildInput:
        from rlm_kernel.sandbox.child_input import take

        return await asyncio.to_thread(take, given, self._environment.run, self._environment.grants)

    async def ask(
        self,
        question: str,
        handed: Handed,
        schema: Mapping[str, Any] | None,
        *,
        name: str,
        model: str | None = None,
        ledger: Ledger,
        begun: Callable[[str], None],
    ) -> Outcome:
        from rlm_kernel.sandbox.child_input import ChildInput

        if self._family is None:
            raise NoRecord("There are no child RLMs here.")
        assert isinstance(handed, ChildInput)
        family, level = self._family, self._level + 1
        if family.copied + handed.size > MAX_COPIED:
            raise UsageError(
                f"Children were handed more than {MAX_COPIED:,} bytes in this run. Hand over loaded files, "
                "which need no copy."
            )
        family.copied += handed.size
        trace = self._new_trace(name)

        async with family.kernels.kernel(level, handed.grants, ledger.check) as running:
            inputs = await self._inputs(handed, running, trace)
            number = next(self._born)

            def view(event: Event) -> None:
                if isinstance(event, RunOpened):
                    begun(f"{trace.parent.name}/{trace.name}")
                if self._view is not None:
                    self._view(ChildEvent(number, event))

            parent = ParentMeta(
                trace=f"../{self._trace.name}", session=self._environment.run.session_id, cell=name
            )
            place = Place(parent, level, model)
            asked = Asked(Question(question, schema), inputs, trace, view, place)
            try:
                outcome, _ = await answer(asked, running, family, ledger)
            except TraceNotWritten as error:  # it ends all RLMs above, too: what is taken up is the topmost
                raise TraceNotWritten(error.message, hint=going_on(self._trace)) from error
        return outcome

    def _new_trace(self, cell: str) -> Path:
        folder = folder_of(self._trace)
        while True:
            self._numbers[cell] = self._numbers.get(cell, 0) + 1
            trace = folder / f"{cell}-{self._numbers[cell]}.ipynb"
            if not any(
                path.exists() for path in (trace, trace.with_suffix(CONTEXT), trace.with_suffix(TEXT))
            ):
                return trace

    @staticmethod
    async def _inputs(handed: ChildInput, running: RunningKernel, trace: Path) -> Inputs:
        """What was handed over, in the child's session."""
        grants = running.environment.grants
        if handed.grants or not handed.form:
            return Inputs(tuple(grants.paths))
        kept = trace.with_suffix(CONTEXT if handed.form == "json" else TEXT)
        await asyncio.to_thread(handed.copy_to, kept)
        await grants.add(kept)
        return Inputs((kept,), made=handed.form == "json")

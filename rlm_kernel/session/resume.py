"""Resume and fork: the state of a trace rebuilt by replay, and then the live loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.approval import Approve
from rlm_kernel.engine.events import Listener, RunOpened
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.limits import LIMITS
from rlm_kernel.engine.loop import Loop
from rlm_kernel.engine.protocols import Models, Outcome, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.session.answering import Children, Family
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.assembly import Assembly, history_of
from rlm_kernel.session.conversation import first_question
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.environment import Host, Say, ledger_of, silent
from rlm_kernel.session.inputs import Inputs, check_setup
from rlm_kernel.session.listeners import Gate, everyone, with_spans
from rlm_kernel.session.models import ModelSet, models_of
from rlm_kernel.session.places import give_back
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.questions import Question, read_question
from rlm_kernel.session.replaying import Replayer, Restored, RunAgain, cell_index, image_remarks, restore
from rlm_kernel.session.result import Result
from rlm_kernel.session.resume_plan import OPTIONS, Plan, origin_of
from rlm_kernel.session.running import GivenFiles, RunningKernel, new_kernel
from rlm_kernel.session.setup import set_up
from rlm_kernel.session.toolbox import TOOLS_CELL, free_id, opened, undeclared
from rlm_kernel.session.tracefiles import FileNotes
from rlm_kernel.session.traces import closing_trace, new_meta, new_writer
from rlm_kernel.session.tree import spent_on_lost
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.recording import TraceRecording

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent
    from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource


@backstop
async def resume(
    path: Path,
    *,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    allow_changed: bool = False,
    models: Models | None = None,
    view: Listener | None = None,
    say: Say = silent,
    consent: Consent | None = None,
    approve: Approve | None = None,
    tools: Sequence[Tool | ToolSource] = (),
    allow_call: AllowCall | None = None,
    answered: Give = lambda _result: None,
) -> Result:
    """Go on with a run that was killed, interrupted, or ended at a limit, in the same notebook.

    Args:
        path: of the trace.
        config_file: default `config.json` in the working directory, if it is there.
        changes: settings by dotted name. Limits and models are otherwise those of the trace; limits hold for
            the run as a whole.
        files: where the trace's files are now, by recorded path or name.
        allow_changed: go on with files that have changed.
        models: instead of those of the trace. The caller closes them.
        view: hears the run's events beside the trace.
        say: hears what is being set up, a line at a time.
        consent: asked where the code wants a file that the trace does not have. Default: it is refused, also
            if the trace's question names it: that may be somebody else's.
        approve: asked before the code spends more than `limits.ask`, where there is no limit on the cost.
            Default: it may.
        tools: as of `session.ask.ask`.
        allow_call: likewise.
        answered: hears the answer as soon as it is there, before the container is removed.

    Raises:
        UsageError: there is nothing to resume, or no limit left.
        RLMError: what `ask` and `replay` raise.
    """
    trace = await asyncio.to_thread(read_trace, path)
    await asyncio.to_thread(_refuse_live, trace)
    if trace.meta.status == "finished" and trace.meta.stop_reason == "answered":
        raise UsageError(
            "This run has an answer, so there is nothing to resume.",
            hint=f'To ask a further question: rlm fork {path} "QUESTION"',
        )
    plan = Plan(trace, trace.cells, trace.path, origin_of(trace, trace.cells, "resume"), forked=False)
    again = RunAgain(config_file, changes or {}, files or {}, allow_changed, models)

    def host_for(settings: Settings) -> Host:
        return Host(settings, say, consent, approve, tools, allow_call)

    return await answer_first(
        lambda give: _go_on(plan, again, view, host_for, give),
        answered,
        say,
    )


@backstop
async def fork(
    path: Path,
    question: str = "",
    *,
    at: str | None = None,
    out: Path | None = None,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    allow_changed: bool = False,
    models: Models | None = None,
    view: Listener | None = None,
    say: Say = silent,
    consent: Consent | None = None,
    approve: Approve | None = None,
    tools: Sequence[Tool | ToolSource] = (),
    allow_call: AllowCall | None = None,
    placed: Callable[[Path], None] = lambda _path: None,
    answered: Give = lambda _result: None,
) -> Result:
    """Go on from a cell of a trace, in a notebook of its own; the trace stays as it is.

    Args:
        path: of the trace.
        question: a further question, put to the model from there; without one it goes on with the trace's
            own. Files that it names can be loaded.
        at: the last cell that is kept, by id; a turn's id (`turn-03`) is its last cell. Default: all.
        out: where the new notebook goes; default: a name of its own in `trace.dir`.
        placed: hears where it goes.
        config_file: default `config.json` in the working directory, if it is there.
        changes: settings by dotted name. Models are otherwise those of the trace; limits count from here.
        files: where the trace's files are now, by recorded path or name.
        allow_changed: go on with files that have changed.
        models: instead of those of the trace. The caller closes them.
        view: hears the run's events beside the trace.
        say: hears what is being set up, a line at a time.
        consent: asked where the code wants a file that neither the trace nor the question names. Default: it
            is refused.
        approve: as of `resume`.
        tools: as of `session.ask.ask`.
        allow_call: likewise.
        answered: hears the answer as soon as it is there, before the container is removed.

    Raises:
        RLMError: what `resume` raises.
    """
    trace = await asyncio.to_thread(read_trace, path)
    kept = trace.cells if at is None else trace.cells[: cell_index(trace, at) + 1]
    if at is None and not question and trace.meta.stop_reason == "answered":
        raise UsageError(
            "This run has an answer.",
            hint=f'Ask a further question: rlm fork {path} "QUESTION". Or go back to a cell: --at CELL',
        )
    again = RunAgain(config_file, changes or {}, files or {}, allow_changed, models)
    target = trace_path(again.settings(trace, live=False), question or trace.meta.question, out)
    if target == trace.path:
        raise UsageError(
            "A fork needs its own notebook.", hint="Name another file with --trace, or use `rlm resume`."
        )
    placed(target)
    plan = Plan(trace, kept, target, origin_of(trace, kept, "fork"), forked=True, question=question.strip())
    again = RunAgain(config_file, changes or {}, files or {}, allow_changed, models)

    def host_for(settings: Settings) -> Host:
        return Host(settings, say, consent, approve, tools, allow_call)

    try:
        return await answer_first(
            lambda give: _go_on(plan, again, view, host_for, give),
            answered,
            say,
        )
    finally:
        give_back(target)


def _refuse_live(trace: TraceFile) -> None:
    from rlm_kernel.sandbox.rundir import live_sessions

    for session in live_sessions():
        if session.about.trace == trace.path:
            raise UsageError(
                f"The run that writes {trace.path} is still in progress (process {session.about.pid}).",
                hint="Wait for it, end it with Ctrl-C, or open a console on it: rlm attach "
                f"{session.about.session}",
            )


async def _go_on(
    plan: Plan, again: RunAgain, view: Listener | None, host_for: Callable[[Settings], Host], give: Give
) -> Result:
    host = host_for(again.settings(plan.trace))
    say = host.say
    view = await with_spans(view, say)
    spent = None if plan.forked else plan.trace.spent() + await asyncio.to_thread(spent_on_lost, plan.trace)
    ledger = ledger_of(host, spent)
    if plan.closed:
        _check_limits(ledger)
    question = await read_question(plan.question, files=host.settings.sandbox.question_files)
    question.tell_absent(say)
    async with (
        opened(host) as host,
        set_up(
            host, models_of(host.settings, again.models, say), again.look_up_files(plan.trace, say)
        ) as ready,
    ):
        found = ready.found
        late = bool(question.named or host.tools) or host.consent is not None
        files = GivenFiles(found.paths, found.known_as, question.named, late=late)
        async with (
            await new_kernel(host, ready.image, files, replayed=True) as running,
            KernelPool(host, ready.image) as kernels,
        ):
            running.environment.run.describe(trace=plan.trace.path, question=plan.trace.meta.question)
            going = _Going(plan, running, Family(ready.chosen, kernels), ledger, view)
            remarks = [*found.changed, *image_remarks(plan.trace, running.environment)]
            return await going.run(question, remarks, give)


def _check_limits(ledger: Ledger) -> None:
    left = ledger.left()
    for name in LIMITS:
        if left[name] is not None and left[name] <= 0:
            limit = getattr(ledger.limits, name)
            raise UsageError(
                f"The limit of {name} ({limit:g}) is used up.",
                hint=f"Give a higher limit for the whole run: {OPTIONS[name]}",
            )


class _Going:
    """A run that is taken up, in its notebook.

    That is left as it is until a cell has given something new, or the state is rebuilt.
    """

    def __init__(
        self, plan: Plan, running: RunningKernel, family: Family, ledger: Ledger, view: Listener | None
    ) -> None:
        self._plan = plan
        self._running = running
        self._models: ModelSet = family.models
        self._settings = running.environment.host.settings
        environment = running.environment
        fresh = new_meta(environment, plan.trace.meta.question, family.models.names, family.models.profile)
        self._writer = new_writer(
            plan.path,
            plan.meta(fresh),
            self._settings,
            plan.cells(),
            say=environment.host.say,
            of=plan.trace.path,
        )
        self._notes = FileNotes(environment, self._writer)
        self._gate = Gate(self._writer)
        self._view = view
        children = Children(environment, plan.path, family, view)
        self._ledger = ledger
        self._work = Assembly(
            environment, SubCalls(family.models.models, ledger, children), everyone(self._gate, view)
        )

    async def run(self, question: Question, remarks: Sequence[str], give: Give) -> Result:
        """Rebuild the state and go on; `give` hears the result before anything is closed."""
        plan, work, running = self._plan, self._work, self._running
        async with closing_trace(
            work.listener, self._ledger.totals, plan.path, running.environment.host.say
        ) as close:
            opened = RunOpened(plan.question or plan.trace.meta.question, self._ledger, Totals())
            everyone(self._writer, self._view)(opened)
            calls = work.host_calls(
                history_of(self._now),
                locate=self._notes.locate,
                recording=TraceRecording(plan.kept, going_on=True),
                beside=plan.path,
                room=self._writer.room,
            )
            async with running.attached(calls, work.listener):
                cells = work.cells(running, calls)
                restored = await restore(
                    plan.again(), Replayer(cells, live=True), self._settings, writing=self._writing
                )
                restored.write(self._writer)
                self._gate.open = True
                async with self._notes:
                    outcome = await self._ask(work.loop(cells, self._models), restored, question, remarks)
                    result = Result.of(outcome, close(outcome), plan.path)
                    give(result)
                    return result

    def _now(self) -> TraceFile:
        """The trace as it is at the moment, which code in the kernel can look at."""
        return read_trace(self._plan.path) if self._gate.open else self._plan.trace

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._gate.open = True
        yield
        self._gate.open = False

    async def _ask(
        self, loop: Loop, restored: Restored, question: Question, remarks: Sequence[str]
    ) -> Outcome:
        plan = self._plan
        made = any(file.made for file in plan.trace.meta.files)
        await self._set_up(loop, made=made)
        tools = self._running.environment.host.tools
        if code := undeclared(tools, [cell.source for cell in plan.kept]):
            check_setup(await loop.set_up(free_id(TOOLS_CELL, plan.kept), code), self._settings)
        past = plan.past(restored, remarks)
        if plan.question:
            self._writer.question(plan.question)
        info = await loop.look()
        first = first_question(plan.kept, plan.trace.meta.question)
        return await loop.run(first, info, from_files=not made, past=past, **question.loop_options())

    async def _set_up(self, loop: Loop, *, made: bool) -> None:
        """The set-up cells that the run was killed before."""
        there = {cell.id for cell in self._plan.kept}
        if there & {"setup"} or any(cell.turn for cell in self._plan.kept):
            return
        paths = self._running.environment.grants.paths
        for cell_id, code in Inputs(tuple(paths), made=made).cells(self._plan.trace.meta.question, paths):
            if cell_id not in there:
                check_setup(await loop.set_up(cell_id, code), self._settings)

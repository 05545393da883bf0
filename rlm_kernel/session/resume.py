"""Resume and fork: the state of a trace rebuilt by replay, and then the live loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings, parse_size
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.conversation import Past
from rlm_kernel.engine.events import CellFinished, Listener, RunOpened
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import LIMITS, Ledger
from rlm_kernel.engine.loop import Loop
from rlm_kernel.engine.protocols import ROLES, CellResult, Models, Outcome, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.secrets import known_secrets
from rlm_kernel.session.answering import check_setup, closing_trace, new_meta
from rlm_kernel.session.ask import Result, trace_path
from rlm_kernel.session.children import Children, Family, spent_on_lost
from rlm_kernel.session.conversation import first_question, full_history, turns_of
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.inputs import Inputs
from rlm_kernel.session.listeners import Gate, everyone
from rlm_kernel.session.named import missing_paths, named_paths
from rlm_kernel.session.players import model_names, profile_for
from rlm_kernel.session.replay import Replayer, Verdict, cell_index, image_remarks, replay_stage, restored, settings_of
from rlm_kernel.session.stage import Say, Stage, keep_of, kernel_of, limits_of, models_ready
from rlm_kernel.session.tracefiles import FileNotes, TraceFiles, look_up_files
from rlm_kernel.session.warm import WarmKernels
from rlm_kernel.trace.packed import Packed
from rlm_kernel.trace.reader import TraceCell, TraceFile, read_trace
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.schema import NotebookMeta, OriginMeta
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent

_OPTIONS = {"turns": "--max-turns", "calls": "--max-calls", "cost": "--max-cost", "seconds": "--timeout", "tokens": "RLM_LIMITS__TOKENS"}
_ENDED = (*_OPTIONS, "no_answer")
"""Stop reasons after which one last answer was asked for: the conversation was brought to its end."""
_CLOSING = ("answer", "summary")


@dataclass(frozen=True)
class _Plan:
    """What is taken up: the cells that are kept, in the notebook at `path`, and how the conversation goes on."""

    trace: TraceFile
    kept: Sequence[TraceCell]
    path: Path
    origin: OriginMeta
    forked: bool
    question: str = ""

    @property
    def ended(self) -> bool:
        """The last turn that is kept is whole, and nothing is left to do of it."""
        whole = len(self.kept) == len(self.trace.cells)
        # A further question that has no reply yet: the turn before it had its answer.
        asked = next((cell.kind == "question" for cell in reversed(self.kept) if cell.kind in ("model", "question")), False)
        return bool(self.question) or asked or not whole or self.trace.meta.stop_reason in _ENDED


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
    say: Say = lambda _text: None,
    consent: Consent | None = None,
    answered: Give = lambda _result: None,
) -> Result:
    """Go on with a run that was killed, interrupted, or ended at a limit, in the same notebook.

    Parameters
    ----------
    changes: settings by dotted name. Limits and models are otherwise those of the trace; limits hold for the run as a whole.
    files, allow_changed: as for `replay`.
    models: instead of those of the trace. The caller closes them.
    consent: asked where the code wants a file that the trace does not have. Default: it is refused, also if the trace's question names
        it: that may be somebody else's.
    answered: hears the answer as soon as it is there, before the container is removed.

    Raises UsageError where there is nothing to resume or no limit left, and what `ask` and `replay` raise.
    """
    trace = read_trace(path)
    _refuse_live(trace)
    if trace.meta.status == "finished" and trace.meta.stop_reason == "answered":
        raise UsageError("This run has its answer: there is nothing to resume.", hint=f'To ask on: rlm fork {path} "QUESTION"')
    plan = _Plan(trace, trace.cells, trace.path, _origin(trace, trace.cells, "resume"), forked=False)

    async def work(give: Give) -> Result:
        return await _go_on(plan, config_file, changes or {}, files or {}, allow_changed, models, view, say, consent, give)

    return await answer_first(work, answered, say)


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
    say: Say = lambda _text: None,
    consent: Consent | None = None,
    placed: Callable[[Path], None] = lambda _path: None,
    answered: Give = lambda _result: None,
) -> Result:
    """Go on from a cell of a trace, in a notebook of its own; the trace stays as it is.

    Parameters
    ----------
    question: a further question, put to the model from there; without one it goes on with the trace's own. Files that it names can be
        loaded.
    at: the last cell that is kept, by id; a turn's id (`turn-03`) is its last cell. Default: all.
    out: where the new notebook goes; default: a name of its own in `trace.dir`. `placed` hears the place.

    The other parameters, and what is raised, are those of `resume`; the limits count from here.
    """
    trace = read_trace(path)
    kept = trace.cells if at is None else trace.cells[: cell_index(trace, at) + 1]
    if at is None and not question and trace.meta.stop_reason == "answered":
        raise UsageError("This run has its answer.", hint=f'Ask on: rlm fork {path} "QUESTION"; or go back: --at CELL')
    settings = settings_of(trace, config_file, changes or {}, models=False)
    target = trace_path(settings, question or trace.meta.question, out)
    if target == trace.path:
        raise UsageError("A fork needs a notebook of its own.", hint="Name another file with --trace, or use `rlm resume`.")
    placed(target)
    plan = _Plan(trace, kept, target, _origin(trace, kept, "fork"), forked=True, question=question.strip())

    async def work(give: Give) -> Result:
        return await _go_on(plan, config_file, changes or {}, files or {}, allow_changed, models, view, say, consent, give)

    return await answer_first(work, answered, say)


def _refuse_live(trace: TraceFile) -> None:
    from rlm_kernel.sandbox.rundir import live_sessions

    for session in live_sessions():
        if session.about.trace == trace.path:
            raise UsageError(
                f"The run that writes {trace.path} is still going on (process {session.about.pid}).",
                hint=f"Wait for it, end it with Ctrl-C, or look in: rlm attach {session.about.session}",
            )


def _origin(trace: TraceFile, kept: Sequence[TraceCell], kind: Any) -> OriginMeta:
    cell = kept[-1].id if kept else ""
    return OriginMeta(kind=kind, trace=str(trace.path), session=trace.meta.session, cell=cell, at=datetime.now(UTC))


async def _go_on(
    plan: _Plan,
    config_file: Path | None,
    changes: Mapping[str, Any],
    files: Mapping[str, Path],
    allow_changed: bool,
    given: Models | None,
    view: Listener | None,
    say: Say,
    consent: Consent | None,
    give: Give,
) -> Result:
    settings = settings_of(plan.trace, config_file, changes, models=given is None)
    found = await look_up_files(plan.trace, files, allow_changed=allow_changed, say=say)
    spent = None if plan.forked else plan.trace.spent() + await asyncio.to_thread(spent_on_lost, plan.trace)
    ledger = Ledger(limits_of(settings), spent=spent)
    if plan.trace.meta.stop_reason in _ENDED:
        _check_limits(ledger)
    named = await asyncio.to_thread(named_paths, plan.question, Path.cwd())
    absent = await asyncio.to_thread(missing_paths, plan.question, Path.cwd())
    for one in absent:
        say(f"The question names a path, but {one}.")
    async with (
        models_ready(settings, given, say) as players,
        replay_stage(plan.trace, found, settings, say, named=named, consent=consent) as on,
    ):
        models = await players
        going = _Going(plan, settings, on, models, given, ledger, found, named, view)
        everyone(going.writer, view)(RunOpened(plan.question or plan.trace.meta.question, ledger, Totals()))
        async with closing_trace(going.listeners, ledger.totals, plan.path, say) as close, WarmKernels(settings, on.image, say) as kernels:

            def ended(outcome: Outcome) -> Result:
                result = Result.of(outcome, close(outcome), plan.path)
                give(result)
                return result

            return await going.run(kernels, [str(one) for one in absent], ended)


def _check_limits(ledger: Ledger) -> None:
    left = ledger.left()
    for name in LIMITS:
        if left[name] is not None and left[name] <= 0:
            limit = getattr(ledger.limits, name)
            raise UsageError(f"The limit of {name} ({limit:g}) is used up.", hint=f"Give the whole run a higher one: {_OPTIONS[name]}")


class _Going:
    """A run that is taken up: its notebook, and what is done in it."""

    def __init__(
        self,
        plan: _Plan,
        settings: Settings,
        on: Stage,
        models: Models,
        given: Models | None,
        ledger: Ledger,
        files: TraceFiles,
        named: Sequence[Path],
        view: Listener | None,
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._on = on
        self._models = models
        self._ledger = ledger
        self._profile = profile_for(settings, models)
        self._named = [str(path) for path in named]
        self._made = any(file.made for file in plan.trace.meta.files)
        self._remarks = [*files.changed, *image_remarks(plan.trace, on)]
        names = model_names(settings, models) if given is None else {role: models.name(role) for role in ROLES}
        fresh = new_meta(on, plan.trace.meta.question, settings, names, self._profile)
        self._names = names
        self._view = view
        kept: dict[str, Any] = {
            "files": plan.trace.meta.files,
            "parent": plan.trace.meta.parent,
            "origins": [*plan.trace.meta.origins, plan.origin],
        }
        if not plan.forked:
            kept["created"] = plan.trace.meta.created
        self._meta: NotebookMeta = fresh.model_copy(update=kept)
        most = parse_size(settings.trace.outputs)
        self.writer = NotebookWriter(plan.path, self._meta, known_secrets(os.environ), self._taken(), outputs=most)
        self._notes = FileNotes(on, self.writer)
        self._gate = Gate(self.writer)
        self.listeners = everyone(self._gate, view)

    def _taken(self) -> list[Any]:
        """The notebook's cells as they are kept: without what closed it, and without remarks that will be made again."""
        ids = {cell.id for cell in self._plan.kept}
        last = max((cell.turn for cell in self._plan.kept), default=0)
        again = () if self._plan.ended else {cell.id for cell in self._plan.kept if cell.kind == "note" and cell.turn == last and cell.meta}
        answered = sum(cell.kind == "answer" for cell in self._plan.kept)
        taken = []
        for cell in self._plan.trace.node.cells:
            if cell.id not in ids or cell.id in again or cell.id in ("title", "summary"):
                continue
            if cell.id == "answer":
                if not self._plan.question:
                    continue
                cell = {**cell, "id": f"answer-{answered:02d}"}
            taken.append(self._linked(cell))
        return taken

    def _linked(self, cell: Any) -> Any:
        """A cell whose calls name the traces of child RLMs as they are seen from the notebook that it is in now."""
        calls = cell["metadata"].get("rlm", {}).get("calls", [])
        there, here = self._plan.trace.path.parent, self._plan.path.parent
        if here == there or not any(call.get("trace") for call in calls):
            return cell

        def moved(call: dict[str, Any]) -> dict[str, Any]:
            return {**call, "trace": Path(os.path.relpath(there / call["trace"], here)).as_posix()} if call.get("trace") else call

        found = calls.changed(moved) if isinstance(calls, Packed) else [moved(call) for call in calls]
        return {**cell, "metadata": {**cell["metadata"], "rlm": {**cell["metadata"]["rlm"], "calls": found}}}

    async def run(self, kernels: WarmKernels, absent: Sequence[str], ended: Callable[[Outcome], Result]) -> Result:
        """Rebuild the state and go on; `ended` hears the outcome before anything is closed.

        The notebook is left as it is until a cell has given something new, or the state is rebuilt.
        """
        plan, settings = self._plan, self._settings
        recording = TraceRecording(plan.trace.cells)
        family = Family(settings, self._models, self._names, self._profile, kernels)
        calls = HostCalls(
            SubCalls(self._models, self._ledger, Children(self._on, plan.path, family, self._view)),
            self.listeners,
            self._notes.locate,
            recording=recording,
            history=lambda cell: full_history(read_trace(plan.path) if self._gate.open else plan.trace, seen_by=cell),
            keep=keep_of(settings),
        )
        async with kernel_of(self._on, settings, calls, self.listeners, cell_timeout=settings.limits.cell_timeout) as kernel:
            cells = Cells(kernel, calls, self.listeners)
            loop = Loop(cells, self._models, self._profile, settings.limits.output_chars, settings.memory_share)
            results, verdicts = await self._replay(Replayer(cells, live=True))
            self._gate.open = True
            async with self._notes:
                await self._set_up(loop)
                past = self._past(results, verdicts)
                if plan.question:
                    self.writer.question(plan.question)
                info = await kernel.describe()
                first = first_question(plan.kept, plan.trace.meta.question)
                outcome = await loop.run(first, info, from_files=not self._made, past=past, named=self._named, absent=absent)
                return ended(outcome)

    async def _replay(self, replayer: Replayer) -> tuple[dict[str, CellResult], list[Verdict]]:
        results: dict[str, CellResult] = {}
        verdicts: list[Verdict] = []
        changed: list[TraceCell] = []
        last = max((cell.turn for cell in self._plan.kept), default=0)
        for cell in self._plan.kept:
            if not cell.code or (not self._plan.ended and cell.turn == last and cell.id.endswith("-final")):
                continue  # the loop itself tries a name that stood in prose
            cut_off = cell.meta is not None and cell.meta.status == "running"
            # Live as far as it was not recorded: what it asks now is written at once.
            self._gate.open = cut_off
            verdict, results[cell.id] = await replayer.run(cell)
            self._gate.open = False
            if cell.kind == "setup":
                check_setup(results[cell.id], self._settings)
            if cut_off:
                continue
            verdicts.append(verdict)
            if verdict.verdict != "same":
                changed.append(cell)
        for cell in changed:
            self.writer(CellFinished(cell.turn, results[cell.id]))
        return results, verdicts

    async def _set_up(self, loop: Loop) -> None:
        """The set-up cells that the run was killed before."""
        there = {cell.id for cell in self._plan.kept}
        if there & {"setup"} or any(cell.turn for cell in self._plan.kept):
            return
        inputs = Inputs(tuple(self._on.grants.paths), made=self._made)
        for cell_id, code in inputs.cells(self._meta.question, self._on.grants.paths):
            if cell_id not in there:
                check_setup(await loop.set_up(cell_id, code), self._settings)

    def _past(self, results: Mapping[str, CellResult], verdicts: Sequence[Verdict]) -> Past:
        turns = turns_of(self._plan.kept, results, self._settings.limits.output_chars)
        plan = self._plan
        ended = plan.ended
        told = restored(_what(plan), verdicts, self._remarks)
        return Past(turns, told, plan.question, unfinished=not ended and bool(turns))


def _what(plan: _Plan) -> str:
    """What happened, for the root model."""
    if plan.forked:
        return "This goes on from a copy of the session as it was here"
    if plan.trace.meta.stop_reason in _ENDED:
        return "The session had ended at a limit, which was raised. Go on with the question. It was taken up again"
    return "The session was interrupted here, and was taken up again"

"""The questions of a trace, asked again: a fresh container, the engine and prompts of today, what is the same
request answered from the trace.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlm_kernel.config import Settings
from rlm_kernel.engine import whole
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.conversation import Past
from rlm_kernel.engine.events import Listener, RunOpened
from rlm_kernel.engine.prompts import PROFILES
from rlm_kernel.engine.protocols import Outcome, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import RLMError, SetupError, UsageError, backstop
from rlm_kernel.session.answering import Children, Family
from rlm_kernel.session.assembly import Assembly, history_of
from rlm_kernel.session.before import before_this
from rlm_kernel.session.conversation import conversation, recorded, turns_of
from rlm_kernel.session.environment import Host, Say, ledger_of, silent
from rlm_kernel.session.inputs import check_setup
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.models import models_of
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.regression.recorded import HOW_TO_ASK, Course, RecordedCalls, RecordedRoot
from rlm_kernel.session.replaying import RunAgain, image_remarks
from rlm_kernel.session.running import GivenFiles, RunningKernel, new_kernel
from rlm_kernel.session.setup import set_up
from rlm_kernel.session.toolbox import opened
from rlm_kernel.session.traces import closing_trace, new_meta, new_writer
from rlm_kernel.session.unasked import unasked_models
from rlm_kernel.tools.tool import Tool
from rlm_kernel.trace.prompts import PromptFile, open_prompts
from rlm_kernel.trace.reader import TraceCell, TraceFile, read_trace
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.writer import NotebookWriter

_SETUP = ("parameters", "setup")
_SCRIPTED = "scripted/"
_SERVERS = "mcp."
_HEADING = re.compile(r"\A#+ [^\n]*\n+")


@dataclass(frozen=True)
class Part:
    """A question of a trace: the cells that run before it, and the root model's replies and summaries."""

    question: str
    before: Sequence[TraceCell] = ()
    replies: Sequence[TraceCell] = ()


@dataclass(frozen=True)
class Rerun:
    """What came of the questions of a trace.

    `answers`: of each question that came to its end, in order; None where it has none. `ends`: why each run
    ended. `totals`: what the runs count, recorded replies at what they had cost; `spent`: what was asked anew
    alone. `parted`: where the run was no longer the recorded one, "" if it was to its end. `trouble`: why it
    did not come to its end. `out`: its trace.
    """

    answers: Sequence[str | None]
    ends: Sequence[str]
    totals: Totals
    spent: Totals
    remarks: Sequence[str]
    out: Path
    parted: str = ""
    trouble: str = ""


def parts_of(trace: TraceFile) -> list[Part]:
    """The questions of a trace. Raises UsageError where it has none."""
    parts: list[tuple[str, list[TraceCell], list[TraceCell]]] = []
    before: list[TraceCell] = []
    if trace.meta.question:
        parts.append((trace.meta.question, before, []))
    for cell in trace.cells:
        if cell.kind == "question" and cell.meta is not None:
            parts.append((cell.meta.text or "", before, []))
        elif cell.kind in ("model", "memory") and parts:
            parts[-1][2].append(cell)
            before = []
        elif cell.code and (
            cell.kind in _SETUP or "injected-parameters" in cell.tags or cell.kind == "person"
        ):
            before.append(cell)
    if not parts:
        raise UsageError(f"{trace.path.name} has no question.", hint="Ask one in its session: rlm run")
    return [Part(question, tuple(cells), tuple(replies)) for question, cells, replies in parts]


def answers_of(trace: TraceFile) -> list[str | None]:
    """The recorded answers, question by question; None where there is none."""
    answers = [answer for _, answer in conversation(trace)]
    last = next((cell for cell in reversed(trace.cells) if cell.kind == "answer"), None)
    ended_well = trace.meta.stop_reason == "answered" or trace.meta.forced
    if answers and answers[-1] is None and last is not None and ended_well:
        answers[-1] = _HEADING.sub(
            "", last.source
        )  # traces of older versions show it, and have it nowhere else
    return answers


@backstop
async def ask_again(
    trace: TraceFile,
    again: RunAgain,
    out: Path,
    *,
    live: bool,
    view: Listener | None = None,
    say: Say = silent,
) -> Rerun:
    """Ask a trace's questions again, each in turn.

    Args:
        trace: what is asked again.
        again: settings, files and models.
        out: where the new trace goes.
        live: ask models what has no record. Without it nothing is sent to any.
        view: hears the events beside the new trace.
        say: hears what is being set up.

    Raises:
        UsageError: it has no question, or cannot be asked with these settings.
        FileRefused: a file is missing or has changed.
        SetupError: the machine or the models lack something.
    """
    parts = parts_of(trace)
    settings = settings_for(trace, again, live=live)
    models = models_of(settings, again.models, say) if live else unasked_models(trace, settings, HOW_TO_ASK)
    async with (
        opened(Host(settings, say, tools=again.tools.tools, allow_call=again.tools.allow_call)) as host,
        set_up(host, models, again.look_up_files(trace, say)) as ready,
    ):
        files = GivenFiles(ready.found.paths, ready.found.known_as, late=bool(host.tools))
        async with (
            await new_kernel(host, ready.image, files, replayed=True) as running,
            KernelPool(host, ready.image) as kernels,
        ):
            running.environment.run.describe(trace=trace.path, question=trace.meta.question)
            with open_prompts(trace) as prompts:
                scripted = trace.meta.models["sub"].startswith(_SCRIPTED)
                keeps_sub = scripted and again.changes.get("sub_llm.model") is None
                family = Family(ready.chosen, kernels)
                work = _Work(trace, running, family, prompts, live=live, keeps_sub=keeps_sub)
                work.remark(*ready.found.changed, *image_remarks(trace, running.environment))
                return await work.all(parts, out, view)


def settings_for(trace: TraceFile, again: RunAgain, *, live: bool) -> Settings:
    """Limits, and what is not another one, as the trace has them.

    The sub model stays what it was where only the root model is another one. Raises ConfigError, UsageError.
    """
    changes = {name: value for name, value in again.changes.items() if value is not None}
    sub = trace.meta.models["sub"]
    if live and again.models is None and "root_llm.model" in changes and not sub.startswith(_SCRIPTED):
        changes.setdefault("sub_llm.model", sub)
    if (not live or again.models is not None) and trace.meta.prompt_profile in PROFILES:
        changes.setdefault("prompt.profile", trace.meta.prompt_profile)
    if "root_llm.model" not in changes and not _was_whole(trace):
        changes.setdefault("prompt.whole", 0.0)
    settings = replace(again, changes=changes).settings(trace, live=live)
    if not any(name.startswith(_SERVERS) for name in changes):
        # What stands in config.json alone is not started: calls of its tools have records.
        settings = settings.model_copy(update={"mcp": settings.mcp.model_copy(update={"servers": {}})})
    return settings


def _was_whole(trace: TraceFile) -> bool:
    """Whether the root model was shown the input whole."""
    told = (cell.meta.told for cell in trace.cells if cell.kind == "model" and cell.meta is not None)
    return any(whole.TOLD in text for text in told)


class _Work:
    """A trace's questions in a kernel."""

    def __init__(
        self,
        trace: TraceFile,
        running: RunningKernel,
        family: Family,
        prompts: PromptFile,
        *,
        live: bool,
        keeps_sub: bool,
    ) -> None:
        """`keeps_sub`: recorded answers to sub-calls hold whoever is the sub model."""
        self.trace = trace
        self.running = running
        self.family = family
        self.ends: list[str] = []
        self.totals = Totals()
        models, then = family.models, trace.meta
        # A model of a script cannot be asked again: what it said to sub-calls holds until another is named.
        others = {
            role
            for role, name in then.models.items()
            if live and models.names.get(role) != name and (role != "sub" or not keeps_sub)
        }
        worded = models.profile.digest != then.prompt_digest
        self.course = Course(live=live, others=frozenset(others), worded=worded)
        self.root = RecordedRoot(trace, models.models, prompts, self.course)
        self.recording = TraceRecording(self.trace.cells, waiting=False)
        if worded and not live:
            self.remark(
                "rlm's prompt has changed since the recording; the recorded replies were used anyway."
            )
        if prompts.trouble:
            self.remark(f"{prompts.trouble}: rlm's prompts are not compared.")

    def remark(self, *told: str) -> None:
        self.course.remarks |= dict.fromkeys(told)

    async def all(self, parts: Sequence[Part], out: Path, view: Listener | None) -> Rerun:
        environment, models, then = self.running.environment, self.family.models, self.trace.meta
        fresh = new_meta(environment, parts[0].question, models.names, models.profile)
        meta = fresh.model_copy(update={"files": then.files, "name": then.name})
        settings = environment.host.settings
        out.parent.mkdir(parents=True, exist_ok=True)
        writer = new_writer(out, meta, settings, say=environment.host.say)
        listener = everyone(writer, self.root.hear, view)
        trouble = ""
        try:
            await self.running.start()
            for number, part in enumerate(parts):
                so_far = await asyncio.to_thread(read_trace, out) if number else None
                if so_far is not None:
                    writer.question(part.question)
                self.root.begin(part.replies)
                await self._ask(part, writer, listener, so_far)
                if self.course.trouble:  # code caught that its call has no record
                    break
        except SetupError:
            raise
        except RLMError as error:
            if error.exit_code == SetupError.exit_code:
                raise
            trouble = error.message
        finally:
            writer.release()
        return Rerun(
            answers_of(await asyncio.to_thread(read_trace, out))[: len(self.ends)],
            self.ends,
            self.totals,
            self.totals - self.course.reused,
            list(self.course.remarks),
            out,
            self.course.parted,
            self.course.trouble or trouble,
        )

    async def _ask(
        self, part: Part, writer: NotebookWriter, listener: Listener, so_far: TraceFile | None
    ) -> None:
        environment, out = self.running.environment, writer.path
        ledger = ledger_of(environment.host)
        children = Children(environment, out, self.family)
        run = Assembly(environment, SubCalls(self.family.models.models, ledger, children), listener)
        before = None if so_far is None else await asyncio.to_thread(before_this, so_far)
        tools = {tool.name for tool in environment.host.tools if isinstance(tool, Tool)}
        calls = run.host_calls(
            history_of(lambda: read_trace(out)),
            recording=RecordedCalls(self.recording, self.course, ledger, tools),
            before=before,
            room=writer.room,
            beside=out if tools else None,
        )
        try:
            async with closing_trace(listener, ledger.totals, out, environment.host.say) as close:
                listener(RunOpened(part.question, ledger, self.totals))
                async with self.running.attached(calls, listener):
                    outcome = await self._answer(run.cells(self.running, calls), run, part, so_far)
                    close(outcome)
        finally:
            self.totals += ledger.totals()
        if not self.course.trouble:
            self.ends.append(f"{outcome.stop_reason}{' (best effort)' if outcome.forced else ''}")

    async def _answer(self, cells: Cells, run: Assembly, part: Part, so_far: TraceFile | None) -> Outcome:
        """The question, after what is loaded before it and what was said before it."""
        models = self.family.models
        loop = run.loop(cells, replace(models, models=self.root))
        for cell in part.before:
            result = await loop.set_up(cell.id, cell.source)
            if cell.kind == "setup":
                check_setup(result, self.running.environment.host.settings)
        made = any(file.made for file in self.trace.meta.files)
        info = await loop.look()
        turns = turns_of(so_far.cells, recorded(so_far.cells), further=True) if so_far is not None else ()
        past = Past(turns, "", part.question) if turns else None
        question = part.question if past is None else self.trace.meta.question
        return await loop.run(question, info, from_files=not made, past=past, named=self._named())

    def _named(self) -> list[str]:
        """The files that the question named: those that the set-up does not load."""
        loaded = "\n".join(cell.source for cell in self.trace.code_cells if cell.kind in _SETUP)
        given = {path for cell in self.trace.code_cells for path in _given_by_tools(cell)}
        return [
            file.path
            for file in self.trace.meta.files
            if repr(file.path) not in loaded and file.path not in given
        ]


def _given_by_tools(cell: TraceCell) -> Iterator[str]:
    """The paths of files that tools have given to a cell."""
    for call in cell.meta.calls if cell.meta else ():
        files = call.answer.get("files") if call.kind == "tool" and isinstance(call.answer, dict) else None
        yield from (path for path in files or () if isinstance(path, str))

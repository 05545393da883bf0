"""Apply: yesterday's analysis on today's input. A trace's code runs on new files, with live sub-calls, and
the root model is woken only where something is not as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.approval import Approve
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import Models
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.session.answering import Family
from rlm_kernel.session.applying.asked import OldQuestion, questions_of
from rlm_kernel.session.applying.counterparts import Counterparts, New, counterparts
from rlm_kernel.session.applying.needed import needed_models
from rlm_kernel.session.applying.turns import Applying, Choices, Plan, origins_of
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.environment import Host, Say, ledger_of, silent
from rlm_kernel.session.inputs import Context, check_readable, gather
from rlm_kernel.session.listeners import with_spans
from rlm_kernel.session.models import ModelSet
from rlm_kernel.session.places import give_back
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.replaying import RunAgain
from rlm_kernel.session.result import Result
from rlm_kernel.session.running import GivenFiles, RunningKernel, new_kernel
from rlm_kernel.session.setup import set_up
from rlm_kernel.session.toolbox import opened
from rlm_kernel.session.tracefiles import metas_of
from rlm_kernel.session.traces import new_meta, new_writer
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent
    from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource


@backstop
async def apply(
    path: Path,
    context: Context = None,
    *,
    files: Mapping[str, Path] | None = None,
    question: int | None = None,
    root: bool = True,
    reuse: bool = False,
    out: Path | None = None,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
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
    """Run a trace's code on another input, in a notebook of its own; the trace stays as it is.

    The root model is asked only where a cell fails, the form of the input is another one, a result is empty,
    or the code has in it what the root model had read in outputs of the first run.

    Args:
        path: of the trace.
        context: the new input: a path or paths, or an object, as `session.ask.ask` takes it.
        files: new files by the old ones' names or paths, where it matters which stands for which.
        question: apply the trace up to this one of its questions, from 1; default: all of them.
        root: whether the root model may be woken. If not, the run ends there without an answer.
        reuse: take the first run's answers for sub-calls that ask the very same. By default they are asked
            anew: an answer of then may have been a bad one, and the model may be another.
        out: where the new notebook goes; default: a name of its own in `trace.dir`.
        config_file: default `config.json` in the working directory, if it is there.
        changes: settings by dotted name. Models are otherwise those of the trace; limits count from here.
        models: instead of those of the trace. The caller closes them.
        view: hears the run's events beside the trace.
        say: hears what is being set up, a line at a time.
        consent: asked where the code wants a file that was not given. Default: it is refused.
        approve: asked before the code spends more than `limits.ask`. Default: it may.
        tools: as of `session.ask.ask`.
        allow_call: likewise.
        placed: hears where the new notebook goes.
        answered: hears the answer as soon as it is there, before the container is removed.

    Returns:
        What came of it; its `applied` says how far the code came without the root model.

    Raises:
        UsageError: there is no code to apply, or no input.
        RLMError: what `session.ask.ask` raises.
    """
    trace = await asyncio.to_thread(read_trace, path)
    asked = _chosen(trace, question)
    again = RunAgain(config_file, changes or {}, {}, False, models)
    target = trace_path(again.settings(trace, live=False), asked[0].text, out)
    if target == trace.path:
        raise UsageError(
            "rlm apply cannot write into the trace that it applies.", hint="Name another file with --trace."
        )
    try:
        plan = await asyncio.to_thread(_planned, trace, asked, context, files or {}, target)
        plan = replace(plan, choices=Choices(root, reuse))
        placed(target)
        settings, chosen = needed_models(trace, asked, again, plan.choices, say)
        host = Host(settings, say, consent, approve, tools, allow_call)
        return await answer_first(
            lambda give: _applied(plan, chosen, view, host, give),
            answered,
            say,
        )
    finally:
        give_back(target)


def _chosen(trace: TraceFile, number: int | None) -> Sequence[OldQuestion]:
    found = questions_of(trace)
    if not any(turn.cells or turn.reply for one in found for turn in one.turns):
        raise UsageError(
            f"{trace.path} has no turn of a root model, so there is no code to apply.",
            hint="Give the trace of a run that has an answer. To list traces: rlm traces",
        )
    if number is None:
        return found
    if not 1 <= number <= len(found):
        raise UsageError(
            f"The trace has no question {number}.",
            hint=f"It has {len(found)}, numbered from 1. To see them: rlm show {trace.path}",
        )
    return found[:number]


def _planned(
    trace: TraceFile, asked: Sequence[OldQuestion], context: Context, files: Mapping[str, Path], target: Path
) -> Plan:
    """The new input, and which of its files stands for which of the trace. Blocking.

    Raises UsageError, FileRefused, TraceError.
    """
    if context is None and not files:
        raise UsageError("There is no new input.", hint="Give the new files: rlm apply TRACE -f FILE")
    given = _as_paths(context)
    if given is None and files:
        raise UsageError(
            "The new input is an object, which has no files.", hint="Give either an object or files."
        )
    inputs = gather(context if given is None else [*given, *files.values()], target)
    check_readable(inputs.paths)
    if inputs.made:
        return Plan(trace, asked, inputs, Counterparts(()), target)
    new = {path: _new(path) for path in inputs.paths}
    named = {name: _new(path) for name, path in files.items()}
    old = [file for file in trace.meta.files if not file.made]
    return Plan(trace, asked, inputs, counterparts(old, list(dict.fromkeys(new.values())), named), target)


def _as_paths(context: Context) -> list[Path] | None:
    """The paths of a context; None of an object."""
    if context is None:
        return []
    if isinstance(context, Path):
        return [context]
    if isinstance(context, str | dict) or not context or not all(isinstance(one, Path) for one in context):
        return None
    return list(context)


def _new(path: Path) -> New:
    from rlm_kernel.sandbox.grants import resolve

    real = resolve(path)
    return New(real, real.is_dir())


async def _applied(
    plan: Plan, models: AbstractAsyncContextManager[ModelSet], view: Listener | None, host: Host, give: Give
) -> Result:
    view = await with_spans(view, host.say)
    files = GivenFiles(plan.inputs.paths, late=bool(host.tools) or host.consent is not None)
    async with (
        opened(host) as host,
        set_up(host, models) as ready,
        await new_kernel(host, ready.image, files) as running,
        KernelPool(host, ready.image) as kernels,
    ):
        running.environment.run.describe(trace=plan.path, question=plan.question)
        family, ledger = Family(ready.chosen, kernels), ledger_of(host)
        writer = await _writer(plan, running, family, ledger)
        return await Applying(plan, running, family, writer, view).run(ledger, give)


async def _writer(plan: Plan, running: RunningKernel, family: Family, ledger: Ledger) -> NotebookWriter:
    environment, models = running.environment, family.models
    meta = new_meta(environment, plan.question, models.names, models.profile)
    files = await asyncio.to_thread(metas_of, environment.grants.places(), made=plan.inputs.made)
    more = {
        "files": files,
        "limits": meta.limits | {"depth": ledger.limits.depth},
        "origins": origins_of(plan.trace, ""),
    }
    settings, say = environment.host.settings, environment.host.say
    return new_writer(plan.path, meta.model_copy(update=more), settings, say=say)

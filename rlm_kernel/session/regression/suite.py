"""Traces as a test suite: each question again, and whether the answer is still the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Models, Totals
from rlm_kernel.errors import FileRefused, RLMError, SetupError, TraceError, UsageError, backstop
from rlm_kernel.pathtext import recorded as recorded_path
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.models import models_of
from rlm_kernel.session.places import give_back, take_path
from rlm_kernel.session.regression.accepted import Expectations, Wish, read_expectations
from rlm_kernel.session.regression.alike import Measure
from rlm_kernel.session.regression.judging import Comparing, Judge
from rlm_kernel.session.regression.rerun import Rerun, answers_of, ask_again, parts_of
from rlm_kernel.session.regression.results import CaseResult, Suite
from rlm_kernel.session.replaying import LiveTools, RunAgain
from rlm_kernel.tools.functions import tools_of
from rlm_kernel.tools.tool import AllowCall
from rlm_kernel.trace.heads import NotATrace, head_of, notebooks_in
from rlm_kernel.trace.reader import TraceFile, read_trace

_FILES = "Give the folder that has its files (--files FOLDER), or accept what has changed (--allow-changed)."
ASKING = ("root_llm.model", "sub_llm.model", "prompt.profile")
"""Settings that say that models are to be asked."""


@dataclass(frozen=True)
class Wanted:
    """How traces are tested: the parameters of `run_suite`."""

    again: RunAgain
    live: bool
    comparing: Comparing
    files: Path | None
    say: Say
    out: Path


@backstop
async def run_suite(
    folder: Path,
    *,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    models: Models | None = None,
    tools: Sequence[Any] = (),
    allow_call: AllowCall | None = None,
    live: bool = False,
    files: Path | None = None,
    allow_changed: bool = False,
    measure: Measure | None = None,
    judge: str | Models | Judge | None = None,
    max_cost_judge: float | None = None,
    jobs: int = 1,
    out: Path | None = None,
    update: bool = False,
    by_wish: bool = True,
    tell: Callable[[CaseResult], None] = lambda _tested: None,
    say: Say = silent,
) -> Suite:
    """Ask the questions of traces again, and compare the answers with the recorded ones.

    Args:
        folder: with the traces, or one trace.
        config_file: default `config.json` in the working directory, if it is there.
        changes: settings by dotted name. With one of ASKING models are asked what has no record.
        models: instead of those of the settings, where models are asked. The caller closes them.
        tools: functions that are called for real, as of `RLM`; so are the MCP servers of the settings where
            `changes` names any. Calls of other tools have the recorded results.
        allow_call: asked before a call of a tool that asks. Default: it is refused.
        live: ask the models of the traces what has no record.
        files: a folder in which the traces' files are looked for, by name, beside their recorded places.
        allow_changed: go on with files that have changed; it becomes a remark.
        measure: how answers are compared, where the folder does not say otherwise.
        judge: the model that judges texts that differ, or where it is asked.
        max_cost_judge: US dollars that the judge may use for all traces; those that it is then not asked
            about fail.
        jobs: traces at one time; each has a container.
        out: where the new traces go. Default: a temporary folder, kept if a trace is not the same.
        update: write down the answers of now as those that are expected.
        by_wish: where models are asked, a trace is asked of the one that the folder names for it.
        tell: hears of each trace as soon as it is done.
        say: hears what is being set up, a line at a time.

    Raises:
        UsageError: there are no traces, or the folder's files are not as they should be.
        SetupError, ModelError: the machine or a model's key is missing, for all of them.
    """
    began, given = time.monotonic(), changes or {}
    paths = await asyncio.to_thread(_traces, folder)
    expected = await asyncio.to_thread(_expected, folder)
    if not by_wish:
        expected = expected.without_models()
    live = live or any(given.get(name) is not None for name in ASKING)
    again = RunAgain(config_file, given, {}, allow_changed, models, LiveTools(tools_of(tools), allow_call))
    async with opened_judge(judge, max_cost_judge, config_file, say) as asked:
        judged_before = asked.spent if asked else Totals()
        with _out(out) as place:
            wanted = Wanted(again, live, Comparing(measure or Measure(), asked), files, say, place)
            tested = await _all(paths, wanted, expected, jobs, tell)
            judged = asked.spent - judged_before if asked else Totals()
            suite = Suite(tested, judged, time.monotonic() - began)
            if update:
                suite = await asyncio.to_thread(_accept, suite, expected)
            if out is not None or not all(one.verdict in ("same", "skipped") for one in tested):
                return replace(suite, out=place)
            shutil.rmtree(place, ignore_errors=True)
    return replace(suite, traces=[replace(one, out=None) for one in suite.traces])


def _traces(folder: Path) -> list[Path]:
    """The notebooks of the folder that are traces, or are damaged ones, by name. Raises UsageError."""
    if not folder.is_dir():
        if not folder.is_file():
            raise UsageError(f"There is no folder {folder}.", hint="Name the folder with the traces.")
        return [folder.absolute()]
    found = []
    for path in sorted(notebooks_in(folder.absolute())):
        try:
            head_of(path)
        except NotATrace as other:
            if other.foreign:
                continue
        except RLMError:
            pass  # damaged: it fails by name
        found.append(path)
    if not found:
        raise UsageError(
            f"There are no traces in {folder}.", hint="Copy traces there: notebooks that `rlm ask` wrote."
        )
    return found


def _expected(folder: Path) -> Expectations:
    home = folder if folder.is_dir() else folder.parent
    return read_expectations(home, [path.name for path in notebooks_in(home)])


@contextlib.asynccontextmanager
async def opened_judge(
    judge: str | Models | Judge | None, limit: float | None, config_file: Path | None, say: Say
) -> AsyncIterator[Judge | None]:
    """The judge, ready to be asked; None without one. Raises SetupError, ModelError."""
    if judge is None or isinstance(judge, Judge):
        yield judge
    elif not isinstance(judge, str):
        yield Judge(judge, limit)
    else:
        settings = load_settings(config_file, {"root_llm.model": judge, "sub_llm.model": judge})
        async with models_of(settings, None, say) as chosen:
            yield Judge(chosen.models, limit)


@contextlib.contextmanager
def _out(out: Path | None) -> Iterator[Path]:
    """Where the new traces go; a temporary folder that is empty in the end is removed."""
    place = Path(tempfile.mkdtemp(prefix="rlm-test-")) if out is None else out.absolute()
    try:
        yield place
    finally:
        if out is None:
            with contextlib.suppress(OSError):
                os.rmdir(place)


async def _all(
    paths: Sequence[Path],
    wanted: Wanted,
    expected: Expectations,
    jobs: int,
    tell: Callable[[CaseResult], None],
) -> list[CaseResult]:
    """Each trace, `jobs` at a time; the first that cannot be set up ends all."""
    room = asyncio.Semaphore(max(1, jobs))

    async def one(path: Path) -> CaseResult:
        async with room:
            tested = await _tested(path, wanted, expected)
            tell(tested)
            return tested

    tasks = [asyncio.create_task(one(path)) for path in paths]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tested(path: Path, wanted: Wanted, expected: Expectations) -> CaseResult:
    """One trace. Raises SetupError, and ModelError of a key, which are of no trace alone."""
    began, wish = time.monotonic(), expected.of(path.name)
    if wish.skip:
        return CaseResult(path, "skipped", wish.skip)
    try:
        trace = await asyncio.to_thread(read_trace, path)
        parts_of(trace)
    except (TraceError, UsageError) as error:
        return CaseResult(path, "failed", error.message)
    then = expected.answers(path.name, answers_of(trace))
    base = CaseResult(path, "failed", then=then, before=trace.spent())
    cut_off = trace.meta.status == "running" or trace.meta.stop_reason in ("interrupted", "error")
    if cut_off and not expected.is_fixed(path.name):
        return replace(
            base,
            verdict="skipped",
            detail="the recorded run was cut off, so there is nothing to compare with",
        )
    found, attempts = await _once(trace, base, wanted, wish), 1
    while not found.good and attempts < wish.attempts:
        found, attempts = await _once(trace, replace(base, spent=found.spent), wanted, wish), attempts + 1
    if attempts > 1 and found.good:
        found = replace(found, remarks=[*found.remarks, f"flaky: the same only at attempt {attempts}"])
    return replace(found, seconds=time.monotonic() - began, attempts=attempts)


async def _once(trace: TraceFile, base: CaseResult, wanted: Wanted, wish: Wish) -> CaseResult:
    again = replace(wanted.again, files=_places(trace, wanted.files))
    if wanted.live and wish.model is not None:
        again = replace(again, changes={**again.changes, "root_llm.model": wish.model})
    out = take_path(wanted.out / trace.path.name)
    try:
        run = await ask_again(trace, again, out, live=wanted.live, say=wanted.say)
    except SetupError:
        raise
    except FileRefused as error:
        return replace(base, detail=f"{error.message} {_FILES}")
    except RLMError as error:
        if error.exit_code == SetupError.exit_code:
            raise
        return replace(base, detail=error.message)
    finally:
        give_back(out)
    done = replace(
        base,
        now=run.answers,
        used=run.totals,
        spent=base.spent + run.spent,
        remarks=_remarks(trace, run),
        out=run.out,
    )
    if run.trouble:
        return replace(done, detail=run.trouble)
    return await _compared(trace, done, wanted.comparing, wish)


async def _compared(trace: TraceFile, done: CaseResult, by: Comparing, wish: Wish) -> CaseResult:
    """With its verdict."""
    measure, told = wish.measure(by.measure), []
    questions = [part.question for part in parts_of(trace)]
    for number, question in enumerate(questions):
        then = done.then[number] if number < len(done.then) else None
        now = done.now[number] if number < len(done.now) else None
        try:
            what = await by.different(question, then, now, measure)
        except RLMError as error:
            return replace(done, detail=error.message)
        if what:
            told.append(f"question {number + 1}: {what}" if len(questions) > 1 else what)
    return replace(done, verdict="differs" if told else "same", detail="; ".join(told))


def _remarks(trace: TraceFile, run: Rerun) -> list[str]:
    """What is not as it was, beside the answers."""
    then = trace.meta.stop_reason
    ended = f"{then} (best effort)" if trace.meta.forced else then
    remarks = list(run.remarks)
    if run.ends and then is not None and run.ends[-1] != ended:
        remarks.append(f"it ended differently: {run.ends[-1]}, then {ended}")
    if run.parted and run.parted != run.trouble:
        remarks.append(run.parted)
    return remarks


def _places(trace: TraceFile, folder: Path | None) -> dict[str, Path]:
    """Where the folder has the trace's files: below it, by as much of their paths as there is."""
    found: dict[str, Path] = {}
    if folder is None:
        return found
    for file in trace.meta.files:
        path = recorded_path(file.path)
        parts = path.parts[1:] if path.anchor else path.parts
        tails = (Path(*parts[start:]) for start in range(len(parts)))
        place = next((folder / tail for tail in tails if (folder / tail).exists()), None)
        if place is not None:
            found[file.path] = place
    return found


def _accept(suite: Suite, expected: Expectations) -> Suite:
    """Have the answers that differ expected from now on, but those that a person wrote down."""
    new = {
        one.trace.name: list(one.now)
        for one in suite.traces
        if one.verdict == "differs" and not expected.is_fixed(one.trace.name)
    }
    if not new:
        return suite
    path = expected.accept(new)
    traces = [
        replace(one, verdict="same", detail=f"accepted: {one.detail}") if one.trace.name in new else one
        for one in suite.traces
    ]
    return replace(suite, traces=traces, accepted=path)

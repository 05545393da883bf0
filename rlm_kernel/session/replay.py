"""Replay: a trace's cells in a fresh kernel, their host calls answered from the recording, a verdict for
each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rlm_kernel.engine.events import CallFinished, CallStarted, CellFinished, Event, Listener, RunOpened
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import CellResult, Evidence, Models, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import TraceError, UsageError, backstop
from rlm_kernel.session.answering import Children, Family
from rlm_kernel.session.assembly import Assembly, history_of
from rlm_kernel.session.environment import Host, Say, limits_of, silent
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.models import models_of
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.replaying import Choice, Replayer, RunAgain, Verdict, cell_index, image_remarks
from rlm_kernel.session.running import GivenFiles, RunningKernel, new_kernel
from rlm_kernel.session.setup import set_up
from rlm_kernel.session.tracefiles import named_files
from rlm_kernel.session.traces import new_writer
from rlm_kernel.session.tree import Tree, child_traces
from rlm_kernel.trace.reader import TraceCell, TraceFile, read_trace
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.writer import NotebookWriter

Step = Callable[[TraceCell, Path], Awaitable[Choice]]
"""Asked before each cell; it is given the kernel's connection file, for a console."""
_HOW_TO_ALLOW = "To ask the models: rlm replay --live"


async def _run_all(_cell: TraceCell, _connection: Path) -> Choice:
    return "run"


@dataclass(frozen=True)
class Replayed:
    """The result of a replay.

    `remarks`: other differences from the recording, such as another image. `out`: the replayed notebook, if
    it was written. `children`: the results for the child RLMs' traces, if these were replayed, too. `spent`:
    what new calls (`live`) used, including those of child RLMs. `quoted`: whether each quotation to check is
    in its text; None if its file was not loaded yet.
    """

    trace: Path
    verdicts: Sequence[Verdict]
    remarks: Sequence[str]
    out: Path | None = None
    children: Sequence[Replayed] = ()
    spent: Totals = field(default_factory=Totals)
    quoted: Sequence[bool | None] = ()

    @property
    def same(self) -> bool:
        """Every cell was run and gave what the trace has."""
        return all(verdict.good for verdict in self.verdicts) and all(child.same for child in self.children)

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm replay --json` prints."""
        return {
            "trace": str(self.trace),
            "same": self.same,
            "cells": [asdict(verdict) | {"seconds": round(verdict.seconds, 3)} for verdict in self.verdicts],
            "remarks": list(self.remarks),
            "out": str(self.out) if self.out else None,
            "children": [child.as_json() for child in self.children],
            "spent": self.spent.as_json(),
        }


@backstop
async def replay(
    path: Path,
    *,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    allow_changed: bool = False,
    until: str | None = None,
    live: bool = False,
    models: Models | None = None,
    out: Path | None = None,
    tree: bool = False,
    quotations: Sequence[Evidence] = (),
    step: Step | None = None,
    tell: Callable[[Verdict, CellResult | None], None] = lambda _verdict, _result: None,
    begin: Callable[[Path], None] = lambda _path: None,
    view: Listener | None = None,
    say: Say = silent,
) -> Replayed:
    """Run a trace's cells in a fresh kernel and compare their outputs with the recorded ones.

    Args:
        path: of the trace.
        config_file: default `config.json` in the working directory, if it is there.
        changes: settings by dotted name, over those of the configuration.
        files: where the trace's files are now, by recorded path or name, and with `tree` those of the
            children. Default: their recorded places.
        allow_changed: go on with files that have changed; it becomes a remark.
        until: the last cell to run, by id; a turn's id (`turn-03`) is its last cell.
        live: ask the models what has no record. Without it nothing is sent to any model, and a call without a
            record ends the replay.
        models: with `live`, instead of those of the trace. The caller closes them.
        out: where to write the replayed notebook.
        tree: replay the traces of the child RLMs, too, whole, one after the other.
        quotations: looked up in the texts that the kernel has read of the files, before any cell of a model.
        step: asked before each cell; not in the children's traces.
        tell: hears each verdict at once, with what the cell gave if it was run.
        begin: hears which child's trace comes next.
        view: hears the events of calls that are made anew.
        say: hears what is being set up, a line at a time.

    Raises:
        FileRefused: a file is missing or has changed.
        TraceError, UsageError, SetupError, KernelError: as `ask`.
    """
    wanted = _Wanted(
        RunAgain(config_file, changes or {}, files or {}, allow_changed, models),
        live,
        until,
        out,
        quotations,
    )
    audience = _Audience(step or _run_all, tell, begin, view, say)
    trace = await asyncio.to_thread(read_trace, path)
    done = await _replayed(trace, wanted, audience)
    if not tree:
        return done
    return _with(done, await _Descent(wanted, audience, Tree.of(trace)).children(trace, ()))


def _with(done: Replayed, children: Sequence[Replayed]) -> Replayed:
    return replace(done, children=children, spent=sum((child.spent for child in children), done.spent))


@dataclass(frozen=True)
class _Wanted:
    """What is to be replayed, and how: the parameters of `replay`."""

    again: RunAgain
    live: bool
    until: str | None = None
    out: Path | None = None
    quotations: Sequence[Evidence] = ()


@dataclass(frozen=True)
class _Audience:
    """Who hears of a replay, and who is asked."""

    step: Step
    tell: Callable[[Verdict, CellResult | None], None]
    begin: Callable[[Path], None]
    view: Listener | None
    say: Say


async def _replayed(trace: TraceFile, wanted: _Wanted, audience: _Audience) -> Replayed:
    """One trace, without those of its children."""
    last = len(trace.cells) if wanted.until is None else cell_index(trace, wanted.until) + 1
    host = Host(wanted.again.settings(trace, live=wanted.live), audience.say)
    models = models_of(host.settings, wanted.again.models, host.say) if wanted.live else None
    async with set_up(host, models, wanted.again.look_up_files(trace, host.say)) as ready:
        files = GivenFiles(ready.found.paths, ready.found.known_as, late=False)
        async with (
            await new_kernel(host, ready.image, files, replayed=True) as running,
            KernelPool(host, ready.image) as kernels,
        ):
            family = Family(ready.models, kernels) if ready.models is not None else None
            running.environment.run.describe(trace=trace.path, question=trace.meta.question)
            cells = [cell for cell in trace.cells[:last] if cell.code]
            quoted = _Quoted(running, wanted.quotations)
            asking = replace(audience, step=quoted.before(audience.step))
            verdicts, spent = await _run_again(trace, cells, running, family, wanted, asking)
        return Replayed(
            trace.path,
            verdicts,
            [*ready.found.changed, *image_remarks(trace, running.environment)],
            wanted.out,
            (),
            spent,
            quoted.found,
        )


class _Quoted:
    """Looks quotations up in the kernel, as soon as it has the input and has run nothing of a model."""

    def __init__(self, running: RunningKernel, quotations: Sequence[Evidence]) -> None:
        self._running = running
        self._left = list(quotations)
        self.found: list[bool | None] = []

    def before(self, step: Step) -> Step:
        """`step`, after which that is done where it is time for it."""

        async def asked(cell: TraceCell, connection: Path) -> Choice:
            if self._left and cell.kind not in ("parameters", "setup"):
                self.found = [await self._running.kernel.stands(one) for one in self._left]
                self._left = []
            return await step(cell, connection)

        return asked


async def _run_again(
    trace: TraceFile,
    cells: Sequence[TraceCell],
    running: RunningKernel,
    family: Family | None,
    wanted: _Wanted,
    audience: _Audience,
) -> tuple[list[Verdict], Totals]:
    environment = running.environment
    out = _writer(trace, wanted.out, environment.host) if wanted.out is not None else None
    listeners = everyone(audience.view, _prompts_of(out) if out else None)
    ledger = Ledger(limits_of(environment.host.settings))
    if family is not None:
        listeners(RunOpened(trace.meta.question, ledger, Totals()))
    children = Children(environment, wanted.out or trace.path, family, audience.view)
    sub_calls = SubCalls(family.models.models if family else None, ledger, children, _HOW_TO_ALLOW)
    run = Assembly(environment, sub_calls, listeners)
    calls = run.host_calls(history_of(lambda: trace), recording=TraceRecording(trace.cells))
    verdicts: list[Verdict] = []
    results: dict[str, CellResult] = {}
    async with contextlib.AsyncExitStack() as stack:
        if out is not None:
            stack.callback(out.release)
        await stack.enter_async_context(running.attached(calls, listeners))
        connection = environment.run.path / "connection.json"
        replayer = Replayer(run.cells(running, calls), live=wanted.live)
        async for cell, verdict, result in replayer.through(
            cells, lambda cell: audience.step(cell, connection)
        ):
            audience.tell(verdict, result)
            verdicts.append(verdict)
            if result is not None:
                results[cell.id] = result
        if out is not None:
            _write(trace, results, out)
    return verdicts, ledger.totals()


@dataclass(frozen=True)
class _Descent:
    """The replay of the traces of child RLMs, each whole, one after the other."""

    wanted: _Wanted
    audience: _Audience
    tree: Tree

    async def children(self, trace: TraceFile, above: Collection[Path]) -> list[Replayed]:
        """Those of a trace, with theirs; `above`: the traces that it belongs to."""
        around = {*above, trace.path.resolve()}
        replayed: list[Replayed] = []
        for path in child_traces(trace):
            self.audience.begin(path)
            try:
                if path.resolve() in around:
                    raise TraceError("this trace of a child RLM is its own ancestor")
                child = await asyncio.to_thread(self.tree.open, path, trace, len(around))
            except (TraceError, UsageError) as error:
                replayed.append(Replayed(path, [Verdict("", "failed", error.message)], ()))
                self.audience.tell(replayed[-1].verdicts[0], None)
                continue
            if child is None:
                continue  # it was replayed already
            again = replace(self.wanted.again, files=named_files(child, self.wanted.again.files))
            done = await _replayed(
                child, _Wanted(again, self.wanted.live), replace(self.audience, step=_run_all)
            )
            replayed.append(_with(done, await self.children(child, around)))
        return replayed


def _writer(trace: TraceFile, out: Path, host: Host) -> NotebookWriter:
    """Of the replayed notebook, of which nothing is written yet."""
    return new_writer(out, trace.meta, host.settings, trace.node.cells, say=host.say, of=trace.path)


def _prompts_of(writer: NotebookWriter) -> Listener:
    """Has the writer keep the prompts of calls, which a replay makes in full again, and nothing else."""

    def hear(event: Event) -> None:
        if isinstance(event, CallStarted | CallFinished):
            writer(event)

    return hear


def _write(trace: TraceFile, results: Mapping[str, CellResult], writer: NotebookWriter) -> None:
    """The trace with what its cells gave now."""
    for cell in trace.code_cells:
        if cell.id in results:
            writer(CellFinished(cell.turn, results[cell.id]))
    writer.close()  # written even if no cell was run

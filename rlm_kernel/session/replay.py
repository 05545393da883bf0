"""Replay: a trace's cells in a fresh kernel, their host calls answered from the recording, a verdict for each."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlm_kernel.config import Settings, known_keys, load_settings
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.events import CellFinished, Listener, RunOpened
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.prompts import PROFILES
from rlm_kernel.engine.protocols import ROLES, CellResult, Models, Totals
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import TraceError, UsageError, backstop
from rlm_kernel.secrets import known_secrets
from rlm_kernel.session.children import Children, Family, Tree, child_traces
from rlm_kernel.session.conversation import full_history
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.players import profile_for
from rlm_kernel.session.stage import Say, Stage, keep_of, kernel_of, limits_of, models_ready, stage
from rlm_kernel.session.tracefiles import TraceFiles, look_up_files, named_files
from rlm_kernel.session.warm import WarmKernels
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.reader import TraceCell, TraceFile, read_trace
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.writer import NotebookWriter

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent

VerdictName = Literal["same", "differs", "failed", "new call", "added", "skipped", "not run"]
GOOD = ("same", "added")
"""Verdicts with which a replay counts as the same. `added`: a person's cell that was never run before, and ran well."""
Step = Callable[[TraceCell, Path], Awaitable[Literal["run", "skip", "quit"]]]
"""Asked before each cell; it is given the kernel's connection file, for a console."""
_HOW_TO_ALLOW = "To have it asked of the models: rlm replay --live"


@dataclass(frozen=True)
class Verdict:
    """What became of a cell. `diff` is a unified diff of what differs; `seconds` it took now."""

    cell: str
    verdict: VerdictName
    detail: str = ""
    diff: str = ""
    seconds: float = 0.0
    edited: bool = False

    @property
    def good(self) -> bool:
        return self.verdict in GOOD


@dataclass(frozen=True)
class Replayed:
    """What a replay found. `remarks`: what else is not as it was, such as the image. `out`: the replayed notebook, if it was written.
    `children`: what was found of the child RLMs' traces, if these were replayed, too. `spent`: what was asked anew (`live`) has used,
    in those as well.
    """

    trace: Path
    verdicts: Sequence[Verdict]
    remarks: Sequence[str]
    out: Path | None = None
    children: Sequence[Replayed] = ()
    spent: Totals = field(default_factory=Totals)

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


def cell_index(trace: TraceFile, name: str) -> int:
    """The place in the notebook that `--until` and `--at` name: of a cell, or of the last cell of a turn. Raises UsageError."""
    place = next((index for index, cell in enumerate(trace.cells) if cell.id == name), None)
    if place is None:
        shown = ", ".join(cell.id for cell in trace.code_cells)
        raise UsageError(f"The trace has no cell {name}.", hint=f"Its code cells: {shown or 'none'}.")
    named = trace.cells[place]
    if named.kind != "model":
        return place
    return max(index for index, cell in enumerate(trace.cells) if cell.turn == named.turn)


def settings_of(trace: TraceFile, config_file: Path | None, changes: Mapping[str, Any], *, models: bool) -> Settings:
    """The settings, with limits and (if `models`) models as the trace has them, and then `changes`.

    Nothing that guards the machine is taken from a trace: it may be a stranger's.
    """
    known = set(known_keys())
    recorded: dict[str, Any] = {f"limits.{name}": value for name, value in trace.meta.limits.items() if f"limits.{name}" in known}
    given = {name: value for name, value in changes.items() if value is not None}
    if models and "root_llm.model" not in given:
        recorded |= {f"{role}_llm.model": trace.meta.models[role] for role in ROLES}
        if trace.meta.prompt_profile in PROFILES:
            recorded["prompt.profile"] = trace.meta.prompt_profile
        if trace.meta.models["root"].startswith("scripted/"):
            raise UsageError("The trace was made with scripted models, which are not there now.", hint="Give a model: --model")
    return load_settings(config_file, recorded | given)


class Replayer:
    """Runs a trace's cells again, one by one, and judges them."""

    def __init__(self, cells: Cells, *, live: bool) -> None:
        self._cells = cells
        self._live = live

    async def run(self, cell: TraceCell) -> tuple[Verdict, CellResult]:
        """Run one cell."""
        setup = cell.kind in ("parameters", "setup") or "injected-parameters" in cell.tags
        result = await self._cells.run(cell.id, cell.source, cell.turn, setup=setup, seconds=_interrupted_after(cell))
        name, detail, diff = self._judge(cell, result, self._cells.calls.unrecorded)
        if cell.edited:
            detail = f"edited; {detail}".removesuffix("; ")
        return Verdict(cell.id, name, detail, diff, result.seconds, cell.edited), result

    def _judge(self, cell: TraceCell, result: CellResult, unrecorded: int) -> tuple[VerdictName, str, str]:
        calls = f"{unrecorded} {'call' if unrecorded == 1 else 'calls'}"
        if unrecorded and not self._live:
            return "new call", f"{calls} without a record", ""
        asked = f"{calls} asked of the models" if unrecorded else ""
        then = _status(cell)
        if result.status != "ok" and result.status != then:
            return "failed", _why(result), ""
        if cell.never_run:
            return "added", asked, ""
        if result.status != then:
            return "differs", f"it ended with status {result.status}, then it was {then}", ""
        diff = compare(_ran(cell), Ran(result.outputs, result.started, result.seconds))
        return ("differs", asked, diff) if diff else ("same", asked, "")


def _status(cell: TraceCell) -> str:
    """How the cell ended when it was recorded; of a person's, by its outputs."""
    if cell.meta is not None and cell.meta.status not in (None, "running") and not cell.edited:
        return str(cell.meta.status)
    return "error" if any(output.get("output_type") == "error" for output in cell.outputs) else "ok"


def _interrupted_after(cell: TraceCell) -> float | None:
    """Seconds after which a cell was interrupted in the recorded run, at the run's deadline or by hand; None if it was not."""
    interrupted = any(output.get("ename") == "KeyboardInterrupt" for output in cell.outputs)
    return cell.meta.seconds if cell.meta and cell.meta.status == "error" and interrupted else None


def _ran(cell: TraceCell) -> Ran:
    return Ran(cell.outputs, cell.started, cell.meta.seconds if cell.meta else None)


def _why(result: CellResult) -> str:
    errors = [f"{output.get('ename')}: {output.get('evalue')}" for output in result.outputs if output.get("output_type") == "error"]
    return " ".join([*errors, *result.notices]) or f"it ended with status {result.status}"


def image_remarks(trace: TraceFile, on: Stage) -> list[str]:
    """What is to be said of the image."""
    if on.image.id == trace.meta.image_digest:
        return []
    return [f"The trace was recorded with image {trace.meta.image}, this is {on.image.tag}, or another build of it."]


def restored(what: str, verdicts: Sequence[Verdict], remarks: Sequence[str]) -> str:
    """What the root model is told of a rebuilt state: what happened, and above all what is not as it was."""
    said = f"{what}: all cells were run again, in order, in a new kernel; the outputs above are those of now."
    bad = [verdict for verdict in verdicts if not verdict.good]
    odd = [f"{verdict.cell} ({': '.join(filter(None, [verdict.verdict, verdict.detail]))})" for verdict in bad]
    if odd:
        said += f" Not as they were then: {', '.join(odd[:20])}{' …' if len(odd) > 20 else ''}. What they left in variables may differ."
    return " ".join([said, *remarks])


@contextlib.asynccontextmanager
async def replay_stage(
    trace: TraceFile, files: TraceFiles, settings: Settings, say: Say, *, named: Sequence[Path] = (), consent: Consent | None = None
) -> AsyncIterator[Stage]:
    """The stage for a trace's files, with the names that they had. `named`, `consent`: see `stage`."""
    async with stage(files.paths, settings, say, known_as=files.known_as, named=named, replayed=True, consent=consent) as on:
        on.run.describe(trace=trace.path, question=trace.meta.question)
        yield on


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
    step: Step | None = None,
    tell: Callable[[Verdict, CellResult | None], None] = lambda _verdict, _result: None,
    begin: Callable[[Path], None] = lambda _path: None,
    view: Listener | None = None,
    say: Say = lambda _text: None,
    _tree: Tree | None = None,
    _above: Collection[Path] = (),
) -> Replayed:
    """Run a trace's cells in a fresh kernel and compare their outputs with the recorded ones.

    Parameters
    ----------
    changes: settings by dotted name, over those of the configuration.
    files: where the trace's files are now, by recorded path or name, and with `tree` those of the children. Default: their recorded
        places.
    allow_changed: go on with files that have changed; it becomes a remark.
    until: the last cell to run, by id; a turn's id (`turn-03`) is its last cell.
    live: ask the models what has no record. Without it nothing is sent to any model, and a call without a record ends the replay.
    models: with `live`, instead of those of the trace. The caller closes them.
    out: where to write the replayed notebook.
    tree: replay the traces of the child RLMs, too, whole, one after the other.
    step: asked before each cell; not in the children's traces.
    tell: hears each verdict at once, with what the cell gave if it was run. `begin` hears which child's trace comes next.

    Raises TraceError, UsageError, FileRefused (a file is missing or has changed), SetupError, KernelError.
    """
    trace = await asyncio.to_thread(read_trace, path, follow=not _above)
    _tree = _tree or Tree.of(trace)
    last = len(trace.cells) if until is None else cell_index(trace, until) + 1
    chosen = [cell for cell in trace.cells[:last] if cell.code]
    settings = settings_of(trace, config_file, changes or {}, models=live and models is None)
    found = await look_up_files(trace, files or {}, allow_changed=allow_changed, say=say)
    async with contextlib.AsyncExitStack() as stack:
        players = await stack.enter_async_context(models_ready(settings, models, say)) if live else None
        on = await stack.enter_async_context(replay_stage(trace, found, settings, say))
        playing = await players if players else None
        heard = everyone(view)
        recording = TraceRecording(trace.cells)
        ledger = Ledger(limits_of(settings))
        family = None
        if playing is not None:
            heard(RunOpened(trace.meta.question, ledger, Totals()))
            kernels = await stack.enter_async_context(WarmKernels(settings, on.image, say))
            names = {role: playing.name(role) for role in ROLES}
            family = Family(settings, playing, names, profile_for(settings, playing), kernels)
        children = Children(on, out or trace.path, family, view)
        calls = HostCalls(
            SubCalls(playing, ledger, children, how_to_allow=_HOW_TO_ALLOW),
            heard,
            on.locate,
            recording=recording,
            history=lambda cell: full_history(trace, seen_by=cell),
            keep=keep_of(settings),
        )
        kernel = await stack.enter_async_context(kernel_of(on, settings, calls, heard, cell_timeout=settings.limits.cell_timeout))
        verdicts: list[Verdict] = []
        results: dict[str, CellResult] = {}
        async for verdict, result in _each(chosen, Replayer(Cells(kernel, calls, heard), live=live), step, on):
            tell(verdict, result)
            verdicts.append(verdict)
            if result is not None:
                results[verdict.cell] = result
        if out is not None:
            _write(trace, results, out)
        remarks = [*found.changed, *image_remarks(trace, on)]
        spent = ledger.totals()
    replayed: list[Replayed] = []
    for child in child_traces(trace) if tree else ():
        begin(child)
        around = {*_above, trace.path.resolve()}
        try:
            if child.resolve() in around:
                raise TraceError("this trace of a child RLM is one that it belongs to")
            found_child = _tree.open(child, trace, len(around))
        except (TraceError, UsageError) as error:
            replayed.append(Replayed(child, [Verdict("", "failed", error.message)], ()))
            tell(replayed[-1].verdicts[0], None)
            continue
        if found_child is None:
            continue  # it was replayed already
        options: dict[str, Any] = {"config_file": config_file, "changes": changes, "allow_changed": allow_changed, "live": live}
        options["files"] = named_files(found_child, files or {})
        heard_too: dict[str, Any] = {"models": models, "tell": tell, "begin": begin, "view": view, "say": say}
        replayed.append(await replay(child, **options, **heard_too, tree=True, _tree=_tree, _above=around))
    return Replayed(trace.path, verdicts, remarks, out, replayed, sum((one.spent for one in replayed), spent))


def _write(trace: TraceFile, results: Mapping[str, CellResult], out: Path) -> None:
    """The trace with what its cells gave now."""
    writer = NotebookWriter(out, trace.meta, known_secrets(os.environ), trace.node.cells)
    for cell in trace.code_cells:
        if cell.id in results:
            writer(CellFinished(cell.turn, results[cell.id]))
    writer.close()  # written even if no cell was run


async def _each(
    cells: Sequence[TraceCell], replayer: Replayer, step: Step | None, on: Stage
) -> AsyncIterator[tuple[Verdict, CellResult | None]]:
    """The verdicts, one for each cell."""
    over = ""
    for cell in cells:
        if over:
            yield Verdict(cell.id, "not run", over), None
            continue
        if cell.meta is not None and cell.meta.status == "running":
            yield Verdict(cell.id, "not run", "the recording was cut off in this cell; `rlm resume` goes on from it"), None
            continue
        what = await step(cell, on.run.path / "connection.json") if step else "run"
        if what == "quit":
            over = "the replay was ended"
            yield Verdict(cell.id, "not run", over), None
        elif what == "skip":
            yield Verdict(cell.id, "skipped"), None
        else:
            verdict, result = await replayer.run(cell)
            yield verdict, result
            if verdict.verdict == "new call":
                over = f"{cell.id} made a call that has no record"

"""Cells of a trace, run again in a kernel and judged: for a replay, and to have the state of a run again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlm_kernel.config import Settings, field_of, known_keys, load_settings
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.events import CellFinished, Listener
from rlm_kernel.engine.prompts import PROFILES
from rlm_kernel.engine.protocols import ROLES, CellResult, Models
from rlm_kernel.errors import UsageError
from rlm_kernel.session.environment import Environment, Say
from rlm_kernel.session.inputs import check_setup
from rlm_kernel.session.tracefiles import TraceFiles, look_up_files
from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.reader import TraceCell, TraceFile

VerdictName = Literal["same", "differs", "failed", "new call", "added", "skipped", "not run"]
GOOD = ("same", "added")
"""Verdicts with which a replay counts as the same.

`added`: a person's cell that was never run before, and ran well.
"""
Choice = Literal["run", "skip", "quit"]
_CUT_OFF = "the recording was cut off in this cell; `rlm resume` continues from it"


@dataclass(frozen=True)
class LiveTools:
    """Tools that are called for real. `allow_call` is asked for those that ask."""

    tools: Sequence[Tool | ToolSource] = ()
    allow_call: AllowCall | None = None


@dataclass(frozen=True)
class RunAgain:
    """How a trace is run again.

    `changes`: settings by dotted name, over those of the configuration and the trace; `files`: where its
    files are now; `allow_changed`: also if they have changed; `models`: instead of those of the settings;
    `tools`: what is called for real.
    """

    config_file: Path | None
    changes: Mapping[str, Any]
    files: Mapping[str, Path]
    allow_changed: bool
    models: Models | None
    tools: LiveTools = LiveTools()

    def settings(self, trace: TraceFile, *, live: bool = True, root: bool = True) -> Settings:
        """Those for the trace; without `live` no model is asked, without `root` no root model.

        Raises ConfigError, UsageError.
        """
        models = live and self.models is None
        return settings_of(trace, self.config_file, self.changes, models=models, root=root)

    async def look_up_files(self, trace: TraceFile, say: Say) -> TraceFiles:
        """The trace's files, found and checked. Raises UsageError, FileRefused."""
        return await look_up_files(trace, self.files, allow_changed=self.allow_changed, say=say)


def cell_index(trace: TraceFile, name: str) -> int:
    """The place in the notebook that `--until` and `--at` name: of a cell, or of the last cell of a turn.

    Raises UsageError.
    """
    place = next((index for index, cell in enumerate(trace.cells) if cell.id == name), None)
    if place is None:
        shown = ", ".join(cell.id for cell in trace.code_cells)
        raise UsageError(f"The trace has no cell {name}.", hint=f"Its code cells: {shown or 'none'}.")
    named = trace.cells[place]
    if named.kind != "model":
        return place
    return max(index for index, cell in enumerate(trace.cells) if cell.turn == named.turn)


def settings_of(
    trace: TraceFile, config_file: Path | None, changes: Mapping[str, Any], *, models: bool, root: bool = True
) -> Settings:
    """The settings, with limits and (if `models`) models as the trace has them, and then `changes`.

    Without `root` the sub model stands in the root model's place too, so that the root model needs no key.
    Nothing that guards the machine is taken from a trace: it may be a stranger's.
    """
    known = set(known_keys())
    recorded: dict[str, Any] = {
        f"limits.{name}": value for name, value in trace.meta.limits.items() if f"limits.{name}" in known
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if models and "root_llm.model" not in given:
        sub = given.get("sub_llm.model") or trace.meta.models["sub"]
        leads = trace.meta.models["root"] if root else sub
        recorded |= {"root_llm.model": leads, "sub_llm.model": sub}
        recorded |= _others(trace)
        if trace.meta.prompt_profile in PROFILES:
            recorded["prompt.profile"] = trace.meta.prompt_profile
        if leads.startswith("scripted/"):
            raise UsageError(
                "The trace was made with scripted models, which are not available now.",
                hint="Name a model: --model" if root else "Its sub-calls need a model: --sub-model",
            )
    return load_settings(config_file, recorded | given)


def _others(trace: TraceFile) -> dict[str, Any]:
    """The models beside root and sub, with the limits of each."""
    given: dict[str, Any] = {}
    given |= {f"models.{name}.model": model for name, model in trace.meta.models.items() if name not in ROLES}
    given |= {
        f"models.{name}.{what}": limit
        for name in trace.meta.models
        for what in ("calls", "cost")
        if (limit := trace.meta.limits.get(f"models.{name}.{what}")) is not None
    }
    return {key: value for key, value in given.items() if field_of(key) is not None}


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


class Replayer:
    """Runs a trace's cells again, one by one, and judges them."""

    def __init__(self, cells: Cells, *, live: bool) -> None:
        self._cells = cells
        self._live = live

    async def run(self, cell: TraceCell) -> tuple[Verdict, CellResult]:
        """Run one cell."""
        setup = cell.kind in ("parameters", "setup") or "injected-parameters" in cell.tags
        result = await self._cells.run(
            cell.id, cell.source, cell.turn, setup=setup, seconds=_interrupted_after(cell)
        )
        name, detail, diff = self._judge(cell, result, self._cells.calls.unrecorded)
        if cell.edited:
            detail = f"edited; {detail}".removesuffix("; ")
        return Verdict(cell.id, name, detail, diff, result.seconds, cell.edited), result

    async def through(
        self, cells: Sequence[TraceCell], choose: Callable[[TraceCell], Awaitable[Choice]]
    ) -> AsyncIterator[tuple[TraceCell, Verdict, CellResult | None]]:
        """Run cells as `choose` says, and judge each.

        A cell that was cut off is not run; after a call without a record none is.
        """
        over = ""
        for cell in cells:
            if not over and not cell.cut_off:
                what = await choose(cell)
                if what == "run":
                    verdict, result = await self.run(cell)
                    yield cell, verdict, result
                    if verdict.verdict == "new call":
                        over = f"{cell.id} made a call that has no record"
                    continue
                if what == "skip":
                    yield cell, Verdict(cell.id, "skipped"), None
                    continue
                over = "the replay was ended"
            yield cell, Verdict(cell.id, "not run", over or _CUT_OFF), None

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


def differing(cell: TraceCell, result: CellResult) -> str:
    """What the cell gave that the recorded one did not: how it ended, or a diff; "" if it is the same."""
    then = _status(cell)
    if result.status != then:
        why = f": {_why(result)}" if result.status != "ok" else ""
        return f"it ended with status {result.status}, then it was {then}{why}"
    return compare(_ran(cell), Ran(result.outputs, result.started, result.seconds)) or ""


def _status(cell: TraceCell) -> str:
    """How the cell ended when it was recorded; of a person's, by its outputs."""
    if cell.meta is not None and cell.meta.status not in (None, "running") and not cell.edited:
        return str(cell.meta.status)
    return "error" if any(output.get("output_type") == "error" for output in cell.outputs) else "ok"


def _interrupted_after(cell: TraceCell) -> float | None:
    """Seconds after which a cell was interrupted in the recorded run, at the run's deadline or by hand; None
    if it was not.
    """
    interrupted = any(output.get("ename") == "KeyboardInterrupt" for output in cell.outputs)
    return cell.meta.seconds if cell.meta and cell.meta.status == "error" and interrupted else None


def _ran(cell: TraceCell) -> Ran:
    return Ran(cell.outputs, cell.started, cell.meta.seconds if cell.meta else None)


def _why(result: CellResult) -> str:
    errors = [
        f"{output.get('ename')}: {output.get('evalue')}"
        for output in result.outputs
        if output.get("output_type") == "error"
    ]
    return " ".join([*errors, *result.notices]) or f"it ended with status {result.status}"


@dataclass(frozen=True)
class Restored:
    """The state of a run, had again: what its cells gave now, by id, and the verdicts on them.

    `changed`: what gave something else.
    """

    results: Mapping[str, CellResult]
    verdicts: Sequence[Verdict]
    changed: Sequence[TraceCell]

    def write(self, writer: Listener) -> None:
        """Have in the notebook what the changed cells gave now."""
        for cell in self.changed:
            writer(CellFinished(cell.turn, self.results[cell.id]))

    def told(self, what: str, remarks: Sequence[str]) -> str:
        """What the root model is told: what happened, and above all what is not as it was."""
        said = (
            f"{what}: all cells were run again, in order, in a new kernel; the outputs above are those "
            "of now."
        )
        bad = [verdict for verdict in self.verdicts if not verdict.good or verdict.edited]
        odd = [
            f"{verdict.cell} ({': '.join(filter(None, [verdict.verdict, verdict.detail]))})"
            for verdict in bad
        ]
        if odd:
            shown = f"{', '.join(odd[:20])}{' …' if len(odd) > 20 else ''}"
            said += f" Not as they were then: {shown}. What they left in variables may differ."
        return " ".join([said, *remarks])


async def restore(
    cells: Sequence[TraceCell],
    replayer: Replayer,
    settings: Settings,
    *,
    progress: Callable[[int], None] = lambda _number: None,
    writing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Restored:
    """Run the cells again, for the state that they leave.

    `progress` hears the number of each. `writing` is entered for a cell that was cut off: what that gives now
    is new. Raises UsageError if the input cannot be loaded.
    """
    results: dict[str, CellResult] = {}
    verdicts: list[Verdict] = []
    changed: list[TraceCell] = []
    for number, cell in enumerate(cells, 1):
        progress(number)
        with writing() if cell.cut_off else nullcontext():
            verdict, results[cell.id] = await replayer.run(cell)
        if cell.kind == "setup":
            check_setup(results[cell.id], settings)
        if cell.cut_off:
            continue
        verdicts.append(verdict)
        if verdict.verdict != "same":
            changed.append(cell)
    return Restored(results, verdicts, changed)


def image_remarks(trace: TraceFile, environment: Environment) -> list[str]:
    """What is to be said of the image."""
    if environment.image.id == trace.meta.image_digest:
        return []
    return [
        f"The trace was recorded with image {trace.meta.image}, this is {environment.image.tag}, or another "
        "build of it."
    ]

"""Verify: everything that a trace says, checked offline, with a verdict for each claim."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import CellResult, counted, without_marks
from rlm_kernel.errors import FileRefused, SetupError, TraceError, UsageError, backstop
from rlm_kernel.pathtext import recorded, spelled
from rlm_kernel.proof.account import check_account, child_differs
from rlm_kernel.proof.claims import REDACTED, Claim, claim, not_checked
from rlm_kernel.proof.code import check_code
from rlm_kernel.proof.delivered import check_answer, delivering
from rlm_kernel.proof.seal import check_seal
from rlm_kernel.proof.sent import check_prompts
from rlm_kernel.proof.shown import check_shown
from rlm_kernel.session.claims import check_evidence, check_files, in_folders, of_kernels
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.exported import check_report, read_report
from rlm_kernel.session.replay import Replayed, replay
from rlm_kernel.session.replaying import Verdict
from rlm_kernel.session.tracefiles import Checked, named_files
from rlm_kernel.session.tree import Tree, child_traces
from rlm_kernel.trace.calls import linked
from rlm_kernel.trace.document import ANSWER_CAP
from rlm_kernel.trace.prompts import open_prompts
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.schema import CallMeta

_PREVIEW = 150
"""Characters of a child's question by which its trace is known."""
_NO_SOURCES = "the report names a source file that is missing or has changed"
Tell = Callable[[Claim], None]


@dataclass(frozen=True)
class Verified:
    """What came of checking a trace.

    `claims`: each with its verdict; `seal`: that which the trace has, "" for none. `children`: the same of
    the traces of child RLMs.
    """

    trace: Path
    claims: Sequence[Claim]
    seal: str = ""
    children: Sequence[Verified] = ()

    @property
    def holds(self) -> bool:
        """Nothing is broken, here and in the children's traces."""
        return not self._verdicts() & {"broken"}

    @property
    def complete(self) -> bool:
        """All was checked, and holds."""
        return self._verdicts() <= {"holds"}

    def _verdicts(self) -> set[str]:
        return {claim.verdict for claim in self.claims}.union(*(child._verdicts() for child in self.children))

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm verify --json` prints."""
        return {
            "trace": str(self.trace),
            "holds": self.holds,
            "complete": self.complete,
            "seal": self.seal,
            "claims": [claim.as_json() for claim in self.claims],
            "children": [child.as_json() for child in self.children],
        }


@dataclass(frozen=True)
class _Given:
    """Where the files of the trace are: by name, or in these folders; `stop` is set when nobody waits."""

    files: Mapping[str, Path]
    folders: Sequence[Path]
    stop: threading.Event = field(default_factory=threading.Event)
    used: set[str] = field(default_factory=set)
    """Of `files` the names that a trace has."""

    def of(self, trace: TraceFile) -> dict[str, Path]:
        named = named_files(trace, self.files)
        known = {meta.path for meta in trace.meta.files}
        known |= {recorded(path).name for path in known}
        named = {name: place for name, place in named.items() if name in known}
        self.used.update(named)
        return in_folders(trace, self.folders) | named


@backstop
async def verify(
    path: Path,
    *,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
    folders: Sequence[Path] = (),
    cells: bool = True,
    seal: str = "",
    report: Path | None = None,
    tell: Tell = lambda _claim: None,
    view: Listener | None = None,
    say: Say = silent,
) -> Verified:
    """Check all that a trace says. No model is asked, and nothing is written.

    Args:
        path: of the trace.
        config_file: default `config.json` in the working directory, if it is there.
        changes: settings by dotted name, over those of the configuration.
        files: where the trace's files are now, by recorded path or name. Default: their recorded places.
        folders: where else they are looked for, by name.
        cells: run the cells again, in a fresh container, and compare what they give.
        seal: as it was noted elsewhere, or at least 12 characters of its beginning.
        report: a file that `rlm export` is said to have made of the trace (.html, .md or .jsonl).
        tell: hears each claim of this trace, as soon as it is checked.
        view: hears the events of the replay.
        say: hears what is being done, a line at a time.

    Raises:
        UsageError: there is no such trace or report, or a file is named that the trace does not have.
        SetupError, KernelError: the cells cannot be run here.
    """
    given = _Given(files or {}, folders)
    try:
        trace = await asyncio.to_thread(read_trace, path)
    except TraceError as error:
        found = claim("form", [error.message], "")
        tell(found)
        return Verified(path, [found])
    exported = "" if report is None else await asyncio.to_thread(read_report, report)
    claims: list[Claim] = []

    def add(found: Claim) -> None:
        claims.append(found)
        tell(found)

    loop = asyncio.get_running_loop()

    def soon(found: Claim) -> None:
        loop.call_soon_threadsafe(add, found)

    try:
        say("checking the trace …")
        later = cells and bool(of_kernels(trace))
        children, places = await asyncio.to_thread(_all, trace, given, seal, later, soon)
    finally:
        given.stop.set()
    if report is not None:
        found = await asyncio.to_thread(check_report, report, exported, trace, given.of(trace))
        gone = any(file.fault for file in places) and report.suffix.lower() != ".jsonl"
        add(not_checked("report", _NO_SOURCES) if gone and found.verdict == "broken" else found)
    if cells:
        again = _Cells(trace, claims, config_file, changes or {}, given.of(trace))
        found = await again.check(bool(children), view, say)
        if later:
            add(await asyncio.to_thread(check_evidence, trace, places, again.quoted))
        add(found)
    else:
        add(not_checked("cells", "they were not run again (--no-replay)"))
    return Verified(trace.path, claims, trace.meta.seal, children)


# What needs no kernel. Blocking


def _all(
    trace: TraceFile, given: _Given, seal: str, later: bool, tell: Tell
) -> tuple[list[Verified], list[Checked]]:
    """All claims of the topmost trace; those of its children are returned, and its files.

    `later`: its quotations are checked once a kernel has read the texts.
    """
    places: list[Checked] = []
    for found in _claims(trace, given, seal, places):
        if not (later and found.name == "evidence"):
            tell(found)
    children, faults = _Below(given, Tree.of(trace)).children(trace, ())
    for name in given.files.keys() - given.used:
        raise UsageError(
            f"The trace has no file {name}, or several files with this name.",
            hint=f"Its files: {', '.join(meta.path for meta in trace.meta.files) or 'none'}.",
        )
    if child_traces(trace):
        tell(claim("children", faults, f"{counted(len(children), 'trace')} of child RLMs"))
    return children, places


def _claims(
    trace: TraceFile, given: _Given, seal: str = "", places: list[Checked] | None = None
) -> Iterator[Claim]:
    """`places` is given the trace's files as they are now."""
    yield _form(trace)
    yield check_seal(trace, seal)
    found, files = check_files(trace, given.of(trace), given.stop)
    if places is not None:
        places += found
    yield files
    with open_prompts(trace) as prompts:
        yield check_prompts(trace, prompts)
        yield check_evidence(trace, found)
        yield check_account(trace)
        yield check_answer(trace)
        yield check_code(trace)
        yield check_shown(trace, prompts)


def _form(trace: TraceFile) -> Claim:
    meta = trace.meta
    state = "" if meta.status == "finished" else "; the run is in progress, or was cut off"
    return Claim("form", "holds", f"a trace of rlm_kernel {meta.rlm_version}{state}")


@dataclass(frozen=True)
class _Below:
    """The traces of child RLMs, from the topmost down."""

    given: _Given
    tree: Tree

    def children(self, trace: TraceFile, above: Collection[Path]) -> tuple[list[Verified], list[str]]:
        """Those of a trace with all their claims, and what is wrong with them in a line each."""
        around = {*above, trace.path.resolve()}
        found: list[Verified] = []
        faults: list[str] = []
        for path, calls in _asked(trace).items():
            name = f"{path.parent.name}/{path.name}"
            try:
                if path.resolve() in around:
                    raise TraceError("this trace of a child RLM is its own ancestor")
                child = self.tree.open(path, trace, len(around))
            except (TraceError, UsageError) as error:
                faults.append(f"{name}: {error.message}")
                continue
            if child is None:
                continue  # it was checked already
            claims = list(_claims(child, self.given))
            below, beneath = self.children(child, around)
            found.append(Verified(child.path, claims, child.meta.seal, below))
            broken = [f"{one.name}: {fault}" for one in claims for fault in one.faults]
            linked_wrong = [fault for call in calls for fault in _link(trace, call, child)]
            faults += [f"{name}: {fault}" for fault in [*linked_wrong, *broken]] + beneath
        return found, faults


def _asked(trace: TraceFile) -> dict[Path, list[CallMeta]]:
    """The calls that have a trace, by its path."""
    found: dict[Path, list[CallMeta]] = {}
    for cell in trace.cells:
        for call in linked(cell.meta) if cell.meta else ():
            found.setdefault(spelled(trace.path.parent / call.trace), []).append(call)
    return found


def _link(trace: TraceFile, call: CallMeta, child: TraceFile) -> Iterator[str]:
    """What parent and child do not say alike."""
    parent = child.meta.parent
    if parent is None:
        yield "it is not the trace of a child RLM"
    elif parent.session != trace.meta.session and not trace.meta.origins:
        yield f"it was started by the session {parent.session}, and not by {trace.meta.session}"
    if REDACTED not in call.preview and not child.meta.question.startswith(call.preview[:_PREVIEW]):
        yield f"its question is not that of the call {call.id}"
    given = next((cell.meta for cell in child.cells if cell.id == "answer" and cell.meta), None)
    if call.error is not None:
        return
    # Its marks are those of passages in the child's trace.
    said = None if given is None else without_marks(given.text, [one.evidence() for one in given.evidence])
    worded = isinstance(call.answer, str) and said is not None
    if worded and call.answer != said and REDACTED not in f"{said}{call.answer}":
        yield f"its answer is not the one that the call {call.id} has"
    yield from child_differs(call, child)


# The cells


@dataclass(frozen=True)
class _Cells:
    """The cells of a trace, run again."""

    trace: TraceFile
    claims: Sequence[Claim]
    config_file: Path | None
    changes: Mapping[str, Any]
    files: Mapping[str, Path]
    quoted: list[bool | None] = field(default_factory=list)
    """What the kernel says of quotations that only a kernel can look up, after `check`."""

    async def check(self, tree: bool, view: Listener | None, say: Say) -> Claim:
        if any(one.name == "files" and one.verdict == "broken" for one in self.claims):
            return not_checked("cells", "a file is missing or has changed")
        given: dict[str, str] = {}
        below = False

        def heard(verdict: Verdict, result: CellResult | None) -> None:
            if not below and result is not None and result.answer is not None:
                given[verdict.cell] = result.answer.text

        def begin(_child: Path) -> None:
            nonlocal below
            below = True

        try:
            replayed = await replay(
                self.trace.path,
                config_file=self.config_file,
                changes=self.changes,
                files=self.files,
                tree=tree,
                quotations=of_kernels(self.trace),
                tell=heard,
                begin=begin,
                view=view,
                say=say,
            )
        except SetupError as error:
            hint = f"{error.hint or ''} Without running the cells: rlm verify --no-replay".strip()
            raise type(error)(error.message, hint=hint) from error
        except (FileRefused, UsageError, TraceError) as error:
            return not_checked("cells", error.message)
        self.quoted.extend(replayed.quoted)
        faults = [*_not_the_same(replayed), *self._answer(given)]
        return claim("cells", faults, _same(replayed))

    def _answer(self, given: Mapping[str, str]) -> Iterator[str]:
        """Whether the cell that delivered the answer delivers it again."""
        cell, _ = delivering(self.trace)
        said = next((one.meta.text for one in self.trace.cells if one.id == "answer" and one.meta), None)
        if cell is None or said is None or cell.id not in given or REDACTED in said:
            return
        if given[cell.id][:ANSWER_CAP] != said:
            yield f"answer: {cell.id} delivers another: {given[cell.id][:80]!r}"


def _same(replayed: Replayed) -> str:
    everything = list(_tree(replayed))
    verdicts = [verdict for one in everything for verdict in one.verdicts]
    remarks = dict.fromkeys(remark for one in everything for remark in one.remarks)
    of = f" of {len(everything)} traces" if len(everything) > 1 else ""
    said = f"{counted(len(verdicts), 'cell')}{of} gave the same output again."
    return " ".join([said, *remarks]).removesuffix(".")


def _not_the_same(replayed: Replayed) -> Iterator[str]:
    for one in _tree(replayed):
        within = "" if one is replayed else f"{one.trace.name}: "
        for verdict in one.verdicts:
            if not verdict.good and not (verdict.verdict == "not run" and "no record" in verdict.detail):
                why = f": {verdict.detail}" if verdict.detail else ""
                seen = next(
                    (
                        line
                        for line in verdict.diff.splitlines()
                        if line[:1] in "+-" and line[:3] not in ("+++", "---")
                    ),
                    "",
                )
                shown = f" ({seen[:80]})" if seen else ""
                yield f"{within}{verdict.cell or 'the trace'}: {verdict.verdict}{why}{shown}"


def _tree(replayed: Replayed) -> Iterator[Replayed]:
    yield replayed
    for child in replayed.children:
        yield from _tree(child)

"""The claims of a trace that files decide: its inputs, and the quotations of its answer. Blocking."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rlm_kernel.engine.protocols import Evidence, counted
from rlm_kernel.errors import RLMError
from rlm_kernel.pathtext import recorded, spelled
from rlm_kernel.proof import quotes
from rlm_kernel.proof.claims import MOST_FAULTS, Claim, claim, not_checked
from rlm_kernel.session import tracefiles
from rlm_kernel.session.tracefiles import Checked
from rlm_kernel.trace.reader import TraceFile

_LINES = 64 << 20
"""Bytes of a changed file in which it is looked whether its line endings alone have changed."""
_MOST_PARTS = 64


def in_folders(trace: TraceFile, folders: Sequence[Path]) -> dict[str, Path]:
    """Where the files of a trace are below these folders: by as much of the recorded path as is there."""
    found: dict[str, Path] = {}
    for meta in trace.meta.files:
        parts = recorded(meta.path).parts[-_MOST_PARTS:]
        for folder in folders:
            tails = (folder.joinpath(*parts[at:]) for at in range(1 if len(parts) > 1 else 0, len(parts)))
            place = next((tail for tail in map(spelled, tails) if os.path.exists(tail)), None)
            if place is not None:
                found[meta.path] = place
                break
    return found


def check_files(
    trace: TraceFile, given: Mapping[str, Path], stop: threading.Event
) -> tuple[list[Checked], Claim]:
    """The files as they are now, and the claim `files`. Raises UsageError."""
    files = tracefiles.check_files(trace, given, stop)
    changed = [file for file in files if file.fault]
    faults = [file.fault + _only_lines(file) for file in changed[:MOST_FAULTS]]
    faults += [file.fault for file in changed[MOST_FAULTS:]]
    unknown = [file.meta.path for file in files if not file.fault and not file.proven]
    if faults or not unknown:
        said = f"{counted(len(files), 'file')} with the recorded sha256" if files else "there are none"
        return files, claim("files", faults, said)
    why = f"the trace has no sha256 of {unknown[0]}" + (
        f" and {len(unknown) - 1:,} more" if unknown[1:] else ""
    )
    return files, not_checked("files", why)


def _only_lines(file: Checked) -> str:
    """Git changes line endings as it checks files out, and nobody sees that."""
    meta, path = file.meta, file.path
    if path is None or meta.sha256 is None or meta.directory:
        return ""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= _LINES:
            plain = path.read_bytes().replace(b"\r\n", b"\n")
            if meta.sha256 in (_sha256(plain), _sha256(plain.replace(b"\n", b"\r\n"))):
                return " Only its line endings differ, as git's core.autocrlf changes them."
    return ""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def quotations(trace: TraceFile) -> list[tuple[str, Evidence]]:
    """Those of all answers, each with its cell."""
    return [
        (cell.id, one.evidence())
        for cell in trace.cells
        if cell.meta is not None and cell.kind == "answer"
        for one in cell.meta.evidence
    ]


def of_kernels(trace: TraceFile) -> list[Evidence]:
    """The quotations of texts that only a kernel can read."""
    return [one for _, one in quotations(trace) if one.unit != "bytes"]


def check_evidence(trace: TraceFile, files: Sequence[Checked], quoted: Sequence[bool | None] = ()) -> Claim:
    """The claim `evidence`: each quotation stands where it is said to.

    `quoted`: what a kernel says of those `of_kernels`.
    """
    given = quotations(trace)
    if not given:
        return Claim("evidence", "holds", "the answer has none")
    told = iter(quoted)
    faults: list[str] = []
    unread = 0
    for cell, one in given:
        if one.unit == "bytes":
            faults += [f"{cell}: {fault}" for fault in _fault(one, files)]
            continue
        stands = next(told, None)
        if found := list(_no_kernels(one, files)):
            faults += [f"{cell}: {fault}" for fault in found]
        elif stands is None:
            unread += 1
        elif not stands:
            faults.append(f"{cell}: [{one.mark}] does not stand there in the text of {one.path}")
    faults = faults or list(_other_lines(given, files))
    if not faults and unread == len(given):
        return not_checked("evidence", f"{counted(unread, 'quotation')} of texts that only a kernel can read")
    more = f"; {unread:,} of texts that only a kernel can read are not checked" if unread else ""
    return claim("evidence", faults, f"{counted(len(given) - unread, 'quotation')} verbatim{more}")


def _fault(evidence: Evidence, files: Sequence[Checked]) -> Iterator[str]:
    place = _place(evidence.path, files)
    if place is None:
        yield f"[{evidence.mark}] quotes {evidence.path}, which is no file of the trace, or is not there"
        return
    try:
        quotes.check(evidence, place)
    except RLMError as error:
        yield error.message


def _other_lines(given: Sequence[tuple[str, Evidence]], files: Sequence[Checked]) -> Iterator[str]:
    """Quotations in other lines than they say. Each file is read once."""
    said = [(cell, one) for cell, one in given if one.unit == "bytes" and one.line]
    for path in dict.fromkeys(one.path for _, one in said):
        if (place := _place(path, files)) is None:
            continue
        there = [(cell, one) for cell, one in said if one.path == path]
        lines = quotes.lines(place, sorted((one for _, one in there), key=lambda one: one.start))
        for cell, one in there:
            if lines.get(one.mark, one.line) != one.line:
                yield f"{cell}: [{one.mark}] stands in line {lines[one.mark]:,} of {path}, not {one.line:,}"


def _no_kernels(evidence: Evidence, files: Sequence[Checked]) -> Iterator[str]:
    """What is wrong with a quotation of a text that a kernel makes, as far as the host can tell."""
    if evidence.verdict != "unread" or evidence.line:
        yield f"[{evidence.mark}] counts characters, and says that the host has read it"
    place = _place(evidence.path, files)
    if place is None:
        yield f"[{evidence.mark}] quotes {evidence.path}, which is no file of the trace, or is not there"
    elif quotes.lacks(evidence.quote, place):
        yield f"[{evidence.mark}] stands nowhere in {evidence.path}, which is plain text"


def _place(path: str, files: Sequence[Checked]) -> Path | None:
    """Where a file of the trace is, or a member of one of its folders."""
    for file in files:
        if file.path is None:
            continue
        if file.meta.path == path:
            return file.path
        if file.meta.directory and recorded(path).is_relative_to(recorded(file.meta.path)):
            member = file.path.joinpath(*recorded(path).relative_to(recorded(file.meta.path)).parts)
            if member.resolve().is_relative_to(file.path.resolve()):
                return member
    return None

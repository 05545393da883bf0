"""Whether an exported file is what `rlm export` makes of a trace. Blocking."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.errors import UsageError
from rlm_kernel.proof.claims import Claim, claim
from rlm_kernel.proof.findings import Provenance
from rlm_kernel.proof.shown import difference
from rlm_kernel.session import documents
from rlm_kernel.session.sources import shown_with
from rlm_kernel.trace.plain import read_plain
from rlm_kernel.trace.reader import TraceFile

_ENDINGS = (".html", ".htm", ".md", ".markdown", ".jsonl")


def read_report(path: Path) -> str:
    """What an export says. Raises UsageError: there is no such file, or its name is of no export."""
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(
            f"rlm cannot tell from the name {path} what kind of export it is.",
            hint="The name of an export ends with .html, .md or .jsonl.",
        )
    try:
        raw = read_plain(path, follow=True)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="--report checks an existing export. To make one: rlm export --html TRACE -o FILE",
        ) from error
    # PowerShell's `>` writes UTF-16, and editors on Windows put a mark before UTF-8.
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if utf_16 else "utf-8-sig", "replace").replace("\r\n", "\n")


def check_report(path: Path, text: str, trace: TraceFile, files: Mapping[str, Path]) -> Claim:
    """The claim `report`.

    Args:
        path: Of the report.
        text: What it says, as `read_report` has read it.
        trace: What it is said to be made of.
        files: Where the trace's files are now, as far as they are not at their recorded places.
    """
    ending = path.suffix.lower()
    if ending == ".jsonl":
        return claim("report", _records(path, text, trace), f"{path.name} has the calls of the trace")
    make = documents.html if ending.startswith(".htm") else documents.markdown
    said = f"{path.name} is what this version exports from the trace"
    return claim("report", _document(path, text, trace, files, make), said)


def _document(
    path: Path,
    text: str,
    trace: TraceFile,
    files: Mapping[str, Path],
    make: Callable[[TraceFile, Provenance | None], str],
) -> list[str]:
    """The first line that is not as it would be, with where the answer comes from or, as `--no-sources` makes
    it, without; that of the one which is the same for longer.
    """
    found = _differing_line(text, make(trace, None))
    if found is not None:
        whole = _differing_line(text, make(trace, shown_with(trace, files)))
        found = None if whole is None else max(found, whole)
    return [] if found is None else [f"{path.name}: line {found[0]:,}: {found[1]}"]


def _differing_line(text: str, made: str) -> tuple[int, str] | None:
    """The number of the first line that is not as it was made, and what stands there."""
    pairs = itertools.zip_longest(text.rstrip("\n").split("\n"), made.rstrip("\n").split("\n"))
    differing = (
        (number, _differ(one, other)) for number, (one, other) in enumerate(pairs, 1) if one != other
    )
    return next(differing, None)


def _differ(one: str | None, other: str | None) -> str:
    return difference(one or "", other or "", "the trace gives")


def _records(path: Path, text: str, trace: TraceFile) -> list[str]:
    """The first line that is not as it would be; the calls may be those of root or sub models alone, or
    without those of children.
    """
    lines = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
    first: list[str] = []
    for children, only in itertools.product((True, False), (None, "root", "sub")):
        made = documents.records(trace, only, lambda _why: None, children=children)  # type: ignore[arg-type]
        found = next(_differing(path, lines, made), None)
        if found is None:
            return []
        first = first or [found]
    return first


def _differing(path: Path, lines: list[str], made: Iterator[dict[str, Any]]) -> Iterator[str]:
    for number, (line, record) in enumerate(itertools.zip_longest(lines, made), 1):
        if record is None:
            yield f"{path.name}: line {number:,}: the trace has no such call"
        elif line is None:
            where = f"{record['cell']} {record['id']}".rstrip()
            yield f"{path.name}: it ends before line {number:,}: call {where}"
        else:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                yield f"{path.name}: line {number:,} is not JSON"
                continue
            if found != json.loads(json.dumps(record)):
                fields = [
                    name for name in record if not isinstance(found, dict) or found.get(name) != record[name]
                ]
                where = f"{record['cell']} {record['id']}".strip()
                yield f"{path.name}: line {number:,} ({where}): {', '.join(fields) or 'other fields'}"

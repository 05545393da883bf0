"""What differs between two traces: what was asked, of what, what the cells and models gave, what it cost."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.engine.messages import output_text
from rlm_kernel.report import outline
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.reader import TraceCell, TraceFile

MOST_LINES = 200
"""Lines of one text that are shown of a difference."""
MOST_CALLS = 200
"""Calls that are named of each kind of difference."""
_ALIGNED = 1_000
"""Lines of each side that are aligned: aligning is not linear."""
_WIDTH = 400


@dataclass(frozen=True)
class Change:
    """A value that is not the same. None: there is none."""

    what: str
    one: Any
    other: Any


@dataclass(frozen=True)
class CellChange:
    """A cell that is not the same. `how`: added, gone or changed; `code` and `outputs`: lines of unified
    diffs.
    """

    cell: str
    turn: int
    how: str
    code: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CallChange:
    """Calls of the same prompt that are not the same. `how`: added, gone, or `answer`: another answer.

    `times`: so many of them.
    """

    how: str
    cell: str
    prompt: str
    one: str | None = None
    other: str | None = None
    times: int = 1


@dataclass(frozen=True)
class Difference:
    """All that differs.

    `same`: nothing that was asked, done or answered does. `beside`: image, limits, cost and time, which do
    not count for that.
    """

    changes: list[Change]
    cells: list[CellChange]
    calls: list[CallChange]
    more_calls: int
    answer: list[str]
    beside: list[Change]

    @property
    def same(self) -> bool:
        return not (self.changes or self.cells or self.calls or self.answer)

    def as_json(self) -> dict[str, Any]:
        """As `rlm diff --json` prints it."""

        def of(change: Change) -> dict[str, Any]:
            return {"what": change.what, "a": change.one, "b": change.other}

        return {
            "same": self.same,
            "changes": [of(one) for one in self.changes],
            "cells": [vars(one) for one in self.cells],
            "calls": [
                {
                    "how": one.how,
                    "cell": one.cell,
                    "prompt": one.prompt,
                    "a": one.one,
                    "b": one.other,
                    "times": one.times,
                }
                for one in self.calls
            ],
            "more_calls": self.more_calls,
            "answer": self.answer,
            "beside": [of(one) for one in self.beside],
        }


def difference(one: TraceFile, other: TraceFile) -> Difference:
    """What differs between two traces. Blocking."""
    calls = list(_calls(one, other))
    return Difference(
        list(_changes(one, other)),
        list(_cells(one, other)),
        calls[:MOST_CALLS],
        max(0, len(calls) - MOST_CALLS),
        unified(_answers(one), _answers(other)),
        list(_beside(one, other)),
    )


def _changes(one: TraceFile, other: TraceFile) -> Iterator[Change]:
    ours, theirs = one.meta, other.meta
    pairs: list[tuple[str, Any, Any]] = [
        ("question", ours.question.strip(), theirs.question.strip()),
        *(
            (f"model {name}", ours.models.get(name), theirs.models.get(name))
            for name in {**ours.models, **theirs.models}
        ),
        ("prompt", _prompt(one), _prompt(other)),
        *_files(one, other),
        ("end", _end(one), _end(other)),
    ]
    yield from (Change(*pair) for pair in pairs if pair[1] != pair[2])


def _by_name(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    return ((f"{what} {name}", one.get(name), other.get(name)) for name in {**one, **other})


def _prompt(trace: TraceFile) -> str:
    return f"{trace.meta.prompt_profile} {trace.meta.prompt_digest[:12]}"


def _end(trace: TraceFile) -> str:
    return outline.ending(trace.meta) or "answered"


def _files(one: TraceFile, other: TraceFile) -> Iterator[tuple[str, Any, Any]]:
    """Files by path; of one that is elsewhere now, with the same content, nothing differs."""
    ours, theirs = ({file.path: file for file in trace.meta.files} for trace in (one, other))
    alone = [
        {file.sha256 for file in mine.values() if file.path not in other_side}
        for mine, other_side in ((ours, theirs), (theirs, ours))
    ]
    moved = (alone[0] & alone[1]) - {None}
    for path in {**ours, **theirs}:
        here, there = ours.get(path), theirs.get(path)
        if here and there and here.sha256 and there.sha256:
            yield f"file {path}", f"sha256 {here.sha256}", f"sha256 {there.sha256}"
        elif (here or there).sha256 not in moved:  # type: ignore[union-attr]
            yield f"file {path}", here and f"{here.size:,} bytes", there and f"{there.size:,} bytes"


def _answers(trace: TraceFile) -> str:
    """The answers, each with its question where there are several."""
    found = outline.exchanges(trace)
    if len(found) <= 1:
        return (found[0].answer or "") if found else ""
    return "\n\n".join(f"{one.question}\n→ {one.answer or one.about}" for one in found)


def _cells(one: TraceFile, other: TraceFile) -> Iterator[CellChange]:
    ours, theirs = ({cell.id: cell for cell in trace.code_cells} for trace in (one, other))
    for name in {**ours, **theirs}:
        here, there = ours.get(name), theirs.get(name)
        if here is None or there is None:
            cell = here or there
            assert cell is not None
            code = unified(here.source if here else "", there.source if there else "")
            yield CellChange(name, cell.turn, "gone" if there is None else "added", code)
            continue
        code = unified(here.source, there.source) if here.source != there.source else []
        outputs: list[str] = []
        if compare(_ran(here), _ran(there)):
            outputs = unified(_shown(here), _shown(there)) or ["outputs differ in parts that are not text"]
        if code or outputs:
            yield CellChange(name, here.turn, "changed", code, outputs)


def _ran(cell: TraceCell) -> Ran:
    return Ran(cell.outputs, cell.started, cell.meta.seconds if cell.meta else None)


def _shown(cell: TraceCell) -> str:
    """Outputs as text; pictures by their digests."""
    lines = [output_text(cell.outputs)]
    for output in cell.outputs:
        data = output.get("data")
        for kind, value in data.items() if isinstance(data, Mapping) else ():
            if kind.startswith("image/"):
                text = "".join(value) if isinstance(value, list) else str(value)
                lines.append(f"[{kind} sha256 {_digest(text)}]")
    return "\n".join(lines)


_Key = tuple[str, str, str]
_Asked = tuple[str, str, str]
"""A call: cell, prompt and answer, both short."""


def _calls(one: TraceFile, other: TraceFile) -> Iterator[CallChange]:
    """By what was asked, of which model: how often, and whether the answers are the same."""
    ours, theirs = _by_prompt(one), _by_prompt(other)
    for key in {**ours, **theirs}:
        here, there = ours.get(key, []), theirs.get(key, [])
        cell, prompt, _ = (here or there)[0]
        before, after = (Counter(answer for _, _, answer in side) for side in (here, there))
        gone, new = list((before - after).elements()), list((after - before).elements())
        pairs = min(len(gone), len(new))
        if pairs:
            yield CallChange("answer", cell, prompt, gone[0], new[0], pairs)
        if len(gone) > pairs:
            yield CallChange("gone", cell, prompt, gone[-1], None, len(gone) - pairs)
        if len(new) > pairs:
            yield CallChange("added", there[0][0], prompt, None, new[-1], len(new) - pairs)


def _by_prompt(trace: TraceFile) -> dict[_Key, list[_Asked]]:
    found: dict[_Key, list[_Asked]] = defaultdict(list)
    for cell in trace.code_cells:
        for call in outline.calls_of(cell):
            short = cell.id, outline.one_line(call.preview, 200), _short(outline.answer_text(call))
            found[call.kind, call.role, call.prompt_digest].append(short)
    return found


def _short(text: str) -> str:
    """An answer; a long one so that another with the same beginning is another."""
    if len(text) <= 200:
        return outline.one_line(text, 200)
    return f"{outline.one_line(text, 160)} ({len(text):,} characters, sha256 {_digest(text)})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def _beside(one: TraceFile, other: TraceFile) -> Iterator[Change]:
    ours, theirs = one.spent(), other.spent()
    pairs = [
        ("image", one.meta.image_digest, other.meta.image_digest),
        *_by_name("limit", one.meta.limits, other.meta.limits),
        ("turns", ours.turns, theirs.turns),
        ("calls", ours.calls, theirs.calls),
        ("tokens", ours.usage.total, theirs.usage.total),
        ("cost", ours.cost, theirs.cost),
        ("seconds", round(ours.seconds, 1), round(theirs.seconds, 1)),
    ]
    yield from (Change(*pair) for pair in pairs if pair[1] != pair[2])


def unified(one: str, other: str) -> list[str]:
    """Lines of a unified diff, without its head; at most MOST_LINES. Empty for the same text."""
    if one == other:
        return []
    ours, theirs = one.splitlines(), other.splitlines()
    top = _alike(ours, theirs)
    bottom = _alike(ours[top:][::-1], theirs[top:][::-1])
    start = max(0, top - 3)
    parts = [lines[start : min(len(lines), len(lines) - bottom + 3)] for lines in (ours, theirs)]
    here, there = ([_line(text) for text in lines[:_ALIGNED]] for lines in parts)
    found = list(difflib.unified_diff(here, there, n=3, lineterm=""))[2:]
    lines = [_placed(line, start) for line in found]
    left = max(0, len(lines) - MOST_LINES) + sum(max(0, len(lines) - _ALIGNED) for lines in parts)
    if not lines:  # they differ beyond what a line shows, or in how lines end
        lines = ["@@ the texts differ in parts that are not shown @@"]
    return [*lines[:MOST_LINES], *([f"… {left:,} more lines may differ"] if left else [])]


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))


def _line(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}… (sha256 {_digest(text)})"


def _placed(line: str, start: int) -> str:
    """A line of a diff; the numbers of a hunk as they are in the whole text."""
    if not (line.startswith("@@ ") and start):
        return line
    parts = line.split(" ")
    for at in (1, 2):
        number, comma, count = parts[at][1:].partition(",")
        parts[at] = f"{parts[at][0]}{int(number) + start}{comma}{count}"
    return " ".join(parts)

"""Whether a replayed cell gave what the trace recorded, and a readable diff where it did not."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from typing import Any

from rlm_kernel import sanitize
from rlm_kernel.trace.nondeterminism import Run, difference, masked
from rlm_kernel.trace.taken import STOPPED

MAX_LINES = 60
"""Lines of a diff."""
MAX_WIDTH = 160
"""Characters of a line of a diff."""
_PART_LINES = 28
_ALIGNED = 200
"""Lines of each side, from the first that differs, that are aligned for the diff: aligning is not linear."""
_LONG = 2_000
"""Characters beyond which a line is aligned as it is."""
_CONTEXT = 2
_BESIDE = 60
"""Characters of a long line that are shown before the place where it differs."""
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "�")
_Value = str | bytes
"""Text is compared without what must differ; bytes are compared as they are."""


@dataclass(frozen=True)
class Ran:
    """What a cell gave: its `outputs` (nbformat dicts), when it `started` and how many `seconds` it took,
    None where unknown.
    """

    outputs: Sequence[Mapping[str, Any]]
    started: datetime | None = None
    seconds: float | None = None

    @property
    def run(self) -> Run:
        return Run(self.started, self.seconds)


def compare(recorded: Ran, replayed: Ran) -> str | None:
    """None where the outputs are the same but for what must differ; else a diff of at most 60 lines.

    Times count as what must differ where they lie in the run of their own side; so give both sides' runs.
    """
    ours, theirs = _parts(recorded.outputs), _parts(replayed.outputs)
    if ours == theirs:
        return None
    blocks = []
    for title in ours | theirs:
        one, other = ours.get(title), theirs.get(title)
        if one != other:
            blocks.append(list(_block(title, one, recorded.run, other, replayed.run)))
    return _bounded([block for block in blocks if block])


def _bounded(blocks: Sequence[Sequence[str]]) -> str | None:
    if not blocks:
        return None
    lines = ["--- recorded", "+++ replayed"]
    for number, block in enumerate(blocks):
        shown = (
            list(block)
            if len(block) <= _PART_LINES
            else [*block[:_PART_LINES], f"… {len(block) - _PART_LINES:,} more lines"]
        )
        if len(lines) + len(shown) >= MAX_LINES:
            lines.append(f"… {len(blocks) - number:,} more outputs differ")
            break
        lines += shown
    return "\n".join(line.translate(_CONTROL) for line in lines)


# Outputs as named parts


def _parts(outputs: Sequence[Any]) -> dict[str, _Value]:
    """By name: all text of stdout, all of stderr, and of each other output what it holds, kind by kind."""
    chunks: dict[str, list[str]] = {"stdout": [], "stderr": []}
    parts: dict[str, _Value] = {}
    number = 0
    for output in outputs:
        if not isinstance(output, Mapping):
            output = {"output_type": type(output).__name__, "value": output}
        kind = _text(output.get("output_type"))
        if kind == "stream":
            chunks["stderr" if output.get("name") == "stderr" else "stdout"].append(_text(output.get("text")))
            continue
        number += 1
        output = sanitize.output(output)  # as the recording has been made
        parts |= {f"output {number} ({kind}){name}": value for name, value in _contents(kind, output)}
    joined = {name: "".join(texts) for name, texts in chunks.items()}
    return {name: text for name, text in joined.items() if text} | parts


def _contents(kind: str, output: Mapping[str, Any]) -> Iterator[tuple[str, _Value]]:
    if kind == "error":
        headline = f"{_text(output.get('ename'))}: {_text(output.get('evalue'))}"
        if output.get("ename") == STOPPED:  # where in its code a cell was stopped is a matter of time
            yield "", headline
            return
        traceback = output.get("traceback")
        text = "\n".join(map(_text, traceback)) if isinstance(traceback, list) else _text(traceback)
        yield "", text if headline in text else f"{headline}\n{text}"
    elif kind in ("display_data", "execute_result"):
        data = output.get("data")
        for mime, value in data.items() if isinstance(data, Mapping) else [("", data)]:
            yield f" {_text(mime)}", _value(_text(mime), value)
        metadata = output.get("metadata")
        if isinstance(metadata, Mapping) and any(metadata.values()):
            yield " metadata", _text(metadata)
    else:
        yield (
            "",
            _text({name: value for name, value in output.items() if name not in ("output_type", "metadata")}),
        )


def _value(mime: str, value: Any) -> _Value:
    if mime.endswith("json"):
        return value if isinstance(value, str) else _json(value)
    text = _text(value)
    if (
        mime.startswith("text/")
        or mime.endswith(("xml", "javascript", "latex"))
        or not isinstance(value, str | list)
    ):
        return text
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return text.encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    """A string as nbformat may hold it, in one or in lines; anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return "" if value is None else _json(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return f"({type(value).__name__} number {id(value)}, which is no JSON)"  # the same as itself alone


# Differences


def _block(
    title: str, one: _Value | None, one_run: Run, other: _Value | None, other_run: Run
) -> Iterator[str]:
    """The lines on a part that differs; none if it differs only in what must."""
    title = _cut(title, 0)
    if isinstance(one, bytes) or isinstance(other, bytes):
        about = " / ".join(_about(value) for value in (one, other))
        yield f"{title} differs ({about})"
        return
    ours, theirs = (_lines(text) if text is not None else [] for text in (one, other))
    shorter = min(len(ours), len(theirs))
    top = 0
    while top < shorter and difference(ours[top], one_run, theirs[top], other_run) is None:
        top += 1
    if top == len(ours) == len(theirs):
        return
    bottom = 0
    while (
        bottom < shorter - top
        and difference(ours[-1 - bottom], one_run, theirs[-1 - bottom], other_run) is None
    ):
        bottom += 1
    yield title + (
        ": only in the replay" if one is None else ": only in the recording" if other is None else ""
    )
    start = max(0, top - _CONTEXT)
    ends = [min(len(lines) - bottom + _CONTEXT, len(lines)) for lines in (ours, theirs)]
    shown = [min(end, start + _ALIGNED) for end in ends]
    yield from _hunks(ours[start : shown[0]], one_run, theirs[start : shown[1]], other_run, start)
    left = [end - limit for end, limit in zip(ends, shown, strict=True)]
    if any(left):
        yield f"… {left[0]:,} more lines of the recording and {left[1]:,} of the replay may differ"


def _about(value: _Value | None) -> str:
    if value is None:
        return "missing"
    if isinstance(value, str):
        return f"{len(value):,} characters of text"
    return f"{len(value):,} bytes, sha256 {hashlib.sha256(value).hexdigest()[:12]}…"


def _lines(text: str) -> list[str]:
    """Lines as they would stand in a terminal: without codes, and of a line that was rewritten the last
    form.
    """
    plain = _ANSI.sub("", text).replace("\r\n", "\n")
    return [line.rstrip("\r").rsplit("\r", 1)[-1] for line in plain.split("\n")]


def _hunks(ours: list[str], one_run: Run, theirs: list[str], other_run: Run, start: int) -> Iterator[str]:
    shared = set(ours) & set(theirs)  # the same text is the same, even if a time in it lies in one run alone
    keys = [
        [line if line in shared or len(line) > _LONG else masked(line, run) for line in lines]
        for lines, run in ((ours, one_run), (theirs, other_run))
    ]
    for group in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_grouped_opcodes(_CONTEXT):
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        yield f"@@ -{start + i1 + 1},{i2 - i1} +{start + j1 + 1},{j2 - j1} @@"
        for tag, a1, a2, b1, b2 in group:
            if tag == "equal":
                yield from (f" {_cut(line, 0)}" for line in ours[a1:a2])
            elif a2 - a1 == b2 - b1:
                yield from _pairs(ours[a1:a2], one_run, theirs[b1:b2], other_run)
            else:
                yield from (f"-{_cut(line, 0)}" for line in ours[a1:a2])
                yield from (f"+{_cut(line, 0)}" for line in theirs[b1:b2])


def _pairs(ours: list[str], one_run: Run, theirs: list[str], other_run: Run) -> Iterator[str]:
    """Lines that stand against each other, each cut so that the place where they differ is seen."""
    for one, other in zip(ours, theirs, strict=True):
        place = difference(one, one_run, other, other_run)
        if place is None:
            yield f" {_cut(one, 0)}"
        else:
            yield f"-{_cut(one, place[0])}"
            yield f"+{_cut(other, place[1])}"


def _cut(line: str, place: int) -> str:
    room = MAX_WIDTH - 3  # a sign, and an ellipsis on each side
    if len(line) <= room:
        return line
    start = min(max(0, place - _BESIDE), len(line) - room)
    return f"{'…' if start else ''}{line[start : start + room]}{'…' if start + room < len(line) else ''}"

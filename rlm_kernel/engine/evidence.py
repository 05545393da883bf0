"""What is told of evidence, and what becomes of it where an answer is handed on."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from rlm_kernel.engine.values import Evidence
from rlm_kernel.errors import UsageError

Check = Callable[[Sequence[Evidence]], Sequence[Evidence]]
"""Checks evidence: as it is then known."""
_LEAST = 20
"""Characters of a quotation that are shown, however long the name of its file is."""
_MARK = re.compile(r" ?\[(\d{1,7})\]")


def places_of(evidence: Sequence[Evidence]) -> list[str]:
    """Where each passage stands, for people: `app.log:4812`, with as much of the path as tells files apart;
    by bytes or characters where the line is not known.
    """
    names = _names({one.path for one in evidence})
    return [
        f"{names[one.path]}:{one.line}"
        if one.line
        else f"{names[one.path]}, {one.unit} {one.start:,} to {one.end:,}"
        for one in evidence
    ]


def _names(paths: set[str]) -> dict[str, str]:
    """The last parts of each path, as many as no other path ends with."""
    parts = {path: [part for part in re.split(r"[\\/]+", path) if part] or [path] for path in paths}
    sizes = dict.fromkeys(paths, 1)
    for size in range(1, max(map(len, parts.values()), default=1)):
        same = defaultdict(list)
        for path in paths:
            if sizes[path] == size:
                same["/".join(parts[path][-size:])].append(path)
        for alike in same.values():
            if len(alike) > 1:
                sizes |= dict.fromkeys(alike, size + 1)
    return {path: "/".join(parts[path][-sizes[path] :]) for path in paths}


def without_marks(value: Any, evidence: Sequence[Evidence]) -> Any:
    """An answer's text or data without the marks of its evidence: where it is handed on they would be those
    of other passages.
    """
    marks = {str(one.mark) for one in evidence}
    if not marks:
        return value
    if isinstance(value, str):
        return _MARK.sub(lambda found: "" if found[1] in marks else found[0], value)
    if isinstance(value, list):
        return [without_marks(item, evidence) for item in value]
    if isinstance(value, dict):
        return {without_marks(key, evidence): without_marks(item, evidence) for key, item in value.items()}
    return value


_MORE = {"verbatim": "", "unread": " (not read by the host)"}


def listed(evidence: Sequence[Evidence], width: int = 100) -> list[str]:
    """A line for each passage, cut to the width: `[1] app.log:4812 "0812 ERROR the pump …"`."""
    lines = []
    for one, where in zip(evidence, places_of(evidence), strict=True):
        head, quote, more = f"[{one.mark}] {where} ", " ".join(one.quote.split()), _MORE[one.verdict]
        room = max(_LEAST, width - len(head) - len(more) - 2)
        lines.append(f'{head}"{quote if len(quote) <= room else f"{quote[: room - 1]}…"}"{more}')
    return lines


def as_json(one: Evidence) -> dict[str, Any]:
    """A passage as the JSON that programs get has it."""
    return asdict(one)


def final_body(characters: int, evidence: Sequence[Evidence] = ()) -> dict[str, Any]:
    """What the digest of a delivered answer covers: its length, and its evidence as the kernel gave it, so
    without what the host has found.
    """
    said: dict[str, Any] = {"characters": characters}
    if evidence:
        given = [asdict(replace(one, verdict="unread", line=0)) for one in evidence]
        said["evidence"] = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    return said


def none_taken(_evidence: Sequence[Evidence]) -> Sequence[Evidence]:
    """Where a session takes none."""
    raise UsageError("This session takes no evidence: deliver the answer without cite().")

"""Whether a trace is as it was when it was sealed, and if not, which of its parts are others.

The seal itself is made in `trace.sealed`, when the trace is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.proof.claims import Claim, claim, not_checked
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.sealed import NOTED, Sealed, is_noted_elsewhere, sealed_node

_WHAT = {"missing": "is not there", "unreadable": "cannot be read", "without a seal": "has no seal"}
_SHORT = 60
"""Characters of a name that are told."""


def seal_of(node: Any, path: Path) -> str:
    """The seal of a notebook (nbformat 4) that stands at `path`: sha256, hex. Blocking."""
    return sealed_node(node, path).seal


def check_seal(trace: TraceFile, noted: str = "") -> Claim:
    """The claim `seal`. Blocking.

    Args:
        trace: With its seal, or without.
        noted: The seal as it was noted elsewhere, or its beginning; "" for none.
    """
    meta = trace.meta
    now = sealed_node(trace.node, trace.path)
    if noted and not is_noted_elsewhere(now.seal, noted):
        other = f"the seal that was given is {noted[:64]}; that of this content is {now.seal}"
        return claim("seal", [other, *_changed(meta.sealed, now)], "")
    if not meta.seal:
        if noted:
            return Claim("seal", "holds", "the content has the seal that was given")
        return not_checked("seal", _without(trace))
    if now.seal != meta.seal:
        changed = list(_changed(meta.sealed, now))
        return claim("seal", changed or ["the content is not that which was sealed"], "")
    if list(now.noted()) != meta.sealed:
        return claim("seal", ["metadata.rlm.sealed was edited; the content was not"], "")
    return Claim("seal", "holds", f"{meta.seal}{', as it was given' if noted else ''}")


def _without(trace: TraceFile) -> str:
    if trace.meta.status == "running":
        return "the run is in progress, or was cut off: a trace is sealed when it is closed"
    return "the trace has no seal: it was written by an older version, or somebody took the seal out"


def _changed(noted: list[str], now: Sealed) -> Iterator[str]:
    """What is not as it was, by the parts that are noted beside the seal."""
    then = dict(line.rpartition(" ")[::2] for line in noted)
    if not then:
        return
    names = {name: digest[:NOTED] for name, digest in now.parts.items()}
    for name in then:
        if name not in names:
            yield f"{_named(name)} is gone"
        elif then[name] != names[name]:
            yield f"{_named(name)} {_WHAT.get(now.parts[name], 'was changed')}"
    yield from (f"{_named(name)} was added" for name in names if name not in then)
    if then.keys() == names.keys() and then == names and list(then) != list(names):
        yield from _moved(list(then), names)


def _moved(then: list[str], now: Mapping[str, str]) -> Iterator[str]:
    seen = dict.fromkeys(name.rpartition(" ")[0] for name in then)
    for before, after in zip(seen, dict.fromkeys(name.rpartition(" ")[0] for name in now), strict=False):
        if before != after:
            yield f"{after[:_SHORT]} stands where {before[:_SHORT]} stood"


def _named(part: str) -> str:
    kind, _, rest = part.partition(" ")
    if kind == "notebook":
        return f"metadata.rlm.{rest[:_SHORT]}"
    if part == "prompts":
        return "the file of prompts"
    if kind == "child":
        return f"the trace of the child RLM {rest[:200]}"
    what = {"text": "the text", "outputs": "what it gave", "record": "the record"}.get(rest, rest[:_SHORT])
    return f"{kind[:64]}: {what}"

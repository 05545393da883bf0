"""A trace with its children as one document, or as the calls in it. Blocking."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.pathtext import seen_from
from rlm_kernel.proof.findings import Provenance
from rlm_kernel.session.tree import with_children
from rlm_kernel.trace.prompts import open_prompts
from rlm_kernel.trace.reader import TraceFile

if TYPE_CHECKING:
    from rlm_kernel.report.jsonl import Only

MOST_CHILDREN = 1_000
"""Traces of children that are read for one document."""


def html(trace: TraceFile, found: Provenance | None = None) -> str:
    """One web page with the whole tree of child RLMs; `found`: with where its answer comes from."""
    from rlm_kernel.report import html as page

    children, lost = _children(trace)
    return page.html(trace, children, lost, found)


def markdown(trace: TraceFile, found: Provenance | None = None) -> str:
    """One Markdown document, which tells the child RLMs by question and answer; `found`: as of `html`."""
    from rlm_kernel.report import markdown as document

    return document.markdown(trace, _children(trace)[0], found)


def records(
    top: TraceFile, only: Only | None, lost: Callable[[str], None], *, children: bool
) -> Iterator[dict[str, Any]]:
    """The calls of models, one object each; with `children` those of the whole tree. `lost` hears what is
    missing.
    """
    from rlm_kernel.report import jsonl

    for one in with_children(top, lost) if children else [top]:
        name = Path(seen_from(one.path, top.path.parent)).as_posix()
        with open_prompts(one) as prompts:
            yield from jsonl.records(one, prompts, name, only)
            if prompts.trouble:
                lost(f"{name}: {prompts.trouble}.")


def _children(trace: TraceFile) -> tuple[list[TraceFile], list[str]]:
    """The traces beneath this one, and why others could not be read."""
    lost: list[str] = []
    below = itertools.islice(with_children(trace, lost.append), 1, MOST_CHILDREN + 2)
    found = list(below)
    if len(found) > MOST_CHILDREN:
        found.pop()
        lost.append(f"More than {MOST_CHILDREN:,} child RLMs belong to this run; the others are not shown.")
    return found, lost

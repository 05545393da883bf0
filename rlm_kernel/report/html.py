"""A trace as one web page (`report.webpage`). What it is given as HTML comes from `report.markup` alone."""

from __future__ import annotations

from collections.abc import Sequence

from rlm_kernel.proof.findings import Provenance
from rlm_kernel.report import markup, webpage
from rlm_kernel.report.parts import Page
from rlm_kernel.report.sourcelinks import SourceLinks
from rlm_kernel.trace.reader import TraceFile


def html(
    trace: TraceFile,
    children: Sequence[TraceFile] = (),
    lost: Sequence[str] = (),
    found: Provenance | None = None,
) -> str:
    """The page.

    Args:
        trace: The trace of the run.
        children: Those of the child RLMs beneath it, each behind the one that asked for it.
        lost: Why the traces of others could not be read.
        found: Where the run's answer and prompts come from.
    """
    page = Page(trace, children, SourceLinks(trace, found) if found else None)
    return "".join(
        webpage.page(
            "page.html",
            style=webpage.file("style.css") + markup.code_styles(),
            script=webpage.file("search.js"),
            page=page,
            runs=list(page.runs()),
            lost=[markup.plain(why) for why in lost],
        )
    )

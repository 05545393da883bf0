"""A trace as one web page: safe, complete without scripts, with nothing to fetch.

All that models, cells and files have said is hostile. The template escapes what it is given; what it is given
as HTML comes from `report.markup` alone. Should anything slip through, the page's policy
(Content-Security-Policy) lets nothing run but the page's own script, by its digest, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from rlm_kernel.proof.findings import Provenance
from rlm_kernel.report import markup, outline
from rlm_kernel.report.parts import Page, safe
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
    style, script = _file("style.css") + markup.code_styles(), _file("search.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return str(
        _template().render(
            page=page,
            runs=list(page.runs()),
            lost=[markup.plain(why) for why in lost],
            style=safe(style),
            script=safe(script),
            policy=policy,
        )
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return (resources.files("rlm_kernel.report") / "page" / name).read_text("utf-8")


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals |= {"seconds": outline.seconds, "money": outline.money, "plain": markup.plain}
    return environment.from_string(_file("page.html"))

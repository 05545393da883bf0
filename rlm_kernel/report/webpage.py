"""What the web pages have in common: they are safe, complete without scripts, with nothing to fetch.

What is on them is hostile. Their templates escape what they are given. Should anything slip through, a page's
policy (Content-Security-Policy) lets nothing run but the page's own script, by its digest, and nothing be
fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from rlm_kernel.report import markup, outline


def page(template: str, *, style: str, script: str, **values: Any) -> Iterator[str]:
    """A page in pieces, as they are made: the template of this name with these values, its own style sheet
    and script, and the policy for them.
    """
    from markupsafe import Markup

    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    made = _template(template).generate(**values, style=Markup(style), script=Markup(script), policy=policy)
    yield from made


def file(name: str) -> str:
    """A file of ours for a page."""
    return (resources.files("rlm_kernel.report") / "page" / name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(file),
    )
    environment.globals |= {"seconds": outline.seconds, "money": outline.money, "plain": markup.plain}
    return environment.get_template(name)

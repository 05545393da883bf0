"""An answer for people who see it in a notebook: as HTML and as Markdown in which nothing runs or fetches
anything.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from rlm_kernel import sanitize

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

SHOWN = 20_000
"""Characters of an answer that a notebook shows."""
_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_MARKS = re.compile(r"([\\`*_>\[\]$#|~+-])")


def as_html(text: str, elsewhere: str = "") -> str:
    """Markdown as HTML. `elsewhere`: where the rest is of one that is too long, in words."""
    shown = _markdown().render(cut(text, elsewhere)).translate(sanitize.TURNING)
    return f"<div {sanitize.NO_MATH}>{shown}</div>"


def as_markdown(text: str, elsewhere: str = "") -> str:
    """Markdown without pictures and HTML; one line is a value, and stands as it is."""
    shown = cut(text, elsewhere)
    if "\n" not in shown:
        shown = _MARKS.sub(r"\\\1", shown)
    return sanitize.markdown(shown)


def cut(text: str, elsewhere: str) -> str:
    """The beginning of a long text, and a word on where the rest is."""
    if len(text) <= SHOWN:
        return text
    more = f"… {len(text) - SHOWN:,} more characters{elsewhere}."
    # A fence that is open at the cut would take the word in.
    begun = text[:SHOWN]
    fences = re.findall(r"^[ \t]*(`{3,}|~{3,})", begun, re.MULTILINE)
    return "\n\n".join([f"{begun}\n{fences[-1]}" if len(fences) % 2 else begun, more])


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    reader.disable("image")  # it would be fetched
    reader.validateLink = lambda url: bool(_LINK.match(url))  # type: ignore[method-assign]
    return reader

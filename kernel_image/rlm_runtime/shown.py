"""A display as text, where its own text says nothing: the model that reads the outputs sees no HTML and no
pictures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

_OPAQUE = re.compile(r"<[\w.]+( object)?( at 0x[0-9a-f]+)?>")
"""What an object is called that has no text of its own."""
_LINES = frozenset(
    {
        "p",
        "div",
        "br",
        "tr",
        "li",
        "table",
        "caption",
        "pre",
        "ul",
        "ol",
        "dl",
        "dt",
        "dd",
        "hr",
        "blockquote",
    }
)
_HIDDEN = frozenset({"script", "style", "head", "title"})
_READ = 1_000_000
"""Characters of HTML that are looked at."""


def text_of(data: Mapping[str, Any]) -> str | None:
    """What a display says, by its representations; None where its `text/plain` says it already, or nothing
    does.
    """
    plain = data.get("text/plain")
    if isinstance(plain, str) and plain and not _OPAQUE.fullmatch(plain):
        return None
    for kind in ("text/markdown", "text/latex"):
        if isinstance(data.get(kind), str):
            return str(data[kind])
    if isinstance(html := data.get("text/html"), str):
        return html_text(html) or None
    if "application/json" in data:
        return json.dumps(data["application/json"], ensure_ascii=False, default=str)
    return None


def html_text(html: str) -> str:
    """The words of HTML: blocks on lines of their own, cells of a table between bars."""
    reader = _Reader()
    reader.feed(html[:_READ])
    reader.close()
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0
        self._cells = 0
        self._as_it_is = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in _HIDDEN
        self._as_it_is += tag == "pre"
        if tag in _LINES or re.fullmatch(r"h[1-6]", tag):
            self.parts.append("\n")
            self._cells = 0
        elif tag in ("td", "th"):
            self.parts.append(" | " if self._cells else "")
            self._cells += 1

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in _HIDDEN and self._hidden > 0
        self._as_it_is -= tag == "pre" and self._as_it_is > 0
        if tag in _LINES or re.fullmatch(r"h[1-6]", tag):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data if self._as_it_is else re.sub(r"\s+", " ", data))

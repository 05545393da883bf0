"""Sanitizing hostile text for whoever opens a trace: nothing in it may run, or fetch anything.

Programs that show notebooks load the pictures that Markdown and HTML name: an address that code in the kernel
made up would tell somebody that the trace was opened, and whatever stands in the address. What is not allowed
is shown as the text that it is.

Parsers of HTML that build a tree take time with the square of the depth: nh3 (0.3.8) takes 38 s of CPU for
400 KB of nested `<div>`, which this reads in 0.2 s. The output of a cell may be made to do that, so it is
read here tag by tag, without a tree.
"""

from __future__ import annotations

import html as html_escapes
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

HTML_CAP = 500_000
"""Characters beyond which HTML is not shown as such."""
TURNING = dict.fromkeys((0x61C, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}")
"""Bidi controls (for `str.translate`), which show a text in another order than it has."""
NO_MATH = 'class="tex2jax_ignore mathjax_ignore"'
"""Programs that show notebooks take what stands between two dollar signs for a formula, but not in such."""
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])")
_DIAGRAM = re.compile(r"(?<![`~])([`~]{3,}+)[ \t]*+(?=mermaid|\w*+&)", re.IGNORECASE)
"""A fence of a Mermaid diagram, which may hold pictures; an entity may spell the same."""
_TAG = re.compile(
    r"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]*+)"
    r"(?P<rest>(?:\s++[A-Za-z][A-Za-z-]*+(?:=(?:\"[^\"<>]*+\"|'[^'<>]*+'|[^\s\"'<>=`]++))?+)*+)\s*+/?>"
)
_ATTRIBUTE = re.compile(r"([A-Za-z][A-Za-z-]*+)=(?:\"([^\"<>]*+)\"|'([^'<>]*+)'|([^\s\"'<>=`]++))")
_TAGS = {
    "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "div", "dl", "dt",
    "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "ins", "kbd", "li", "mark", "ol", "p", "pre", "q",
    "s", "samp", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "tt", "u", "ul", "var", "wbr",
}  # fmt: skip
_ATTRIBUTES = {
    "align": re.compile(r"left|right|center"),
    "border": re.compile(r"\d{1,2}"),
    "class": re.compile(r"dataframe"),
    "colspan": re.compile(r"\d{1,4}"),
    "open": re.compile(r""),
    "rowspan": re.compile(r"\d{1,4}"),
    "scope": re.compile(r"col|row"),
    "style": re.compile(r"text-align: ?(?:left|right|center);?"),
}
_OURS = "rlm"
"""The mark of outputs that the trace's writer makes (`trace.parts`)."""
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*+")
_STYLE, _STYLE_END = re.compile(r"<style(?=[\s>])", re.IGNORECASE), re.compile(r"</style\s*+>", re.IGNORECASE)


def markdown(text: str) -> str:
    """Markdown without pictures, HTML and diagrams. Sanitized twice it is the same as once."""
    plain = _MARKUP.sub("&lt;", text.translate(TURNING)).replace("![", "!&#91;")
    return _DIAGRAM.sub(r"\1text ", plain)


def html(text: str) -> str:
    """HTML of text and tables alone: a few tags with hardly an attribute.

    Style sheets go, all else is shown as text. As `markdown`, the same if done twice.
    """
    shown, place = [], 0
    text = _without_styles(text.translate(TURNING))
    for tag in _TAG.finditer(text):
        if tag["name"].lower() in _TAGS:
            shown += [text[place : tag.start()].replace("<", "&lt;"), _tag(tag)]
            place = tag.end()
    return "".join([*shown, text[place:].replace("<", "&lt;")])


def text(shown: str) -> str:
    """A text as HTML that shows it."""
    return html_escapes.escape(shown.encode("utf-8", "replace").decode().translate(TURNING))


def link(path: Path) -> str:
    """A link to a file in HTML, from the working directory where that can be: it is that of the notebook."""
    shown = os.fspath(path)
    try:
        shown = os.path.relpath(path)
    except (ValueError, OSError):  # another drive of Windows, or no working directory any more
        return f"<code>{text(shown)}</code>"
    address = quote(shown.replace(os.sep, "/").encode("utf-8", "surrogateescape"))
    return f'<a href="{address}">{text(shown)}</a>'


def _tag(tag: re.Match[str]) -> str:
    name = tag["name"].lower()
    if tag["end"]:
        return f"</{name}>"
    given = (
        (found[1].lower(), found[2] or found[3] or found[4] or "")
        for found in _ATTRIBUTE.finditer(tag["rest"])
    )
    kept = [
        f' {key}="{value}"'
        for key, value in given
        if key in _ATTRIBUTES and _ATTRIBUTES[key].fullmatch(value)
    ]
    return f"<{name}{''.join(kept)}>"


def _without_styles(text: str) -> str:
    shown, place = [], 0
    while begin := _STYLE.search(text, place):
        shown.append(text[place : begin.start()])
        end = _STYLE_END.search(text, begin.end())
        place = end.end() if end else len(text)
    return "".join([*shown, text[place:]])


def _as_it_is(text: str) -> str:
    return text


def _picture(text: str) -> str | None:
    """A picture in base64; None for what is more: old programs put it into the page as it is, where a quote
    would end it.
    """
    return text if _BASE64.fullmatch(text) else None


_KINDS: Mapping[str, Callable[[str], str | None]] = {
    "text/plain": _as_it_is,
    "text/html": html,
    "text/markdown": markdown,
    "text/latex": _as_it_is,
    "image/png": _picture,
    "image/jpeg": _picture,
    "image/gif": _picture,
    "image/webp": _picture,
}


def output(shown: Mapping[str, Any]) -> dict[str, Any]:
    """An output (nbformat's) whose display holds what neither runs nor fetches: text, sanitized, plain
    pictures, JSON.

    Of other kinds (scripts, SVG, widgets, plots of extensions) their text/plain stands, or their names. It
    cannot pass for one that the trace's writer made: that mark of its metadata is left out. The same if done
    twice.
    """
    if isinstance(metadata := shown.get("metadata"), Mapping) and _OURS in metadata:
        shown = {**shown, "metadata": {name: value for name, value in metadata.items() if name != _OURS}}
    if not isinstance(data := shown.get("data"), Mapping):
        return dict(shown)
    kept = {kind: made for kind, value in data.items() if (made := _kept(kind, value)) is not None}
    if data and not kept:
        kept["text/plain"] = f"[{', '.join(map(str, data))}: not kept]"
    return {**shown, "data": kept}


def _kept(kind: str, value: Any) -> Any:
    if kind == "application/json":
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)  # a text by lines, as in a file
    if kind not in _KINDS or not isinstance(value, str) or (kind == "text/html" and len(value) > HTML_CAP):
        return None
    return _KINDS[kind](value)

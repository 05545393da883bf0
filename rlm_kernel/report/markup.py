"""HTML of others made fit for a page of ours: what is safe, and what can end nothing that is around it.

`rlm_kernel.sanitize` leaves tags that neither run nor fetch. They may still be out of order: a lone `</div>`
would end ours, and what follows would stand where the page speaks. A browser closes and moves elements by
rules of its own; here each element is only opened where the browser leaves it, and closed by us.
"""

from __future__ import annotations

import html as entities
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from rlm_kernel import sanitize

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MOST_PROSE = 100_000
"""Characters of Markdown that are shown as such."""
MOST_HIGHLIGHTED = 100_000
"""Characters of code that are highlighted."""
_DEEPEST = 60
_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)([^<>]*)>")
_ALIGNED = re.compile(r' style="text-align: ?(left|right|center);?"')
_VOID = frozenset({"br", "col", "hr", "wbr"})
_TABLE = frozenset({"table", "thead", "tbody", "tfoot", "tr", "colgroup"})
"""They hold their parts alone: a browser moves all else out of them."""
_PARENTS = {
    "caption": {"table"},
    "col": {"colgroup"},
    "colgroup": {"table"},
    "dd": {"dl"},
    "dt": {"dl"},
    "li": {"ol", "ul"},
    "summary": {"details"},
    "tbody": {"table"},
    "td": {"tr"},
    "tfoot": {"table"},
    "th": {"tr"},
    "thead": {"table"},
    "tr": {"table", "tbody", "tfoot", "thead"},
}
_HEADINGS = frozenset(f"h{level}" for level in range(1, 7))
_BLOCKS = _HEADINGS | {"blockquote", "details", "div", "dl", "hr", "ol", "p", "pre", "summary", "table", "ul"}
"""They end a paragraph."""
_ODD = dict.fromkeys(
    (*range(9), 11, 12, *range(14, 32), 127, 0x61C, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    "\N{REPLACEMENT CHARACTER}",
) | dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_ODD[13] = "\n"


def plain(text: str) -> str:
    """A text without control characters, bidi controls and halves of characters, which a page cannot hold or
    which show it in another order.
    """
    return text.replace("\r\n", "\n").translate(_ODD)


def fragment(text: str) -> str:
    """HTML of an output as a part of a page: sanitized, and each element in its place and closed."""
    builder = _Builder()
    place, text = 0, sanitize.html(plain(text))
    for tag in _TAG.finditer(text):
        builder.text(text[place : tag.start()])
        place = tag.end()
        if tag[1]:
            builder.end(tag[2])
        else:
            builder.start(tag[2], _ALIGNED.sub(r' align="\1"', tag[3]))
    builder.text(text[place:])
    return builder.closed()


class _Builder:
    def __init__(self) -> None:
        self._made: list[str] = []
        self._open: list[str] = []

    def text(self, text: str) -> None:
        if not self._open or self._open[-1] not in _TABLE or not text.strip():
            self._made.append(text)

    def start(self, name: str, rest: str) -> None:
        if parents := _PARENTS.get(name):
            place = next((at for at in range(len(self._open), 0, -1) if self._open[at - 1] in parents), None)
            if place is None:
                return
            self._close(place)
        elif self._open and self._open[-1] in _TABLE:
            return
        if name in _HEADINGS and _HEADINGS & set(self._open):
            return
        if name in _BLOCKS and "p" in self._open:
            self._close(self._open.index("p"))
            if self._open and self._open[-1] in _TABLE:
                return
        if name in _VOID:
            self._made.append(f"<{name}{rest}>")
        elif len(self._open) < _DEEPEST:
            self._made.append(f"<{name}{rest}>")
            self._open.append(name)

    def end(self, name: str) -> None:
        if name in self._open:
            self._close(len(self._open) - 1 - self._open[::-1].index(name))

    def _close(self, place: int) -> None:
        """Close what is open from this place on."""
        while len(self._open) > place:
            self._made.append(f"</{self._open.pop()}>")

    def closed(self) -> str:
        self._close(0)
        return "".join(self._made)


def prose(text: str) -> str:
    """Markdown as HTML: no HTML of its own, no pictures, links to the web alone, headings below ours."""
    text = plain(text)
    if len(text) > MOST_PROSE:
        return f"<pre>{entities.escape(text)}</pre>"
    try:
        tokens = _markdown().parse(text)
        for token in tokens:
            if token.type in ("heading_open", "heading_close"):
                token.tag = f"h{min(6, int(token.tag[1:]) + 3)}"
            if style := token.attrs.pop("style", None):
                token.attrs["align"] = str(style).removeprefix("text-align:")
        return str(_markdown().renderer.render(tokens, _markdown().options, {}))
    except RecursionError:
        return f"<pre>{entities.escape(text)}</pre>"


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "html_inline"])
    reader.validateLink = _is_web  # type: ignore[method-assign, assignment]

    def linked(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
        tokens[index].attrs["rel"] = "noreferrer noopener nofollow"
        return str(self.renderToken(tokens, index, options, env))

    reader.add_render_rule("link_open", linked)
    return reader


def _is_web(address: str) -> bool:
    return address.lower().startswith(("https://", "http://", "mailto:"))


def code(text: str) -> str:
    """Python, highlighted; as it is where it is very long."""
    text = plain(text)
    if len(text) > MOST_HIGHLIGHTED:
        return entities.escape(text)
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return str(highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)))


@cache
def code_styles() -> str:
    """The style sheet for `code`, light and dark."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".code")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".code")
    kept = [
        "\n".join(line for line in one.splitlines() if line.startswith(".code .")) for one in (light, dark)
    ]
    return f"{kept[0]}\n@media screen and (prefers-color-scheme: dark) {{\n{kept[1]}\n}}\n"

"""The visible text of HTML: lines break where a browser breaks them, and nowhere else.

The page is read as a stream of tags, never as a tree: a tree takes many times the memory of its page.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from typing import Any

from rlm_runtime.ordinals import letters, roman

_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog",
    "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "frameset", "h1", "h2",
    "h3", "h4", "h5", "h6", "head", "header", "hgroup", "hr", "html", "legend", "li", "main", "menu", "nav",
    "noframes", "ol", "optgroup", "option", "p", "pre", "search", "section", "select", "summary", "table",
    "tbody", "textarea", "tfoot", "thead", "title", "tr", "ul",
))  # fmt: skip
_UNSEEN = frozenset(
    ("script", "style", "template", "noscript", "datalist", "audio", "video", "canvas", "iframe", "object")
)
_KEPT_SPACE = frozenset(("pre", "textarea", "listing", "plaintext", "xmp"))
_EMPTY = frozenset(
    (
        "area",
        "base",
        "br",
        "col",
        "embed",
        "frame",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    )
)
"""Elements without content: they end where they begin."""
_SPACE = re.compile(r"[ \t\n\r\f]+")
_INVISIBLE = {0xA0: " ", 0xAD: None, 0x200B: None}
"""A space that does not break is a space; what only marks where a word may be broken is nothing."""
_MARKS: dict[str, Callable[[int], str]] = {
    "a": letters,
    "A": lambda number: letters(number).upper(),
    "i": roman,
    "I": lambda number: roman(number).upper(),
}
"""How the items of a list are numbered that says so."""
_ENDS_POWER = _BLOCKS | _KEPT_SPACE | {"br", "td", "th", "sup"}
"""Where what stands above the line ends, at the latest."""
_NO_MARKS = re.compile(r"\s*list-style(?:-type)?\s*:.*\bnone\b", re.IGNORECASE | re.DOTALL)
_POWER = re.compile(r"[-+\u2212]?[0-9]")
_HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_WIDE_CELL = 8
"""Lines of a cell from which on a table is there for the layout of a page."""
_MOST_SPAN = 100
_PIECE = 1 << 20
_SELF_CLOSED = re.compile(
    r"<(script|style|title|textarea|iframe|noscript|template|object|a|div|span|p)\b([^<>]*)/>", re.IGNORECASE
)


def html_text(page: str) -> str:
    """The text that a browser would show of a page: a line for each block, cells of a table's row between
    tabs.
    """
    from lxml import etree

    if re.match(r"\s*(?:<\?xml|<!DOCTYPE[^>]{0,300}XHTML)", page[:1000], re.IGNORECASE):
        page = _SELF_CLOSED.sub(r"<\1\2></\1>", page)
    target = _Page()
    # Of what cannot be written in UTF-8, and of NULs, the parser would see the end of the page.
    parser: Any = etree.HTMLParser(
        target=target, encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True
    )
    for at in range(0, len(page), _PIECE):
        parser.feed(page[at : at + _PIECE].replace("\0", "").encode("utf-8", "replace"))
    if not page.strip():
        return ""
    with contextlib.suppress(etree.XMLSyntaxError):  # where nothing in it is a document
        parser.close()
    return target.text()


class _Lines:
    """Text as it grows, line by line. Spaces fold into one, and go where a line begins or ends."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._line: list[str] = []
        self._space = False
        self.whole = False
        """Its lines must stay lines."""
        self.mark = ""
        """What stands before the next text: the number of an item."""

    def add(self, text: str, *, raised: bool = False) -> None:
        """`raised`: it stands above the line, so that 10 and 6 are no 106."""
        text = _SPACE.sub(" ", text).translate(_INVISIBLE)
        if raised and self._line and not self._space and _POWER.match(text):
            text = f"^{text}"
        if not text:
            return
        if text[0] == " " or self._space:
            text = text.lstrip(" ")
            self._space = True
        if not text:
            return
        self._begin()
        if self._space and self._line:
            self._line.append(" ")
        self._space = text[-1] == " "
        self._line.append(text.rstrip(" ") if self._space else text)

    def _begin(self) -> None:
        if self.mark:
            self._line.append(self.mark)
            self.mark, self._space = "", False

    def add_kept(self, text: str) -> None:
        """Text whose white space counts."""
        self._begin()
        first, *more = text.replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE).split("\n")
        self._line.append(first)
        for line in more:
            self.end(kept=True)
            self._line.append(line)
        self._space = False

    def end(self, *, kept: bool = False) -> None:
        """The line ends, if there is something in it (`kept`: in any case)."""
        line = "".join(self._line)
        if kept or line.strip():
            self.done.append(line.rstrip() if not kept else line)
        self._line.clear()
        self._space = False


class _Row:
    """A row of a table, with the columns that cells of the rows above still take.

    `base`: texts that are open around the table.
    """

    def __init__(self, base: int) -> None:
        self.base = base
        self.cells: list[tuple[int, _Lines]] = []
        self.span: dict[int, int] = {}
        self.column = 0

    def begin(self) -> None:
        self.cells, self.column = [], 0

    def cell(self, columns: int, rows: int) -> _Lines:
        while self.span.get(self.column, 0) > 0:
            self.span[self.column] -= 1
            self.column += 1
        lines = _Lines()
        self.cells.append((self.column, lines))
        for column in range(self.column, self.column + columns):
            self.span[column] = rows - 1
        self.column += columns
        return lines

    def lines(self) -> Iterable[str]:
        """The row as one line, or as the lines of its cells where these are long."""
        if not self.cells:
            return []
        for column in [column for column in self.span if column >= self.column and self.span[column] > 0]:
            self.span[column] -= 1
        for _, cell in self.cells:
            cell.end()
        if [column for column, _ in self.cells] == [0] or any(
            cell.whole or len(cell.done) > _WIDE_CELL for _, cell in self.cells
        ):
            return [line for _, cell in self.cells for line in cell.done]
        line, at = [], 0
        for column, cell in self.cells:
            line.append("\t" * (column - at) + " ".join(part.strip() for part in cell.done))
            at = column
        return ["".join(line).rstrip("\t")] if any(cell.done for _, cell in self.cells) else []


class _List:
    """A list of items, which are numbered if it is one that is."""

    def __init__(self, name: str, attributes: Any) -> None:
        self._written = _MARKS.get(attributes.get("type") or "", str)
        self._back = attributes.get("reversed") is not None
        start = _whole(attributes.get("start"))
        styles = (attributes.get("style") or "").split(";")
        shown = name == "ol" and not any(map(_NO_MARKS.match, styles))
        self._numbered = shown and not (self._back and start is None)  # where that begins is told by its end
        self._next = 1 if start is None else start

    def mark(self, attributes: Any) -> str:
        """What stands before the next item."""
        if not self._numbered:
            return ""
        given = _whole(attributes.get("value"))
        number = self._next if given is None else given
        self._next = number + (-1 if self._back else 1)
        return f"{self._written(number)}. "


class _Page:
    """What the parser tells of the page, tag by tag."""

    def __init__(self) -> None:
        self._lines = [_Lines()]
        self._rows: list[_Row] = []
        self._kept = 0
        self._unseen: list[str] = []
        self._lists: list[_List] = []
        self._raised = 0
        self._power: list[str] = []
        self._fresh = False

    def start(self, tag: Any, attributes: Any) -> None:
        name = _name(tag)
        if self._unseen:
            if name not in _EMPTY and name == self._unseen[-1]:
                self._unseen.append(name)
            return
        if name in _UNSEEN or (name not in _EMPTY and name not in ("html", "body") and _hidden(attributes)):
            self._unseen.append(name)
            return
        if name in _ENDS_POWER:
            self._raise()
        lines = self._lines[-1]
        if name == "br":
            lines.end(kept=self._kept > 0)
        elif name in ("td", "th"):
            self._cell(attributes)
        elif name in _BLOCKS:
            self._block(name)
            self._count(name, attributes)
        self._raised += name == "sup"
        if name in _KEPT_SPACE:
            self._kept += 1
            self._fresh = True
            for outer in self._lines[1:]:
                outer.whole = True

    def _block(self, name: str) -> None:
        if name == "tr":
            self._end_row()
            if self._rows:
                self._rows[-1].begin()
        self._lines[-1].end()
        if name == "table":
            if len(self._lines) > 1:
                self._lines[-1].whole = True
            self._rows.append(_Row(len(self._lines)))

    def _count(self, name: str, attributes: Any) -> None:
        """Lists begin, and their items get numbers."""
        if name in ("ol", "ul", "menu", "dir"):
            self._lists.append(_List(name, attributes or {}))
        elif name == "li" and self._lists:
            self._lines[-1].mark += self._lists[-1].mark(attributes or {})  # after that of the item around it

    def _cell(self, attributes: Any) -> None:
        if not self._rows:
            self._lines[-1].end()
            return
        self._end_cell()
        row = self._rows[-1]
        self._lines.append(row.cell(_number(attributes, "colspan"), _number(attributes, "rowspan")))

    def _end_cell(self) -> None:
        while len(self._lines) > self._rows[-1].base:
            self._lines.pop().end()

    def _end_row(self) -> None:
        if not self._rows:
            return
        self._end_cell()
        for line in self._rows[-1].lines():
            self._lines[-1].end()
            self._lines[-1].done.append(line)
        self._rows[-1].begin()

    def end(self, tag: Any) -> None:
        name = _name(tag)
        if self._unseen:
            if name == self._unseen[-1]:
                self._unseen.pop()
            return
        if name in _ENDS_POWER:
            self._raise()
        if name in _KEPT_SPACE and self._kept:
            self._kept -= 1
        if name == "sup" and self._raised:
            self._raised -= 1
        if name in ("ol", "ul", "menu", "dir") and self._lists:
            self._lists.pop()
        if name == "li":
            self._lines[-1].mark = ""
        if name in ("td", "th"):
            if self._rows:
                self._end_cell()
        elif name == "tr":
            self._end_row()
        elif name == "table" and self._rows:
            self._end_row()
            self._rows.pop()
        elif name in _BLOCKS:
            self._lines[-1].end()

    def data(self, text: str) -> None:
        if self._unseen:
            return
        if not self._kept:
            if self._raised:
                self._power.append(text)  # its sign and its digits may come one after the other
            else:
                self._lines[-1].add(text)
            return
        if self._fresh and text.startswith("\n"):
            text = text[1:]
        self._fresh = False
        self._lines[-1].add_kept(text)

    def _raise(self) -> None:
        """What stands above the line ends."""
        self._lines[-1].add("".join(self._power), raised=True)
        self._power.clear()

    def close(self) -> None:
        self._raise()
        while self._rows:
            self._end_row()
            self._rows.pop()
        self._lines[-1].end()

    def text(self) -> str:
        self.close()
        return "\n".join(self._lines[0].done)


def _name(tag: Any) -> str:
    return tag.lower().rpartition(":")[2] if isinstance(tag, str) else ""


def _hidden(attributes: Any) -> bool:
    return bool(attributes) and (
        (attributes.get("hidden", "until-found") != "until-found")
        or bool(_HIDDEN_STYLE.search(attributes.get("style") or ""))
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", text) else None


def _number(attributes: Any, name: str) -> int:
    value = (attributes.get(name) or "1").strip()
    return min(int(value), _MOST_SPAN) if value.isdecimal() and len(value) < 9 and int(value) else 1

"""The numbers of a Word file's headings and lists.

The file has only rules for them, and a program that shows it counts: without them nobody finds clause 4.2.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rlm_runtime.ordinals import letters, roman
from rlm_runtime.xmlwalk import child_of, name_of, value_of

_LEVELS = 9
_DEEP = 20
_LONGEST = 200
"""Characters of a rule for what is written: it is so often written."""
_PLACE = re.compile(r"%([1-9])")
_NO_RULE = -1


class _Level(NamedTuple):
    """How a level is counted, and written: in `text` `%2` is the number of the second level. `restart`: the
    level from which on up a number starts this one anew, counted from 1; 0: none does; -1: each above it.
    """

    kind: str
    text: str
    start: int
    restart: int
    plain: bool
    after: str
    style: str


class _List(NamedTuple):
    """A list: whose levels it has, and what of these is its own."""

    rules: str
    own: dict[int, _Level]
    starts: dict[int, int]


class Numbers:
    """Counts the numbered paragraphs of a document, in their order."""

    def __init__(self, numbering: Any, styles: Any) -> None:
        """The roots of both parts; None where there is none."""
        self._rules: dict[str, dict[int, _Level]] = {}
        self._lists: dict[str, _List] = {}
        self._styles: dict[str, tuple[str, str, str]] = {}
        self._default = ""
        self._counted: dict[str, dict[int, int]] = {}
        self._begun: set[tuple[str, int]] = set()
        if numbering is not None:
            self._read(numbering)
        if styles is not None:
            self._read_styles(styles)

    def _read(self, root: Any) -> None:
        links: dict[str, str] = {}
        named: dict[str, str] = {}
        for one in root:
            if name_of(one) == "abstractNum":
                key = value_of(one, "abstractNumId") or ""
                self._rules[key] = _levels(one)
                if linked := _val(one, "numStyleLink"):
                    links[key] = linked
                if own := _val(one, "styleLink"):
                    named[own] = key
            elif name_of(one) == "num":
                self._lists[value_of(one, "numId") or ""] = _list(one)
        for key, style in links.items():
            self._rules[key] = self._rules.get(named.get(style, ""), {})

    def _read_styles(self, root: Any) -> None:
        for style in root:
            if name_of(style) != "style" or value_of(style, "type") not in (None, "paragraph"):
                continue
            key = value_of(style, "styleId") or ""
            rule = child_of(style, "pPr", "numPr")
            self._styles[key] = (_val(rule, "numId"), _val(rule, "ilvl"), _val(style, "basedOn"))
            if value_of(style, "default") in ("1", "true", "on"):
                self._default = key

    def label(self, paragraph: Any) -> str:
        """What stands before the paragraph, with the space after it; "" for one that has no number."""
        key, level = self._place(paragraph)
        found = self._lists.get(key)
        rules = self._rules.get(found.rules, {}) | found.own if found else {}
        rule = rules.get(level)
        if found is None or rule is None or rule.kind == "bullet":
            return ""
        counted = self._counted.setdefault(found.rules, {})
        start = found.starts.get(level)
        if start is not None and (key, level) not in self._begun:
            self._begun.add((key, level))
            counted[level] = start
        else:
            counted[level] = counted.get(level, rule.start - 1) + 1
        for lower in [lower for lower in counted if lower > level]:
            restart = rules[lower].restart if lower in rules else _NO_RULE
            if restart == _NO_RULE or level < restart:
                del counted[lower]

        def number(place: re.Match[str]) -> str:
            at = int(place[1]) - 1
            of = rules.get(at, rule)
            return _written(counted.get(at, of.start), "decimal" if rule.plain else of.kind)

        text = _PLACE.sub(number, rule.text)
        return text + rule.after if text.strip() else ""

    def _place(self, paragraph: Any) -> tuple[str, int]:
        """The list that a paragraph is in, and its level there; of its style where it says nothing itself."""
        own = child_of(paragraph, "pPr", "numPr")
        key, level = _val(own, "numId"), _val(own, "ilvl")
        style = _val(child_of(paragraph, "pPr"), "pStyle") or self._default
        first = style
        for _ in range(_DEEP):
            if key or style not in self._styles:
                break
            key, of_style, base = self._styles[style]
            level = level or of_style
            style = base
        if not level and key in self._lists:
            rules = self._rules.get(self._lists[key].rules, {})
            level = next((str(at) for at, rule in rules.items() if first and rule.style == first), "")
        return key, int(level) if level.isdecimal() and len(level) < 3 else 0


def _list(num: Any) -> _List:
    own: dict[int, _Level] = {}
    starts: dict[int, int] = {}
    for part in num:
        if name_of(part) == "lvlOverride":
            at = _int(value_of(part, "ilvl"), 0)
            own |= _levels(part)
            if at < _LEVELS and (start := child_of(part, "startOverride")) is not None:
                starts[at] = _int(value_of(start, "val"), 1)
    return _List(_val(num, "abstractNumId"), own, starts)


def _levels(parent: Any) -> dict[int, _Level]:
    found = {}
    for level in parent:
        at = _int(value_of(level, "ilvl"), 0)
        if name_of(level) != "lvl" or at >= _LEVELS:
            continue
        after = {"nothing": ""}.get(_val(level, "suff"), " ")
        hidden = child_of(level, "rPr", "vanish") is not None
        found[at] = _Level(
            _val(level, "numFmt") or "decimal",
            "" if hidden else _val(level, "lvlText")[:_LONGEST],
            _int(_val(level, "start"), 0),
            _int(_val(level, "lvlRestart"), _NO_RULE),
            child_of(level, "isLgl") is not None,
            after,
            _val(level, "pStyle"),
        )
    return found


def _written(number: int, kind: str) -> str:
    if kind == "none":
        return ""
    if kind.endswith("Roman"):
        written = roman(number)
        return written.upper() if kind.startswith("upper") else written
    if kind.endswith("Letter"):
        written = letters(number, repeated=True)
        return written.upper() if kind.startswith("upper") else written
    return f"{number:02}" if kind == "decimalZero" else str(number)


def _val(parent: Any, name: str) -> str:
    """The value of a child; "" if there is none."""
    child = child_of(parent, name) if parent is not None else None
    return (value_of(child, "val") or "") if child is not None else ""


def _int(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 9 else default

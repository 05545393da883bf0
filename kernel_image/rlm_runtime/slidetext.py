"""The text of slides (.pptx): slide after slide in the order of the talk, with tables, charts, diagrams and
notes.

The XML is walked itself: python-pptx passes over diagrams and alternatives, and one broken part costs it the
whole.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import unquote

from rlm_runtime.ordinals import letters, roman
from rlm_runtime.unpacking import TooMuch, Unreadable
from rlm_runtime.wordmath import formula
from rlm_runtime.wordtext import LOWERED, RAISED, Parts, number_in, with_powers
from rlm_runtime.xmlwalk import child_of, name_of, value_of

_DEEP = 50
_NOT_SAID = frozenset(("sldNum", "dt", "sldImg", "hdr"))
"""Places of a slide that hold no words of its own."""
_TITLES = ("title", "ctrTitle")


def slide_text(file: IO[bytes], room: int) -> tuple[str, list[str]]:
    """The text of a presentation, and what of it could not be read.

    Raises Unreadable where there is no slide in it, and what zipfile and lxml raise.
    """
    parts = Parts(file, room)
    texts: list[str] = []
    for number, name in enumerate(_slides(parts), 1):
        try:
            texts.append(_slide(parts, name, number))
        except TooMuch:
            parts.damaged.append(f"only its first {number - 1:,} slides, as there is no room for more")
            break
        except Exception as error:  # a broken slide costs that slide
            parts.damaged.append(f"slide {number} could not be read ({type(error).__name__}: {error})")
            texts.append(f"[slide {number}]\n[this slide could not be read]")
    if not texts:
        raise Unreadable("there are no slides in it")
    return "\n\n".join(texts), parts.damaged


class _Links:
    """What a part of the file refers to."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._folder, own = posixpath.split(name)
        self._targets: dict[str, tuple[str, str]] = {}
        place = posixpath.join(self._folder, "_rels", f"{own}.rels")
        try:
            links = list(parts.root(place)) if place in parts.names() else []
        except TooMuch:
            raise
        except Exception as error:  # without them, only what is named so
            parts.damaged.append(f"{place} could not be read ({error})")
            links = []
        for link in links:
            if link.get("TargetMode") != "External":
                kind = link.get("Type", "").rpartition("/")[2]
                self._targets[link.get("Id", "")] = kind, self._place(link.get("Target", ""))

    def _place(self, target: str) -> str:
        target = unquote(target)
        whole = target.lstrip("/") if target.startswith("/") else posixpath.join(self._folder, target)
        return posixpath.normpath(whole)

    def target(self, identity: str | None) -> str:
        """The part of this id; "" if there is none."""
        return self._targets.get(identity or "", ("", ""))[1]

    def of_kind(self, kind: str) -> list[str]:
        return [target for found, target in self._targets.values() if found == kind]


def _slides(parts: Parts) -> list[str]:
    """The names of the slides' parts, in order; by their numbers where the list of them is lost."""
    names = set(parts.names())
    if not any(name.startswith("ppt/") for name in names):
        raise ValueError("there is no presentation in it")
    main = next(iter(_Links(parts, "").of_kind("officeDocument")), "ppt/presentation.xml")
    found: list[str] = []
    try:
        links = _Links(parts, main)
        listed = child_of(parts.root(main), "sldIdLst")
        for slide in listed if listed is not None else ():
            identity = next(
                (value for key, value in slide.items() if key.startswith("{") and key.endswith("}id")), ""
            )
            found.append(links.target(identity))
    except TooMuch:
        raise
    except Exception as error:
        parts.damaged.append(f"the list of its slides could not be read ({error})")
    if not any(name in names for name in found):
        found = sorted(
            (name for name in names if re.fullmatch(r"ppt/slides/slide\d+\.xml", name)), key=number_in
        )
    return found


def _slide(parts: Parts, name: str, number: int) -> str:
    root, links = parts.root(name), _Links(parts, name)
    walk = _Walk(parts, links)
    walk.shapes(root, 0)
    hidden = ", hidden" if (value_of(root, "show") or "1").lower() in ("0", "false") else ""
    lines = [f"[slide {number}{hidden}]", *walk.titles, *walk.lines]
    for kind, mark in (("notesSlide", "notes"), ("comments", "comment")):
        for target in links.of_kind(kind):
            beside = _Walk(parts, _Links(parts, target))
            beside.shapes(parts.root(target), 0)
            said = [line for line in (*beside.titles, *beside.lines) if line.strip()]
            lines += [f"[{mark}] {line}" for line in said]
    return "\n".join(lines)


class _Walk:
    """Goes through the shapes of a slide, and gathers lines."""

    def __init__(self, parts: Parts, links: _Links) -> None:
        self._parts, self._links = parts, links
        self.titles: list[str] = []
        self.lines: list[str] = []

    def shapes(self, parent: Any, depth: int) -> None:
        for shape in parent:
            name = name_of(shape)
            if name == "AlternateContent":
                choice = next((part for part in shape if len(part)), None)
                if choice is not None and depth < _DEEP:
                    self.shapes(choice, depth + 1)
            elif name == "sp":
                self._text_of(shape)
            elif name == "tbl":
                self.lines += _rows(shape)
            elif name == "relIds":
                self._part(value_of(shape, "dm"), _paragraphs)
            elif name == "chart" and len(shape) == 0:
                self._part(value_of(shape, "id"), _chart)
            elif name == "text" and not len(shape):  # of a comment
                self.lines += (shape.text or "").split("\n")
            elif depth < _DEEP:
                self.shapes(shape, depth + 1)

    def _text_of(self, shape: Any) -> None:
        place = child_of(shape, "nvSpPr", "nvPr", "ph")
        kind = (value_of(place, "type") or "") if place is not None else ""
        if kind not in _NOT_SAID:
            lines = _paragraphs(shape)
            (self.titles if kind in _TITLES else self.lines).extend(line for line in lines if line.strip())

    def _part(self, identity: str | None, read: Any) -> None:
        target = self._links.target(identity)
        if target in self._parts.names():
            self.lines += [line for line in read(self._parts.root(target)) if line.strip()]


def _paragraphs(shape: Any) -> list[str]:
    """A line for each paragraph, moved in by its level, with its number if it has one."""
    lines = []
    counted: dict[int, int] = {}
    for paragraph in shape.iter("{*}p"):
        properties = child_of(paragraph, "pPr")
        level = (value_of(properties, "lvl") or "0") if properties is not None else "0"
        depth = int(level) if level in "123456789" else 0
        text = with_powers("".join(_inline(paragraph)))
        rule = child_of(properties, "buAutoNum") if properties is not None else None
        if text.strip():
            counted = {at: count for at, count in counted.items() if at < depth + (rule is not None)}
        if rule is not None and text.strip():
            start = value_of(rule, "startAt") or "1"
            first = int(start) if start.isdecimal() and len(start) < 9 else 1
            counted[depth] = counted.get(depth, first - 1) + 1
            text = f"{_numbered(counted[depth], value_of(rule, 'type') or '')} {text}"
        lines += ["  " * depth + line for line in text.split("\n")]
    return lines


def _numbered(number: int, kind: str) -> str:
    """A number as a list of this kind shows it: `alphaLcParenR` is `a)`."""
    written = {"alpha": letters, "roman": roman}.get(kind[:5], str)(number)
    written = written.upper() if "Uc" in kind else written
    before, after = (
        ("(" if "ParenBoth" in kind else ""),
        ")" if "Paren" in kind else "." if "Period" in kind else "",
    )
    return before + written + after


def _inline(parent: Any) -> Iterator[str]:
    for piece in parent:
        name = name_of(piece)
        if name == "t":
            yield (piece.text or "").replace("\v", "\n")
        elif name == "br":
            yield "\n"
        elif name == "tab" and name_of(parent) == "r":
            yield "\t"
        elif name == "oMath":
            yield formula(piece)
        elif name not in ("Fallback", "pPr", "rPr"):
            raised = name == "r" and _is_raised(piece)
            yield RAISED if raised else ""
            yield from _inline(piece)
            yield LOWERED if raised else ""


def _is_raised(run: Any) -> bool:
    properties = child_of(run, "rPr")
    raised = value_of(properties, "baseline") if properties is not None else None
    return re.fullmatch(r"0*[1-9][0-9]*%?", raised or "") is not None


def _rows(table: Any) -> list[str]:
    """A line for each row, with tabs between cells. A merged cell has its text once, and its place kept."""
    lines = []
    for row in table.iterchildren("{*}tr"):
        cells = []
        for cell in row.iterchildren("{*}tc"):
            merged = any(value_of(cell, mark) in ("1", "true") for mark in ("hMerge", "vMerge"))
            words = (" ".join(line.split()) for line in _paragraphs(cell))
            cells.append("" if merged else " ".join(word for word in words if word))
        lines.append("\t".join(cells).rstrip("\t"))
    return lines


def _chart(root: Any) -> list[str]:
    """The title of a chart, and a line for each category with the values of all series, as they were last
    shown.
    """
    titles = [" ".join(_paragraphs(title)) for title in root.iter("{*}title")]
    series = list(root.iter("{*}ser"))
    if not series:
        return titles
    columns = [_points(one, "val") or _points(one, "yVal") for one in series]
    labels = next((found for one in series if (found := _points(one, "cat") or _points(one, "xVal"))), {})
    places = sorted(set(labels).union(*columns))
    header = ["", *(" ".join(_points(one, "tx").values()) for one in series)]
    rows = [[labels.get(place, ""), *(column.get(place, "") for column in columns)] for place in places]
    return [*titles, *("\t".join(row) for row in itertools.chain([header], rows))]


def _points(series: Any, kind: str) -> dict[int, str]:
    """The cached values of a series, by their places."""
    found: dict[int, str] = {}
    for values in series.iterchildren(f"{{*}}{kind}"):
        for point in values.iter("{*}pt"):
            place = value_of(point, "idx") or ""
            value = child_of(point, "v")
            if place.isdecimal() and len(place) < 7 and value is not None:
                found[int(place)] = (found.get(int(place), "") + " " + (value.text or "")).strip()
        if not found:
            found = {place: value.text or "" for place, value in enumerate(values.iterchildren("{*}v"))}
    return found

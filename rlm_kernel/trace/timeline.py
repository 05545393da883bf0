"""The timeline of a run as a picture: turns, cells, sub-calls and child RLMs over the time that they took.

The picture is an SVG of text and plain shapes, without scripts, style sheets or links, so that it may be
shown as it is or as the source of an `<img>`. A lane with more spans than can be told apart is drawn as a
curve: how many were under way at a time.
"""

from __future__ import annotations

import base64
import bisect
import html
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from rlm_kernel.engine.protocols import TOLD_CALLS
from rlm_kernel.printable import printable
from rlm_kernel.trace.calltable import took
from rlm_kernel.trace.reader import TraceCell
from rlm_kernel.trace.schema import CallMeta, CellMeta

Lane = Literal["turn", "cell", "call", "child"]
MAX_CHARACTERS = 60_000
"""Of an SVG, whatever it shows."""
_TITLES: dict[Lane, tuple[str, str, str]] = {
    "turn": ("Root model", "turn", "#8250df"),
    "cell": ("Cells", "cell", "#2f81f7"),
    "call": ("Sub-calls", "sub-call", "#1a9b7b"),
    "child": ("Child RLMs", "child RLM", "#bc6c00"),
}
_FAILED, _GREY = "#d1383d", "#7d8590"
_BARS = 60
"""Spans of a lane that are drawn one by one."""
_ROWS = 6
"""Rows of a lane, for spans that were under way together."""
_COLUMNS = 240
"""Points of a curve."""
_NAME = 40
_LEFT, _HEIGHT, _ROW, _AXIS = 92, 44, 14, 24
_LONG_PAUSE, _PAUSE = 0.1, 0.02
"""Of the busy time: a pause that is longer than the first is drawn as the second."""
_MOST_PAUSES = 20


@dataclass(frozen=True)
class Span:
    """Something that took time. `start`: seconds since the first span began. `about`: a line for people."""

    lane: Lane
    name: str
    start: float
    seconds: float
    failed: bool = False
    about: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span with the time of day at which it began; None for a turn: it ended when its first cell began."""

    lane: Lane
    name: str
    started: datetime | None
    seconds: float
    failed: bool = False
    about: str = ""


def stretches_of(name: str, meta: CellMeta, started: datetime | None) -> Iterator[Stretch]:
    """What took time in one cell of a trace: the turn; or the cell itself and its calls."""
    seconds = meta.seconds or 0.0
    if meta.kind in ("model", "memory"):
        about = f"turn {meta.turn}" if meta.kind == "model" else "summary of earlier turns"
        yield Stretch("turn", name, None, seconds, False, about)
    elif started is not None:
        failed = meta.status in ("error", "timeout", "died")
        yield Stretch("cell", name, started, seconds, failed, meta.status or "")
        for call in meta.calls:
            if call.kind in TOLD_CALLS:
                yield _of_call(call)


def _of_call(call: CallMeta) -> Stretch:
    lane: Lane = "child" if call.trace or call.kind == "rlm_query" else "call"
    failed = call.error is not None
    return Stretch(lane, call.id[:_NAME], call.started, call.seconds, failed, call.model or "")


def spans_of(cells: Sequence[TraceCell]) -> list[Span]:
    """The spans of a trace's cells, in their order."""
    return placed(
        itertools.chain.from_iterable(
            stretches_of(cell.id, cell.meta, cell.started) for cell in cells if cell.meta is not None
        )
    )


def placed(stretches: Iterable[Stretch]) -> list[Span]:
    """Stretches, in the order of their cells, as spans on one clock.

    A turn without a time of its own ended when the cell after it began; the last one began when the cell
    before it ended.
    """
    known = list(stretches)
    starts: list[datetime | None] = [None] * len(known)
    following: datetime | None = None
    for number in range(len(known) - 1, -1, -1):
        one = known[number]
        if one.started is not None:
            starts[number] = one.started
            following = one.started if one.lane == "cell" else following
        elif following is not None:
            starts[number] = following = following - timedelta(seconds=one.seconds)
    last: datetime | None = None
    for number, one in enumerate(known):
        begun = starts[number]
        if begun is None:
            starts[number] = begun = last
        if begun is not None and one.lane in ("turn", "cell"):
            last = begun + timedelta(seconds=one.seconds)
    first = min((begun for begun in starts if begun is not None), default=None)
    return [
        Span(
            one.lane,
            one.name,
            max(0.0, (begun - first).total_seconds()) if begun is not None and first is not None else 0.0,
            max(0.0, one.seconds),
            one.failed,
            one.about,
        )
        for one, begun in zip(known, starts, strict=True)
    ]


def alternative(spans: Sequence[Span]) -> str:
    """The timeline in words."""
    if not spans:
        return "Nothing ran."
    told = []
    for lane, (_, noun, _) in _TITLES.items():
        found = [span for span in spans if span.lane == lane]
        failed = sum(span.failed for span in found)
        if found:
            time = took(sum(span.seconds for span in found))
            bad = f", {failed:,} failed" if failed else ""
            told.append(f"{len(found):,} {noun}{'s' if len(found) > 1 else ''} ({time}{bad})")
    scale = _Scale(spans, 1.0)
    return f"{', '.join(told)}; {took(scale.end)} from beginning to end."


def svg(spans: Sequence[Span], *, width: int = 900) -> str:
    """The timeline, `width` pixels wide; at most MAX_CHARACTERS long."""
    drawn = _svg(spans, width, named=True)
    return drawn if len(drawn) <= MAX_CHARACTERS else _svg(spans, width, named=False)


def data_uri(picture: str) -> str:
    """An SVG as the `src` of an `<img>`."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"


def _svg(spans: Sequence[Span], width: int, *, named: bool) -> str:
    scale = _Scale(spans, width - _LEFT - 12.0)
    parts, top = [], 8.0
    for lane, (title, _, colour) in _TITLES.items():
        found = [span for span in spans if span.lane == lane]
        if not found:
            continue
        rows = _rows(found)
        height = len(rows) * _ROW if rows else _HEIGHT
        parts.append(
            _text(_LEFT - 8, top + 10, title, "end") + _text(_LEFT - 8, top + 22, f"{len(found):,}", "end")
            if height > _ROW
            else _text(_LEFT - 8, top + 10, f"{title} {len(found)}", "end")
        )
        for number, row in enumerate(rows):
            parts += [_bar(span, scale, top + number * _ROW, colour, named) for span in row]
        if not rows:
            parts.append(_curve(found, scale, top, colour))
        top += max(height, _ROW) + 8
    parts += _axis(scale, top)
    tall = top + _AXIS
    told = html.escape(alternative(spans))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {tall:.0f}" '
        f'width="{width}" height="{tall:.0f}" font-family="sans-serif" font-size="11">'
        f"<title>Timeline of the run</title><desc>{told}</desc>{''.join(parts)}</svg>"
    )


class _Scale:
    """From seconds to pixels. Long pauses, in which nothing ran, are drawn short."""

    def __init__(self, spans: Sequence[Span], width: float) -> None:
        self.end = max((span.start + span.seconds for span in spans), default=0.0)
        gaps, busy = _gaps(spans)
        busy = busy or 1.0
        long = sorted(gaps, key=lambda gap: gap[0] - gap[1])[:_MOST_PAUSES]
        self.pauses = sorted(gap for gap in long if gap[1] - gap[0] > max(1.0, _LONG_PAUSE * busy))
        self._short = _PAUSE * busy
        self._ends = [end for _, end in self.pauses]
        self._saved = [0.0, *itertools.accumulate(end - start - self._short for start, end in self.pauses)]
        self._pixels = width / max(self.end - self._saved[-1], 1e-6)

    def x(self, seconds: float) -> float:
        number = bisect.bisect_left(self._ends, seconds)
        saved = self._saved[number]
        if number < len(self.pauses) and seconds > (start := self.pauses[number][0]):
            share = (seconds - start) / (self.pauses[number][1] - start)
            saved += share * (self._saved[number + 1] - saved)
        return _LEFT + (seconds - saved) * self._pixels


def _gaps(spans: Sequence[Span]) -> tuple[list[tuple[float, float]], float]:
    """The times in which nothing ran, and for how many seconds something did."""
    gaps, busy, end = [], 0.0, 0.0
    for start, stop in sorted((span.start, span.start + span.seconds) for span in spans):
        if start > end:
            gaps.append((end, start))
        if stop > end:
            busy += stop - max(start, end)
            end = stop
    return gaps, busy


def _rows(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans by rows without overlaps; none where they are too many to be told apart."""
    if len(spans) > _BARS:
        return []
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda one: one.start):
        for row in rows:
            if row[-1].start + row[-1].seconds <= span.start + 1e-6:
                row.append(span)
                break
        else:
            rows.append([span])
    return rows if len(rows) <= _ROWS else []


def _bar(span: Span, scale: _Scale, top: float, colour: str, named: bool) -> str:
    left = scale.x(span.start)
    wide = max(1.5, scale.x(span.start + span.seconds) - left)
    told = ""
    if named:
        about = f"{span.name[:_NAME]} · {span.about[:_NAME]} · {took(span.seconds)}"
        told = f"<title>{_safe(about)}{' · failed' if span.failed else ''}</title>"
    return (
        f'<rect x="{left:.1f}" y="{top:.0f}" width="{wide:.1f}" height="{_ROW - 3}" rx="2" '
        f'fill="{_FAILED if span.failed else colour}">{told}</rect>'
    )


def _curve(spans: Sequence[Span], scale: _Scale, top: float, colour: str) -> str:
    """How many were under way at a time; below it in another colour those that failed, where they ended."""
    right = scale.x(scale.end)
    wide = max(right - _LEFT, 1.0) / _COLUMNS
    edges = [0.0] * (_COLUMNS + 2)
    failed = [0] * (_COLUMNS + 1)
    for span in spans:
        begin = min(_COLUMNS - 1e-6, max(0.0, (scale.x(span.start) - _LEFT) / wide))
        end = min(float(_COLUMNS), max(begin + 1e-6, (scale.x(span.start + span.seconds) - _LEFT) / wide))
        _cover(edges, begin, end)
        if span.failed:
            failed[min(_COLUMNS - 1, int(end))] += 1
    counts = list(itertools.accumulate(edges))[:_COLUMNS]
    most = max(*counts, 1e-9)
    floor = top + _HEIGHT
    points = "".join(
        f"V{floor - _HEIGHT * min(1.0, max(0.0, count) / most):.1f}H{_LEFT + (number + 1) * wide:.1f}"
        for number, count in enumerate(counts)
    )
    marks = "".join(
        f'<rect x="{_LEFT + number * wide:.1f}" y="{floor - 5:.0f}" width="{max(2.0, wide):.1f}" height="5" '
        f'fill="{_FAILED}"/>'
        for number, count in enumerate(failed)
        if count
    )
    told = f"up to {most:,.0f} at once" if most >= 1.5 else ""
    return (
        f'<path d="M{_LEFT} {floor:.1f}{points}V{floor:.1f}Z" fill="{colour}" fill-opacity="0.8"/>{marks}'
        + (_text(_LEFT - 8, top + 34, told, "end", 9) if told else "")
    )


def _cover(edges: list[float], begin: float, end: float) -> None:
    """Add a span to the differences of a curve, in each column by the share that it covers."""
    first, last = int(begin), min(int(end), _COLUMNS)
    if first == last:
        edges[first] += end - begin
        edges[first + 1] -= end - begin
        return
    share, rest = first + 1 - begin, end - last
    edges[first] += share
    edges[first + 1] += 1.0 - share
    edges[last] += rest - 1.0
    edges[last + 1] -= rest


def _axis(scale: _Scale, top: float) -> list[str]:
    """A line with times below it, and a mark where a long pause was left out."""
    right = scale.x(scale.end)
    line = f'<path d="M{_LEFT} {top:.0f}H{right:.1f}" stroke="{_GREY}" stroke-width="1"/>'
    parts = [line, _text(_LEFT, top + 14, "0", "start"), _text(right, top + 14, took(scale.end), "end")]
    free = [(_LEFT, _LEFT + 20.0), (right - 70.0, right)]
    for start, end in scale.pauses:
        middle = (scale.x(start) + scale.x(end)) / 2
        parts.append(f'<path d="M{middle:.1f} 4V{top:.0f}" stroke="{_GREY}" stroke-dasharray="2 3"/>')
        if all(middle + 50 < one or middle - 50 > other for one, other in free):
            parts.append(_text(middle, top + 14, f"pause of {took(end - start)}", "middle"))
            free.append((middle - 50, middle + 50))
    if not scale.pauses:
        parts += [
            _text(scale.x(scale.end * part), top + 14, took(scale.end * part), "middle")
            for part in (0.25, 0.5, 0.75)
        ]
    return parts


def _text(x: float, y: float, text: str, anchor: str, size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{_GREY}">'
        f"{_safe(text)}</text>"
    )


def _safe(text: str) -> str:
    """Text from models and traces, for XML: no controls, one line."""
    return html.escape(" ".join(printable(text).split()))

"""What must differ when code runs once more: addresses, temporary names, process and thread numbers, counts,
and times.

A time is also data: it counts as one that must differ only if it can have come from the run that printed it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import zip_longest
from typing import NamedTuple

_SLACK = 2.0
"""Seconds around a run in which its own instants lie."""
_UNITS = {
    "ns": 1e-9, "nsec": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "usec": 1e-6, "microseconds": 1e-6,
    "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0,
    "seconds": 1.0, "min": 60.0, "mins": 60.0, "minute": 60.0,
    "minutes": 60.0, "h": 3600.0,
}  # fmt: skip
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?![\\w-])"
_NUMBER = r"\d[\d,]{0,15}+(?:\.\d{1,20}+)?(?:e[+-]\d\d)?"
# Every repetition is bounded and a token starts where no word goes on, so that time is linear whatever the
# text.
_TOKEN = re.compile(
    rf"""(?<![^\W_])(?:
    (?=\d)(?:
      (?P<address>0x[0-9a-fA-F]{{12}}(?!\w)|(?<=\bat\ )0x[0-9a-fA-F]{{6,16}}(?!\w))
    | (?P<uuid>{_UUID})
    | (?P<loops>(?<![.,])\d[\d,]{{0,15}}+\ loops?(?=\ each\)|,\ best\ of))
    | (?P<datetime>(?<=datetime\.datetime\()\d{{4}}(?:,\ \d{{1,6}}){{4,6}})
    | (?P<instant>(?<!\.)(?P<day>\d{{4}}[-/]?\d\d[-/]?\d\d)[T\ _-](?P<time>\d\d:?\d\d(?::?\d\d)?)(?!\d)
        (?:[.,]\d{{1,9}}+)?(?:\ ?(?:Z|UTC)(?!\w)|\ ?(?P<zone>[+-]\d\d:?\d\d)(?!\d))?)
    | (?P<date>(?<![.-])\d{{4}}-\d\d-\d\d(?![\w-])|(?<=datetime\.date\()\d{{4}},\ \d{{1,2}},\ \d{{1,2}}(?=\)))
    | (?P<clock>(?<![.:])\d{{1,2}}:\d\d:\d\d(?:[.,]\d{{1,9}}+)?(?![\w:]))
    | (?P<duration>(?<!\.)(?:\d{{1,4}}+\ ?(?:h|min)\ ?){{0,2}}{_NUMBER}\ ?(?:{_UNIT})(?!\w))
    | (?P<epoch>(?<!\.)(?:\d{{10}}(?:\.\d{{1,9}}+)?|\d{{13}}(?:\.\d{{1,9}}+)?|\d{{16}}|\d{{19}})(?!\w|\.\d))
    )
    | (?=[A-Za-z])(?:
      (?P<letters>{_UUID})
    | (?P<temporary>(?<=/)tmp[a-z0-9_]{{8}}(?!\w))
    | (?P<count>In\ ?\[\d{{1,6}}\])
    | (?P<thread>(?:Thread-\d{{1,9}}|ThreadPoolExecutor-\d{{1,6}}_\d{{1,6}}|started\ (?:daemon\ )?\d{{5,20}})(?!\w))
    | (?P<process>(?:Fork|Spawn|ForkServer)(?:PoolWorker|Process)-\d{{1,7}}(?:[:,]\ ?\d{{1,7}})?(?!\w)
        |(?:(?i:p?pid)["']?(?:\ ?[:=]\ ?|\ )|parent=)\d{{1,7}}(?!\w|\.\d))
    | (?P<cpu>CPU\ times:\ user\ [^\n,]{{1,30}},\ sys:\ [^\n,]{{1,30}},\ total:\ [^\n,]{{1,30}})
    | (?P<ctime>(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\ [A-Z][a-z]{{2}}\ [\ 123]\d\ \d\d:\d\d:\d\d\ (?:UTC\ )?\d{{4}}(?!\d))
    | (?P<stated>(?i:elapsed|took|runtime|time\ taken|wall\ time)(?:[\ _](?:time|seconds))?["']?(?:\ ?[:=])?\ {{0,3}}
        (?P<figure>\d{{1,9}}\.\d{{1,20}}+(?:e[+-]\d\d)?)(?!\w|\ ?(?:{_UNIT})(?!\w)))
    )
    | (?P<source>/tmp/ipykernel_\d{{1,10}}/\d{{1,20}}\.py|<ipython-input-\d{{1,6}}-[0-9a-f]{{12}}>)
    )""",  # noqa: E501
    re.VERBOSE,
)
_PART = re.compile(rf"({_NUMBER}) ?({_UNIT})")
_MARGIN = 150
"""Characters: more than the longest token."""
_TIMES = ("instant", "ctime", "datetime", "date", "clock", "duration", "stated", "epoch")


@dataclass(frozen=True)
class Run:
    """When outputs were made: `started` (aware; a naive one is UTC; None: unknown), and for how many
    `seconds`.
    """

    started: datetime | None = None
    seconds: float | None = None

    @cached_property
    def span(self) -> tuple[float, float] | None:
        """First and last instant, epoch seconds."""
        if self.started is None:
            return None
        first = (self.started if self.started.tzinfo else self.started.replace(tzinfo=UTC)).timestamp()
        return first, first + self.lasted

    @cached_property
    def lasted(self) -> float:
        return (
            self.seconds
            if self.seconds is not None and math.isfinite(self.seconds) and self.seconds > 0
            else 0.0
        )

    def holds(self, instant: float | None, precision: float = 0.0) -> bool:
        """Whether an instant, known to `precision` seconds, lies in the run."""
        if instant is None or self.span is None:
            return False
        return self.span[0] - _SLACK <= instant + precision and instant <= self.span[1] + _SLACK

    def holds_duration(self, seconds: float) -> bool:
        return self.seconds is not None and seconds <= self.lasted * 1.1 + 0.05

    @cached_property
    def days(self) -> list[datetime]:
        try:
            return [datetime.fromtimestamp(instant, UTC) for instant in self.span or ()]
        except (ValueError, OverflowError, OSError):  # a trace may state any number of seconds
            return []


class _Piece(NamedTuple):
    start: int
    kind: str
    """Empty for the text between tokens."""
    text: str
    loose: bool = False
    """A token that must differ."""

    @property
    def key(self) -> tuple[str, str | None]:
        return self.kind, None if self.loose else self.text


def difference(recorded: str, recorded_run: Run, replayed: str, replayed_run: Run) -> tuple[int, int] | None:
    """Where two lines differ in what need not differ: a place in each; None where they are alike."""
    if recorded == replayed:
        return None
    # Long lines are looked at only from the first to the last character that differs, and what a token may
    # take on both sides.
    shorter = min(len(recorded), len(replayed))
    start = max(0, _common(recorded, replayed) - _MARGIN)
    end = max(0, min(_common(recorded[::-1], replayed[::-1]) - _MARGIN, shorter - start))
    ours = _pieces(recorded[start : len(recorded) - end], recorded_run)
    theirs = _pieces(replayed[start : len(replayed) - end], replayed_run)
    for one, other in zip_longest(ours, theirs):
        if one is None or other is None:
            return len(recorded) - end, len(replayed) - end
        if one.kind != other.kind or (one.text != other.text and not (one.loose and other.loose)):
            same = start + _common(one.text, other.text)
            return one.start + same, other.start + same
    return None


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def masked(line: str, run: Run) -> tuple[tuple[str, str | None], ...]:
    """A line without what must differ; lines with equal ones are alike."""
    return tuple(piece.key for piece in _pieces(line, run))


def _pieces(line: str, run: Run) -> Iterator[_Piece]:
    """Text and tokens by turns, with text at both ends.

    Padding beside a token that must differ is left out.
    """
    end, loose = 0, False
    for token, start, stop in _tokens(line):
        before, loose_now = loose, _must_differ(token, run)
        text = line[end:start].rstrip(" ") if loose_now else line[end:start]
        yield _Piece(end, "", text.lstrip(" ") if before else text)
        yield _Piece(
            start,
            "uuid" if token.lastgroup == "letters" else str(token.lastgroup),
            line[start:stop],
            loose_now,
        )
        end, loose = stop, loose_now
    yield _Piece(end, "", line[end:].lstrip(" ") if loose else line[end:])


def _tokens(line: str) -> Iterator[tuple[re.Match[str], int, int]]:
    for token in _TOKEN.finditer(line):
        yield token, *(token.span("figure") if token.lastgroup == "stated" else token.span())


def _must_differ(token: re.Match[str], run: Run) -> bool:
    kind, text = token.lastgroup, token[0]
    if kind not in _TIMES:
        return True
    if kind == "instant":
        return _instant(token, run)
    if kind == "ctime":
        return run.holds(_epoch(text.replace(" UTC", ""), "%a %b %d %H:%M:%S %Y"), 1)
    if kind == "datetime":
        fields = text.split(", ")
        whole = ", ".join(fields[:6]) if len(fields) > 5 else f"{text}, 0"
        return run.holds(_epoch(whole, "%Y, %m, %d, %H, %M, %S"), 1)
    if kind == "date":
        day = "-".join(f"{int(field):02}" for field in re.findall(r"\d+", text))
        return any(day == f"{known:%Y-%m-%d}" for known in run.days)
    if kind == "clock":
        hours, minutes, seconds = (float(field.replace(",", ".")) for field in text.split(":"))
        day_time = f"{int(hours):02}:{int(minutes):02}:{int(seconds):02}"
        of_day = any(
            run.holds(_epoch(f"{day:%Y-%m-%d} {day_time}", "%Y-%m-%d %H:%M:%S"), 1) for day in run.days
        )
        return of_day or run.holds_duration(hours * 3600 + minutes * 60 + seconds)
    if kind == "epoch":
        whole, _, fraction = text.partition(".")
        return run.holds(float(text) / 10 ** (len(whole) - 10), 0 if fraction else 1)
    return run.holds_duration(float(token["figure"]) if kind == "stated" else _seconds(text))


def _instant(token: re.Match[str], run: Run) -> bool:
    digits = re.sub(r"\D", "", token["day"] + token["time"])
    instant = _epoch(digits.ljust(14, "0"), "%Y%m%d%H%M%S")
    if instant is not None and token["zone"]:
        zone = token["zone"].replace(":", "")
        instant -= int(f"{zone[0]}1") * (int(zone[1:3]) * 3600 + int(zone[3:5]) * 60)
    return run.holds(instant, 1 if len(digits) == 14 else 60)


def _epoch(text: str, form: str) -> float | None:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _seconds(text: str) -> float:
    """A duration such as `1min 2.5s`."""
    return sum(float(number.replace(",", "")) * _UNITS[unit] for number, unit in _PART.findall(text))

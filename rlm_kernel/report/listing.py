"""The traces of a folder: when, what was asked, how it ended, what it cost; and totals by month, day or
model.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from rlm_kernel.engine.protocols import Share, Totals
from rlm_kernel.errors import UsageError
from rlm_kernel.trace.heads import Head, NotATrace, head_of, notebooks_in

BATCH_INDEX = "index.jsonl"
"""In the folder of a batch's traces."""
By = Literal["month", "day", "model"]
_SPAN = re.compile(r"(\d{1,6})\s*(min|h|d|w|m|y)", re.IGNORECASE)
_DAYS = {"min": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0, "m": 30.0, "y": 365.0}
_FORMS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
    "%Y-%m",
    "%Y",
)


@dataclass(frozen=True)
class Row:
    """A trace of the list. `how`: answered, limit, failed, interrupted, running or cut off.

    `copy`: an earlier row is of the same run, which is counted once.
    """

    head: Head
    how: str
    copy: bool = False

    def as_json(self) -> dict[str, Any]:
        """As `rlm traces --json` prints it."""
        meta, spent = self.head.meta, self.head.spent
        return {
            "trace": str(self.head.path),
            "created": meta.created.isoformat(),
            "question": meta.question,
            "session": meta.session,
            "name": meta.name,
            "models": meta.models,
            "how": self.how,
            "stop_reason": meta.stop_reason,
            "turns": spent.turns,
            "calls": spent.calls,
            "children": spent.children,
            "tokens": spent.usage.total,
            "cost": spent.cost,
            "known_cost": spent.known_cost,
            "seconds": spent.seconds,
            "size": self.head.size,
            "copy": self.copy,
        }


@dataclass
class Listing:
    """`rows` are the newest first. `foreign`: notebooks of other programs; `damaged`: what cannot be read."""

    rows: list[Row] = field(default_factory=list)
    children: int = 0
    foreign: int = 0
    damaged: int = 0

    def totals(self) -> Totals:
        """Of all rows, each run once; what children have used is in what their parents have used."""
        together = Totals()
        for row in self.rows:
            if not row.copy:
                together += row.head.spent
        return together


@dataclass(frozen=True)
class Wanted:
    """Which traces; None and "" for all. `text` is looked for in question and answer, `model` in the names of
    models, both without regard to case.
    """

    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    model: str = ""
    failed: bool = False

    def takes(self, head: Head, how: str) -> bool:
        meta = head.meta
        return (
            (self.since is None or meta.created >= self.since)
            and (self.until is None or meta.created < self.until)
            and (not self.failed or how not in ("answered", "running"))
            and any(self.model.casefold() in model.casefold() for model in meta.models.values())
            and self.text.casefold() in f"{meta.question}\n{head.answer}".casefold()
        )


def listing(folder: Path, wanted: Wanted = Wanted(), live: Collection[str] = ()) -> Listing:
    """The traces of a folder. `live`: the sessions that are running now. Blocking."""
    found = Listing()
    heads = []
    for path in itertools.chain.from_iterable(map(notebooks_in, _folders(folder))):
        try:
            head = head_of(path, answer=bool(wanted.text))
        except NotATrace as why:
            found.foreign += why.foreign
            found.damaged += not why.foreign
            continue
        if head.is_child:
            found.children += 1
        else:
            heads.append(head)
    seen: set[object] = set()
    for head in sorted(heads, key=lambda one: (one.meta.created, one.changed), reverse=True):
        how = outcome(head, live)
        if wanted.takes(head, how):
            run = _run(head)
            found.rows.append(Row(head, how, run in seen))
            seen.add(run)
    return found


def _folders(folder: Path) -> Iterator[Path]:
    """The folder, and those that a batch has in it: its traces are some hundreds in each."""
    yield folder
    with contextlib.suppress(OSError):
        if (folder / BATCH_INDEX).is_file():
            yield from sorted(one for one in folder.iterdir() if one.name.isdecimal() and one.is_dir())


def _run(head: Head) -> object:
    """By which copies of a trace are known, such as one that a replay wrote."""
    meta, spent = head.meta, head.spent
    return meta.session, meta.created, meta.question, spent.known_cost, spent.usage.total, spent.seconds


def outcome(head: Head, live: Collection[str] = ()) -> str:
    """How a run ended, in a word or two."""
    if head.meta.status == "running":
        return "running" if head.meta.session in live else "cut off"
    reason = head.meta.stop_reason
    if reason in ("answered", None):
        return "answered"
    if reason in ("interrupted",):
        return "interrupted"
    return "failed" if reason in ("error", "no_answer") and not head.meta.forced else "limit"


@dataclass
class Sum:
    """What a group of runs has used together."""

    runs: int = 0
    calls: int = 0
    tokens: int = 0
    known_cost: float = 0.0
    unpriced: int = 0
    seconds: float = 0.0

    def add(self, calls: int, tokens: int, known_cost: float, unpriced: int, seconds: float = 0.0) -> None:
        """Count one run more."""
        self.runs += 1
        self.calls += calls
        self.tokens += tokens
        self.known_cost += known_cost
        self.unpriced += unpriced
        self.seconds += seconds


def sums(rows: Iterable[Row], by: By) -> dict[str, Sum]:
    """Totals by month or day (of the local time in which a run began, the newest first), or by model (the
    dearest first). `calls` are all calls of models.
    """
    found: dict[str, Sum] = {}
    for row in rows:
        if row.copy:
            continue
        spent = row.head.spent
        if by == "model":
            for model, share in _by_model(row.head).items():
                one = found.setdefault(model, Sum())
                one.add(share.calls, share.usage.total, share.known_cost, share.unpriced)
            continue
        name = row.head.meta.created.astimezone().strftime("%Y-%m" if by == "month" else "%Y-%m-%d")
        calls = spent.turns + spent.calls
        found.setdefault(name, Sum()).add(
            calls, spent.usage.total, spent.known_cost, spent.unpriced, spent.seconds
        )
    if by == "model":
        return dict(sorted(found.items(), key=lambda one: (-one[1].known_cost, -one[1].tokens, one[0])))
    return dict(sorted(found.items(), reverse=True))


def _by_model(head: Head) -> dict[str, Share]:
    """What each model has used, by its full name: two roles may have one model."""
    shares: dict[str, Share] = {}
    models = head.spent.models or {
        "root": Share(head.spent.turns, head.spent.usage, head.spent.known_cost, head.spent.unpriced)
    }
    for role, share in models.items():
        name = head.meta.models.get(role) or role
        shares[name] = shares.get(name, Share()) + share
    return shares


def instant(text: str, *, end: bool = False, now: datetime | None = None) -> datetime:
    """A time as people type it: `30d` ago (also min, h, w, m, y), `2026-10-01`, `2026-10`,
    `2026-10-01 14:00`, `today`, `yesterday`; in local time, if it names no zone.

    `end`: the end of what is named, a day or a month. Raises UsageError.
    """
    now = now or datetime.now(UTC)
    given = text.strip()
    today = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        if given.lower() in ("today", "yesterday"):
            begin = today - timedelta(days=given.lower() == "yesterday")
            return begin + timedelta(days=1) if end else begin
        if found := _SPAN.fullmatch(given):
            return now - timedelta(days=int(found[1]) * _DAYS[found[2].lower()])
        for form in _FORMS:
            try:
                begin = datetime.strptime(given, form)
            except ValueError:
                continue
            return (_after(begin, form) if end else begin).astimezone()
        return datetime.fromisoformat(given).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{text!r} is not a time that rlm understands.",
            hint="For example: 30d, 12h, 2026-10-01, 2026-10, today, yesterday.",
        ) from error


def _after(begin: datetime, form: str) -> datetime:
    """The end of the day, month or year that was named; of a time, itself."""
    if form == "%Y":
        return begin.replace(year=begin.year + 1)
    if form == "%Y-%m":
        return (begin.replace(day=28) + timedelta(days=4)).replace(day=1)
    return begin + timedelta(days=1) if form == "%Y-%m-%d" else begin

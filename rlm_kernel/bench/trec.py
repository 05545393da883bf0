"""Windows of OOLONG's form: dated questions of users, each of one of six kinds that stand nowhere in the
text.

The pool is a file of the TREC question classification, a line each: `LABEL:sub question`, in Latin-1. Source
of the form: OOLONG's synthetic task `trec_coarse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from math import exp
from pathlib import Path
from random import Random

from rlm_kernel.bench.task import CHARS_PER_TOKEN
from rlm_kernel.errors import UsageError

LABELS = {
    "ABBR": "abbreviation",
    "ENTY": "entity",
    "DESC": "description and abstract concept",
    "HUM": "human being",
    "LOC": "location",
    "NUM": "numeric value",
}
FIRST, LAST = date(2022, 2, 16), date(2025, 6, 21)
_FILLED = 0.95
_COMMON_USERS = 0.1
"""As many common users as this share of the lines; they have `_COMMON_LINES` of them."""
_COMMON_LINES = 0.8
_HEADER = (
    "The following lines contain {count} general-knowledge questions, one per line. Each question has an "
    "answer that can be described as "
    "one of 6 categories: {labels}. Each line has a date, the id of the user who asked, and the question. "
    "You are to answer what is asked "
    "about them as a whole; compute it, do not estimate it.\n\n"
)
_FOOTER = (
    "\nThese were {count} general-knowledge questions, each with an answer of one of the 6 "
    "categories: {labels}.\n"
)

Pool = Mapping[str, Sequence[str]]
"""Questions by label."""


@dataclass(frozen=True)
class Line:
    """A question of a window. `label` in words."""

    day: date
    user: int
    label: str
    question: str


@dataclass(frozen=True)
class Window:
    """A text, and what it is made of. `number` tells the windows of one length apart."""

    number: int
    lines: Sequence[Line]

    @cached_property
    def text(self) -> str:
        names = ", ".join(f"'{label}'" for label in LABELS.values())
        body = "".join(
            f"Date: {line.day:%b %d, %Y} || User: {line.user} || Instance: {line.question}\n"
            for line in self.lines
        )
        count = len(self.lines)
        return _HEADER.format(count=count, labels=names) + body + _FOOTER.format(count=count, labels=names)


def read_pool(path: Path | None) -> Pool:
    """The questions of a TREC file, by label in words. Raises UsageError."""
    hint = (
        "Give --trec a file of the TREC question classification, such as train_5500.label: a line each, "
        "LABEL:sub question."
    )
    if path is None:
        raise UsageError(
            "This suite needs questions to make its texts of, which are not part of rlm_kernel.", hint=hint
        )
    try:
        text = path.read_text("latin-1")
    except OSError as error:
        raise UsageError(f"The questions in {path} cannot be read: {error.strerror}.", hint=hint) from error
    pool: dict[str, list[str]] = {label: [] for label in LABELS.values()}
    for line in text.splitlines():
        head, _, question = line.partition(" ")
        if (label := LABELS.get(head.partition(":")[0])) and question.strip():
            pool[label].append(" ".join(question.split()))
    whose: dict[str, set[str]] = {}
    for label, questions in pool.items():
        for question in questions:
            whose.setdefault(question, set()).add(label)
    # One that has two labels has no right answer.
    pool = {
        label: [question for question in questions if len(whose[question]) == 1]
        for label, questions in pool.items()
    }
    if missing := [label for label, questions in pool.items() if not questions]:
        raise UsageError(f"{path} has no question of the kind {' or '.join(missing)}.", hint=hint)
    return pool


def window(pool: Pool, tokens: int, seed: int, number: int, users: int | None = None) -> Window:
    """A window, filled to 95 % of so many tokens.

    `users`: how many common ones, and three times as many others, at most.
    """
    random = Random(f"trec {seed} {tokens} {number} {users}")
    room = int(_FILLED * tokens * CHARS_PER_TOKEN) - len(_HEADER) - len(_FOOTER) - 240
    weights = [exp(random.randint(0, 3)) for _ in LABELS]
    mean = sum(len(question) for questions in pool.values() for question in questions) / sum(
        map(len, pool.values())
    )
    common = max(2, int(_COMMON_USERS * room / (mean + 50)))
    ids = random.sample(range(10_000, 100_000), min(common, users or common) * 4 if users else common)
    often, seldom = (ids[: len(ids) // 4], ids[len(ids) // 4 :]) if users else (ids, range(10_000, 100_000))
    lines: list[Line] = []
    days = (LAST - FIRST).days
    while True:
        label = random.choices(tuple(LABELS.values()), weights)[0]
        user = random.choice(often) if random.random() < _COMMON_LINES else random.choice(seldom)
        line = Line(FIRST + timedelta(days=random.randint(0, days)), user, label, random.choice(pool[label]))
        room -= len(line.question) + 50
        if room < 0 and lines:
            return Window(number, lines)
        lines.append(line)

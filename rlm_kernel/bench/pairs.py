"""OOLONG-Pairs: all pairs of users that have lines of certain kinds, over OOLONG's windows. Twenty queries.

Source: the paper on recursive language models (arXiv 2512.24601), appendix. To keep the answers writable at
any length, a window has no more than 400 users, about as many as one of 32K tokens has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path

from rlm_kernel.bench.task import Task
from rlm_kernel.bench.trec import LABELS, Line, Window, read_pool, window

USERS = 100
"""Common ones; three times as many others."""
_LETTERS = {"A": "ABBR", "E": "ENTY", "D": "DESC", "H": "HUM", "L": "LOC", "N": "NUM"}
_FORM = (
    "List all pairs of user ids (no duplicate pairs, the lower id first) such that {condition}. Each "
    "question's answer is of one of the "
    "6 categories; determine them by what the questions ask. Give one pair on each line, in the form "
    "(user_id_1, user_id_2), and nothing "
    "else."
)


@dataclass(frozen=True)
class Has:
    """A condition on one user: so many lines of a kind; `exactly`, or at least."""

    letter: str
    number: int = 1
    exactly: bool = False

    def holds(self, lines: Sequence[Line]) -> bool:
        found = sum(line.label == LABELS[_LETTERS[self.letter]] for line in lines)
        return found == self.number if self.exactly else found >= self.number

    def worded(self) -> str:
        label = LABELS[_LETTERS[self.letter]]
        return (
            f"{'exactly' if self.exactly else 'at least'} {self.number} "
            f"question{'s' * (self.number > 1)} of the kind '{label}'"
        )


@dataclass(frozen=True)
class Dated:
    """All lines of a kind that a user has are after a day, or before it; strictly, and true of a user without
    such a line.
    """

    letter: str
    day: date
    before: bool = False

    def holds(self, lines: Sequence[Line]) -> bool:
        days = [line.day for line in lines if line.label == LABELS[_LETTERS[self.letter]]]
        return all(day < self.day if self.before else day > self.day for day in days)

    def worded(self) -> str:
        when = f"{'before' if self.before else 'after'} {self.day:%b %d, %Y}"
        return f"all questions of the kind '{LABELS[_LETTERS[self.letter]]}' that they have are {when}"


_BOTH: tuple[tuple[str, Dated | None], ...] = (
    ("NL", None),
    ("EH", None),
    ("DA", None),
    ("HL", Dated("H", date(2023, 1, 6))),
    ("EN", Dated("E", date(2023, 3, 15), before=True)),
    ("LA", None),
    ("DN", Dated("N", date(2023, 2, 1))),
    ("HD", None),
    ("EL", Dated("L", date(2023, 4, 10))),
    ("NA", Dated("A", date(2023, 5, 20), before=True)),
)
_ONE_AND_OTHER: tuple[tuple[tuple[Has, ...], tuple[Has, ...]], ...] = (
    ((Has("E"), Has("A")), (Has("E", 1, exactly=True),)),
    ((Has("N", 2),), (Has("L"), Has("H"))),
    ((Has("D", 1, exactly=True),), (Has("A"), Has("E"))),
    ((Has("H"), Has("N")), (Has("L", 2, exactly=True),)),
    ((Has("E"), Has("L"), Has("A")), (Has("N", 1, exactly=True),)),
    ((Has("D"), Has("H")), (Has("E", 2), Has("A", 1, exactly=True))),
    ((Has("N", 1, exactly=True),), (Has("L"), Has("D"))),
    ((Has("A"), Has("H", 1, exactly=True)), (Has("E"), Has("N"))),
    ((Has("L", 2), Has("E")), (Has("D", 1, exactly=True), Has("A", 1, exactly=True))),
    ((Has("N"), Has("H")), (Has("L"), Has("E"), Has("A", 1, exactly=True))),
)
QUERIES = len(_BOTH) + len(_ONE_AND_OTHER)


def query(number: int) -> tuple[str, Callable[[dict[int, list[Line]]], list[tuple[int, int]]]]:
    """The question of that number, from 1, and what finds its pairs in the lines by user."""
    if number <= len(_BOTH):
        return _both(*_BOTH[number - 1])
    return _one_and_other(*_ONE_AND_OTHER[number - 1 - len(_BOTH)])


def _both(
    letters: str, dated: Dated | None
) -> tuple[str, Callable[[dict[int, list[Line]]], list[tuple[int, int]]]]:
    kinds = " or ".join(f"'{LABELS[_LETTERS[letter]]}'" for letter in letters)
    condition = f"both users have at least one question of the kind {kinds}" + (
        f", and for both, {dated.worded()}" if dated else ""
    )

    def holds(lines: Sequence[Line]) -> bool:
        return any(Has(letter).holds(lines) for letter in letters) and (dated is None or dated.holds(lines))

    def found(users: dict[int, list[Line]]) -> list[tuple[int, int]]:
        return list(combinations(sorted(user for user, lines in users.items() if holds(lines)), 2))

    return _FORM.format(condition=condition), found


def _one_and_other(
    one: Sequence[Has], other: Sequence[Has]
) -> tuple[str, Callable[[dict[int, list[Line]]], list[tuple[int, int]]]]:
    condition = (
        f"one user has {' and '.join(has.worded() for has in one)}, and the other user has "
        f"{' and '.join(has.worded() for has in other)}"
    )

    def found(users: dict[int, list[Line]]) -> list[tuple[int, int]]:
        ones = {user for user, lines in users.items() if all(has.holds(lines) for has in one)}
        others = {user for user, lines in users.items() if all(has.holds(lines) for has in other)}
        return sorted({(min(a, b), max(a, b)) for a in ones for b in others if a != b})

    return _FORM.format(condition=condition), found


def by_user(made: Window) -> dict[int, list[Line]]:
    """The lines of each user."""
    users: dict[int, list[Line]] = defaultdict(list)
    for line in made.lines:
        users[line.user].append(line)
    return users


def tasks(length: int, count: int, seed: int, trec: Path | None) -> Iterator[Task]:
    """So many queries, the twenty on one window of `length` tokens and then on the next.

    Raises UsageError.
    """
    pool = read_pool(trec)
    made = window(pool, length, seed, 0, USERS)
    for place in range(count):
        if place and place % QUERIES == 0:
            made = window(pool, length, seed, place // QUERIES, USERS)
        number = place % QUERIES + 1
        question, found = query(number)
        expected = [list(pair) for pair in found(by_user(made))]
        kind = "both" if number <= len(_BOTH) else "one and other"
        yield Task(
            f"pairs-{seed}-{length}-{place:03d}",
            "pairs",
            kind,
            question,
            expected,
            "pairs",
            {"questions.txt": made.text},
            length=length,
        )

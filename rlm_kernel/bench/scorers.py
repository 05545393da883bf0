"""How an answer is judged: a number from 0 to 1. An answer may be anything that a model says, or nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

_NUMBER = re.compile(r"(?<![\w.,-])-?\d[\d,]*(?:\.\d+)?(?![\w,]*\d)")
_PAIR = re.compile(r"\(\s*(\d{1,18})\s*,\s*(\d{1,18})\s*\)")
_DATES = ("%m/%d/%Y", "%Y-%m-%d", "%b %d, %Y", "%B %d, %Y", "%d %B %Y")
_PARTIAL = 0.75
"""Of a number's score, for each by which it is wrong: OOLONG's rule."""


def score(scorer: str, expected: Any, answer: str | None) -> float:
    """The score of an answer. Raises KeyError for a scorer that there is not."""
    return SCORERS[scorer](expected, (answer or "").strip())


def contains(expected: Any, answer: str) -> float:
    """1 if the expected text occurs in the answer, in any case (RULER)."""
    return float(str(expected).casefold() in answer.casefold())


def exact(expected: Any, answer: str) -> float:
    """1 for the very text, but for case, spaces and quotes around it."""
    return float(_plain(answer) == _plain(str(expected)))


def number(expected: Any, answer: str) -> float:
    """1 if the answer holds one number, and that is the expected one."""
    found = _NUMBER.findall(answer)
    return float(len(found) == 1 and abs(_float(found[0]) - float(expected)) < 1e-6)


def oolong(expected: Any, answer: str) -> float:
    """What follows the last colon, without `*[]`: a date as one, a number 0.75 to the power of its error,
    else the very text (OOLONG).
    """
    said = re.sub(r"[*\[\]]", "", answer.rpartition(":")[2]).strip().rstrip(".").strip()
    wanted = str(expected).strip()
    if (day := _date(wanted)) is not None:
        return float(_date(said) == day)
    if re.fullmatch(r"-?\d+", wanted):
        return _PARTIAL ** abs(int(wanted) - int(said)) if re.fullmatch(r"-?\d{1,9}", said) else 0.0
    return float(said.casefold() == wanted.casefold())


def pairs(expected: Any, answer: str) -> float:
    """F1 over the pairs `(a, b)` of the answer, in any order within a pair; 1 where none is expected and none
    is given (OOLONG-Pairs).
    """
    wanted = {_pair(a, b) for a, b in expected}
    given = {_pair(int(a), int(b)) for a, b in _PAIR.findall(answer)}
    if not wanted and not given:
        return 1.0
    right = len(wanted & given)
    return 2 * right / (len(wanted) + len(given))


def copy(expected: Any, answer: str) -> float:
    """How much of a text was copied, by lines: twice the characters of the lines that match, in order,
    through those of both texts.
    """
    wanted, given = str(expected).strip().splitlines(), answer.splitlines()
    blocks = difflib.SequenceMatcher(None, wanted, given, autojunk=False).get_matching_blocks()
    matched = sum(len(line) + 1 for block in blocks for line in wanted[block.a : block.a + block.size])
    total = sum(len(line) + 1 for line in (*wanted, *given))
    return 2 * matched / total if total else 1.0


SCORERS: dict[str, Callable[[Any, str], float]] = {
    "contains": contains,
    "exact": exact,
    "number": number,
    "oolong": oolong,
    "pairs": pairs,
    "copy": copy,
}


def _plain(text: str) -> str:
    return " ".join(text.split()).strip("\"'`.").strip().casefold()


def _float(text: str) -> float:
    return float(text.replace(",", ""))


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _date(text: str) -> datetime | None:
    for form in _DATES:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None

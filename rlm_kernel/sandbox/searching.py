"""A search of the files that a kernel has loaded, asked by the host: no model takes part, and no variable of
the kernel changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlm_kernel.checked import integer, known, text
from rlm_kernel.errors import UsageError

MAX_HITS = 150
MAX_PATTERN = 1_000
"""Characters."""
_AS_CODE = " Use regex=False to search for it as it stands."
"""What code in the kernel is told, and a client cannot do."""
_LINE, _FILE, _WHY = 300, 300, 500
"""Characters of a hit's line and of its file's name, and of what is wrong."""
_CODE = """
from rlm_runtime.files import grep
try:
    found = [
        (
            str(hit.file)[-{name}:],
            hit.line,
            hit.text if len(hit.text) <= {width} else hit.around({width} // 3)[:{width}],
        )
        for hit in grep(pattern, file, ignore_case=ignore_case, limit=limit + 1)
    ]
except (ValueError, KeyError, RecursionError, OverflowError) as error:
    found = str(error)[:{why}] or type(error).__name__
"""
_EXPRESSION = "(lambda given: (exec({code!r}, given), given['found'])[1])({given!r})"


@dataclass(frozen=True)
class Hit:
    """A line that matched: its file, its number from 1, and what it says, cut where it is long."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Found:
    """The first hits. `more`: there are others."""

    hits: tuple[Hit, ...]
    more: bool


@dataclass(frozen=True)
class Search:
    """A regular expression to look for in all loaded files, or in one; `limit` of hits.

    Raises UsageError for a pattern that is too long.
    """

    pattern: str
    file: str | None = None
    ignore_case: bool = False
    limit: int = 50

    def __post_init__(self) -> None:
        if not 0 < len(self.pattern) <= MAX_PATTERN:
            raise UsageError(
                f"A pattern has 1 to {MAX_PATTERN:,} characters, and this has {len(self.pattern):,}."
            )
        if not 1 <= self.limit <= MAX_HITS:
            raise UsageError(f"A search gives 1 to {MAX_HITS} hits, and not {self.limit}.")

    def expression(self) -> str:
        """The Python expression that searches, in a kernel."""
        given = {
            "pattern": self.pattern,
            "file": self.file,
            "ignore_case": self.ignore_case,
            "limit": self.limit,
        }
        return _EXPRESSION.format(code=_CODE.format(name=_FILE, width=_LINE, why=_WHY), given=given)


def found_of(told: Any, wanted: Search) -> Found | None:
    """What a kernel tells of a search; None for what is no answer. Raises UsageError, which has its words
    where it could not search.
    """
    if type(told) is str:
        why = text(told)[:_WHY].removesuffix(_AS_CODE)
        hint = "Put a backslash before ( or [ to search for it as it stands." if why != told else ""
        raise UsageError(f"The kernel cannot search for that: {why}", hint=hint)
    if type(told) is not list:
        return None
    return Found(tuple(known(_hit, told[: wanted.limit])), len(told) > wanted.limit)


def _hit(one: Any) -> Hit:
    if type(one) is not tuple or len(one) != 3:
        raise ValueError("no hit")
    return Hit(text(one[0])[:_FILE], integer(one[1], 1), text(one[2])[:_LINE])

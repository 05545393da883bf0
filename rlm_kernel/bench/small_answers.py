"""What the answers of the easy tasks are reckoned with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from rlm_kernel.bench.small_texts import Record

Asked = tuple[str, Mapping[str, str], Any, str]
"""Question, texts by name, the answer, and how it is scored."""


class Tie(Exception):
    """Two answers would be right."""


def tie() -> Any:
    """Raises Tie, where a value is due."""
    raise Tie


def best(scores: Mapping[str, float], *, least: bool = False) -> str:
    """Who has most, or least. Raises Tie."""
    ranked = sorted(scores.items(), key=lambda item: item[1], reverse=not least)
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        raise Tie
    return ranked[0][0]


def totals(
    records: Sequence[Record], by: str, value: Callable[[Record], float] = lambda _: 1
) -> dict[str, float]:
    """The sum of a value for each group, or how many records it has."""
    found: dict[str, float] = {}
    for record in records:
        found[record[by]] = found.get(record[by], 0) + value(record)
    return found


def with_line(texts: Mapping[str, str], line: str, random: Random) -> dict[str, str]:
    """The one text with a line more, somewhere in its middle."""
    ((file, text),) = texts.items()
    lines = text.splitlines()
    lines.insert(random.randint(len(lines) // 4, 3 * len(lines) // 4), line)
    return {file: "\n".join(lines) + "\n"}

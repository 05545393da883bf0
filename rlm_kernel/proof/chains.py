"""From matches to passages: pieces that belong together are one, and the same passage has all its places."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LEAST = 24
"""Bytes of the normal form that a passage has at least: fewer are in a prompt by chance."""
_GAP = 64
"""Bytes between pieces of one passage: numbers of lines, labels, a word that was replaced."""
_NEARLY, _FEW = 0.95, 16
"""How much of a passage, or how few bytes less, another place holds that counts as a place of the same."""
_NEIGHBOURS = 4


class Match(NamedTuple):
    """A piece of a text (bytes `start` to `end`) that stands in a source (bytes `low` to `high`).

    `line`: its number there. `size`: bytes of the normal form. `exact`: it is the same byte for byte, as
    UTF-8.
    """

    start: int
    end: int
    source: int
    low: int
    high: int
    line: int
    size: int
    exact: bool


@dataclass
class Run:
    """A part of a text with all places where it stands."""

    start: int
    end: int
    size: int
    places: list[Match] = field(default_factory=list)


def runs(matches: Iterable[Match], length: int) -> list[Run]:
    """The passages of a text of so many bytes, in its order.

    The longest matches come first; a shorter one counts for what these do not cover. None is chosen from
    places that hold the same: a passage has them all.
    """
    taken: list[Run] = []
    covered = bytearray(length)
    found = [chain for chain in _chains(matches) if chain.size >= LEAST]
    for chain in sorted(found, key=lambda one: (-one.size, one.source, one.low, one.start)):
        if covered.count(0, chain.start, chain.end) >= LEAST:
            at = bisect_right(taken, chain.start, key=lambda one: one.start)
            taken.insert(at, Run(chain.start, chain.end, chain.size, [chain]))
            covered[chain.start : chain.end] = b"\1" * (chain.end - chain.start)
        elif (run := _run_of(taken, chain)) is not None:
            run.places.append(chain)
    for run in taken:
        run.places.sort(key=lambda one: (one.source, one.low))
    return taken


def _run_of(taken: Sequence[Run], chain: Match) -> Run | None:
    """The passage of which a match is another place."""
    at = bisect_right(taken, chain.start + _FEW, key=lambda one: one.start)
    for run in taken[max(0, at - _NEIGHBOURS) : at]:
        inside = run.start - _FEW <= chain.start and chain.end <= run.end + _FEW
        same = chain.size >= _NEARLY * run.size or chain.size + _FEW >= run.size
        if inside and same and not any(_overlap(chain, place) for place in run.places):
            return run
    return None


def _overlap(one: Match, other: Match) -> bool:
    return one.source == other.source and one.low < other.high and other.low < one.high


def _chains(matches: Iterable[Match]) -> list[Match]:
    """Matches that follow one another in text and source, as one."""
    done: list[Match] = []
    going: dict[int, list[Match]] = {}
    for match in sorted(matches, key=lambda one: (one.start, -one.size)):
        near: list[Match] = []
        for chain in going.get(match.source, ()):
            (near if chain.end + _GAP >= match.start else done).append(chain)
        going[match.source] = near
        best = min(
            (at for at, chain in enumerate(near) if _follows(chain, match)),
            key=lambda at: abs(match.low - near[at].high) + abs(match.start - near[at].end),
            default=None,
        )
        if best is not None:
            near[best] = _joined(near[best], match)
        elif not any(_holds(chain, match) for chain in near):
            near.append(match)
    return [*done, *(chain for near in going.values() for chain in near)]


def _follows(chain: Match, match: Match) -> bool:
    here, there = match.start - chain.end, match.low - chain.high
    onwards = match.end > chain.end and match.high > chain.high and match.low > chain.low
    # Both far back: they overlap where two parts of a file do.
    return onwards and max(here, there) <= _GAP and (abs(here - there) <= _GAP or max(here, there) < -_GAP)


def _holds(chain: Match, match: Match) -> bool:
    return (
        chain.start <= match.start
        and match.end <= chain.end
        and chain.low <= match.low
        and match.high <= chain.high
    )


def _joined(chain: Match, match: Match) -> Match:
    overlap = max(0, chain.end - match.start)
    gap = match.start != chain.end or match.low != chain.high
    return chain._replace(
        end=match.end,
        high=match.high,
        size=chain.size + max(0, match.size - overlap),
        exact=chain.exact
        and match.exact
        and (not gap or match.start - chain.end == match.low - chain.high < 0),
    )

"""From matches to passages: pieces that belong together are one, and the same passage has all its places."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlm_kernel.proof.normal import Normal

LEAST = 24
"""Bytes of the normal form that a passage has at least: fewer are in a prompt by chance."""
_LABEL = 64
"""Bytes of a text before each line or field of a passage that are not of it: numbers, names, marks."""
BEHIND = 256
"""Bytes of a source between pieces of one passage: lines and fields too short to be found by themselves."""
_BETWEEN = 2 * BEHIND
"""Bytes of a text between pieces of one passage."""
_WORDS = re.compile(rb"[\x00-/:-@\[-`{-\x7f]+")
_REPLACED = 4
"""Bytes of the normal form that a text may lack between pieces of one passage: a letter in another form."""
_NEARLY, _FEW = 0.95, 16
"""How much of a passage, or how few bytes less, another place holds that counts as a place of the same."""
_NEIGHBOURS = 4


class Match(NamedTuple):
    """A piece of a text (bytes `start` to `end`) that stands in a source (bytes `low` to `high`).

    `line`: its number there. `size`: bytes of the normal form. `exact`: it is the same byte for byte, as
    UTF-8. `behind`: what the source has behind it, in UTF-8. `encoding`: the source's, whose bytes
    `low` and `high` count.
    """

    start: int
    end: int
    source: int
    low: int
    high: int
    line: int
    size: int
    exact: bool
    behind: bytes = b""
    encoding: str = "utf-8"


@dataclass
class Run:
    """A part of a text with all places where it stands."""

    start: int
    end: int
    size: int
    places: list[Match] = field(default_factory=list)


def runs(matches: Iterable[Match], text: bytes) -> list[Run]:
    """The passages of a text in UTF-8, in its order.

    The longest matches come first; a shorter one counts for what these do not cover. None is chosen from
    places that hold the same: a passage has them all.
    """
    taken: list[Run] = []
    covered = bytearray(len(text))
    found = [chain for chain in _chains(matches, text) if chain.size >= LEAST]
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


def _chains(matches: Iterable[Match], text: bytes) -> list[Match]:
    """Matches that follow one another in text and source, as one."""
    done: list[Match] = []
    going: dict[int, list[Match]] = {}
    for match in sorted(matches, key=lambda one: (one.start, -one.size)):
        near: list[Match] = []
        for chain in going.get(match.source, ()):
            (near if chain.end + _BETWEEN >= match.start else done).append(chain)
        going[match.source] = near
        best = min(
            (at for at, chain in enumerate(near) if _follows(chain, match, text)),
            key=lambda at: abs(match.low - near[at].high) + abs(match.start - near[at].end),
            default=None,
        )
        if best is not None:
            near[best] = _joined(near[best], match)
        elif not any(_holds(chain, match) for chain in near):
            near.append(match)
    return [*done, *(chain for near in going.values() for chain in near)]


def _follows(chain: Match, match: Match, text: bytes) -> bool:
    """Whether both are of one passage: the text has all that the source has between them."""
    here, there = match.start - chain.end, match.low - chain.high
    if not (match.end > chain.end and match.high > chain.high and match.low > chain.low):
        return False
    if max(here, there) < -_LABEL:
        return True  # both far back: they overlap where two parts of a file do
    if here > _BETWEEN or there > BEHIND or here - there < -_LABEL:
        return False
    if there <= 0:
        return here - there <= _LABEL
    words = [word for word in _WORDS.split(_behind(chain, there)) if word]
    return here - there <= _LABEL * (len(words) + 1) and _has(text[chain.end : match.start], words)


def _behind(chain: Match, size: int) -> bytes:
    """So many bytes of the source behind a match, in UTF-8."""
    if chain.encoding == "utf-8":
        return chain.behind[:size]
    raw = chain.behind.decode("utf-8", "ignore").encode(chain.encoding, "ignore")
    return raw[:size].decode(chain.encoding, "ignore").encode("utf-8")


def _has(text: bytes, words: Sequence[bytes]) -> bool:
    """Whether a text has the words in their order, but for little."""
    there, at, lacking = Normal(text).text, 0, 0
    for word in words:
        wanted = Normal(word).text
        found = there.find(wanted, at)
        if found < 0:
            lacking += len(wanted)
        else:
            at = found + len(wanted)
    return lacking <= _REPLACED


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
        behind=match.behind,
        exact=chain.exact
        and match.exact
        and (not gap or match.start - chain.end == match.low - chain.high < 0),
    )

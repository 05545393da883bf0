"""Where the pieces of an answer were seen before: in answers of calls, outputs of cells, passages of files.

What was seen is no proof of how the answer came about: code may have computed it, or a model guessed it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import without_marks
from rlm_kernel.proof.findings import AnswerSources, CallSources, Passage, Piece, Seen, Sources, Support
from rlm_kernel.proof.normal import Normal
from rlm_kernel.proof.pieces import MOST_PIECES, pieces, plain, words_of
from rlm_kernel.proof.sources import answer_text
from rlm_kernel.trace.calls import delivered
from rlm_kernel.trace.prompts import PromptFile, open_prompts
from rlm_kernel.trace.reader import TraceFile, numbered
from rlm_kernel.trace.schema import CallMeta

MOST_SEEN = 10
"""Calls and cells that are named for a piece."""
_ROOM = 64_000_000
"""Characters of answers and outputs that are looked into."""
_MOST_HITS = 1_000
_LONG, _TELLING = 24, 5
"""Bytes of a normal form that are hardly there by chance, and characters that are not where few hold them."""
_AROUND = 150
"""Bytes of a passage that are shown on each side of a word."""


def answer_of(trace: TraceFile) -> str | None:
    """The last answer of a trace; None without one. It has no marks of evidence: `[1]` is no number of it."""
    cell = next((one for one in reversed(trace.cells) if one.kind == "answer"), None)
    if cell is None or cell.meta is None or cell.meta.text is None:
        return None
    return str(without_marks(cell.meta.text, [one.evidence() for one in cell.meta.evidence]))


def answer_sources(trace: TraceFile, sources: Sources) -> AnswerSources:
    """Where the pieces of the last answer were seen. Blocking.

    Args:
        trace: The trace.
        sources: What `call_sources` found in it, with the answer.
    """
    answer = answer_of(trace)
    cell = next((one.id for one in reversed(trace.code_cells) if one.meta and delivered(one.meta)), "")
    if not answer:
        return AnswerSources(cell, ())
    found = list(pieces(answer))
    calls = {number: call for number, _, call in numbered(trace.cells)}
    texts = _Texts(list(_texts(trace)))
    with open_prompts(trace) as prompts:
        held = _Held(sources, calls, prompts)
        made = tuple(_piece(label, text, texts, held) for label, text in found[:MOST_PIECES])
    return AnswerSources(cell, made, max(0, len(found) - MOST_PIECES))


@dataclass(frozen=True)
class _Text:
    call: int
    cell: str
    text: str


def _texts(trace: TraceFile) -> Iterator[_Text]:
    """Answers of calls and outputs of cells, up to a bound."""
    room = _ROOM
    for number, cell, call in numbered(trace.cells):
        text = answer_text(call)
        room -= len(text)
        if text and room > 0:
            yield _Text(number, cell.id, text)
    for cell in trace.code_cells:
        text = output_text(cell.outputs) if cell.outputs and cell.kind in ("code", "person") else ""
        room -= len(text)
        if text and room > 0:
            yield _Text(0, cell.id, text)


class _Texts:
    """Many texts in which one is looked for at once."""

    def __init__(self, texts: Sequence[_Text]) -> None:
        self.texts = texts
        low = [one.text.lower() for one in texts]
        normal = [Normal(_raw(one.text)).text for one in texts]
        self._low, self._normal = "\0".join(low), b"\0".join(normal)
        self._low_ends, self._ends = _ends(low), _ends(normal)

    def holding(self, needle: str) -> list[int]:
        """Which texts hold this: to the letter, as a word of its own, where it is short."""
        normal = Normal(_raw(needle)).text
        found: dict[int, None] = {}
        if len(normal) >= _LONG:
            for at in _places(self._normal, normal):
                found[bisect_right(self._ends, at)] = None
        else:
            low = needle.lower()
            for form in dict.fromkeys((low, low.replace(",", ""))):
                for at in _places(self._low, form):
                    if _alone(self._low, at, at + len(form)):
                        found[bisect_right(self._low_ends, at)] = None
        return list(found)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _ends(texts: Sequence[str] | Sequence[bytes]) -> list[int]:
    """Where each text ends when they are joined by one character."""
    return list(accumulate(len(one) + 1 for one in texts))


def _places(text: Any, needle: Any) -> Iterator[int]:
    at, count = -1, 0
    while needle and count < _MOST_HITS and (at := text.find(needle, at + 1)) >= 0:
        yield at
        count += 1


def _alone(text: str, start: int, end: int) -> bool:
    """Whether it is no part of a longer word or number."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    inside = before[-1:].isalnum() or after[:1].isalnum()
    number = text[start].isdigit() and before[-1:] in (".", ",") and before[:1].isdigit()
    return not inside and not number and not (after[:1] in (".", ",") and after[1:].isdigit())


class _Held:
    """What the prompts of calls held, in full."""

    def __init__(self, sources: Sources, calls: Mapping[int, CallMeta], prompts: PromptFile) -> None:
        self._sources, self._calls, self._prompts = sources, calls, prompts
        self.words = sources.words
        self._texts = lru_cache(maxsize=64)(self._texts_of)

    def support(self, piece: str, seen: Sequence[Seen]) -> tuple[Support, ...]:
        """The passages that the answer itself has, and those with words that calls gave back."""
        form = Normal(_raw(piece)).text
        found = [
            Support((), one, one.text)
            for one in self._sources.answer
            if Normal(_raw(one.text)).text in form or form in Normal(_raw(one.text)).text
        ]
        known: dict[tuple[object, ...], Support] = {}
        for one in seen:
            for passage, around in self._holding(one.call, one.words) if one.call else ():
                where = tuple((place.path, place.member, place.start, place.end) for place in passage.places)
                first = known.get(where, Support((), passage, around))
                known[where] = replace(first, calls=(*first.calls, one.call))
        return (*found, *known.values())[:MOST_SEEN]

    def _holding(self, number: int, words: Sequence[str]) -> Iterator[tuple[Passage, str]]:
        """Those of a call's passages that hold any of these words, and what stands around them."""
        for passage, text, normal in self._texts(number):
            for word in words:
                form = Normal(_raw(word)).text
                if len(form) >= _TELLING and (at := normal.text.find(form)) >= 0:
                    raw = _raw(text)
                    start, end = normal.place(at), normal.place(at + len(form) - 1) + 1
                    around = raw[max(0, start - _AROUND) : end + _AROUND].decode("utf-8", "ignore")
                    yield passage, around
                    break

    def _texts_of(self, number: int) -> list[tuple[Passage, str, Normal]]:
        call: CallSources | None = self._sources.calls.get(number)
        if call is None or not call.passages:
            return []
        sent = self._prompts.messages_of_call(self._calls[number].prompt_digest)
        text = str(sent[0]["content"]) if sent else self._calls[number].preview
        parts = [(one, text[one.start : one.end]) for one in call.passages]
        return [(one, part, Normal(_raw(part))) for one, part in parts]


def _piece(label: str, text: str, texts: _Texts, held: _Held) -> Piece:
    whole = plain(text)
    found = {at: [whole] for at in texts.holding(whole)}
    counts = {whole: len(found)}
    for word in [word for word in words_of(text) if word != whole] if not found else []:
        holders = texts.holding(word)
        counts[word] = len(holders)
        for at in holders:
            found.setdefault(at, []).append(word)
    most = sorted(found, key=lambda at: (-sum(map(len, found[at])), at))
    seen = tuple(
        Seen(texts.texts[at].call, texts.texts[at].cell, tuple(found[at]), found[at] == [whole])
        for at in most[:MOST_SEEN]
    )
    many = max(MOST_SEEN, len(texts.texts) // 10)
    sure = any(
        len(Normal(_raw(word)).text) >= _LONG or (len(word) >= _TELLING and count <= many)
        for word, count in counts.items()
        if count
    )
    left = max(0, len(found) - MOST_SEEN)
    words = dict.fromkeys((whole, *words_of(text)))
    standing = tuple(held.words[word] for word in words if word in held.words)
    return Piece(text, label, seen, left, bool(seen) and not sure, held.support(text, seen), standing)

"""Sources as the web page and the Markdown document have them: from the answer to calls and passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlm_kernel.proof.findings import Provenance
from rlm_kernel.report import markup, outline
from rlm_kernel.report.sources import Names, coverage, held, places_of, seen_in, standing_line, support_line
from rlm_kernel.trace.calls import is_call
from rlm_kernel.trace.reader import TraceFile

MOST_CALLS, MOST_FILES, MOST_PASSAGES = 500, 500, 20
_PIECE, _PASSAGE = 600, 300


@dataclass(frozen=True)
class PieceLinks:
    """A piece of the answer: what is said of it, the calls that hold it, and passages with their text."""

    text: str
    said: list[str]
    calls: list[tuple[int, str]]
    passages: list[tuple[str, str]]


@dataclass(frozen=True)
class CallLinks:
    """A call: its number, where it stands on the page, and what its prompt held."""

    number: int
    place: str
    said: str
    passages: list[tuple[str, str]]


class SourceLinks:
    """All texts are made safe to be escaped, and cut."""

    def __init__(self, trace: TraceFile, found: Provenance) -> None:
        self._found = found
        self._names = Names(found.sources.files)
        self._places = dict(_places(trace))
        self.delivered = found.answer.cell
        self.trouble = [markup.plain(why) for why in found.sources.trouble]
        self.more_calls = max(0, len(found.sources.calls) - MOST_CALLS)
        self.more_files = max(0, len(found.sources.files) - MOST_FILES)

    def pieces(self) -> Iterator[PieceLinks]:
        """The pieces of the answer."""
        for piece in self._found.answer.pieces:
            said = [*seen_in(piece), *(standing_line(one, self._names) for one in piece.words)]
            passages = [(support_line(one, self._names), one.text) for one in piece.support]
            numbers = sorted({one.call for one in piece.seen if one.call})
            yield PieceLinks(
                _short(f"{piece.label}: {piece.text}" if piece.label else piece.text, _PIECE),
                [markup.plain(line) for line in said],
                [(number, self._places.get(number, "")) for number in numbers],
                _passages(passages),
            )

    def calls(self) -> Iterator[CallLinks]:
        """The calls, with the passages that their prompts held."""
        for call in list(self._found.sources.calls.values())[:MOST_CALLS]:
            passages = [(places_of(one, self._names), one.text) for one in call.passages[:MOST_PASSAGES]]
            left = len(call.passages) - MOST_PASSAGES
            said = held(call) + (f"; {left:,} more passages: rlm show --sources --json" if left > 0 else "")
            yield CallLinks(
                call.number, self._places.get(call.number, ""), markup.plain(said), _passages(passages)
            )

    def files(self) -> Iterator[tuple[str, str]]:
        """The files, and how much of each was in a prompt."""
        for file in self._found.sources.files[:MOST_FILES]:
            yield markup.plain(self._names.file(file)), markup.plain(coverage(file))


def _places(trace: TraceFile) -> Iterator[tuple[int, str]]:
    """Where each call stands on the page, by its number."""
    number = 0
    for cell in trace.cells:
        for place, call in enumerate(outline.calls_of(cell), 1):
            if is_call(call):
                number += 1
                yield number, f"t0-{cell.id}-c{place}"


def _passages(found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(markup.plain(where), _short(text, _PASSAGE)) for where, text in found]


def _short(text: str, most: int) -> str:
    return markup.plain(outline.one_line(text, most))

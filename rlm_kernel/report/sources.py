"""Where prompts and answers come from, for a terminal; and the words that all documents have for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from rlm_kernel.printable import printable
from rlm_kernel.proof.findings import (
    AnswerSources,
    CallSources,
    FileSources,
    Passage,
    Piece,
    Place,
    Provenance,
    Seen,
    Standing,
    Support,
)
from rlm_kernel.report.outline import one_line
from rlm_kernel.report.text import Paint, counted
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.schema import FileMeta

MOST_CALLS, MOST_FILES, MOST_PASSAGES, MOST_PLACES = 200, 200, 20, 3
"""Calls and files that are listed, passages of one call, and places of one passage; `--json` has all."""
_PIECE, _PASSAGE = 400, 160
"""Characters that are shown of a piece of the answer, and of a passage."""


def sources(trace: TraceFile, found: Provenance, paint: Paint) -> Iterator[str]:
    """From the answer to the passages, then the calls and what they held, then the files."""
    names = Names(found.sources.files)
    yield from _answer(found.answer, names, paint)
    yield from ["", paint.head("What the prompts held")]
    calls = list(found.sources.calls.values())
    for call in calls[:MOST_CALLS]:
        yield from _call(call, names, paint)
    if not calls:
        yield "There are no calls."
    if len(calls) > MOST_CALLS:
        yield paint.dim(f"… {len(calls) - MOST_CALLS:,} more calls: --json")
    yield from ["", paint.head("How much of each file was in a prompt")]
    for file in found.sources.files[:MOST_FILES]:
        yield printable(f"{names.file(file)}: {coverage(file)}")
    if len(found.sources.files) > MOST_FILES:
        yield paint.dim(f"… {len(found.sources.files) - MOST_FILES:,} more files: --json")
    yield from _files(trace, paint)
    for why in found.sources.trouble:
        yield paint.bad(printable(why))


def _files(trace: TraceFile, paint: Paint) -> Iterator[str]:
    """The files of the trace, and which cells made how many calls."""
    yield from ["", paint.head("Files")]
    if not trace.meta.files:
        yield "There are none."
    for file in trace.meta.files:
        kind = "folder " if file.directory else ""
        yield f"{file.size:>15,} bytes  {_digest(file):64}  {kind}{printable(file.path)}"
    yield from ["", paint.head("Calls by cell")]
    cells = [(cell, told) for cell in trace.code_cells if (told := counted(cell))]
    for cell, told in cells:
        yield f"{cell.id:16} {told}"
    if not cells:
        yield "There are none."


def _digest(file: FileMeta) -> str:
    return file.sha256 or {"pending": "(not read to its end)", None: ""}.get(file.digest, f"({file.digest})")


def _answer(answer: AnswerSources, names: Names, paint: Paint) -> Iterator[str]:
    by = f" (delivered by {answer.cell})" if answer.cell else ""
    yield paint.head(f"The answer{by}")
    if not answer.pieces:
        yield "There is none."
    for number, piece in enumerate(answer.pieces, 1):
        label = f"{piece.label}: " if piece.label else ""
        yield printable(f"{number:>3}. {label}{one_line(piece.text, _PIECE)}")
        for line in seen_in(piece):
            yield f"       {printable(line)}"
        for standing in piece.words:
            yield f"       {printable(standing_line(standing, names))}"
        for one in piece.support:
            yield f"       {paint.cell(printable(support_line(one, names)))}"
            yield paint.dim(f"         {printable(one_line(one.text, 2 * _PASSAGE))}")
    if answer.left_out:
        yield paint.dim(f"… {answer.left_out:,} more pieces")


def _call(call: CallSources, names: Names, paint: Paint) -> Iterator[str]:
    yield printable(f"call {call.number:,} ({call.cell}): {held(call)}")
    for passage in call.passages[:MOST_PASSAGES]:
        yield f"       {printable(places_of(passage, names))}"
        yield paint.dim(f"         {printable(one_line(passage.text, _PASSAGE))}")
    if len(call.passages) > MOST_PASSAGES:
        yield paint.dim(f"       … {len(call.passages) - MOST_PASSAGES:,} more passages: --json")


# Words


class Names:
    """Short names of files, where they tell one from the others."""

    def __init__(self, files: Sequence[FileSources]) -> None:
        paths = {file.path for file in files}
        count = Counter(PurePosixPath(path.replace("\\", "/")).name for path in paths)
        self._short: Mapping[str, str] = {
            path: name if (name := PurePosixPath(path.replace("\\", "/")).name) and count[name] == 1 else path
            for path in paths
        }

    def file(self, file: FileSources | Place) -> str:
        short = self._short.get(file.path, file.path)
        return f"{short}/{file.member}" if file.member else short

    def place(self, place: Place) -> str:
        about = "" if place.exact else ", except for spaces and similar characters"
        return f"{self.file(place)}:{place.line:,} (bytes {place.start:,} to {place.end:,}{about})"


def places_of(passage: Passage, names: Names) -> str:
    """All places of a passage in words: none of them is chosen."""
    shown = [names.place(place) for place in passage.places[:MOST_PLACES]]
    left = len(passage.places) - len(shown)
    if passage.more:
        shown.append(f"more than {len(passage.places):,} places in total")
    elif left:
        shown.append(f"and {left:,} other place{'s' * (left != 1)}")
    return ("one of: " if len(passage.places) > 1 or passage.more else "") + "; ".join(shown)


def support_line(one: Support, names: Names) -> str:
    """A passage in which a piece of the answer stands, and who had it in a prompt."""
    how = f"{_calls(one.calls)} had it from" if one.calls else "the answer has it as it stands in"
    return f"{how} {places_of(one.passage, names)}"


def seen_in(piece: Piece) -> Iterator[str]:
    """Where a piece of the answer was seen, in words."""
    together: dict[tuple[tuple[str, ...], bool], list[Seen]] = {}
    for one in piece.seen:
        together.setdefault((one.words, one.whole), []).append(one)
    for (words, whole), those in together.items():
        what = "it" if whole else ", ".join(map(repr, words))
        calls = tuple(sorted(one.call for one in those if one.call))
        cells = list(dict.fromkeys(one.cell for one in those if not one.call))
        if calls:
            yield f"the answer{'s' * (len(calls) > 1)} of {_calls(calls)} {_have(calls)} {what}"
        if cells:
            yield f"the output{'s' * (len(cells) > 1)} of {', '.join(cells)} {_have(cells)} {what}"
    if piece.more:
        yield f"and {piece.more:,} other calls and cells"
    if piece.guess:
        yield "a guess: this text is so short or so common that it may be there by chance"
    if not piece.seen and not piece.support and not piece.words:
        yield "not found: code may have computed it, or the root model added it"


def standing_line(one: Standing, names: Names) -> str:
    """Where a word of the answer stands in the files, whoever read it there."""
    times = "once" if one.count == 1 else f"{one.count:,} times"
    shown = "; ".join(f"{names.file(place)}:{place.line:,} (byte {place.start:,})" for place in one.places)
    return f"{one.word!r} stands {times} in the files: {shown}{' …' if one.count > len(one.places) else ''}"


def _have(those: Sequence[object]) -> str:
    return "has" if len(those) == 1 else "have"


def _calls(numbers: Sequence[int]) -> str:
    return f"call{'s' * (len(numbers) != 1)} {', '.join(f'{number:,}' for number in numbers)}"


def held(call: CallSources) -> str:
    """How much of a prompt comes from where."""
    if call.state == "differs":
        return "its prompt is not the one that was sent, so rlm did not search it"
    parts = [f"{call.found:,} of {call.chars:,} characters stand in files"]
    if call.answers:
        before = sorted({number for one in call.answers for number in one.calls})
        more = f" and {len(before) - 10:,} more" if len(before) > 10 else ""
        parts.append(f"holds the answer{'s' * (len(before) != 1)} of {_calls(before[:10])}{more}")
    if call.state == "beginning":
        parts.append("only its beginning is kept")
    if call.cut:
        parts.append("it repeats itself, so rlm did not search for all of it")
    return "; ".join(parts)


def coverage(file: FileSources) -> str:
    """How much of a file was in any prompt."""
    if file.why:
        return f"not searched: {file.why}"
    share = file.read / file.size if file.size else 0.0
    calls = f"{len(file.calls):,} call{'s' * (len(file.calls) != 1)}"
    return f"{share:.1%} of {file.size:,} bytes in the prompts of {calls}, {max(0.0, 1 - share):.1%} in none"

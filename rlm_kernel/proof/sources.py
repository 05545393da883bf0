"""Where the prompts of a trace, and the pieces of its answer, come from: which bytes of which files.

Found anew from the trace, its file of full prompts and the files, whatever code built the prompts. Nothing is
asked of the code, and nothing of it is believed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from rlm_kernel.engine.hostcalls import digest
from rlm_kernel.pathtext import from_text, to_text
from rlm_kernel.proof import plaintext
from rlm_kernel.proof.chains import Match, Run, runs
from rlm_kernel.proof.findings import (
    SHOWN,
    CallSources,
    FileSources,
    Held,
    Passage,
    Place,
    Sources,
    Standing,
    State,
)
from rlm_kernel.proof.matching import Matcher, batches
from rlm_kernel.proof.words import Words, words_in
from rlm_kernel.trace.prompts import PromptFile, open_prompts
from rlm_kernel.trace.reader import TraceCell, TraceFile, numbered
from rlm_kernel.trace.schema import CallMeta, FileMeta

MOST_MEMBERS = 100_000
"""Files of a folder that are read."""
_LEAST_ANSWER = 40
"""Characters of an answer that is looked for in later prompts."""
_APART = 8
"""Bytes between two passages of a file that count as read: line ends and spaces that code took off."""


@dataclass
class _Asked:
    """A prompt, and the calls that asked it."""

    text: str
    state: State
    calls: list[tuple[int, TraceCell, CallMeta]] = field(default_factory=list)
    cut: bool = False


_Calls = Mapping[int, tuple[TraceCell, CallMeta]]


def call_sources(trace: TraceFile, places: Mapping[str, Path], answer: str | None = None) -> Sources:
    """What the prompts of a trace held of its files. Blocking: it reads every file.

    Args:
        trace: The trace, with its file of prompts beside it.
        places: Where the files are now, by their paths in the trace.
        answer: A text beside the prompts, which is looked for in the files as well.
    """
    found = Sources(files=list(_files(trace, places)))
    with open_prompts(trace) as prompts:
        asked = _asked(trace, prompts, found)
        if prompts.trouble:
            found.trouble.append(f"{prompts.trouble[:1].upper()}{prompts.trouble[1:]}.")
    calls = {number: (cell, call) for number, cell, call in numbered(trace.cells)}
    for at, numbers in enumerate(batches([one.text for one in asked])):
        batch = asked[numbers.start : numbers.stop]
        texts = [one.text for one in batch] + ([answer] if answer and not at else [])
        matcher = Matcher(texts)
        read = [file for file in found.files if not file.why]
        words = Words(words_in(answer) if answer and not at else ())
        for number, file in enumerate(read):
            matcher.scan(number, words.through(number, _parts_of(file, places, matcher)))
        found.words |= {word: _standing(word, words, read) for word, count in words.counts.items() if count}
        passages = [tuple(_passages(matcher, number, text, read)) for number, text in enumerate(texts)]
        if answer and not at:
            found.answer = passages.pop()
        matcher.forget()
        for number, (_, call) in calls.items():
            matcher.scan(number, _parts_of_answer(call))
        for number, one in enumerate(batch):
            one.cut = number in matcher.cut
            _note(found, one, passages[number], _held(matcher, number, one.text), calls)
        del matcher  # its index is large: gone before the next one is made
    _note_files(found)
    found.calls = dict(sorted(found.calls.items()))
    return found


# Prompts


def _asked(trace: TraceFile, prompts: PromptFile, found: Sources) -> list[_Asked]:
    """The prompts, each once; what is missing of them is told in `found`."""
    by_digest: dict[str, _Asked] = {}
    for number, cell, call in numbered(trace.cells):
        known = by_digest.get(call.prompt_digest)
        if known is None:
            sent = prompts.messages_of_call(call.prompt_digest)
            text = str(sent[0]["content"]) if sent else call.preview
            state = (
                _state(call, text, prompts) if sent else "beginning" if len(call.preview) >= 200 else "full"
            )
            known = by_digest[call.prompt_digest] = _Asked(text, state)
        known.calls.append((number, cell, call))
    for one in by_digest.values():
        for number, cell, call in one.calls:
            found.calls[number] = CallSources(number, cell.id, call.kind, len(one.text), one.state)
    found.trouble += _told(by_digest.values())
    return [one for one in by_digest.values() if one.state != "differs"]


def _state(call: CallMeta, text: str, prompts: PromptFile) -> State:
    """Whether this is the prompt that was asked, by its digest."""
    if call.kind != "llm_query" or prompts.has_sent(call.prompt_digest):
        return "unchecked"
    body: dict[str, Any] = {"prompt": text}
    if call.images:
        body["images"] = [image.digest for image in call.images]
    if schema := prompts.schema_of_call(call.prompt_digest):
        body["schema"] = schema
    if any(digest(call.kind, body | {"model": model}) == call.prompt_digest for model in (None, call.role)):
        return "full"
    return "unchecked" if "[redacted]" in text else "differs"


def _told(asked: Iterable[_Asked]) -> Iterator[str]:
    states = [one.state for one in asked for _ in one.calls]
    if count := states.count("beginning"):
        yield (
            f"Of {count:,} of {len(states):,} calls only the first 200 characters of the prompt are kept. "
            "To keep them, record with trace.prompts=full, or let a replay write them: rlm replay TRACE "
            "--out NEW."
        )
    if count := states.count("differs"):
        yield (
            f"For {count:,} of {len(states):,} calls, the prompts in the file of prompts do not match the "
            "recorded digests, so rlm did not search them."
        )


# Files


def _files(trace: TraceFile, places: Mapping[str, Path]) -> Iterator[FileSources]:
    for meta in trace.meta.files:
        path = places.get(meta.path)
        if path is None:
            yield _not_read(meta, "it was not found")
        elif not meta.directory:
            yield FileSources(to_text(meta.path), sha256=meta.sha256)
        else:
            yield from _members(meta, path)


def _not_read(meta: FileMeta, why: str) -> FileSources:
    return FileSources(to_text(meta.path), sha256=meta.sha256, size=meta.size, why=why)


def _members(meta: FileMeta, folder: Path) -> Iterator[FileSources]:
    """The files of a folder; no links, which may lead out of it."""
    count = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            count += 1
            if count > MOST_MEMBERS:
                yield _not_read(
                    meta, f"it has more than {MOST_MEMBERS:,} files: the others were not searched"
                )
                return
            yield FileSources(to_text(meta.path), to_text(path.relative_to(folder).as_posix()))


def _path(places: Mapping[str, Path], file: FileSources) -> Path:
    place = places[from_text(file.path)]
    return place / from_text(file.member) if file.member else place


def _parts_of(file: FileSources, places: Mapping[str, Path], matcher: Matcher) -> Iterator[plaintext.Part]:
    path = _path(places, file)
    try:
        for part in plaintext.parts(path, lambda: matcher.words):
            file.size = part.byte(len(part.raw))
            yield part
    except plaintext.NotRead as why:
        file.why, file.size = f"it is {why}", path.stat().st_size
    except OSError as error:
        file.why = f"it cannot be read: {error.strerror or error}"


def _parts_of_answer(call: CallMeta) -> Iterator[plaintext.Part]:
    text = answer_text(call)
    if len(text) >= _LEAST_ANSWER:
        yield plaintext.Part(text.encode("utf-8", "surrogatepass"), 0, 1)


def answer_text(call: CallMeta) -> str:
    """What a call was answered, as text; "" for nothing."""
    if call.error is not None or call.answer is None:
        return ""
    return call.answer if isinstance(call.answer, str) else json.dumps(call.answer, ensure_ascii=False)


# What was found


def _passages(matcher: Matcher, number: int, text: str, files: Sequence[FileSources]) -> Iterator[Passage]:
    for run, start, end in _runs(matcher, number, text):
        places = tuple(_place(match, files[match.source]) for match in run.places)
        more = matcher.times(number, run.start, run.end) > len(places)
        yield Passage(start, end, text[start:end][:SHOWN], places, more)


def _place(match: Match, file: FileSources) -> Place:
    return Place(file.path, file.member, match.low, match.high, match.line, match.exact)


def _standing(word: str, words: Words, files: Sequence[FileSources]) -> Standing:
    places = tuple(
        Place(files[source].path, files[source].member, start, end, line, exact=False)
        for source, start, end, line in words.places[word]
    )
    return Standing(word, places, words.counts[word])


def _held(matcher: Matcher, number: int, text: str) -> list[Held]:
    return [
        Held(start, end, tuple(sorted({match.source for match in run.places})))
        for run, start, end in _runs(matcher, number, text)
    ]


def _runs(matcher: Matcher, number: int, text: str) -> Iterator[tuple[Run, int, int]]:
    """The passages of a text, each with its first character and the one behind it."""
    raw = text.encode("utf-8", "surrogatepass")
    at = chars = 0
    for run in runs(matcher.matches[number], raw):
        chars += len(raw[at : run.start].decode("utf-8", "ignore"))
        at = run.start
        yield run, chars, chars + len(raw[run.start : run.end].decode("utf-8", "ignore"))


def _note(
    found: Sources, asked: _Asked, passages: tuple[Passage, ...], held: Sequence[Held], calls: _Calls
) -> None:
    """Note what a prompt held for each call that asked it; of answers those that were there before it."""
    new = [
        one
        for one in held
        if not any(known.start <= one.start and one.end <= known.end for known in passages)
    ]
    for number, _, call in asked.calls:
        answers = [
            Held(one.start, one.end, before)
            for one in new
            if (before := tuple(other for other in one.calls if _was_before(calls[other][1], call)))
        ]
        found.calls[number] = replace(
            found.calls[number], passages=passages, answers=tuple(answers), cut=asked.cut
        )


def _was_before(one: CallMeta, other: CallMeta) -> bool:
    return one.id != other.id and one.started + timedelta(seconds=one.seconds) <= other.started


def _note_files(found: Sources) -> None:
    """Note for each file what of it was in which prompts."""
    files = {(file.path, file.member): file for file in found.files}
    for number, call in sorted(found.calls.items()):
        for place in (place for passage in call.passages for place in passage.places):
            file = files[place.path, place.member]
            file.spans.append((place.start, place.end))
            if file.calls[-1:] != [number]:
                file.calls.append(number)
    for file in found.files:
        file.spans = _together(file.spans)


def _together(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those as one that touch."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + _APART:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found

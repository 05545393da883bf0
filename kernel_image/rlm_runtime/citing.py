"""`cite`: passages of the loaded files that an answer stands on, given with it."""

from __future__ import annotations

import difflib
import itertools
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rlm_contract import MAX_EVIDENCE, MAX_QUOTE, Evidence

from rlm_runtime import files, labels, passages, quoted
from rlm_runtime.files import Loaded, Text
from rlm_runtime.hits import BESIDE, File, Hit
from rlm_runtime.lazytext import LazyText
from rlm_runtime.passages import Place, Span
from rlm_runtime.windows import Found

_SHOWN, _NAMED = 120, 5
"""Characters of a passage that an error shows, and places that it names."""
_AT_LINE = re.compile(r"(.+):(\d{1,15})", re.DOTALL)
_MARKS = re.compile(r"\[(\d{1,7})\]")
_WORD = re.compile(r"\w{4,40}")
_WORDS, _TRIED, _AROUND, _COMPARED = 5, 12, 300, 400
"""Of the nearest text: words that are looked for, places of each, characters around, and of a passage."""
_NEAR = 0.4
"""How alike a text must be, from 0 to 1, to be told as the nearest."""
_HOW = "Cite a hit of grep, or a text that code took from the file: cite(hit), cite(context[a:b])."
_lock = threading.Lock()
_given: list[Evidence] = []
_marks: dict[tuple[str, int, int, str], int] = {}
_last, _delivered = [0], [0]
"""The last mark, and the last of those that have gone with an answer."""
_expected = [False]
_asked = [False]
"""An answer without evidence was refused, once."""


class _Wanted(NamedTuple):
    """What is to be cited: `place` where that is known; else a text, to be found in the file of that name,
    and there in that line. `sure`: the line is the file's, and no value of a column of that name.
    """

    passage: str
    name: Any = None
    line: int | None = None
    place: Place | None = None
    sure: bool = True


def cite(passage: Any, name: Any = None) -> str:
    """Give a passage of a loaded file as evidence with the answer; its mark, such as `[1]`, for the answer's
    text.

    `passage`: a hit of grep, a match of a regular expression, a record with its `text`, or a text as it
    stands in the file, of at most MAX_QUOTE characters. `name`: the file, and perhaps the line,
    `"app.log:4812"`, where several places have that text. The same passage has the same mark.

    Raises ValueError for a text that stands nowhere, or at several places; TypeError for what is no passage.
    """
    __tracebackhide__ = True
    try:
        wanted = _wanted(passage, name)
        _check(wanted.passage)
        return _given_mark(wanted)
    except (KeyError, TypeError, ValueError) as wrong:
        raise wrong.with_traceback(None) from None  # how it came about is of no use to who reads it


def _given_mark(wanted: _Wanted) -> str:
    with _lock:
        place, text, origin = _find(wanted)
        found = passages.span(text, place, origin)
        key = (found.path, found.start, found.end, found.unit)
        if key not in _marks:
            if sum(one["mark"] > _delivered[0] for one in _given) >= MAX_EVIDENCE:
                raise ValueError(
                    f"cite: an answer has at most {MAX_EVIDENCE:,} passages. Cite the best ones."
                )
            _last[0] += 1
            _marks[key] = _last[0]
            _given.append(_evidence(_marks[key], found))
        return f"[{_marks[key]}]"


def expect_evidence(wanted: bool = True) -> None:
    """From now on FINAL refuses an answer that cites nothing, once: that is asked for with each question."""
    _expected[:], _asked[:] = [bool(wanted)], [False]


def is_expected() -> bool:
    """Whether answers are to cite."""
    return _expected[0]


def evidence(text: str, data: Any = None) -> list[Evidence]:
    """What goes with an answer of this text, or data: all that was cited since the last one, and what its
    marks name. Raises ValueError for one without any, where some is expected, once.
    """
    with _lock:
        if not _given and not _expected[0]:
            return []
        written = text if data is None else f"{text}{json.dumps(data, ensure_ascii=False, default=str)}"
        named = {int(mark) for mark in _MARKS.findall(written)} if _given else set()
        found = [one for one in _given if one["mark"] > _delivered[0] or one["mark"] in named]
        if not found and _expected[0] and not _asked[0]:
            _asked[0] = True
            raise ValueError(
                "this answer cites nothing, and evidence was asked for. Cite the passages that it stands on, "
                'and put their marks into it: FINAL(f"… {cite(hit)}"). If there is none, call FINAL again.'
            )
        if len(found) > MAX_EVIDENCE:
            raise ValueError(f"this answer has {len(found):,} passages; {MAX_EVIDENCE:,} can be given")
        return found


def withdraw(marked: str) -> None:
    """The host has refused the passage whose mark a message begins with: the next answer goes without it."""
    found = _MARKS.match(marked)
    with _lock:
        for one in [one for one in _given if found and one["mark"] == int(found[1])]:
            _given.remove(one)
            del _marks[one["path"], one["start"], one["end"], one["unit"]]


def delivered() -> None:
    """An answer is with the host, and all evidence so far."""
    with _lock:
        _delivered[0] = _last[0]


def stands(path: str, start: int, end: int, quote: str) -> bool | None:
    """Whether the text that is read of a loaded file, by its host's path, has the quotation between these
    characters; the texts of a file's parts follow one another. None if the file is not loaded.
    """
    parts = files.parts_of(path)
    if not parts:
        return None
    for name in parts:
        text = files.files[name]
        size = len(text)
        if start < size:
            return end <= size and str(text[start:end]) == quote
        start, end = start - size, end - size
    return False


def _evidence(mark: int, found: Span) -> Evidence:
    return {
        "mark": mark,
        "path": found.path,
        "start": found.start,
        "end": found.end,
        "quote": found.quote,
        "unit": found.unit,
        "encoding": found.encoding,
    }


def _check(passage: str) -> None:
    if not passage.strip():
        raise ValueError(f"cite: there is nothing in this passage. {_HOW}")
    if len(passage) > MAX_QUOTE:
        raise ValueError(
            f"cite: this passage has {len(passage):,} characters; {MAX_QUOTE:,} can be cited. Cite the "
            "sentence or the line that matters."
        )


def _wanted(passage: Any, name: Any) -> _Wanted:
    if isinstance(passage, Hit):
        return _of_hit(passage, name)
    if isinstance(passage, re.Match) and isinstance(passage.group(), str):
        label = files.name_of(passage.string)
        place = Place(label, passage.start(), passage.group()) if label else None
        return _Wanted(passage.group(), name, place=place)
    if isinstance(passage, Found):
        return _Wanted(passage[0], name)
    if isinstance(passage, dict):
        return _of_record(passage, name)
    if isinstance(passage, LazyText):
        passage = str(passage.read(0, MAX_QUOTE + 1))
    if not isinstance(passage, str):
        raise TypeError(f"cite takes one passage, and this is a {type(passage).__name__}. {_HOW}")
    return _Wanted(str.__str__(passage), name)


def _of_record(record: dict[str, Any], name: Any) -> _Wanted:
    text, line = record.get("text"), record.get("line")
    if not isinstance(text, str):
        raise TypeError(
            "cite takes text as it stands in a file, and a record of a table has none of its own: find its "
            "line with grep, and cite that hit."
        )
    return _Wanted(text, name, line if type(line) is int else None, sure=False)


def _of_hit(hit: Hit, name: Any) -> _Wanted:
    """A hit knows its place. Of a very long line it is the match, with what is beside it."""
    low, high = 0, len(hit.text)
    if high > MAX_QUOTE:
        begin, end = hit.span()
        low, high = max(0, begin - BESIDE), min(begin + MAX_QUOTE - BESIDE, max(end, begin + 1) + BESIDE)
    passage, label = hit.text[low:high], str(hit.file)
    searched = hit.file.searched if isinstance(hit.file, File) else None
    text = files.files.get(label)
    if searched is None or text is None or searched.given is not text or files.origin(label) is None:
        return _Wanted(passage, label if label in files.files else name, hit.line)
    by_byte, before = passages.by_byte_of(text), low
    if low and isinstance(text, LazyText) and by_byte:
        if "\N{REPLACEMENT CHARACTER}" in hit.text[:low]:  # of which the file has other bytes
            return _Wanted(passage, label, hit.line)
        before = len(hit.text[:low].encode(text.source.encoding))
    return _Wanted(passage, label, place=Place(label, searched.place(hit) + before, passage, by_byte))


def _find(wanted: _Wanted) -> tuple[Place, Text, Loaded]:
    """The one place of a passage, its text and that text's file. Raises ValueError."""
    if wanted.place is not None and (origin := files.origin(wanted.place.name)) is not None:
        return wanted.place, files.files[wanted.place.name], origin
    if (made := files.object_file()) is not None:
        text = made.inside.read_text("utf-8")
        return _only(wanted, {"context": text}, _as_json(wanted.passage)), text, made
    name, line = wanted.name, wanted.line
    if isinstance(name, str) and name not in files.files and (at_line := _AT_LINE.fullmatch(name)):
        name, line = at_line[1], int(at_line[2])
    wanted = wanted._replace(name=name, line=line)
    if name is not None:
        place = _only(wanted, _of_files(files.chosen(name)), _in_lines(wanted.passage))
    else:
        place = _in_any(wanted)
    origin = files.origin(place.name)
    assert origin is not None
    return place, files.files[place.name], origin


def _in_any(wanted: _Wanted) -> Place:
    """In the active input; if it is not there, in the other files."""
    active = _of_files(files.chosen(None))
    others = {name: text for name, text in files.files.items() if name not in active}
    if others and next(_candidates(active, _in_lines(wanted.passage)), None) is None:
        return _only(wanted, active | _of_files(others), _in_lines(wanted.passage))
    return _only(wanted, active, _in_lines(wanted.passage))


def _of_files(texts: Mapping[str, Text]) -> dict[str, Text]:
    """Those that were read from files."""
    return {
        name: text for name, text in texts.items() if files.origin(name) and files.files.get(name) is text
    }


def _in_lines(passage: str) -> list[str]:
    """How a file may have the passage: as it is, in its own line ends, without the space around it."""
    feeds = passage.replace("\r\n", "\n")
    forms = (passage, feeds.replace("\n", "\r\n"), feeds)
    return list(dict.fromkeys([*forms, *(form.strip() for form in forms)]))


def _as_json(passage: str) -> list[str]:
    """How the file of an object has the passage: as a part of a string of JSON."""
    forms = (json.dumps(passage, ensure_ascii=ascii_)[1:-1] for ascii_ in (False, True))
    return list(dict.fromkeys([*forms, passage]))


def _candidates(texts: Mapping[str, Text], forms: list[str]) -> Iterator[Place]:
    """The places of the first of the forms that stands anywhere; at last of texts that differ from it in
    white space or the kinds of its characters alone: wrapped lines, curly quotes, ligatures.
    """
    for form in forms:
        found = passages.places(texts, form)
        if (first := next(found, None)) is not None:
            return itertools.chain([first], found)
    return _otherwise_written(texts, forms[0])


def _otherwise_written(texts: Mapping[str, Text], passage: str) -> Iterator[Place]:
    pattern = quoted.pattern(passage)
    if pattern is None:
        return
    for name, text in texts.items():
        if isinstance(text, (str, LazyText)):
            matches = pattern.finditer(text) if isinstance(text, str) else text.finditer(pattern)
            for match in matches:
                # A large text tells here by characters where it may tell by bytes.
                yield Place(name, match.start(), match[0])


def _only(wanted: _Wanted, texts: Mapping[str, Text], forms: list[str]) -> Place:
    """The one place. Raises ValueError where there is none, or several."""
    found = _candidates(texts, forms)
    if wanted.line is not None:
        found = _in_line(texts, found, wanted.line)
    some = list(itertools.islice(found, _NAMED + 1))
    if not some and not wanted.sure:
        return _only(wanted._replace(line=None, sure=True), texts, forms)
    if not some:
        raise ValueError(_nowhere(wanted, texts))
    if len(some) == 1:
        return some[0]
    named = [f"{labels.on_a_line(place.name)}:{line}" for place, line in passages.lines(texts, iter(some))]
    several = f"more than {_NAMED}" if len(some) > _NAMED else str(len(some))
    how = "Cite a longer passage"
    if wanted.line is None and len(set(named)) > 1:
        how = f"Say which: cite(passage, name={named[0]!r}); or cite the hit of grep, or a longer passage"
    raise ValueError(
        f"cite: {_short(wanted.passage)} stands at {several} places: {', '.join(named[:_NAMED])}. {how}."
    )


def _in_line(texts: Mapping[str, Text], found: Iterator[Place], line: int) -> Iterator[Place]:
    return (place for place, number in passages.lines(texts, found) if number == line)


def _short(passage: str) -> str:
    return repr(passage if len(passage) <= _SHOWN else f"{passage[:_SHOWN]}…")


def _nowhere(wanted: _Wanted, texts: Mapping[str, Text]) -> str:
    if not texts:
        return "cite: no file is loaded that a passage could be of: evidence is a passage of a loaded file."
    where = f" line {wanted.line:,} of" if wanted.line is not None else ""
    named = f" {wanted.name!r}" if wanted.name is not None else " the loaded files"
    said = f"cite: {_short(wanted.passage)} does not stand in{where}{named}."
    near = _nearest(texts, wanted.passage)
    return f"{said} {f'The nearest text is {near}. ' if near else ''}{_HOW}"


def _nearest(texts: Mapping[str, Text], passage: str) -> str:
    """The line that is most like a passage, and its place; "" if none is like it."""
    words = sorted(set(_WORD.findall(passage)), key=len, reverse=True)[:_WORDS]
    best, share = "", _NEAR
    seen: set[tuple[str, int]] = set()
    matcher = difflib.SequenceMatcher(None, b=passage[:_COMPARED], autojunk=False)
    for word in words:
        found = passages.lines(texts, itertools.islice(passages.places(texts, word), _TRIED))
        for place, line in found:
            if (place.name, line) in seen:
                continue
            seen.add((place.name, line))
            text = _line_around(texts[place.name], place)
            matcher.set_seq1(text)
            if matcher.quick_ratio() > share and (alike := matcher.ratio()) > share:
                best, share = f"{text!r} ({labels.on_a_line(place.name)}:{line})", alike
    return best


def _line_around(text: Text, place: Place) -> str:
    """The line at a place, at most so much of it around that."""
    if isinstance(text, LazyText) and place.by_byte:
        source = text.source
        low, high = source.cut(max(source.start, place.at - _AROUND)), source.cut(place.at + _AROUND)
        before, after = source.decode(low, place.at), source.decode(place.at, high)
    else:
        low = max(0, place.at - _AROUND)
        before, after = str(text[low : place.at]), str(text[place.at : place.at + _AROUND])
    return (before.rpartition("\n")[2] + after.partition("\n")[0]).strip()

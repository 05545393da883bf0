"""A hit tells where its match is and what is around it, and shows no more of a long line than that."""

from __future__ import annotations

import copy
import json
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_runtime import files
from rlm_runtime import hits as module
from rlm_runtime.hits import Hit
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import with_ends, without_end
from rlm_runtime.search import search
from rlm_runtime.source import Source

ENCODINGS = ["utf-8", "latin-1", "utf-16-le", "utf-32-be", "shift_jis"]
PATTERNS = [
    "ERROR",
    "o+",
    r"(?<=a)b|ERR",
    r"(?<!R)R",
    r"^",
    r"$",
    r"x*",
    r"(?i)error \d",
    r"[é日]",
    r"\bok\b",
    r"(?m)^a",
    r"\A.\Z",
]
WORDS = st.sampled_from(["ERROR 12", "error 7", "ab", "x", " ", "\n", "\r\n", "é", "日本", "🙂", "ok", "foo"])


def lazy(data: bytes, encoding: str = "utf-8", block: int = 16) -> LazyText:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return LazyText(Source(Path(file.name), encoding, block=block), 64)


def shown(found: Any) -> str:
    """What a cell shows of it."""
    return repr(found)


@settings(deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=40).map("".join),
    st.sampled_from(PATTERNS),
    st.sampled_from(ENCODINGS),
    st.sampled_from([b"", b"\xff\xe2\x82"]),
    st.integers(0, 12),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_a_hit_knows_its_match_and_what_is_around_it_in_memory_and_on_disk(
    text: str, pattern: str, encoding: str, broken: bytes, n: int, context: tuple[int, int]
) -> None:
    data = text.encode(encoding, "replace") + (broken if encoding == "utf-8" else b"")
    text = data.decode(encoding, "replace")
    lines = list(map(without_end, with_ends(text)))
    large = lazy(data, encoding)
    for where in (text, large, large[1:]) if len(text) > 70 else (text, large):
        for hit in search({"f": where}, re.compile(pattern), None, *context):
            of = text[1:] if where is not text and where is not large else text
            own = lines if of is text else list(map(without_end, with_ends(of)))
            wanted = re.search(pattern, hit.text)
            assert wanted is not None
            begin, end = hit.start, hit.start + len(wanted[0])
            assert hit.text == own[hit.line - 1]
            assert hit.match == wanted[0] == of[begin:end]
            assert of[begin - wanted.start() :].startswith(hit.text)
            assert hit.around(n) == of[max(0, begin - n) : end + n]
            assert hit.before == own[max(0, hit.line - 1 - context[0]) : hit.line - 1]
            assert hit.after == own[hit.line : hit.line + context[1]]


LONG = "a" * 5_000 + "needle" + "b" * 3_000 + "needle" + "c" * 100


def test_of_a_long_line_the_match_is_shown_with_what_is_beside_it() -> None:
    (hit,) = found = search({"min.js": f"short\n{LONG}\n"}, re.compile("needle"), None)
    assert hit.text == LONG
    assert shown(hit) == (
        f"min.js:2: …{'a' * 150}needle{'b' * 150}… [line of 8,112 characters, this is the first of 2 matches]"
    )
    assert shown(found) == f"[{hit!r}]"
    (first,) = search({"f": "needle" + "b" * 500}, re.compile("needle"), None)
    assert shown(first) == f"f:1: needle{'b' * 150}… [line of 506 characters]"
    (last,) = search({"f": "é" * 500 + "needle"}, re.compile("needle"), None)
    assert shown(last).startswith(f"f:1: …{'é' * 150}needle [line of")
    (short,) = search({"f": "x" * 394 + "needle"}, re.compile("needle"), None)
    assert shown(short) == f"f:1: {'x' * 394}needle"
    (whole,) = search({"f": "x" * 100_000}, re.compile("x+"), None)
    assert shown(whole) == f"f:1: {'x' * 200}…{'x' * 200} [line of 100,000 characters]"
    assert len(shown(Hit("f", 1, "x" * 100_000))) < 1_000


def test_many_matches_in_a_line_are_one_hit_that_says_how_many() -> None:
    (hit,) = search({"f": "needle " * 10_000}, re.compile("needle"), None)
    assert "first of 10,000 matches" in shown(hit)
    (hit,) = search({"f": "needle " * 1_000_000}, re.compile("needle"), None)
    assert "first of at least 149,796 matches" in shown(hit)
    (hit,) = search({"f": "x" * 1_000}, re.compile("y*"), None)
    assert (hit.match, hit.start) == ("", 0)
    (hit,) = search({"f": "ab\n" + "x" * 1_000}, re.compile("(?<=x)$"), None)
    assert (hit.match, hit.start) == ("", 1_003)
    assert shown(hit).startswith(f"f:2: …{'x' * 150} [line")


def test_lines_around_hits_are_shown_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{'hit' if n in (3, 5, 6, 12) else 'line'} {n}\n" for n in range(1, 15))
    monkeypatch.setattr(files, "files", {"a.txt": text})
    monkeypatch.setattr(files, "_active", [text])
    found = files.grep("hit", before=2, after=1)
    assert shown(found) == (
        "a.txt-1- line 1\na.txt-2- line 2\na.txt:3: hit 3\na.txt-4- line 4\na.txt:5: hit 5\na.txt:6: hit 6\n"
        "a.txt-7- line 7\n--\na.txt-10- line 10\na.txt-11- line 11\na.txt:12: hit 12\na.txt-13- line 13"
    )
    assert shown(found[:1]) == "a.txt-1- line 1\na.txt-2- line 2\na.txt:3: hit 3\na.txt-4- line 4"
    assert shown(found[3]) == "a.txt-10- line 10\na.txt-11- line 11\na.txt:12: hit 12\na.txt-13- line 13"
    assert (found[1].before, found[1].after) == (["hit 3", "line 4"], ["hit 6"])
    assert shown(files.grep("nothing", before=2)) == "[]"
    assert files.grep("hit 3")[0].before == []
    two = search({"a": "x\nhit\n", "b": "hit\ny\n"}, re.compile("hit"), None, 1, 1)
    assert shown(two) == "a-1- x\na:2: hit\n--\nb:1: hit\nb-2- y"
    assert shown([*reversed(two)]) == "[b:1: hit\nb-2- y, a-1- x\na:2: hit]"
    assert shown(type(two)(reversed(two))) == "b:1: hit\nb-2- y\n--\na-1- x\na:2: hit"  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="cannot be negative"):
        files.grep("x", before=-1)


def test_a_hit_is_still_a_tuple_of_file_line_and_text() -> None:
    found = search({"f": "x\nhit 1\nhit 2\n"}, re.compile(r"hit \d"), None, 1, 0)
    hit = found[0]
    file, line, text = hit
    assert (file, line, text) == hit == Hit("f", 2, "hit 1") == ("f", 2, "hit 1")
    assert json.loads(json.dumps(found)) == [["f", 2, "hit 1"], ["f", 3, "hit 2"]]
    assert {hit.file: 1} == {"f": 1}
    assert copy.deepcopy(hit).around(1) == "\nhit 1\n"
    again = pickle.loads(pickle.dumps(hit))
    assert again == hit
    assert again.match == "hit 1"
    with pytest.raises(ValueError, match=r"take \.start and \.around"):
        again.start  # noqa: B018
    assert Hit("f", 1, "x").match == ""


def test_a_line_in_pieces_tells_the_right_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 50)
    text = ("é" * 60 + "ERROR" + "b" * 60) * 2 + "\nERROR\n"
    for encoding in ("utf-8", "utf-16-le"):
        for pattern in ("ERROR", "E.R"):
            found = search({"f": lazy(text.encode(encoding), encoding)}, re.compile(pattern), None)
            assert len(found) >= 2
            for hit in found:
                assert text[hit.start :].startswith(hit.match or "?")
                assert hit.around(30) == text[hit.start - 30 : hit.start + len(hit.match) + 30]

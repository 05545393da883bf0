"""grep finds what searching each line would find, whatever way it takes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_runtime import hits as module
from rlm_runtime.hits import Hit, Hits
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import with_ends, without_end
from rlm_runtime.search import required, search
from rlm_runtime.source import Source

PATTERNS = [
    "ERROR", "error", "x", "a.b", r"ERROR \d+", r"\d{3} ms$", "^ab$", "^$", "", r"(foo)bar|x", r"(?i)error", r"é+", "日本", r"\s",
    r"[^\n]", "a\n", r"(?P<n>ERR)OR", r"OR\Z", r"\AERR", r"(?=E)ERROR", r"foo(?!bar)", "\N{REPLACEMENT CHARACTER}", r"x{2}ERROR",
    r"(?s)ERR.R", r"(?m)^ERR", r"\r$",
]  # fmt: skip
words = st.sampled_from(
    [
        "ERROR 12",
        "error",
        "foobar",
        "xxERROR",
        "a b",
        "123 ms",
        "ab",
        "é日本",
        "\r",
        "\n",
        "\n\n",
        " ",
        "🙂",
        "\x1c",
        "a\x85b",
    ]
)
texts = st.lists(words, max_size=40).map("".join)


def lines(text: str, pattern: str) -> list[tuple[int, str]]:
    return [
        (number, line)
        for number, line in enumerate(map(without_end, with_ends(text)), 1)
        if re.search(pattern, line)
    ]


def lazy(data: bytes, encoding: str = "utf-8") -> LazyText:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return LazyText(Source(Path(file.name), encoding, block=7), 20)


@settings(deadline=None)
@given(
    texts,
    st.sampled_from(PATTERNS),
    st.sampled_from(["utf-8", "latin-1", "utf-16-le"]),
    st.sampled_from([b"", b"\xff\xe2\x82", b"\x80\n"]),
)
def test_the_lines_are_those_that_match(text: str, pattern: str, encoding: str, broken: bytes) -> None:
    data = text.encode(encoding, "replace") + (broken if encoding == "utf-8" else b"") or b"x"
    text = data.decode(encoding, "replace")
    wanted = [Hit("f", *line) for line in lines(text, pattern)]
    compiled = re.compile(pattern)
    assert list(search({"f": text}, compiled, None)) == wanted
    assert list(search({"f": lazy(data, encoding)}, compiled, None)) == wanted
    assert search({"f": lazy(data, encoding)}, compiled, 2) == wanted[:2]


def test_a_part_of_a_large_text_is_searched_as_itself() -> None:
    part = lazy("éERROR 1\nok\nERROR 2\n".encode() * 20)[3:200]
    assert isinstance(part, LazyText)
    assert [tuple(hit) for hit in search({"f": part}, re.compile("ERR"), None)] == [
        ("f", *line) for line in lines(str("éERROR 1\nok\nERROR 2\n" * 20)[3:200], "ERR")
    ]


@pytest.mark.parametrize(
    ("pattern", "literal", "alone"),
    [
        ("ERROR", "ERROR", True), ("ERROR.*timeout", "timeout", False), ("a|b", "", False), ("x+abc", "abc", False),
        ("(foo)?bar", "bar", False), (r"\d{3} ms$", " ms", False), ("(?i)error", "", False), ("a\nb", "", False), ("ab*", "a", False),
        ("[ab]", "", False),
    ],
)  # fmt: skip
def test_what_a_pattern_cannot_match_without(pattern: str, literal: str, alone: bool) -> None:
    assert required(re.compile(pattern)) == (literal, alone)


def test_many_hits_are_made_when_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTED", 3)
    found = search({"a": "x1\ny\nx2\n", "b": lazy(b"x3\nx4\n")}, re.compile("x"), None)
    assert isinstance(found, Hits)
    assert len(found) == 4
    assert [hit.text for hit in found] == ["x1", "x2", "x3", "x4"]
    assert found[2] == Hit("b", 1, "x3")
    assert found[-1] == Hit("b", 2, "x4")
    assert found[1:3] == [found[1], found[2]]
    assert "4 hits" in repr(found)
    with pytest.raises(IndexError):
        found[4]


def test_very_long_lines_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 50)
    data = b"a" * 120 + b"ERROR" + b"b" * 120 + b"\nERROR\n"
    for pattern in ("ERROR", "E.R"):
        found = search({"f": lazy(data)}, re.compile(pattern), None)
        assert [hit.line for hit in found] == [1, 2]
        assert all(len(hit.text) <= 60 for hit in found)

"""A LazyText gives what the same str would give, wherever its blocks are cut.

RLM_TEST_EXAMPLES=10000 tries so many examples of each.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_runtime import source
from rlm_runtime.lazytext import LazyText, TooLarge
from rlm_runtime.lines import with_ends, with_line_feeds, without_end
from rlm_runtime.source import Source
from rlm_runtime.windows import matches

EXAMPLES = int(os.environ.get("RLM_TEST_EXAMPLES", "50"))
examples = settings(max_examples=EXAMPLES, deadline=None)
ENCODINGS = [
    "utf-8",
    "latin-1",
    "cp1252",
    "utf-16-le",
    "utf-16-be",
    "utf-32-le",
    "shift_jis",
    "gb18030",
    "euc_kr",
]

chars = st.sampled_from(list("aab \n\n\r\t.é߀日本🙂𝄞\x85\u2028\x0b\x1c\N{REPLACEMENT CHARACTER}"))
texts = st.lists(
    st.one_of(chars.map(lambda char: char), st.sampled_from(["\r\n", "aba", "日本", "ERROR x"])), max_size=60
).map("".join)
broken = st.lists(
    st.one_of(
        chars.map(lambda char: char.encode()),
        st.binary(max_size=4),
        st.sampled_from(
            [
                b"\x80\x80\x80\x80\x80",
                b"\xe2\x82",
                b"\xf0\x9f",
                b"\xed\xa0\x80",
                b"\xc0\xaf",
                b"\r",
                b"\n",
                b"\xff",
            ]
        ),
    ),
    max_size=60,
).map(b"".join)
places = st.one_of(st.none(), st.integers(-80, 80))
subs = st.one_of(
    st.text("ab\n\r é日🙂\N{REPLACEMENT CHARACTER}", max_size=3), st.sampled_from(["aba", "aa", "\r\n"])
)


@st.composite
def lazies(draw: st.DrawFn) -> tuple[str, LazyText]:
    """A str, and the same as a LazyText: of a file in some encoding, damaged or not, with small blocks and a
    small limit.
    """
    encoding = draw(st.sampled_from(ENCODINGS))
    if (encoding == "utf-8" and draw(st.booleans())) or (
        encoding.startswith("utf-16") and draw(st.booleans())
    ):
        data = draw(broken)
    else:
        data = draw(texts).encode(encoding, "replace")
    data = data or b"a"  # an empty file is never lazy
    text, large = (
        data.decode(encoding, "replace"),
        lazy(data, encoding, draw(st.integers(1, 9)), draw(st.integers(0, 40))),
    )
    return with_line_feeds(text), large


def lazy(data: bytes, encoding: str = "utf-8", block: int = 4, limit: int = 1000) -> LazyText:
    with tempfile.NamedTemporaryFile() as file:  # the mapping outlives the name
        file.write(data)
        file.flush()
        return LazyText(Source(Path(file.name), encoding, block=block), limit)


def text_of(part: str | LazyText) -> str:
    return "".join(part.texts()) if isinstance(part, LazyText) else part


def outcome(run: Callable[[], Any]) -> Any:
    """What it gives, or the kind of error that it raises."""
    try:
        return run()
    except (ValueError, IndexError) as error:
        return type(error)


@examples
@given(lazies())
def test_length_and_text(pair: tuple[str, LazyText]) -> None:
    text, same = pair
    assert text_of(same) == text
    assert len(same) == len(text)
    assert bool(same) == bool(text)
    assert same == text
    assert same != text + "x"


@examples
@given(lazies(), places, places, st.sampled_from([None, 1, 2, 3, -1, -2]))
def test_slices(pair: tuple[str, LazyText], start: int | None, stop: int | None, step: int | None) -> None:
    text, same = pair
    try:
        found = text_of(same[start:stop:step])
    except TooLarge:
        assert step not in (None, 1)
    else:
        assert found == text[start:stop:step]


@examples
@given(lazies(), places, places, places, places)
def test_slices_of_slices(
    pair: tuple[str, LazyText], start: int | None, stop: int | None, first: int | None, last: int | None
) -> None:
    text, same = pair
    assert text_of(same[start:stop][first:last]) == text[start:stop][first:last]
    assert len(same[start:stop]) == len(text[start:stop])


@examples
@given(lazies(), st.integers(-80, 80))
def test_single_characters(pair: tuple[str, LazyText], index: int) -> None:
    text, same = pair
    assert outcome(lambda: same[index]) == outcome(lambda: text[index])


@examples
@given(lazies(), subs, places, places)
def test_looking_for_a_text(pair: tuple[str, LazyText], sub: str, start: int | None, end: int | None) -> None:
    text, same = pair
    for name in ("find", "rfind", "index", "rindex", "count", "startswith", "endswith"):
        wanted = outcome(lambda name=name: getattr(text, name)(sub, start, end))
        assert outcome(lambda name=name: getattr(same, name)(sub, start, end)) == wanted, name
        assert outcome(lambda name=name: getattr(same, name)(sub)) == outcome(
            lambda name=name: getattr(text, name)(sub)
        ), name
    assert (sub in same) == (sub in text)
    assert same.startswith((sub, "a")) == text.startswith((sub, "a"))


@examples
@given(lazies(), subs, st.integers(0, 60))
def test_looking_in_a_part(pair: tuple[str, LazyText], sub: str, start: int) -> None:
    text, same = pair
    part = same[start:]
    if isinstance(part, LazyText):
        assert (part.find(sub), part.rfind(sub), part.count(sub)) == (
            text[start:].find(sub),
            text[start:].rfind(sub),
            text[start:].count(sub),
        )


@examples
@given(lazies(), st.booleans())
def test_lines(pair: tuple[str, LazyText], keepends: bool) -> None:
    text, same = pair
    wanted = list(with_ends(text))
    assert list(same.splitlines(keepends)) == (wanted if keepends else list(map(without_end, wanted)))
    assert list(same) == list(map(without_end, wanted))


@examples
@given(lazies(), st.one_of(st.none(), subs.filter(bool)), st.integers(-1, 3))
def test_split(pair: tuple[str, LazyText], sep: str | None, maxsplit: int) -> None:
    text, same = pair
    if sep is None:
        maxsplit = -1
    assert [text_of(part) for part in same.split(sep, maxsplit)] == (
        text.split(sep, maxsplit) if sep else re.findall(r"\S+", text)
    )


@examples
@given(lazies(), st.integers(1, 20), st.integers(0, 19))
def test_pieces(pair: tuple[str, LazyText], size: int, overlap: int) -> None:
    text, same = pair
    overlap = min(overlap, size - 1)
    wanted = []
    for start in range(0, len(text), size - overlap):
        wanted.append(text[start : start + size])
        if start + size >= len(text):
            break
    assert list(same.pieces(size, overlap)) == wanted


PATTERNS = [
    r"a",
    r"a+",
    r"aba",
    r"\w+",
    r"\s+",
    r"[^a]{1,3}",
    r"^\w",
    r"(?m)^a?",
    r"(?m)\w$",
    r"a|b",
    r"x*",
    r"",
    r"\b",
    r"(?<=a)b",
    r"a(?!b)",
    r"(a)(b)?",
    r"日.",
    r"$",
    r"\A\w",
    r"(?s)a.b",
]


@examples
@given(lazies(), st.sampled_from(PATTERNS), st.integers(1, 30))
def test_regular_expressions(pair: tuple[str, LazyText], pattern: str, window: int) -> None:
    text, same = pair
    compiled = re.compile(pattern)
    # No match here is longer than the longest run of one kind: 60 pieces of at most 7 characters.
    found = [
        (match.span(), match.group(), match.groups())
        for match in matches(compiled, same.texts(), 500, window, 10_000)
    ]
    assert found == [(match.span(), match.group(), match.groups()) for match in compiled.finditer(text)]


@examples
@given(
    st.text("ab\n", max_size=120),
    st.sampled_from([r"a+", r"a", r"(?m)^b", r"ab", r"\n", r"a*"]),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_matches_that_are_longer_than_the_window_are_followed(
    text: str, pattern: str, window: int, block: int
) -> None:
    blocks = iter([text[at : at + block] for at in range(0, len(text), block)])
    assert [found.span() for found in matches(re.compile(pattern), blocks, 3, window, 1000)] == [
        match.span() for match in re.finditer(pattern, text)
    ]


def test_the_functions_of_re_take_it() -> None:
    same = lazy(b"one ERROR two\nERROR three\n")
    found = re.search("ERROR", same)
    assert found is not None
    assert found.span() == (4, 9)
    assert re.findall(r"ERROR (\w+)", same) == ["two", "three"]
    assert [match.start() for match in re.finditer("ERROR", same, re.IGNORECASE)] == [4, 14]
    assert re.match("one", same)
    assert not re.match("two", same)
    assert re.findall("a", "banana") == ["a", "a", "a"]


def test_the_end_of_a_large_text_is_found_without_a_look_at_the_rest() -> None:
    same = lazy(b"x" * 10_000 + "é\nlast line".encode(), block=16, limit=100)
    assert same[-9:] == "last line"
    assert same[-1] == "e"
    assert same[-11:-9] == "é\n"
    assert not same.source.counted


def test_the_beginning_is_found_without_a_look_at_the_rest() -> None:
    same = lazy("é".encode() * 10_000, block=16, limit=100)
    assert same[:3] == "ééé"
    assert same.find("é") == 0
    assert not same.source.counted


def test_a_long_slice_is_lazy_again_and_a_short_one_is_a_str() -> None:
    same = lazy(b"0123456789" * 10, limit=20)
    assert isinstance(same[5:50], LazyText)
    assert isinstance(same[5:10], str)
    assert same[5:50][10:15] == "56789"


def test_what_would_need_the_whole_text_says_what_to_do() -> None:
    same = lazy(b"0123456789" * 10, limit=20)
    with pytest.raises(TooLarge, match="take a slice"):
        str(same)
    with pytest.raises(AttributeError, match=r"no \.upper\(\).*take a slice"):
        same.upper()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = same.nonsense
    assert len(repr(same)) < 300
    assert str(lazy(b"short")) == "short"


def test_a_match_without_end_is_an_error_and_not_the_whole_text_in_memory() -> None:
    blocks = iter(["a" * 10] * 1000)
    with pytest.raises(MemoryError, match="matches less"):
        list(matches(re.compile("a+"), blocks, 3, 10, 100))


@examples
@given(
    st.text("aab\né", max_size=60),
    st.integers(1, 8),
    st.sampled_from(["a", "aa", "aab", "aba", "é", "bé", "\n", ""]),
)
def test_counting_is_the_same_in_whatever_parts_a_text_is_read(text: str, part: int, sub: str) -> None:
    with tempfile.NamedTemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        file.write(text.encode())
        file.flush()
        patch.setattr(source, "_READ", part)
        large = LazyText(Source(Path(file.name), block=part), 20)
        assert large.count(sub) == text.count(sub)
        assert large.count(sub, 1, -1) == text.count(sub, 1, -1)

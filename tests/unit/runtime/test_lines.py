"""One meaning of a line: all that tells of lines agrees with one oracle, in memory and on disk, and with
grep(1) of the machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rlm_runtime import files, forms, lazytext, source
from rlm_runtime.lazytext import LazyText, TooLarge
from rlm_runtime.search import search
from rlm_runtime.source import Source
from rlm_runtime.unpacking import Unreadable

examples = settings(max_examples=int(os.environ.get("RLM_TEST_EXAMPLES", "80")), deadline=None)
ENCODINGS = [
    "utf-8",
    "latin-1",
    "cp1252",
    "cp437",
    "utf-16-le",
    "utf-16-be",
    "utf-32-le",
    "shift_jis",
    "gb18030",
    "euc_kr",
]
PARTS = [
    "a",
    "b c",
    "é",
    "日本",
    "🙂",
    "\n",
    "\n",
    "\r\n",
    "\r\n",
    "\r",
    "\f",
    "\v",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\ufeff",
    "\0",
]
INVALID = [
    b"\xff",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\x80\x80\x80\x80\x80",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\x81",
    b"\x8f\xa1",
    b"\r",
]


def oracle(text: str) -> list[str]:
    """The lines of a text, told in another way than the project's."""
    if "\n" not in text:
        text = text.replace("\r", "\n")
    return [
        line[:-2] if line.endswith("\r\n") else line.rstrip("\n")
        for line in re.findall(r"[^\n]*\n|[^\n]+", text)
    ]


@st.composite
def texts(draw: st.DrawFn) -> tuple[bytes, str]:
    """Bytes, damaged or not, and their encoding."""
    encoding = draw(st.sampled_from(ENCODINGS))
    only = draw(st.sampled_from([PARTS, [part for part in PARTS if "\n" not in part]]))
    pieces = [
        part.encode(encoding, "replace")
        for part in draw(st.lists(st.sampled_from(only), min_size=1, max_size=40))
    ]
    for place in draw(st.lists(st.integers(0, 40), max_size=4)):
        pieces.insert(place, draw(st.sampled_from(INVALID)))
    return b"".join(pieces), encoding


def on_disk(data: bytes, encoding: str, block: int) -> LazyText:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return LazyText(Source(Path(file.name), encoding, block=block), 1000)


@examples
@example((b"aa\xf0\x9f\x98\x950\x852\n\xff", "gb18030"), 1, "")
@given(texts(), st.integers(1, 9), st.sampled_from(["", "a", "^$", r"[^\x00]", "é|日", "c$", r"\r"]))
def test_all_that_tells_of_lines_agrees(given_text: tuple[bytes, str], block: int, pattern: str) -> None:
    data, encoding = given_text
    text, large = data.decode(encoding, "replace"), on_disk(data, encoding, block)
    wanted = oracle(text)
    assert list(large) == list(large.splitlines()) == wanted
    assert [
        line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line
        for line in large.splitlines(True)
    ] == wanted
    kept = "".join(large.splitlines(keepends=True))
    assert kept == large.read(0, len(large))
    numbered = list(enumerate(wanted, 1))
    for same in (text, large):
        assert [(hit.line, hit.text) for hit in search({"f": same}, re.compile(pattern), None)] == [
            (number, line) for number, line in numbered if re.search(pattern, line)
        ]
        if not forms.form(same):
            assert [(row["line"], row["text"]) for row in forms.records(same)] == numbered


@examples
@given(
    st.lists(
        st.sampled_from([b"a", b"b c", "é".encode(), b"\n", b"\r\n", b"\r", b"\f", *INVALID]), max_size=60
    ),
    st.integers(1, 9),
)
def test_numbers_and_places_are_those_of_grep(parts: list[bytes], block: int) -> None:
    data = b"".join(parts) + b"\na"
    said = subprocess.run(
        ["grep", "-a", "-b", "-n", "a"], input=data, capture_output=True, env={"LC_ALL": "C"}, check=True
    ).stdout
    wanted = [
        (int(number), int(place)) for number, place in re.findall(rb"^(\d+):(\d+):", said, re.MULTILINE)
    ]
    large = on_disk(data, "utf-8", block)
    for same in (data.decode("utf-8", "replace"), large):
        for pattern in ("a", "[a]"):
            assert [hit.line for hit in search({"f": same}, re.compile(pattern), None)] == [
                number for number, _ in wanted
            ]
    lines = data.split(b"\n")
    found = search({"f": large}, re.compile("a"), None)
    assert [hit.text for hit in found] == [
        (lines[number - 1].removesuffix(b"\r") if number < len(lines) else lines[number - 1]).decode(
            "utf-8", "replace"
        )
        for number, _ in wanted
    ]


@examples
@given(texts(), st.integers(1, 9), st.sampled_from(["a", "é", "日本", "\n", "b c"]))
def test_places_are_right_with_invalid_bytes(given_text: tuple[bytes, str], block: int, sub: str) -> None:
    data, encoding = given_text
    large = on_disk(data, encoding, block)
    text = data.decode(encoding, "replace")
    text = text if "\n" in text else text.replace("\r", "\n")
    assert list(large.places(sub, None, None)) == [
        found.start() for found in re.finditer(re.escape(sub), text)
    ]
    assert [large[place : place + len(sub)] for place in large.places(sub, None, None)] == [sub] * text.count(
        sub
    )
    assert list(map(str, large.split(sub))) == text.split(sub)


def test_carriage_returns_in_a_table_end_no_row() -> None:
    text = 'name,note,n\nann,one\rtwo,1\n"bob, b",three\r,2\ncy,"x\ry",3\n'
    assert forms.records(text) == [
        {"name": "ann", "note": "one\rtwo", "n": 1},
        {"name": "bob, b", "note": "three\r", "n": 2},
        {"name": "cy", "note": "x\ry", "n": 3},
    ]


def test_a_line_that_is_too_long_for_memory_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lazytext, "LEAST_LINE", 50)
    large = on_disk(b"short\n" + b"x" * 1000 + b" needle " + b"x" * 1000, "utf-8", 16)
    large = LazyText(large.source, 200)
    for read in (large.splitlines, large.__iter__, lambda: forms._plain_lines(large)):
        with pytest.raises(TooLarge, match=r"line 2 has more than 50 characters.*chunks\(size\)"):
            list(read())
    assert [hit.line for hit in search({"f": large}, re.compile("needle"), None)] == [2]
    assert [len(part) for part in large.split("\n")] == [5, 2008]
    files._activate(large)
    assert files.peek(6, 10) == "xxxx"
    files._activate(None)


def test_a_line_that_is_too_long_for_a_record_is_an_error_and_not_the_end_of_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forms, "_WHOLE", 1_000)
    logged = '2026-11-28 10:00:0{} INFO a "some words" b\n'
    logs = "".join(map(logged.format, range(9)))
    kinds = {
        "JSON lines": '{"a": 1}\n' * 9 + '{"a": [' + "{}," * 1_000 + "{}]}\n",
        "a table": "a,b,c\n" + "1,2,3\n" * 9 + "," * 2_000 + "\n",
        "lines": logs * 150 + logged.replace("words", "w" * 2_000) + logs * 2_500,
    }
    for kind, text in kinds.items():
        assert kind in forms.form(text)
        with pytest.raises(
            ValueError,
            match=r"^line [\d,]+ has .* characters, and records\(\) reads none of more than 1,000\. "
            r".*chunks\(size\)",
        ):
            list(forms.records(text))
    assert list(forms.records("x" * 3_000)) == [{"line": 1, "text": "x" * 3_000}]


def test_a_text_that_is_given_in_place_of_a_name_may_have_carriage_returns_alone() -> None:
    assert files.records("a\rb\r") == [{"line": 1, "text": "a"}, {"line": 2, "text": "b"}]
    assert files.grep("b", "a\rb\rc") == [("text", 2, "b")]


@pytest.mark.parametrize("encoding", ["gb18030", "cp932", "big5hkscs", "cp949", "euc_jp", "johab"])
def test_a_long_line_in_an_encoding_of_east_asia_is_read_in_blocks(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_LINE", 64)
    text = "中国 人民,中国(東京)/" * 300
    (tmp_path / "a.txt").write_bytes(text.encode(encoding, "replace"))
    large = LazyText(Source(tmp_path / "a.txt", encoding, block=64), 1000)
    assert "".join(large.texts()) == text.encode(encoding, "replace").decode(encoding)
    assert max(map(len, large.texts())) <= 128


def test_what_cannot_be_taken_apart_is_an_error_that_says_how_to_convert_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source, "LONGEST", 10_000)
    with pytest.raises(Unreadable, match=r"iconv -f gb18030 -t utf-8"):
        on_disk(("中国" * 10_000).encode("gb18030"), "gb18030", 64)
    large = on_disk(("中国" * 2_000 + " ").encode("gb18030") * 3, "gb18030", 64)
    assert len(large) == 12_003

from __future__ import annotations

import gzip
import io
import random
import re
import sqlite3
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rlm_runtime import charsets
from rlm_runtime.charsets import Charset, NoText, find
from rlm_runtime.formats import read_file
from rlm_runtime.lazytext import LazyText
from rlm_runtime.readers import decode
from rlm_runtime.search import search
from rlm_runtime.unpacking import Unreadable

from tests.support.tongues import TONGUES, writable

SHARES = {20: 0.86, 40: 0.95, 80: 0.99, 200: 1.0, 1000: 1.0, 100_000: 1.0}
"""Of texts of so many bytes, the share that must be read as it was written."""
PAIRS = [(tongue, encoding) for tongue, (encodings, _) in TONGUES.items() for encoding in encodings]
LOG = "".join(f"2024-05-01 12:00:{second % 60:02d} INFO request {second} ok\n" for second in range(2000))


def read(data: bytes) -> str:
    return str(decode(data).text)


def pieces(text: str, encoding: str, size: int) -> list[str]:
    """Parts of a text, each of about so many bytes, that begin at different places and are not all ASCII."""
    each = len(text.encode(encoding)) / len(text)
    long = text * (int(size / each / len(text)) + 2)
    found = {
        long[at : at + max(1, int(size / each))]
        for at in (range(0, len(text), 1 + size) if size < 1000 else (0,))
    }
    return sorted(piece for piece in found if not piece.isascii())


def test_what_was_written_in_a_language_and_its_encodings_is_read_back() -> None:
    for size, wanted in SHARES.items():
        tried: Counter[bool] = Counter()
        wrong = []
        for tongue, encoding in PAIRS[:: 3 if size > 1000 else 1]:
            text = writable(TONGUES[tongue][1], encoding)
            for piece in pieces(text, encoding, size)[:: 6 if size < 80 else 2 if size < 1000 else 1]:
                try:
                    same = read(piece.encode(encoding)) == piece
                except Unreadable:
                    same = False
                tried[same] += 1
                wrong += [] if same else [(tongue, encoding, piece[:40])]
        share = tried[True] / tried.total()
        assert share >= wanted, f"{size} bytes: {share:.3f} of {tried.total()} are right, wrong: {wrong[:20]}"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "id;price\n1;12 €\n2;7 €\n"),
        ("cp1252", "temp 21 °C at 3 µm ± 2 %\n"),
        ("cp1252", "The café’s résumé was naïve.\n"),
        ("cp1252", "it’s said “we don’t pay” – that’s all we know…\n"),
        ("cp1252", "Strecke 3½ km², §12 Abs. 3, © 2024 Müller & Söhne\n"),
        ("cp1252", LOG + "9999 user=René action=login ok\n" + LOG),
        ("cp1252", "El león bailarín"),
        ("cp1252", "one line with système in it\n"),
        ("cp1252", "name\nJosé\nZoë\nBjörn\nÅsa\nFrançois\nSøren\n"),
        ("cp1252", "ÜBERSICHT DER GERÄTE: GRÖSSE, LÄNGE, HÖHE\n"),
        ("cp1252", "\xa0\xa0indented\xa0text\n"),
        ("cp1250", "user=Łukasz status=ok\nuser=Zażółć status=ok\n"),
        ("cp1250", "Dvořák;Praha\nNěmcová;Příbram\n"),
        ("cp1251", "2024-05-01 ERROR Ошибка диска\n"),
        ("cp1251", "id;имя\n1;Иван\n2;Мария\n"),
        ("cp866", "Том в устройстве C не имеет метки.\n"),
        ("cp437", "┌──────┬──────┐\n│ name │ size │\n└──────┴──────┘\n"),
        ("gb18030", "姓名,城市,金额\n张伟,北京,12\n"),
        ("cp932", "名前,都市\n山田太郎,東京\n"),
        ("cp932", "ｴﾗｰ ﾌｧｲﾙｶﾞ ﾐﾂｶﾘﾏｾﾝ\n"),
        ("cp949", "이름,도시\n김철수,서울\n"),
        ("cp037", "CUSTOMER 00123 SMITH      BALANCE 000451.20 OPEN 2024-01-31 NEW YORK\n" * 3),
        ("utf-32-le", "größer und kleiner\n"),
        ("utf-32-be", "größer und kleiner\n"),
        ("utf-16-le", "one\r\ntwo\r\n"),
        ("utf-16-be", "one\r\ntwo\r\n"),
        ("utf-16-le", "a\0b is a key with a NUL in it, as registries have\r\n" * 3),
        ("utf-16-le", "😀 emoji and text\n" * 3),
        ("iso2022_jp", "件名: 会議の予定\n"),
    ],
)
def test_what_people_have_on_their_disks_is_read_as_it_was_written(encoding: str, text: str) -> None:
    assert read(text.encode(encoding)) == text


def test_western_text_is_never_said_to_be_an_exotic_relative() -> None:
    for text in (
        "12 €",
        "21 °C",
        "Müller",
        "señor",
        "façade",
        "naïve café",
        "x² + y²",
        "“quoted”",
        "5 £",
        "Ærø",
        "Île-de-France",
    ):
        assert find(f"a line before\n{text}\na line after\n".encode("cp1252")).encoding == "cp1252", text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\x1b\ufeff"), max_size=300))
@example("é")
@example("Ã©tÃ©")
def test_utf_8_is_read_as_such_whatever_it_says(text: str) -> None:
    data = text.encode()
    assert find(data) == Charset("utf-8")
    assert read(data) == text


@given(
    st.text(st.characters(codec="utf-8"), max_size=100), st.sampled_from(["utf-8-sig", "utf-16", "utf-32"])
)
@example("\x1f\x1e\x1d\x1c\x00", "utf-8-sig")
def test_a_byte_order_mark_settles_it(text: str, encoding: str) -> None:
    assert read(text.encode(encoding)) == text or text.startswith("\0") or not text


@given(st.binary(max_size=2000))
@settings(max_examples=60)
@example(b"\xff\xfe")
@example(b"\xed\xa0")
@example(b"\xed\xa0\x80\xed\xb0\x80")
@example(b"\x1b$B\xff")
@example(b"\0" * 9)
@example(b"abc\xe2\x82")
def test_any_bytes_are_text_or_refused_and_always_the_same(data: bytes) -> None:
    try:
        first = decode(data)
    except Unreadable:
        with pytest.raises(Unreadable, match="holds no text"):
            decode(data)
        return
    assert isinstance(first.text, str)
    assert decode(data) == first


@pytest.mark.parametrize(
    "data",
    [
        LOG.replace("request 3 ", "requ\0\0\0\0\0\0 ", 1).encode(),
        b"\0" * 200_000 + LOG.encode(),
        LOG.encode() + b"\0" * 1_000_000,
        LOG.encode() + b"\0" * 70_000 + LOG.encode(),
        "größer\0kleiner\0".encode() * 50,
        b"/etc/passwd\0/etc/hosts\0/tmp/a b\0",
        b"8=FIX.4.2\x019=65\x0135=A\x0149=S\x01" * 50,
        b"\x1b[31mred\x1b[0m \x08\x07\x0c\n" * 20,
        b"MZ is how this text begins\n",
        b"RIFF and BM, ID3\n",
        "a text with René in it\x1a".encode("cp1252"),
    ],
    ids=range(11),
)
def test_nuls_and_control_characters_do_not_make_a_text_binary(data: bytes) -> None:
    text = read(data)
    assert len(text) >= len(data) * 8 // 10
    assert text.count("\0") == data.count(0)


def _database() -> bytes:
    made = sqlite3.connect(":memory:")
    made.execute("create table t (a text)")
    made.executemany("insert into t values (?)", [("some text",)] * 100)
    return made.serialize()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"hello\n"))
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        Path("/bin/ls").read_bytes(),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4,
        _database(),
        _tar(),
        gzip.compress(LOG.encode()),
        random.Random(1).randbytes(5000),
        random.Random(2).randbytes(100_000),
        b"\0" * 1000,
        b"".join(number.to_bytes(4, "little") for number in range(5000)),
    ],
    ids=["program", "picture", "database", "tar", "gzip", "noise", "more noise", "nothing", "numbers"],
)
def test_what_is_no_text_is_refused_and_said_to_be(data: bytes) -> None:
    with pytest.raises(NoText) as caught:
        find(data)
    assert str(caught.value)


def test_utf_8_with_other_lines_in_it_keeps_both() -> None:
    line = "2024 größer als früher – ok\n"
    mixed = line.encode() * 20 + "user=René saved 12 €\n".encode("cp1252") + line.encode() * 20
    found = decode(mixed)
    assert found.text == line * 20 + "user=René saved 12 €\n" + line * 20
    assert found.note() == "bytes that are not UTF-8 read as cp1252"
    russian = "Ошибка: файл не найден\n"
    assert read(russian.encode() * 20 + russian.encode("cp1251") + russian.encode() * 20) == russian * 41


def test_more_legacy_lines_than_utf_8_lines_keep_both_too() -> None:
    line = "Prüfung läuft über Nacht, größere Störung möglich\n"
    assert read(line.encode("cp1252") * 30 + line.encode() * 10) == line * 40


def test_characters_that_were_cut_off_are_one_replacement_each() -> None:
    assert (
        read("größer é – ".encode() * 30 + b"caf\xc3\nend\xe2\x80")
        == "größer é – " * 30 + "caf\ufffd\nend\ufffd"
    )


def test_characters_in_two_halves_are_put_together() -> None:
    halves = "\ud83d\ude00".encode("utf-8", "surrogatepass")
    assert read("größer ".encode() * 30 + halves + b"!") == "größer " * 30 + "😀!"


@pytest.mark.parametrize("where", [0, 5_000, 10_000])
def test_what_is_not_ascii_is_found_wherever_it_is_in_a_large_file(where: int, tmp_path: Path) -> None:
    lines = ["a line of ASCII and nothing else\n"] * 10_000
    lines.insert(where, "user=Müller paid 12 €\n")
    path = tmp_path / "big.log"
    path.write_bytes("".join(lines).encode("cp1252"))
    lazy = read_file(path, "big.log", room=1000)
    assert isinstance(lazy.text, LazyText)
    assert lazy.encoding == "cp1252"
    assert [hit.line for hit in search({"a": lazy.text}, re.compile("Müller"), None)] == [where + 1]


def test_of_a_huge_file_a_bounded_part_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charsets, "_WHOLE", 1 << 20)
    monkeypatch.setattr(charsets, "PARTS", 4)
    data = b"ASCII\n" * (2 << 20)
    assert sum(len(block) for _, block in charsets._blocks(data, 0)) == 5 << 20
    end = data + "größer\n".encode()
    assert find(end) == Charset("utf-8")


def test_a_large_text_with_strays_is_the_same_as_one_in_memory(tmp_path: Path) -> None:
    line = "2024 größer als früher – ok\n"
    path = tmp_path / "mixed.log"
    path.write_bytes((line.encode() * 50 + "user=René ok\n".encode("cp1252") + line.encode()) * 30)
    whole, lazy = read_file(path, "a"), read_file(path, "a", room=10)
    assert isinstance(lazy.text, LazyText)
    assert "".join(lazy.text.texts()) == whole.text
    assert lazy.note().startswith("bytes that are not UTF-8 read as cp1252")
    for wanted in ("René", "user=", "größer", "é ok"):
        assert lazy.text.count(wanted) == str(whole.text).count(wanted)
        found, same = (search({"a": text}, re.compile(wanted), None) for text in (lazy.text, whole.text))
        assert [hit[1:] for hit in found] == [hit[1:] for hit in same]


def test_nuls_in_a_large_text_stay_and_are_searched_over(tmp_path: Path) -> None:
    path = tmp_path / "hole.log"
    path.write_bytes(b"\0" * 20_000 + LOG.encode())
    lazy = read_file(path, "a", room=10).text
    assert isinstance(lazy, LazyText)
    assert len(search({"a": lazy}, re.compile("INFO request"), None)) == 2000
    assert lazy.count("\0") == 20_000


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            [("first für\r\n" * 20, "utf-8"), ("PS Größe 5 €, Привет\r\n", "utf-16-le"), ("more\n", "utf-8")],
            None,
        ),
        (
            [("first line\r\n" * 20, "utf-8"), ("PS Größe\r\n", "utf-16")],
            "first line\r\n" * 20 + "PS Größe\r\n",
        ),
        ([("first für\r\n" * 20, "cp1252"), ("PS Größe\r\n", "utf-16-le")], None),
        ([("erste Größe\r\n" * 9, "utf-16-le"), ("done\r\n", "ascii")], None),
        (
            [
                ("erste Größe\r\n" * 9, "utf-16-le"),
                ("written by a command of another shell\r\n", "ascii"),
                ("PS\r\n", "utf-16-le"),
            ],
            None,
        ),
    ],
)
def test_what_a_program_appends_in_another_width_of_characters_is_read_and_told(
    parts: list[tuple[str, str]], text: str | None
) -> None:
    found = decode(b"".join(part.encode(encoding) for part, encoding in parts))
    assert found.text == (text or "".join(part for part, _ in parts))
    assert "parts of it are UTF-16" in found.note()


def test_marks_between_files_that_were_put_together_are_no_text() -> None:
    assert read("a ü\n".encode("utf-8-sig") + "b two\n".encode("utf-8-sig")) == "a ü\nb two\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('<?xml version="1.0" encoding="windows-1251"?>\n<a>Да</a>', "cp1251"),
        (
            'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=ISO-8859-2\\n"\n\nmsgid "a"\nmsgstr '
            '"ż"\n',
            "iso8859-2",
        ),
        ('#!/usr/bin/python\n# -*- coding: koi8-r -*-\nx = "да"\n', "koi8-r"),
        ('@charset "cp1250";\nq::before { content: "ř" }\n', "cp1250"),
    ],
)
def test_what_a_text_says_of_its_encoding_counts_where_it_is_not_utf_8(text: str, encoding: str) -> None:
    assert read(text.encode(encoding)) == text
    assert read(text.encode()) == text

"""`cite` tells where a passage stands: the bytes of its file where they are the passage, and never a place
that is only like it.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_contract import ENCODINGS, MAX_EVIDENCE, MAX_QUOTE, STANDS
from rlm_runtime import charsets, citing, files, memory, wire
from rlm_runtime.citing import cite
from rlm_runtime.lazytext import LazyText

LOG = "".join(f"{n:04d} INFO all is well\n" for n in range(200)) + "0200 ERROR the pump broke\n"


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def granted(kind: str, body: dict[str, Any]) -> dict[str, Any]:
        path = Path(body["path"])
        return {"inside": str(path), "path": str(path), "directory": path.is_dir()}

    monkeypatch.setattr(wire, "call", granted)
    forget()
    yield
    forget()


def forget() -> None:
    for name in list(files.files):
        files.remove_file(name)
    files._folders.clear()
    files._object.clear()
    citing._given.clear()
    citing._marks.clear()
    citing._last[0] = citing._delivered[0] = 0
    citing.expect_evidence(False)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Path]:
    def put(name: str, data: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        files.load_files([str(path)])
        return path

    return put


def given_with(text: str = "") -> list[dict[str, Any]]:
    return [dict(one) for one in citing.evidence(text)]


def there(one: dict[str, Any]) -> str:
    """What the file has at the place that was told."""
    assert one["unit"] == "bytes"
    return Path(one["path"]).read_bytes()[one["start"] : one["end"]].decode(one["encoding"])


def in_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "one_text", lambda: 1000)


class TestAPassage:
    def test_of_a_hit_is_told_by_its_bytes_and_has_one_mark(self, load: Callable[..., Path]) -> None:
        path = load("app.log", LOG)
        hit = files.grep("ERROR")[0]
        assert cite(hit) == "[1]"
        assert cite(hit) == "[1]"
        assert cite("pump broke") == "[2]"
        first, second = given_with()
        assert first["quote"] == "0200 ERROR the pump broke" == there(first)
        assert first["path"] == str(path)
        assert second["mark"] == 2
        assert there(second) == "pump broke"

    def test_that_stands_twice_is_told_by_its_hit_and_asked_about_as_a_text(
        self, load: Callable[..., Path]
    ) -> None:
        load("a.log", "same line\nother\nsame line\n")
        load("b.log", "same line\n")
        with pytest.raises(ValueError, match=r"3 places: a\.log:1, a\.log:3, b\.log:1.*name='a\.log:1'"):
            cite("same line")
        assert cite("same line", name="a.log:3") == "[1]"
        assert cite(files.grep("same", "a.log")[1]) == "[1]"
        assert cite("same line", name="b.log") == "[2]"
        assert [one["start"] for one in given_with()] == [16, 0]

    def test_that_stands_twice_in_a_line_is_to_be_longer(self, load: Callable[..., Path]) -> None:
        load("a.txt", "one two one\n")
        with pytest.raises(ValueError, match="Cite a longer passage"):
            cite("one", name="a.txt:1")

    def test_that_overlaps_itself_stands_twice(self, load: Callable[..., Path]) -> None:
        load("a.txt", "aaaa b")
        with pytest.raises(ValueError, match="2 places"):
            cite("aaa")

    def test_of_the_active_file_comes_before_others(self, load: Callable[..., Path]) -> None:
        load("a.log", "same line\n")
        path = load("b.log", "same line\nonly here\n")
        files.switch_to("b.log")
        cite("same line")
        assert given_with()[0]["path"] == str(path)
        files.switch_to("a.log")
        cite("only here")
        assert there(given_with()[1]) == "only here"

    def test_that_stands_nowhere_is_told_with_the_nearest_text(self, load: Callable[..., Path]) -> None:
        load("app.log", LOG)
        with pytest.raises(ValueError, match=r"does not stand in.*nearest.*0200 ERROR the pump broke.*:201"):
            cite("0200 ERROR the pump is broken")
        with pytest.raises(ValueError, match="does not stand in line 5"):
            cite("0003 INFO", name="app.log:5")

    @pytest.mark.parametrize("passage", ["", " \n\t ", "\u3000"])
    def test_without_anything_in_it_is_refused(self, load: Callable[..., Path], passage: str) -> None:
        load("app.log", LOG)
        with pytest.raises(ValueError, match="nothing in this passage"):
            cite(passage)

    def test_that_is_too_long_is_refused_and_of_a_long_line_the_match_is_cited(
        self, load: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = "é" * 5000 + "NEEDLE" + "x" * 5000
        load("long.txt", f"one\n{line}\n")
        with pytest.raises(ValueError, match=r"10,006 characters"):
            cite(line)
        cite(files.grep("NEEDLE")[0])
        assert "NEEDLE" in there(given_with()[0])
        assert len(given_with()[0]["quote"]) < MAX_QUOTE
        forget()
        in_lazy(monkeypatch)
        load("long.txt", f"one\n{line}\n")
        assert isinstance(files.files["long.txt"], LazyText)
        cite(files.grep("NEEDLE")[0])
        assert "NEEDLE" in there(given_with()[0])

    def test_may_be_a_match_or_a_record(self, load: Callable[..., Path]) -> None:
        load("a.txt", "the same\nof all\nthe same\n")
        matches = list(re.finditer("the same", files.files["a.txt"]))  # type: ignore[arg-type]
        cite(matches[1])
        cite(files.records()[0])  # type: ignore[index]
        assert [one["start"] for one in given_with()] == [16, 0]

    def test_of_a_table_is_a_value_of_its_column_text(self, load: Callable[..., Path]) -> None:
        load("reviews.csv", "line,text\n7,a good film\n9,a bad film\n")
        row = files.records()[1]  # type: ignore[index]
        assert row["line"] == 9
        cite(row)
        assert there(given_with()[0]) == "a bad film"

    def test_is_no_record_without_text(self, load: Callable[..., Path]) -> None:
        load("people.csv", "name,city\nAnn,Oslo\n")
        with pytest.raises(TypeError, match="none of its own"):
            cite(files.records()[0])  # type: ignore[index]

    @pytest.mark.parametrize("other", [7, None, ["a"], b"bytes"])
    def test_is_nothing_else(self, load: Callable[..., Path], other: Any) -> None:
        load("a.txt", "the same\n")
        with pytest.raises(TypeError, match="cite takes one passage"):
            cite(other)

    def test_wrapped_otherwise_is_told_as_it_stands(self, load: Callable[..., Path]) -> None:
        load("a.txt", "The tenant shall\r\n   pay the rent.\r\n")
        cite("The tenant shall pay the rent.")
        assert there(given_with()[0]) == "The tenant shall\r\n   pay the rent."

    @pytest.mark.parametrize(
        ("stands", "given"),
        [
            ("the \u201cold\u201d pump\u2019s valve", 'the "old" pump\'s valve'),
            ('the "old" pump\'s valve', "the \u201eold\u201c pump\u2019s valve"),
            ("1914\u20131918 \u2026", "1914-1918 ..."),
            ("well... no \u2013 never", "well\u2026 no - never"),
            ("The o\ufb03ce \ufb01led e\ufb00orts", "The office filed efforts"),
            ("office files", "o\ufb03ce \ufb01les"),
            ("Cafe\u0301 au lait", "Caf\u00e9 au lait"),
            ("Caf\u00e9 au lait", "Cafe\u0301 au lait"),
            ("Donau\u00addampf\u200bschiff", "Donaudampfschiff"),
            ("48\u202f213\u00a0euros\u3000paid", "48 213 euros paid"),
            ("the trans-\n  mission failed", "the transmission failed"),
            ("the trans\u2010\r\nmission failed", "the transmission failed"),
            ("a well-\nknown case", "a well-known case"),
            ("\u4e2d\u6587\n\u6587\u5b57\u5f88\u597d", "\u4e2d\u6587\u6587\u5b57\u5f88\u597d"),
            ("\u4ef7\u683c\uff1a\uff15\u5143\uff0c\u597d", "\u4ef7\u683c:5\u5143,\u597d"),
            ("dit \u2039oui\u203a ici", "dit 'oui' ici"),
            ("value \u2265 5 always", "value >= 5 always"),
            ("the la\ufb06 word", "the last word"),
            ("well--no", "well\u2014no"),
            ("Vie\u0302\u0323t Nam", "Vi\u1ec7t Nam"),
            ("5 \u00b5m and 5 \u212b", "5 \u03bcm and 5 \u00c5"),
            ("the \u200fword\u200e and \u2714\ufe0f here", "the word and \u2714 here"),
        ],
    )
    def test_in_other_characters_of_the_same_kind_is_told_as_it_stands(
        self, load: Callable[..., Path], stands: str, given: str
    ) -> None:
        load("a.txt", f"Before.\n{stands}\nAfter.\n")
        cite(given)
        assert there(given_with()[0]) == stands

    @pytest.mark.parametrize(
        "given",
        [
            "the landlord is ... permitted to terminate",
            "the landlord is [...] permitted",
            "The Landlord is not",
            "the landlord is not permit-",
        ],
    )
    def test_that_leaves_words_out_or_has_others_stands_nowhere(
        self, load: Callable[..., Path], given: str
    ) -> None:
        load("a.txt", "the landlord is not permitted to terminate\n")
        with pytest.raises(ValueError, match="does not stand in"):
            cite(given)

    def test_needs_a_file(self) -> None:
        files._activate("just a text")
        with pytest.raises(ValueError, match="no file is loaded"):
            cite("just")

    def test_is_one_of_so_many(self, load: Callable[..., Path]) -> None:
        load("many.txt", "".join(f"line {n:05d}\n" for n in range(MAX_EVIDENCE + 1)))
        for n in range(MAX_EVIDENCE):
            cite(f"line {n:05d}")
        with pytest.raises(ValueError, match="at most 1,000"):
            cite(f"line {MAX_EVIDENCE:05d}")


class TestAFile:
    @pytest.mark.parametrize("lazy", [False, True])
    @pytest.mark.parametrize(
        ("encoding", "mark"),
        [
            ("utf-8", b""),
            ("utf-8", codecs.BOM_UTF8),
            ("utf-16-le", codecs.BOM_UTF16_LE),
            ("utf-16-be", codecs.BOM_UTF16_BE),
            ("utf-32-le", codecs.BOM_UTF32_LE),
        ],
    )
    def test_in_any_encoding_and_with_any_line_ends(
        self,
        load: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        encoding: str,
        mark: bytes,
        lazy: bool,
    ) -> None:
        if lazy:
            in_lazy(monkeypatch)
        text = "".join(f"{n:03d} Zeile für 🙂 Nummer {n}\r\n" for n in range(100))
        load("a.txt", mark + text.encode(encoding))
        assert isinstance(files.files["a.txt"], LazyText) is lazy
        cite(files.grep("^057")[0])
        cite("057 Zeile für 🙂 Nummer 57\n058 Zeile")
        line, two = given_with()
        assert there(line) == line["quote"] == "057 Zeile für 🙂 Nummer 57"
        assert there(two) == "057 Zeile für 🙂 Nummer 57\r\n058 Zeile"

    def test_whose_lines_end_in_carriage_returns(self, load: Callable[..., Path]) -> None:
        load("mac.txt", "one line\rthe next line\rthe last\r")
        cite("one line\nthe next")
        assert there(given_with()[0]) == "one line\rthe next"

    def test_with_marks_in_the_middle_and_bytes_that_are_no_text(self, load: Callable[..., Path]) -> None:
        load("put-together.txt", "\ufeffone\n\ufefftwo\n".encode() + b"bad \xff\xfe byte\nthe end\nthe end\n")
        cite("the end", name="put-together.txt:5")
        one = given_with()[0]
        assert there(one) == "the end"
        assert one["start"] == len(Path(one["path"]).read_bytes()) - 8
        cite(files.grep("bad")[0])
        assert given_with()[1]["unit"] == "characters"

    def test_in_a_code_page(self, load: Callable[..., Path]) -> None:
        text = (
            "Der Bär läuft über die Straße. Größe: fünf Füße. Müller hört zu.\n" * 20
            + "Ende gut, Bär müde.\n"
        )
        load("a.txt", text.encode("cp1252"))
        cite("Ende gut, Bär müde.")
        assert there(given_with()[0]) == "Ende gut, Bär müde."
        assert given_with()[0]["encoding"] == "cp1252"

    def test_that_a_reader_makes_text_of_is_told_by_characters(self, load: Callable[..., Path]) -> None:
        path = load("a.log.gz", gzip.compress(LOG.encode()))
        cite(files.grep("ERROR")[0])
        one = given_with()[0]
        assert one["unit"] == "characters"
        assert LOG[one["start"] : one["end"]] == one["quote"]
        assert citing.stands(str(path), one["start"], one["end"], one["quote"])
        assert not citing.stands(str(path), one["start"] + 1, one["end"] + 1, one["quote"])
        assert not citing.stands(str(path), 10**12, 10**12 + 4, one["quote"])
        assert not citing.stands("/nowhere", 0, 4, LOG[:4])

    def test_with_parts_counts_them_one_after_the_other(self, tmp_path: Path) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "book.sqlite")) as book:
            for table, city in (("one", "Oslo"), ("two", "Paris")):
                book.execute(f"create table {table} (name text, city text)")
                book.execute(f"insert into {table} values ('Ann', '{city}')")
            book.commit()
        files.load_files([str(tmp_path / "book.sqlite")])
        assert len(files.files) == 2
        cite("Paris")
        one = given_with()[0]
        assert one["unit"] == "characters"
        assert citing.stands(one["path"], one["start"], one["end"], "Paris")

    def test_of_a_folder_is_told_by_its_own_path(self, load: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "notes" / "b").mkdir(parents=True)
        (tmp_path / "notes" / "a.txt").write_text("alpha\n")
        (tmp_path / "notes" / "b" / "c.txt").write_text("beta beta\n")
        files.load_files([str(tmp_path / "notes")])
        cite(files.grep("beta")[0])
        assert given_with()[0]["path"] == str(tmp_path / "notes" / "b" / "c.txt")
        assert there(given_with()[0]) == "beta beta"

    def test_of_an_object_is_told_as_json_has_it(self, tmp_path: Path) -> None:
        path = tmp_path / "t.context.json"
        path.write_text(json.dumps({"a": 'He said "no".\nThen left.', "b": "Größe"}))
        files.load_object(str(path))
        cite('"no".\nThen')
        cite("Größe")
        first, second = given_with()
        assert there(first) == '\\"no\\".\\nThen'
        assert there(second) == "Gr\\u00f6\\u00dfe"

    def test_that_code_made_is_none(self, load: Callable[..., Path]) -> None:
        load("a.txt", "alpha\n")
        files.files["made.txt"] = "an invented passage"
        with pytest.raises(ValueError, match="does not stand in"):
            cite("an invented passage")

    def test_of_a_gigabyte_with_a_hole_is_cited(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        in_lazy(monkeypatch)
        path = tmp_path / "big.log"
        with path.open("wb") as file:
            file.write(b"first line\n" * 1000)
            file.seek(1 << 30)
            file.write(b"\n0815 ERROR at the very end\n")
        files.load_files([str(path)])
        assert isinstance(files.files["big.log"], LazyText)
        cite("0815 ERROR at the very end")
        assert given_with()[0]["start"] == (1 << 30) + 1


WORDS = st.sampled_from(["ERROR", "é", "日本", "🙂", " ", "\n", "\r\n", "a", "ok ok", "\ufeff", "\x0c"])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(WORDS, min_size=1, max_size=40).map("".join),
    st.integers(0, 60),
    st.integers(1, 30),
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"]),
    st.booleans(),
)
def test_what_is_told_is_what_the_file_has(
    text: str, start: int, size: int, encoding: str, lazy: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(memory, "one_text", lambda: 8 if lazy else 1 << 20)
        path = Path(folder, "a.txt")
        path.write_bytes(("\ufeff" + text).encode(encoding))
        forget()
        try:
            files.load_files([str(path)])
        except wire.FileRefused:
            return
        loaded = files.files["a.txt"]
        whole = loaded.read(0, 1000) if isinstance(loaded, LazyText) else loaded
        passage = whole[start : start + size]
        try:
            cite(passage)
        except ValueError:
            assert not passage.strip() or passage in whole[whole.index(passage) + 1 :]
            return
        one = given_with()[0]
        if one["unit"] == "bytes":
            assert there(one) == one["quote"]
        else:
            assert citing.stands(one["path"], one["start"], one["end"], one["quote"])
        assert one["quote"].split() == passage.split()


class TestAnAnswer:
    def test_has_what_was_cited_since_the_last_one_and_what_it_names(self, load: Callable[..., Path]) -> None:
        load("app.log", LOG)
        cite("0001 INFO")
        cite("0002 INFO")
        assert [one["mark"] for one in given_with("as [1] says")] == [1, 2]
        citing.delivered()
        assert given_with("nothing") == []
        cite("0003 INFO")
        assert [one["mark"] for one in given_with("as [1] and [3] and [99] say")] == [1, 3]
        assert [one["mark"] for one in citing.evidence("", {"why": "see [2]"})] == [2, 3]

    def test_without_evidence_is_refused_once_where_it_is_expected(self, load: Callable[..., Path]) -> None:
        load("app.log", LOG)
        citing.expect_evidence()
        with pytest.raises(ValueError, match="cites nothing"):
            citing.evidence("42")
        assert citing.evidence("42") == []
        citing.delivered()
        assert citing.evidence("42") == []
        citing.expect_evidence()
        with pytest.raises(ValueError, match="cites nothing"):
            citing.evidence("43")
        cite("0001 INFO")
        assert len(citing.evidence("43 [1]")) == 1
        citing.expect_evidence(False)
        citing.delivered()
        assert citing.evidence("44") == []


def test_what_encodings_are_found_can_be_read_by_the_host() -> None:
    found = {codecs.lookup(name).name for name in charsets._PAGES} | {
        "utf-8",
        "utf-16-le",
        "gb18030",
        "cp037",
    }
    assert found <= ENCODINGS
    assert {codecs.lookup(name).name for name in ENCODINGS} == ENCODINGS
    assert all(codecs.lookup(name)._is_text_encoding for name in ENCODINGS)  # type: ignore[attr-defined]


def test_the_host_can_ask_whether_a_quotation_stands() -> None:
    asked = STANDS.format(path="/a 'b'", start=1, end=2, quote="x\n{y}")
    assert eval(asked) is None  # what the kernel does with it

"""A quotation is `verbatim` only where the host has read exactly it, whatever the file and the span are."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_contract import ENCODINGS, MAX_EVIDENCE, MAX_QUOTE

from rlm_kernel.engine import kernel_says
from rlm_kernel.engine.evidence import listed, places_of, without_marks
from rlm_kernel.engine.protocols import Evidence
from rlm_kernel.errors import FileRefused, UsageError
from rlm_kernel.proof import quotes
from rlm_kernel.proof.quotes import QuoteDiffers, check, check_all
from rlm_kernel.trace.schema import EvidenceMeta

TEXT = "one line\nthe Größe 🙂 line\r\nthe last line\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    return path


def of(path: Path | str, start: int, quote: str, encoding: str = "utf-8", **more: Any) -> Evidence:
    end = start + len(quote.encode(encoding))
    return Evidence(more.pop("mark", 1), str(path), start, end, quote, encoding=encoding, **more)


def test_what_stands_there_is_verbatim(file: Path) -> None:
    quote = "Größe 🙂 line\r\nthe"
    assert check(of(file, 13, quote), file) == of(file, 13, quote, verdict="verbatim")


@pytest.mark.parametrize(
    ("start", "quote", "why"),
    [
        (14, "Größe", "no utf-8|stands"),
        (13, "Grösse", "stands"),
        (0, "One line", "there stands 'one line'"),
        (10_000, "one line", "the file ends before"),
        (len(TEXT.encode()) - 3, "line", "the file ends before"),
        (2**62, "one line", "the file ends before"),
        (2**80, "one line", "the file ends before"),
        (-5, "one line", "cannot be"),
    ],
)
def test_what_does_not_is_refused_and_it_is_said_what_does(
    file: Path, start: int, quote: str, why: str
) -> None:
    with pytest.raises(QuoteDiffers, match=rf"^\[1\] .*(?s:.*)({why})"):
        check(of(file, start, quote), file)


def test_a_claim_of_being_read_is_no_proof(file: Path) -> None:
    with pytest.raises(QuoteDiffers):
        check(of(file, 0, "forged!!", verdict="verbatim"), file)
    told = replace(of(file, 0, "forged!!", verdict="verbatim"), unit="characters")
    assert check(told, file).verdict == "unread"


@pytest.mark.parametrize("encoding", ["rot13", "zlib", "hex", "utf-7", "idna", "unicode_escape", "", "\0"])
def test_other_codecs_are_not_used(file: Path, encoding: str) -> None:
    with pytest.raises(QuoteDiffers, match="cannot be"):
        check(replace(of(file, 0, "one"), encoding=encoding), file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_folders_and_what_is_not_there_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "gone", ".", "a\0b"):
        with pytest.raises(QuoteDiffers, match="cannot be read"):
            check(of(tmp_path / name, 0, "one"), tmp_path / name)


def test_lines_are_counted_as_people_do(tmp_path: Path) -> None:
    texts = {
        "unix": "a\nb\nQUOTE\nd\nQUOTE two",
        "dos": "a\r\nb\r\nQUOTE\r\nd\r\nQUOTE two",
        "mac": "a\rb\rQUOTE\rd\rQUOTE two",
        "progress": "a\r1%\r2%\nb\nQUOTE\nd\nQUOTE two",
    }
    for name, text in texts.items():
        for encoding in ("utf-8", "utf-16-le", "cp037"):
            path = tmp_path / name
            raw = text.encode(encoding)
            path.write_bytes(raw)
            first = raw.index("QUOTE".encode(encoding))
            second = raw.index("QUOTE two".encode(encoding))
            evidence = (of(path, second, "QUOTE two", encoding, mark=7), of(path, first, "QUOTE", encoding))
            found = check_all(evidence, Path)
            assert [(one.mark, one.line) for one in found] == [(7, 5), (1, 3)], (name, encoding)


def test_lines_far_in_are_not_counted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes, "COUNTED", 10)
    (one,) = check_all((of(file, 13, "Größe"),), Path)
    assert (one.line, one.verdict) == (0, "verbatim")


def test_a_file_that_was_not_granted_is_not_opened() -> None:
    def refuse(path: str) -> Path:
        raise FileRefused(f"{path} was not named")

    with pytest.raises(FileRefused):
        check_all((of("/etc/passwd", 0, "root"),), refuse)


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=30), st.text(max_size=30), st.sampled_from(sorted(ENCODINGS)))
def test_only_the_very_bytes_are_verbatim(quote: str, before: str, encoding: str) -> None:
    import tempfile

    try:
        raw, start = (before + quote).encode(encoding), len(before.encode(encoding))
        claimed = of("/x", start, quote, encoding)
    except UnicodeEncodeError:
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        try:
            assert check(claimed, Path(file.name)).verdict == "verbatim"
        except QuoteDiffers:
            assert raw[start : claimed.end].decode(encoding, "replace") != quote


GOOD = {
    "mark": 1,
    "path": "/a.txt",
    "start": 0,
    "end": 3,
    "quote": "one",
    "unit": "bytes",
    "encoding": "utf-8",
}


class TestWhatCodeSends:
    def test_is_evidence_where_all_of_it_fits(self) -> None:
        (one,) = kernel_says.answer({"text": "x", "evidence": [GOOD]}).evidence
        assert one == Evidence(1, "/a.txt", 0, 3, "one")
        assert kernel_says.answer({"text": "x"}).evidence == ()

    @pytest.mark.parametrize(
        "change",
        [
            {"mark": 0},
            {"mark": True},
            {"mark": 10**9},
            {"path": ""},
            {"path": "/a\0"},
            {"path": "/a/../b"},
            {"path": "x" * 5000},
            {"path": ["/a"]},
            {"start": -1},
            {"start": 1.0},
            {"end": 2},
            {"end": 13},
            {"end": 10**30},
            {"quote": ""},
            {"quote": "   "},
            {"quote": "\ud800xx"},
            {"quote": b"one"},
            {"quote": "x" * (MAX_QUOTE + 1), "end": MAX_QUOTE + 1},
            {"unit": "lines"},
            {"unit": ["bytes"]},
            {"unit": "characters", "end": 4},
            {"encoding": "rot13"},
            {"encoding": ["utf-8"]},
            {"encoding": None},
        ],
    )
    def test_is_refused_where_something_does_not(self, change: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="no passage of a file"):
            kernel_says.answer({"text": "x", "evidence": [GOOD | change]})

    @pytest.mark.parametrize("odd", [None, 7, "x", {}, [7], [[]], [GOOD, GOOD], [GOOD] * (MAX_EVIDENCE + 1)])
    def test_is_refused_where_it_is_no_list_of_them(self, odd: Any) -> None:
        with pytest.raises(UsageError):
            kernel_says.answer({"text": "x", "evidence": odd})

    @given(st.recursive(st.none() | st.integers() | st.text() | st.booleans(), st.lists) | st.just(GOOD))
    def test_never_breaks_the_host(self, given_: Any) -> None:
        try:
            found = kernel_says.answer({"text": "x", "evidence": [given_]})
        except UsageError:
            return
        assert [EvidenceMeta.of(one).evidence() for one in found.evidence] == list(found.evidence)


def test_files_of_one_name_are_told_apart() -> None:
    evidence = [
        of("/a/x/app.log", 0, "one", line=3),
        of("/b/x/app.log", 5, "two"),
        of("C:\\logs\\other.log", 0, "three", line=1),
    ]
    assert places_of(evidence) == ["a/x/app.log:3", "b/x/app.log, bytes 5 to 8", "other.log:1"]


def test_a_line_for_people_is_cut_to_the_width() -> None:
    one = of("/a/app.log", 0, "0812 ERROR\n the pump " + "broke " * 100, line=4812, verdict="verbatim")
    (line,) = listed([one], 60)
    assert line.startswith('[1] app.log:4812 "0812 ERROR the pump broke')
    assert line.endswith('…"')
    assert len(line) == 60
    assert listed([replace(one, verdict="unread")], 80)[0].endswith('…" (not read by the host)')


def test_marks_leave_an_answer_that_is_handed_on() -> None:
    evidence = [of("/a", 0, "x"), of("/a", 5, "x", mark=12)]
    assert without_marks("It broke [1], x[2] [12]. [1]", evidence) == "It broke, x[2]."
    assert without_marks({"why": ["a [1]", 1, None]}, evidence) == {"why": ["a", 1, None]}
    assert without_marks("[1]", []) == "[1]"

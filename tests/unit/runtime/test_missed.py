"""A search that found nothing: the line that has the words of its pattern is told."""

from __future__ import annotations

import ast
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import files, missed
from rlm_runtime.lastcell import LastCell

LOG = "one\n2026-01-02 host7 Disk quota exceeded for user ines\nthree\n"


def told(code: str, context: Any, **names: Any) -> str:
    spaces = {"re": re, "context": context, "grep": lambda _pattern: [], **names}
    with pytest.raises((IndexError, StopIteration, ValueError, AttributeError)) as raised:
        exec(compile(code, "<cell>", "exec"), spaces)
    return LastCell(SimpleNamespace(user_ns=spaces)).hint(raised.value, code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "code",
    [
        "hits = grep(r'(?i)exceeded.*disk quota')\nprint(hits[0])",
        "found = [line for line in context.splitlines() if re.search('exceeded.*quota', line)]\nfound[0]",
        "next(re.finditer(r'exceeded\\s+disk quota', context))",
        "max(len(hit) for hit in re.findall(r'\\bquota\\b.*\\bdisk\\b', context))",
        "re.search('exceeded disk quota', long).group()",
    ],
)
def test_the_line_with_the_words_in_another_order_is_told(code: str) -> None:
    said = told(code, LOG, long=LOG * 9)
    assert "Disk quota exceeded for user ines" in said
    assert "Correct the pattern" in said


def test_of_several_texts_the_one_that_has_them_is_found() -> None:
    said = told("grep('exceeded.*disk')[0]", {"a": "disk\nexceeded", "b": LOG})
    assert "for user ines" in said


@pytest.mark.parametrize(
    ("code", "context"),
    [
        ("grep('nothing.*like this')[0]", LOG),
        ("grep(r'\\d+')[0]", LOG),
        ("grep('quota')[0]", LOG),  # it would have been found: something else is wrong
        ("grep(' '.join(['disk', 'quota']))[0]", LOG),
        ("grep('disk.*quota')[0]", None),
        ("[][0]", LOG),
    ],
)
def test_without_such_a_line_nothing_is_told(code: str, context: Any) -> None:
    assert told(code, context) == ""


def test_a_long_line_is_cut_around_the_words() -> None:
    line = "x" * 10_000 + " quota of the disk exceeded " + "y" * 10_000
    said = told("grep('exceeded.*disk')[0]", line)
    assert "quota of the disk exceeded" in said
    assert len(said) < 500


@given(st.text(max_size=200), st.text(max_size=60))
def test_no_text_or_pattern_breaks_it(context: str, pattern: str) -> None:
    said = missed.line_with_words(ast.parse(f"grep({pattern!r})"), context)
    assert len(said) < 1000


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"exceeded\|nothing", "`|` means `or`"),
        ("host[[:digit:]]", "write `[0-9]`"),
        (r"\<Disk\>", r"write `\b`"),
        ("one\n2026", "each line alone"),
        (r"one\n2026", "each line alone"),
        (r"nothing[^\n]*", ""),
        (r"nothing\n", ""),
        (r"nothing\n?$", ""),
        (r"C:\\nothing", ""),
        (r"C:\\<nothing>", ""),
        (r"nothing\\|never", ""),
        (r"nothing[\|,]", ""),
        ("exceeded|nothing", ""),
    ],
)
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_a_pattern_of_another_program_that_finds_nothing_is_told(
    pattern: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = files.grep(pattern, LOG)
    out = capsys.readouterr().out
    assert (bool(out), said in out) == (bool(said), True)
    assert bool(found) == (pattern == "exceeded|nothing")

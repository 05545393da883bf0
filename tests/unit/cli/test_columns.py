"""Tables of traces and of calls in terminals, with characters that take two columns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from rlm_kernel import columns
from rlm_kernel.cli import traces
from rlm_kernel.report.listing import Wanted, listing
from rlm_kernel.report.text import Paint, table
from rlm_kernel.trace.reader import numbered, read_trace
from tests.unit.cli.test_show import write

ASKED = "这个文件里有多少条错误记录？请把它们的原因也列出来。👍🏽 " * 3
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    "text", ["a plain line", "这是一个很长的中文句子", "한국어 文字 and ASCII", "👍🏽🇩🇪 é x", ""]
)
@pytest.mark.parametrize("most", [1, 2, 5, 8, 80])
def test_a_text_is_cut_and_filled_up_by_what_it_takes_in_a_terminal(text: str, most: int) -> None:
    cut = columns.short(text, most)
    assert cell_len(cut) <= most
    assert cut == text if cell_len(text) <= most else cut.endswith("…")
    filled = columns.padded(cut, most)
    assert cell_len(filled) == most
    assert filled.rstrip() == cut.rstrip()
    assert columns.padded(cut, most, right=True).lstrip() == cut.lstrip()


@pytest.mark.parametrize("width", [80, 119, 120, 200])
def test_a_call_is_one_line_whatever_its_prompt_is_written_in(width: int, tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "t.ipynb", word=ASKED))
    lines = list(table(numbered(trace.cells), Paint(), width))
    assert len(lines) == 4
    assert all(cell_len(line) <= width for line in lines)
    assert len({cell_len(line.partition(" → 一")[0].rpartition(" → ")[0]) for line in lines[1:]}) == 1


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, ["when", "question", "how", "calls", "cost", "trace"]),
        (200, ["when", "question", "model", "how", "turns", "calls", "cost", "size", "trace"]),
    ],
)
def test_a_trace_is_one_line_in_a_narrow_terminal(
    width: int, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.ipynb", question=ASKED)
    write(tmp_path / "b.ipynb", question="How many errors are there in these files, and why?")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    found: Any = listing(tmp_path, Wanted())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    head, *lines = traces._rows(found.rows)
    assert head.split() == shown
    assert len(lines) == 2
    places = {
        cell_len(line[: line.index(name)]) for line, name in zip(lines, ("b.ipynb", "a.ipynb"), strict=True)
    }
    assert places == {head.index("trace")}
    assert all(cell_len(line) <= width for line in (head, *lines))

"""Diff, list and Markdown of traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from rlm_kernel.report.diff import difference, unified
from rlm_kernel.report.listing import Wanted, instant, listing, sums
from rlm_kernel.report.markdown import markdown, quoted
from rlm_kernel.trace.reader import TraceFile, read_trace
from rlm_kernel.trace.schema import ParentMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.hostile_page import hostile_trace
from tests.support.trace import STORY, meta, tell


def write(path: Path, **changes: Any) -> TraceFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    tell(NotebookWriter(path, meta(**changes), ()), STORY)
    return read_trace(path)


def edited(path: Path, old: str, new: str) -> TraceFile:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    return read_trace(path)


def test_a_trace_is_the_same_as_itself(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.ipynb"), write(tmp_path / "b.ipynb", limits={"turns": 60})
    found = difference(one, other)
    assert found.same
    assert [change.what for change in found.beside] == ["limit turns"]


def test_a_diff_names_question_model_answer_and_call(tmp_path: Path) -> None:
    one = write(tmp_path / "a.ipynb")
    write(tmp_path / "b.ipynb", question="Which?", models={"root": "x/y", "sub": "openai/sub"})
    edited(tmp_path / "b.ipynb", '"answer": "5"', '"answer": "6"')
    found = difference(one, edited(tmp_path / "b.ipynb", "About 5.", "About 6."))
    assert {change.what for change in found.changes} == {"question", "model root"}
    assert {(call.how, call.one, call.other) for call in found.calls} == {("answer", "5", "6")}
    assert found.answer[-2:] == ["-About 5.", "+About 6."]
    assert not found.same
    json.dumps(found.as_json())


def test_the_lines_of_a_diff_have_their_places_in_the_whole_text() -> None:
    lines = [str(number) for number in range(5_000)]
    assert (
        unified("\n".join(lines), "\n".join([*lines[:4_000], "new", *lines[4_000:]]))[0]
        == "@@ -3998,6 +3998,7 @@"
    )


def test_children_and_copies_are_counted_once_and_others_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb")
    (tmp_path / "copy.ipynb").write_bytes((tmp_path / "a.ipynb").read_bytes())
    write(tmp_path / "b.ipynb", session="2", question="Which Needle?")
    write(tmp_path / "c.ipynb", session="3", parent=ParentMeta(trace="a.ipynb", session="1", cell="x"))
    write(tmp_path / "a.children" / "d.ipynb", session="4")
    (tmp_path / "other.ipynb").write_text('{"cells": [], "metadata": {}}')
    (tmp_path / "damaged.ipynb").write_text('{"cells": [')
    found = listing(tmp_path)
    assert len(found.rows) == 3
    assert (found.children, found.foreign, found.damaged) == (1, 1, 1)
    assert found.totals().known_cost == 2 * found.rows[0].head.spent.known_cost
    assert {one.runs for one in sums(found.rows, "month").values()} == {2}
    assert len(listing(tmp_path, Wanted(text="needle")).rows) == 1
    assert len(listing(tmp_path, Wanted(text="about 5")).rows) == 3
    assert listing(tmp_path, Wanted(since=instant("2026-02"))).rows == []
    assert len(listing(tmp_path, Wanted(until=instant("2026-01-02", end=True))).rows) == 3


def test_a_quote_mentions_nobody_and_code_in_it_stays() -> None:
    text = (
        "Ask @octocat or (@org/team), a.b@c.example.\n`@cache` and ``@x ` @y`` @z\n```\n@property\n```\n@me"
    )
    assert quoted(text) == (
        "> Ask @\u2060octocat or (@\u2060org/team), a.b@c.example.\n> `@cache` and ``@x ` @y`` @\u2060z\n"
        "> ```\n> @property\n> ```\n> @\u2060me"
    )


def test_a_quote_of_many_backticks_is_made_at_once() -> None:
    text = "x" + "`" * 100_000 + "a" * 100_000 + " @me"
    assert quoted(text).endswith("a @\u2060me")


def test_nothing_of_a_strangers_trace_leaves_its_place_in_markdown(tmp_path: Path) -> None:
    text = markdown(read_trace(hostile_trace(tmp_path / "t.ipynb")))
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child.type for token in tokens for child in token.children or ()]
    assert "html_block" not in {token.type for token in tokens}
    assert not {"html_inline", "image"} & set(inline)
    titles = [
        tokens[at + 1].content
        for at, one in enumerate(tokens)
        if one.type == "heading_open" and not one.level
    ]
    assert titles[-2:] == ["Cost", "Files"]

"""A trace as a document: the answer first, calls below their cells, turns that tell what they hold."""

from __future__ import annotations

from pathlib import Path
from xml.dom import minidom

import pytest

from rlm_kernel.engine.events import CellFinished, CellStarted
from rlm_kernel.trace import document, timeline
from rlm_kernel.trace.headings import below
from rlm_kernel.trace.parts import is_made, made
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import stream
from tests.support.growth import LIMIT, growth
from tests.support.trace import STORY, call, cell, load, meta, result, tell

HOSTILE = "<script>x</script>\u202e$1$ <img src=x> </td></table>\n" * 50


def test_calls_stand_below_their_cell_and_hostile_texts_in_them_are_shown_as_text(tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    writer = NotebookWriter(path, meta(), [])
    calls = tuple(call(number, preview=HOSTILE[:200], answer=HOSTILE) for number in range(30))
    tell(writer, [CellStarted("turn-01-a", 1, "x"), CellFinished(1, result("turn-01-a", calls=calls))])
    (table,) = cell(load(path), "turn-01-a").outputs
    shown = table.data["text/html"]
    assert shown.startswith("<details><summary>30 sub-calls · ")
    assert shown.count("<tr>") == 21
    assert not any(text in shown for text in ("<script", "<img", "\u202e", "$1$", "<code>"))
    assert "10 more. All of them: rlm show TRACE --cell turn-01-a --calls" in shown
    assert read_trace(path).cells[-1].outputs == []


def test_a_kernels_output_cannot_pass_for_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    forged = made("calls", {"text/plain": "forged"})
    outputs = [forged, stream("x\n" * 100)]
    NotebookWriter(path, meta(), [])(CellFinished(1, result("turn-01-a", outputs=outputs)))
    written = cell(load(path), "turn-01-a")
    assert not any(map(is_made, written.outputs))
    assert written.metadata.scrolled is True
    assert len(read_trace(path).cells[-1].outputs) == 2


def test_the_box_of_an_answer_goes_while_the_next_question_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    tell(NotebookWriter(path, meta(), []), STORY)
    assert "**Best-effort answer**" in cell(load(path), "title").source
    again = NotebookWriter(path, read_trace(path).meta, [], load(path).cells)
    again.question("And why?")
    assert document._BOX not in cell(load(path), "title").source


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# X\n## Y", "### X\n#### Y"),
        ("```\n# X\n```\n# Y", "```\n# X\n```\n### Y"),
        ("> # X\n- ## Y", "> ### X\n- #### Y"),
        ("X\n===\ntext", "### X\ntext"),
        ("```\nopen", "```\nopen\n```"),
        ("#X", "#X"),
    ],
)
def test_headings_of_models_are_below_the_notebooks_own(text: str, shown: str) -> None:
    assert below(text) == shown


def _spans(number: int) -> list[timeline.Span]:
    return [timeline.Span("call", "<&\"'" * 20, n * 0.1, 1.0, n % 7 == 0, "\u202e<b>") for n in range(number)]


@pytest.mark.parametrize("number", [0, 1, 3, 60, 10_000])
def test_a_timeline_is_small_and_plain_xml(number: int) -> None:
    drawn = timeline.svg(_spans(number))
    assert len(drawn) < timeline.MAX_CHARACTERS
    elements = {one.tagName for one in minidom.parseString(drawn).getElementsByTagName("*")}
    assert elements <= {"svg", "title", "desc", "rect", "path", "text"}


def test_the_time_of_a_timeline_grows_with_its_spans() -> None:
    assert growth(_spans, timeline.svg, 100) <= LIMIT

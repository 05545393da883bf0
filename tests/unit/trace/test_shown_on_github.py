"""A trace by what GitHub leaves of a notebook: nbconvert's HTML without styles, classes, ids and scripts; by
reports, the folding of `<details>` is not always kept there, so the stricter rule takes it away.
"""

from __future__ import annotations

import re
from pathlib import Path

import bleach
import nbformat
import pytest
from nbconvert import HTMLExporter

from rlm_kernel.engine.events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    RunFinished,
    TurnReplied,
    TurnStarted,
)
from rlm_kernel.engine.protocols import Answer, Completion, Evidence, Outcome, Totals
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import call, meta, result, tell

_TAGS = frozenset(
    [
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "br",
        "b",
        "i",
        "strong",
        "em",
        "a",
        "pre",
        "code",
        "img",
        "div",
        "ins",
        "del",
        "sup",
        "sub",
        "p",
        "ol",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "td",
        "th",
        "blockquote",
        "dl",
        "dt",
        "dd",
        "kbd",
        "q",
        "samp",
        "var",
        "hr",
        "s",
        "span",
    ]
)
_FOLDED = frozenset({"details", "summary"})
_ATTRIBUTES = {"a": ["href"], "img": ["src", "alt"]}


def shown(path: Path, tags: frozenset[str]) -> str:
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(nbformat.read(path, 4))
    protocols = ["http", "https", "data"]
    return bleach.clean(body, tags=tags, attributes=_ATTRIBUTES, protocols=protocols, strip=True)


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


@pytest.mark.parametrize("tags", [_TAGS, _TAGS | _FOLDED], ids=["strict", "folded"])
def test_box_calls_and_timeline_are_there_without_styles_and_folding(
    tmp_path: Path, tags: frozenset[str]
) -> None:
    path = tmp_path / "t.ipynb"
    calls = tuple(call(number, preview=f"Is {number} < $5?", answer=f"*yes* {number}") for number in range(3))
    answer = Answer(
        "- one\n- **two**\n\n| a | b |\n| - | - |\n| 1 | 2 |",
        evidence=(Evidence(1, "/data/a.txt", 0, 10, "it says so"),),
    )
    tell(
        NotebookWriter(path, meta(), []),
        [
            TurnStarted(1),
            TurnReplied(1, Completion("I ask.", "openai/root", thoughts="Hm."), "I ask."),
            CellStarted("turn-01-a", 1, "ask()"),
            *(CallStarted("turn-01-a", one.id, "llm_query", one.preview) for one in calls),
            *(CallFinished("turn-01-a", one) for one in calls),
            CellFinished(1, result("turn-01-a", "ask()", calls=calls)),
            RunFinished(Outcome(answer, "answered"), Totals(1, 3)),
        ],
    )
    html = shown(path, tags)
    box = html[html.index("<td") : html.index("Root model")]
    assert [part for part in ("<li>", "<strong>two</strong>", "it says so") if part not in box] == []
    assert "3 sub-calls" in words(html)
    assert all(
        f"Is {number} &lt; $5? *yes* {number} openai/sub" in re.sub(r" ?\$ ?", " $", words(html))
        for number in range(3)
    )
    assert (
        len(
            re.findall(
                r'<img alt="[^"]+" src="data:image/svg\+xml;base64,|<img src="data:image/svg\+xml;base64,',
                html,
            )
        )
        == 1
    )
    assert not re.search(r"&lt;(?:table|td|details|summary|img|span)", html)
    assert "style=" not in html

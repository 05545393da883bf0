"""A result as people see it: in a program, at a prompt, in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.protocols import Answer, Outcome, StopReason, Totals
from rlm_kernel.report.answer import SHOWN
from rlm_kernel.session.result import Result

TOTALS = Totals(turns=3, calls=300, known_cost=0.0142, seconds=12.34)
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![p](https://example.org/p.png)",
    "[l](javascript:alert(1))",
    "[l](data:text/html,x)",
    "[l]: javascript:alert(1)\n\n[l]",
    "<https://example.org/?q=1>",
    "\u202etxt.exe &#8238;x",
    "```html\n<iframe src=x>\n",
    "a | b\n--|--\n<b onclick=x>1</b> | 2",
]


def made(
    text: str | None, *, stop_reason: StopReason = "answered", forced: bool = False, detail: str = ""
) -> Result:
    outcome = Outcome(None if text is None else Answer(text), stop_reason, forced, detail)
    return Result.of(outcome, TOTALS, Path.cwd() / "rlm-traces" / "a b.ipynb")


class Tags(HTMLParser):
    """Tags with their attributes, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_result_in_a_text_is_its_answer() -> None:
    assert f"{made('forty-two')}" == "forty-two"
    assert str(made(None, stop_reason="turns", detail="The limit of 3 turns was reached.")) == (
        "No answer (turns). The limit of 3 turns was reached."
    )


@pytest.mark.parametrize("text", ["42", "one\ntwo\n" * 1000, "\x1b[31mred\x1b[0m", "", None])
def test_the_representation_is_one_short_line_with_cost_and_trace(text: str | None) -> None:
    shown = repr(made(text))
    assert len(shown) < 200
    assert shown.isprintable()
    for part in ("3 turns", "300 sub-calls", "$0.0142", "12.3 s", "rlm-traces/a b.ipynb"):
        assert part in shown


def test_a_notebook_shows_the_answer_rendered_its_cost_and_a_link_to_its_trace() -> None:
    shown = made("## Found\n\n- **two** at $5 and $6\n\n| a | b |\n|--|--|\n| 1 | 2 |")._repr_html_()
    tags = [name for name, _ in Tags(shown).found]
    assert {"h2", "li", "strong", "table"} <= set(tags)
    assert ("a", {"href": "rlm-traces/a%20b.ipynb"}) in Tags(shown).found
    assert "$0.0142" in shown
    # Else what stands between two dollar signs would be shown as a formula.
    assert shown.count("mathjax_ignore") == 2


def test_best_effort_and_no_answer_are_told() -> None:
    forced = made("About 5.", stop_reason="cost", forced=True)
    none = made(None, stop_reason="error", detail="The root model failed: <b>401</b>.")
    for show in (Result._repr_html_, Result._repr_markdown_):
        assert "Best-effort answer: the limit of cost was reached." in show(forced).replace("\\", "")
        assert "No answer (error)." in show(none).replace("\\", "")
        assert "<b>401" not in show(none)
    assert "best effort" in repr(forced)
    assert "no answer (error)" in repr(none)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_an_answer_runs_or_fetches(text: str) -> None:
    harmless(made(text)._repr_html_())
    assert "<" not in made(text)._repr_markdown_().replace("<https", "")
    assert "![" not in made(text)._repr_markdown_()


@given(st.lists(st.sampled_from([*HOSTILE, "\n", "\n\n", "`", "```", "> ", "* ", "x"]), max_size=8))
def test_no_mixture_does(parts: list[str]) -> None:
    harmless(made("".join(parts))._repr_html_())


def harmless(shown: str) -> None:
    for tag, attributes in Tags(shown).found:
        assert tag in {
            "a", "b", "blockquote", "br", "code", "div", "em", "h1", "h2", "hr", "li", "ol", "p", "pre", "small", "strong",
            "table", "tbody", "td", "th", "thead", "tr", "ul",
        }  # fmt: skip
        assert set(attributes) <= {"href", "title", "class", "start"}
        if tag == "a":
            assert attributes["href"].startswith(("https://example.org/", "rlm-traces/"))
    assert "\u202e" not in shown


def test_a_long_answer_is_cut_with_a_word_on_where_the_rest_is() -> None:
    text = "```\n" + "line\n" * SHOWN
    for shown in (made(text)._repr_html_(), made(text)._repr_markdown_()):
        assert len(shown) < 2 * SHOWN
        assert "more characters; result.answer has all of them" in shown
    assert made(text)._repr_html_().rindex("</pre>") < made(text)._repr_html_().index("more characters")


def test_one_line_is_a_value_and_stands_as_it_is() -> None:
    assert made("__init__ at $5, $6")._repr_markdown_().startswith(r"\_\_init\_\_ at \$5, \$6")

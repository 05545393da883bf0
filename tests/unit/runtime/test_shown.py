from __future__ import annotations

from typing import Any

import pytest
from rlm_runtime.display import _whole_lines
from rlm_runtime.shown import html_text, text_of

OPAQUE = "<pandas.io.formats.style.Styler at 0x7ff5b533c250>"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"text/plain": "   a\n0  1", "text/html": "<table></table>"}, None),
        (
            {
                "text/plain": OPAQUE,
                "text/html": "<table><tr><th>a<th>b</tr><tr><td>1</td><td>x</td></tr></table>",
            },
            "a | b\n1 | x",
        ),
        (
            {
                "text/plain": "<IPython.core.display.HTML object>",
                "text/html": "<style>b{}</style><b>bold</b> &amp; more",
            },
            "bold & more",
        ),
        ({"text/html": "<p>one</p><p>two<br>three</p>"}, "one\ntwo\nthree"),
        ({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": "# title"}, "# title"),
        ({"text/plain": "<IPython.core.display.Latex object>", "text/latex": "$x$"}, "$x$"),
        ({"text/plain": "<IPython.core.display.JSON object>", "application/json": {"a": [1]}}, '{"a": [1]}'),
        ({"text/plain": "<IPython.core.display.Image object>", "image/png": "aGk="}, None),
        ({"text/plain": OPAQUE, "text/html": ""}, None),
        ({}, None),
    ],
)
def test_a_display_without_words_of_its_own_is_told_by_what_it_shows(
    data: dict[str, Any], said: str | None
) -> None:
    assert text_of(data) == said


def test_odd_html_is_read_to_its_end() -> None:
    assert html_text("<table><tr><td>1<td>2<script>x()</script><p>after</i></table>") == "1 | 2\nafter"
    assert html_text("<pre>a  b\nc</pre>") == "a b\nc"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("name,city\rbob,Rome\reve,Oslo\r", "name,city␍\nbob,Rome␍\neve,Oslo\r"),
        ("a\r\nb\rc", "a\r\nb␍\nc"),
        ("\r 10%|#  |", "\r 10%|#  |"),
        (" 10%|#  |\r", " 10%|#  |\r"),
        ("\r", "\r"),
        ("a\r\nb\r\n", "a\r\nb\r\n"),
        ("", ""),
    ],
)
def test_only_data_has_carriage_returns_between_its_characters(written: str, shown: str) -> None:
    assert _whole_lines(written) == shown

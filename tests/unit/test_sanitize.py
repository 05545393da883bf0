"""What a trace holds neither runs nor fetches anything.

That JupyterLab sees it so: tests/integration/test_hostile_output.py.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel import sanitize
from tests.support import hostile_text

TABLE = (
    '<table border="1" class="dataframe"><thead><tr style="text-align: '
    'right;"><th>a</th></tr></thead></table>'
)
_ACTIVE = re.compile(
    r"<(?:img|script|style|iframe|video|audio|svg|object|embed|link|meta|base|form|input)|<[^>]*(?:\bon\w+|src|href)=",
    re.I,
)
_PIECES = st.sampled_from(
    [
        "<",
        ">",
        "</",
        "img",
        "b",
        "style",
        "script",
        " ",
        "src=x",
        "a='",
        '"',
        "!",
        "[",
        "](u)",
        "```",
        "~~~",
        "mermaid",
        "&",
        "\\",
        "\n",
        "x",
        "<b>",
    ]
)
_TEXT = st.lists(_PIECES, max_size=30).map("".join) | st.text()


@pytest.mark.parametrize("name", hostile_text.MARKDOWN)
def test_markdown_has_no_picture_html_or_diagram(name: str) -> None:
    shown = sanitize.markdown(hostile_text.MARKDOWN[name].format(url="http://evil"))
    assert not re.search(r"!\[|<[A-Za-z/!?]|[`~]{3}\s*mermaid", shown, re.IGNORECASE)


@pytest.mark.parametrize("name", hostile_text.HTML)
def test_html_has_text_and_tables_alone(name: str) -> None:
    assert not _ACTIVE.search(sanitize.html(hostile_text.HTML[name].format(url="http://evil")))


def test_ordinary_prose_and_tables_stay_as_they_are() -> None:
    prose = (
        "# Two < three\n\n- `a[1]`, **bold** & [a link](http://x.example)!\n\n| a | b |\n| --- | --- |\n\n"
        "$x^2$\n\n"
        "```python\nif a<3: pass\n```"
    )
    assert sanitize.markdown(prose) == prose
    assert sanitize.html(TABLE) == TABLE
    assert (
        sanitize.html(f"<div>\n<style scoped>\n .x {{}}\n</style>\n{TABLE}</div>")
        == f"<div>\n\n{TABLE}</div>"
    )


def test_what_is_taken_out_can_be_read() -> None:
    assert sanitize.markdown("![a](http://evil) <b>x</b>") == "!&#91;a](http://evil) &lt;b>x&lt;/b>"
    assert sanitize.html("<img src=x> <b>x</b>") == "&lt;img src=x> <b>x</b>"
    assert sanitize.markdown("a\u202eb\u2066c") == sanitize.html("a\u202eb\u2066c") == "a�b�c"


@given(_TEXT)
@settings(max_examples=300, deadline=None)
def test_any_text_is_harmless_and_stays_so(text: str) -> None:
    for make in (sanitize.markdown, sanitize.html):
        assert make(make(text)) == make(text)
    assert not re.search(r"!\[|<[A-Za-z/!?]", sanitize.markdown(text))
    assert not _ACTIVE.search(sanitize.html(text))


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<b ",
        "<b a='",
        "<style ",
        "<style></style",
        "<b a=1 ",
        "```",
        "``` ",
        "~~~mermaid",
        "![",
        "`",
        "<!--",
        "</",
        "&",
    ],
)
def test_time_grows_with_the_text_alone(piece: str) -> None:
    text = (piece * 500_000)[:500_000]
    started = time.monotonic()
    sanitize.markdown(text)
    sanitize.html(text)
    assert time.monotonic() - started < 10


def shown(**data: Any) -> dict[str, Any]:
    return sanitize.output(
        {
            "output_type": "display_data",
            "data": {k.replace("__", "/"): v for k, v in data.items()},
            "metadata": {},
        }
    )["data"]


def test_outputs_keep_text_plain_pictures_and_data() -> None:
    kept = {"text__plain": "x", "image__png": "AAAA", "text__latex": "$x$"}
    assert shown(**kept) == {"text/plain": "x", "image/png": "AAAA", "text/latex": "$x$"}
    assert shown(application__json={"a": ["<img>"]}) == {"application/json": {"a": ["<img>"]}}
    assert shown(text__html=["<b>x</b>\n", "<img src=x>"]) == {"text/html": "<b>x</b>\n&lt;img src=x>"}
    assert shown(text__markdown="![a](b)") == {"text/markdown": "!&#91;a](b)"}


@pytest.mark.parametrize(
    "kind",
    [
        "image/svg+xml",
        "application/javascript",
        "application/vnd.jupyter.widget-view+json",
        "application/vnd.vegalite.v5+json",
        "text/x",
        "",
    ],
)
def test_outputs_of_other_kinds_are_named_alone(kind: str) -> None:
    assert sanitize.output({"data": {kind: "x", "text/plain": "<Widget>"}})["data"] == {
        "text/plain": "<Widget>"
    }
    assert sanitize.output({"data": {kind: {"url": "http://evil"}}})["data"] == {
        "text/plain": f"[{kind}: not kept]"
    }


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
def test_a_picture_is_base64_and_nothing_more(kind: str) -> None:
    assert shown(**{f"image__{kind}": "AA+/\nAA==\n"}) == {f"image/{kind}": "AA+/\nAA==\n"}
    assert shown(**{f"image__{kind}": 'AA=="><img src="http://evil.example/x'}) == {
        "text/plain": f"[image/{kind}: not kept]"
    }


def test_html_that_is_too_long_to_be_looked_through_is_left_out() -> None:
    assert shown(text__html="x" * (sanitize.HTML_CAP + 1), text__plain="x") == {"text/plain": "x"}


@pytest.mark.parametrize(
    "output", [{"output_type": "stream", "text": "<img>"}, {"data": [1]}, {"data": None}, {"data": {}}, {}]
)
def test_other_outputs_stay(output: dict[str, Any]) -> None:
    assert sanitize.output(output) == output

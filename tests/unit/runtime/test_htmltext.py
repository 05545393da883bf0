"""HTML as the text that a browser shows: lines break at blocks, words stay whole, and what is not seen is not
read.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime.declared import declared_encoding
from rlm_runtime.formats import read_file
from rlm_runtime.htmltext import html_text

SHOWN = {
    "inline tags join": ("<p>The <b>quick</b> <a href='#'>fox</a> costs "
                         "$<span>1,234</span>.50</p>", "The quick fox costs $1,234.50"),
    "words stay whole": ("<p>Hel<b>lo</b> H<sub>2</sub>O re&shy;mark<wbr>able</p>", "Hello H2O remarkable"),
    "white space folds": ("<p>  one\n\t two <i> three </i>\n</p>\n\n<p>four&nbsp;five</p>", "one two three\n"
                                                                                            "four five"),
    "blocks break": ("one<div>two</div>three<p>four<h1>five</h1>six", "one\ntwo\nthree\nfour\nfive\nsix"),
    "br breaks": ("<p>one<br>two<br/><b>three</b></p>", "one\ntwo\nthree"),
    "numbered lists": (
        "<ol><li>one<li><p>two</p><ol type=a><li>in</ol><li value=7>seven<li><ul><li>x</ul></ol>"
        "<ol start=5><li>five</ol><ol start=3 reversed type=I><li>three<li>two</ol>"
        "<ol style='list-style: none'><li>bare</ol>",
        "1. one\n2. two\na. in\n7. seven\n8. x\n5. five\nIII. three\nII. two\nbare",
    ),
    "raised digits": (
        "<p>5 &times; 10<sup>-3</sup> m<sup>2</sup>, 1,234<sup>1</sup> of the 1<sup>st</sup> <sup>2</sup>",
        "5 × 10^-3 m^2, 1,234^1 of the 1st 2",
    ),
    "raised digits in several parts": ("10<sup>&minus;6</sup>, 10<sup>1<b>2</b></sup>", "10^\u22126, 10^12"),
    "lists": ("<ul><li>one<li>two <ul><li>three</ul><li>four</ul>", "one\ntwo\nthree\nfour"),
    "pre keeps": ("<pre>\ndef f(x):\n    if x:\n\n        return <b>1</b>\n</pre><p>end", "def f(x):\n    "
                                                                                          "if x:\n\n        "
                                                                                          "return 1\nend"),
    "textarea keeps": ("<textarea>\n a\n  b</textarea>", " a\n  b"),
    "unseen": (
        "<head><title>T</title><style>s</style></head><script>var a = "
        "'<p>';</script><noscript>n</noscript><template>t</template><p>seen",
        "T\nseen",
    ),
    "hidden": ("<p hidden>a</p><div style='color: red; DISPLAY : none'>b<div>c</div>d</div><p style='color: "
               "none'>seen", "seen"),
    "tables by row": ("<table><tr><th>a<th>b<tr><td>1<td>2<p>more</p></table>after", "a\tb\n1\t2 more\n"
                                                                                     "after"),
    "cells over columns and rows": (
        "<table><tr><td colspan=2>wide</td><td>x</td></tr><tr><td "
        "rowspan=2>tall</td><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>",
        "wide\t\tx\ntall\t1\t2\n\t3",
    ),
    "tables for layout": (
        "<table><tr><td>menu</td><td><table><tr><td>in</td><td>ner</td></tr></table><p>text</p></td></tr></table>",
        "menu\nin\tner\ntext",
    ),
    "entities": ("<p>a &lt; b &amp;&amp; c &#8364;5 &eacute;", "a < b && c €5 é"),
    "comments": ("<p>on<!-- not --><!-- > -->e</p>", "one"),
    "broken tags": ("<p>a < b<p>1 <2 & 3</b></i></div><td>x", "a < b\n1 <2 & 3\nx"),
    "frames": ("<frameset><frame src=a><noframes>no frames</noframes></frameset>", "no frames"),
    "choices": ("<select><option>one<option>two</select>", "one\ntwo"),
    "xhtml": (
        '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><script '
        'src="a.js"/></head><p>seen<br/>too</p>',
        "seen\ntoo",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SHOWN)
def test_html_is_read_as_a_browser_shows_it(what: str) -> None:
    page, shown = SHOWN[what]
    assert html_text(page) == shown


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ('<meta charset="windows-1251"><p>Привет'.encode("cp1251"), "Привет"),
        (
            '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS"><p>こんにちは'.encode(
                "cp932"
            ),
            "こんにちは",
        ),
        ('<meta charset="iso-8859-1"><p>größer – “so”'.encode("cp1252"), "größer – “so”"),
        ('<meta charset="iso-8859-1"><p>größer'.encode(), "größer"),
        ('<meta charset="utf-16"><p>größer'.encode(), "größer"),
        ("<p>größer".encode("utf-16"), "größer"),
        (b"\xef\xbb\xbf<p>\xc3\xa9", "é"),
        (b"just\r\ntext & more", "just\r\ntext & more"),
    ],
)
def test_a_page_is_read_in_the_encoding_that_it_is_in(page: bytes, shown: str, tmp_path: Path) -> None:
    for name in ("a.html", "a.HTM"):
        (tmp_path / name).write_bytes(page)
        assert read_file(tmp_path / name, name).text == shown


def test_a_saved_page_with_its_pictures_is_read(tmp_path: Path) -> None:
    head = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=B\r\n\r\n--B\r\nContent-Type: "
        b"image/png\r\n\r\nPNG\r\n--B\r\n"
    )
    page = (
        b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"<p>caf=C3=A9 <b>x</b>y\r\n--B--\r\n"
    )
    (tmp_path / "a.mhtml").write_bytes(head + page)
    assert read_file(tmp_path / "a.mhtml", "a.mhtml").text == "café xy"


INLINE = st.sampled_from(["b", "i", "a", "span", "em", "sup", "font", "code", "unknown-tag"])


@given(st.lists(st.tuples(st.text("abc äß日", max_size=6), INLINE), max_size=20))
def test_no_inline_tag_changes_the_text(parts: list[tuple[str, str]]) -> None:
    page = "".join(f"{text}<{tag}>{text}</{tag}>" for text, tag in parts)
    plain = re.sub(" +", " ", "".join(text * 2 for text, _ in parts)).strip()
    assert html_text(f"<p>{page}</p>") == plain


PARTS = st.sampled_from(
    [*"<>/=\"'&; abptdr!-\n\r\0\x0c", "<td>", "<tr>", "<table>", "</table>", "<pre>", "</pre>"]
)


@given(st.lists(PARTS, max_size=80).map("".join))
def test_any_text_is_read_as_a_page(page: str) -> None:
    html_text(page)


def test_large_and_hostile_pages_take_time_in_proportion() -> None:
    start = time.monotonic()
    for page in (
        "<p>a <b>b</b> c</p>" * 50_000,
        "<div>" * 100_000 + "deep",
        "<table>" * 20_000 + "x",
        "<td colspan=99999>x" * 20_000,
        "<" * 200_000,
        "<!--" * 100_000,
    ):
        html_text(page)
    assert time.monotonic() - start < 30


def test_an_encoding_that_is_none_is_not_taken() -> None:
    assert (
        declared_encoding(b"<meta charset=rot13>")
        == declared_encoding(b"<meta charset=none-such>")
        == declared_encoding(b"<p>")
        == ""
    )

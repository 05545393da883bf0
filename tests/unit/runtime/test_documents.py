"""Slides, OpenDocument files and books as text: all that is in them, in order; a broken part costs itself, and is
told.
"""

from __future__ import annotations

import pytest
from rlm_runtime.unpacking import Unreadable

from tests.support.filekinds import book, shape, slides, zipped
from tests.support.reading import Reader

TABLE = (
    "<p:graphicFrame><a:graphic><a:graphicData><a:tbl><a:tr><a:tc gridSpan='2'><a:txBody><a:p><a:r><a:t>wide</a:t></a:r></a:p>"
    "</a:txBody></a:tc><a:tc hMerge='1'><a:txBody><a:p/></a:txBody></a:tc></a:tr><a:tr><a:tc><a:txBody><a:p><a:r><a:t>a</a:t>"
    "</a:r></a:p><a:p><a:r><a:t>b</a:t></a:r></a:p></a:txBody></a:tc><a:tc><a:txBody><a:p><a:r><a:t>c</a:t></a:r></a:p>"
    "</a:txBody></a:tc></a:tr></a:tbl></a:graphicData></a:graphic></p:graphicFrame>"
)  # fmt: skip
CHOICE = (
    '<mc:AlternateContent xmlns:mc="m"><mc:Choice>' + shape("chosen") + "</mc:Choice><mc:Fallback>"
    + shape("not this") + "</mc:Fallback></mc:AlternateContent>"
)  # fmt: skip


def test_slides_come_in_the_order_of_the_talk_with_all_that_is_on_them(read: Reader) -> None:
    data = slides(
        shape("first line\nsecond") + shape("Title", "title") + shape("3", "sldNum"),
        f"<p:grpSp><p:grpSp>{shape('in groups')}</p:grpSp></p:grpSp>{TABLE}{CHOICE}",
        notes="say this",
    )
    assert str(read("a.pptx", data).text) == (
        "[slide 1]\nTitle\nfirst line\nsecond\n[notes] say this\n\n[slide 2]\nin groups\nwide\na b\tc\nchosen"
    )


def test_lists_powers_and_formulas_of_slides_keep_their_numbers(read: Reader) -> None:
    def point(text: str, level: int = 0, rule: str = "") -> str:
        return f'<a:p><a:pPr lvl="{level}">{rule}</a:pPr><a:r><a:t>{text}</a:t></a:r></a:p>'

    one, sub = '<a:buAutoNum type="arabicPeriod" startAt="3"/>', '<a:buAutoNum type="alphaLcParenBoth"/>'
    power = "<m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup>"
    paragraphs = (
        point("three", 0, one) + point("in", 1, sub) + point("in", 1, sub) + point("four", 0, one)
        + point("in", 1, sub) + point("plain") + point("again", 0, one)
        + '<a:p><a:r><a:t>10</a:t></a:r><a:r><a:rPr baseline="30000"/><a:t>6</a:t></a:r><a:r><a:rPr baseline="0"/><a:t>7</a:t></a:r></a:p>'
        + f'<a:p><mc:AlternateContent xmlns:mc="c"><mc:Choice><m:oMath xmlns:m="m">{power}</m:oMath></mc:Choice>'
        + "<mc:Fallback><a:r><a:t>no formula</a:t></a:r></mc:Fallback></mc:AlternateContent></a:p>"
    )  # fmt: skip
    data = slides(f"<p:sp><p:txBody>{paragraphs}</p:txBody></p:sp>")
    assert str(read("a.pptx", data).text).splitlines() == [
        "[slide 1]", "3. three", "  (a) in", "  (b) in", "4. four", "  (a) in", "plain", "3. again", "10^67", "x^2",
    ]  # fmt: skip
    far = point("one", 0, f'<a:buAutoNum type="arabicPeriod" startAt="{"9" * 5000}"/>')
    assert "1. one" in str(read("b.pptx", slides(f"<p:sp><p:txBody>{far}</p:txBody></p:sp>")).text)


def test_a_broken_slide_costs_itself_and_what_is_no_presentation_says_so(read: Reader) -> None:
    import io
    import zipfile

    parts = zipfile.ZipFile(io.BytesIO(slides(shape("one"), shape("two"), shape("three"))))
    members = {name: parts.read(name) for name in parts.namelist()}
    members["ppt/slides/slide2.xml"] = b"\0 no xml"
    members["ppt/slides/slide1.xml"] = members["ppt/slides/slide1.xml"][:-40]
    found = read("a.pptx", zipped(members))
    assert "one" in found.text
    assert "[this slide could not be read]" in found.text
    assert "three" in found.text
    assert "slide 2 could not be read" in found.note()
    assert "slide1.xml is damaged" in found.note()
    del members["ppt/presentation.xml"]
    assert "three" in read("b.pptx", zipped(members)).text
    with pytest.raises(Unreadable, match="encrypted, or an old Office file"):
        read("c.pptx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    with pytest.raises(Unreadable, match=r"d\.pptx cannot be read as presentation\. It is a Word file"):
        read("d.pptx", zipped({"word/document.xml": b"<a/>"}))
    with pytest.raises(
        Unreadable, match=r"It is a zip that is damaged or cut off: copy or download it again"
    ):
        read("d.pptx", slides(shape("one"))[:-40])
    with pytest.raises(Unreadable, match="there are no slides in it"):
        read("e.pptx", slides())


@pytest.mark.parametrize("name", ["a.pptx", "a.odt"])
def test_entities_of_xml_are_no_way_to_files_or_memory(name: str, read: Reader) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "1234567890">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12)
    )
    xml = f'{bomb}<!ENTITY f SYSTEM "file:///etc/passwd">]><x xmlns:a="u"><body><p>&f;&m;</p></body><sp><p><t>&f;&m;</t></p></sp></x>'
    try:
        found = str(
            read(name, zipped({"ppt/slides/slide1.xml": xml.encode(), "content.xml": xml.encode()})).text
        )
    except Unreadable:
        found = ""
    assert "root:" not in found
    assert len(found) < 1000


def test_what_unpacks_to_more_than_there_is_room_for_is_told(read: Reader) -> None:
    found = read("a.pptx", slides(shape("small"), shape("x" * 3_000_000)), 2 << 20)
    assert ("small" in found.text, found.note()) == (
        True,
        "only its first 1 slides, as there is no room for more",
    )
    chapters = {"a.xhtml": "<p>small</p>", "b.xhtml": f"<p>{'x' * 3_000_000}</p>"}
    found = read("a.epub", book(chapters, spine=list(chapters)), 2 << 20)
    assert "small" in found.text
    assert "b.xhtml and what follows it was left out" in found.note()


ODF = (
    '<office:document-content xmlns:office="o" xmlns:text="t" xmlns:table="b" xmlns:draw="d" xmlns:presentation="p">'
    "<office:body><office:text><text:tracked-changes><text:p>gone</text:p></text:tracked-changes><text:h>Head</text:h>"
    '<text:p>a<text:s text:c="2"/>b<text:tab/>c<text:line-break/>d <text:span>e</text:span><text:note><text:note-citation>1'
    "</text:note-citation><text:note-body><text:p>foot</text:p></text:note-body></text:note></text:p><text:list>"
    "<text:list-item><text:p>item</text:p></text:list-item></text:list><table:table><table:table-row><table:table-cell "
    'table:number-columns-repeated="2"><text:p>x</text:p></table:table-cell><table:table-cell><text:p>y</text:p>'
    "</table:table-cell></table:table-row></table:table><draw:page><draw:frame><draw:text-box><text:p>on a slide</text:p>"
    "</draw:text-box></draw:frame><presentation:notes><text:p>said</text:p></presentation:notes></draw:page></office:text>"
    "</office:body></office:document-content>"
)  # fmt: skip


def test_opendocument_is_read_as_it_is_seen(read: Reader) -> None:
    assert str(read("a.odt", zipped({"content.xml": ODF.encode()})).text) == (
        "Head\na  b\tc\nd e[note: foot]\nitem\nx\tx\ty\n\n[slide 1]\non a slide\n[notes] said"
    )
    nested = "<p>deep</p>"
    for _ in range(40):
        nested = f"<table><table-header-rows><table-row><table-cell>{nested}</table-cell></table-row></table-header-rows></table>"
    xml = f"<x><body>{nested}</body></x>"
    assert str(read("n.odt", zipped({"content.xml": xml.encode()})).text) == "deep"
    manifest = b"<manifest><encryption-data/></manifest>"
    with pytest.raises(Unreadable, match="needs a password"):
        read("b.odt", zipped({"content.xml": b"\x01\x02", "META-INF/manifest.xml": manifest}))


def test_chapters_of_a_book_come_as_they_are_read(read: Reader) -> None:
    chapters = {
        "z%20one.xhtml": "<html><body><h1>One</h1><p>caf&#233;</p></body></html>",
        "a.xhtml": "<p>Two</p>",
        "unread.xhtml": "<p>unread</p>",
    }
    found = read("a.epub", book(chapters, spine=["z%20one.xhtml", "a.xhtml"]))
    assert str(found.text) == (
        "Title: The pump\nAuthor: Ada\n\n=== OEBPS/z one.xhtml ===\nOne\ncafé\n\n=== OEBPS/a.xhtml ===\nTwo"
    )
    assert not found.note()


def test_a_book_that_is_locked_or_lacks_chapters_is_told(read: Reader) -> None:
    def locked(
        *names: str, algorithm: str = "http://www.w3.org/2001/04/xmlenc#aes128-cbc"
    ) -> dict[str, bytes]:
        data = "".join(
            f'<EncryptedData><EncryptionMethod Algorithm="{algorithm}"/><CipherReference URI="OEBPS/{name}"/></EncryptedData>'
            for name in names
        )
        return {"META-INF/encryption.xml": f"<encryption>{data}</encryption>".encode()}

    chapters = {"a.xhtml": "<p>one</p>", "b.xhtml": "<p>two</p>", "c.xhtml": ""}
    with pytest.raises(Unreadable, match="protected against copying"):
        read("a.epub", book(chapters, spine=["a.xhtml"], more=locked("a.xhtml")))
    found = read("b.epub", book(chapters, spine=list(chapters), more=locked("a.xhtml")))
    assert "two" in found.text
    assert "1 of 3 chapters protected against copying (OEBPS/a.xhtml)" in found.note()
    assert "1 of 3 chapters could not be read (OEBPS/c.xhtml" in found.note()
    fonts = locked("a.xhtml", algorithm="http://www.idpf.org/2008/embedding")
    assert "one" in read("c.epub", book(chapters, spine=["a.xhtml"], more=fonts)).text
    found = read("d.epub", book(chapters, spine=[]))
    assert ("one" in found.text, "two" in found.text) == (True, True)
    found = read("e.epub", zipped({"x/page.html": b"<p>alone</p>"}))
    assert "alone" in found.text
    assert "its list of chapters is missing" in found.note()
    with pytest.raises(Unreadable, match="no chapter in it can be read"):
        read("f.epub", zipped({"picture.jpg": b"x"}))

"""Files of many kinds as text: all that is in them, in order; one bad part costs that part alone, and what is
lacking is told.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import zipfile
from collections.abc import Callable

import pypdf
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from rlm_runtime import memory
from rlm_runtime.formats import read_file
from rlm_runtime.readers import Read
from rlm_runtime.unpacking import Unreadable
from rlm_runtime.wordnumbers import Numbers

from tests.support.filekinds import pdf, run, tarred, word, zipped
from tests.support.reading import Reader

WORDS = b"".join(hashlib.sha256(b"%d" % number).hexdigest().encode() + b"\n" for number in range(9_000))
LINES = b"".join(b"line %d\n" % number for number in range(20_000))


def text(read: Read) -> str:
    return str(read.text)


# Packed files

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("ending", PACKERS)
def test_packed_files_are_read_whole_however_they_were_put_together(ending: str, read: Reader) -> None:
    packed = PACKERS[ending](LINES)
    assert text(read(f"a.log.{ending}", packed)) == LINES.decode()
    several = read(f"b.log.{ending}", packed + PACKERS[ending](b"the end"))
    assert (text(several), several.lacks) == (LINES.decode() + "the end", ())
    behind = read(f"c.log.{ending}", packed + b"no packed data")
    assert (text(behind), behind.lacks) == (LINES.decode(), ("what follows the packed data was left out",))
    assert text(read(f"d.{ending}", PACKERS[ending](b""))) == ""


@pytest.mark.parametrize("ending", PACKERS)
def test_of_a_packed_file_that_is_cut_off_all_that_is_there_is_read_and_it_is_told(
    ending: str, read: Reader
) -> None:
    packed = PACKERS[ending](WORDS)
    found = read(f"a.log.{ending}", packed[: len(packed) * 3 // 4])
    assert WORDS.decode().startswith(text(found))
    assert len(text(found)) > 250_000
    assert "cut off before its end" in found.note()


def test_of_a_damaged_gzip_what_comes_before_the_damage_is_read_to_the_last_byte(read: Reader) -> None:
    packed = bytearray(gzip.compress(LINES))
    packed[-6] ^= 255  # its checksum
    found = read("a.log.gz", bytes(packed))
    assert text(found) == LINES.decode()
    assert "damaged" in found.note()


def test_a_file_that_was_unpacked_and_kept_its_name_is_read_and_told(read: Reader) -> None:
    found = read("a.csv.gz", b"a,b\n1,2\n")
    assert (text(found), found.lacks) == ("a,b\n1,2\n", ("not packed by gzip, whatever its name says",))


def test_a_packed_file_is_known_by_its_content_where_its_name_tells_nothing(read: Reader) -> None:
    assert text(read("messages.1", gzip.compress(b"old"))) == "old"
    assert text(read("backup", tarred({"a.txt": b"in a tar"}))) == "=== a.txt ===\nin a tar"
    assert text(read("a.txt", b"%PDF-1.7 PK\x03\x04 BZh9 {\\rtf1 of which this is about")).startswith("%PDF")


@pytest.mark.parametrize("ending", PACKERS)
def test_what_unpacks_to_too_much_is_refused_with_what_to_do(ending: str, read: Reader) -> None:
    with pytest.raises(Unreadable, match=r"a\.txt.* unpacks to more than 1,000,000 bytes.*Unpack it on disk"):
        read(f"a.txt.{ending}", PACKERS[ending](bytes(30_000_000)), room=1_000_000)


# Archives

MEMBERS = {
    "a/one.txt": b"first",
    "two.html": b"<p>se<b>cond</b>",
    "../../up.txt": b"third",
    "/abs.txt": b"fourth",
    "bits.bin": bytes(range(256)) * 9,
}
ARCHIVES: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.tgz": gzip.compress,
    "a.tar.bz2": bz2.compress,
    "a.txz": lzma.compress,
    "a.tar.zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("name", ["a.zip", *ARCHIVES])
def test_an_archive_is_its_files_by_name_and_what_is_binary_is_named(name: str, read: Reader) -> None:
    found = read(name, zipped(MEMBERS) if name == "a.zip" else ARCHIVES[name](tarred(MEMBERS)))
    parts = dict(part.split(" ===\n") for part in text(found).removeprefix("=== ").split("\n\n=== "))
    assert list(parts) == list(MEMBERS)
    assert list(parts.values())[:4] == ["first", "second", "third", "fourth"]
    assert "[left out: bits.bin is binary" in parts["bits.bin"]
    assert "1 of 5 files in it left out (bits.bin is binary" in found.note()


def _encrypted(data: bytearray, entry: int) -> None:
    data[6] |= 1
    data[entry + 8] |= 1


def _other_method(data: bytearray, entry: int) -> None:
    data[8], data[entry + 10] = 9, 9


def _checksum(data: bytearray, entry: int) -> None:
    data[14] ^= 255
    data[entry + 16] ^= 255


def _garbage(data: bytearray, _entry: int) -> None:
    data[40:44] = b"\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("damage", "why"),
    [(_encrypted, "encrypted"), (_other_method, "Deflate64"), (_checksum, "CRC"), (_garbage, "")],
    ids=["password", "method", "checksum", "garbage"],
)
def test_a_bad_member_of_a_zip_costs_itself_alone(
    damage: Callable[[bytearray, int], None], why: str, read: Reader
) -> None:
    data = bytearray(zipped({"bad.txt": LINES, "good.txt": b"good", "also.txt": b"fine"}))
    damage(data, data.find(b"PK\1\2"))
    found = read("a.zip", bytes(data))
    assert text(found).startswith("=== bad.txt ===\n[left out: ")
    assert text(found).endswith("=== good.txt ===\ngood\n\n=== also.txt ===\nfine")
    assert "1 of 3 files in it left out (bad.txt: " in found.note()
    assert why in found.note()


def test_a_zip_without_its_end_gives_what_is_there(read: Reader) -> None:
    data = zipped({"a.txt": b"first", "b.txt": LINES, "c.txt": b"third"})
    whole = read("whole.zip", data[: data.find(b"PK\1\2")])
    assert text(
        whole
    ) == f"=== a.txt ===\nfirst\n\n=== b.txt ===\n{LINES.decode()}\n\n=== c.txt ===\nthird".replace(
        "\n\n\n", "\n\n\n"
    )
    assert "directory is damaged or cut off" in whole.note()
    cut = read("cut.zip", data[: len(data) // 2])
    assert text(cut).startswith("=== a.txt ===\nfirst\n\n=== b.txt ===\nline 0\nline 1\n")
    assert "b.txt: cut off before its end" in cut.note()


def test_data_before_and_behind_a_zip_does_not_matter(read: Reader) -> None:
    data = zipped({"a.txt": b"first"})
    for name, around in {"program": b"MZ" + bytes(5000) + data, "behind": data + bytes(100_000)}.items():
        assert text(read(f"{name}.zip", around)) == "=== a.txt ===\nfirst"


def test_a_tar_that_is_cut_off_gives_what_is_there(read: Reader) -> None:
    data = tarred({"a.txt": b"first", "b.txt": LINES})
    for name, cut in {"a.tar": data[:20_000], "a.tgz": gzip.compress(data[:20_000])}.items():
        found = read(name, cut)
        assert text(found).startswith("=== a.txt ===\nfirst\n\n=== b.txt ===\nline 0\n")
        assert len(text(found)) > 18_000
        assert "b.txt: cut off before its end" in found.note()


def test_archives_in_archives_are_read_and_what_lies_too_deep_is_left_out(read: Reader) -> None:
    inner = zipped({"deep.txt": b"deep", "list.csv.gz": gzip.compress(b"a,b\n")})
    found = read(
        "a.zip",
        zipped(
            {
                "in.zip": inner,
                "in.tgz": gzip.compress(tarred({"in.zip": inner})),
                "__MACOSX/._in.zip": b"noise",
            }
        ),
    )
    assert text(found).count("deep") == 4
    assert text(found).count("a,b") == 2
    assert "noise" not in text(found)
    for _ in range(20):
        inner = zipped({"more.zip": inner, "beside.txt": b"beside"})
    nested = read("b.zip", inner)
    assert text(nested).count("beside\n") + text(nested).endswith("beside") >= 10
    assert "archives deep" in text(nested)


def test_all_that_is_unpacked_has_one_bound_and_a_bomb_costs_itself_alone(read: Reader) -> None:
    bomb = zipped({"a.txt": b"a" * 3_000_000})
    found = read(
        "mail.zip",
        zipped({**{f"{number}.zip": bomb for number in range(40)}, "good.txt": b"good"}),
        room=4_000_000,
    )
    assert len(text(found)) < 4_000_000
    assert text(found).endswith("=== good.txt ===\ngood")
    assert "39 of 41 files in it left out" in found.note()
    binary = zipped({"a.bin": bytes(range(256)) * 12_000})
    work = read(
        "work.zip",
        zipped({"good.txt": b"good", **{f"{number}.zip": binary for number in range(40)}}),
        room=4_000_000,
    )
    assert "too much was unpacked before it" in text(work)


def test_names_of_members_are_shown_whatever_they_hold(read: Reader) -> None:
    data = zipped({"gr\xf6\xdfer.txt": b"utf-8", "a\n=== b.txt ===\n.txt": b"line end"})
    assert (
        text(read("a.zip", data))
        == "=== größer.txt ===\nutf-8\n\n=== a\ufffd=== b.txt ===\ufffd.txt ===\nline end"
    )
    unmarked = bytearray(zipped({"gr\xf6\xdfer.txt": b"x"}))
    for at in (unmarked.find(b"PK\3\4") + 7, unmarked.find(b"PK\1\2") + 9):
        unmarked[at] &= ~8  # the mark that the name is UTF-8
    assert text(read("b.zip", bytes(unmarked))) == "=== größer.txt ===\nx"


def test_what_has_no_readable_member_is_refused_with_the_reason(read: Reader) -> None:
    with pytest.raises(Unreadable, match=r"a\.zip: nothing in it can be read; a\.bin is binary"):
        read("a.zip", zipped({"a.bin": bytes(range(256)) * 9}))
    with pytest.raises(
        Unreadable, match=r"a\.zip cannot be read as zip\. It is HTML, which begins '<html>Please sign in"
    ):
        read("a.zip", b"<html>Please sign in</html>")


def test_a_directory_that_is_too_large_for_memory_is_refused(
    read: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = zipped({f"{number}.txt": b"" for number in range(500)})
    monkeypatch.setattr(memory, "total", lambda: 160_000)
    with pytest.raises(Unreadable, match="its directory of files has"):
        read("a.zip", data, room=1_000_000)


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            "a.zip",
            "a.tar",
            "a.tgz",
            "a.gz",
            "a.bz2",
            "a.xz",
            "a.zst",
            "a.docx",
            "a.pdf",
            "a.html",
            "a.ipynb",
            "a",
        ]
    ),
)
def test_any_bytes_are_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    for start in (
        b"",
        b"PK\3\4",
        b"\x1f\x8b\x08\0",
        b"%PDF-1.4\n",
        b"BZh9",
        b"\xfd7zXZ\0",
        b"(\xb5/\xfd",
        b"<p>",
        b"{",
    ):
        path.write_bytes(start + data)
        try:
            refused = ""
            read_file(path, name)
        except Unreadable as error:
            refused = str(error)
        assert not refused or refused.startswith(name)


# Word

BODY = (
    f"<w:p>{run('The fee is ')}<w:del><w:r><w:delText>900</w:delText></w:r></w:del><w:ins>{run('1250')}"
    f"</w:ins>{run(' euro.')}</w:p>"
    f"<w:p><w:ins>{run('Inserted.')}</w:ins></w:p>"
    f"<w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr>{run('One ')}</w:p><w:p>{run('paragraph')}"
    f"<w:moveFrom>{run('gone')}</w:moveFrom></w:p>"
    f"<w:p><w:moveTo>{run('Moved here.')}</w:moveTo></w:p>"
    f"<w:sdt><w:sdtContent><w:p>{run('Controlled.')}</w:p></w:sdtContent></w:sdt>"
    f"<w:p>{run('Name: ')}<w:sdt><w:sdtContent>{run('Jane ')}<w:hyperlink>{run('Roe')}"
    "</w:hyperlink></w:sdtContent></w:sdt></w:p>"
    f"<w:p>{run('a')}"
    "<w:r><w:tab/><w:t>b</w:t><w:br/><w:noBreakHyphen/><w:instrText>HIDDEN</w:instrText></w:r></w:p>"
    f"<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>unseen</w:t></w:r>{run('seen')}<w:r><w:footnoteReference "
    "w:id='1'/></w:r></w:p>"
)  # fmt: skip


def test_word_files_are_read_with_all_changes_accepted_in_the_order_of_the_document(read: Reader) -> None:
    expected = [
        "The fee is 1250 euro.",
        "Inserted.",
        "One paragraph",
        "Moved here.",
        "Controlled.",
        "Name: Jane Roe",
        "a\tb",
        "-",
        "seen[footnote 1]",
    ]
    assert text(read("a.docx", word(BODY))).split("\n") == expected
    strict = word(BODY, namespace="http://purl.oclc.org/ooxml/wordprocessingml/main")
    assert text(read("b.docx", strict)).split("\n") == expected
    assert text(read("old.doc", word(BODY))).split("\n") == expected


def _cell(content: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr><w:p>{content}</w:p></w:tc>"


def _counted(level: int, kind: str, text: str, more: str = "") -> str:
    return f'<w:lvl w:ilvl="{level}"><w:start w:val="1"/><w:numFmt w:val="{kind}"/>{more}<w:lvlText w:val="{text}"/></w:lvl>'


def _numbered(text: str, level: int, number: int = 1) -> str:
    rule = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
    return f"<w:p><w:pPr>{rule}</w:pPr>{run(text)}</w:p>"


def test_raised_digits_of_word_are_no_part_of_the_number_before_them(read: Reader) -> None:
    raised = '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:t>{}</w:t></w:r>'
    body = f"<w:p>{run('10')}{raised.format('-6')}{run(' of the 1')}{raised.format('st')}{run(' ')}{raised.format('2')}</w:p>"
    assert str(read("a.docx", word(body)).text) == "10^-6 of the 1st 2"
    edited = f"<w:p>{run('10')}{raised.format('-')}<w:proofErr/>{raised.format('1')}{raised.format('2')}{run('3')}</w:p>"
    assert str(read("b.docx", word(edited)).text) == "10^-123"


def _math(name: str, **parts: str) -> str:
    inner = "".join(f"<m:{part}>{text}</m:{part}>" for part, text in parts.items())
    return f"<m:{name}><m:{name}Pr><w:rPr/></m:{name}Pr>{inner}</m:{name}>"


def test_formulas_of_word_have_signs_for_powers_fractions_and_roots(read: Reader) -> None:
    def words(text: str) -> str:
        return f"<m:r><m:rPr/><m:t>{text}</m:t></m:r>"

    power = _math("sSup", e=words("10"), sup=words("-6"))
    formula = (
        _math("f", num=words("550×") + power, den=words("2.5")) + words("=") + _math("sSub", e=words("x"), sub=words("1"))
        + "<w:del>" + words("old") + "</w:del>" + words("+") + _math("rad", deg="", e=words("b"))
        + _math("d", e=words("c")) + _math("nary", sub=words("i=1"), sup=words("n"), e=words("i"))
    )  # fmt: skip
    body = f'<w:p>{run("So ")}<m:oMath xmlns:m="m">{formula}</m:oMath>{run(" holds")}</w:p>'
    found = str(read("a.docx", word(body)).text)
    assert found == "So (550×10^-6)/2.5=x_1+√(b)(c)∫_(i=1)^n i holds"
    limit = _math("func", fName=_math("limLow", e=words("lim"), lim=words("n→0")), e=words("f"))
    lines = f"<m:eqArr><m:e>{words('x=1')}</m:e><m:e>{words('y=2')}</m:e></m:eqArr>"
    row = f"<m:mr><m:e>{words('1')}</m:e><m:e>{words('2')}</m:e></m:mr>"
    none = "<m:fPr><m:type m:val='noBar'/></m:fPr>"
    chosen = f"<m:f>{none}<m:num>{words('n')}</m:num><m:den>{words('k')}</m:den></m:f>"
    table = _math("d", e=f"<m:m>{row}{row}</m:m>") + _math("d", e=chosen)
    body = "".join(f'<w:p><m:oMath xmlns:m="m">{one}</m:oMath></w:p>' for one in (limit, lines, table))
    assert str(read("b.docx", word(body)).text) == "lim_(n→0) f\nx=1; y=2\n(1, 2; 1, 2)(n over k)"


def test_numbers_of_word_take_no_more_room_than_numbers_do() -> None:
    much = _counted(0, "decimal", "%1" + "x" * 50_000) + "".join(
        _counted(at, "decimal", "") for at in range(9, 99)
    )
    own = "".join(
        f'<w:lvlOverride w:ilvl="{at}">{_counted(at, "decimal", "%1")}</w:lvlOverride>' for at in range(9, 99)
    )
    rules = f'<w:numbering xmlns:w="w"><w:abstractNum w:abstractNumId="0">{much}</w:abstractNum><w:num w:numId="1">' \
            f'<w:abstractNumId w:val="0"/>{own}</w:num></w:numbering>'  # fmt: skip
    numbers = Numbers(etree.fromstring(rules), None)
    paragraph = etree.fromstring(f'<x xmlns:w="w">{_numbered("a", 0)}</x>')[0]
    assert len(numbers.label(paragraph)) < 300
    assert numbers.label(etree.fromstring(f'<x xmlns:w="w">{_numbered("a", 50)}</x>')[0]) == ""


def test_headings_and_lists_of_word_have_the_numbers_that_word_shows(read: Reader) -> None:
    levels = (
        _counted(0, "decimal", "%1.", '<w:pStyle w:val="Heading1"/>') + _counted(1, "decimal", "%1.%2")
        + _counted(2, "lowerLetter", "(%3)")
    )  # fmt: skip
    rules = (
        f'<w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
        f'<w:abstractNum w:abstractNumId="1">{_counted(0, "upperRoman", "Article %1")}</w:abstractNum>'
        f'<w:abstractNum w:abstractNumId="2">{_counted(0, "bullet", "•")}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>'
        '<w:num w:numId="3"><w:abstractNumId w:val="2"/></w:num><w:num w:numId="4"><w:abstractNumId w:val="1"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="9"/></w:lvlOverride></w:num>'
    )
    style = '<w:style w:type="paragraph" w:styleId="{}"><w:basedOn w:val="{}"/><w:pPr>{}</w:pPr></w:style>'
    styles = (
        style.format("Heading1", "Normal", '<w:numPr><w:numId w:val="1"/></w:numPr>')
        + style.format("Own", "Heading1", "")
    )  # fmt: skip
    styled = "<w:p><w:pPr><w:pStyle w:val='{}'/></w:pPr>{}</w:p>"
    deleted = f"<w:p><w:pPr><w:numPr><w:numId w:val='1'/></w:numPr><w:rPr><w:del/></w:rPr></w:pPr>{run('joined ')}</w:p>"
    body = (
        styled.format("Heading1", run("Terms")) + _numbered("first", 1) + _numbered("second", 1)
        + _numbered("sub", 2) + _numbered("sub", 2) + "<w:p>" + run("plain") + "</w:p>"
        + styled.format("Own", run("Fees")) + deleted + _numbered("again", 1) + _numbered("none", 0, 0)
        + _numbered("one", 0, 2) + _numbered("point", 0, 3) + _numbered("nine", 0, 4) + _numbered("ten", 0, 4)
    )  # fmt: skip
    found = read("a.docx", word(body, {"numbering": rules, "styles": styles}))
    assert str(found.text).splitlines() == [
        "1. Terms", "1.1 first", "1.2 second", "(a) sub", "(b) sub", "plain", "2. Fees", "2.1 joined again",
        "none", "Article I one", "point", "Article IX nine", "Article X ten",
    ]  # fmt: skip
    assert str(read("b.docx", word(_numbered("no rules", 0))).text) == "no rules"


def test_tables_of_word_keep_their_columns_and_merged_cells_come_once(read: Reader) -> None:
    inner = f"<w:tbl><w:tr>{_cell(run('in'))}{_cell(run('ner'))}</w:tr></w:tbl><w:p/>"
    wide, tall, below = "<w:gridSpan w:val='2'/>", "<w:vMerge w:val='restart'/>", "<w:vMerge/>"
    lines = run("two") + "</w:p><w:p>" + run("lines")
    table = (
        f"<w:tbl><w:tr>{_cell(run('Wide'), wide)}{_cell(run('End'))}</w:tr>"
        f"<w:tr>{_cell(run('Tall'), tall)}{_cell(lines)}</w:tr>"
        f"<w:sdt><w:sdtContent><w:tr>{_cell('', below)}<w:sdt><w:sdtContent>{_cell(run('x'))}"
        "</w:sdtContent></w:sdt>"
        f"<w:tc>{inner}</w:tc></w:tr></w:sdtContent></w:sdt></w:tbl>"
    )
    assert text(read("a.docx", word(table))).split("\n") == ["Wide\t\tEnd", "Tall\ttwo lines", "\tx\tin ner"]


def test_what_stands_beside_a_word_document_follows_it_and_a_broken_part_costs_itself(read: Reader) -> None:
    box = (
        f"<w:p><w:r><w:pict><w:txbxContent><w:p>{run('In a box.')}</w:p></w:txbxContent></w:pict></w:r></w:p>"
    )
    data = word(
        box,
        {
            "header1": f"<w:p>{run('Head')}</w:p>",
            "footnotes": f"<w:footnote w:id='0' w:type='separator'><w:p>{run('-')}</w:p></w:footnote>"
            f"<w:footnote w:id='1'><w:p>{run('Net.')}</w:p></w:footnote>",
            "comments": f"<w:comment w:id='3' w:author='Ann'><w:p>{run('Really?')}</w:p></w:comment>",
        },
    )
    broken = io.BytesIO(data)
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("word/footer1.xml", b"\0\1\2")
    found = read("a.docx", broken.getvalue())
    assert text(found).split("\n") == [
        "In a box.",
        "[footnote 1] Net.",
        "[comment 3 by Ann] Really?",
        "[header] Head",
    ]
    assert "word/footer1.xml could not be read" in found.note()


def test_a_word_file_that_unpacks_to_too_much_is_refused(read: Reader) -> None:
    with pytest.raises(Unreadable, match="unpacks to too much"):
        read("a.docx", word(f"<w:p>{run('a' * 5_000_000)}</w:p>"), room=1_000_000)


def test_what_is_called_word_and_is_none_is_refused_with_what_it_is(read: Reader) -> None:
    with pytest.raises(Unreadable, match=r"a\.docx cannot be read as Word\. It is HTML"):
        read("a.docx", b"<html><p>Please sign in</html>")
    with pytest.raises(Unreadable, match="encrypted, or an old Word file"):
        read("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(Unreadable, match=r"Save it as \.docx"):
        read("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))


def test_old_office_names_over_pages_rich_text_and_tables_are_read_for_what_they_are(read: Reader) -> None:
    rich = rb"{\rtf1\ansi\ansicpg1252 Caf\'e9 {\b bold}\par next}"
    assert text(read("a.doc", b"<html><body><p>Hel<b>lo</b></p>")) == "Hello"
    assert text(read("b.doc", rich)) == text(read("b.rtf", rich)) == "Café bold\nnext"
    assert text(read("c.xls", b"a\tb\n1\t2\n")) == "a\tb\n1\t2\n"
    assert text(read("d.rtf", b"just text")) == "just text"


# PDF


def _with_password(data: bytes, password: str, algorithm: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(password, "owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_a_pdf_that_any_viewer_opens_is_read_and_a_password_is_told(algorithm: str, read: Reader) -> None:
    data = pdf("The balance is 4711 euro.")
    assert text(read("a.pdf", _with_password(data, "", algorithm))) == "[page 1]\nThe balance is 4711 euro."
    with pytest.raises(Unreadable, match=r"b\.pdf: it is encrypted, and needs a password"):
        read("b.pdf", _with_password(data, "secret", algorithm))


def test_pages_without_text_are_told(read: Reader) -> None:
    scan = read("scan.pdf", pdf(None, None))
    assert "no text on any of its 2 pages: a scan, most likely" in scan.note()
    assert "no text" in text(scan).split("\n")[1]
    some = read("some.pdf", pdf("first", None, "third"))
    assert text(some) == "[page 1]\nfirst\n\n[page 2]\n[no text on this page]\n\n[page 3]\nthird"
    assert "no text on page 2" in some.note()


def test_characters_that_a_pdf_does_not_name_are_told(read: Reader) -> None:
    found = read("a.pdf", pdf("di\\001culties", "plain"))
    assert "di\N{REPLACEMENT CHARACTER}culties" in found.text
    assert "on page 1 some characters are" in found.note()
    assert "some characters" not in read("b.pdf", pdf("difficulties")).note()


def test_a_page_that_cannot_be_read_costs_itself_alone(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pypdf.PageObject.extract_text

    def extract(page: pypdf.PageObject) -> str:
        if "second" in (found := plain(page)):
            raise KeyError("/Font")
        return found

    monkeypatch.setattr(pypdf.PageObject, "extract_text", extract)
    found = read("a.pdf", pdf("first", "second", "third"))
    assert "[page 2]\n[this page could not be read: KeyError" in text(found)
    assert text(found).endswith("[page 3]\nthird")
    assert "page 2 could not be read" in found.note()


def test_a_pdf_with_a_wrong_table_of_places_is_read_and_what_is_none_is_refused(read: Reader) -> None:
    data = pdf("The balance is 4711 euro.")
    assert "4711" in text(read("a.pdf", b"some bytes\n" + data))
    cut = read("b.pdf", data[: data.find(b"xref")])
    assert "4711" in text(cut)
    assert "cut off" in cut.note()
    for name, other, what in (
        ("c.pdf", b"<html>Please sign in</html>", "HTML"),
        ("d.pdf", b"just text", "plain text"),
    ):
        with pytest.raises(Unreadable, match=rf"{name} is no PDF\. It is {what}"):
            read(name, other)


# Notebooks, and lines


def test_notebooks_of_any_version_and_with_missing_parts_are_read(read: Reader) -> None:
    cells = [
        {"cell_type": "code", "source": ["a = 1\n", "a"]},
        {"cell_type": "markdown", "source": "words"},
        {},
        None,
    ]
    expected = (
        "[cell 1: code]\na = 1\na\n\n[cell 2: markdown]\nwords\n\n[cell 3: unknown]\n\n\n[cell 4: unknown]\n"
    )
    assert text(read("a.ipynb", b"\xef\xbb\xbf" + json.dumps({"cells": cells}).encode())) == expected
    old = {
        "worksheets": [
            {"cells": [{"cell_type": "code", "input": "x"}]},
            {"cells": [{"cell_type": "code", "input": ["y"]}]},
        ]
    }
    assert text(read("b.ipynb", json.dumps(old).encode())) == "[cell 1: code]\nx\n\n[cell 2: code]\ny"
    broken = read("c.ipynb", b'{"cells": [{"source": "kept')
    assert text(broken) == '{"cells": [{"source": "kept'
    assert "no whole notebook" in broken.note()


def test_carriage_returns_end_lines_where_nothing_else_does_in_memory_and_on_disk(read: Reader) -> None:
    for data, wanted in [
        (b"name,city\rbob,Rome\r", "name,city\nbob,Rome\n"),
        (b"name,city\r\nbob,Ro\rme\r\n", "name,city\r\nbob,Ro\rme\r\n"),
    ]:
        for room in (None, 5):
            found = read("a.csv", data, room=room)
            assert "".join(map(str, found.text[:] if room is None else found.text.texts())) == wanted  # type: ignore[union-attr]
    assert text(read("b.zip", zipped({"a.txt": b"one\rtwo", "b.txt": b"one\rtwo\n"}))) == (
        "=== a.txt ===\none\ntwo\n\n=== b.txt ===\none\rtwo"
    )


@pytest.mark.parametrize(
    ("name", "page"),
    [("Müller Straße.txt", "cp437"), ("Müller Straße.txt", "cp1252"), ("Привет мир.txt", "cp866")],
)
def test_names_in_a_zip_are_read_by_the_code_page_of_where_it_was_made(
    name: str, page: str, read: Reader
) -> None:
    raw = name.encode(page)
    packed = (
        zipped({"Q" * len(raw): b"x", "folder!": b"", "folder!in.txt": b"y"})
        .replace(b"Q" * len(raw), raw)
        .replace(b"folder!", b"folder\\")
    )
    assert text(read("a.zip", packed)) == f"=== {name} ===\nx\n\n=== folder/in.txt ===\ny"


OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


@pytest.mark.parametrize(
    ("name", "instead"), [("a.doc", ".docx"), ("a.ppt", ".pptx"), ("a.msg", ".eml"), ("a.pst", ".mbox")]
)
def test_files_that_are_not_read_say_what_to_do(name: str, instead: str, read: Reader) -> None:
    with pytest.raises(Unreadable, match=rf"Save it as \{instead}"):
        read(name, OLD)


@pytest.mark.parametrize("name", ["a.xlsx", "a.xls", "a.ods", "a.pptx", "a.odt", "a.doc"])
def test_an_office_file_that_is_text_is_read_as_it_stands(name: str, read: Reader) -> None:
    assert text(read(name, b"a;b\n1;2\n")) == "a;b\n1;2\n"

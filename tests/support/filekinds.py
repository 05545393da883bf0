"""Small files of many kinds, made on the spot."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SLIDES = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_LINK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A tar of these files, with a link and a device beside them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link, device = tarfile.TarInfo("link"), tarfile.TarInfo("device")
        link.type, link.linkname, device.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.CHRTYPE
        archive.addfile(link)
        archive.addfile(device)
    return out.getvalue()


def word(body: str, more: Mapping[str, str] | None = None, *, namespace: str = _WORD) -> bytes:
    """A Word file; `more`: names and roots' contents of further parts."""
    parts = {"document": f"<w:body>{body}</w:body>", **(more or {})}
    root = f'<w:root xmlns:w="{namespace}">'
    return zipped(
        {
            f"word/{name}.xml": f'<?xml version="1.0"?>{root}{inner}</w:root>'.encode()
            for name, inner in parts.items()
        }
    )


def run(text: str) -> str:
    """A run of text, as in a Word file's paragraph."""
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def pdf(*pages: str | None) -> bytes:
    """A PDF with a page for each text; None: a page with a line drawn on it, and no text."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, text in enumerate(pages):
        content = f"BT /F1 12 Tf 20 50 Td ({text}) Tj ET".encode() if text is not None else b"0 0 m 10 10 l S"
        page = (
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents {5 + 2 * number} 0 "
            "R/Resources<</Font<</F1 3 0 R>>>>>>"
        )
        objects += [page.encode(), b"<</Length %d>>stream\n%s\nendstream" % (len(content), content)]
    made, places = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj%s endobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (size, len(made))
    return made + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer


def workbook(sheets: Mapping[str, str], *, hidden: str = "", date_1904: bool = False) -> bytes:
    """An .xlsx: names of sheets, and the XML of their rows, in which style 1 is a date, 2 a date with a time."""
    listed = "".join(
        f'<sheet name="{escape(name)}" sheetId="{n}" r:id="r{n}"{" state=" + chr(34) + "hidden" + chr(34) if name == hidden else ""}/>'
        for n, name in enumerate(sheets, 1)
    )
    links = "".join(
        f'<Relationship Id="r{n}" Type="{_LINK}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in range(1, len(sheets) + 1)
    )
    styles = (
        '<fonts count="1"><font/></fonts><fills count="1"><fill/></fills><borders count="1"><border/></borders>'
        '<cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14" '
        'applyNumberFormat="1"/><xf numFmtId="22" applyNumberFormat="1"/></cellXfs>'
    )
    main = (
        f"<workbookPr{' date1904=' + chr(34) + '1' + chr(34) if date_1904 else ''}/><sheets>{listed}</sheets>"
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r1" Type="{_LINK}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_LINK}">{main}</workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">{links}<Relationship Id="s" '
        f'Type="{_LINK}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{_SHEET}">{styles}</styleSheet>',
    }
    for n, rows in enumerate(sheets.values(), 1):
        parts[f"xl/worksheets/sheet{n}.xml"] = (
            f'<worksheet xmlns="{_SHEET}"><sheetData>{rows}</sheetData></worksheet>'
        )
    return zipped({name: f'<?xml version="1.0"?>{part}'.encode() for name, part in parts.items()})


def sheet_rows(rows: Sequence[Sequence[str | int | float | bool | None]]) -> str:
    """Rows of a sheet as XML; None: no cell."""
    return "".join(
        f'<row r="{n}">{"".join(_sheet_cell(value, n, at) for at, value in enumerate(row))}</row>'
        for n, row in enumerate(rows, 1)
    )


def _sheet_cell(value: str | float | bool | None, row: int, column: int) -> str:
    place = f'r="{chr(65 + column)}{row}"'
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c {place} t="b"><v>{int(value)}</v></c>'
    if isinstance(value, str):
        return f'<c {place} t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
    return f"<c {place}><v>{value!r}</v></c>"


def slides(*bodies: str, notes: str = "") -> bytes:
    """A .pptx of slides with these shapes, listed in the reverse order of their numbers; `notes` of the first."""
    spaces = f'xmlns:p="{_SLIDES}" xmlns:a="{_DRAWING}" xmlns:r="{_LINK}"'
    numbers = range(len(bodies), 0, -1)
    listed = "".join(f'<p:sldId id="{255 + n}" r:id="r{n}"/>' for n in numbers)
    links = "".join(
        f'<Relationship Id="r{n}" Type="{_LINK}/slide" Target="slides/slide{n}.xml"/>' for n in numbers
    )
    package = f'xmlns="{_PACKAGE}/relationships"'
    parts = {
        "_rels/.rels": f'<Relationships {package}><Relationship Id="r1" Type="{_LINK}/officeDocument" '
        'Target="/ppt/presentation.xml"/></Relationships>',
        "ppt/presentation.xml": f"<p:presentation {spaces}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": f"<Relationships {package}>{links}</Relationships>",
    }
    for n, body in zip(numbers, bodies, strict=True):
        parts[f"ppt/slides/slide{n}.xml"] = (
            f"<p:sld {spaces}><p:cSld><p:spTree>{body}</p:spTree></p:cSld></p:sld>"
        )
    if notes:
        parts[f"ppt/slides/_rels/slide{len(bodies)}.xml.rels"] = (
            f'<Relationships {package}><Relationship Id="n" Type="{_LINK}/notesSlide" '
            'Target="../notesSlides/notesSlide1.xml"/></Relationships>'
        )
        parts["ppt/notesSlides/notesSlide1.xml"] = (
            f"<p:notes {spaces}>{shape(notes)}{shape('7', 'sldNum')}</p:notes>"
        )
    return zipped({name: part.encode() for name, part in parts.items()})


def shape(text: str, place: str = "") -> str:
    """A shape of a slide with a paragraph for each line; `place`: the kind of its placeholder."""
    kind = f'<p:ph type="{place}"/>' if place else ""
    lines = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r></a:p>" for line in text.split("\n"))
    return f"<p:sp><p:nvSpPr><p:nvPr>{kind}</p:nvPr></p:nvSpPr><p:txBody>{lines}</p:txBody></p:sp>"


def book(
    chapters: Mapping[str, str], *, spine: Sequence[str], more: Mapping[str, bytes] | None = None
) -> bytes:
    """An .epub of chapters by their links; `spine`: those that are read, in order."""
    names = list(chapters)
    items = "".join(
        f'<item id="i{n}" href="{escape(link)}" media-type="application/xhtml+xml"/>'
        for n, link in enumerate(names)
    )
    read = "".join(f'<itemref idref="i{names.index(link)}"/>' for link in spine)
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>'
        f"The pump</dc:title><dc:creator>Ada</dc:creator></metadata><manifest>{items}</manifest><spine>{read}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
        'full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    parts = {"mimetype": b"application/epub+zip", "META-INF/container.xml": container.encode()}
    parts |= {"OEBPS/book.opf": package.encode()} | dict(more or {})
    parts |= {f"OEBPS/{unquote(link)}": page.encode() for link, page in chapters.items() if page}
    return zipped(parts)


def parquet(columns: Mapping[str, Any]) -> bytes:
    """A Parquet file of columns, each an Arrow array."""
    from arro3.core import Table
    from arro3.io import write_parquet

    out = io.BytesIO()
    write_parquet(Table.from_pydict(dict(columns)), out)
    return out.getvalue()


def database(path: Path, *statements: str) -> Path:
    """A SQLite database that these statements make."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
    return path

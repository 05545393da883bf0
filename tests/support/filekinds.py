"""Small files of many kinds, made on the spot."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


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

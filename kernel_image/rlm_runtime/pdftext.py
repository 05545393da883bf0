"""The text of PDF files, page by page.

A page that cannot be read costs itself alone; one without text is told.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import IO, Any

from rlm_runtime.unpacking import Unreadable

_NO_TEXT = "[no text on this page]"
_SCAN = "[no text: this page is a picture, or empty]"
_LISTED = 10
_NAMELESS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]|(?<=[^\W\d_])[\ue000-\uf8ff](?=[^\W\d_])")
"""Characters of which the file does not say which they are."""
_ROOT = re.compile(rb"(\d+)\s+(\d+)\s+obj\b(?:(?!endobj).){0,2000}?/Type\s*/Catalog\b", re.DOTALL)


def pdf_text(file: IO[bytes], room: int) -> tuple[str, list[str]]:
    """The pages' texts, each after `[page N]`, and what the user should know. `room`: characters at most.

    Raises Unreadable (a password), and whatever pypdf raises where not even the pages can be found.
    """
    from pypdf import PasswordType

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it remarks on each oddity that it has mended
    notes: list[str] = []
    reader = _open(file, notes)
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise Unreadable("it is encrypted, and needs a password. Save a copy without one, and name that.")
    count = _pages(reader)
    texts: list[str] = []
    bare: list[int] = []
    failed: list[int] = []
    nameless: list[int] = []
    size = 0
    for number in range(1, count + 1):
        try:
            text = reader.pages[number - 1].extract_text()
        except Exception as error:  # a damaged page makes it raise anything
            failed.append(number)
            text = f"[this page could not be read: {type(error).__name__}: {str(error)[:200]}]"
        else:
            text, unknown = _NAMELESS.subn("\N{REPLACEMENT CHARACTER}", text)
            nameless += [number] if unknown else []
            if not text.strip():
                bare.append(number)
                text = ""
        size += len(text)
        if size > room:
            notes.append(f"only its first {number - 1:,} of {count:,} pages, as there is no room for more")
            break
        texts.append(text)
    if failed and len(failed) == len(texts):
        raise Unreadable(f"none of its {count:,} pages can be read: {texts[0]}")
    scan = bool(bare) and len(bare) == len(texts)
    notes += _lacks(count, [] if scan else bare, failed, nameless, scan=scan)
    pages = "\n\n".join(
        f"[page {number}]\n{text or (_SCAN if scan else _NO_TEXT)}" for number, text in enumerate(texts, 1)
    )
    return pages + _form(reader), notes


def _lacks(
    count: int, bare: list[int], failed: list[int], nameless: list[int], *, scan: bool
) -> Iterator[str]:
    """What is to be said of pages: without text, that failed, with characters that are not known."""
    if scan:
        yield (
            f"no text on any of its {count:,} pages: a scan, most likely. A sub model that sees reads it "
            "page by page (pdf_page); else it needs OCR first"
        )
    if bare:
        yield f"no text on {_numbers(bare)}"
    if failed:
        yield f"{_numbers(failed)} could not be read"
    if nameless:
        yield (
            f"on {_numbers(nameless)} some characters are \N{REPLACEMENT CHARACTER}, as the file does not "
            "say which they are: joined letters (ff, fi, fl), most often"
        )


def _open(file: IO[bytes], notes: list[str]) -> Any:
    """A reader of the file; of one that was cut off, too, where it can be told which object is its root."""
    from pypdf import PdfReader

    try:
        return PdfReader(file, strict=False)
    except Exception:
        file.seek(0)
        data = file.read()
        root = _ROOT.search(data)
        if root is None:
            raise
        trailer = b"\ntrailer<</Size 1/Root %s %s R>>\nstartxref\n0\n%%%%EOF\n" % root.groups()
        reader = PdfReader(io.BytesIO(data + trailer), strict=False)
        notes.append("its end is damaged or cut off, so that pages may be missing")
        return reader


def _pages(reader: Any) -> int:
    try:
        return len(reader.pages)
    except RecursionError:  # a deep tree is known at the second look
        return len(reader.pages)


def _numbers(pages: list[int]) -> str:
    shown = ", ".join(map(str, pages[:_LISTED]))
    more = f" and {len(pages) - _LISTED:,} more" if len(pages) > _LISTED else ""
    return f"page{'s' if len(pages) > 1 else ''} {shown}{more}"


def _form(reader: Any) -> str:
    """What was filled into a form: viewers show it, and it is on no page's text."""
    try:
        fields = reader.get_form_text_fields() or {}
    except Exception:  # none that can be read
        return ""
    filled = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\n\n[form fields]\n" + "\n".join(filled) if filled else ""

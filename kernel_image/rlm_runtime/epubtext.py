"""The text of a book (.epub): title and authors, and its chapters in the order in which they are read."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import unquote, urldefrag

from rlm_runtime.unpacking import TooMuch, Unreadable
from rlm_runtime.wordtext import Parts
from rlm_runtime.xmlwalk import name_of

_LIST = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = re.compile(r"\.x?html?$", re.IGNORECASE)
_KINDS = (
    "application/xhtml+xml",
    "text/html",
    "text/x-oeb1-document",
    "image/svg+xml",
    "application/x-dtbook+xml",
)
_NO_DRM = "http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"
"""Ways in which only fonts are made unusable elsewhere."""
_DRM = "it is protected against copying (DRM), and no other program can read it"
_LISTED = 3
_TOLD = {
    "title": "Title",
    "creator": "Author",
    "language": "Language",
    "date": "Date",
    "publisher": "Publisher",
}


def epub_text(file: IO[bytes], room: int, page: Any) -> tuple[str, list[str]]:
    """The text of a book, and what of it could not be read. `page`: makes text of a chapter's bytes.

    Raises Unreadable (protected, or nothing to read in it), and what zipfile raises.
    """
    parts = Parts(file, room)
    locked = _locked(parts)
    head, chapters = _book(parts)
    texts, missing, closed = [], [], []
    for name in chapters:
        if name in locked:
            closed.append(name)
            continue
        try:
            text = str(page(parts.bytes_of(name))).strip("\n")
        except TooMuch:
            parts.damaged.append(f"{name} and what follows it was left out, as there is no more room")
            break
        except Exception as error:  # a broken chapter costs that chapter
            missing.append(f"{name}: {error}" if str(error) else name)
            text = "[this chapter could not be read]"
        if text.strip():
            texts.append(f"=== {name} ===\n{text}")
    if closed and not texts:
        raise Unreadable(f"{_DRM}. Give a copy without protection.")
    if not texts or (missing and len(missing) == len(texts)):
        raise Unreadable(f"no chapter in it can be read{f' ({missing[0]})' if missing else ''}")
    for what, names in (("protected against copying", closed), ("could not be read", missing)):
        if names:
            shown = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
            parts.damaged.append(f"{len(names):,} of {len(chapters):,} chapters {what} ({shown})")
    return "\n\n".join([*(["\n".join(head)] if head else []), *texts]), parts.damaged


def _locked(parts: Parts) -> set[str]:
    """What is encrypted in it, but for fonts."""
    if _ENCRYPTION not in parts.names():
        return set()
    found = set()
    try:
        for data in parts.root(_ENCRYPTION).iter("{*}EncryptedData"):
            method = next(data.iter("{*}EncryptionMethod"), None)
            if method is None or method.get("Algorithm") not in _NO_DRM:
                found |= {unquote(link.get("URI", "")) for link in data.iter("{*}CipherReference")}
    except TooMuch:
        raise
    except Exception as error:
        parts.damaged.append(f"{_ENCRYPTION} could not be read ({error})")
    return found


def _book(parts: Parts) -> tuple[list[str], list[str]]:
    """What is told of the book, a line each, and the names of its chapters: by its spine, else by its list of
    files, else all pages that there are.
    """
    names = {name.lower(): name for name in parts.names()} | {name: name for name in parts.names()}
    for place in _packages(parts):
        try:
            package = parts.root(place)
        except TooMuch:
            raise
        except Exception as error:
            parts.damaged.append(f"{place} could not be read ({error})")
            continue
        folder = posixpath.dirname(place)
        head = _head(package)
        items = {}
        for item in package.iter("{*}item"):
            if item.get("media-type", _KINDS[0]) in _KINDS or _PAGES.search(item.get("href", "")):
                items[item.get("id", "")] = _place(names, folder, item.get("href", ""))
        spine = [
            items[ref.get("idref", "")] for ref in package.iter("{*}itemref") if ref.get("idref", "") in items
        ]
        if spine or items:
            return head, list(dict.fromkeys(spine or items.values()))
    pages = [name for name in parts.names() if _PAGES.search(name)]
    parts.damaged.append("its list of chapters is missing, so they come as they lie in the file")
    return [], pages


def _packages(parts: Parts) -> list[str]:
    names = parts.names()
    found = []
    if _LIST in names:
        try:
            found = [unquote(one.get("full-path", "")) for one in parts.root(_LIST).iter("{*}rootfile")]
        except TooMuch:
            raise
        except Exception as error:
            parts.damaged.append(f"{_LIST} could not be read ({error})")
    return [name for name in found if name in names] or [
        name for name in names if name.lower().endswith(".opf")
    ]


def _head(package: Any) -> list[str]:
    found: dict[str, list[str]] = {}
    for element in package.iter():
        label = _TOLD.get(name_of(element))
        if label and (text := " ".join((element.text or "").split())):
            found.setdefault(label, []).append(text)
    return [f"{label}: {', '.join(found[label])}" for label in _TOLD.values() if label in found]


def _place(names: Mapping[str, str], folder: str, link: str) -> str:
    """The name in the file that a link stands for: links are written as on the web, or as they are.

    `names`: those of all files, and in lower case what they are.
    """
    plain = urldefrag(link).url
    wanted = [posixpath.normpath(posixpath.join(folder, name)) for name in (unquote(plain), plain, link)]
    found = (names.get(name) or names.get(name.lower()) for name in wanted)
    return next((name for name in found if name), wanted[0])

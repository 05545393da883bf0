"""The content of a chat's messages: texts, and files that are in them. Nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

from rlm_kernel.serve.refusals import Refused, bad

MAX_PARTS = 1_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_ODD = re.compile(r"[^\w.() -]+")
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,2}$")
_NAME = 80
_DATA_URL = re.compile(r"data:([^,;]{0,100})((?:;[^,;]{0,100}){0,5}),", re.IGNORECASE)
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]{0,20}://", re.IGNORECASE)
_ENDINGS = {
    "application/json": ".json",
    "application/pdf": ".pdf",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/markdown": ".md",
    "text/plain": ".txt",
}
_TEXTS = ("text", "input_text", "output_text", "refusal")
_THOUGHTS = ("reasoning", "reasoning_content", "thinking", "redacted_thinking", "think")
"""Parts in which programs send back what a model thought: an answer is known by what it says."""
_REFUSED = {"input_audio": "This server cannot read audio.", "video_url": "This server cannot read videos."}


@dataclass(frozen=True)
class Attached:
    """A file in a message, or a text that is kept as one. Its name has no folder in it."""

    name: str
    data: bytes

    @property
    def digest(self) -> str:
        return sha256(self.data).hexdigest()


def content_of(content: Any, where: str, *, earlier: bool = False) -> tuple[list[str], list[Attached]]:
    """The texts of a message and its files. `where` it stands, for people. Raises Refused.

    `earlier`: the message was answered or refused before. Programs send it again with each question, so a
    part of it that cannot be read is told as such, and does not end the chat.
    """
    if content is None:
        return [], []
    if isinstance(content, str):
        return [clean(content)], []
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise bad("A message's content must be a text, or a list of parts.", where)
    if len(content) > MAX_PARTS:
        raise bad(f"A message can have at most {MAX_PARTS:,} parts.", where)
    texts: list[str] = []
    files: list[Attached] = []
    for number, part in enumerate(content):
        try:
            text, file = _part(part, f"{where}[{number}]", len(files) + 1)
        except Refused as refused:
            if not earlier:
                raise
            text, file = f"[A part of this message that could not be read: {refused.message}]", None
        texts += [text] if text else []
        files += [file] if file is not None else []
    return texts, files


def clean(text: str) -> str:
    """Halves of characters, as JavaScript cuts emojis in two, are none that can be written."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _part(part: Any, where: str, number: int) -> tuple[str, Attached | None]:
    if isinstance(part, str):
        return clean(part), None
    if not isinstance(part, Mapping):
        raise bad("A part of a message must be an object with a type.", where)
    kind = part.get("type")
    if kind in _TEXTS or (kind is None and "text" in part):
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise bad("This part has no text.", where)
        return clean(text), None
    if kind in _THOUGHTS:
        return "", None
    if kind in ("image_url", "input_image"):
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, Mapping) else given
        return "", _of_data(url, f"image-{number}", where)
    if kind in ("file", "input_file"):
        inner = part.get("file")
        return "", _file(inner if isinstance(inner, Mapping) else part, where, number)
    raise bad(_REFUSED.get(str(kind), f"Parts of the type {str(kind)[:40]!r} are not supported here."), where)


def _file(file: Mapping[str, Any], where: str, number: int) -> Attached:
    if file.get("file_data") is None:
        if file.get("file_url") is not None:
            raise bad(
                "This server does not fetch files from the network: send their content as file_data.",
                where,
                "remote_url_refused",
            )
        raise bad(
            "This server does not keep uploaded files (file_id): send their content as file_data.", where
        )
    name = file.get("filename")
    return _of_data(file["file_data"], name if isinstance(name, str) and name else f"file-{number}", where)


def _of_data(given: Any, name: str, where: str) -> Attached:
    """What a data URL, or base64 alone, holds. Raises Refused."""
    if not isinstance(given, str) or not given:
        raise bad("This part has no data.", where)
    if found := _DATA_URL.match(given):
        kind, options = found[1].strip().lower(), found[2].lower()
        payload = given[found.end() :]
        ending = _ENDINGS.get(kind, ".txt" if kind.startswith("text/") else "")
        data = _decoded(payload, where) if ";base64" in options else unquote_to_bytes(clean(payload))
        return Attached(file_name(name, ending), data)
    if _REMOTE.match(given[:40]):
        raise bad(
            "This server fetches nothing from the network: send the content itself, as a data URL.",
            where,
            "remote_url_refused",
        )
    return Attached(file_name(name, ""), _decoded(given, where))


def _decoded(text: str, where: str) -> bytes:
    packed = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise bad("The data is not base64.", where) from None


def file_name(given: str, ending: str) -> str:
    """A name of a file without folders, hidden files and odd characters; `ending` where it has none."""
    last = re.split(r"[\\/]", clean(given[-1_000:]))[-1]
    plain = _ODD.sub("_", last).strip(" ._-") or "file"
    found = _ENDING.search(plain)
    stem, own = (plain[: found.start()], found[0]) if found and found.start() else (plain, "")
    return f"{stem[:_NAME]}{own or ending}"


def distinct(files: Iterable[Attached], taken: Iterable[str] = ()) -> list[Attached]:
    """The same content once, and each name once, however capitals stand in it."""
    names, contents = {name.lower() for name in taken}, set[str]()
    found: list[Attached] = []
    for file in files:
        if file.digest in contents:
            continue
        contents.add(file.digest)
        stem, dot, ending = file.name.partition(".")
        name, number = file.name, 1
        while name.lower() in names:
            number += 1
            name = f"{stem}-{number}{dot}{ending}"
        names.add(name.lower())
        found.append(Attached(name, file.data))
    return found

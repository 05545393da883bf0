"""An answer in the pieces of which each can have a source of its own, and the words by which it is found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

MOST_PIECES = 200
MOST_TEXT = 200_000
"""Characters of an answer that are taken apart."""
_DEEP = 20
_MOST_WORDS = 6
_ITEM = re.compile(r"^\s*(?:[-*+•>]|\d{1,4}[.)]|#{1,6})\s+")
_RULE = re.compile(r"[\s|:=+-]*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[^\W\d_a-z])|(?<=[。！？])")
_MARKS = re.compile(r"[*`]{1,3}|(?<!\w)_{1,3}|_{1,3}(?!\w)")
_QUOTED = re.compile(r"\"([^\"\n]{4,120})\"|“([^”\n]{4,120})”|`([^`\n]{3,120})`|«([^»\n]{4,120})»")
_NUMBER = re.compile(r"(?<![\w.,])[$€£]?(\d[\d,]*(?:\.\d+)?)(?![\w]|[.,]\d)")
_NAME = re.compile(r"[^\W\d_a-z]\w+(?:[ -](?:(?:of|de|von|van|the) )?[^\W\d_a-z]\w+){1,4}")
_CODE = re.compile(r"\b(?=\w*\d)(?=\w*[^\W\d])\w{4,60}\b|\b\w{2,40}(?:_\w{1,40})+\b")


def pieces(answer: str) -> Iterator[tuple[str, str]]:
    """The pieces of an answer, each with its label: JSON values by path; else sentences, items, rows."""
    answer = answer[:MOST_TEXT]
    data = _json(answer)
    if isinstance(data, dict | list):
        yield from _leaves(data, "", 0)
        return
    for line in answer.split("\n"):
        if line.lstrip().startswith("|"):
            if not _RULE.fullmatch(line):
                yield "", " | ".join(cell.strip() for cell in line.strip().strip("|").split("|"))
            continue
        text = _ITEM.sub("", line, count=1).strip()
        for sentence in _SENTENCE.split(text):
            if any(char.isalnum() for char in sentence):
                yield "", sentence.strip()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEP:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{at}]", depth + 1)
    elif isinstance(value, str):
        if value.strip():
            yield path, value
    elif value is not None:
        yield path, json.dumps(value)


def words_of(piece: str) -> list[str]:
    """What tells a piece from others: its quotations, numbers, names and identifiers, the longest first."""
    plain = _MARKS.sub("", piece)
    found = [next(filter(None, one.groups())) for one in _QUOTED.finditer(piece)]
    found += [one[1] for one in _NUMBER.finditer(plain)]
    found += [one.group() for one in _NAME.finditer(plain)]
    found += [one.group() for one in _CODE.finditer(plain)]
    return list(islice(dict.fromkeys(sorted(found, key=len, reverse=True)), _MOST_WORDS))


def plain(piece: str) -> str:
    """A piece without the marks of Markdown."""
    return _MARKS.sub("", piece).strip(" .;:")

"""The paths that stand in a user's message: naming a file is what allows it to be loaded."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

MAX_PATHS = 100
MAX_LOOKS = 10_000
"""Words that are looked for in the file system: a whole book may have been pasted into a message."""
_LONGEST = 4096
_MARKS = 4
"""Marks at a word's end that are taken off, one after the other."""
_QUOTED = re.compile(r"(?<!\w)'([^'\n]+)'|\"([^\"\n]+)\"|`([^`\n]+)`")
_ESCAPED = re.compile(r"(?:\\.|\S)+")
_TRAILING = ".,;:!?)]}>»”’'\"`…"
_LEADING = "([{<«“‘'\"`"
_FILE_URL = re.compile(r"file:(?://(?:localhost)?(?=/))?")


def named_paths(message: str, cwd: Path) -> list[Path]:
    """The paths that stand in the message as they are, and exist: absolute, `~/…`, or relative to `cwd` with a slash or a dot in them.

    In quotes or backticks, or with backslashes, they may have spaces. At most MAX_PATHS, each once. Blocking, as it looks at the file
    system.
    """
    words = dict.fromkeys(word for word in _words(message) if _may_be_path(word))
    existing = (_existing(word, cwd) for word in itertools.islice(words, MAX_LOOKS))
    return list(itertools.islice(dict.fromkeys(path for path in existing if path is not None), MAX_PATHS))


def _words(message: str) -> Iterator[str]:
    for match in _QUOTED.finditer(message):
        yield next(filter(None, match.groups()))
    for word in message.split():
        yield from _trimmed(word)
    for word in _ESCAPED.findall(message):
        if "\\" in word:
            yield from _trimmed(re.sub(r"\\(.)", r"\1", word))


def _trimmed(word: str) -> Iterator[str]:
    """The word, and without what is about it: a full stop at its end may be of the name, or of the sentence."""
    word = word.lstrip(_LEADING)
    for _ in range(_MARKS):
        yield word
        if not word or word[-1] not in _TRAILING:
            return
        word = word[:-1]
    yield word.rstrip(_TRAILING)


def _may_be_path(word: str) -> bool:
    return len(word) <= _LONGEST and ("/" in word or "." in word.strip(".")) and bool(word.strip("/."))


def _existing(word: str, cwd: Path) -> Path | None:
    if url := _FILE_URL.match(word):
        word = unquote(word[url.end() :])
    try:
        path = Path(os.path.abspath(cwd / Path(word).expanduser()))
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, no such user
        return None

"""A question, and the paths that stand in it: naming a file is what allows it to be loaded."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from rlm_kernel import system
from rlm_kernel.errors import UsageError
from rlm_kernel.nearest import nearest_path

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
_GLOB = re.compile(r"[*?\[\]{}]")
_ROUTE = re.compile(r"\b(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)\s+\S+")
"""A request, as access logs have them: what it asks for is no file of this machine."""
_ROOTED = re.compile(r"~?/|\.\.?/")
_ROOTED_ON_WINDOWS = re.compile(r"~?[\\/]|\.\.?[\\/]|[A-Za-z]:[\\/]")
_DRIVE_OF_URL = re.compile(r"/(?=[A-Za-z]:)")
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,5}$")
MAX_MISSING = 20
_FILE_URL = re.compile(r"file:(?://(?:localhost)?(?=/))?")


def extract_paths(message: str, cwd: Path) -> list[Path]:
    """The paths that stand in the message as they are, and exist: absolute, `~/…`, or relative to `cwd` with
    a slash or a dot in them.

    In quotes or backticks, or with backslashes, they may have spaces; on Windows a backslash stands between
    folders, and a path of another machine is none: a text that was pasted would have Windows log in there. At
    most MAX_PATHS, each once. Blocking, as it looks at the file system.
    """
    words = dict.fromkeys(word for word in _words(message) if _may_be_path(word))
    existing = (_existing(word, cwd) for word in itertools.islice(words, MAX_LOOKS))
    return list(itertools.islice(dict.fromkeys(path for path in existing if path is not None), MAX_PATHS))


@dataclass(frozen=True)
class Missing:
    """A path that stands in a message and is not there: as it was written, and one that is there and nearly
    the same.
    """

    word: str
    near: Path | None = None

    def __str__(self) -> str:
        return f"{self.word} is not there{f' (but {self.near} is)' if self.near else ''}"


@dataclass(frozen=True)
class Question:
    """What is asked.

    `schema`: a JSON schema that the answer must fit; `named`: the files that the text names and that are
    there, `absent`: those that are not.
    """

    text: str
    schema: Mapping[str, Any] | None = None
    named: Sequence[Path] = ()
    absent: Sequence[Missing] = ()

    @property
    def worded(self) -> str:
        """The question with how its answer must look."""
        if self.schema is None:
            return self.text
        return (
            f"{self.text}\n\nDeliver the answer with FINAL, as a value that fits this JSON schema: "
            f"{json.dumps(self.schema)}"
        )

    def loop_options(self) -> dict[str, Any]:
        """What `Loop.run` is told of the paths."""
        return {"named": [str(path) for path in self.named], "absent": [str(one) for one in self.absent]}

    def tell_absent(self, say: Callable[[str], None]) -> None:
        """Say which files are not there."""
        for one in self.absent:
            say(f"The question names a path, but {one}.")


async def read_question(
    text: str, schema: Mapping[str, Any] | None = None, *, files: bool = True
) -> Question:
    """A question with the paths that stand in it, as seen from the working directory.

    `files`: the setting `sandbox.question_files`; without it no path is looked for.
    """
    if not files:
        return Question(text, schema)

    def read() -> Question:
        return Question(text, schema, extract_paths(text, Path.cwd()), missing_paths(text, Path.cwd()))

    return await asyncio.to_thread(read)


def missing_paths(message: str, cwd: Path) -> list[Missing]:
    """The paths in a message that can only be meant as files of this machine, and are not there. Blocking.

    That is one from a root (`/`, `~/`, `./`) whose folder is there, or that differs in a few letters from one
    that is; and a file's name with an ending that differs so. URLs, requests (`GET /index.html`), routes,
    patterns and fractions are none.
    """
    spoken = _ROUTE.sub(" ", message)
    found: dict[str, Missing] = {}
    there: set[str] = set()
    for word in itertools.islice(_whole_words(spoken), MAX_LOOKS):
        forms = list(_trimmed(word))
        if (
            not _may_be_path(word)
            or "://" in word
            or ("\\" in word and not system.WINDOWS_PATHS)
            or _GLOB.search(forms[-1])
        ):
            continue
        if any(_existing(form, cwd) for form in forms):
            there.update(forms)
        elif forms[-1] and (missing := _missing(forms[-1], cwd)):
            found[missing.word] = missing
        if len(found) >= MAX_MISSING:
            break
    return [missing for missing in found.values() if missing.word not in there]


def _whole_words(message: str) -> Iterator[str]:
    quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(message)]
    yield from quoted
    # Parts of what is in quotes are no paths by themselves.
    yield from _QUOTED.sub(" ", message).split()


def _missing(word: str, cwd: Path) -> Missing | None:
    rooted = (_ROOTED_ON_WINDOWS if system.WINDOWS_PATHS else _ROOTED).match(word) is not None
    if not rooted and not _ENDING.search(word):
        return None
    try:
        path = Path(os.path.abspath(cwd / Path(word).expanduser()))
        near = nearest_path(
            path, other_ending=False
        )  # notes.md beside notes.txt may be a file that is wanted
        in_folder = rooted and path.parent != Path(path.anchor) and path.parent.is_dir()
    except (OSError, ValueError, RuntimeError):
        return None
    return Missing(word, near) if near is not None or in_folder else None


def refuse_missing(missing: Sequence[Missing]) -> None:
    """Raise UsageError for a question about files that are not there."""
    if missing:
        near = missing[0].near
        hint = f"Did you mean {near}?" if near else "Check the path, or give the input with -f."
        raise UsageError(f"The question names {missing[0].word}, which is not there.", hint=hint)


def _words(message: str) -> Iterator[str]:
    for match in _QUOTED.finditer(message):
        yield next(filter(None, match.groups()))
    for word in message.split():
        yield from _trimmed(word)
    for word in _ESCAPED.findall(message) if not system.WINDOWS_PATHS else ():
        if "\\" in word:
            yield from _trimmed(re.sub(r"\\(.)", r"\1", word))


def _trimmed(word: str) -> Iterator[str]:
    """The word, and without what is about it: a full stop at its end may be of the name, or of the
    sentence.
    """
    word = word.lstrip(_LEADING)
    for _ in range(_MARKS):
        yield word
        if not word or word[-1] not in _TRAILING:
            return
        word = word[:-1]
    yield word.rstrip(_TRAILING)


def _may_be_path(word: str) -> bool:
    if system.WINDOWS_PATHS:
        word = word.replace("\\", "/")
    return (
        len(word) <= _LONGEST
        and ("/" in word or "." in word.strip("."))
        and bool(word.strip("/."))
        and not system.is_remote(word)
    )


def _existing(word: str, cwd: Path) -> Path | None:
    if url := _FILE_URL.match(word):
        word = unquote(word[url.end() :])
        if system.WINDOWS_PATHS:
            word = _DRIVE_OF_URL.sub("", word, count=1)
        if system.is_remote(word):
            return None
    try:
        path = Path(os.path.abspath(cwd / Path(word).expanduser()))
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, no such user
        return None

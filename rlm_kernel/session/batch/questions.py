"""The questions of a batch, one after the other: of a file, for each file of many, for each row of a table,
or from a program. They are read as they are wanted, and what is wrong with one does not stop the others.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlm_kernel import system
from rlm_kernel.errors import RLMError, UsageError
from rlm_kernel.session.batch.fields import Draft, checked_id, draft, filled
from rlm_kernel.session.batch.item import Item
from rlm_kernel.session.batch.rows import STDIN, BadLine, read_rows
from rlm_kernel.session.contexts import is_file_like
from rlm_kernel.session.contexttables import is_table
from rlm_kernel.session.globs import matching, why_none
from rlm_kernel.session.inputs import Beside, are_paths, beside
from rlm_kernel.session.plainvalues import as_json

_READ = 16 << 20
"""Bytes of a file that are compared by what they are; of a larger one the time of change stands for that."""
_MEMBERS = 10_000
"""Files of a folder that are looked at."""
_NO_QUESTIONS = 20
"""Bad lines at the beginning, and no good one, after which a file is none of questions."""
_FILE = 'A file of questions has a JSON object on each line: {"id": "a", "question": "…", "files": ["a.pdf"]}'
_TABLE = "Check the table. Name only columns that it has: {column} in the question, --id COLUMN."
"""What to do where no line is a question."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?")
_NONE = object()


@dataclass(frozen=True)
class Common:
    """What all questions of a batch have beside their own: files, and a JSON schema for those without one."""

    files: Sequence[Path] = ()
    schema: Mapping[str, Any] | None = None

    def of(self, given: Draft) -> Draft:
        return replace(
            given,
            context=beside(given.context, self.files),
            schema=self.schema if given.schema is None else given.schema,
        )


@dataclass(frozen=True)
class Entry:
    """A question of a batch. `id` as it was given, or made of what is asked; `number` of its line or row.

    `digest` tells whether it is still the same question, of the same context; "" where that is not known.
    """

    item: Item
    id: str | int
    number: int
    digest: str


Drafts = Iterator[tuple[int, Draft] | BadLine]
Entries = Iterator[Entry | BadLine]


def of_file(path: Path) -> Drafts:
    """Of a file of questions, or standard input.

    Raises UsageError where the file is none of questions.
    """
    base = Path.cwd() if path == STDIN else path.absolute().parent
    cells = path.suffix.lower() in (".csv", ".tsv")
    yield from _some_good(_drafts(read_rows(path), lambda row: draft(row, base, cells=cells)), path, _FILE)


def for_rows(question: str, path: Path, id_column: str | None = None) -> Drafts:
    """One question for each row of a table, which is its context; columns may stand in the question in
    braces.
    """

    def of_row(values: Mapping[str, Any]) -> Draft:
        if id_column is not None and id_column not in values:
            raise UsageError(f"there is no column {id_column!r}", hint=f"It has: {', '.join(values)[:300]}.")
        given = None if id_column is None else checked_id(values[id_column])
        return Draft(given, filled(question, values), dict(values))

    yield from _some_good(_drafts(read_rows(path), of_row), path, _TABLE)


def for_each(question: str, patterns: Sequence[str]) -> Drafts:
    """One question for each file of globs, folders and paths, in order of their names; `{file}` in the
    question is the file.

    Raises UsageError where nothing matches.
    """
    number = 0
    for pattern in dict.fromkeys(patterns):
        before = number
        for name in _files(pattern):
            number += 1
            yield number, Draft(name, filled(question, {"file": name}), [Path(name)])
        if number == before:
            raise UsageError(
                f"No file matches {pattern}.",
                hint=why_none(pattern),
            )


def count_files(patterns: Sequence[str]) -> int:
    """How many files `for_each` would ask of. Blocking."""
    return sum(1 for pattern in dict.fromkeys(patterns) for _ in _files(pattern))


def _files(pattern: str) -> Iterator[str]:
    whole = os.path.expanduser(pattern)
    if os.path.isdir(whole):
        whole = os.path.join(glob.escape(whole), "**", "*")
    elif os.path.lexists(whole):
        yield Path(whole).as_posix()
        return
    for name in sorted(matching(whole)):
        if os.path.isfile(name):
            yield Path(name).as_posix()


def of_program(questions: Iterable[Any], contexts: Iterable[Any] | None = None) -> Drafts:
    """Of texts, dicts as a file has them, or Items, each with a context of `contexts` if these are given.

    Raises UsageError where there are fewer contexts than questions, or either would be gone through by its
    characters, names or columns.
    """
    _refuse_one("questions", questions)
    if contexts is not None:
        _refuse_one("contexts", contexts)
    return _each(questions, contexts)


def _refuse_one(what: str, given: Any) -> None:
    """Raises UsageError."""
    if isinstance(given, str | bytes | Mapping | Item | os.PathLike) or not isinstance(given, Iterable):
        raise UsageError(
            f"The {what} must be a list or another iterable, not a {type(given).__name__}: "
            f"{str(given)[:100]!r}.",
            hint="Put a single one into a list. To ask the questions in a file, use rlm batch.",
        )
    if is_table(given) and hasattr(given, "columns"):
        raise UsageError(
            f"The {what} are a table, and iterating over a table gives its columns.",
            hint="Give its rows: to_dict('records') of pandas, to_dicts() of polars, to_pylist() of Arrow.",
        )


def _each(questions: Iterable[Any], contexts: Iterable[Any] | None) -> Drafts:
    given = None if contexts is None else iter(contexts)
    for number, one in enumerate(questions, 1):
        context = None
        if given is not None and (context := next(given, _NONE)) is _NONE:
            raise UsageError(
                f"Question {number} has no context: there are fewer contexts than questions.",
                hint="Give one context for each question, or leave `contexts` out.",
            )
        try:
            made = _of_program(one)
        except UsageError as error:
            yield BadLine(number, _why(error))
            continue
        yield number, made if given is None else replace(made, context=context)


def _of_program(one: Any) -> Draft:
    """Raises UsageError."""
    if isinstance(one, Item):
        return Draft(one.id, one.question, one.context, one.schema, one.changes)
    if isinstance(one, Mapping):
        return draft(one, Path.cwd())
    return draft({"question": one}, Path.cwd())


def entries(drafts: Drafts, by: str = "", *, compared: bool = True, common: Common = Common()) -> Entries:
    """Questions with an id and a name of their own each.

    Args:
        drafts: as given.
        by: what else makes an answer another one, such as the models.
        compared: with digests, for which files are read.
        common: what all of them have.
    """
    seen: set[int] = set()
    made: Counter[str] = Counter()
    for one in drafts:
        if isinstance(one, BadLine):
            yield one
            continue
        number, given = one[0], common.of(one[1])
        try:
            asked = _digest(given) if compared or given.id is None else ""
        except RLMError as error:
            yield BadLine(number, _why(error))
            continue
        id_ = given.id
        if id_ is None:
            id_ = f"q-{asked[:12]}"
            made[id_] += 1
            id_ = f"{id_}-{made[id_]}" if made[id_] > 1 else id_
        if (key := key_of(id_)) in seen:
            yield BadLine(number, f"its id {str(id_)[:100]!r} is used twice.")
            continue
        seen.add(key)
        item = Item(name_of(id_), given.question, given.context, given.schema, given.changes)
        yield Entry(item, id_, number, _hash(asked, by)[:16] if compared else "")


def key_of(given: str | int) -> int:
    """A number that stands for an id: of a million questions no text is held."""
    return int.from_bytes(hashlib.sha256(_bytes(str(given))).digest()[:8])


def name_of(given: str | int) -> str:
    """A name that a file can have on any system, the id itself where that is one."""
    text = str(given)
    if _NAME.fullmatch(text) and system.is_possible_name(text):
        return text
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[-60:].strip("-._")
    return f"{words or 'question'}-{_hash(text)[:8]}"


def _drafts(rows: Iterator[Any], make: Callable[[Mapping[str, Any]], Draft]) -> Drafts:
    for row in rows:
        if isinstance(row, BadLine):
            yield row
            continue
        try:
            yield row.number, make(row.values)
        except UsageError as error:
            yield BadLine(row.number, _why(error))


def _some_good(drafts: Drafts, path: Path, hint: str) -> Drafts:
    """The drafts, unless there is nothing but bad lines. Raises UsageError."""
    bad: list[BadLine] = []
    for one in drafts:
        if not isinstance(one, BadLine):
            yield from bad
            yield one
            yield from drafts
            return
        bad.append(one)
        if len(bad) == _NO_QUESTIONS:
            break
    name = "Standard input" if path == STDIN else str(path)
    if not bad:
        raise UsageError(f"{name} is empty: there are no questions.", hint=hint)
    raise UsageError(f"There is no question in {name}. Line {bad[0].number}: {bad[0].why}", hint=hint)


def _why(error: RLMError) -> str:
    """On one line, with a mark at its end."""
    message = error.message if error.message.endswith((".", "?")) else f"{error.message}."
    return " ".join(f"{message} {error.hint}".split())


def _digest(given: Draft) -> str:
    """Of what is asked of what. Raises UsageError for a context that cannot be handed over."""
    return _hash(
        given.question,
        _context(given.context),
        as_json(given.schema) if given.schema else "",
        json.dumps(dict(given.changes), sort_keys=True, default=str),
    )


def _context(context: Any) -> str:
    if isinstance(context, Beside):
        return _hash(_context(context.context), _context(list(context.files)))
    if isinstance(context, Path):
        context = [context]
    if are_paths(context):
        return _hash(*itertools.chain.from_iterable(map(_file, context)))
    if isinstance(context, bytes | bytearray | memoryview):
        return hashlib.sha256(context).hexdigest()
    if is_file_like(context) or isinstance(context, Iterator):
        return ""  # it can be read once, or is large
    return as_json(context)


def _file(path: Path) -> Iterator[str]:
    """What a file is: its name, and what is in it. What cannot be read is told when it is asked of."""
    yield path.name
    if path.is_dir():
        for count, (folder, folders, names) in enumerate(os.walk(path)):
            folders.sort()
            for name in sorted(names) if count < _MEMBERS else ():
                yield from _stat(Path(folder, name), os.path.relpath(Path(folder, name), path))
        return
    try:
        if path.is_file() and path.stat().st_size <= _READ:
            yield hashlib.sha256(path.read_bytes()).hexdigest()
            return
    except OSError:
        pass
    yield from _stat(path, path.name)


def _stat(path: Path, name: str) -> Iterator[str]:
    try:
        status = path.stat()
        yield f"{name} {status.st_size} {status.st_mtime_ns}"
    except OSError:
        yield f"{name} -"


def _hash(*parts: str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        raw = _bytes(part)
        whole.update(f"{len(raw)}:".encode() + raw)
    return whole.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")

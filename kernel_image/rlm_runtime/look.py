"""The first look at an input: what the host tells the root model of it, and what `peek` shows of several
texts.

All of it is bounded, and told without a look at all of what is there.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rlm_contract import MAX_WHOLE_TEXTS, MAX_WHOLE_TOLD
from rlm_contract.tokens import MOST_CHARS, tokens

from rlm_runtime import forms
from rlm_runtime.kinds import is_format
from rlm_runtime.labels import on_a_line
from rlm_runtime.lazytext import LazyText
from rlm_runtime.picturefile import Picture

Text = str | LazyText
_ITEMS, _LABEL = 100, 200
_HEAD = 300
_KINDS, _HEADS, _FORMS, _FORM = 6, 4, 5, 500
_TRIED = 5
"""Texts of one kind that are looked at for other forms."""
_READ, _LAZY = 8_000_000, 400_000
"""Characters that are read for forms, at most about; and of a text that is not read whole."""
_PEEKED, _PEEK = 5, 20_000
"""Texts that `peek` shows of several, and characters of them in all."""
_NUMBER = re.compile(r"\.\d+$")
_ENDING = re.compile(r"(?:\.[a-z0-9_+-]{1,12}){1,2}")
_PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lzma"})


def labelled(value: Any, name: str = "context") -> Iterator[tuple[str, Text]]:
    """The texts of an input, by their names; `name`: that of a single one."""
    if isinstance(value, dict):
        yield from ((str(key), as_text(item)) for key, item in value.items())
    elif isinstance(value, list):
        yield from ((f"[{place}]", as_text(item)) for place, item in enumerate(value))
    elif value is not None:
        yield name, value if isinstance(value, Text) else str(value)


def as_text(item: Any) -> Text:
    """A text as it is, other values as JSON."""
    if isinstance(item, Text):
        return item
    try:
        return json.dumps(item, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(item)


def size_of(text: Any) -> tuple[int, bool]:
    """Characters; of a large text that are not counted yet its bytes, which is the second."""
    if isinstance(text, LazyText) and text.whole and not text.source.counted:
        return text.source.end, True
    return len(text), False


def peek(value: Any, part: slice) -> str:
    """That part of the first few texts of an input, each under its name, and how many more there are."""
    count = len(value) if isinstance(value, (dict, list)) else 1
    most = _PEEK // max(1, min(count, _PEEKED))
    at_end = part.stop is None and part.start < 0
    shown = []
    for name, text in itertools.islice(labelled(value), _PEEKED):
        found = text[part]
        cut = found[-most:] if at_end else found[:most]
        shown.append(f"=== {on_a_line(name)} ===\n{cut}")
        if len(found) > most:
            shown.append(f"… {len(found) - most:,} characters left out")
    if count > _PEEKED:
        shown.append(f"… and {count - _PEEKED:,} more: peek(start, end, name) shows one")
    return "\n".join(shown)


def describe(value: Any, name: str, *, from_files: bool) -> dict[str, Any]:
    """What there is: constant in size.

    `name`: of the file, if `value` is its text. `from_files`: the keys are names of files.
    """
    texts = dict(labelled(value, name or "context"))
    sizes = {label: size_of(text) for label, text in texts.items()}
    told: dict[str, Any] = {
        "kind": type(value).__name__ if value is not None else "None",
        "total_chars": sum(size for size, _ in sizes.values()),
        "items": [[label[:_LABEL], size] for label, (size, _) in itertools.islice(sizes.items(), _ITEMS)],
        "item_count": len(texts),
        "head": str(next(iter(texts.values()), "")[:_HEAD]),
        "about": any(about for _, about in sizes.values()),
        "pictures": [
            [label[:_LABEL], text.about()]
            for label, text in itertools.islice(texts.items(), _ITEMS)
            if isinstance(text, Picture)
        ],
    }
    if len(texts) > 1:
        return told | _of_several(value, texts, from_files=from_files)
    single = value if isinstance(value, Text) and not isinstance(value, Picture) else None
    return told | {"form": _form(single, name) if single is not None else ""}


def _of_several(value: Any, texts: Mapping[str, Text], *, from_files: bool) -> dict[str, Any]:
    kinds: dict[str, list[str]] = {}
    counted: dict[str, set[str]] = {}
    items = value.values() if isinstance(value, dict) else value
    for label, item in zip(texts, items, strict=True):
        kind = kind_of(label) if from_files else type(item).__name__
        kinds.setdefault(kind, []).append(label)
        # A workbook is one, however many sheets it has.
        counted.setdefault(kind, set()).add(file_of(label) if from_files else label)
    sizes = {kind: len(these) for kind, these in counted.items()}
    often = sorted(kinds, key=lambda kind: -sizes[kind])  # as often: as they come
    shown = often if len(often) <= _KINDS + 1 else often[:_KINDS]
    counts = [[kind, sizes[kind]] for kind in shown]
    if others := sum(sizes[kind] for kind in often[len(shown) :]):
        counts.append(["others", others])
    readable = {
        kind: [label for label in kinds[kind] if not isinstance(texts[label], Picture)] for kind in often
    }
    found = _forms(texts, list(filter(None, readable.values()))) if from_files else {}
    return {
        "kinds": counts,
        "heads": _heads(texts, list(readable.values()), found),
        "forms": list(found.items()),
    }


@functools.lru_cache(maxsize=1)
def file_of(name: str) -> str:
    """The name of the file that a text is of: of a sheet the workbook's, of an attachment the mail's."""
    path = PurePosixPath(name)
    return str(next((above for above in path.parents if is_format(above.name)), path))


def kind_of(name: str) -> str:
    """The ending of a file's name, in lower case and without the number of a log that was rotated; "" if it
    has none. A part of a file, such as a sheet of a workbook, is of the file's kind.
    """
    path = PurePosixPath(_NUMBER.sub("", file_of(name).casefold()))
    ending = path.suffix
    if ending in _PACKED and _ENDING.fullmatch(before := PurePosixPath(_NUMBER.sub("", path.stem)).suffix):
        ending = before + ending
    return ending if _ENDING.fullmatch(ending) else ""


def _heads(
    texts: Mapping[str, Text], kinds: Sequence[Sequence[str]], told: Mapping[str, str]
) -> list[list[str]]:
    """The beginning of the first text of each kind that is not empty; none of those whose form is told."""
    found = []
    for labels in kinds:
        heads = ((label, str(texts[label][:_HEAD])) for label in itertools.islice(labels, _TRIED))
        first = next(((label, head) for label, head in heads if head.strip()), None)
        if first is not None and first[0] not in told:
            found.append([first[0][:_LABEL], first[1]])
    return found[:_HEADS]


def _forms(texts: Mapping[str, Text], kinds: Sequence[Sequence[str]]) -> dict[str, str]:
    """The form of the first texts of each kind that have one, each form once."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    left = _READ
    waiting = [iter(labels[:_TRIED]) for labels in kinds[: 2 * _KINDS]]
    while waiting and len(found) < _FORMS and left > 0:
        labels = waiting.pop(0)
        label = next(labels, None)
        if label is None:
            continue
        text = texts[label]
        size = size_of(text)[0]
        cost = size if isinstance(text, str) and size <= _READ else _LAZY
        if cost > left:
            continue
        left -= cost
        waiting.append(labels)
        told = _form(text, label, several=True)
        if not told:
            continue
        what = re.split(r"; (?:rows|data|for row)\b", told, maxsplit=1)[0]
        if what not in seen:
            seen.add(what)
            found[label[:_LABEL]] = told[:_FORM]
    return found


def _form(text: Text, name: str, *, several: bool = False) -> str:
    """The form of a text; "" if it cannot be told: no text is worth the whole first look."""
    try:
        return forms.form(text, name, several=several)
    except Exception:
        return ""


def whole(value: Any, limit: int, *, from_files: bool) -> list[list[str]] | None:
    """The texts of an input, by their names, if they come to no more than `limit` tokens and are few
    enough to be told to the host; else None. Pictures are passed over.
    """
    texts = value if isinstance(value, dict) and (from_files or _all_texts(value)) else {"context": value}
    if len(texts) > MAX_WHOLE_TEXTS:
        return None
    found: list[list[str]] = []
    left = float(limit)
    for name, item in texts.items():
        if isinstance(item, Picture):
            continue
        text = as_text(item)
        if not isinstance(text, str) or len(text) > left * MOST_CHARS:
            return None
        left -= tokens(text)
        found.append([str(name), str(text)])
    return found if found and left >= 0 and len(repr(found)) <= MAX_WHOLE_TOLD else None


def _all_texts(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(item, Text) for item in value.values())

"""Records out of JSON that is not one object a line: a list, a document with a list in it, values one after
the other. They are read one by one, so a large text never has to be taken apart as a whole.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_BEGIN = 100
"""Characters in which a JSON text shows itself."""
_HEAD = 2_000_000
"""Characters of a large text in which its list must begin."""
_WHOLE = 8_000_000
"""Characters of a text up to which the whole is looked at."""
_LONGEST = 64_000_000
"""Characters of one value."""
_PIECE = 1 << 18
_DEEP = 3
_SAMPLE = 20
_SPACE = re.compile("[ \t\n\r\ufeff\x1e]*")
_decode = json.JSONDecoder().raw_decode


class Found(NamedTuple):
    """`told` in words; `path`: the keys that lead to the list, None where there are values one after the
    other; `sample`: its first items.
    """

    told: str
    path: tuple[str, ...] | None
    sample: list[Any]

    def records(self, text: Any) -> Iterator[dict[str, Any]]:
        """The items of the text, those that are no objects as `item` (a number) and `value`.

        Says where a text is damaged or cut off. Raises ValueError where that is before its first item.
        """
        count = 0
        try:
            for count, item in enumerate(_items(_Reader(text), self.path), 1):
                yield _record(item, count)
        except (ValueError, RecursionError) as error:
            if not count:
                raise ValueError(f"this JSON is damaged: {error}") from None
            print(
                f"Note: records() read {count:,} items; after them the JSON is damaged or cut off ({error})."
            )


def find(text: Any) -> Found | None:
    """What of a text are records; None of one that is no JSON, or has several lists of objects.

    A text of up to eight million characters is looked at as a whole, else its beginning.
    """
    if not re.match("[\ufeff\x1e\\s]*[\\[{]", str(text[:_BEGIN])):
        return None
    head = str(text[: _HEAD + 1])
    if not (isinstance(text, str) and len(text) <= _WHOLE):
        return _beginning(head, "")
    try:
        path = _path_in(json.loads(text.lstrip("\ufeff")))
    except (ValueError, RecursionError) as error:
        return _beginning(head, str(error))
    return _found(head, path, "") if path is not None else None


def _beginning(head: str, damage: str) -> Found | None:
    """What a text that begins so seems to be."""
    with contextlib.suppress(ValueError, RecursionError):
        found = _first(_Reader(head), None, 2)
        if len(found) > 1 and all(isinstance(item, dict) for item in found):
            return _found(head, None, "")
    with contextlib.suppress(ValueError, RecursionError):
        path = _path_at(_Reader(head), 0)
        made = _found(head, path, damage) if path is not None else None
        # Prose and logs begin like a list of values, too.
        if (
            made
            and len(made.sample) > 1
            and (not damage or all(isinstance(item, dict) for item in made.sample))
        ):
            return made
    return None


def _found(head: str, path: tuple[str, ...] | None, damage: str) -> Found | None:
    try:
        sample = _first(_Reader(head), path, _SAMPLE)
    except (ValueError, RecursionError):
        return None
    if not sample:
        return None
    kind = "objects" if all(isinstance(item, dict) for item in sample) else "values"
    if path is None:
        told = "JSON objects one after the other"
    elif path:
        told = f"JSON in which {json.dumps('.'.join(path)[:100], ensure_ascii=False)} is a list of {kind}"
    else:
        told = f"a JSON list of {kind}"
    return Found(f"{told} (damaged or cut off: {damage})" if damage else told, path, sample)


def _record(item: Any, number: int) -> dict[str, Any]:
    return item if isinstance(item, dict) else {"item": number, "value": item}


def _path_in(value: Any) -> tuple[str, ...] | None:
    """The keys to the only list of objects in a value; () where it is a list itself."""
    if isinstance(value, list):
        return () if value else None
    found = list(_paths(value, 0)) if isinstance(value, dict) else []
    return found[0] if len(found) == 1 else None


def _paths(value: dict[str, Any], depth: int) -> Iterator[tuple[str, ...]]:
    for key, inner in value.items():
        if isinstance(inner, list) and any(isinstance(item, dict) for item in inner):
            yield (key,)
        elif isinstance(inner, dict) and depth < _DEEP:
            yield from ((key, *rest) for rest in _paths(inner, depth + 1))


def _path_at(reader: _Reader, depth: int) -> tuple[str, ...] | None:
    """The keys to the first list of objects that is met; () where there is a list right here."""
    if reader.peek() == "[":
        if depth:
            reader.take("[")
            return () if reader.peek() == "{" else _passed(reader)
        return ()
    for key in reader.members():
        if reader.peek() in ("[", "{") and depth <= _DEEP:
            if (rest := _path_at(reader, depth + 1)) is not None:
                return (key, *rest)
        else:
            reader.value()
    return None


def _passed(reader: _Reader) -> None:
    """The rest of a list that is none of objects."""
    for _ in reader.rest_of_list():
        pass


def _first(reader: _Reader, path: Sequence[str] | None, count: int) -> list[Any]:
    """The first items, as far as the text goes."""
    found: list[Any] = []
    try:
        for item in _items(reader, path):
            found.append(item)
            if len(found) == count:
                break
    except (ValueError, RecursionError):
        if not found:
            raise
    return found


def _items(reader: _Reader, path: Sequence[str] | None) -> Iterator[Any]:
    if path is None:
        while reader.peek():
            yield reader.value()
        return
    for wanted in path:
        reader.find(wanted)
    reader.take("[")
    yield from reader.rest_of_list()


class _Reader:
    """Takes JSON apart, value by value. All methods raise ValueError where it is none, or at its end."""

    def __init__(self, text: Any) -> None:
        self._pieces = iter((text,)) if isinstance(text, str) else text.pieces(_PIECE)
        self._have, self._at, self._ended = "", 0, False

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            self._ended = True
            return False
        self._have, self._at = self._have[self._at :] + piece, 0
        return True

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._have, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._have):
                return self._have[self._at]
            if not self._more():
                return ""

    def take(self, char: str) -> None:
        """Pass over this character."""
        if (found := self.peek()) != char:
            raise ValueError(f"{char!r} is missing before {found!r}" if found else "it ends before its time")
        self._at += 1

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._have, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    raise ValueError(error.msg) from None
            else:
                if end < len(self._have) or self._ended:
                    self._at = end
                    return value
            have = len(self._have) - self._at
            if have > _LONGEST:
                raise ValueError(f"one value has more than {_LONGEST:,} characters, or is damaged")
            wanted = 2 * have
            while len(self._have) - self._at < wanted and self._more():
                pass

    def rest_of_list(self) -> Iterator[Any]:
        """The values of a list after its bracket."""
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if self.peek() == "]":
                self.take("]")
                return
            self.take(",")

    def find(self, wanted: str) -> None:
        """Go to the value of this key of an object."""
        for key in self.members():
            if key == wanted:
                return
            self.value()
        raise ValueError(f"it has no {wanted!r}")

    def members(self) -> Iterator[str]:
        """The keys of an object, one after the other; between two of them its value must be taken."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError("a key is no text")
            self.take(":")
            yield key
            if self.peek() == "}":
                self.take("}")
                return
            self.take(",")

"""The entries of a log as records, in which no line is lost: what does not begin as an entry does, such as a
stack trace, belongs to the entry before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rlm_runtime.lines import without_end
from rlm_runtime.loglines import CONTINUED, Layout


def entries(lines: Iterable[str], layout: Layout, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """The entries: `line`, the number of its first line, its parts, and `text`, all its lines.

    Says which lines stand in the text of another entry, lack parts, or are left out as they come before the
    first entry. Raises ValueError where most lines are no entries.
    """
    entry: dict[str, Any] | None = None
    more: list[str] = []
    told = _Told(layout)
    for number, line in enumerate(map(without_end, lines), 1):
        if not line or line.isspace():
            continue
        told.count += 1
        if (found := layout.parts(line.rstrip())) is None:
            told.other(line, first=entry is None)
            more.append(line)
            continue
        if entry is not None:
            yield _with_lines(entry, more)
        more = []
        parts, whole = found
        if not whole:
            told.odd(line, parts)
        entry = {"line": number, **parts, "text": line}
    if entry is not None:
        yield _with_lines(entry, more)
    told.say(say)


def _with_lines(entry: dict[str, Any], more: list[str]) -> dict[str, Any]:
    if more:
        entry["text"] = "\n".join([entry["text"], *more])
    return entry


class _Told:
    """What is to be said of lines that are not built as the others are."""

    def __init__(self, layout: Layout) -> None:
        self._names = layout.names
        self.count = 0
        self._before, self._inside, self._strange, self._odd = 0, 0, 0, 0
        self._first: dict[str, str] = {}
        self._missing: set[str] = set()

    def other(self, line: str, *, first: bool) -> None:
        """A line that is no entry; `first`: it comes before all entries."""
        self._before += first
        self._inside += not first
        self._strange += CONTINUED.match(line) is None
        self._first.setdefault("before" if first else "inside", line[:200])

    def odd(self, line: str, parts: dict[str, str]) -> None:
        """An entry that lacks parts."""
        self._odd += 1
        self._first.setdefault("odd", line[:200])
        self._missing.update(name for name in self._names if name not in parts)

    def say(self, say: Callable[[str], None]) -> None:
        """Say it. Raises ValueError."""
        first = self._first
        if self._strange > self.count / 2:
            raise ValueError(
                f"{self._strange:,} of {self.count:,} lines have another form, such as "
                f"{first.get('before') or first.get('inside')!r}. Read them by code of your own."
            )
        if self._before:
            say(
                f"records() left out {self._before:,} lines before the first entry, such as "
                f"{first['before']!r}."
            )
        if self._inside:
            say(
                f"{self._inside:,} lines do not begin as the others, such as {first['inside']!r}. Each is "
                "in the `text` of the record before it."
            )
        if self._odd:
            missing = ", ".join(repr(name) for name in self._names if name in self._missing)
            say(
                f"{self._odd:,} lines go on in another way, such as {first['odd']!r}. Their records lack "
                f"some of {missing}; `text` has the line."
            )

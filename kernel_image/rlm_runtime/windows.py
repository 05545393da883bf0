"""Regular expressions over text that comes in pieces, and the functions of `re` for texts that are too large
for memory.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any


class Found:
    """A match of a large text: as re.Match, with places in the whole text."""

    def __init__(self, match: re.Match[str], here: int) -> None:
        self._match = match
        self._here = here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._match, name)

    def __getitem__(self, group: int | str) -> Any:
        return self._match[group]

    def start(self, group: int | str = 0) -> int:
        return self._moved(self._match.start(group))

    def end(self, group: int | str = 0) -> int:
        return self._moved(self._match.end(group))

    def span(self, group: int | str = 0) -> tuple[int, int]:
        return self.start(group), self.end(group)

    def _moved(self, place: int) -> int:
        return place + self._here if place >= 0 else place

    def __repr__(self) -> str:
        return f"<match at {self.start():,}: {self.group()[:80]!r}>"


def matches(
    pattern: re.Pattern[str], texts: Iterator[str], span: int, window: int, most: int
) -> Iterator[Found]:
    """The matches, as pattern.finditer over the texts together would give them.

    A match that has, with all that it looks at around it, no more than `span` characters is found for sure.
    One that reaches the end of what is seen is followed up to `most` characters. Raises MemoryError beyond
    that.
    """
    seen, here, at, wanted, last_empty = "", 0, 0, window + span, -1
    over = False
    while True:
        while not over and here + len(seen) - at < wanted:
            text = next(texts, None)
            over = text is None
            seen += text or ""
        limit = len(seen) + 1 if over else len(seen) - span
        wanted = window + span
        following = max(at, here + limit)
        for match in pattern.finditer(seen, at - here):
            if match.start() >= limit:
                break
            if not over and match.end() == len(seen):
                if match.end() - match.start() > most:
                    raise MemoryError(
                        f"a match of more than {most:,} characters: write a pattern that matches less"
                    )
                following, wanted = here + match.start(), 2 * (match.end() - match.start()) + window + span
                break
            if match.start() == match.end() and here + match.start() == last_empty:
                continue
            last_empty = here + match.end() if match.start() == match.end() else -1
            following = max(following, here + match.end())
            yield Found(match, here)
        if over:
            return
        at = following
        drop = min(at - here, len(seen)) - span
        if drop > 0:
            seen, here = seen[drop:], here + drop


@functools.cache
def take_regular_expressions(lazy: type) -> None:
    """Have re.search, re.match, re.finditer and re.findall take a text of that type, too: it has methods of
    their names.
    """
    for name in ("search", "match", "finditer", "findall"):
        setattr(re, name, _either(name, getattr(re, name), lazy))


def _either(name: str, plain: Callable[..., Any], lazy: type) -> Callable[..., Any]:
    @functools.wraps(plain)
    def either(pattern: Any, string: Any, flags: int = 0) -> Any:
        return (
            getattr(string, name)(pattern, flags)
            if isinstance(string, lazy)
            else plain(pattern, string, flags)
        )

    return either

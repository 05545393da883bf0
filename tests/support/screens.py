"""A terminal that is recorded: what a person sees of what was written to it."""

from __future__ import annotations

import io
from typing import Any

import pyte


class Seen(io.StringIO):
    """A stream that is a terminal of that size. `rows` is what stands there; `above`, what scrolled away."""

    encoding = "utf-8"

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        super().__init__()
        self.size = (columns, lines)
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=1)
        self._stream = pyte.Stream(self.screen)
        self.written = 0

    def write(self, text: str) -> int:
        self.written += 1
        self._stream.feed(text.replace("\r\n", "\n").replace("\n", "\r\n"))
        return super().write(text)

    def isatty(self) -> bool:
        return True

    @property
    def rows(self) -> list[str]:
        """Without empty ones at the end."""
        shown = [row.rstrip() for row in self.screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    @property
    def above(self) -> list[str]:
        history: Any = self.screen.history
        return ["".join(row[x].data for x in range(self.size[0])).rstrip() for row in history.top]

    @property
    def cursor_shown(self) -> bool:
        return not self.screen.cursor.hidden

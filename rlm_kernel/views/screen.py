"""The frame at the bottom of a terminal: a few lines that are drawn over again, below what scrolls.

What goes wrong with such frames elsewhere, and what is done about it here:

- Erasing before drawing flickers. Here each line is written over, and the rest of it erased; nothing is
  written where nothing has changed; and terminals that can are told to show all of it at once.
- A character that the terminal draws wider than we know wraps its line, and the frame moves. Here a terminal
  does not wrap while the frame is drawn, and its last column stays empty.
- When the window becomes narrower, most terminals break the lines that are there in two, so that the frame
  begins further up. Here this is reckoned with.
- A frame that is higher than the window leaves its upper lines in the scrollback each time. Here it never is.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style

from rlm_kernel.views import colours

Line = list[Segment]
_AT_ONCE, _SHOWN = "\x1b[?2026h", "\x1b[?2026l"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_LINE, _REST_OF_LINE, _REST = "\x1b[2K", "\x1b[K", "\x1b[J"
_PLAIN = str.maketrans("·…━─│→—“”", '-.#-|>-""')
"""For terminals whose encoding lacks our characters: others of the same width."""
_WORD = re.compile(r"\S+\s*|\s+")


class Screen:
    """The frame, and where it is. Not to be used by two threads at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._widths: list[int] = []
        """Of the lines that are on the terminal."""
        self._drawn = ""
        self._size = (0, 0)
        self._hidden = False
        self._colour = colours.wanted()
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    def size(self) -> tuple[int, int]:
        """Columns and rows as they are now; 80 by 24 where the terminal does not know."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns = rows = 0
        known = shutil.get_terminal_size()  # of the environment, or of stdout
        return columns or known.columns, rows or known.lines

    def draw(self, lines: Sequence[Line], above: Sequence[Line] = ()) -> None:
        """Put these lines in the place of those that are there; `above` it, where it scrolls away, others."""
        size = self.size()
        width = max(1, size[0] - 1)
        shown = [cropped(line, width) for line in lines[-max(1, size[1] - 1) :]]
        drawn = f"{_REST_OF_LINE}\r\n".join(map(self._painted, shown))
        if drawn == self._drawn and size == self._size and not above:
            return
        told = "".join(f"{row}{_REST_OF_LINE}\r\n" for row in self._rows_of(above, size[0]))
        begin = self._blank(size[0]) if told or size != self._size else self._top(size[0])
        self._write(f"{_AT_ONCE}{_HIDE}{begin}{told}{_NO_WRAP}{drawn}{_REST_OF_LINE}{_REST}{_WRAP}{_SHOWN}")
        self._widths = [Segment.get_line_length(line) for line in shown]
        self._drawn, self._size, self._hidden = drawn, size, True

    def tell(self, lines: Sequence[Line]) -> None:
        """Write lines that stay at the cursor, where there is no frame."""
        if lines:
            self._write("".join(f"{row}\r\n" for row in self._rows_of(lines, self.size()[0])))

    def _rows_of(self, lines: Sequence[Line], columns: int) -> Iterator[str]:
        return (self._painted(row) for line in lines for row in by_words(line, columns))

    def clear(self) -> None:
        """Take the frame away; the cursor is shown, where it began."""
        if self._widths:
            self._write(self._blank(self.size()[0]))
        if self._hidden:
            self._write(_SHOW)
        self._hidden = False
        self.forget()

    def forget(self) -> None:
        """Something else was written since: what is drawn next begins at the cursor."""
        self._widths, self._drawn = [], ""

    def _rows(self, columns: int) -> int:
        return sum(-(-max(1, width) // columns) if _reflows() else 1 for width in self._widths)

    def _top(self, columns: int) -> str:
        """To the beginning of the frame."""
        rows = self._rows(columns)
        return f"\r\x1b[{rows - 1}A" if rows > 1 else "\r"

    def _blank(self, columns: int) -> str:
        """Erase the frame, and go to its beginning.

        Row by row: tmux takes the erasing of all of a screen for what is to go to its scrollback.
        """
        top, rows = self._top(columns), self._rows(columns)
        return top + "\x1b[B".join([_LINE] * max(1, rows)) + top

    def _painted(self, line: Line) -> str:
        return "".join(self._colourful(segment.text, segment.style) for segment in line)

    def _colourful(self, text: str, style: Style | None) -> str:
        if not self._encoding.lower().startswith("utf"):
            text = text.translate(_PLAIN).encode(self._encoding, "replace").decode(self._encoding)
        if style is None:
            return text
        kept = style if self._colour else style.without_color
        return kept.render(text, color_system=ColorSystem.STANDARD)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def cropped(line: Line, width: int) -> Line:
    """With an ellipsis where it is wider than so many cells."""
    if Segment.get_line_length(line) <= width:
        return line
    kept = Segment.adjust_line_length(line, max(0, width - 1), pad=False)
    return [*kept, Segment("…", kept[-1].style if kept else None)]


def by_words(line: Line, width: int) -> Iterator[Line]:
    """The line in rows of so many cells at most, broken between words: terminals break within them."""
    if Segment.get_line_length(line) <= width or len(line) != 1:
        yield line
        return
    text, style = line[0].text, line[0].style
    row, cells = "", 0
    for word in _WORD.findall(text):
        if row and cells + cell_len(word.rstrip()) > width:
            yield [Segment(row.rstrip(), style)]
            row, cells = "", 0
        row, cells = row + word, cells + cell_len(word)
    yield [Segment(row, style)]


def _reflows() -> bool:
    """Whether lines that are there are broken anew when the window becomes narrower: not by xterm, GNU
    screen and the console of Linux, which cut them off.
    """
    term = os.environ.get("TERM", "")
    return not (
        "XTERM_VERSION" in os.environ
        or term.startswith("linux")
        or (term.startswith("screen") and "TMUX" not in os.environ)
    )

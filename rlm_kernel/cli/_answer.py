"""How an answer is printed, by every command alike: as Markdown in a terminal, in a pipe as it is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rich.segment import Segment

    from rlm_kernel.engine.protocols import Evidence

_PASSAGES, _NARROW = 30, 40
"""Passages of evidence that are shown, and columns that they have at least."""
_CHARACTERS = 20_000
_LINES = 1_000
"""Of an answer that is rendered: the slowest of this size take a second or two, longer ones many."""


def show_answer(answer: str) -> None:
    """Print it to stdout, flushed. In a terminal it does nothing but show what it says: no codes for the
    terminal, no links, no markup but Markdown's. A very long answer is printed as text there, too.
    """
    terminal = sys.stdout.isatty()
    if terminal and sys.stderr.isatty():  # below the lines of the turns, which are of another kind
        print()
    if terminal and len(answer) <= _CHARACTERS and answer.count("\n") <= _LINES:
        _render(answer)
    else:
        print(printable(answer) if terminal else answer)
    sys.stdout.flush()


def show_evidence(evidence: Sequence[Evidence]) -> None:
    """Print the passages that an answer stands on to stderr, a line each: stdout is for the answer alone."""
    from rlm_kernel.engine.protocols import listed

    width = max(_NARROW, shutil.get_terminal_size().columns)
    for line in listed(evidence[:_PASSAGES], width):
        print(printable(line), file=sys.stderr)
    if len(evidence) > _PASSAGES:
        print(f"… and {len(evidence) - _PASSAGES:,} more passages in the trace", file=sys.stderr)


def _render(answer: str) -> None:
    from pygments.token import string_to_tokentype
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.segment import Segment, Segments
    from rich.syntax import ANSISyntaxTheme
    from rich.theme import Theme

    from rlm_kernel.views.colours import MARKDOWN, PYTHON

    console = Console(theme=Theme(MARKDOWN), color_system="standard", markup=False, emoji=False)
    code = ANSISyntaxTheme({string_to_tokentype(kind): style for kind, style in PYTHON.items()})
    document = Markdown(printable(answer), code_theme=code, hyperlinks=False)  # type: ignore[arg-type]
    # Made safe behind the renderer, too: &#8238; in Markdown is a character that turns the text around.
    safe = [Segment(printable(segment.text), segment.style) for segment in console.render(document)]
    # Without what fills each line to its end: a window that is made narrower would show it as empty lines.
    lines = [[*_without_end(line), Segment.line()] for line in Segment.split_lines(safe)]
    console.print(Segments([segment for line in lines for segment in line]), end="")


def _without_end(line: list[Segment]) -> list[Segment]:
    """A line without the spaces at its end, but those of a ground of another colour."""
    while line and not (line[-1].style and line[-1].style.bgcolor):
        last = line.pop()
        if text := last.text.rstrip(" "):
            return [*line, last._replace(text=text)]
    return line

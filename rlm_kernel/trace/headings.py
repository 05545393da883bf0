"""Markdown of models inside a notebook's own: its headings go below those of the notebook, and what it has
left open ends with it.

Read line by line, by the rules of CommonMark that matter here: fences of code, headings with `#`, and
headings that are underlined.
"""

from __future__ import annotations

import re

_PREFIX = r"(?:[ ]{0,3}+(?:>|[-*+][ \t]|\d{1,9}[.)][ \t]))*+[ ]{0,3}+"
"""Of quotes and items of lists, in which headings and fences may stand."""
_HEADING = re.compile(rf"({_PREFIX})(#{{1,6}})(?=[ \t]|$)")
FENCE = re.compile(rf"{_PREFIX}(`{{3,}}+(?=[^`]*$)|~{{3,}}+)")
_UNDERLINE = re.compile(r"[ ]{0,3}(=+|-+)[ \t]*$")
_PARAGRAPH = re.compile(r"[ ]{0,3}(?![-*+>|#=~`\s]|\d{1,9}[.)][ \t])\S")
"""A line of plain text: what may be underlined."""
_LOWEST = 6


def below(text: str, by: int = 2) -> str:
    """The text with each of its headings `by` levels lower (`# X` becomes `### X`), but for code; a fence
    that it leaves open is closed.
    """
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        if fence:
            fence = "" if closes(line, fence) else fence
            lines.append(line)
        elif opened := FENCE.match(line):
            fence = opened[1]
            lines.append(line)
        else:
            _put(lines, line, by)
    return "\n".join([*lines, fence] if fence else lines)


def _put(lines: list[str], line: str, by: int) -> None:
    """Add a line that is not code."""
    if heading := _HEADING.match(line):
        marks = "#" * min(_LOWEST, len(heading[2]) + by)
        lines.append(f"{heading[1]}{marks}{line[heading.end() :]}")
    elif (under := _UNDERLINE.match(line)) and lines and _PARAGRAPH.match(lines[-1]):
        if len(lines) > 1 and _PARAGRAPH.match(lines[-2]):
            # The whole paragraph would be the heading: that stays a paragraph.
            lines += ["", "---"]
        else:
            level = min(_LOWEST, (1 if under[1][0] == "=" else 2) + by)
            lines[-1] = f"{'#' * level} {lines[-1].strip()}"
    else:
        lines.append(line)


def closes(line: str, fence: str) -> bool:
    """Whether a line ends the code that this fence began."""
    marks = line.lstrip("> \t").rstrip()
    return len(marks) >= len(fence) and not marks.strip(fence[0])

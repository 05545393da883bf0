"""What the kernel remarked while it loaded the input: what was left out of a folder, which encoding was
guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MARK = "Note: "
"""Begins each such line of a set-up cell's stderr."""
_SHOWN = 10
_LINE = 300
"""Characters of a line: names of files may have any length."""


def notes(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines for the user, not yet made safe for a terminal: the first ten, and how many more there
    are.
    """
    stderr = "".join(str(output.get("text", "")) for output in outputs if output.get("name") == "stderr")
    found = list(dict.fromkeys(line for line in stderr.split("\n") if line.startswith(MARK)))
    for line in found[:_SHOWN]:
        yield line if len(line) <= _LINE else f"{line[:_LINE]}…"
    if len(found) > _SHOWN:
        yield f"… and {len(found) - _SHOWN:,} more notes; all are in the trace."

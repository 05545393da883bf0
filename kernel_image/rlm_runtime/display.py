"""Caps on what a cell prints and displays, at the source.

The host caps again what it receives; here the cap keeps the beginning and the end of long output, which the host could not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

STREAM_HEAD = 500_000
"""Characters of a cell's stdout (and of its stderr) that pass as they come."""
STREAM_TAIL = 20_000
"""Characters kept from the end of longer output, shown when the cell ends."""
TEXT_CAP = 200_000
"""Characters of one displayed text representation."""
PICTURE_CAP = 8_000_000
"""Characters (base64) of one displayed picture."""
DISPLAY_CAP = 200
"""Displays of one cell."""


class CappedStream:
    """Wraps the `write` of a stream object in place: the head passes, then only the tail is kept."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._write: Callable[[str], int | None] = stream.write
        self._passed = 0
        self._dropped = 0
        self._tail = ""
        stream.write = self.write

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        room = STREAM_HEAD - self._passed
        if room > 0:
            self._write(text[:room])
            self._passed += min(len(text), room)
        rest = text[max(room, 0) :]
        if rest:
            self._tail += rest[-STREAM_TAIL:]
            self._dropped += len(rest)
            if len(self._tail) > 2 * STREAM_TAIL:
                self._tail = self._tail[-STREAM_TAIL:]
        return len(text)

    def cell_started(self) -> None:
        self._passed, self._dropped, self._tail = 0, 0, ""

    def cell_ended(self) -> None:
        if self._dropped:
            tail = self._tail[-STREAM_TAIL:]
            self._write(f"\n… {self._dropped - len(tail):,} characters of output left out …\n{tail}")
        self.cell_started()


def cap_text(text: str, limit: int = TEXT_CAP) -> str:
    """The text, or its beginning and end with a notice between."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


class CappedDisplay:
    """Wraps the shell's formatter: every display() and every last expression passes here."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._format = shell.display_formatter.format
        self._count = 0
        shell.display_formatter.format = self.format
        plain = shell.display_formatter.formatters["text/plain"]
        plain.for_type(str, _short_repr)
        plain.for_type(bytes, _short_repr)

    def format(self, obj: Any, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._count += 1
        if self._count > DISPLAY_CAP:
            if self._count == DISPLAY_CAP + 1:
                return {"text/plain": f"… more than {DISPLAY_CAP} displays in one cell: the rest is left out"}, {}
            return {}, {}
        data, metadata = self._format(obj, *args, **kwargs)
        capped = {kind: _cap_representation(kind, value) for kind, value in data.items()}
        return {kind: value for kind, value in capped.items() if value is not None}, metadata

    def cell_started(self) -> None:
        self._count = 0


def _short_repr(value: str | bytes, printer: Any, _cycle: bool) -> None:
    # repr() of a context of gigabytes would need as much memory again.
    if len(value) <= TEXT_CAP:
        printer.text(repr(value))
        return
    half = TEXT_CAP // 2
    printer.text(f"{value[:half]!r} … {len(value) - 2 * half:,} more … {value[-half:]!r}")


def _cap_representation(kind: str, value: Any) -> Any:
    """The value, shortened if it is text; None for a picture over the cap, whose text/plain then stands alone."""
    if not isinstance(value, str):
        return value
    if kind.startswith("text/"):
        return cap_text(value)
    return value if len(value) <= PICTURE_CAP else None


def install(shell: InteractiveShell) -> None:
    """Cap the shell's streams and displays from now on."""
    streams = [CappedStream(sys.stdout), CappedStream(sys.stderr)]
    displays = CappedDisplay(shell)

    def before(*_: Any) -> None:
        displays.cell_started()
        for stream in streams:
            stream.cell_started()

    def after(*_: Any) -> None:
        for stream in streams:
            stream.cell_ended()

    shell.events.register("pre_run_cell", before)
    shell.events.register("post_run_cell", after)

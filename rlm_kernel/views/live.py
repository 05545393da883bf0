"""The live view of a run on stderr: drawn in a terminal (`views.terminal`), plain lines elsewhere
(`views.lines`), both of one state (`views.state`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rlm_kernel import system
from rlm_kernel.printable import printable
from rlm_kernel.views.lines import Lines
from rlm_kernel.views.state import Branch, Told

if TYPE_CHECKING:
    from rlm_kernel.views.terminal import TerminalView


class LiveView(Branch):
    """A listener (`engine.events`) that shows a run to a person at work.

    A context manager, which may be entered again: it then counts anew. `quiet` shows nothing. `lines`: off a
    terminal, a line for each turn and cell, and not only signs of life. `stream`: stderr by default. `label`:
    what stands before each such line.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        lines: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        label: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__(self._show, clock=clock)
        stream = stream or sys.stderr
        self._view: TerminalView | Lines | None = None
        if not quiet and can_draw(stream):
            from rlm_kernel.views.terminal import TerminalView  # rich, which pipes do not need

            self._view = TerminalView(self, stream)
        elif not quiet:
            self._view = Lines(self, stream, lines=lines, label=label)

    def __enter__(self) -> LiveView:
        self.begin()
        if self._view is not None:
            self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.stop()

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """The terminal is for something else meanwhile."""
        return self._view.paused() if self._view is not None else contextlib.nullcontext()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """The terminal is for the answer: all turns have been told."""
        self.turn_over()
        with self.paused():
            yield

    def say(self, text: str) -> None:
        """Something about the set-up; a whole sentence is told.

        Off a terminal, what only counts on ("loading… 2 s") is said once.
        """
        if text.endswith("."):
            self.tell(text)
            return
        what = printable(text)
        going_on = what.split("…")[0] == self.doing.split("…")[0]
        self.do(what, since=self.since if going_on else None)
        if self._view is not None:
            self._view.say(text)

    def tell(self, text: str) -> None:
        """Something that the user should know, on stderr; in a terminal above the frame."""
        if self._view is not None:
            self._view.tell(text)

    def above(self, text: str) -> None:
        """Print to stdout; in a terminal above the frame."""
        with self.answering():
            print(text, flush=True)

    def _show(self, told: Told) -> None:
        if told.kind == "known":
            self.tell(told.text)
        elif self._view is not None:
            self._view.told(told)


def can_draw(stream: TextIO) -> bool:
    """Whether the stream is a terminal that moves its cursor, and a person is there to see it."""
    if not system.is_attended(stream) or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    if sys.platform != "win32":
        return True
    from rich.console import Console

    return not Console(file=stream).legacy_windows

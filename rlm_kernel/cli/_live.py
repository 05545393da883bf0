"""The live view of a run on stderr: one line that changes in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TextIO

from rlm_kernel.cli._branch import Branch
from rlm_kernel.cli._notes import notes
from rlm_kernel.cli._text import printable
from rlm_kernel.engine.protocols import CellResult, Memory

_TREE = 12
"""Lines of child RLMs at most."""


class LiveView(Branch):
    """Hears a run's events (`engine.protocols.Trace`) and shows turn, what runs, calls, tokens, money and seconds, and the tree of child
    RLMs at work.

    A context manager, which may be entered again: it then counts anew. `quiet` shows nothing. In a terminal the lines are redrawn four
    times a second by a thread of rich's. `lines`: off a terminal, a line for each turn and cell.
    """

    def __init__(self, *, quiet: bool = False, lines: bool = True, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lines = lines and not quiet
        self._terminal = not quiet and self._stream.isatty()
        self._live: Any = None
        self._said = ""
        super().__init__(self._print_line)

    def __enter__(self) -> LiveView:
        self.begin()
        self._said = ""
        if self._terminal:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False)
            self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The terminal is for something else meanwhile."""
        live = self._live
        if live is not None:
            live.stop()
        try:
            yield
        finally:
            if live is not None:
                live.start()

    def say(self, text: str) -> None:
        """Something about the set-up; a whole sentence is told. Off a terminal, what only counts on ("loading… 2 s") is said once."""
        if text.endswith("."):
            self.tell(text)
        elif self._terminal:
            self.what = printable(text)
        elif text.split("…")[0] != self._said:
            self._said = text.split("…")[0]
            self._print_line(text, wanted=not self._quiet)

    def tell(self, text: str) -> None:
        """Something that the user should know, on stderr; in a terminal above the live line."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(printable(text), markup=False, highlight=False, soft_wrap=True, style="dim")
        else:
            print(printable(text), file=self._stream, flush=True)

    def above(self, text: str) -> None:
        """Print to stdout; in a terminal above the live line."""
        with self.paused():  # not by rich, which would take minutes over a long answer
            print(text, flush=True)

    def cell_finished(self, turn: int, result: CellResult) -> None:
        super().cell_finished(turn, result)
        if turn == 0:
            self._tell_notes(result)

    def person_ran(self, result: CellResult) -> None:
        super().person_ran(result)
        if result.cell_id.startswith("load-"):  # files that are loaded into a session
            self._tell_notes(result)

    def _tell_notes(self, result: CellResult) -> None:
        for line in notes(result.outputs):
            self.tell(line)

    def remembered(self, memory: Memory) -> None:
        super().remembered(memory)
        self.tell(f"memory: {'about ' if memory.estimated else ''}{memory.before:,} → {memory.after:,} tokens")

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        lines = [self.status(), *self._tree(self, "  ")]
        more = [f"  … and {len(lines) - 1 - _TREE:,} more"] if len(lines) - 1 > _TREE else []
        shown = [*lines[: _TREE + 1], *more]
        return Group(*(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in shown))

    def _tree(self, branch: Branch, indent: str) -> Iterator[str]:
        # A copy: children come and go while rich's thread draws.
        for child in list(branch.children.values()):
            yield f"{indent}{child.name} {child.status()}"
            yield from self._tree(child, indent + "  ")

    def _print_line(self, text: str, *, wanted: bool | None = None) -> None:
        if (self._lines if wanted is None else wanted) and not self._terminal:
            print(printable(text), file=self._stream, flush=True)

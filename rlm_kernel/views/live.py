"""The live view of a run on stderr: one line that changes in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO

from rlm_kernel.engine.events import (
    CallRetried,
    CellFinished,
    Event,
    RunFinished,
    Summarized,
    TurnCutOff,
    TurnPiece,
    TurnReplied,
    TurnStarted,
    UserCellFinished,
)
from rlm_kernel.engine.protocols import CellResult, Outcome, Totals
from rlm_kernel.printable import printable
from rlm_kernel.views.branch import Branch
from rlm_kernel.views.notes import notes

_TREE = 12
"""Lines of child RLMs at most."""
SIGN_SECONDS = 30.0
"""Off a terminal: time without a line after which there is a sign of life."""
WAIT_SECONDS = 10.0
"""Off a terminal: time between two lines of calls that wait for another attempt."""
_WORDS = 300
"""Characters of the reply that is coming that are kept to be shown."""
_BEAT = 0.5
"""Seconds between two looks at whether there is anything to say."""


class LiveView(Branch):
    """A listener (`engine.events`) that shows turn, what runs and for how long, the run's account, how far
    its calls are, which wait for another attempt, and the tree of child RLMs at work.

    A context manager, which may be entered again: it then counts anew. `quiet` shows nothing. In a terminal
    the lines are redrawn four times a second by a thread of rich's. `lines`: off a terminal, a line for each
    turn and cell; there a thread gives signs of life.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        lines: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lines = lines and not quiet
        self._terminal = not quiet and self._stream.isatty()
        self._live: Any = None
        self._said = ""
        self._words = ""
        """The last of what the root model has said of the reply that is coming."""
        self._printed = self._told_of_waiting = clock()
        self._over = threading.Event()
        self.ended: tuple[Outcome, Totals] | None = None
        """What became of the question, and what it took; None as long as it is not answered or given up."""
        self._life: threading.Thread | None = None
        super().__init__(self._print_line, clock=clock)

    def __enter__(self) -> LiveView:
        self.begin()
        self._said, self.ended, self._printed = "", None, self._clock()
        if self._terminal:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False)
            self._live = Live(
                get_renderable=self._render,
                console=console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )
            self._live.start()
        elif not self._quiet:
            self._over.clear()
            self._life = threading.Thread(target=self._live_on, name="signs-of-life", daemon=True)
            self._life.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._life is not None:
            self._over.set()
            self._life.join()
            self._life = None

    def _live_on(self) -> None:
        with contextlib.suppress(
            OSError, ValueError
        ):  # nobody reads any more: the next event meets that, too
            while not self._over.wait(_BEAT):
                self.beat()

    def beat(self) -> None:
        """Off a terminal: say now and then which calls wait for another attempt, and after a long silence
        what goes on.
        """
        now = self._clock()
        if now - self._told_of_waiting >= WAIT_SECONDS and (line := self._waiting.line()):
            self._told_of_waiting = now
            self._print_line(line, wanted=True)
        elif now - self._printed >= SIGN_SECONDS:
            self._print_line(" · ".join([self.status(), *self.details()]), wanted=True)

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
        """Something about the set-up; a whole sentence is told.

        Off a terminal, what only counts on ("loading… 2 s") is said once.
        """
        if text.endswith("."):
            self.tell(text)
            return
        self._go_on(printable(text))
        if text.split("…")[0] != self._said:
            self._said = text.split("…")[0]
            self._print_line(text, wanted=not self._quiet)

    def _go_on(self, what: str) -> None:
        """What is waited for; of what only counts on, since when is kept."""
        since = self._since if what.split("…")[0] == self._what.split("…")[0] else self._clock()
        self._what, self._since = what, since

    def tell(self, text: str) -> None:
        """Something that the user should know, on stderr; in a terminal above the live line."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(
                printable(text), markup=False, highlight=False, soft_wrap=True, style="dim"
            )
        else:
            self._print(text)

    def above(self, text: str) -> None:
        """Print to stdout; in a terminal above the live line."""
        with self.paused():  # not by rich, which would take minutes over a long answer
            print(text, flush=True)

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        match event:
            case TurnPiece(text=text):
                self._words = f"{self._words}{text}"[-_WORDS:]
            case TurnStarted() | TurnReplied() | TurnCutOff() | CallRetried(call_id=""):
                self._words = ""
            case CellFinished(0, result):
                self._tell_notes(result)
            case UserCellFinished(result) if result.cell_id.startswith(
                "load-"
            ):  # files that are loaded into a session
                self._tell_notes(result)
            case Summarized(memory):
                self.tell(
                    f"memory: {'about ' if memory.estimated else ''}{memory.before:,} → {memory.after:,} "
                    "tokens"
                )
            case RunFinished(outcome, totals):
                self.ended = (outcome, totals)

    def _tell_notes(self, result: CellResult) -> None:
        for line in notes(result.outputs):
            self.tell(line)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        tree = list(self._tree(self, "  "))
        more = [f"  … and {len(tree) - _TREE:,} more"] if len(tree) > _TREE else []
        own = [Text(line, style="dim") for line in (self.status(), *self.details())]
        return Group(
            *own,
            *self._coming(),
            *(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in [*tree[:_TREE], *more]),
        )

    def _coming(self) -> list[Any]:
        """The last line of what the root model says, as it comes."""
        from rich.text import Text

        line = next((line for line in reversed(self._words.splitlines()) if line.strip()), "")
        room = self._live.console.width - 4 if self._live is not None else _WORDS
        shown = f"  {' '.join(printable(line).split())[-max(1, room) :]}"
        return [Text(shown, style="dim italic", overflow="ellipsis", no_wrap=True)] if line else []

    def _tree(self, branch: Branch, indent: str) -> Iterator[str]:
        # A copy: children come and go while rich's thread draws.
        for child in list(branch.children.values()):
            yield f"{indent}{child.name} {child.status()}"
            yield from self._tree(child, indent + "  ")

    def _print_line(self, text: str, *, wanted: bool | None = None) -> None:
        """Off a terminal alone."""
        if (self._lines if wanted is None else wanted) and not self._terminal:
            self._print(text)

    def _print(self, text: str) -> None:
        self._printed = self._clock()
        print(printable(text), file=self._stream, flush=True)

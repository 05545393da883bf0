"""The live view of a batch of questions on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rlm_kernel.engine.totals import counted
from rlm_kernel.printable import printable
from rlm_kernel.views.calls import Progress
from rlm_kernel.views.lines import Lines
from rlm_kernel.views.live import can_draw
from rlm_kernel.views.state import Branch

if TYPE_CHECKING:
    from rlm_kernel.views.screen import Line
    from rlm_kernel.views.terminal import TerminalView

LINE_SECONDS = 10.0
"""Between two lines in a pipe at least."""
_LIKE = 2
"""Questions that must be done before anything is said of their pace."""
_SECONDS = 1.0
_SENTENCES = 200
"""Different ones that are told."""
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True)
class Counts:
    """How far a batch is.

    `total`: about how many questions there are, None where nobody knows; `done` of them, by this run `asked`;
    `failed`: without an answer. `spent` in US dollars, by those that are done in this run; `going`, `turns`
    and `calls`: what those that run have used so far.
    """

    total: int | None = None
    done: int = 0
    asked: int = 0
    failed: int = 0
    running: int = 0
    spent: float = 0.0
    going: float = 0.0
    turns: int = 0
    calls: int = 0


class BatchView(Branch):
    """Shows a batch to a person at work. A context manager. `quiet` shows nothing."""

    def __init__(
        self,
        counts: Callable[[], Counts],
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts = counts
        super().__init__(clock=clock)
        self._told_at = clock()
        self._said: set[str] = set()
        self._began: float | None = None
        stream = stream or sys.stderr
        self._view: TerminalView | Lines | None = None
        if not quiet and can_draw(stream):
            from rlm_kernel.views.terminal import TerminalView

            self._view = TerminalView(self, stream, _Frame(self))
        elif not quiet:
            self._view = Lines(self, stream, lines=False)

    def __enter__(self) -> BatchView:
        if self._view is not None:
            self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.stop()

    def tell(self, text: str) -> None:
        """Something that the user should know, on a line of its own."""
        if self._view is not None:
            self._view.tell(text)

    def say(self, text: str) -> None:
        """Something about the set-up; a whole sentence is told, once however many questions meet it."""
        if text.endswith("."):
            form = _NUMBERS.sub("", text)
            if form not in self._said and len(self._said) < _SENTENCES:
                self._said.add(form)
                self.tell(text)
        else:
            self.do(printable(text))
            if self._view is not None:
                self._view.say(text)

    def heard(self) -> None:
        """Something has changed."""
        self.changes += 1
        self.progress()
        if isinstance(self._view, Lines) and self.clock() - self._told_at >= LINE_SECONDS:
            self._told_at = self.clock()
            self._view.tell(self.status())

    def status(self) -> str:
        """How far it is, on one line."""
        now, progress = self._counts(), self.progress()
        of = f" of {now.total:,}" if progress is not None else ""
        spent = now.spent + now.going
        money = progress.money if progress else f"${spent:,.4f}" if spent else ""
        told = (
            f"{now.done:,}{of} done",
            f"{now.failed:,} failed" if now.failed else "",
            f"{now.running:,} running" if now.running else "",
            progress.speed if progress else "",
            money,
            progress.time_left if progress else "",
        )
        return " · ".join(filter(None, told))

    def details(self) -> list[str]:
        """As a sign of life has it."""
        return [] if self._counts().done else [self.doing]

    def progress(self) -> Progress | None:
        """None where nobody knows how many questions there are."""
        now = self._counts()
        if now.total is None:
            return None
        if self._began is None and (now.running or now.asked):
            self._began = self.clock()  # what was set up before tells nothing of the pace
        total = max(now.total, now.done + now.running)
        seconds = 0.0 if self._began is None else self.clock() - self._began
        pace = now.asked / seconds if now.asked >= _LIKE and seconds >= _SECONDS else None
        left = total - now.done
        spent = now.spent + now.going
        cost = now.spent * (1 + left / now.asked) if now.spent and now.asked >= _LIKE else None
        cost = None if cost is None else max(cost, spent)
        return Progress(total, now.done, now.failed, pace, left / pace if pace else None, spent, cost)

    @property
    def running(self) -> str:
        """How many questions are being answered, and what they took so far."""
        now = self._counts()
        if not now.running:
            return self.doing
        used = f": {counted(now.turns, 'turn')}, {counted(now.calls, 'call')} so far"
        return f"{counted(now.running, 'question')} running{used if now.turns or now.calls else ''}"


class _Frame:
    """The bar, and what is being done."""

    def __init__(self, view: BatchView) -> None:
        self._view = view

    def lines(self, columns: int, rows: int) -> list[Line]:
        from rich.segment import Segment

        from rlm_kernel.views.frame import bar

        progress = self._view.progress()
        if progress is None or not progress.total:
            return [[Segment(printable(self._view.status()))]]
        return [*bar(progress, max(10, columns - 1)), [Segment(f"  {printable(self._view.running)}")]]

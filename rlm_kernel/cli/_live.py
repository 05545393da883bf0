"""The live view of a run on stderr: one line that changes in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from rlm_kernel.cli._text import printable
from rlm_kernel.engine.protocols import CallKind, CallRecord, CellResult, Completion, Memory, Outcome, Totals, Usage


class LiveView:
    """Hears a run's events (`engine.protocols.Trace`) and shows turn, what runs, calls, tokens, money and seconds.

    A context manager, which may be entered again: it then counts anew. `quiet` shows nothing. In a terminal the line is redrawn four times
    a second by a thread of rich's. `lines`: off a terminal, a line for each turn and cell.
    """

    def __init__(self, *, quiet: bool = False, lines: bool = True, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lines = lines and not quiet
        self._terminal = not quiet and self._stream.isatty()
        self._live: Any = None
        self._begin()

    def _begin(self) -> None:
        self._started = time.monotonic()
        self._turn = 0
        self._what = "starting"
        self._said = ""
        self._asked = 0
        self._done = 0
        self._failed = 0
        self._usage = Usage()
        self._cost: float | None = 0.0

    def __enter__(self) -> LiveView:
        self._begin()
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
        """Something about the set-up. Off a terminal, what only counts on ("loading… 2 s") is said once."""
        if self._terminal:
            self._what = printable(text)
        elif text.split("…")[0] != self._said:
            self._said = text.split("…")[0]
            self._line(text, wanted=not self._quiet)

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
        if self._live is not None and sys.stdout.isatty():
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def turn_started(self, turn: int) -> None:
        self._turn = turn
        self._what = "root model thinks"

    def turn_replied(self, turn: int, reply: Completion, prose: str) -> None:
        self._count(reply.usage, reply.cost)
        self._line(f"turn {turn}: root model replied in {reply.seconds:.1f} s ({self._account()})")

    def cell_started(self, cell_id: str, turn: int, code: str) -> None:
        self._what = f"cell {cell_id} runs"

    def cell_output(self, cell_id: str, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Outputs are in the trace."""

    def call_started(self, cell_id: str, call_id: str, kind: CallKind) -> None:
        self._asked += 1

    def call_finished(self, cell_id: str, call: CallRecord) -> None:
        if call.kind == "llm_query":
            self._done += 1
            self._failed += call.error is not None
            if call.error is None:
                self._count(call.usage, call.cost)

    def cell_finished(self, turn: int, result: CellResult) -> None:
        self._line(f"cell {result.cell_id}: {result.status} in {result.seconds:.1f} s ({self._account()})")

    def person_ran(self, result: CellResult) -> None:
        self._line(f"a person ran a cell: {result.status} in {result.seconds:.1f} s")

    def remembered(self, memory: Memory) -> None:
        self._count(memory.reply.usage, memory.reply.cost)
        self.tell(f"memory: {'about ' if memory.estimated else ''}{memory.before:,} → {memory.after:,} tokens")

    def note(self, text: str) -> None:
        self._line(f"note: {text}")

    def finished(self, outcome: Outcome, totals: Totals) -> None:
        self._what = "closing"

    def _count(self, usage: Usage, cost: float | None) -> None:
        self._usage += usage
        self._cost = None if cost is None or self._cost is None else self._cost + cost

    def _account(self) -> str:
        cost = "cost unknown" if self._cost is None else f"${self._cost:.4f}"
        failed = f", {self._failed:,} failed" if self._failed else ""
        return f"{self._done:,} of {self._asked:,} calls{failed}, {self._usage.total:,} tokens, {cost}"

    def _render(self) -> Any:
        from rich.text import Text

        seconds = time.monotonic() - self._started
        return Text(
            f"turn {self._turn} · {self._what} · {self._account()} · {seconds:.0f} s", style="dim", overflow="ellipsis", no_wrap=True
        )

    def _line(self, text: str, *, wanted: bool | None = None) -> None:
        if (self._lines if wanted is None else wanted) and not self._terminal:
            print(printable(text), file=self._stream, flush=True)

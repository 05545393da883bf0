"""Plain lines of a run, for pipes, CI and terminals that can move no cursor: a line for each turn and cell,
and signs of life.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from rlm_kernel.printable import printable
from rlm_kernel.views.state import Branch, Told

SIGN_SECONDS = 30.0
"""Time without a line after which there is a sign of life."""
WAIT_SECONDS = 10.0
"""Time between two lines of calls that wait for another attempt."""
_BEAT = 0.5
"""Seconds between two looks at whether there is anything to say."""
_TOLD = ("reply", "cell", "error", "batch", "child", "retry", "person", "note")


class Lines:
    """Prints what a branch tells. `lines`: for each turn and cell, too, and not only signs of life."""

    def __init__(
        self, branch: Branch, stream: TextIO, *, lines: bool, label: Callable[[], str] = lambda: ""
    ) -> None:
        """`label` stands before each line: runs beside one another tell by it whose line it is."""
        self._branch = branch
        self._stream = stream
        self._lines = lines
        self._label = label
        self._said = ""
        self._printed = self._told_of_waiting = branch.clock()
        self._over = threading.Event()
        self._life: threading.Thread | None = None

    def start(self) -> None:
        self._said, self._printed = "", self._branch.clock()
        self._over.clear()
        self._life = threading.Thread(target=self._live_on, name="signs-of-life", daemon=True)
        self._life.start()

    def stop(self) -> None:
        if self._life is not None:
            self._over.set()
            self._life.join()
            self._life = None

    def _live_on(self) -> None:
        # Where nobody reads any more, the next event meets that, too.
        with contextlib.suppress(OSError, ValueError):
            while not self._over.wait(_BEAT):
                self.beat()

    def beat(self) -> None:
        """Say now and then which calls wait for another attempt, and after a long silence what goes on."""
        now = self._branch.clock()
        if now - self._told_of_waiting >= WAIT_SECONDS and (line := self._branch.waiting.line()):
            self._told_of_waiting = now
            self.tell(line)
        elif now - self._printed >= SIGN_SECONDS:
            self.tell(" · ".join([self._branch.status(), *self._branch.details()]))

    def told(self, told: Told) -> None:
        if told.kind == "known" or (self._lines and told.kind in _TOLD):
            self.tell(told.text)

    def say(self, text: str) -> None:
        """Something about the set-up: what only counts on ("loading… 2 s") is said once."""
        if text.split("…")[0] != self._said:
            self._said = text.split("…")[0]
            self.tell(text)

    def tell(self, text: str) -> None:
        self._printed = self._branch.clock()
        print(f"{self._label()}{printable(text)}", file=self._stream, flush=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        yield

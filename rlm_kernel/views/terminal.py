"""The terminal's view of a run: a frame that a thread draws, with lines above it that stay.

A thread of its own draws, so that a terminal that does not take what is written holds up nothing but that;
it takes a small share of one core, however much happens.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol, TextIO

from rlm_kernel.views.colours import FAILED
from rlm_kernel.views.frame import Frame, scrolled
from rlm_kernel.views.screen import Line, Screen
from rlm_kernel.views.state import Branch, Told

_BEAT = 0.2
"""Seconds between two drawings at the least."""
_SHARE = 0.02
"""Of one core that drawing takes at the most."""
_TOLD = ("turn", "error", "person", "note", "known")
_WAIT_SECONDS = 1.0
"""For the frame to be taken away before the process is stopped."""


class Drawn(Protocol):
    """What a terminal's view draws."""

    def lines(self, columns: int, rows: int) -> list[Line]:
        """For a terminal of so many columns and rows."""
        ...


class TerminalView:
    """Draws a branch in a terminal between `start` and `stop`."""

    def __init__(self, branch: Branch, stream: TextIO, frame: Drawn | None = None) -> None:
        """`frame`: what is drawn in place of the branch's own `Frame`."""
        self._branch = branch
        self._stream = stream
        self._screen = Screen(stream)
        self._frame: Drawn = frame or Frame(branch)
        self._above: deque[Line] = deque()
        """Lines that are to be written above the frame."""
        self._lock = threading.RLock()
        """Of the screen."""
        self._wake = threading.Event()
        self._over = True
        self._thread: threading.Thread | None = None
        self._jobs = _Jobs(self)
        self._stray = _Stray(self, stream)
        self._seen: tuple[Any, ...] = ()
        self.fresh = self.hold = False
        """`fresh`: something else may have written to the terminal. `hold`: the frame is to be away."""
        self.away = threading.Event()
        """The frame was taken away for `hold`."""

    def start(self) -> None:
        self._over = False
        self.hold = False
        self._seen = ()
        self._jobs.hear()
        self._stray.catch()
        self._thread = threading.Thread(target=self._draw_on, name="live-view", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is None:
            return
        self._over = True
        self._wake.set()
        self._thread.join()
        self._thread = None
        self._stray.release()
        self._jobs.forget()
        self._end_frame()

    def _end_frame(self) -> None:
        """What is still to be told, and no frame."""
        with self._lock:
            if above := self._taken():
                self._screen.draw([[]], above)
            self._screen.clear()

    def _draw_on(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone
            # Cleared before it looks whether it is over: what is set from then on ends the wait.
            while not self._over:
                began = time.thread_time()
                self.draw()
                self._wake.wait(max(_BEAT, (time.thread_time() - began) / _SHARE))
                self._wake.clear()

    def draw(self) -> None:
        """Draw what has changed."""
        with self._lock:
            if self.hold:
                self._screen.clear()
                self.away.set()
                return
            if not _in_foreground(self._stream):
                # A shell has the terminal meanwhile, or `timeout` in a script has made this a background job:
                # no frame, but the lines that stay.
                self._screen.tell(self._taken())
                self.fresh = True
                return
            if self.fresh:
                self._screen.forget()
                self.fresh, self._seen = False, ()
            size = self._screen.size()
            seen = (self._branch.changes, self._branch.doing, int(self._branch.clock() * 2), size)
            if seen == self._seen and not self._above:
                return
            self._seen = seen
            self._screen.draw(self._frame.lines(*size), self._taken())

    def _taken(self) -> list[Line]:
        return [self._above.popleft() for _ in range(len(self._above))]

    def told(self, told: Told) -> None:
        if told.kind in _TOLD:
            self._above.extend(scrolled(told.text, FAILED if told.kind == "error" else None))

    def say(self, text: str) -> None:
        """Something about the set-up: the branch has it as what it does."""

    def tell(self, text: str) -> None:
        """Have it printed above the frame."""
        self._above.extend(scrolled(text))
        if self._thread is None:
            self._end_frame()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The terminal is for something else meanwhile."""
        going = self._thread is not None
        self.stop()
        try:
            yield
        finally:
            if going:
                self.start()


class _Jobs:
    """Ctrl-Z: the frame goes and the cursor comes back before the process stops; `fg` draws it anew."""

    def __init__(self, view: TerminalView) -> None:
        self._view = view
        self._before: dict[int, Any] = {}

    def hear(self) -> None:
        if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:  # else somebody minds it, or nothing stops
            self._before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
            self._before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._continued)

    def forget(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _stop(self, _number: int, _frame: object) -> None:
        if sys.platform == "win32":
            return
        self._view.away.clear()
        self._view.hold = True
        self._view._wake.set()
        self._view.away.wait(_WAIT_SECONDS)
        # By the system's own handler: it stops nothing where no shell would let it go on.
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._view.fresh, self._view.hold = True, False
        self._view._wake.set()

    def _continued(self, _number: int, _frame: object) -> None:
        self._view.fresh = True


class _Stray(io.TextIOBase):
    """Stands for stderr while the frame is there: what anybody prints comes above it, line by line."""

    def __init__(self, view: TerminalView, stream: TextIO) -> None:
        self._view = view
        self._stream = stream
        self._begun = ""

    def catch(self) -> None:
        if sys.stderr is self._stream:
            sys.stderr = self

    def release(self) -> None:
        if sys.stderr is self:
            sys.stderr = self._stream
        if self._begun:
            self.write("\n")

    def write(self, text: str) -> int:
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        if lines:
            self._view._above.extend(scrolled("\n".join(lines)))
        return len(text)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


def _in_foreground(stream: TextIO) -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True  # nobody could say otherwise

"""`--json-events`: standard error is lines of JSON from the command's begin to its end, and nothing else.

Events of the run come by `listener`. What anything prints on stderr meanwhile becomes a line of its own, so
that each line is JSON whoever printed it. A thread writes the lines: a reader that is slow, or gone, neither
delays a run nor costs its answer.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rlm_kernel.cli import _streams

if TYPE_CHECKING:
    from rlm_kernel.config import Settings
    from rlm_kernel.engine.events import Event
    from rlm_kernel.views.json_events import JsonEvents

CROWDED = 1 << 20
"""Characters that wait to be read, from which on pieces of replies and of outputs are left out."""
FULL = 64 << 20
"""The same for all lines but the last."""
PATIENCE = 5.0
"""Seconds without a byte read after which the end of the command waits no more."""
INTERRUPTED = 130
"""The exit code of what a signal ended."""
LONGEST = 60.0
"""Seconds that the end of the command waits at most."""
_TOGETHER = 4096
"""Bytes that a pipe takes at once when it is ready for any."""
_LOOK = 0.2
"""Seconds between two looks at whether the reader is ready."""


class Outlet:
    """Writes lines to a stream in a thread of its own, in their order. `missing` makes the line that stands
    for so many that were left out.
    """

    def __init__(self, stream: TextIO, missing: Callable[[int], str]) -> None:
        self._stream = stream
        self._missing = missing
        self._lines: deque[str] = deque()
        self._size = self._left_out = 0
        self._there = threading.Condition()
        self._busy = self._gone = False
        self._moved = time.monotonic()
        self._thread: threading.Thread | None = None

    def put(self, line: str, droppable: bool = False) -> None:
        """Take a line. Never blocks."""
        with self._there:
            if self._gone:
                return
            if self._size > (CROWDED if droppable else FULL):
                self._left_out += 1
                return
            if self._left_out:
                self._add(self._missing(self._left_out))
                self._left_out = 0
            self._add(line)

    def end(self, line: str, patience: float = PATIENCE) -> None:
        """Take the last line, and wait until all is read, as long as something is."""
        with self._there:
            if self._left_out:
                self._add(self._missing(self._left_out))
            self._add(line)
            until = time.monotonic() + LONGEST
            self._moved = time.monotonic()
            while (self._lines or self._busy) and not self._gone:
                now = time.monotonic()
                if now - self._moved > patience or now > until:
                    self._gone = True
                    return
                self._there.wait(_LOOK)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)
        self._there.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="json-events", daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        while True:
            with self._there:
                self._busy = False
                self._there.notify_all()
                while not self._lines and not self._gone:
                    self._there.wait()
                if self._gone:
                    return
                line, self._busy = self._lines.popleft(), True
                self._size -= len(line)
            try:
                self._write(line)
            except (OSError, ValueError):  # nobody reads any more, or the disk is full
                with self._there:
                    self._gone = True
                    self._lines.clear()
                    self._there.notify_all()
                return

    def _write(self, line: str) -> None:
        descriptor = _descriptor(self._stream)
        if descriptor is None:
            self._stream.write(line)
            self._stream.flush()
            return
        data = memoryview(line.encode())
        while data and not self._gone:
            if not _ready(descriptor):
                continue
            data = data[os.write(descriptor, data[:_TOGETHER]) :]
            self._moved = time.monotonic()


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _ready(descriptor: int) -> bool:
    """Whether the reader takes some more, within a moment.

    Where that cannot be known, the write itself waits.
    """
    try:
        return bool(select.select((), (descriptor,), (), _LOOK)[1])
    except (OSError, ValueError):
        return True


class _Prose(io.TextIOBase):
    """Takes the place of stderr: each line that is printed goes to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._begun = ""
        self._lock = threading.Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            *whole, self._begun = f"{self._begun}{text}".split("\n")
        for line in whole:
            self._say(line)
        return len(text)

    def finish(self) -> None:
        """Say what has no end of its line."""
        with self._lock:
            begun, self._begun = self._begun, ""
        self._say(begun)


class _Stream:
    """The lines of the command in progress."""

    def __init__(self, command: str) -> None:
        from rlm_kernel.views.json_events import JsonEvents

        self.stderr = sys.stderr
        self._outlet = Outlet(self.stderr, lambda count: self.events.dropped(count))
        self.events: JsonEvents = JsonEvents(self._outlet.put)
        self.trace: Callable[[], str] | None = None
        self.error = ""
        self._prose = _Prose(self.events.say)
        self.events.begin(command)
        sys.stderr = self._prose

    def end(self, code: int, patience: float) -> None:
        sys.stderr = self.stderr
        self._prose.finish()
        try:
            trace = self.trace() if self.trace is not None else None
        except Exception:  # none was made
            trace = None
        last = self.events.end(code, interrupted=code == INTERRUPTED, trace=trace, error=self.error)
        self._outlet.end(last, patience)


_current: _Stream | None = None


def begin(command: str) -> None:
    """From now on stderr is lines of JSON, until `end`."""
    global _current
    if _current is None:
        _current = _Stream(command)
        _streams.at_end = end


def end(code: int, patience: float = PATIENCE) -> None:
    """Write the last line, and put stderr back. Idempotent."""
    global _current
    stream, _current = _current, None
    if stream is not None:
        _streams.at_end = None
        stream.end(code, patience)


def on() -> bool:
    """Whether stderr is lines of JSON."""
    return _current is not None


def listener(event: Event) -> None:
    """Write what an event tells."""
    if _current is not None:
        _current.events(event)


def answered(question: Mapping[str, Any]) -> None:
    """A question of a batch is done: the fields of its line (`views.event_lines.QuestionDone`)."""
    if _current is not None:
        _current.events.question(question)


def running(question: Mapping[str, Any]) -> None:
    """A question of a batch goes on: the fields of its line (`views.event_lines.QuestionRunning`)."""
    if _current is not None:
        _current.events.running(question)


def hide(settings: Settings) -> None:
    """Replace the secrets of these settings and of the environment in all lines that come."""
    if _current is not None:
        from rlm_kernel.secrets import known_secrets

        _current.events.secrets = [*known_secrets(os.environ), *settings.secrets()]


def trace_is(where: Callable[[], str]) -> None:
    """Where the trace is, once there is one."""
    if _current is not None:
        _current.trace = where


def failed(error: str) -> None:
    """Why the command fails, for the last line."""
    if _current is not None:
        _current.error = error

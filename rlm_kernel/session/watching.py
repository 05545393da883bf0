"""The progress of a run, shown to whoever runs it from Python: in the notebook, in the terminal, on stderr.

It is a courtesy: nothing of it fails a run, or holds it up.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from rlm_kernel.engine.events import Event, Listener, RunOpened
from rlm_kernel.engine.protocols import CellResult
from rlm_kernel.errors import RLMError, is_interrupt
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.result import Result

if TYPE_CHECKING:
    from rlm_kernel.session.replay import Replayed
    from rlm_kernel.session.replaying import Verdict

_ASKED = 200
"""Characters of a question by which its lines are known."""


class _View(Protocol):
    def __call__(self, event: Event) -> None: ...
    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def say(self, text: str, /) -> None: ...
    def tell(self, text: str, /) -> None: ...
    def finish(self, what: str, trace: Path | None = None) -> None: ...


class Watched:
    """A context manager around a run. `view` and `say` are to be given to it; `done` hears what came of it.

    Without `progress` they are those of the caller alone.
    """

    def __init__(
        self, progress: bool, view: Listener | None = None, say: Say = silent, *, trace: Path | None = None
    ) -> None:
        """`trace`: where it is known beforehand."""
        self._theirs = view
        self._say = say
        self.trace = trace
        """Where what is shown at the end leads."""
        self._done = "Ended"
        self._view: _View | None = None
        if progress:
            with contextlib.suppress(Exception):
                self._view = _chosen()

    def __enter__(self) -> Watched:
        if self._view is not None:
            try:
                self._view.__enter__()
            except Exception:
                self._view = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is None:
            return
        with contextlib.suppress(Exception):
            self._view.__exit__(None, None, None)
        with contextlib.suppress(Exception):
            self._view.finish(_ended(error) if error is not None else self._done, self.trace)

    @property
    def view(self) -> Listener | None:
        """Hears the run's events."""
        return self._theirs if self._view is None else self._hear

    def _hear(self, event: Event) -> None:
        if self._view is not None:
            with contextlib.suppress(Exception):  # what a listener raises would end the run
                self._view(event)
        if self._theirs is not None:
            self._theirs(event)

    def say(self, text: str) -> None:
        """Hears what is being set up."""
        if self._view is not None:
            with contextlib.suppress(Exception):
                self._view.say(text)
        self._say(text)

    def verdict(self, verdict: Verdict, _result: CellResult | None) -> None:
        """Hears what became of each cell of a replay."""
        if self._view is not None:
            with contextlib.suppress(Exception):
                self._view.tell(f"{verdict.cell}: {verdict.verdict}")

    def done(self, found: Result) -> Result:
        """What came of a question."""
        self.trace = found.trace
        if found.answer is None:
            self._done = f"No answer ({found.stop_reason})"
        else:
            self._done = f"Best-effort answer ({found.stop_reason})" if found.forced else "Answered"
        return found

    def replayed(self, found: Replayed) -> Replayed:
        """What came of a replay."""
        self.trace = found.out or found.trace
        good = sum(verdict.good for verdict in found.verdicts)
        self._done = f"Replayed: {good:,} of {len(found.verdicts):,} cells gave the same outputs"
        return found


def _ended(error: BaseException) -> str:
    if is_interrupt(error):
        return "Interrupted"
    said = error.message if isinstance(error, RLMError) else type(error).__name__
    return f"Failed: {said}"


def _chosen() -> _View:
    from rlm_kernel.views.notebook import NotebookView, publisher

    if (publish := publisher()) is not None:
        return NotebookView(publish)
    return _Stderr()


class _Stderr:
    """The live view of a terminal, lines elsewhere. A terminal has room for one: what runs beside it tells
    of its end alone. Lines of runs beside one another have their numbers, and say which is whose.
    """

    _lock = threading.Lock()
    _first: _Stderr | None = None
    _going = 0
    _begun = 0
    """Since one ran alone."""

    def __init__(self) -> None:
        from rlm_kernel.views.live import LiveView

        self._live = LiveView(label=self._label)
        self._beside = False
        self._number = 0

    def _label(self) -> str:
        return f"[{self._number}] " if _Stderr._begun > 1 else ""

    def __enter__(self) -> object:
        with _Stderr._lock:
            _Stderr._begun = _Stderr._begun + 1 if _Stderr._going else 1
            _Stderr._going += 1
            self._number = _Stderr._begun
            self._beside = _Stderr._first is not None and sys.stderr.isatty()
            if not self._beside:
                _Stderr._first = self
        if not self._beside:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _Stderr._lock:
            _Stderr._going -= 1
            if _Stderr._first is self:
                _Stderr._first = None
        if not self._beside:
            self._live.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        self._live(event)
        if isinstance(event, RunOpened) and self._label() and not sys.stderr.isatty():
            self._live.tell(f"question: {' '.join(event.question[:_ASKED].split())}")

    def say(self, text: str) -> None:
        if not self._beside:
            self._live.say(text)

    def tell(self, text: str) -> None:
        first = _Stderr._first
        (first if self._beside and first is not None else self)._live.tell(text)

    def finish(self, what: str, trace: Path | None = None) -> None:
        ended = self._live.ended
        used = (ended[1] if ended else self._live.totals()).line()
        self.tell(f"{what}: {used}{f'. Trace: {trace}' if trace is not None else ''}")

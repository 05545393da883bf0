"""Questions that were stopped half-way, by a person or because the process was killed: what they have used by
then counts in later runs of the batch.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from rlm_kernel.engine.protocols import Totals
from rlm_kernel.pathtext import seen_from
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.questions import Entry, key_of

STOPPED: Final = "Stopped"
"""The kind of failure of a question that was stopped half-way, and had used something by then."""
RUNNING = ".running"
"""Ending of the journal beside the file of results."""
QUESTION = 500
"""Characters of a question that a line of results, or of the journal, has."""


def stopped(item: Item, trace: Path) -> Done:
    """What comes of a question that was stopped."""
    failure = Failure(
        STOPPED, "It was stopped before it was finished.", "The same command asks it again.", passing=True
    )
    return Done(item, failure=failure, trace=trace)


def spent(done: Done) -> Totals:
    """What a question took; of one without a result by its trace. Blocking."""
    from rlm_kernel.trace.heads import NotATrace, head_of

    if done.result is not None:
        return done.result.totals
    try:
        return Totals() if done.trace is None else head_of(Path(done.trace)).spent
    except NotATrace:
        return Totals()


def counts(totals: Totals) -> bool:
    """Whether anything was used that counts in a budget."""
    return any((totals.known_cost, totals.lost_cost, totals.usage.total, totals.lost_tokens))


class Begun:
    """A journal of the questions that an engine was given, a line each. It is removed when all of them have
    ended; if the process is killed, it stays, and the next run knows from it which traces no result names.
    """

    def __init__(self, results: Path) -> None:
        self._path = results.with_name(results.name + RUNNING)
        self._beside = results.absolute().parent
        self._file: IO[str] | None = None
        self._writing = threading.Lock()
        self._running: set[int] = set()
        self._taken = False

    def add(self, entry: Entry, attempt: int, trace: Path) -> None:
        """An attempt begins. Blocking. A disk that does not take the line stops nothing."""
        line = {
            "id": entry.id,
            "attempt": attempt,
            "trace": seen_from(trace, self._beside),
            "question": entry.item.question[:QUESTION],
            "number": entry.number,
            "digest": entry.digest,
        }
        self._running.add(key_of(entry.id))
        with self._writing, contextlib.suppress(OSError):
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8")
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def ended(self, entry: Entry) -> None:
        """What came of the attempt is in the results, or it has used nothing."""
        self._running.discard(key_of(entry.id))

    def left(self) -> Iterator[tuple[Entry, int, Path]]:
        """What the journal of a killed process has: questions, numbers of attempts, and traces. Blocking."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    item = Item("", str(row["question"]))
                    entry = Entry(item, row["id"], int(row["number"]), str(row["digest"]))
                    yield entry, int(row["attempt"]), self._beside / str(row["trace"])

    def take(self) -> None:
        """What a killed process has left is in the results: the journal is this process's own. Blocking."""
        self._taken = True
        self.close()

    def close(self) -> None:
        """The journal goes, unless it is another's or something in it has not ended. Blocking. Idempotent."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
                self._file = None
            if self._taken and not self._running:
                self._path.unlink()

"""The file of results: a line for each question that was answered or has failed, and what a batch that goes
on finds in it.

A line is appended whole and synced, so that a process that is killed leaves at most a part of the last one,
which is dropped at the next start. One process writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from rlm_kernel import system
from rlm_kernel.engine.protocols import Totals
from rlm_kernel.engine.purse import BATCH
from rlm_kernel.errors import TraceNotWritten, UsageError
from rlm_kernel.loops import to_its_end
from rlm_kernel.session.batch.item import Done
from rlm_kernel.session.batch.questions import Entry, key_of
from rlm_kernel.session.batch.stopped import QUESTION, STOPPED, Begun, counts, spent, stopped

Status = Literal["answered", "no_answer", "failed"]
Retry = Literal["no", "passing", "all"]
"""Which questions are asked again that have failed, or have no answer."""
_BEGIN = b'{"id": '
_FIELDS = ("id", "status", "digest", "attempt")


@dataclass(frozen=True)
class Paid:
    """What questions took together, with what calls may have used that were given up. `unpriced`: replies
    whose price is not known, which `cost` lacks.
    """

    cost: float = 0.0
    tokens: int = 0
    unpriced: int = 0

    def __add__(self, other: Paid) -> Paid:
        return Paid(self.cost + other.cost, self.tokens + other.tokens, self.unpriced + other.unpriced)


class Last(NamedTuple):
    """The last line of an id. `kind` of a failure or stop reason; `passing` as of `Failure`."""

    digest: str
    status: Status
    kind: str
    passing: bool
    attempt: int


class Results:
    """A file of results, open and locked. `close` it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.begun = Begun(path)
        self._file = file
        self._end = 0
        self._writing = asyncio.Lock()
        self.known: dict[int, Last] = {}
        self.lines = 0
        self.paid = Paid()
        """By all lines of the file, those of earlier attempts, too."""
        self._new = False
        """It was made here."""
        self.dropped = 0
        """Bytes of a line that was cut off."""

    @classmethod
    def open(cls, path: Path) -> Results:
        """The file, made where it is not there. Blocking.

        Raises UsageError where it cannot be written, is something else, or is in use by another process.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise UsageError(
                    f"The results cannot go to {path}, which is a {'folder' if path.is_dir() else 'device'}.",
                    hint="Give --out the name of a file that ends with .jsonl.",
                )
            new = not path.exists()
            made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        except OSError as error:
            raise UsageError(
                f"The results cannot be written to {path}: {error.strerror or error}.",
                hint="Name another file with --out.",
            ) from error
        results = cls(path, os.fdopen(made, "r+b"))
        results._new = new
        try:
            results._take()
        except BaseException:
            results.close()
            raise
        return results

    def close(self) -> None:
        """Another process may have it then; one that was made for nothing is gone. Blocking. Idempotent."""
        self.begun.close()
        with contextlib.suppress(OSError, ValueError):
            unused = self._new and not self.lines and not system.WINDOWS  # it deletes nothing that is open
            if unused and os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
                self.path.unlink()
        with contextlib.suppress(OSError):
            self._file.close()

    def _take(self) -> None:
        with contextlib.suppress(OSError):  # a file system without locks
            if not system.lock(self._file.fileno()):
                raise UsageError(
                    f"Another process is writing to {self.path}.",
                    hint="Wait for it, or name another file with --out.",
                )
        try:
            self._read()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be used: {error.strerror or error}.") from error

    def _read(self) -> None:
        """Raises UsageError, OSError."""
        for line in self._file:
            row = _row(line)
            if row is None and self._end == 0 and not _begins_a_row(line):
                raise UsageError(
                    f"{self.path} is not a results file; rlm did not change it.",
                    hint="Name another file with --out.",
                )
            if not line.endswith(b"\n"):
                self._finish(line, whole=row is not None)
            if row is not None:
                self._know(row)
            if line.endswith(b"\n") or row is not None:
                self._end = self._file.tell()

    def _finish(self, line: bytes, *, whole: bool) -> None:
        """The last line has no end: it lacks nothing else, or it was cut off."""
        if whole:
            self._file.write(b"\n")
        else:
            self.dropped = len(line)
            self._file.truncate(self._end)
        self._file.flush()

    def _know(self, row: Mapping[str, Any]) -> None:
        error = row.get("error") or {}
        kind = str(error.get("kind") or row.get("stop_reason") or "")
        self.known[key_of(row["id"])] = Last(
            row["digest"], row["status"], kind, error.get("passing") is True, row["attempt"]
        )
        self.lines += 1
        self.paid += _paid(row)

    def why(self, entry: Entry, retry: Retry = "no") -> Literal["new", "changed", "again"] | None:
        """Why a question is to be asked; None where it is not."""
        last = self.known.get(key_of(entry.id))
        if last is None:
            return "new"
        if last.digest != entry.digest:
            return "changed"
        if last.status != "answered" and last.kind in (BATCH, STOPPED):
            return "again"  # there was no money left for it, or no time
        failed = last.status == "failed" and last.passing
        return (
            "again"
            if last.status != "answered" and (retry == "all" or (retry == "passing" and failed))
            else None
        )

    def last(self, entry: Entry) -> Last:
        """What is known of a question that is in the file."""
        return self.known[key_of(entry.id)]

    def attempt(self, entry: Entry) -> int:
        """The number of the attempt that comes next."""
        last = self.known.get(key_of(entry.id))
        return 1 if last is None else last.attempt + 1

    async def add(self, row: Mapping[str, Any]) -> None:
        """Append a line, which is on the disk then, whatever happens; a cancellation waits for it.

        Raises TraceNotWritten where the disk does not take it; the file has whole lines all the same.
        """
        await to_its_end(self._add(row))

    async def stop(self, entry: Entry, done: Done, totals: Totals, attempt: int) -> None:
        """A question was stopped half-way: what it has used by then has a line. Raises TraceNotWritten."""
        if counts(totals):
            await self.add(row_of(entry, done, totals, attempt, self.path.absolute().parent))

    async def take_up(self) -> None:
        """Of a process that was killed, what its questions had used by then counts too. Raises
        TraceNotWritten.
        """
        left = [] if self._new else await asyncio.to_thread(lambda: list(self.begun.left()))
        for entry, attempt, trace in left:
            if attempt < self.attempt(entry):
                continue
            done = stopped(entry.item, trace)
            await self.stop(entry, done, await asyncio.to_thread(spent, done), attempt)
        await asyncio.to_thread(self.begun.take)

    async def _add(self, row: Mapping[str, Any]) -> None:
        async with self._writing:
            await asyncio.to_thread(self._append, encoded(row))
            self._know(row)

    def _append(self, line: bytes) -> None:
        try:
            here = os.stat(self.path)
            if not os.path.samestat(here, os.fstat(self._file.fileno())):
                raise FileNotFoundError(None, "it was replaced by another file")
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._end += len(line)
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                self._file.truncate(self._end)
            raise TraceNotWritten(
                f"The results cannot be written to {self.path}: {error.strerror or error}.",
                hint="Free some space or check the file; the same command continues from there.",
            ) from error


def rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a file of results, in their order; the last of an id counts. Blocking. Raises OSError."""
    with path.open("rb") as file:
        for line in file:
            if (row := _row(line)) is not None:
                yield row


def row_of(entry: Entry, done: Done, totals: Totals, attempt: int, beside: Path) -> dict[str, Any]:
    """The line of a question. Paths of traces below the folder `beside` are relative to it."""
    result, failure = done.result, done.failure
    status: Status = "failed" if result is None else "no_answer" if result.answer is None else "answered"
    return {
        "id": entry.id,
        "status": status,
        "question": entry.item.question[:QUESTION],
        "answer": result.answer if result else None,
        "value": result.value if result else None,
        "error": vars(failure) | {} if failure else None,
        "stop_reason": result.stop_reason if result else None,
        "forced": result.forced if result else False,
        "detail": result.detail if result else "",
        "cost": totals.cost,
        "known_cost": totals.known_cost,
        "tokens": totals.usage.total,
        "unpriced": totals.unpriced,
        "lost_cost": totals.lost_cost,
        "lost_tokens": totals.lost_tokens,
        "calls": totals.calls,
        "turns": totals.turns,
        "seconds": round(done.seconds, 3),
        "trace": None if done.trace is None else _below(done.trace, beside),
        "line": entry.number,
        "attempt": attempt,
        "node": done.node,
        "digest": entry.digest,
    }


def _below(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return str(path)


def encoded(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:  # JSON has no such number, and most readers take none
        text = json.dumps(_finite(row), ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a pair of UTF-16, which JSON can escape
        return json.dumps(json.loads(text)).encode() + b"\n"


def _finite(value: Any) -> Any:
    """The value with None in the place of numbers that are none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of results; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not all(name in row for name in _FIELDS):
        return None
    right = (
        isinstance(row["id"], str | int)
        and row["status"] in ("answered", "no_answer", "failed")
        and isinstance(row["digest"], str)
        and isinstance(row["attempt"], int)
        and isinstance(row.get("error") or {}, dict)
    )
    return row if right else None


def _begins_a_row(line: bytes) -> bool:
    """Whether it may be the first line of results, cut off."""
    return not line.endswith(b"\n") and (
        line.startswith(_BEGIN) or _BEGIN.startswith(line) or not line.strip(b"\0")
    )


def _paid(row: Mapping[str, Any]) -> Paid:
    def number(name: str) -> float:
        value = row.get(name)
        return value if isinstance(value, int | float) and 0 <= value < 1e15 else 0

    return Paid(
        float(number("known_cost") + number("lost_cost")),
        int(number("tokens") + number("lost_tokens")),
        int(number("unpriced")),
    )

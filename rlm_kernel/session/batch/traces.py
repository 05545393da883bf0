"""Where the traces of a batch are: a few hundred in each folder, and an index of all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel import system
from rlm_kernel.errors import TraceNotWritten, UsageError
from rlm_kernel.pathtext import seen_from
from rlm_kernel.report.batchindex import GENERATOR, PAGE, pages
from rlm_kernel.report.listing import BATCH_INDEX
from rlm_kernel.session.batch.results import rows

EACH = 250
"""Traces in one folder."""


class Traces:
    """Gives each question a place that no other has, now or from an earlier run."""

    def __init__(self, folder: Path, begun: int = 0) -> None:
        """`begun`: how many traces there are already."""
        self.folder = folder.absolute()
        self._begun = begun
        self._taken: set[str] = set()

    @contextlib.contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """Where a question's notebook goes; the place is its own as long as the context lasts."""
        folder = self.folder / f"{self._begun // EACH:03d}"
        self._begun += 1
        number, path = 1, folder / f"{name}.ipynb"
        # Case makes no difference on some systems.
        while str(path).casefold() in self._taken or os.path.lexists(path):
            number += 1
            path = folder / f"{name}-{number}.ipynb"
        self._taken.add(str(path).casefold())
        try:
            yield path
        finally:
            self._taken.discard(str(path).casefold())


def refuse_other_page(folder: Path) -> None:
    """Raise UsageError where the folder's page would take the place of somebody's own. Blocking."""
    with contextlib.suppress(OSError), (folder / PAGE).open("rb") as file:
        if GENERATOR.encode() not in file.read(4_000):
            raise UsageError(
                f"The traces cannot go to {folder}: their {PAGE} would replace the one there.",
                hint="Name another folder with --traces.",
            )


def write_index(folder: Path, results: Path) -> None:
    """What leads to the traces: a file with a line for each, in the order of the results, and a page for
    people.

    Args:
        folder: of the traces.
        results: the file that has the results. Paths in it are relative to its folder.

    Raises:
        TraceNotWritten: it cannot be written.
    """
    beside = results.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = (row for row in rows(results) if isinstance(row.get("trace"), str))
        lines = (json.dumps(_line(row, folder, beside), ensure_ascii=False) + "\n" for row in found)
        _write(folder / BATCH_INDEX, lines)
        for name, page in pages(lambda: rows(results), folder, beside, results.name):
            _write(folder / name, page)
    except OSError as error:
        raise TraceNotWritten(
            f"The index of the traces cannot be written to {folder}: {error.strerror or error}.",
            hint="Free some space or check the folder's permissions; the same command writes it again.",
        ) from error


def _write(path: Path, parts: Iterable[str]) -> None:
    """Write a file as a whole, in the place of another. Raises OSError."""
    made = path.with_name(f".index-{secrets.token_hex(4)}")
    try:
        # Who may read it is for the umask to say, as of the results: it has answers.
        with made.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(parts)
        system.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.unlink()
        raise


def _line(row: Mapping[str, Any], folder: Path, beside: Path) -> dict[str, Any]:
    kept = ("id", "status", "stop_reason", "cost", "tokens", "turns", "seconds", "line", "attempt", "node")
    error = row.get("error") or {}
    return {
        "trace": seen_from(beside / row["trace"], folder).replace(os.sep, "/"),
        **{name: row.get(name) for name in kept},
        "kind": error.get("kind"),
    }

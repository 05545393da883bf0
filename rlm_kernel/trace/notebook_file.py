"""How the cells of a trace become a file: each serialised by itself, and the file replaced whole, at a
bounded rate.

Between two times that the file is written whole, its journal has what has changed (`trace.journal`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel import system
from rlm_kernel.trace.journal import Journal
from rlm_kernel.trace.notebook_json import replace, serialised
from rlm_kernel.trace.sealed import sealed

RATE = 200_000
"""Characters a second that the whole is written with at least, if there is something new in it."""
SHARE = 4
"""Characters of the whole that are written for each by which it has grown."""
AHEAD = 4_000_000
"""Characters of the whole that are written without a wait: a small trace is whole after each event."""


class NotebookFile:
    """A trace's notebook on disk: cells in their order, and the metadata.

    Raises OSError where it cannot be written.

    An event changes cells and saves. What that writes is linear in what the cells hold, whatever the number
    of events: the notebook is written whole where `AHEAD`, `SHARE` and `RATE` allow it, and else the changes
    go into the journal.
    """

    def __init__(self, path: Path, refresh: Callable[[], None]) -> None:
        """`refresh` puts what has changed in a cell that only its progress was told of: called before the
        whole is written.
        """
        self.path = path
        self.cells: dict[str, str] = {}
        """Each as the file has it, by its id."""
        self.size = 0
        self._refresh = refresh
        self._journal = Journal(path)
        self._number = 0
        self._begun = False
        self.behind = False
        """The journal has what the notebook has not."""
        self._changed: dict[str, dict[str, Any]] = {}
        self._advanced: dict[str, int] = {}
        self._metadata: dict[str, Any] = {}
        self._files: list[dict[str, Any]] = []
        self._files_kept = 0
        """The first so many of them are on disk."""
        self._credit, self._largest, self._clock = float(AHEAD), 0, time.monotonic()

    def put(self, cell: dict[str, Any], *, check: bool) -> None:
        """A new cell goes to the end, another takes the place of the one with its id."""
        name, text = cell["id"], serialised(cell, check=check)
        self._grow(len(text) - len(self.cells.get(name, "")) - self._advanced.pop(name, 0))
        self.cells[name] = text
        self._changed[name] = {
            "cell": cell,
            **{key: value for key, value in self._changed.get(name, {}).items() if key == "behind"},
        }

    def put_file(self, place: int, file: dict[str, Any]) -> None:
        """Of metadata.rlm.files the one at this place, or one more at their end."""
        self._grow(_length([file]) - _length(self._files[place : place + 1]))
        self._files[place : place + 1] = [file]
        self._files_kept = min(self._files_kept, place)

    def move(self, name: str, behind: str) -> None:
        """Put a cell that has just changed behind another one."""
        text = self.cells.pop(name)
        order: dict[str, str] = {}
        for other, kept in self.cells.items():
            order[other] = kept
            if other == behind:
                order[name] = text
        self.cells = order
        self._changed[name]["behind"] = behind

    def drop(self, name: str) -> None:
        """Take a cell out, if it is there. The next save writes the whole."""
        self.size -= len(self.cells.pop(name, ""))
        self._begun = False

    def rename(self, name: str, new: str) -> None:
        """Give a cell another id. The next save writes the whole."""
        text = self.cells[name].replace(f'"id": {json.dumps(name)}', f'"id": {json.dumps(new)}', 1)
        self.cells = {
            new if other == name else other: text if other == name else kept
            for other, kept in self.cells.items()
        }
        self._begun = False

    def wait(self) -> float:
        """Seconds until the whole may be written; 0 for now."""
        now = time.monotonic()
        self._credit = min(self._credit + RATE * (now - self._clock), max(AHEAD, self.size))
        self._clock = now
        return max(0.0, (self.size - self._credit) / RATE) if self._begun and not self._journal.lost else 0.0

    def save(self, notebook: Mapping[str, Any], ours: dict[str, Any]) -> None:
        """Have the changes on disk.

        `notebook`: its metadata, but for `ours`, metadata.rlm without its files.
        """
        if self.wait() == 0:
            try:
                self.write_whole(notebook, ours)
                return
            except OSError as error:
                if not (system.is_in_use(error) and self._begun and not self._journal.lost):
                    raise
                self._credit = 0.0  # the journal has it all until the next time
        self._write_down({"cells": list(self._changed.values())}, ours)
        self._changed = {}

    def progress(self, cell: str, progress: Mapping[str, Any], ours: dict[str, Any]) -> None:
        """Write down what a running cell has done since it was put, or since the last progress."""
        size = self._write_down({"progress": {"cell": cell, **progress}}, ours)
        self._advanced[cell] = self._advanced.get(cell, 0) + size
        self._grow(size)

    def affords(self, size: int) -> bool:
        """Whether so many characters may be written that are no growth; they count then."""
        self.wait()
        if self._credit < size:
            return False
        self._credit -= size
        return True

    def write_whole(self, notebook: Mapping[str, Any], ours: dict[str, Any], *, closed: bool = False) -> None:
        """Write the notebook whole. `closed`: it is complete, is sealed, and its journal goes; durably so."""
        self._refresh()
        first, number = not self._begun, self._number + 1
        if first:
            self._journal.name()
        marked = {**ours, **({"files": self._files} if self._files else {})}
        if closed:
            marked |= sealed(self.cells.values(), marked, self.path).as_metadata()
        else:
            marked |= {"journal": self._journal.id, "journaled": number}
        replace(self.path, self.cells.values(), {**notebook, "rlm": marked}, durable=closed)
        self._number, self._begun, self._changed, self._metadata, self.behind = (
            number,
            not closed,
            {},
            ours,
            False,
        )
        self._files_kept = len(self._files)
        self._credit = max(0.0, self._credit - self.size)
        if closed or first or self._journal.lost:
            self._journal.remove()
        else:
            self._journal.clear()

    def release(self) -> None:
        """Let go of the files as they are."""
        self._journal.release()

    def _grow(self, by: int) -> None:
        self.size += by
        if self.size > self._largest:
            self._credit += SHARE * (self.size - self._largest)
            self._largest = self.size

    def _write_down(self, what: Mapping[str, Any], ours: dict[str, Any]) -> int:
        meta = {name: value for name, value in ours.items() if self._metadata.get(name) != value}
        record: dict[str, Any] = {"n": self._number + 1, **({"meta": meta} if meta else {}), **what}
        if self._files_kept < len(self._files):
            record["files"] = {"keep": self._files_kept, "rest": self._files[self._files_kept :]}
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        self._journal.append(line)
        self._number, self._metadata, self.behind = self._number + 1, ours, True
        self._files_kept = len(self._files)
        return len(line)


def _length(files: list[dict[str, Any]]) -> int:
    """Characters that these take in the notebook, about."""
    return len(json.dumps(files, ensure_ascii=False, indent=1))

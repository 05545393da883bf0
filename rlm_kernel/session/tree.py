"""The traces of a tree of child RLMs: where they are, how they are opened, and what they say was spent."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlm_kernel.engine.protocols import Totals
from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.pathtext import spelled
from rlm_kernel.trace.calls import linked
from rlm_kernel.trace.reader import TraceFile, read_trace

MAX_TRACES = 10_000
"""Traces of one tree of children that are opened."""
MAX_TREE = 4 << 30
"""Bytes of these traces."""
MAX_LEVELS = 64
"""Levels of such a tree."""
FOLDER = ".children"
"""Ending, after the trace's stem, of the folder with the traces of its children."""


def child_traces(trace: TraceFile) -> list[Path]:
    """The traces of an RLM's children, each once, in the order in which these had answered.

    None of them is known to be there.
    """
    calls = (call for cell in trace.cells if cell.meta for call in linked(cell.meta))
    return list(dict.fromkeys(spelled(trace.path.parent / call.trace) for call in calls))


@dataclass
class Tree:
    """The traces of a tree of child RLMs, as they are opened from the topmost down: each file once, none by a
    link, and not without end.

    They may be a stranger's: a folder that is its own child would be walked for ever, and one that two name
    twice as often on each level.
    """

    seen: set[tuple[int, int]] = field(default_factory=set)
    room: int = MAX_TREE

    def open(self, path: Path, above: TraceFile, level: int) -> TraceFile | None:
        """The trace of a child of `above`; None if it was opened before.

        `level`: how far it is beneath the topmost.

        Raises TraceError, UsageError: it is not there, no plain file, not where a child of this one can be,
        or one too many.
        """
        path = Path(os.path.normpath(path))
        homes = [
            above.path.parent,
            *(Path(origin.trace).parent for origin in above.meta.origins if origin.kind == "fork"),
        ]
        home = next((home for home in homes if home.is_absolute() and path.is_relative_to(home)), None)
        if home is None:
            raise TraceError(
                f"The trace {above.path} names {path} as that of a child, which is outside its folder, so "
                "rlm does not open it."
            )
        if path.resolve() != home.resolve() / path.relative_to(home):
            raise TraceError(f"The trace {path} of a child RLM is a link, so rlm does not open it.")
        try:
            found = path.lstat()
        except OSError as error:
            raise UsageError(f"The trace {path} of a child RLM does not exist.") from error
        if (found.st_dev, found.st_ino) in self.seen:
            return None
        if level > MAX_LEVELS or len(self.seen) >= MAX_TRACES or found.st_size > self.room:
            most = f"{MAX_TRACES:,} traces on {MAX_LEVELS} levels, of together {MAX_TREE:,} bytes"
            raise TraceError(f"The trace {path} of a child RLM is one too many: rlm opens at most {most}.")
        self.seen.add((found.st_dev, found.st_ino))
        self.room -= found.st_size
        return read_trace(path, follow=False)

    @classmethod
    def of(cls, top: TraceFile) -> Tree:
        """The tree beneath a trace that is open already."""
        tree = cls()
        with contextlib.suppress(OSError):
            found = top.path.stat()
            tree.seen.add((found.st_dev, found.st_ino))
        return tree


def spent_on_lost(trace: TraceFile) -> Totals:
    """What children have used that a run which was cut off had not recorded yet, by their own traces.

    Blocking.
    """
    tree = Tree.of(trace)
    lost = Totals()
    waiting = [(trace, 0)]
    while waiting:
        above, level = waiting.pop()
        if above.meta.status == "finished":
            continue  # it was closed, and all is in its account
        known = {path.name for path in child_traces(above)}
        for path in _beside(above.path):
            if path.name in known:
                continue
            with contextlib.suppress(TraceError, UsageError):
                child = tree.open(path, above, level + 1)
                if child is not None:
                    lost += _as_a_child(child.spent())
                    waiting.append((child, level + 1))
    return lost


def _as_a_child(spent: Totals) -> Totals:
    """What a child has used, in the account of who asked it."""
    return replace(
        spent,
        turns=0,
        calls=spent.calls + spent.turns,
        children=spent.children + 1,
        child_turns=spent.child_turns + spent.turns,
        seconds=0.0,
    )


def _beside(trace: Path) -> list[Path]:
    """The notebooks in the folder of a trace's children, which is no link."""
    folder = folder_of(trace)
    if folder.is_symlink():
        return []
    return sorted(itertools.islice(folder.glob("*.ipynb"), MAX_TRACES))


def folder_of(trace: Path) -> Path:
    """Where the traces of an RLM's children are."""
    return trace.with_name(trace.stem + FOLDER)


def with_children(top: TraceFile, lost: Callable[[str], None]) -> Iterator[TraceFile]:
    """A trace, and then those of the child RLMs beneath it, each behind the one that asked for it.

    `lost` hears why one cannot be read. Blocking.
    """
    tree = Tree.of(top)
    waiting = [(top, 0)]
    while waiting:
        trace, level = waiting.pop()
        yield trace
        below = []
        for path in child_traces(trace):
            try:
                child = tree.open(path, trace, level + 1)
            except (TraceError, UsageError) as error:
                lost(error.message)
                continue
            if child is not None:
                below.append((child, level + 1))
        waiting += reversed(below)

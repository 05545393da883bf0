"""Contexts that are given to a session one after the other: each has a file of its own beside the trace."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.session.inputs import Inputs, gather
from rlm_kernel.trace.reader import TraceFile


@dataclass(frozen=True)
class Given(Inputs):
    """A context; `variable` is the name that a value has in the kernel beside `context`."""

    variable: str = ""


def gather_beside(context: Any, trace: Path) -> Given:
    """As `gather`, under names that no earlier context of the trace has. Blocking.

    A text is a file like others, so that several are beside one another in `files`.
    """
    number = _free_number(trace)
    inputs = gather(
        io.StringIO(context) if isinstance(context, str) else context,
        trace.with_stem(f"{trace.stem}-{number}"),
    )
    return Given(inputs.paths, inputs.made, variable=f"context_{number}")


def numbered_id(kind: str, trace: TraceFile) -> str:
    """An id that no cell of the trace has: `kind-1` or a later one."""
    taken = {cell.id for cell in trace.cells}
    number = 1
    while f"{kind}-{number}" in taken:
        number += 1
    return f"{kind}-{number}"


def _free_number(trace: Path) -> int:
    """The first number of which there is no context yet."""
    there = {path.name for path in trace.parent.iterdir()} if trace.parent.is_dir() else set()
    number = 1
    while any(name.startswith(f"{trace.stem}-{number}.context") for name in there):
        number += 1
    return number

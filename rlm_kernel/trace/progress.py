"""A running cell: what it has done, and what of that is not written down yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rlm_kernel.engine.protocols import CallRecord

Output = dict[str, Any]


class Progress:
    """The calls of a running cell that have ended, and its outputs, as JSON data, as far as they are not
    written down.
    """

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self._outputs: Sequence[Output] = ()
        self._most = 0

    def written(self, outputs: Sequence[Output]) -> None:
        """All calls are, and these outputs."""
        self.calls, self._outputs = [], outputs
        self._most = max(self._most, _size(outputs))

    def repeated(self, outputs: Sequence[Output], change: dict[str, Any]) -> int:
        """Characters of a change that are no growth: outputs may be cleared and shown again for ever."""
        return max(0, _size(change["rest"]) - max(0, _size(outputs) - self._most))

    def change(self, outputs: Sequence[Output]) -> dict[str, Any] | None:
        """How the outputs came to be these: `keep` the first so many, put `more` behind the last one's text,
        and add the `rest`.
        """
        before = self._outputs
        keep = 0
        while keep < min(len(before), len(outputs)) and before[keep] == outputs[keep]:
            keep += 1
        more = ""
        if keep == len(before) - 1 and keep < len(outputs) and (more := _longer(before[keep], outputs[keep])):
            keep += 1
        if not more and keep == len(before) == len(outputs):
            return None
        return {"keep": keep, "more": more, "rest": list(outputs[keep:])}


@dataclass
class RunningCell:
    """A cell that runs, with its outputs and its ended calls so far.

    `progress` has what is not written down yet; None: the cell is to be written anew. `stale`: it has done
    something since it was.
    """

    cell_id: str
    code: str
    started: datetime
    outputs: Sequence[Mapping[str, Any]] = field(default=(), init=False)
    progress: Progress | None = field(default=None, init=False)
    stale: bool = field(default=False, init=False)
    _calls: dict[tuple[str, int, str], CallRecord] = field(default_factory=dict, init=False)
    _clock: float = field(default_factory=lambda: time.monotonic(), init=False)

    @property
    def calls(self) -> Iterable[CallRecord]:
        """In the order in which they ended; each once."""
        return self._calls.values()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return round(time.monotonic() - self._clock, 4)

    def show(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """It has these outputs now."""
        self.outputs, self.stale = outputs, True

    def add(self, call: CallRecord) -> None:
        """A call has ended; one of an earlier time that the cell ran gives way to it."""
        # Ids alone do not tell calls apart: those of another kernel's processes may be the same.
        key = (call.prompt_digest, call.occurrence, call.id)
        if key in self._calls:
            self.progress = None
        elif self.progress is not None:
            self.progress.calls.append(call)
        self._calls[key], self.stale = call, True


def _longer(before: Output, now: Output) -> str:
    """What a stream has got beyond what it had; empty where it is another output."""
    if before["output_type"] != "stream" or {**before, "text": ""} != {**now, "text": ""}:
        return ""
    had, has = before["text"], now["text"]
    return str(has[len(had) :]) if has.startswith(had) else ""


def _size(outputs: Sequence[Output]) -> int:
    return sum(len(str(output)) for output in outputs)

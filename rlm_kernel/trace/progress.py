"""What a running cell has done since that was last written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlm_kernel.engine.protocols import CallRecord

Output = dict[str, Any]


class Progress:
    """The calls of a running cell that have ended, and its outputs, as JSON data, as far as they are not written down."""

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
        """How the outputs came to be these: `keep` the first so many, put `more` behind the last one's text, and add the `rest`."""
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


def _longer(before: Output, now: Output) -> str:
    """What a stream has got beyond what it had; empty where it is another output."""
    if before["output_type"] != "stream" or {**before, "text": ""} != {**now, "text": ""}:
        return ""
    had, has = before["text"], now["text"]
    return str(has[len(had) :]) if has.startswith(had) else ""


def _size(outputs: Sequence[Output]) -> int:
    return sum(len(str(output)) for output in outputs)

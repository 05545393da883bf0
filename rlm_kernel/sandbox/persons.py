"""Cells that a person runs in the kernel beside the model, from a console or another Jupyter client, as the kernel tells of them.

Code in the kernel can tell of such cells too, as it knows the session's key: what is kept is bounded, whoever sent it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rlm_kernel.engine.protocols import CellResult, CellStatus
from rlm_kernel.sandbox.outputs import OutputCollector, execution_count

MAX_CELLS = 1_000
"""Cells of persons that are kept of a session."""
MAX_TOTAL = 20_000_000
"""Characters of their code and outputs together, passed by no more than the last of them."""
MAX_CODE = 1_000_000


@dataclass
class _Open:
    request: str
    code: str
    count: int | None
    status: CellStatus = "ok"
    collector: OutputCollector = field(default_factory=OutputCollector)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)


class PersonCells:
    """Makes cells of the iopub messages that answer other clients' requests. Hands each to `on_finished` when it has ended.

    One is open at a time, as the kernel runs one at a time: the next one ends one whose end was not told.
    """

    def __init__(self, on_finished: Callable[[CellResult], None]) -> None:
        self._on_finished = on_finished
        self._open: _Open | None = None
        self._begun = 0
        self._total = 0

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message whose parent is no request of ours."""
        request, kind, content = message["parent_header"].get("msg_id"), message["msg_type"], message["content"]
        if not isinstance(request, str):
            return
        if kind == "execute_input":
            self._begin(request, content)
        elif self._open is not None and request == self._open.request:
            if kind == "status" and content.get("execution_state") == "idle":
                self._end(self._open)
                return
            if kind == "error":
                self._open.status = "error"
            self._open.collector.add(kind, content)

    def kernel_ended(self) -> None:
        """A cell that was running died with its kernel."""
        if self._open is not None:
            self._open.status = "died"
            self._end(self._open)

    def _begin(self, request: str, content: dict[str, Any]) -> None:
        if self._open is not None:
            self._end(self._open)
        code = content.get("code")
        if not isinstance(code, str) or not code.strip() or len(code) > MAX_CODE:
            return
        if self._begun < MAX_CELLS and self._total < MAX_TOTAL:
            self._begun += 1
            self._open = _Open(request, code.encode("utf-8", "replace").decode(), execution_count(content))

    def _end(self, cell: _Open) -> None:
        self._open = None
        self._total += len(cell.code) + cell.collector.size
        name, seconds = f"person-{self._begun:02d}", time.monotonic() - cell.clock
        outputs, truncated = cell.collector.outputs, cell.collector.truncated
        self._on_finished(CellResult(name, cell.code, cell.status, outputs, cell.started, seconds, cell.count, truncated))

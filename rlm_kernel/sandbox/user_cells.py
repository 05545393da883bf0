"""Cells that a person runs in the kernel beside the model, from a console or another Jupyter client, as the
kernel tells of them.

Code in the kernel can tell of such cells too, as it knows the session's key: what is kept is bounded, whoever
sent it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rlm_kernel.engine.protocols import CellResult, CellStatus
from rlm_kernel.sandbox.kernel_says import Input, Message, cell_ended
from rlm_kernel.sandbox.outputs import OutputCollector

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


class UserCells:
    """Makes cells of the iopub messages that answer other clients' requests.

    Hands each to `on_finished` when it has ended.

    One is open at a time, as the kernel runs one at a time: the next one ends one whose end was not told.
    """

    def __init__(self, on_finished: Callable[[CellResult], None]) -> None:
        self._on_finished = on_finished
        self._open: _Open | None = None
        self._begun = 0
        self._total = 0

    def hear(self, message: Message) -> None:
        """Take a message whose parent is no request of ours."""
        if not message.request:
            return
        if message.kind == "execute_input":
            self._begin(message.request, Input.part(message.content))
        elif self._open is not None and message.request == self._open.request:
            if cell_ended(message.kind, message.content):
                self._end(self._open)
                return
            if message.kind == "error":
                self._open.status = "error"
            self._open.collector.add(message.kind, message.content)

    def kernel_ended(self) -> None:
        """A cell that was running died with its kernel."""
        if self._open is not None:
            self._open.status = "died"
            self._end(self._open)

    def _begin(self, request: str, told: Input) -> None:
        if self._open is not None:
            self._end(self._open)
        if not told.code.strip() or len(told.code) > MAX_CODE:
            return
        if self._begun < MAX_CELLS and self._total < MAX_TOTAL:
            self._begun += 1
            self._open = _Open(request, told.code, told.execution_count)

    def _end(self, cell: _Open) -> None:
        self._open = None
        self._total += len(cell.code) + cell.collector.size
        name, seconds = f"person-{self._begun:02d}", time.monotonic() - cell.clock
        outputs, truncated = cell.collector.outputs, cell.collector.truncated
        self._on_finished(
            CellResult(name, cell.code, cell.status, outputs, cell.started, seconds, cell.count, truncated)
        )

"""Calls of tools: functions of the host that code in the kernel may call."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rlm_kernel.engine import kernel_says
from rlm_kernel.engine.events import CallStarted, Listener
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import CANCELLED, CallRecord, HostCall, PauseTimer, Recording, Tools
from rlm_kernel.errors import NoRecord, RecordedFailure, RLMError, ToolError

_PREVIEW = 200


def digest(kind: str, body: Mapping[str, Any]) -> str:
    """sha256 (hex) of a request's canonical JSON: how a recording finds the answer again."""
    canonical = json.dumps([kind, body], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def preview(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as Python has it, cut: `weather(city='Berlin', days=3)`."""
    given, left = [], _PREVIEW
    for key, value in arguments.items():
        shown = value[:left] if isinstance(value, str) else value
        given.append(f"{key}={_short(shown, left)}")
        left -= len(given[-1])
        if left <= 0:
            break
    return f"{name}({', '.join(given)})"[:_PREVIEW]


def _short(value: Any, most: int) -> str:
    """Its beginning, without a look at the rest of a large one."""
    if isinstance(value, list):
        value = value[:most]
    elif isinstance(value, dict):
        value = dict(list(value.items())[:most])
    return repr(value)[: max(0, most)]


class ToolCalls:
    """Makes the calls of one run, counts them and records them.

    An answer that an earlier cell had is never given again but by a recording: a function of the host may do
    something each time.
    """

    def __init__(
        self,
        tools: Tools | None,
        ledger: Ledger,
        recording: Recording | None,
        tell: Listener,
        record: Callable[[str, CallRecord], None],
    ) -> None:
        """`tools`: None for none; `record` takes the record of a call of a cell."""
        self._tools = tools
        self._ledger = ledger
        self._recording = recording
        self._tell = tell
        self._record = record

    async def call(self, call: HostCall, asking: PauseTimer) -> Any:
        """`asking` is entered while the user is asked. Raises RLMError."""
        name, arguments = kernel_says.tool_call(call.body)
        identity, shown = digest("tool", {"name": name, "arguments": arguments}), preview(name, arguments)
        self._tell(CallStarted(call.cell, call.id, "tool", shown, None, identity))
        past = await self._recording.find(call, identity) if self._recording else None
        if past is not None:
            self._record(call.cell, past)
            if past.error is not None:
                raise RecordedFailure(past.error, past.error_type or ToolError.in_cell)
            return past.answer
        record = CallRecord(
            call.id, "tool", identity, shown, datetime.now(UTC), 0.0, occurrence=call.occurrence, cost=0.0
        )
        answer, failure, clock = None, None, time.monotonic()
        try:
            answer = await self._made(call, name, arguments, asking)
            return answer
        except RLMError as error:
            failure = error
            raise
        finally:
            wrong = (str(failure), failure.in_cell) if failure else (CANCELLED, None)
            text, error_type = (None, None) if answer is not None else wrong
            seconds = time.monotonic() - clock
            done = replace(record, answer=answer, error=text, error_type=error_type, seconds=seconds)
            self._record(call.cell, done)

    async def _made(
        self, call: HostCall, name: str, arguments: Mapping[str, Any], asking: PauseTimer
    ) -> dict[str, Any]:
        """Raises RLMError."""
        has = self._tools is not None and self._tools.has(name)
        if not has and self._recording is not None:
            raise NoRecord(f"This call of the tool {name} has no record, and the tool was not given.")
        self._ledger.count_tool_call()
        if self._tools is None or not has:
            raise ToolError(f"There is no tool called {name!r} here: only what the user gave can be called.")
        return await self._tools.call(name, arguments, call.pause_timer, asking)

"""What host calls do: sub-model calls, files, the answer, the budget. Every one is recorded for the trace."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import Answer, CallKind, CallRecord, Completion, HostCallHandler, Models, Trace
from rlm_kernel.errors import RLMError, UsageError

PREVIEW = 200
"""Characters of a prompt that the trace shows; its digest stands for the whole."""
MAX_FREE = 10_000
"""Records kept of one cell's calls that the ledger does not bound: a loop over a refused call must not fill memory and disk."""


def digest(kind: str, body: Mapping[str, Any]) -> str:
    """sha256 (hex) of a request's canonical JSON: how a recording finds the answer again."""
    canonical = json.dumps([kind, body], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


class HostCalls:
    """Does the host calls of one run. The broker calls `handlers`; the loop brackets each cell with `begin` and `end`."""

    def __init__(self, models: Models, ledger: Ledger, trace: Trace, locate: Callable[[str], Mapping[str, Any]]) -> None:
        """`locate` finds a host path for the kernel, or raises FileRefused."""
        self._models = models
        self._ledger = ledger
        self._trace = trace
        self._locate = locate
        self._cell: str | None = None
        self._records: list[CallRecord] = []
        self._free = 0
        self._answer: Answer | None = None

    def handlers(self) -> dict[str, HostCallHandler]:
        """One for each kind of host call."""
        return {"llm_query": self._llm_query, "file": self._file, "final": self._final, "budget": self._budget}

    def begin(self, cell_id: str) -> None:
        self._cell, self._records, self._free, self._answer = cell_id, [], 0, None

    def end(self) -> tuple[tuple[CallRecord, ...], Answer | None]:
        """The cell's calls, in the order in which they ended, and the answer that it delivered last."""
        self._cell = None
        return tuple(self._records), self._answer

    async def _llm_query(self, cell: str, call: str, body: Mapping[str, Any]) -> Any:
        prompt, model = body.get("prompt"), body.get("model")
        if not isinstance(prompt, str) or not isinstance(model, str | None) or not prompt.strip():
            raise UsageError("llm_query takes a prompt that is a text with something in it, and perhaps a model's name.")
        prompt = _writable(prompt)
        started, clock = datetime.now(UTC), time.monotonic()
        self._trace.call_started(cell, call, "llm_query")
        reply: Completion | None = None
        failure: RLMError | None = None
        try:
            self._ledger.reserve_call()
            reply = await self._models.complete([{"role": "user", "content": prompt}], role="sub", model=model)
            self._ledger.settle("sub", reply)
            return reply.text
        except RLMError as error:
            failure = error
            raise
        finally:
            error_text = None if reply else str(failure) if failure else "cancelled: the cell ended before the answer came"
            self._record(
                cell,
                CallRecord(
                    id=call,
                    kind="llm_query",
                    prompt_digest=digest("llm_query", {"prompt": prompt, "model": model}),
                    preview=prompt[:PREVIEW],
                    started=started,
                    seconds=time.monotonic() - clock,
                    answer=reply.text if reply else None,
                    error=error_text,
                    model=reply.model if reply else (model or self._models.name("sub"))[:PREVIEW],
                    usage=reply.usage if reply else CallRecord.usage,
                    cost=reply.cost if reply else None,
                    attempts=reply.attempts if reply else getattr(failure, "attempts", 1),
                ),
            )

    async def _file(self, cell: str, call: str, body: Mapping[str, Any]) -> Any:
        path = body.get("path")
        if not isinstance(path, str):
            raise UsageError("A path must be a text.")
        try:
            found = dict(self._locate(path))
        except RLMError as error:
            self._simple(cell, call, "file", {"path": path}, error=str(error))
            raise
        self._simple(cell, call, "file", {"path": path}, answer=found)
        return found

    async def _final(self, cell: str, call: str, body: Mapping[str, Any]) -> Any:
        text = body.get("text")
        if not isinstance(text, str):
            raise UsageError("An answer must be a text.")
        if cell == self._cell:
            self._answer = Answer(_writable(text), _json_value(body.get("value")))
            # The answer itself is in the trace's closing cell; here its digest is enough.
            self._simple(cell, call, "final", {"characters": len(text)}, answer=len(text))
        return None

    async def _budget(self, cell: str, call: str, body: Mapping[str, Any]) -> Any:
        left = self._ledger.left()
        self._simple(cell, call, "budget", {}, answer=left)
        return left

    def _simple(self, cell: str, call: str, kind: str, body: Mapping[str, Any], *, answer: Any = None, error: str | None = None) -> None:
        """Record a call that takes no time."""
        preview = json.dumps(body)[:PREVIEW]
        self._record(
            cell,
            CallRecord(call, cast(CallKind, kind), digest(kind, body), preview, datetime.now(UTC), 0.0, answer=answer, error=error),
        )

    def _record(self, cell: str, record: CallRecord) -> None:
        if cell != self._cell:
            return
        if record.kind != "llm_query" or record.error is not None:
            self._free += 1
            if self._free > MAX_FREE:
                return
        self._records.append(record)
        self._trace.call_finished(cell, record)


def _writable(text: str) -> str:
    """The text without lone surrogates, which no file, terminal or model takes."""
    return text.encode("utf-8", "replace").decode()


def _json_value(value: Any) -> Any:
    """An answer's value as data that any JSON reader takes; None where it is not: NaN, or nested without end."""
    try:
        return json.loads(_writable(json.dumps(value, ensure_ascii=False, allow_nan=False)))
    except (ValueError, RecursionError):
        return None

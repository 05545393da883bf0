"""A cell's recorded calls where they are many: each is checked when the trace is read, and made when it is
asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from rlm_kernel.engine.protocols import MODEL_CALLS, TOLD_CALLS, Shares, Totals
from rlm_kernel.trace.accounts import shares_of
from rlm_kernel.trace.packed import Packed
from rlm_kernel.trace.schema import CallMeta, CellMeta, usage_of

_NOT_COUNTED = ("BudgetExceeded", "NoRecord", "TextWanted")
"""Calls that failed in these ways were never made, but for child RLMs that had begun: these have a trace."""


def is_call(call: CallMeta) -> bool:
    """Whether it was to ask a model: not a question to a child that was put again, with its file's text."""
    return call.kind in MODEL_CALLS and call.error_type != "TextWanted"


def is_told(call: CallMeta) -> bool:
    """Whether people are told of it: a call of a model or of a tool."""
    return call.kind in TOLD_CALLS and call.error_type != "TextWanted"


def was_made(call: CallMeta) -> bool:
    """Whether a model was asked, or the cache of its answers."""
    refused = call.error_type in _NOT_COUNTED and not call.trace
    return is_call(call) and not call.again and not refused


def spent_on(calls: Iterable[CallMeta]) -> Totals:
    """What these calls have used."""
    spent = Totals()
    for call in calls:
        _count(spent, call)
    return spent


def _count(spent: Totals, call: CallMeta) -> None:
    if call.kind == "tool":
        spent.tool_calls += call.error_type not in _NOT_COUNTED
    if not was_made(call):
        return
    spent.calls += call.calls
    spent.tool_calls += call.tool_calls
    spent.children += bool(call.trace)
    spent.stored += call.stored
    usage, known, unpriced = usage_of(call), call.cost or 0.0, int(call.cost is None and call.error is None)
    spent.sub_usage += usage
    spent.known_cost += known
    spent.unpriced += unpriced
    spent.models += shares_of(call.models) or Shares.one(
        call.role, calls=call.calls, usage=usage, known_cost=known, unpriced=unpriced
    )


class PackedCalls(Sequence[CallMeta]):
    """The calls of a cell, each made anew when it is asked for.

    Raises pydantic's ValidationError for one that does not hold.

    `linked`: those that have a trace of their own. `delivered`: one of them gave the answer of the run.
    `asked`, `failed`: how many asked a model, and how many of these failed.
    """

    def __init__(self, packed: Packed) -> None:
        self._items = packed.items
        self.asked = self.failed = 0
        self.linked: list[CallMeta] = []
        self.delivered = False
        for number, item in enumerate(packed.items):
            try:
                call = _call(item)
            except ValidationError as error:
                raise _placed(error, number) from error
            if is_call(call):
                self.asked += 1
                self.failed += call.error is not None
            if call.trace:
                self.linked.append(call)
            self.delivered |= _delivers(call)

    @cached_property
    def spent(self) -> Totals:
        """What they have used."""
        return spent_on(self)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> CallMeta: ...
    @overload
    def __getitem__(self, index: slice) -> list[CallMeta]: ...
    def __getitem__(self, index: int | slice) -> CallMeta | list[CallMeta]:
        return (
            [_call(item) for item in self._items[index]]
            if isinstance(index, slice)
            else _call(self._items[index])
        )

    def __iter__(self) -> Iterator[CallMeta]:
        return map(_call, self._items)


def cell_meta(found: Any) -> CellMeta:
    """`metadata.rlm` of a cell; where its calls are packed they stay so.

    Raises pydantic's ValidationError.
    """
    calls = found.get("calls") if isinstance(found, dict) else None
    if not isinstance(calls, Packed):
        return CellMeta.model_validate(found)
    meta = CellMeta.model_validate({**found, "calls": []})
    meta.calls = PackedCalls(calls)
    return meta


def asked(meta: CellMeta) -> tuple[int, int]:
    """How many calls of a cell asked a model, and how many of these failed."""
    if isinstance(meta.calls, PackedCalls):
        return meta.calls.asked, meta.calls.failed
    calls = list(filter(is_call, meta.calls))
    return len(calls), sum(call.error is not None for call in calls)


def linked(meta: CellMeta) -> list[CallMeta]:
    """The calls of a cell that have a trace of their own."""
    return (
        meta.calls.linked
        if isinstance(meta.calls, PackedCalls)
        else [call for call in meta.calls if call.trace]
    )


def delivered(meta: CellMeta) -> bool:
    """Whether the code of a cell gave the answer of the run."""
    return meta.calls.delivered if isinstance(meta.calls, PackedCalls) else any(map(_delivers, meta.calls))


def _delivers(call: CallMeta) -> bool:
    return call.kind == "final" and call.error is None


def _call(item: Any) -> CallMeta:
    return CallMeta.model_validate_json(bytes(memoryview(item)))


def _placed(error: ValidationError, number: int) -> ValidationError:
    """The error of one call as that of the cell that has it."""
    details: list[InitErrorDetails] = [
        {
            "type": one["type"],
            "loc": ("calls", number, *one["loc"]),
            "input": one["input"],
            "ctx": one.get("ctx", {}),
        }
        for one in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, details)

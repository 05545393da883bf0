"""Which errors concern one question of a batch, and which would meet every other, too."""

from __future__ import annotations

from rlm_kernel.errors import (
    BudgetExceeded,
    ConfigError,
    KernelError,
    ModelError,
    RLMError,
    SetupError,
    TraceNotWritten,
    WorkerLost,
)
from rlm_kernel.session.batch.item import Failure, Item

_PASSING = ("rate_limit", "timeout", "connection", "server", "empty")
"""Faults of models that may be over another time."""


def failure_of(error: RLMError, item: Item) -> Failure:
    """What a question is told to have failed by. Raises the error where it ends all."""
    if _ends_all(error, item):
        raise error
    passing = isinstance(error, KernelError | WorkerLost) or (
        isinstance(error, ModelError) and error.fault in _PASSING
    )
    return Failure(type(error).__name__, error.message, error.hint, passing)


def _ends_all(error: RLMError, item: Item) -> bool:
    """Whether every other question would fail of it: this one has no settings of its own to blame."""
    if isinstance(error, BudgetExceeded):
        return error.limit == "batch"
    if isinstance(error, TraceNotWritten):
        return True
    if isinstance(error, ModelError):
        wrong = error.no_credit or error.exit_code == SetupError.exit_code
        return wrong and not has_own(item, "sandbox.", "prompt.", "limits.")
    return isinstance(error, SetupError) or (isinstance(error, ConfigError) and not has_own(item, "sandbox."))


def has_own(item: Item, *others: str) -> bool:
    """Whether a question has settings of its own, but for those whose names begin so."""
    return any(not key.startswith(others) for key in item.changes)

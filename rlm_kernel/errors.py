"""Every error that rlm_kernel raises on purpose.

RLMError
├── UsageError            the request itself is wrong                        exit 2
│   └── ConfigError       a setting is unknown or has a bad value
├── SetupError            the machine lacks something                        exit 3
│   ├── DockerError       no engine, no permission, or the engine refused
│   ├── ImageError        the kernel image is missing or cannot be built
│   └── LocalModelError   the embedded model cannot be fetched or started
├── ModelError            a model did not give a usable reply                exit 1 (3 for a missing key)
├── KernelError           the kernel could not be started or was lost        exit 1
├── BudgetExceeded        a limit of the ledger is reached                   exit 1
├── NoAnswer              an RLM ended without an answer, or with one of another type
├── FileRefused           a path that the user did not name, or cannot read  exit 2
├── TraceError            a trace cannot be read                             exit 1
│   └── TraceNotWritten   there is no room for it, or no folder any more
├── CallCancelled         its cell was interrupted
├── NoRecord              a replayed cell made a call that has no record     exit 1
└── RecordedFailure       a call failed in the recorded run, so it does again

Each carries `message` (what happened and why) and `hint` (what to do next).
"""

from __future__ import annotations

from typing import Any, Literal


class RLMError(Exception):
    """Base of all errors here. `hint` says what to do next; `exit_code` is what `rlm` ends with.

    `in_cell` names the exception of `rlm_runtime.wire` as which code in the kernel sees it.
    """

    exit_code = 1
    in_cell = "HostCallError"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(RLMError):
    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or has a bad value."""


class FileRefused(UsageError):
    """A path that the user did not name, or that cannot be read."""

    in_cell = "FileRefused"


class TextWanted(UsageError):
    """A loaded file was named where its text is needed; the message is the number of characters that can be taken."""

    in_cell = "TextWanted"


class SetupError(RLMError):
    exit_code = 3


class DockerError(SetupError):
    """No engine, no permission on its socket, or a refusal of the engine."""


class ImageError(SetupError):
    """The kernel image is missing or cannot be built."""


class LocalModelError(SetupError):
    """The embedded local model cannot be fetched, checked or started."""


ModelFault = Literal[
    "auth", "unknown_model", "rate_limit", "timeout", "connection", "server", "empty", "refused", "too_long", "bad_request"
]


class ModelError(RLMError):
    """A model gave no usable reply, after `attempts` tries. `fault` is the kind; `auth` and `unknown_model` are set-up errors.

    `spent`: a Completion with what the tries used all the same (a reply without text is paid for); None for nothing.
    """

    in_cell = "LLMError"

    def __init__(self, message: str, *, fault: ModelFault, model: str, attempts: int = 1, hint: str = "", spent: Any = None) -> None:
        super().__init__(message, hint=hint)
        self.fault = fault
        self.model = model
        self.attempts = attempts
        self.spent = spent
        if fault in ("auth", "unknown_model"):
            self.exit_code = SetupError.exit_code


class KernelError(RLMError):
    """The kernel could not be started, or was lost and could not be brought back."""


class BudgetExceeded(RLMError):
    """The limit named `limit` is reached; nothing was sent."""

    in_cell = "BudgetExceeded"

    def __init__(self, message: str, *, limit: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class NoAnswer(RLMError):
    """An RLM ended without an answer, or with one that is not of the type that was asked for. `of_budget`: because of a limit."""

    in_cell = "LLMError"

    def __init__(self, message: str, *, hint: str = "", of_budget: bool = False) -> None:
        super().__init__(message, hint=hint)
        if of_budget:
            self.in_cell = BudgetExceeded.in_cell


class TraceError(RLMError):
    """A trace cannot be read, or is not what it should be."""


class TraceNotWritten(TraceError):
    """The disk does not take a trace: it is full, or the folder is gone or closed."""


class CallCancelled(RLMError):
    """A call of a cell that was interrupted."""

    in_cell = "Cancelled"


class NoRecord(RLMError):
    """A replayed cell made a call that the trace has no record of; nothing was sent."""

    in_cell = "NoRecord"


class RecordedFailure(RLMError):
    """A call failed in the recorded run; the cell sees the same exception again."""

    def __init__(self, message: str, in_cell: str) -> None:
        super().__init__(message)
        self.in_cell = in_cell

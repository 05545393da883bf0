"""Every error that rlm_kernel raises.

RLMError
├── UsageError            the request itself is wrong                        exit 2
│   └── ConfigError       a setting is unknown or has a bad value
├── SetupError            the machine lacks something                        exit 3
│   ├── DockerError       no engine, no permission, or the engine refused
│   ├── ImageError        the kernel image is missing or cannot be built
│   ├── KeyringError      the system's keyring does not give or store a key
│   └── LocalModelError   the embedded model cannot be fetched or started
├── ModelError            a model did not give a usable reply                exit 1 (3 for a missing key)
├── KernelError           the kernel could not be started or was lost        exit 1
├── WorkerLost            workers of a cluster ended while they answered     exit 1
├── BudgetExceeded        a limit of the ledger is reached                   exit 1
├── NoAnswer              an RLM ended without an answer, or with one of another type
├── FileRefused           a path that the user did not name, or cannot read  exit 2
├── TraceError            a trace cannot be read                             exit 1
│   └── TraceNotWritten   the disk is full, or its folder is gone
├── CallCancelled         the cell of the call was interrupted
├── NoRecord              a replayed cell made a call that has no record     exit 1
├── ToolError             a tool of the host failed, or may not be called
├── RecordedFailure       a call failed in the recorded run, so it does again
└── InternalError         anything unexpected: a bug in rlm_kernel           exit 1

Each has `message` (what happened and why) and `hint` (what to do next).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, Literal, ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_TOLD = 500
"""Characters of a foreign error's text."""
_SHOW = (
    "To see where it happened, run the same command with `rlm --debug …`; in Python, see the error's "
    "__cause__."
)


class RLMError(Exception):
    """Base class of all errors here. `hint` says what to do next; `exit_code` is the exit code of `rlm`.

    `in_cell` is the name of the exception in `rlm_runtime.wire` that code in the kernel sees.
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
    """The request itself is wrong: an option, a setting, a question, a path."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or has a bad value."""


class FileRefused(UsageError):
    """A path that the user did not name, or that cannot be read."""

    in_cell = "FileRefused"


class TextWanted(UsageError):
    """A call named a loaded file where it needs the file's text.

    The message is the number of characters that the call can take.
    """

    in_cell = "TextWanted"


class SetupError(RLMError):
    """The machine lacks something that a run needs."""

    exit_code = 3


class DockerError(SetupError):
    """There is no engine, no permission to use its socket, or the engine refused a request."""


class ImageError(SetupError):
    """The kernel image is missing or cannot be built."""


class KeyringError(SetupError):
    """The system's keyring does not give or store a key.

    `kind`: "none" (there is no keyring), "locked", "late" (no answer in time), or "failed".
    """

    def __init__(self, message: str, *, hint: str = "", kind: str = "failed") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class LocalModelError(SetupError):
    """The embedded local model cannot be fetched, checked or started."""


ModelFault = Literal[
    "auth",
    "unknown_model",
    "rate_limit",
    "timeout",
    "own_timeout",
    "connection",
    "server",
    "empty",
    "refused",
    "too_long",
    "bad_request",
]


class ModelError(RLMError):
    """A model gave no usable reply, after `attempts` tries.

    `fault` is the kind of failure. `auth` and `unknown_model` are set-up errors; `own_timeout` means that the
    time-out that the code gave for its call ran out.

    `no_credit`: the account's quota is used up, so all other calls fail, too.

    `spent`: a Completion with what the tries used anyway (a reply without text still costs money); None for
    nothing.
    """

    in_cell = "LLMError"

    def __init__(
        self,
        message: str,
        *,
        fault: ModelFault,
        model: str,
        attempts: int = 1,
        hint: str = "",
        spent: Any = None,
        no_credit: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.no_credit = no_credit
        self.fault = fault
        self.model = model
        self.attempts = attempts
        self.spent = spent
        if fault in ("auth", "unknown_model"):
            self.exit_code = SetupError.exit_code
        if fault == "own_timeout":
            self.in_cell = "TimedOut"


class KernelError(RLMError):
    """The kernel could not be started, or was lost and could not be brought back."""


class WorkerLost(RLMError):
    """Several workers of a cluster ended, one after the other, while they answered this question."""


class BudgetExceeded(RLMError):
    """The limit named `limit` is reached; nothing was sent."""

    in_cell = "BudgetExceeded"

    def __init__(self, message: str, *, limit: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class NoAnswer(RLMError):
    """An RLM ended without an answer, or its answer does not have the requested type.

    `of_budget`: a limit was the reason.
    """

    in_cell = "LLMError"

    def __init__(self, message: str, *, hint: str = "", of_budget: bool = False) -> None:
        super().__init__(message, hint=hint)
        if of_budget:
            self.in_cell = BudgetExceeded.in_cell


class TraceError(RLMError):
    """A trace cannot be read, or is not what it should be."""


class TraceNotWritten(TraceError):
    """A trace cannot be written: the disk is full, or the folder is gone or not writable."""


class ToolError(RLMError):
    """A host function that the code called failed, or must not be called in this way."""

    in_cell = "ToolError"


class CallCancelled(RLMError):
    """A call was cancelled because its cell was interrupted."""

    in_cell = "Cancelled"


class NoRecord(RLMError):
    """A replayed cell made a call that is not recorded in the trace; nothing was sent."""

    in_cell = "NoRecord"


class RecordedFailure(RLMError):
    """A call failed in the recorded run; the cell sees the same exception again."""

    def __init__(self, message: str, in_cell: str) -> None:
        super().__init__(message)
        self.in_cell = in_cell


class InternalError(RLMError):
    """An unexpected error: a bug in rlm_kernel, or the system refused something.

    The cause has the traceback.
    """

    @classmethod
    def of(cls, error: BaseException, about: str = "") -> RLMError:
        """The error for any exception but an interrupt; one of ours is itself.

        `about`: what is there all the same, for the hint.
        """
        if isinstance(error, RLMError):
            return error
        if isinstance(error, BaseExceptionGroup):
            inner = [cls.of(one, about) for one in error.exceptions]
            return next((one for one in inner if isinstance(one, cls)), inner[0])
        return cls(_foreign(error), hint="\n".join(filter(None, [about, _SHOW])))


def is_interrupt(error: BaseException) -> bool:
    """Whether it ends a run from outside, and is no error."""
    import asyncio  # late: `rlm --help` does without

    return isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit | GeneratorExit)


def backstop(
    work: Callable[_Given, Coroutine[Any, Any, _Result]],
) -> Callable[_Given, Coroutine[Any, Any, _Result]]:
    """Have a coroutine function raise nothing but RLMError, whatever happens in it, and interrupts."""

    @functools.wraps(work)
    async def backed(*given: _Given.args, **named: _Given.kwargs) -> _Result:
        running = work(*given, **named)  # an argument that it does not take is its caller's fault: TypeError
        try:
            return await running
        except BaseException as error:
            if isinstance(error, RLMError) or is_interrupt(error):
                raise
            raise InternalError.of(error) from error

    return backed


def _foreign(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        about = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{about}{error.strerror}."
    try:
        said = " ".join(str(error).split())
    except Exception:  # its text may be what is wrong with it
        said = ""
    return f"This is a bug in rlm_kernel: {type(error).__name__}{f': {said[:_TOLD]}' if said else ''}"

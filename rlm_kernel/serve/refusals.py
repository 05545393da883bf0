"""What a client is told where it gets no answer, in the form that OpenAI's errors have."""

from __future__ import annotations

from typing import Any

from rlm_kernel.errors import BudgetExceeded, ModelError, NoAnswer, RLMError, UsageError
from rlm_kernel.printable import printable

_TOLD = 2_000
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


class Refused(Exception):
    """A request that is refused, or that failed: the HTTP status, a message for people, OpenAI's `code` and
    `param`, and the seconds after which another attempt makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = printable(message)[:_TOLD]
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = _KINDS.get(self.status, "server_error")
        kind = "insufficient_quota" if self.code == "insufficient_quota" else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        more = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return more | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def bad(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """The refusal of a request that is wrong in itself."""
    return Refused(400, message, param=param, code=code)


def refusal_of(error: BaseException) -> Refused:
    """What a client is told of a failure: of the server's machine it learns nothing."""
    match error:
        case Refused():
            return error
        case BudgetExceeded():
            return Refused(429, error.message, code="insufficient_quota")
        case ModelError() if error.fault == "rate_limit":
            return Refused(429, error.message, code="rate_limit_exceeded", retry_after=30)
        case ModelError():
            return Refused(502, error.message, code=error.fault)
        case UsageError():
            return Refused(400, error.message)
        case NoAnswer():
            return Refused(502, error.message, code="no_answer")
        case RLMError():
            return Refused(
                503, "The server cannot answer questions at the moment.", code="unavailable", retry_after=30
            )
    return Refused(500, "The server had an internal error.", code="internal_error")

"""What a failed litellm call means: which fault it is, what the provider said, and whether trying again may help.

litellm alone does not tell: a cut connection and a malformed reply both come as its InternalServerError with status 500,
and a 403 as its bare APIError. So the chain of causes is looked at before the status.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rlm_kernel.errors import ModelFault


@dataclass(frozen=True)
class Failure:
    """Why one attempt failed. `retry_after`: seconds that the provider asked to wait; `status`: HTTP's."""

    fault: ModelFault
    said: str
    retry: bool = False
    retry_after: float | None = None
    status: int | None = None

    @property
    def reason(self) -> str:
        """In a word or two, for who waits."""
        if self.fault == "connection" and _REFUSED.search(self.said):
            return "connection refused"
        return f"server error {self.status}" if self.fault == "server" and self.status else _REASONS.get(self.fault, self.fault)


_REASONS: dict[ModelFault, str] = {
    "rate_limit": "rate-limited",
    "timeout": "time-out",
    "connection": "connection lost",
    "server": "server error",
    "empty": "empty reply",
}
_REFUSED = re.compile(r"refused|Connect call failed")


_BY_STATUS: dict[int, tuple[ModelFault, bool]] = {
    401: ("auth", False),
    402: ("auth", False),
    403: ("auth", False),
    404: ("unknown_model", False),
    408: ("timeout", True),
    409: ("server", True),
    413: ("too_long", False),
    425: ("server", True),
    429: ("rate_limit", True),
}


def classify(error: Exception) -> Failure:
    """The Failure that an exception of litellm, or of asyncio.timeout, stands for."""
    import aiohttp
    import httpx

    litellm: Any = importlib.import_module("litellm")
    said = _said(error)
    chain = list(_causes(error))
    if isinstance(error, litellm.ContextWindowExceededError):
        return Failure("too_long", said)
    if isinstance(error, litellm.ContentPolicyViolationError):
        return Failure("refused", said)
    if any(isinstance(link, (TimeoutError, httpx.TimeoutException, litellm.Timeout)) for link in chain):
        return Failure("timeout", "no reply in time" if isinstance(error, TimeoutError) else said, retry=True)
    if any(isinstance(link, (httpx.TransportError, aiohttp.ClientError)) for link in chain):
        return Failure("connection", _innermost(chain), retry=True)
    if any(isinstance(link, json.JSONDecodeError) for link in chain):
        return Failure("server", f"the reply is not valid JSON: {said}", retry=True)
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return Failure("bad_request", f"{type(error).__name__}: {said}")
    fault, retry = _BY_STATUS.get(status, ("server", True) if status >= 500 else ("bad_request", False))
    if status == 429 and _out_of_quota(error):
        retry = False
    return Failure(fault, said, retry, _retry_after(error), status)


def read_reply(response: Any) -> tuple[str, str | None] | Failure:
    """(text, finish reason) of a reply, or why it is none."""
    if not response.choices:
        return Failure("empty", "the reply has no choices", retry=True)
    choice = response.choices[0]
    message, finish = choice.message, choice.finish_reason
    refusal = (getattr(message, "provider_specific_fields", None) or {}).get("refusal") or getattr(message, "refusal", None)
    if refusal:
        return Failure("refused", str(refusal))
    if finish == "content_filter":
        return Failure("refused", "the provider's content filter stopped the reply")
    text = message.content or ""
    if text.strip():
        return text, finish
    if finish == "length":
        return Failure("empty", "the limit on reply tokens was reached before any text")
    return Failure("empty", "reasoning, but no text" if getattr(message, "reasoning_content", None) else "no text", retry=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _innermost(chain: list[BaseException]) -> str:
    texts = [str(link) for link in reversed(chain) if str(link)]
    return texts[0] if texts else "the connection was lost"


_PREFIX = re.compile(r"^(?:(?:litellm\.)?(?:\w*(?:Error|Exception)|Timeout(?: Error)?)(?::| -)\s*)+")


def _said(error: Exception) -> str:
    """The provider's own words, without litellm's class names, in one short line."""
    text = " ".join(_PREFIX.sub("", str(error)).split())
    return (text if len(text) <= 400 else text[:397] + "...") or type(error).__name__


def _out_of_quota(error: Exception) -> bool:
    """Whether a 429 means that the account has run dry, which waiting does not mend."""
    body = getattr(error, "body", None)
    return isinstance(body, dict) and "insufficient_quota" in (body.get("code"), body.get("type"))


def _retry_after(error: Exception) -> float | None:
    """Seconds from a Retry-After header, which has a number or a date."""
    for headers in (getattr(error, "litellm_response_headers", None), getattr(getattr(error, "response", None), "headers", None)):
        if not headers or not (value := headers.get("retry-after")):
            continue
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        when = _date(value)
        if when is not None:
            # By the provider's own clock where it is told: this machine's may be wrong.
            return max(0.0, (when - (_date(headers.get("date")) or datetime.now(UTC))).total_seconds())
    return None


def _date(value: str | None) -> datetime | None:
    """A header's date; None for what is none."""
    try:
        found = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

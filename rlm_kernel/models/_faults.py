"""Why there was no reply: which fault it is, what the provider said, and whether trying again may help.

Providers agree on HTTP's status codes alone, and gateways hide those in a 200. So the words are looked at as
well: the shapes in which an error comes, and how servers say that a prompt is too long.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rlm_kernel.errors import ModelFault
from rlm_kernel.models._bounds import Unreadable, load

_SHOWN = 400
"""Characters of a provider's words."""
_READ = 20_000
"""Characters of a provider's words that are looked at."""
_NUMBER = 100
"""Characters of a header that has a number or a date."""
_LONGEST_WAIT = 365 * 86400.0
"""Seconds; who asks to wait longer asks for no more."""
_LARGEST_WINDOW = 10**9
"""Tokens; what is more is no window."""


@dataclass(frozen=True)
class Failure:
    """Why one attempt failed.

    `retry_after`: seconds that the provider asked to wait; `status`: HTTP's, or the one that an error told.

    `window`: tokens that the model reads at most, where the refusal of a long prompt told. `elsewhere`: what
    came is of no model's server, so the address is wrong. `advice`: what to do, where the fault alone does
    not tell. `moved`: where a redirect that was not followed points, as it may be shown.
    """

    fault: ModelFault
    said: str
    retry: bool = False
    retry_after: float | None = None
    status: int | None = None
    window: int | None = None
    elsewhere: bool = False
    advice: str = ""
    moved: str = ""

    @property
    def reason(self) -> str:
        """In a word or two, for who waits."""
        if self.fault == "connection" and _REFUSED.search(self.said):
            return "connection refused"
        return (
            f"server error {self.status}"
            if self.fault == "server" and self.status
            else _REASONS.get(self.fault, self.fault)
        )


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
    405: ("unknown_model", False),
    408: ("timeout", True),
    409: ("server", True),
    413: ("too_long", False),
    425: ("server", True),
    429: ("rate_limit", True),
}
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)(?: (?:is|was|has been))?[_ "
    r"]exceed|exceed_context_size|request_too_large|string_above_max_length"
    r"|max(?:imum)?[_ ](?:\w+[_ ]){0,2}?(?:context|prompt|input)[_ "
    r"](?:length|size|window)|max_(?:model|seq)_len"
    r"|exceed\w*[^.]{0,60}(?:context|tokens?\b|limit of \d)|range of input length|max(?:imum)? model length"
    r"|max_(?:completion_)?tokens must be at least 1, got -|max_new_tokens\W{1,3}must be <=|must have less "
    r"than [\d,]+ tokens"
    r"|(?:prompt|input|request|messages?|conversation)[^.\x22]{0,20}(?<!took) too (?:long|large)"
    r"|too (?:long|large) for[^.]{0,30}(?:model|context)"
    r"|(?:longer|greater|larger) than the (?:model'?s )?(?:maximum )?context"
    r"|context (?:window|length|size)[^.]{0,30} (?:overflow|limit|too)"
    r"|reduce the length of|too many (?:input |prompt )?tokens|token limit "
    r"exceeded|context[^.]{0,20}overflow",
    re.IGNORECASE,
)
_TOO_FAST = re.compile(r"rate.?limit|too many requests|throttl|per minute|please wait|\bTPM\b", re.IGNORECASE)
_WINDOWS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:max(?:imum)?|available)[_ ](?:\w+[_ ]){0,3}?(?:context|prompt|input)[_ "
        r"]?(?:length|size|window)?\W*(?:is|of)?\W*(\d[\d,]+)",
        r">\s*(\d[\d,]+)\s*(?:max|$)",
        r"context limit:[\d\s,+]+>\s*(\d[\d,]+)",
        r"max(?:imum)? model length\D{0,6}(\d[\d,]+)",
        r"max_new_tokens\W{1,3}must be <=\s*(\d[\d,]+)",
        r"must have less than (\d[\d,]+) tokens",
        r"input length should be \[\d+,\s*(\d[\d,]+)",
        r"(\d[\d,]+)\s+max(?:imum)? context",
        r"tokens allowed\s*\(?\s*(\d[\d,]+)",
        r"max_(?:model|seq)_len\D{0,4}(\d[\d,]+)",
        r"context (?:length|window|size)(?! by)\D{0,12}(\d[\d,]+)",
        r"token limit:?\s*(\d[\d,]+)",
        r"limit of (\d[\d,]+)",
    )
)
_BUDGET = r"budget[ _](?:has been )?exceeded|over budget"
_NOT_ALLOWED = re.compile(
    r"content.?(?:policy|filter|management)|safety system|moderation|data_?inspection_?failed|input was "
    r"flagged|inappropriate content",
    re.IGNORECASE,
)
_WORDS: tuple[tuple[ModelFault, bool, re.Pattern[str]], ...] = (
    ("refused", False, _NOT_ALLOWED),
    ("auth", False, re.compile(r"insufficient "
                               r"(?:credit|balance|funds)|invalid.{0,12}(?:api.?key|token)|unauthori[sz]ed|login "  # noqa: E501
                               r"fail"
                               r"|authenticat|incorrect api key|no credits|arrears|credit balance is too "
                               rf"low|{_BUDGET}"
                               r"|api.?key[^.]{0,20}(?:not "
                               r"valid|invalid|missing|required|expired)", re.IGNORECASE)),
    ("rate_limit", True, _TOO_FAST),
    ("rate_limit", False, re.compile(r"quota|billing", re.IGNORECASE)),
    ("unknown_model", False, re.compile(r"model[^.]{0,60}(?:not found|does not exist|not exist|unknown)|no "
                                        r"such model|invalid model name"
                                        r"|no models? (?:is |are )?loaded", re.IGNORECASE)),
    ("server", True, re.compile(r"model (?:has |was |is )?(?:unloaded|crashed|overloaded)|channel "
                                r"error|\bloading\b[^.]{0,20}model"
                                r"|model[^.]{0,30}\bloading\b|over capacity", re.IGNORECASE)),
    ("timeout", True, re.compile(r"timed? ?out|deadline exceeded", re.IGNORECASE)),
)  # fmt: skip
_ACCOUNT = re.compile(rf"quota|balance|credits?\b|billing|{_BUDGET}", re.IGNORECASE)
_OUT_OF_QUOTA = re.compile(
    rf"insufficient_quota|exceeded your current quota|billing|{_BUDGET}|insufficient balance|please recharge",
    re.IGNORECASE,
)
_NO_SUCH_PATH = re.compile(
    r"unexpected endpoint|invalid url \(|cannot post /|plain http request was sent to https", re.IGNORECASE
)
_NOT_SUPPORTED = re.compile(
    r"no endpoints found that (?:support|can handle) the requested parameters", re.IGNORECASE
)
_AGAIN_IN = re.compile(
    r"(?:retry|again) (?:in|after) "
    r"(?:(\d{1,4})h)?(?:(\d{1,4})m(?!s))?\s*(?:(\d[\d.]{0,12})\s*(ms|s\b|seconds?))?",
    re.IGNORECASE,
)


def of_error(found: Any, status: int, headers: Mapping[str, str] | None = None) -> Failure:
    """The Failure of an error as a provider put it.

    `status` is HTTP's; one that the error tells itself counts where that is 200.
    """
    said = words(found)
    if status < 400:
        status = _told_status(found) or status
    everything = f"{said} {json.dumps(found, default=str)[:4000]}"
    again = _retry_after(headers or {})
    if again is None and status >= 400:
        again = _told_wait(everything)
    failure = _fault(status, said, everything, again)
    failure = replace(failure, retry_after=again, status=status if status >= 400 else None)
    if failure.fault == "too_long":
        return replace(failure, window=_window(found, said))
    return failure


def _fault(status: int, said: str, everything: str, again: float | None) -> Failure:
    """`again`: seconds after which the provider says that a new attempt may go well."""
    if status < 500 and _NO_SUCH_PATH.search(said):
        advice = "Write the address with https:// instead." if "HTTPS" in said else ""
        return Failure("connection", said, elsewhere=True, advice=advice)
    hurried = status != 413 and (_TOO_FAST.search(everything) or _ACCOUNT.search(everything))
    if not hurried and status not in (401, 402, 403, 404, 408, 429) and _TOO_LONG.search(everything):
        return Failure("too_long", said)
    if status == 429:
        # A free tier's limit of calls in a minute is called a quota as well, but tells when the next call may
        # be made.
        return Failure("rate_limit", said, retry=bool(again) or not _OUT_OF_QUOTA.search(everything))
    if status == 403 and _NOT_ALLOWED.search(everything):
        return Failure("refused", said)
    if status == 404 and _NOT_SUPPORTED.search(said):
        return Failure("bad_request", said)
    if status in _BY_STATUS:
        fault, retry = _BY_STATUS[status]
        return Failure(fault, said, retry)
    if status < 500:
        for fault, retry, pattern in _WORDS:
            if pattern.search(everything):
                return Failure(fault, said, retry)
    if 400 <= status < 500:
        return Failure("bad_request", said)
    return Failure("server", said, retry=True)


def _told_status(found: Any) -> int | None:
    """An HTTP status that an error tells in itself."""
    if not isinstance(found, Mapping):
        return None
    for name in ("code", "status", "status_code", "http_code"):
        value = found.get(name)
        if isinstance(value, str) and re.fullmatch(r"\s*[1-9][0-9]{2}\s*", value[:_NUMBER]):
            value = int(value[:_NUMBER])
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return _told_status(found.get("error")) if isinstance(found.get("error"), Mapping) else None


def _window(found: Any, said: str) -> int | None:
    """Tokens of the window, where the refusal tells: by a field, else by its words."""
    inner = found.get("error", found) if isinstance(found, Mapping) else None
    told = inner.get("n_ctx") if isinstance(inner, Mapping) else None
    if isinstance(told, int) and 0 < told <= _LARGEST_WINDOW:
        return told
    for pattern in _WINDOWS:
        if match := pattern.search(said):
            window = int(match[1].replace(",", ""))
            return window if 0 < window <= _LARGEST_WINDOW else None
    return None


_SAYING = (
    "message",
    "detail",
    "msg",
    "error_msg",
    "error_message",
    "status_msg",
    "error_description",
    "reason",
    "title",
    "raw",
)


def words(found: Any) -> str:
    """What an error says to people, in one short line, whatever its shape."""
    text = " ".join(_spoken(found, 8)[:_READ].split()) or "no reason was given"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _spoken(found: Any, depth: int) -> str:
    if isinstance(found, str):
        inner = found.strip()
        if depth and inner.startswith(("{", "[")):  # gateways put the error of another one in, as text
            try:
                return _spoken(load(inner), depth - 1) or found
            except ValueError:
                return found
        return found
    if not depth or found is None:
        return ""
    if isinstance(found, list):
        return "; ".join(filter(None, (_spoken(item, depth - 1) for item in found[:5])))
    if not isinstance(found, Mapping):
        return str(found)
    parts = [_spoken(found["error"], depth - 1)] if found.get("error") else []
    parts += [_spoken(found[name], depth - 1) for name in _SAYING if found.get(name)]
    if isinstance(found.get("loc"), list):  # pydantic's: which parameter it is about
        parts.insert(0, ".".join(map(str, found["loc"])) + ":")
    metadata = found.get("metadata")
    parts += [_spoken(metadata, depth - 1)] if isinstance(metadata, Mapping) and metadata.get("raw") else []
    said = list(dict.fromkeys(part for part in parts if part.strip()))
    return " ".join(said) or next(
        (str(found[name]) for name in ("code", "type", "status") if found.get(name)),
        json.dumps(found, default=str),
    )


def of_transport(error: BaseException) -> Failure:
    """The Failure of a request that had no reply."""
    import aiohttp

    chain = list(_causes(error))
    if isinstance(error, Unreadable):
        return Failure("server", str(error))
    if any(isinstance(link, TimeoutError) for link in chain):
        return Failure("timeout", "no reply in time", retry=True)
    said = _innermost(chain)
    if any(
        isinstance(link, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError)
        for link in chain
    ):
        advice = (
            "If your proxy or server uses its own certificate authority, name the certificate in "
            "SSL_CERT_FILE."
        )
        return Failure("connection", f"its certificate is not trusted: {said}", advice=advice)
    if any(isinstance(link, ssl.SSLError) for link in chain):
        if any(
            sign in said.upper()
            for sign in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
        ):
            return Failure(
                "connection",
                "the server at this address does not use https",
                advice="Write the address with http:// instead.",
            )
        return Failure("connection", said, retry=True)
    if any(isinstance(link, aiohttp.InvalidURL) for link in chain):
        return Failure("connection", f"the address is not valid: {said}")
    if isinstance(error, ValueError):  # a proxy that cannot be used, a name that is none
        return Failure("connection", said)
    if any(isinstance(link, aiohttp.ClientConnectorDNSError) for link in chain):
        return Failure("connection", f"its host name cannot be resolved: {said}", retry=True)
    return Failure("connection", said, retry=True)


def of_litellm(error: Exception) -> Failure:
    """The Failure of an exception of litellm's, where nothing was sent, or the reply was one that litellm
    alone can read.
    """
    text = " ".join(_PREFIX.sub("", str(error)[:_READ]).split()) or type(error).__name__
    status = getattr(error, "status_code", None)
    if any(isinstance(link, TimeoutError) for link in _causes(error)):
        return Failure("timeout", "no reply in time", retry=True)
    if not isinstance(status, int):
        return Failure("bad_request", words(f"{type(error).__name__}: {text}"))
    failure = of_error(text, status)
    return failure if failure.fault != "server" or status >= 500 else Failure("bad_request", failure.said)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _innermost(chain: list[BaseException]) -> str:
    texts = [str(link) for link in reversed(chain) if str(link)]
    return words(texts[0]) if texts else "the connection was lost"


_PREFIX = re.compile(r"^(?:(?:litellm\.)?(?:\w*(?:Error|Exception)|Timeout(?: Error)?)(?::| -)\s*)+")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header, which has a number or a date; some providers tell them in
    milliseconds as well.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")[:_NUMBER]) * unit
        except ValueError:
            continue
        return None if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_WAIT)
    value = headers.get("retry-after")
    when = _date(value)
    if when is None:
        return None
    # By the provider's own clock where it is told: this machine's may be wrong.
    return min(
        max(0.0, (when - (_date(headers.get("date")) or datetime.now(UTC))).total_seconds()), _LONGEST_WAIT
    )


def _told_wait(everything: str) -> float | None:
    """Seconds after which an error's own words say that the next attempt may be made."""
    if match := re.search(r'"retryDelay":\s*"(\d[\d.]{0,12})s"', everything):
        return _number(match[1])
    match = _AGAIN_IN.search(everything)
    if match is None or not any(match.groups()):
        return None
    seconds = _number(match[3] or "0") / (1000 if match[4] == "ms" else 1)
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _date(value: str | None) -> datetime | None:
    """A header's date; None for what is none."""
    try:
        # Python's own takes the square of a header's length.
        found = parsedate_to_datetime((value or "")[:_NUMBER])
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

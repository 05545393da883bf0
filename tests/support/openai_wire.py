"""Requests, replies and faults of the OpenAI chat API, as bytes of HTTP/1.1."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

FaultKind = Literal[
    "rate_limit",  # 429, with Retry-After if given
    "quota",  # 429, insufficient_quota
    "server_error",  # 500
    "overloaded",  # 503
    "request_timeout",  # 408
    "auth",  # 401
    "forbidden",  # 403
    "unknown_model",  # 404
    "bad_request",  # 400
    "too_long",  # 400, context_length_exceeded
    "content_filter",  # 200, finish_reason content_filter
    "refusal",  # 200, message.refusal
    "empty_content",  # 200, content ""
    "reasoning_only",  # 200, reasoning_content and no content
    "cut_length",  # 200, content "" and finish_reason length
    "malformed",  # 200, a body that is not JSON
    "no_completion",  # 200, a body that is JSON, and no chat completion
    "no_choices",  # 200, choices []
    "no_usage",  # 200, a reply without usage
    "negative_usage",  # 200, a reply that used less than nothing
    "empty_body",  # 200, no body
    "cut",  # connection closed with no reply
    "cut_middle",  # connection closed in the middle of the body
    "hang",  # no reply until release()
    "raw",  # what `body`, `status` and `content_type` say
]

_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")
ERRORS: dict[str, tuple[int, str, str]] = {
    "rate_limit": (429, "Rate limit reached for this model.", "rate_limit_exceeded"),
    "quota": (429, "You exceeded your current quota.", "insufficient_quota"),
    "server_error": (500, "The server had an error.", "server_error"),
    "overloaded": (503, "The engine is overloaded.", "overloaded"),
    "request_timeout": (408, "The request took too long.", "timeout"),
    "auth": (401, "Incorrect API key provided.", "invalid_api_key"),
    "forbidden": (403, "Your account may not use this model.", "forbidden"),
    "unknown_model": (404, "The model does not exist.", "model_not_found"),
    "bad_request": (400, "A parameter has a bad value.", "invalid_value"),
    "too_long": (400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded"),
}
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
}
REASONS |= {429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Fault:
    """What the next call meets instead of a reply."""

    kind: FaultKind
    model: str | None = None
    """Only calls of this model; None for any."""
    schema: bool = False
    """Only calls that ask for a reply by a schema."""
    retry_after: str | None = None
    """Value of the Retry-After header."""
    date: str | None = None
    """Value of the Date header: the server's clock."""
    message: str | None = None
    """The provider's words, instead of the usual ones."""
    body: bytes | Mapping[str, Any] = b""
    """Of "raw": the body as it is sent; a mapping is sent as JSON."""
    status: int = 200
    content_type: str = "application/json"
    encoding: str = ""
    """Of "raw": value of the Content-Encoding header."""


@dataclass(frozen=True)
class Request:
    """One request as it came in. Header names are in lower case; `at` is time.monotonic()."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    at: float

    def meets(self, fault: Fault) -> bool:
        """Whether it is one of those that a fault is for."""
        return fault.model in (None, self.model) and (not fault.schema or "response_format" in self.body)

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def prompt(self) -> str:
        """Text of the last message."""
        messages = self.body.get("messages") or [{}]
        return str(messages[-1].get("content", ""))


def completion(
    request: Request, text: str | None, *, finish_reason: str = "stop", **message: Any
) -> dict[str, Any]:
    """A chat.completion object; about four characters count as a token, and all but the last message as
    cached.
    """
    sizes = [len(str(item.get("content") or "")) for item in request.body.get("messages", [])]
    prompt, cached, reply = sum(sizes) // 4 + 1, sum(sizes[:-1]) // 4, len(text or "") // 4 + 1
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text, **message},
            },
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": reply,
            "total_tokens": prompt + reply,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def response(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    content_type: str = "application/json",
) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def error(kind: str, *, message: str | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    status, text, code = ERRORS[kind]
    return response(
        status, encode({"error": {"message": message or text, "type": code, "code": code}}), headers
    )


def faulty(fault: Fault, request: Request) -> bytes | None:
    kind = fault.kind
    if kind in ERRORS:
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        headers |= {} if fault.date is None else {"Date": fault.date}
        return error(kind, message=fault.message, headers=headers)
    if kind == "cut":
        return None
    if kind == "raw":
        body = fault.body if isinstance(fault.body, bytes) else encode(fault.body)
        more = {"Content-Encoding": fault.encoding} if fault.encoding else {}
        return response(fault.status, body, more, content_type=fault.content_type)
    bodies: dict[str, Callable[[], bytes]] = {
        "content_filter": lambda: encode(completion(request, "", finish_reason="content_filter")),
        "refusal": lambda: encode(
            completion(request, None, refusal=fault.message or "I cannot help with that.")
        ),
        "empty_content": lambda: encode(completion(request, "")),
        "reasoning_only": lambda: encode(completion(request, "", reasoning_content="Let me think.")),
        "cut_length": lambda: encode(completion(request, "", finish_reason="length")),
        "malformed": lambda: b'{"id": "chatcmpl-test", "choices": [{"ind',
        "no_completion": lambda: b'["busy"]',
        "no_choices": lambda: encode({**completion(request, ""), "choices": []}),
        "no_usage": lambda: encode({**completion(request, "some text"), "usage": None}),
        "negative_usage": lambda: encode(
            {**completion(request, "some text"), "usage": dict.fromkeys(_USAGE, -1000)}
        ),
        "empty_body": lambda: b"",
    }
    if kind == "cut_middle":
        whole = response(200, encode(completion(request, "half a reply" * 20)))
        return whole[: len(whole) - 50]
    return response(200, bodies[kind]())

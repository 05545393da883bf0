"""Asking a provider without litellm, whose own way takes ten times the time for each call.

A request is in the names of `litellm.acompletion`, whichever way it goes; here it is written as the
provider's wire has it, and the reply is read. Tests hold that litellm sends the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel.models import _anthropic, _anthropic_reply, _catalog, _reading
from rlm_kernel.models._faults import Failure
from rlm_kernel.models._http import Exchange, Http

if TYPE_CHECKING:
    from rlm_kernel.models._endpoint import Endpoint

_NOT_SENT = frozenset(
    {"model", "api_base", "api_key", "timeout", "num_retries", "max_retries", "drop_params", "extra_headers"}
)
"""What of a request is for litellm alone."""
_NO_KEY = "fake-api-key"
"""What servers that want no key are sent, by litellm too."""


def can(provider: str, entry: Mapping[str, Any] | None) -> bool:
    """Whether a model can be asked in this way: some of OpenAI's models have another wire."""
    return provider in _catalog.providers() and (entry or {}).get("mode", "chat") == "chat"


async def ask(
    http: Http, endpoint: Endpoint, request: Mapping[str, Any], heard: Callable[[str, bool], bool] | None
) -> Exchange:
    """Send a request. `heard`: the reply is streamed, as of `Watch`."""
    if endpoint.provider == _catalog.ANTHROPIC:
        url, headers, body = _to_anthropic(endpoint, request)
        pieces: Callable[[Mapping[str, Any]], tuple[str, str]] = _anthropic_reply.Stream().add
    else:
        url, headers, body = _to_openai(endpoint, request)
        pieces = _reading.heard_in
    headers |= request.get("extra_headers", {})
    if heard is None:
        return await http.send("POST", url, headers, json.dumps(body).encode())
    body["stream"] = True
    listening = Listening(pieces, heard)
    return await http.send("POST", url, headers, json.dumps(body).encode(), listening)


def parse(endpoint: Endpoint, exchange: Exchange) -> dict[str, Any] | Failure:
    """The completion of a reply, in OpenAI's form; else what came instead."""
    if endpoint.provider != _catalog.ANTHROPIC or exchange.status >= 300:
        return _reading.parse(exchange)
    events = _reading.events(exchange.body)
    if events is None:
        found = _reading.parse(exchange)
        return (
            found
            if isinstance(found, Failure) or _reading.error_in(found)
            else _anthropic_reply.completion(found)
        )
    stream = _anthropic_reply.Stream()
    for event in events:
        stream.add(event)
    whole = stream.completion()
    choice = whole["choices"][0]
    if stream.error is not None and not choice["message"].get("content"):
        return {"error": stream.error}
    if exchange.stopped:
        choice["finish_reason"] = "stopped"
    elif not stream.ended or stream.error is not None:
        choice["finish_reason"] = "error"
        choice["error"] = stream.error or {"message": "the stream ended before the reply did", "code": 502}
    return whole


def _to_anthropic(
    endpoint: Endpoint, request: Mapping[str, Any]
) -> tuple[str, dict[str, str], dict[str, Any]]:
    asked = {**request, "model": endpoint.name}
    for name in _NOT_SENT - {"model"}:
        asked.pop(name, None)
    key = endpoint.key.value if endpoint.key else ""
    return (
        _anthropic.url(endpoint.address.url or ""),
        dict(_anthropic.headers(key)),
        _anthropic.body(asked, endpoint.entry or {}),
    )


def _to_openai(endpoint: Endpoint, request: Mapping[str, Any]) -> tuple[str, dict[str, str], dict[str, Any]]:
    provider = _catalog.providers()[endpoint.provider]
    name = endpoint.name
    if provider.prefix and not name.startswith("accounts/"):
        name = provider.prefix + name
    parameters = {
        provider.renames.get(part, part): value
        for part, value in request.items()
        if part not in _NOT_SENT and part not in provider.drops
    }
    key = endpoint.key.value if endpoint.key else _NO_KEY
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    organization = os.environ.get("OPENAI_ORGANIZATION", "").strip()
    if endpoint.provider == "openai" and organization:
        headers["OpenAI-Organization"] = organization
    base = (endpoint.address.url or "").rstrip("/")
    return f"{base}/chat/completions", headers, {"model": name, **parameters, **provider.also}


class Listening:
    """Hears the bytes of an event stream, and tells the pieces in them. Implements `_http.Hear`."""

    def __init__(
        self, pieces: Callable[[Mapping[str, Any]], tuple[str, str]], heard: Callable[[str, bool], bool]
    ) -> None:
        self._pieces = pieces
        self._heard = heard
        self._begun: list[bytes] = []
        """The parts of a line that has not ended."""

    def __call__(self, data: bytes) -> int:
        taken = 0
        while (end := data.find(b"\n", taken)) >= 0:
            line = b"".join([*self._begun, data[taken:end]])
            self._begun, taken = [], end + 1
            if not self._line(line):
                return end  # without the line's end, so that it is less than all
        self._begun.append(data[taken:])
        return len(data)

    def _line(self, line: bytes) -> bool:
        name, _, data = line.partition(b":")
        chunk = _reading.chunk_of(data.decode("utf-8", "replace")) if name == b"data" else None
        text, thoughts = self._pieces(chunk) if chunk is not None else ("", "")
        return all(
            self._heard(said, is_thought) for said, is_thought in ((thoughts, True), (text, False)) if said
        )

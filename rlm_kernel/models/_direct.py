"""Asking a provider without litellm, whose own way takes ten times the time for each call.

A request is in the names of `litellm.acompletion`, whichever way it goes; here it is written as the
provider's wire has it, and the reply is read. Tests hold that litellm sends the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.protocols import UNWATCHED, Watch
from rlm_kernel.models import _anthropic, _anthropic_reply, _catalog, _reading
from rlm_kernel.models._faults import Failure
from rlm_kernel.models._http import Exchange, Http
from rlm_kernel.models._streams import Chunks, Events

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
    http: Http, endpoint: Endpoint, request: Mapping[str, Any], watch: Watch = UNWATCHED
) -> Exchange:
    """Send a request. With `heard` of the watch the reply is streamed."""
    anthropic = endpoint.provider == _catalog.ANTHROPIC
    url, headers, body = (_to_anthropic if anthropic else _to_openai)(endpoint, request)
    if watch.heard is None:
        return await http.send("POST", url, headers, json.dumps(body).encode(), sent=watch.sent)
    body["stream"] = True
    listening = Listening(_anthropic_reply.Stream() if anthropic else Chunks(), watch.heard)
    exchange = await http.send("POST", url, headers, json.dumps(body).encode(), listening, watch.sent)
    if listening.reads and exchange.error is None:
        exchange.made = listening.completion(stopped=exchange.stopped)
    return exchange


def parse(endpoint: Endpoint, exchange: Exchange) -> dict[str, Any] | Failure:
    """The completion of a reply, in OpenAI's form; else what came instead."""
    if exchange.made is not None:
        return dict(exchange.made)
    if endpoint.provider != _catalog.ANTHROPIC or exchange.status >= 300:
        return _reading.parse(exchange)
    if (events := _reading.events(exchange.body)) is not None:
        stream = _anthropic_reply.Stream()
        for event in events:
            stream.add(event)
        return stream.completion(stopped=exchange.stopped)
    found = _reading.parse(exchange)
    if isinstance(found, Failure) or _reading.error_in(found):
        return found
    return _anthropic_reply.completion(found)


def _to_anthropic(
    endpoint: Endpoint, request: Mapping[str, Any]
) -> tuple[str, dict[str, str], dict[str, Any]]:
    asked = {**request, "model": endpoint.name}
    for name in _NOT_SENT - {"model"}:
        asked.pop(name, None)
    body = _anthropic.body(asked, endpoint.entry or {})
    extra = dict(request.get("extra_headers", {}))
    key = endpoint.key.value if endpoint.key else ""
    if endpoint.key is not None and endpoint.key.source.startswith(_catalog.ANTHROPIC_TOKEN):
        key, extra = "", {"Authorization": f"Bearer {key}", **extra}
    return _anthropic.url(endpoint.address.url or ""), _anthropic.headers(key, body, extra), body


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
    headers |= request.get("extra_headers", {})
    base = (endpoint.address.url or "").rstrip("/")
    return f"{base}/chat/completions", headers, {"model": name, **parameters, **provider.also}


class Listening:
    """Hears the bytes of an event stream, and tells the pieces in them. Implements `_http.Hear`."""

    def __init__(self, reply: Chunks | _anthropic_reply.Stream, heard: Callable[[str, bool], bool]) -> None:
        self._reply = reply
        self._heard = heard
        self._events = Events()

    @property
    def reads(self) -> bool:
        """It is a stream of events, of which nothing else needs to be kept."""
        return self._events.any

    @property
    def ended(self) -> bool:
        """The stream said that it is over."""
        return self._events.ended or self._reply.ended

    def __call__(self, data: bytes) -> int:
        for chunk, end in self._events.feed(data):
            if not self._tell(chunk):
                return end  # without the line's end, so that it is less than all
        return len(data)

    def completion(self, *, stopped: bool) -> dict[str, Any] | None:
        """What has come, once the stream is over or `stopped`."""
        for chunk in () if stopped else self._events.rest():
            self._tell(chunk)
        self._reply.ended = self.ended
        return self._reply.completion(stopped=stopped)

    def _tell(self, chunk: Mapping[str, Any]) -> bool:
        text, thoughts = self._reply.add(chunk)
        return all(
            self._heard(said, is_thought) for said, is_thought in ((thoughts, True), (text, False)) if said
        )

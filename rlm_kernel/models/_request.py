"""A request in the names of `litellm.acompletion`: what both roads to a provider begin with."""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlm_kernel.checked import writable
from rlm_kernel.engine.protocols import Message, Picture
from rlm_kernel.models import _adapting, _caching, _catalog

if TYPE_CHECKING:
    from rlm_kernel.models._endpoint import Endpoint

_SIGNED = frozenset({"anthropic", "bedrock", "bedrock_converse", "vertex_ai", "azure_ai"})
"""Providers that take a model's signed blocks of reasoning back, by litellm's name for them."""


def request_for(
    endpoint: Endpoint, messages: Sequence[Message], schema: Mapping[str, Any] | None, *, streams: bool
) -> dict[str, Any]:
    """A request, whose `messages` are still the engine's: `written` makes them the wire's."""
    counted = streams and not (endpoint.direct and endpoint.provider == _catalog.ANTHROPIC)
    settings = endpoint.settings
    wanted = None if schema is None or endpoint.schemas is False else {"name": "answer", "schema": schema}
    optional = {
        "api_base": endpoint.address.url,
        "api_key": endpoint.key.value if endpoint.key else None,
        "stream_options": {"include_usage": True} if counted else None,
        "response_format": wanted and {"type": "json_schema", "json_schema": wanted},
    }
    request = {
        "model": endpoint.model,
        "messages": messages,
        "timeout": settings.timeout,
        "num_retries": 0,
        "max_retries": 0,
        "drop_params": True,
        **{name: value for name, value in optional.items() if value is not None},
        **copy.deepcopy(dict(endpoint.parameters)),  # litellm writes into what it is given
    }
    for change in endpoint.changes:
        _adapting.apply(request, change)
    return request


def written(endpoint: Endpoint, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as it is sent, with the messages as OpenAI's wire has them, and marks for the cache."""
    messages = [_message(endpoint.provider, message) for message in request["messages"]]
    if not endpoint.settings.caching:
        return {**request, "messages": messages}
    more: dict[str, Any] = {}
    if key := _caching.cache_key(endpoint.provider, endpoint.address.url, messages):
        more["prompt_cache_key"] = key
    if len(messages) == 1 and endpoint.marks and isinstance(prompt := messages[0]["content"], str):
        if parts := endpoint.beginnings.split(prompt):
            messages[0]["content"] = _caching.in_blocks(*parts)
    else:
        messages = _caching.marked(endpoint.provider, endpoint.name, endpoint.entry, messages)
    return {**request, "messages": messages, **more}


def beginning_of(request: Mapping[str, Any]) -> str:
    """The marked beginning of a single prompt; "" for none."""
    content = request["messages"][0]["content"] if len(request["messages"]) == 1 else ""
    if not isinstance(content, list) or not content or not content[0].get("cache_control"):
        return ""
    return str(content[0].get("text", ""))


def _message(provider: str, message: Message) -> dict[str, Any]:
    text = writable(message["content"])
    made: dict[str, Any] = {"role": message["role"], "content": text}
    if pictures := message.get("images"):
        made["content"] = [{"type": "text", "text": text}, *map(_picture, pictures)]
    if thinking := message.get("thinking"):
        if provider in _SIGNED:
            made["thinking_blocks"] = list(thinking)
        elif provider == "openrouter":
            made["reasoning_details"] = list(thinking)
    return made


def _picture(picture: Picture) -> dict[str, Any]:
    data = base64.b64encode(picture.data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{picture.media_type};base64,{data}"}}

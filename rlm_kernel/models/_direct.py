"""The road to OpenAI-compatible servers without litellm's own, which takes ten times the time for each call.

All that litellm knows stays its own: addresses and keys, which parameters a model takes, prices. Only the
request itself is written here. Tests hold that both roads do the same.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from typing import Any

from rlm_kernel.models._http import Exchange, Http

PROVIDERS = frozenset({"openai"})
"""Of litellm's: OpenAI itself, and whatever `api_base` names."""
PARAMETERS = ("temperature", "max_tokens", "max_completion_tokens", "response_format")


def can(provider: str, entry: Mapping[str, Any] | None) -> bool:
    """Whether a model can be asked in this way: some of OpenAI's models have another wire."""
    return provider in PROVIDERS and (entry or {}).get("mode", "chat") == "chat"


async def ask(http: Http, litellm: Any, request: Mapping[str, Any]) -> Exchange:
    """Send a request as `litellm.acompletion` takes it; `api_base` and `api_key` must be in it."""
    name, provider, _, _ = litellm.get_llm_provider(request["model"], api_base=request["api_base"])
    body = {"model": name, "messages": request["messages"], **_parameters(name, provider, request)}
    headers = {"Authorization": f"Bearer {request['api_key']}", "Content-Type": "application/json"}
    if organization := os.environ.get("OPENAI_ORGANIZATION", "").strip():
        headers["OpenAI-Organization"] = organization
    return await http.send(
        "POST", f"{request['api_base']}/chat/completions", headers, json.dumps(body).encode()
    )


def _parameters(name: str, provider: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the model takes them: litellm knows that some have other names, or none."""
    given = {part: request[part] for part in PARAMETERS if part in request}
    if not given:
        return {}
    options = importlib.import_module("litellm.utils").get_optional_params
    mapped = options(model=name, custom_llm_provider=provider, drop_params=True, **given)
    return {part: value for part, value in mapped.items() if part not in ("stream", "extra_body")} | (
        mapped.get("extra_body") or {}
    )

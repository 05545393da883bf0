"""The road to OpenAI-compatible servers without litellm's own, which takes ten times the time for each call.

All that litellm knows stays its own: addresses and keys, which parameters a model takes, how errors are to be read, prices. Only the
request itself goes through aiohttp. Tests hold that both roads do the same.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

PROVIDERS = frozenset({"openai"})
"""Of litellm's: OpenAI itself, and whatever `api_base` names."""
_SHOWN = 200
"""Bytes of a reply that make no sense, in the error."""
_USUAL = "https://api.openai.com/v1"


def can(provider: str, entry: Mapping[str, Any] | None) -> bool:
    """Whether a model can be asked in this way: some of OpenAI's models have another wire."""
    return provider in PROVIDERS and (entry or {}).get("mode", "chat") == "chat"


class NoCompletion(Exception):
    """The reply is JSON, but of something else; a fault of the server's, as litellm has it."""

    status_code = 500


class Direct:
    """Sends requests as `litellm.acompletion` takes them. Belongs to one event loop, on which it is closed."""

    def __init__(self, litellm: Any) -> None:
        self._litellm = litellm
        self._session: aiohttp.ClientSession | None = None

    async def acompletion(self, **request: Any) -> Any:
        """litellm's ModelResponse. Raises what litellm raises, aiohttp.ClientError, json.JSONDecodeError, NoCompletion."""
        name, provider, key, base = self._litellm.get_llm_provider(request["model"], api_base=request.get("api_base"))
        base = base or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE") or _USUAL
        key = request.get("api_key") or key or os.environ.get("OPENAI_API_KEY", "")
        body = {"model": name, "messages": request["messages"], **self._parameters(name, provider, request)}
        headers = {"Authorization": f"Bearer {key}"}
        if organization := os.environ.get("OPENAI_ORGANIZATION"):
            headers["OpenAI-Organization"] = organization
        async with self._open().post(f"{base.rstrip('/')}/chat/completions", json=body, headers=headers) as response:
            content = await response.read()
            if response.status != 200:
                self._raise(name, provider, response.status, content, {header.lower(): value for header, value in response.headers.items()})
        found = json.loads(content)
        try:
            return self._litellm.ModelResponse(**found)
        except (TypeError, ValueError) as error:  # pydantic's is a ValueError
            raise NoCompletion(f"the reply is no chat completion: {content[:_SHOWN].decode('utf-8', 'replace')!r}") from error

    async def aclose(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # the transports are closed in the loop's next round

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            tls = importlib.import_module("litellm.llms.custom_httpx.http_handler").get_ssl_configuration(None)
            # As many connections as there are slots; no time-out but the caller's own. Proxies as the environment says.
            connector = aiohttp.TCPConnector(limit=0, ssl=tls)
            timeout = aiohttp.ClientTimeout(total=None)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True)
        return self._session

    def _parameters(self, name: str, provider: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters as the model takes them: litellm knows that some have other names, or none."""
        given = {part: request[part] for part in ("temperature", "max_tokens", "response_format") if part in request}
        if not given:
            return {}
        options = importlib.import_module("litellm.utils").get_optional_params
        mapped = options(model=name, custom_llm_provider=provider, drop_params=True, **given)
        return {part: value for part, value in mapped.items() if part not in ("stream", "extra_body")} | (mapped.get("extra_body") or {})

    def _raise(self, name: str, provider: str, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        """Raise what litellm raises of such a reply."""
        text = content.decode("utf-8", "replace")
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        error = body.get("error", body) if isinstance(body, dict) else None
        said = f"Error code: {status} - {body if body is not None else text}"
        failure = importlib.import_module("litellm.llms.openai.common_utils").OpenAIError
        raised = failure(status_code=status, message=said, headers=headers, body=error if isinstance(error, dict) else None)
        self._litellm.exception_type(model=name, original_exception=raised, custom_llm_provider=provider)

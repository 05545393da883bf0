"""The root and the sub model behind litellm: keys, concurrency, time-outs, retries, usage and cost.

litellm takes seconds to import, so it is imported in a thread, by warm_up() or by the first call.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.config import LLMSettings, Settings
from rlm_kernel.engine.protocols import Completion, Message, Retry, Role, Usage
from rlm_kernel.errors import ConfigError, ModelError, ModelFault
from rlm_kernel.models._direct import Direct
from rlm_kernel.models._direct import can as can_go_direct
from rlm_kernel.models._litellm_faults import Failure, classify, read_reply
from rlm_kernel.models._near import nearest_model
from rlm_kernel.models.slots import Slots
from rlm_kernel.nearest import did_you_mean
from rlm_kernel.secrets import known_secrets, redact

MAX_WAIT = 60.0
"""Seconds between two attempts at most, whatever a provider asks for."""
FIRST_WAIT = 0.5
"""Seconds; doubled with each attempt, and a random share of it is waited."""

_OTHER_KEY = {"GEMINI_API_KEY": "GOOGLE_API_KEY", "HUGGINGFACE_API_KEY": "HF_TOKEN"}
"""Variables that litellm takes as well, but does not count when it looks for missing ones."""

_users: Counter[int] = Counter()
"""Open LitellmModels by the id of their event loop: litellm's clients are shared by all on a loop."""


@dataclass
class _Endpoint:
    """One model at one address."""

    section: str
    settings: LLMSettings
    model: str
    key: str | None
    slots: Slots
    provider: str = ""
    entry: Mapping[str, Any] | None = None
    """Its line in litellm's table."""
    direct: bool = False
    """It is asked without litellm's own road."""
    schemas: bool | None = None
    """Whether it takes a JSON schema for its reply; None where that is not known."""


class LitellmModels:
    """Models by litellm, as the settings say. Implements `engine.protocols.Models`.

    Belongs to the event loop of its first call; aclose() must run there. Raises ConfigError if no root model is set.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.root_llm.model is None:
            raise ConfigError(
                "No root model is set.",
                hint="Name one with -m provider/model, RLM_MODEL, or root_llm.model in config.json; -m local needs no key.",
            )
        root = _endpoint("root_llm", settings.root_llm)
        sub = _endpoint("sub_llm", settings.sub_llm if settings.sub_llm.model else settings.root_llm)
        if (root.model, root.settings.api_base) == (sub.model, sub.settings.api_base):
            root.slots = sub.slots = Slots(min(root.settings.concurrency, sub.settings.concurrency))
        self._endpoints: dict[Role, _Endpoint] = {"root": root, "sub": sub}
        self._keys = [endpoint.key for endpoint in (root, sub) if endpoint.key]
        self._litellm: Any = None
        self._direct: Direct | None = None
        self._loop_id: int | None = None

    def name(self, role: Role) -> str:
        """The model that plays the role, `provider/model`."""
        return self._endpoints[role].model

    def window(self, role: Role) -> int | None:
        """Its context window in tokens, from the settings, else from litellm's table (which is there after warm_up())."""
        endpoint = self._endpoints[role]
        return endpoint.settings.window or (endpoint.entry or {}).get("max_input_tokens")

    def priced(self, role: Role) -> bool:
        """Whether its price is known: from the settings, else from litellm's table (which is there after warm_up())."""
        endpoint = self._endpoints[role]
        return endpoint.settings.input_price is not None or "input_cost_per_token" in (endpoint.entry or {})

    async def warm_up(self) -> None:
        """Import litellm (seconds, in a thread) and check both models' names and keys, before any call.

        Raises ModelError with fault unknown_model or auth. Idempotent, and complete() does the same; call it early.
        """
        if self._litellm is not None:
            return
        litellm = await asyncio.to_thread(_import_litellm)
        for endpoint in self._endpoints.values():
            self._check(litellm, endpoint)
        if self._litellm is None:
            self._litellm, self._direct = litellm, Direct(litellm)
            self._loop_id = id(asyncio.get_running_loop())
            _users[self._loop_id] += 1

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        sent: Callable[[], None] = lambda: None,
        retrying: Callable[[Retry], bool] = lambda _retry: True,
    ) -> Completion:
        """One reply of the role's model, or of `model`, which must be the root's or the sub's name.

        Waits for a free slot of that model, of which there are fewer while it is over its rate limit. `schema` is sent where the model
        is known to take one, or may do. `retrying` hears of each wait for another attempt, and may refuse it.

        Raises ModelError: at once for faults that stay (key, name, request, refusal), else after the last retry.
        """
        endpoint = self._choose(role, model)
        await self.warm_up()
        return await self._attempts(endpoint, self._request(endpoint, messages, schema), sent, retrying)

    async def aclose(self) -> None:
        """Close the connections, once the last LitellmModels of this event loop is closed. Idempotent."""
        loop_id, self._loop_id, litellm, self._litellm = self._loop_id, None, self._litellm, None
        if loop_id is None:
            return
        if self._direct is not None:
            await self._direct.aclose()
        _users[loop_id] -= 1
        if _users[loop_id] <= 0:
            del _users[loop_id]
            await _close_clients(litellm)

    # One call

    def _choose(self, role: Role, model: str | None) -> _Endpoint:
        own = self._endpoints[role]
        if model is None or model == own.model:
            return own
        for endpoint in self._endpoints.values():
            if model == endpoint.model:
                return endpoint
        allowed = " and ".join(sorted({endpoint.model for endpoint in self._endpoints.values()}))
        raise ModelError(
            f"The model {model[:80]!r} may not be called here.",
            fault="unknown_model",
            model=model[:80],
            attempts=0,
            hint=f"Allowed: {allowed}. Leave `model` out for {own.model}.",
        )

    def _request(self, endpoint: _Endpoint, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> dict[str, Any]:
        settings = endpoint.settings
        wanted = None if schema is None or endpoint.schemas is False else {"name": "answer", "schema": schema}
        optional = {
            "api_base": settings.api_base,
            "api_key": endpoint.key,
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "response_format": wanted and {"type": "json_schema", "json_schema": wanted},
        }
        return {
            "model": endpoint.model,
            "messages": [{name: _encodable(text) for name, text in message.items()} for message in messages],
            "timeout": settings.timeout,
            "num_retries": 0,
            "max_retries": 0,
            "drop_params": True,
            **{name: value for name, value in optional.items() if value is not None},
        }

    async def _attempts(
        self, endpoint: _Endpoint, request: dict[str, Any], sent: Callable[[], None], retrying: Callable[[Retry], bool]
    ) -> Completion:
        started = time.monotonic()
        usage = Usage()
        cost: float | None = 0.0
        attempt = 0
        schema = "response_format" in request
        while True:
            attempt += 1
            response, outcome = await self._attempt(endpoint, request, sent)
            if response is not None:
                used = _usage(response)
                price = self._cost(endpoint, response, used)
                usage, cost = usage + used, None if cost is None or price is None else cost + price
            if not isinstance(outcome, Failure):
                if schema:
                    endpoint.schemas = "response_format" in request
                seconds = time.monotonic() - started
                return Completion(outcome[0], endpoint.model, usage, cost, seconds, attempt, outcome[1])
            if outcome.fault == "bad_request" and "response_format" in request and not endpoint.schemas:
                # Perhaps because of the schema: once more without, and if that goes well, never with one again.
                del request["response_format"]
                continue
            wait = 0.0 if outcome.retry_after else _wait(attempt)  # in the slots no call begins before that time
            next_in = max(wait, endpoint.slots.pause())
            retry = Retry(outcome.reason, attempt, endpoint.settings.retries + 1, next_in, outcome.retry_after)
            if not outcome.retry or attempt > endpoint.settings.retries or not retrying(retry):
                spent = Completion("", endpoint.model, usage, cost, time.monotonic() - started, attempt) if usage.total else None
                # Raised outside of `except`: the chained exception could show the key in a traceback.
                raise self._error(endpoint, outcome, attempt, spent=spent)
            if wait:
                await asyncio.sleep(wait)

    async def _attempt(
        self, endpoint: _Endpoint, request: Mapping[str, Any], sent: Callable[[], None]
    ) -> tuple[Any, Failure | tuple[str, str | None]]:
        """litellm's response, if there was one, and what it comes to."""
        async with endpoint.slots as began:
            sent()
            try:
                # litellm's own time-out starts anew with each piece of the reply.
                async with asyncio.timeout(endpoint.settings.timeout):
                    road: Any = self._direct if endpoint.direct else self._litellm
                    response = await road.acompletion(**request)
            except Exception as error:
                failure = classify(error)
                if failure.retry and (failure.fault == "rate_limit" or failure.retry_after is not None):
                    endpoint.slots.refused(began, _pause(failure.retry_after))
                return None, failure
            endpoint.slots.succeeded()
        return response, read_reply(response)

    def _cost(self, endpoint: _Endpoint, response: Any, usage: Usage) -> float | None:
        """US dollars by the settings' prices, else by litellm's table, else None. A reply without usage has no known cost."""
        settings = endpoint.settings
        if settings.input_price is not None and settings.output_price is not None:
            if usage.total == 0 and settings.input_price + settings.output_price > 0:
                return None
            return (usage.prompt * settings.input_price + usage.completion * settings.output_price) / 1e6
        entry = endpoint.entry or {}
        if usage.total == 0 or "input_cost_per_token" not in entry or "output_cost_per_token" not in entry:
            return None
        cost = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
        if cost is None:  # litellm sets it on its own road alone
            cost = self._litellm.completion_cost(response, model=endpoint.model, custom_llm_provider=endpoint.provider)
        return max(0.0, float(cost))

    # Errors

    def _check(self, litellm: Any, endpoint: _Endpoint) -> None:
        """Find provider and table line of the model; raise ModelError for an unknown provider or a missing key."""
        try:
            name, endpoint.provider, _, _ = litellm.get_llm_provider(endpoint.model, api_base=endpoint.settings.api_base)
        except litellm.BadRequestError:
            failure = Failure("unknown_model", "its provider is not known")
            near = did_you_mean(nearest_model(litellm, endpoint.model))
            raise self._error(endpoint, failure, 0, f"{near} {_hint(endpoint, failure)}".lstrip()) from None
        endpoint.entry = _table_entry(litellm, endpoint.model, name, endpoint.provider)
        endpoint.direct = can_go_direct(endpoint.provider, endpoint.entry)
        if endpoint.entry is not None or not endpoint.direct:
            endpoint.schemas = bool(litellm.supports_response_schema(endpoint.model))
        if endpoint.key is not None:
            return
        variable = endpoint.settings.api_key_env
        if variable is None:
            missing = litellm.validate_environment(endpoint.model)["missing_keys"]
            # Several variables are ways to sign in (cloud roles, say) of which one is enough: the provider must tell.
            alone = len(missing) == 1 and missing[0].endswith("_API_KEY")
            variable = missing[0] if alone and not os.environ.get(_OTHER_KEY.get(missing[0], "")) else None
        if variable is not None:
            hint = f"Set {variable} in the environment or in a .env file in the current directory."
            if endpoint.settings.api_base is not None:
                hint += f" If {endpoint.settings.api_base} wants no key, any value will do."
            raise self._error(endpoint, Failure("auth", f"no key: {variable} is not set"), 0, hint)

    def _error(
        self, endpoint: _Endpoint, failure: Failure, attempts: int, hint: str | None = None, spent: Completion | None = None
    ) -> ModelError:
        what = _WHAT[failure.fault]
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        secrets = sorted({*self._keys, *known_secrets(os.environ)}, key=len, reverse=True)
        return ModelError(
            redact(f"The model {endpoint.model} {what}{tries}: {failure.said.rstrip('.')}.", secrets),
            fault=failure.fault,
            model=endpoint.model,
            attempts=attempts,
            hint=redact(_hint(endpoint, failure) if hint is None else hint, secrets),
            spent=spent,
        )


_WHAT: dict[ModelFault, str] = {
    "auth": "cannot be used with this key",
    "unknown_model": "is not known",
    "rate_limit": "is over its rate limit",
    "timeout": "did not reply in time",
    "connection": "cannot be reached",
    "server": "failed on the provider's side",
    "empty": "gave an empty reply",
    "refused": "refused to reply",
    "too_long": "got a prompt that is longer than its window",
    "bad_request": "did not accept the request",
}


def _hint(endpoint: _Endpoint, failure: Failure) -> str:
    section, settings = endpoint.section, endpoint.settings
    key = settings.api_key_env or f"{endpoint.provider.upper()}_API_KEY"
    window = settings.window or (endpoint.entry or {}).get("max_input_tokens")
    asked = "" if failure.retry_after is None else f" {failure.retry_after:,.0f} s, as it asks for"
    hints: dict[ModelFault, str] = {
        "auth": f"Check the key in {key} (environment or .env), and that its account may use this model.",
        "unknown_model": f"Write it as provider/model, such as openai/gpt-4o-mini, and check {section}.api_base if one is set.",
        "rate_limit": f"Wait{asked}, or lower {section}.concurrency (now {settings.concurrency})."
        if failure.retry
        else "The account's quota is used up: check its plan and billing.",
        "timeout": f"Raise {section}.timeout (now {settings.timeout:g} s), or send smaller prompts.",
        "connection": f"Check the network, and the address ({settings.api_base or 'the provider’s usual one'}).",
        "server": "Try again later, or use another model.",
        "empty": f"Raise {section}.max_tokens (now {settings.max_tokens or 'not set'}), or use another model.",
        "refused": "Ask in other words, or use another model.",
        "too_long": f"Send smaller pieces; the window is {f'{window} tokens' if window else 'not known'}.",
        "bad_request": f"Check the settings of {section} against what the provider allows.",
    }
    return hints[failure.fault]


def _endpoint(section: str, settings: LLMSettings) -> _Endpoint:
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    if key is None and settings.api_key_env is not None:
        key = os.environ.get(settings.api_key_env) or None
    return _Endpoint(section, settings, settings.model or "", key, Slots(settings.concurrency))


def _wait(attempt: int) -> float:
    """Seconds before the attempt after this one: exponential with full jitter."""
    return random.uniform(0.0, min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 30)))


def _pause(retry_after: float | None) -> float | None:
    """Seconds in which no call goes to a model that asked for a pause."""
    return None if retry_after is None else min(MAX_WAIT, retry_after)


def _encodable(text: str) -> str:
    """The text without lone surrogates, which JSON in UTF-8 cannot carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


# litellm


def _import_litellm() -> Any:
    # Without these, importing litellm fetches a price table from the network and loads a .env from above site-packages.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    litellm: Any = importlib.import_module("litellm")
    # The first call would import this, half a second on the event loop.
    importlib.import_module("openai.resources.chat.completions")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _table_entry(litellm: Any, model: str, name: str, provider: str) -> Mapping[str, Any] | None:
    """The model's line in litellm's table. Its own look-up is not used: it puts 0 for unknown prices, and asks Ollama servers."""
    for key in (model, f"{provider}/{name}", name):
        entry: Mapping[str, Any] | None = litellm.model_cost.get(key)
        if entry is not None and str(entry.get("litellm_provider", "")).startswith(provider):
            return entry
    return None


def _usage(response: Any) -> Usage:
    usage = getattr(response, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)

    def counted(told: Any, name: str) -> int:
        return max(0, getattr(told, name, None) or 0)  # a server that tells of less than nothing gives no budget back

    return Usage(counted(usage, "prompt_tokens"), counted(usage, "completion_tokens"), counted(details, "cached_tokens"))


async def _close_clients(litellm: Any) -> None:
    """Close the HTTP clients that litellm keeps for this event loop, and the task in which it logs.

    litellm's own clean-up closes those of all loops, and leaves them in its cache, where a new loop with the same id finds them.
    """
    worker = importlib.import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
    await asyncio.sleep(0)
    await worker.stop()
    cache = litellm.in_memory_llm_clients_cache
    for key in [key for key in cache.cache_dict if str(key).endswith(f"-{id(asyncio.get_running_loop())}")]:
        client = cache.cache_dict.pop(key)
        cache.ttl_dict.pop(key, None)
        close = getattr(client, "aclose", None) or getattr(client, "close", None)
        closing = close() if close is not None else None
        if asyncio.iscoroutine(closing):
            await closing

"""The root and the sub model behind litellm: keys, concurrency, time-outs, retries, usage and cost.

litellm takes seconds to import, so it is imported in a thread, by warm_up() or by the first call.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlm_kernel.checked import writable
from rlm_kernel.config import LLMSettings, Settings
from rlm_kernel.engine.protocols import ROLES, UNWATCHED, Card, Completion, Message, Retry, Role, Usage, Watch
from rlm_kernel.errors import ConfigError, ModelError
from rlm_kernel.models import _adapting, _direct, _http, _litellm, _reading
from rlm_kernel.models._address import Address, Key, address_of, key_of
from rlm_kernel.models._direct import can as can_go_direct
from rlm_kernel.models._faults import Failure, of_litellm, of_transport
from rlm_kernel.models._hints import WHAT, Asked, hint_for
from rlm_kernel.models._near import nearest_model
from rlm_kernel.models._reading import Read
from rlm_kernel.models._usage import usage as usage_of
from rlm_kernel.models.slots import Slots
from rlm_kernel.nearest import did_you_mean
from rlm_kernel.secrets import MIN_LENGTH, known_secrets, redact

MAX_WAIT = 60.0
"""Seconds between two attempts at most, whatever a provider asks for."""
FIRST_WAIT = 0.5
"""Seconds; doubled with each attempt, and a random share of it is waited."""
_MOST_COST = 1e6
"""US dollars of one call; what is more was made of counts that make no sense."""

_OTHER_KEY = {"GEMINI_API_KEY": "GOOGLE_API_KEY", "HUGGINGFACE_API_KEY": "HF_TOKEN"}
"""Variables that litellm takes as well, but does not count when it looks for missing ones."""

_SAME_WIRE = {"aiohttp_openai": "openai"}
"""Other names of litellm's for a server of OpenAI's wire, which it asks by a client of its own that follows
redirects.
"""

_users: Counter[int] = Counter()
"""Open LitellmModels by the id of their event loop: litellm's clients are shared by all on a loop."""


@dataclass
class _Endpoint:
    """One model at one address.

    What is not given to it is found out when the models are opened, or told by the provider.
    """

    section: str
    settings: LLMSettings
    model: str
    slots: Slots
    provider: str = field(default="", init=False)
    address: Address = field(default_factory=lambda: Address(None), init=False)
    key: Key | None = field(default=None, init=False)
    entry: Mapping[str, Any] | None = field(default=None, init=False)
    """Its line in litellm's table."""
    direct: bool = field(default=False, init=False)
    """It is asked without litellm's own road."""
    schemas: bool | None = field(default=None, init=False)
    """Whether it takes a JSON schema for its reply; None where that is not known."""
    changes: list[str] = field(default_factory=list, init=False)
    """What its refusals have taught, of `_adapting.TOLD`."""
    learnt_window: int | None = field(default=None, init=False)
    """Tokens of its window, as a refusal told."""

    @property
    def window(self) -> int | None:
        known = self.settings.window or (self.entry or {}).get("max_input_tokens")
        return min(filter(None, (known, self.learnt_window)), default=None)


@dataclass(frozen=True)
class _Attempt:
    """What came of one request: what it read or why there is nothing, what it used, at what price."""

    outcome: Read | Failure
    usage: Usage = field(default_factory=Usage)
    cost: float | None = 0.0
    exchange: _http.Exchange | None = None


class LitellmModels:
    """Models by litellm, as the settings say. Implements `engine.protocols.Models`.

    Belongs to the event loop of its first call; aclose() must run there. Raises ConfigError if no root model
    is set.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None] = lambda _: None) -> None:
        """`say` hears what a model does not take, and is asked without from then on."""
        if settings.root_llm.model is None:
            raise ConfigError(
                "No root model is set.",
                hint="Name one with -m provider/model, RLM_MODEL, or root_llm.model in config.json; -m "
                "local needs no key.",
            )
        root = _endpoint("root_llm", settings.root_llm)
        sub = _endpoint("sub_llm", settings.sub_llm if settings.sub_llm.model else settings.root_llm)
        if (root.model, root.settings.api_base) == (sub.model, sub.settings.api_base):
            root.slots = sub.slots = Slots(min(root.settings.concurrency, sub.settings.concurrency))
        self._endpoints: dict[Role, _Endpoint] = {"root": root, "sub": sub}
        self._say = say
        self._litellm: Any = None
        self._http = _http.Http()
        self._loop_id: int | None = None

    def name(self, role: Role) -> str:
        """The model that plays the role, `provider/model`."""
        return self._endpoints[role].model

    def card(self, which: str) -> Card:
        """What the settings or litellm's table (which is there after warm_up()) say of it, or it said."""
        if which not in ROLES:
            raise KeyError(which)
        endpoint = self._endpoints[which]
        return Card(which, endpoint.model, endpoint.window)

    others: Sequence[Card] = ()

    def priced(self, role: Role) -> bool:
        """Whether its price is known: from the settings, else from litellm's table (which is there after
        warm_up()).
        """
        endpoint = self._endpoints[role]
        return endpoint.settings.input_price is not None or "input_cost_per_token" in (endpoint.entry or {})

    async def warm_up(self) -> None:
        """Import litellm (seconds, in a thread) and check both models' names and keys, before any call.

        Raises ModelError with fault unknown_model or auth. Idempotent, and complete() does the same; call it
        early.
        """
        if self._litellm is not None:
            return
        litellm = await asyncio.to_thread(_litellm.load)
        for endpoint in self._endpoints.values():
            self._check(litellm, endpoint)
        if self._litellm is None:
            self._litellm = litellm
            self._loop_id = id(asyncio.get_running_loop())
            _users[self._loop_id] += 1

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """One reply of the role's model, or of `model`, which must be the root's or the sub's name.

        Waits for a free slot of that model, of which there are fewer while it is over its rate limit.
        `schema` is sent where the model is known to take one, or may do. `watch` hears how it goes on.

        Raises ModelError: at once for faults that stay (key, name, request, refusal), else after the last
        retry.
        """
        endpoint = self._choose(role, model)
        await self.warm_up()
        request = self._request(endpoint, messages, schema)
        return await self._attempts(endpoint, request, watch.sent, watch.retrying, code=role == "root")

    async def aclose(self) -> None:
        """Close the connections, once the last LitellmModels of this event loop is closed. Idempotent."""
        loop_id, self._loop_id, litellm, self._litellm = self._loop_id, None, self._litellm, None
        if loop_id is None:
            return
        await self._http.aclose()
        _users[loop_id] -= 1
        if _users[loop_id] <= 0:
            del _users[loop_id]
            await _litellm.close_clients(litellm)

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

    def _request(
        self, endpoint: _Endpoint, messages: Sequence[Message], schema: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        settings = endpoint.settings
        wanted = None if schema is None or endpoint.schemas is False else {"name": "answer", "schema": schema}
        optional = {
            "api_base": endpoint.address.url,
            "api_key": endpoint.key.value if endpoint.key else None,
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "response_format": wanted and {"type": "json_schema", "json_schema": wanted},
        }
        request = {
            "model": endpoint.model,
            "messages": [{name: writable(text) for name, text in message.items()} for message in messages],
            "timeout": settings.timeout,
            "num_retries": 0,
            "max_retries": 0,
            "drop_params": True,
            **{name: value for name, value in optional.items() if value is not None},
        }
        for change in endpoint.changes:
            _adapting.apply(request, change)
        return request

    async def _attempts(
        self,
        endpoint: _Endpoint,
        request: dict[str, Any],
        sent: Callable[[], None],
        retrying: Callable[[Retry], bool],
        *,
        code: bool,
    ) -> Completion:
        started = time.monotonic()
        usage = Usage()
        cost: float | None = 0.0
        attempt, changed = 0, 0
        schema = "response_format" in request
        while True:
            attempt += 1
            tried = await self._attempt(endpoint, request, sent, code=code)
            usage, cost = (
                usage + tried.usage,
                None if cost is None or tried.cost is None else cost + tried.cost,
            )
            seconds = time.monotonic() - started
            outcome = tried.outcome
            if isinstance(outcome, Read):
                if schema:
                    endpoint.schemas = "response_format" in request
                reply = Completion(
                    outcome.text, endpoint.model, usage, cost, seconds, attempt, outcome.finish
                )
                return replace(reply, thoughts=outcome.thoughts, tools=outcome.tools)
            if change := _adapting.adapt(request, outcome, schemas=endpoint.schemas):
                changed += 1
                # The schema's is known when it has gone well; of a long prompt it says nothing of the others.
                if (
                    change != "response_format"
                    and outcome.fault != "too_long"
                    and change not in endpoint.changes
                ):
                    endpoint.changes.append(change)
                    self._say(f"{endpoint.model} {_adapting.TOLD[change]}")
                continue
            wait = (
                0.0 if outcome.retry_after else _wait(attempt)
            )  # in the slots no call begins before that time
            next_in = max(wait, endpoint.slots.pause())
            retry = Retry(
                outcome.reason, attempt - changed, endpoint.settings.retries + 1, next_in, outcome.retry_after
            )
            if not outcome.retry or attempt - changed > endpoint.settings.retries or not retrying(retry):
                endpoint.learnt_window = outcome.window or endpoint.learnt_window
                spent = Completion("", endpoint.model, usage, cost, seconds, attempt) if usage.total else None
                # Raised outside of `except`: the chained exception could show the key in a traceback.
                raise self._error(
                    endpoint, outcome, attempt, spent=spent, sent=request["messages"], exchange=tried.exchange
                )
            if wait:
                await asyncio.sleep(wait)

    async def _attempt(
        self, endpoint: _Endpoint, request: Mapping[str, Any], sent: Callable[[], None], *, code: bool
    ) -> _Attempt:
        async with endpoint.slots as began:
            sent()
            try:
                # litellm's own time-out starts anew with each piece of the reply.
                async with asyncio.timeout(endpoint.settings.timeout):
                    response, exchange = await self._sent(endpoint, request)
            except TimeoutError:
                return _Attempt(Failure("timeout", "no reply in time", retry=True))
            tried = self._read(endpoint, request, response, exchange, code=code)
            failure = tried.outcome
            if isinstance(failure, Read) or tried.usage.total:
                endpoint.slots.succeeded()
            elif failure.retry and (failure.fault == "rate_limit" or failure.retry_after is not None):
                endpoint.slots.refused(began, _pause(failure.retry_after))
        return tried

    async def _sent(
        self, endpoint: _Endpoint, request: Mapping[str, Any]
    ) -> tuple[Any, _http.Exchange | None]:
        """What litellm made of the reply, an exception perhaps, None on the direct road; and the reply
        itself.
        """
        if endpoint.direct:
            return None, await _direct.ask(self._http, self._litellm, request)
        return await _http.by_litellm(self._http, self._litellm, request)

    def _read(
        self,
        endpoint: _Endpoint,
        request: Mapping[str, Any],
        response: Any,
        exchange: _http.Exchange | None,
        *,
        code: bool,
    ) -> _Attempt:
        """Read a reply from what came over the wire; where that is another provider's own form, from what
        litellm made of it.
        """
        made = response is not None and not isinstance(response, Exception)
        if exchange is not None and exchange.error is not None:
            return _Attempt(of_transport(exchange.error), exchange=exchange)
        found = _reading.parse(exchange) if exchange is not None else None
        foreign = isinstance(found, dict) and "choices" not in found and not _reading.error_in(found)
        if made and (
            found is None
            or foreign
            or (isinstance(found, Failure) and exchange is not None and exchange.status < 300)
        ):
            native = _reading.native_finish(found) if isinstance(found, dict) else None
            found = response.model_dump(warnings=False)
            for choice in (found.get("choices") or [])[:1]:
                choice["native_finish_reason"] = native
        elif (foreign and isinstance(response, Exception)) or found is None:
            return _Attempt(of_litellm(response), exchange=exchange)
        if isinstance(found, Failure):
            return _Attempt(found, exchange=exchange)
        outcome = _reading.read(found, code=code)
        received = len(outcome.text) + len(outcome.thoughts) if isinstance(outcome, Read) else 0
        if not found.get("usage") and not received:
            return _Attempt(outcome, exchange=exchange)  # a refusal: nothing is known to be used
        used = usage_of(found, sum(len(message["content"]) for message in request["messages"]), received)
        return _Attempt(outcome, used, self._cost(endpoint, response if made else None, used), exchange)

    def _cost(self, endpoint: _Endpoint, response: Any, usage: Usage) -> float | None:
        """US dollars by the settings' prices, else by litellm's table, else None.

        Of a usage that is estimated there is no known cost.
        """
        settings = endpoint.settings
        if settings.input_price is not None and settings.output_price is not None:
            if usage.estimated and settings.input_price + settings.output_price > 0:
                return None
            return (usage.prompt * settings.input_price + usage.completion * settings.output_price) / 1e6
        entry = endpoint.entry or {}
        if usage.estimated or "input_cost_per_token" not in entry or "output_cost_per_token" not in entry:
            return None
        cost = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
        # litellm sets it on its own road alone, by counts that it does not check.
        if not isinstance(cost, int | float) or not 0 <= cost <= _MOST_COST:
            cost = sum(
                self._litellm.cost_per_token(
                    model=endpoint.model,
                    custom_llm_provider=endpoint.provider,
                    prompt_tokens=usage.prompt,
                    completion_tokens=usage.completion,
                    cache_read_input_tokens=usage.cached,
                )
            )
        return max(0.0, float(cost))

    # Errors

    def _check(self, litellm: Any, endpoint: _Endpoint) -> None:
        """Find provider and table line of the model; raise ModelError for an unknown provider or a missing
        key.
        """
        try:
            name, provider, _, _ = litellm.get_llm_provider(
                endpoint.model, api_base=endpoint.settings.api_base
            )
        except litellm.BadRequestError:
            failure = Failure("unknown_model", "its provider is not known")
            failure = replace(failure, advice=did_you_mean(nearest_model(litellm, endpoint.model)))
            raise self._error(endpoint, failure, 0) from None
        endpoint.provider = _SAME_WIRE.get(provider, provider)
        endpoint.entry = _litellm.table_entry(litellm, endpoint.model, name, endpoint.provider)
        endpoint.direct = can_go_direct(endpoint.provider, endpoint.entry)
        if endpoint.entry is not None or not endpoint.direct:
            endpoint.schemas = bool(litellm.supports_response_schema(endpoint.model))
        endpoint.address = address_of(endpoint.section, endpoint.settings, endpoint.provider)
        endpoint.key = key_of(endpoint.section, endpoint.settings, endpoint.provider)
        if endpoint.key is not None:
            if odd := endpoint.key.oddity:
                hint = f"Copy the key again, and set {endpoint.key.source} to it alone."
                raise self._error(
                    endpoint, Failure("auth", f"the key in {endpoint.key.source} has {odd} in it"), 0, hint
                )
            return
        variable = endpoint.settings.api_key_env
        if variable is None:
            missing = litellm.validate_environment(endpoint.model)["missing_keys"]
            # Several variables are ways to sign in (cloud roles, say) of which one is enough: the provider
            # must tell.
            alone = len(missing) == 1 and missing[0].endswith("_API_KEY")
            variable = missing[0] if alone and not os.environ.get(_OTHER_KEY.get(missing[0], "")) else None
        if variable is not None:
            hint = f"Set {variable} in the environment or in a .env file in the current directory."
            if endpoint.settings.api_base is not None:
                hint += f" If {endpoint.settings.api_base} wants no key, any value will do."
            raise self._error(endpoint, Failure("auth", f"no key: {variable} is not set"), 0, hint)

    def _error(
        self,
        endpoint: _Endpoint,
        failure: Failure,
        attempts: int,
        hint: str | None = None,
        *,
        spent: Completion | None = None,
        sent: Sequence[Message] = (),
        exchange: _http.Exchange | None = None,
    ) -> ModelError:
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        keys = [
            one.key.value for one in self._endpoints.values() if one.key and len(one.key.value) >= MIN_LENGTH
        ]
        secrets = sorted({*keys, *known_secrets(os.environ)}, key=len, reverse=True)
        if hint is None:
            asked = Asked(
                endpoint.section,
                endpoint.settings,
                endpoint.provider,
                endpoint.address,
                endpoint.key,
                endpoint.window,
            )
            hint = hint_for(failure, asked, exchange, sum(len(message["content"]) for message in sent))
        return ModelError(
            redact(
                f"The model {endpoint.model} {WHAT[failure.fault]}{tries}: {failure.said.rstrip('.')}.",
                secrets,
            ),
            fault=failure.fault,
            model=endpoint.model,
            attempts=attempts,
            hint=redact(hint, secrets),
            spent=spent,
        )


def _endpoint(section: str, settings: LLMSettings) -> _Endpoint:
    return _Endpoint(section, settings, settings.model or "", Slots(settings.concurrency))


def _wait(attempt: int) -> float:
    """Seconds before the attempt after this one: exponential with full jitter."""
    return random.uniform(0.0, min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 30)))


def _pause(retry_after: float | None) -> float | None:
    """Seconds in which no call goes to a model that asked for a pause."""
    return None if retry_after is None else min(MAX_WAIT, retry_after)

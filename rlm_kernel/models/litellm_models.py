"""The models of the settings behind one call: keys, concurrency, time-outs, retries, usage and cost.

Where a provider needs litellm, which takes seconds to import, it is imported in a thread, by warm_up() or by
the first call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlm_contract.tokens import tokens

from rlm_kernel.config import LLMSettings, Settings
from rlm_kernel.engine.protocols import (
    ROLES,
    UNWATCHED,
    Card,
    Completion,
    Message,
    Retry,
    Role,
    Usage,
    Watch,
)
from rlm_kernel.errors import ConfigError, ModelError
from rlm_kernel.models import _adapting, _catalog, _direct, _http, _litellm, _prices, _reading
from rlm_kernel.models._direct import can as can_go_direct
from rlm_kernel.models._endpoint import Endpoint, identify, identify_by_litellm, model_error
from rlm_kernel.models._faults import Failure, of_litellm, of_transport
from rlm_kernel.models._reading import Read
from rlm_kernel.models._request import beginning_of, request_for, written
from rlm_kernel.models._usage import usage as usage_of
from rlm_kernel.models.slots import Slots

MAX_WAIT = 60.0
"""Seconds between two attempts at most, whatever a provider asks for."""
FIRST_WAIT = 0.5
"""Seconds; doubled with each attempt, and a random share of it is waited."""

_users: Counter[int] = Counter()
"""Open LitellmModels by the id of their event loop: litellm's clients are shared by all on a loop."""


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
        sub = settings.sub_llm if settings.sub_llm.model else settings.root_llm
        self._endpoints = {
            "root": _endpoint("root_llm", settings.root_llm),
            "sub": _endpoint("sub_llm", sub),
            **{name: _endpoint(f"models.{name}", other) for name, other in settings.models.items()},
        }
        _share_slots(self._endpoints.values())
        self._say = say
        self._litellm: Any = None
        self._http = _http.Http()
        self._loop_id: int | None = None
        self._ready = False
        self._readying = asyncio.Lock()

    def name(self, role: Role) -> str:
        """The model that plays the role, `provider/model`."""
        return self._endpoints[role].model

    def card(self, which: str) -> Card:
        """What the settings or litellm's table (which is there after warm_up()) say of it, or it said."""
        return self._endpoints[which].card(which)

    @property
    def slots(self) -> Mapping[str, Slots]:
        """The places for calls of each model, by its name and address."""
        return {
            "@".join(filter(None, (one.model, one.settings.api_base))): one.slots
            for one in self._endpoints.values()
        }

    @property
    def others(self) -> Sequence[Card]:
        """The models of the settings' `models`."""
        return [self.card(which) for which in self._endpoints if which not in ROLES]

    async def warm_up(self) -> None:
        """Check the models' names and keys, before any call; import litellm (seconds, in a thread) where one
        of them needs it.

        Raises ModelError with fault unknown_model or auth. Idempotent, and complete() does the same; call it
        early.
        """
        if self._ready:
            return
        async with self._readying:
            if self._ready:
                return
            await asyncio.to_thread(_catalog.warm_up)
            others = [one for one in self._endpoints.values() if not await identify(one, can_go_direct)]
            if others:
                litellm = await asyncio.to_thread(_litellm.load)
                for endpoint in others:
                    await identify_by_litellm(endpoint, litellm)
                self._litellm = litellm
                self._loop_id = id(asyncio.get_running_loop())
                _users[self._loop_id] += 1
            for told in dict.fromkeys(line for one in self._endpoints.values() for line in one.told):
                self._say(told)
            self._ready = True

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """One reply of the role's model, or of `model`: a name of the settings' `models`, or `provider/model`
        of one of all these.

        Waits for a free slot of that model, of which there are fewer while it is over its rate limit.
        `schema` is sent where the model is known to take one, or may do. `watch` hears how it goes on.

        Raises ModelError: at once for faults that stay (key, name, request, refusal), else after the last
        retry.
        """
        endpoint = self._choose(role, model)
        await self.warm_up()
        self._check_pictures(endpoint, messages)
        streams = endpoint.settings.stream
        if (watch.heard is None and streams) or (watch.heard is not None and streams is False):
            watch = replace(watch, heard=None if streams is False else lambda _text, _thought: True)
        request = request_for(endpoint, messages, schema, streams=watch.heard is not None)
        return await self._attempts(endpoint, request, watch, code=role == "root")

    async def aclose(self) -> None:
        """Close the connections, once the last LitellmModels of this event loop is closed. Idempotent."""
        loop_id, self._loop_id, litellm, self._litellm = self._loop_id, None, self._litellm, None
        self._ready = False
        await self._http.aclose()
        if loop_id is None:
            return
        _users[loop_id] -= 1
        if _users[loop_id] <= 0:
            del _users[loop_id]
            await _litellm.close_clients(litellm)

    # One call

    def _choose(self, role: Role, model: str | None) -> Endpoint:
        own = self._endpoints[role]
        if model is None or model == own.model:
            return own
        if model in self._endpoints and model not in ROLES:
            return self._endpoints[model]
        for endpoint in self._endpoints.values():
            if model == endpoint.model:
                return endpoint
        names = [which for which in self._endpoints if which not in ROLES]
        allowed = " and ".join([*names, *sorted({endpoint.model for endpoint in self._endpoints.values()})])
        raise ModelError(
            f"The model {model[:80]!r} may not be called here.",
            fault="unknown_model",
            model=model[:80],
            attempts=0,
            hint=f"Allowed: {allowed}. Leave `model` out for {own.model}.",
        )

    def _check_pictures(self, endpoint: Endpoint, messages: Sequence[Message]) -> None:
        if any(message.get("images") for message in messages) and endpoint.card("").sees is False:
            failure = Failure(
                "bad_request", "it takes no pictures", advice="Name a model that does: model=…."
            )
            raise model_error(endpoint, failure)

    async def _attempts(
        self,
        endpoint: Endpoint,
        request: dict[str, Any],
        watch: Watch,
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
            tried = await self._attempt(endpoint, request, watch, code=code)
            usage, cost = (
                usage + tried.usage,
                None if cost is None or tried.cost is None else cost + tried.cost,
            )
            watch.attempted(usage, cost)
            seconds = time.monotonic() - started
            outcome = tried.outcome
            if isinstance(outcome, Read):
                if schema:
                    endpoint.schemas = "response_format" in request
                reply = Completion(
                    outcome.text, endpoint.model, usage, cost, seconds, attempt, outcome.finish
                )
                return replace(
                    reply, thoughts=outcome.thoughts, tools=outcome.tools, thinking=outcome.thinking
                )
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
            # After a pause that was asked for no call begins in the slots before that time.
            wait = 0.0 if outcome.retry_after else _wait(attempt)
            next_in = max(wait, endpoint.slots.pause())
            retry = Retry(
                outcome.reason, attempt - changed, endpoint.settings.retries + 1, next_in, outcome.retry_after
            )
            if (
                not outcome.retry
                or attempt - changed > endpoint.settings.retries
                or not watch.retrying(retry)
            ):
                endpoint.learnt_window = outcome.window or endpoint.learnt_window
                spent = Completion("", endpoint.model, usage, cost, seconds, attempt) if usage.total else None
                # Raised outside of `except`: the chained exception could show the key in a traceback.
                raise model_error(
                    endpoint, outcome, attempt, spent=spent, sent=request["messages"], exchange=tried.exchange
                )
            if wait:
                await asyncio.sleep(wait)

    async def _attempt(
        self, endpoint: Endpoint, request: Mapping[str, Any], watch: Watch, *, code: bool
    ) -> _Attempt:
        as_sent = written(endpoint, request)
        async with endpoint.slots as began, endpoint.writers.turn(beginning_of(as_sent)):
            sent = False

            def tell() -> None:
                nonlocal sent
                sent = True
                watch.sent()

            try:
                # litellm's own time-out starts anew with each piece of the reply.
                async with asyncio.timeout(endpoint.settings.timeout):
                    response, exchange = await self._sent(endpoint, as_sent, replace(watch, sent=tell))
            except TimeoutError:
                if not sent:
                    return _Attempt(Failure("timeout", "no connection in time", retry=True))
                return self._too_late(endpoint, request)
            tried = self._read(endpoint, request, response, exchange, code=code)
            failure = tried.outcome
            if isinstance(failure, Read) or tried.usage.total:
                endpoint.slots.succeeded()
            elif failure.retry and (failure.fault == "rate_limit" or failure.retry_after is not None):
                endpoint.slots.refused(began, _pause(failure.retry_after))
        return tried

    def _too_late(self, endpoint: Endpoint, request: Mapping[str, Any]) -> _Attempt:
        """A request that was given up: its provider has read the prompt, and bills that at least."""
        used = usage_of({}, _estimated(request) * endpoint.per_estimate, 0.0, stopped=True)
        # Without a price nothing, as it must not hide what its provider bills for the next attempt.
        cost = self._cost(endpoint, {}, used, stopped=True) or 0.0
        return _Attempt(Failure("timeout", "no reply in time", retry=True), used, cost)

    async def _sent(
        self, endpoint: Endpoint, request: Mapping[str, Any], watch: Watch
    ) -> tuple[Any, _http.Exchange | None]:
        """What litellm made of the reply: a completion in OpenAI's form, an exception perhaps, None on the
        direct road; and the reply itself.
        """
        if endpoint.direct:
            return None, await _direct.ask(self._http, endpoint, request, watch)
        return await _litellm.ask(self._http, self._litellm, request, watch)

    def _read(
        self,
        endpoint: Endpoint,
        request: Mapping[str, Any],
        response: Any,
        exchange: _http.Exchange | None,
        *,
        code: bool,
    ) -> _Attempt:
        """Read a reply from what came over the wire; where that is another provider's own form, from what
        litellm made of it.
        """
        if exchange is not None and exchange.error is not None:
            return _Attempt(of_transport(exchange.error), exchange=exchange)
        found = self._found(endpoint, response, exchange)
        if isinstance(found, Failure):
            return _Attempt(found, exchange=exchange)
        outcome = _reading.read(found, code=code)
        received = tokens(outcome.text) + tokens(outcome.thoughts) if isinstance(outcome, Read) else 0.0
        if not found.get("usage") and not received:
            return _Attempt(outcome, exchange=exchange)  # a refusal: nothing is known to be used
        sent = _estimated(request)
        stopped = exchange is not None and exchange.stopped
        used = usage_of(found, sent * endpoint.per_estimate, received, stopped=stopped)
        if not used.estimated:
            endpoint.learn(sent, used.prompt)
        return _Attempt(outcome, used, self._cost(endpoint, found, used, stopped=stopped), exchange)

    def _found(
        self, endpoint: Endpoint, response: Any, exchange: _http.Exchange | None
    ) -> dict[str, Any] | Failure:
        if endpoint.direct:
            assert exchange is not None
            return _direct.parse(endpoint, exchange)
        made = response if isinstance(response, dict) else None
        if made is not None and exchange is not None and exchange.stopped:
            return made  # of the bytes more may have come than was heard
        if made is not None and exchange is not None and not _reading.counts(exchange):
            made.pop("usage", None)  # litellm has counted by itself
        found = _reading.parse(exchange) if exchange is not None else None
        foreign = isinstance(found, dict) and "choices" not in found and not _reading.error_in(found)
        unread = isinstance(found, Failure) and exchange is not None and exchange.status < 300
        streamed = exchange is not None and exchange.streamed
        if unread and streamed and made is not None and isinstance(_reading.read(made, code=True), Failure):
            made = None
        if made is not None and (found is None or foreign or unread):
            native = _reading.native_finish(found) if isinstance(found, dict) else None
            for choice in (made.get("choices") or [])[:1]:
                choice["native_finish_reason"] = native
            return made
        if found is None or (isinstance(response, Exception) and (foreign or (unread and streamed))):
            failure = of_litellm(response)
            # A reply that litellm cannot read is no fault of the request.
            unread = exchange is not None and 200 <= exchange.status < 300
            return (
                replace(failure, fault="server", retry=True)
                if unread and failure.fault == "bad_request"
                else failure
            )
        return found

    def _cost(
        self, endpoint: Endpoint, found: Mapping[str, Any], used: Usage, *, stopped: bool
    ) -> float | None:
        """US dollars by the settings' prices, else by what the provider says, else by litellm's table.

        Of a usage that is estimated there is no known cost, unless the reply was stopped by us, so that its
        provider could not tell.
        """
        free = endpoint.settings.input_price == endpoint.settings.output_price == 0
        if used.estimated and not stopped and not free:
            return None
        told = found.get("usage")
        billed = told.get("cost") if isinstance(told, Mapping) and endpoint.provider == "openrouter" else None
        tier = found.get("service_tier")
        return _prices.cost(
            endpoint.settings, endpoint.entry, used, billed, tier if isinstance(tier, str) else ""
        )


def _estimated(request: Mapping[str, Any]) -> float:
    """About how many tokens the texts of its messages have."""
    contents = [message["content"] for message in request["messages"]]
    parts = [part.get("text", "") for content in contents if isinstance(content, list) for part in content]
    return sum(map(tokens, [*(one for one in contents if isinstance(one, str)), *parts]))


def _share_slots(endpoints: Iterable[Endpoint]) -> None:
    """Endpoints of one model at one address have the same slots."""
    places: dict[tuple[str, str | None], Slots] = {}
    for endpoint in sorted(endpoints, key=lambda one: one.settings.concurrency):
        endpoint.slots = places.setdefault((endpoint.model, endpoint.settings.api_base), endpoint.slots)


def _endpoint(section: str, settings: LLMSettings) -> Endpoint:
    return Endpoint(section, settings, settings.model or "", Slots(settings.concurrency))


def _wait(attempt: int) -> float:
    """Seconds before the attempt after this one: exponential with full jitter."""
    return random.uniform(0.0, min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 30)))


def _pause(retry_after: float | None) -> float | None:
    """Seconds in which no call goes to a model that asked for a pause."""
    return None if retry_after is None else min(MAX_WAIT, retry_after)

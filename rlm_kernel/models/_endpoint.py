"""One model at one address: what is known of it, and how it is found out."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rlm_kernel.config import LLMSettings
from rlm_kernel.engine.protocols import Card, Completion, Message
from rlm_kernel.errors import ModelError
from rlm_kernel.models import _caching, _catalog, _prices
from rlm_kernel.models._address import Address, Key, address_of, key_variable
from rlm_kernel.models._faults import Failure
from rlm_kernel.models._hints import WHAT, Asked, hint_for
from rlm_kernel.models._http import Exchange
from rlm_kernel.models._keyring import find_key
from rlm_kernel.models._near import nearest_model
from rlm_kernel.models._parameters import request_parameters
from rlm_kernel.models.slots import Slots
from rlm_kernel.nearest import did_you_mean
from rlm_kernel.secrets import known_secrets, redact

_OTHER_KEY = {"GEMINI_API_KEY": "GOOGLE_API_KEY", "HUGGINGFACE_API_KEY": "HF_TOKEN"}
"""Variables that litellm takes as well, but does not count when it looks for missing ones."""
_DROPPED = ("temperature", "top_p", "seed", "stop", "max_tokens", "reasoning_effort", "service_tier")
"""Parameters that litellm leaves out in silence where a provider does not take them."""
_NO_KEY = frozenset(
    {"hosted_vllm", "lm_studio", "llamafile", "docker_model_runner", "xinference", "litellm_proxy"}
)
"""Providers whose servers may want no key: litellm sends one of its own then."""


@dataclass
class Endpoint:
    """One model at one address.

    What is not given to it is found out when the models are opened, or told by the provider.
    """

    section: str
    settings: LLMSettings
    model: str
    slots: Slots
    provider: str = field(default="", init=False)
    name: str = field(default="", init=False)
    """The model's, as its provider has it."""
    address: Address = field(default_factory=lambda: Address(None), init=False)
    key: Key | None = field(default=None, init=False)
    entry: Mapping[str, Any] | None = field(default=None, init=False)
    """Its line in litellm's table."""
    direct: bool = field(default=False, init=False)
    """It is asked without litellm."""
    parameters: Mapping[str, Any] = field(default_factory=dict, init=False)
    """What the settings ask for in each request, by litellm's names."""
    told: Sequence[str] = field(default=(), init=False)
    """What of it the model does not take, for people."""
    schemas: bool | None = field(default=None, init=False)
    """Whether it takes a JSON schema for its reply; None where that is not known."""
    changes: list[str] = field(default_factory=list, init=False)
    """What its refusals have taught, of `_adapting.TOLD`."""
    learnt_window: int | None = field(default=None, init=False)
    """Tokens of its window, as a refusal told."""
    per_estimate: float = field(default=1.0, init=False)
    """Tokens of its last prompt by its own count, for each that was estimated."""

    @cached_property
    def marks(self) -> bool:
        """Whether its provider caches what is marked, and nothing else."""
        return _caching.takes_marks(self.provider, self.name, self.entry)

    @cached_property
    def beginnings(self) -> _caching.CommonBeginning:
        """What its prompts have in common."""
        return _caching.CommonBeginning(_caching.least_chars(self.name, self.entry))

    @cached_property
    def writers(self) -> _caching.Writers:
        """Which of these are being written to the cache."""
        return _caching.Writers()

    @property
    def window(self) -> int | None:
        known = self.settings.window or (self.entry or {}).get("max_input_tokens")
        return min(filter(None, (known, self.learnt_window)), default=None)

    def card(self, which: str) -> Card:
        """What is known of it."""
        prices = _prices.per_million(self.settings, self.entry)
        read, written = prices if prices is not None else (None, None)
        sees = None if self.entry is None else bool(self.entry.get("supports_vision"))
        return Card(which, self.model, self.window, read, written, sees, getattr(self.settings, "about", ""))

    def learn(self, estimated: float, tokens: int) -> None:
        """A prompt that was estimated at so many tokens had so many."""
        if estimated > 250 and tokens > 0:
            self.per_estimate = min(4.0, max(0.2, tokens / estimated))


Directly = Callable[[str, Mapping[str, Any] | None], bool]


async def identify(endpoint: Endpoint, directly: Directly) -> bool:
    """Find the model in litellm's tables, where it can be asked without litellm; whether it can.

    `directly` may object. Raises ModelError for a key that is missing or none.
    """
    found = _catalog.find(endpoint.model)
    if found is None or not directly(found[0], found[2]):
        return False
    endpoint.provider, endpoint.name, endpoint.entry = found
    endpoint.direct = True
    endpoint.schemas = _catalog.takes_schemas(endpoint.provider, endpoint.entry)
    await _sign_in(endpoint)
    if endpoint.key is None and endpoint.provider not in _NO_KEY:
        raise _no_key(endpoint, key_variable(endpoint.settings, endpoint.provider))
    _parametrize(endpoint, _catalog.providers()[endpoint.provider].drops)
    return True


async def identify_by_litellm(endpoint: Endpoint, litellm: Any) -> None:
    """Find provider and table line of the model by litellm.

    Raises ModelError for an unknown provider or a missing key.
    """
    try:
        endpoint.name, provider, _, _ = litellm.get_llm_provider(
            endpoint.model, api_base=endpoint.settings.api_base
        )
    except litellm.BadRequestError:
        failure = Failure("unknown_model", "its provider is not known")
        failure = replace(failure, advice=did_you_mean(nearest_model(litellm, endpoint.model)))
        raise model_error(endpoint, failure) from None
    endpoint.provider = provider
    endpoint.entry = _table_entry(litellm, endpoint.model, endpoint.name, endpoint.provider)
    known = litellm.get_supported_openai_params(model=endpoint.name, custom_llm_provider=endpoint.provider)
    endpoint.schemas = bool(litellm.supports_response_schema(endpoint.model))
    if not endpoint.schemas and endpoint.entry is None and "response_format" in (known or ()):
        endpoint.schemas = None
    _parametrize(endpoint, [name for name in _DROPPED if known and name not in known])
    await _sign_in(endpoint)
    if endpoint.key is not None:
        return
    variable = endpoint.settings.api_key_env
    if variable is None:
        missing = litellm.validate_environment(endpoint.model)["missing_keys"]
        # Several variables are ways to sign in (cloud roles, say) of which one is enough: the provider
        # must tell.
        alone = len(missing) == 1 and missing[0].endswith("_API_KEY")
        variable = missing[0] if alone and not os.environ.get(_OTHER_KEY.get(missing[0], "")) else None
    if variable is not None:
        raise _no_key(endpoint, variable)


def _parametrize(endpoint: Endpoint, drops: Collection[str]) -> None:
    """Find what the settings ask for, and tell of it what is not sent: `drops` are parameters that the
    provider does not take.
    """
    found, told = request_parameters(
        endpoint.settings, endpoint.provider, endpoint.name, endpoint.entry, endpoint.section
    )
    left = [name for name in drops if name in found and name not in endpoint.settings.extra]
    setting = {"reasoning_effort": "reasoning", "thinking": "thinking_tokens"}
    endpoint.parameters = {name: value for name, value in found.items() if name not in left}
    endpoint.told = [
        *told,
        *(
            f"{endpoint.provider} does not support {name}: rlm leaves "
            f"{endpoint.section}.{setting.get(name, name)} out."
            for name in left
        ),
    ]


async def _sign_in(endpoint: Endpoint) -> None:
    endpoint.address = address_of(endpoint.section, endpoint.settings, endpoint.provider)
    endpoint.key = await find_key(endpoint.section, endpoint.settings, endpoint.provider)
    if endpoint.key is not None and (odd := endpoint.key.oddity):
        hint = f"Copy the key again, and set {endpoint.key.source} to only the key."
        failure = Failure("auth", f"the key in {endpoint.key.source} has {odd} in it")
        raise model_error(endpoint, failure, hint=hint)


def _no_key(endpoint: Endpoint, variable: str) -> ModelError:
    hint = (
        f"Set {variable} in the environment or in a .env file in the current directory, or keep the key in "
        f"the system's keyring: rlm auth add {variable}."
    )
    if endpoint.settings.api_base is not None:
        hint += f" If {endpoint.settings.api_base} needs no key, any value works."
    return model_error(endpoint, Failure("auth", f"no key: {variable} is not set"), hint=hint)


def model_error(
    endpoint: Endpoint,
    failure: Failure,
    attempts: int = 0,
    *,
    hint: str | None = None,
    spent: Completion | None = None,
    sent: Sequence[Message] = (),
    exchange: Exchange | None = None,
) -> ModelError:
    """What a user is told of a failure, without any key."""
    tries = f" ({attempts} attempts)" if attempts > 1 else ""
    secrets = known_secrets(os.environ)
    if hint is None:
        asked = Asked(
            endpoint.section,
            endpoint.settings,
            endpoint.provider,
            endpoint.address,
            endpoint.key,
            endpoint.window,
        )
        hint = hint_for(failure, asked, exchange, [message["content"] for message in sent])
    return ModelError(
        redact(
            f"The model {endpoint.model} {WHAT[failure.fault]}{tries}: {failure.said.rstrip('.')}.", secrets
        ),
        fault=failure.fault,
        model=endpoint.model,
        attempts=attempts,
        hint=redact(hint, secrets),
        spent=spent,
        no_credit=failure.fault == "rate_limit" and not failure.retry,
    )


def _table_entry(litellm: Any, model: str, name: str, provider: str) -> Mapping[str, Any] | None:
    """The model's line in litellm's table.

    Its own look-up is not used: it puts 0 for unknown prices, and asks Ollama servers.
    """
    for key in (model, f"{provider}/{name}", name):
        entry: Mapping[str, Any] | None = litellm.model_cost.get(key)
        if entry is not None and str(entry.get("litellm_provider", "")).startswith(provider):
            return entry
    return None

"""Asking each configured model for one token: whether it answers, how fast, and what is known of it.

Each model is opened by itself, so that what is wrong with one says nothing of the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from rlm_kernel.config import LLMSettings, Settings
from rlm_kernel.engine.protocols import ROLES, Completion, Message, Models, Retry, Watch
from rlm_kernel.errors import InternalError, LocalModelError, ModelError, RLMError
from rlm_kernel.models._catalog import entry_of
from rlm_kernel.models.factory import is_local, open_models

T = TypeVar("T")

SECONDS = 60.0
"""For one answer at most."""
_ASKED: list[Message] = [{"role": "user", "content": "Reply with the word: ok"}]


@dataclass(frozen=True)
class Facts:
    """What is known of a model, from the settings, else from litellm's table; None where it is not known.

    Prices are US dollars per million tokens, `window` is tokens.
    """

    window: int | None = None
    input_price: float | None = None
    output_price: float | None = None
    cached_price: float | None = None
    """Of prompt tokens that come from the cache."""
    caching: bool | None = None
    schemas: bool | None = None
    """Whether the provider takes a JSON schema for the reply."""
    pictures: bool | None = None
    """Whether it reads pictures."""


@dataclass(frozen=True)
class Checked:
    """A model that was asked. `roles` are what it is configured as; `error` says why it did not answer."""

    roles: tuple[str, ...]
    model: str
    seconds: float | None = None
    """Until the answer was there, without set-up."""
    cost: float | None = 0.0
    """US dollars of this check; None where that is not known."""
    facts: Facts = Facts()
    error: RLMError | None = None


async def check_models(settings: Settings, say: Callable[[str], None] = lambda _: None) -> list[Checked]:
    """Ask all configured models, concurrently. `say` hears what a model does not take, and set-up.

    Raises nothing for a model that fails: its row has the error.
    """
    return list(await asyncio.gather(*(_check(settings, *one, say) for one in _configured(settings))))


def _configured(settings: Settings) -> list[tuple[tuple[str, ...], LLMSettings]]:
    """Each model once, with its roles: some are configured as several."""
    sub = settings.sub_llm if settings.sub_llm.model else settings.root_llm
    named: dict[str, LLMSettings] = {"root": settings.root_llm, "sub": sub}
    named |= settings.models
    found: list[tuple[tuple[str, ...], LLMSettings]] = []
    for role, llm in named.items():
        same = next((index for index, (_, known) in enumerate(found) if known == llm), None)
        if same is None:
            found.append(((role,), llm))
        else:
            found[same] = ((*found[same][0], role), llm)
    return [one for one in found if one[1].model is not None]


async def _check(
    settings: Settings, roles: tuple[str, ...], llm: LLMSettings, say: Callable[[str], None]
) -> Checked:
    # No limit of money, which is one of runs, and nothing from the cache.
    llm = llm.model_copy(update={"retries": 1, "timeout": min(llm.timeout, SECONDS)})
    unlimited = settings.limits.model_copy(update={"cost": None})
    uncached = settings.cache.model_copy(update={"enabled": False})
    alone = settings.model_copy(
        update={"limits": unlimited, "cache": uncached, "sub_llm": LLMSettings(), "models": {}}
    )
    checked = Checked(roles, llm.model or "")
    for one_token in (True, False):
        asked = llm.model_copy(update={"max_tokens": 1}) if one_token else llm
        try:
            _be_at_hand(checked.model)
            async with open_models(alone.model_copy(update={"root_llm": asked}), say) as models:
                checked = await _asked(models, asked, checked)
        except RLMError as error:
            checked = replace(checked, error=_of_section(error, roles[0]))
        except Exception as error:
            checked = replace(checked, error=InternalError.of(error))
        # Some models refuse one token: those that think first, and some gateways.
        if not (isinstance(checked.error, ModelError) and checked.error.fault == "bad_request"):
            break
    return checked


def _of_section(error: RLMError, role: str) -> RLMError:
    """The error with the setting of the role in its hint: each model is opened as if it were the root's."""
    section = f"{role}_llm" if role in ROLES else f"models.{role}"
    error.message, error.hint = (text.replace("root_llm", section) for text in (error.message, error.hint))
    return error


def _be_at_hand(model: str) -> None:
    """Raises LocalModelError for a local model that is still to be downloaded: a check is no time for it."""
    if is_local(model):
        from rlm_kernel.models.weights import is_pulled

        if not is_pulled(model):
            raise LocalModelError(
                f"The local model {model} is not downloaded.", hint=f"Type: rlm models pull {model}"
            )


async def _asked(models: Models, llm: LLMSettings, checked: Checked) -> Checked:
    checked = replace(checked, facts=_facts(models, llm), error=None)
    may_pass: list[Retry] = []

    def once(retry: Retry) -> bool:
        may_pass.append(retry)
        return False  # somebody waits for the check

    began = time.monotonic()
    try:
        reply: Completion = await models.complete(_ASKED, role="root", watch=Watch(retrying=once))
    except ModelError as error:
        if error.fault != "empty" or error.spent is None or may_pass:
            return replace(checked, error=error, cost=error.spent.cost if error.spent else 0.0)
        reply = error.spent  # one token, and no text yet: a thought, say. It answers.
    return replace(checked, seconds=time.monotonic() - began, cost=reply.cost)


def _facts(models: Models, llm: LLMSettings) -> Facts:
    card, entry = models.card("root"), entry_of(llm.model or "")

    def price(part: str) -> float | None:
        found = entry.get(part)
        return round(found * 1e6, 9) if isinstance(found, int | float) else None

    def able(what: str) -> bool | None:
        return bool(entry.get(what)) if entry else None

    own = llm.input_price is not None
    return Facts(
        window=card.window,
        input_price=llm.input_price if own else _known(card.input_price, price("input_cost_per_token")),
        output_price=llm.output_price if own else _known(card.output_price, price("output_cost_per_token")),
        cached_price=llm.input_price if own else price("cache_read_input_token_cost"),
        caching=able("supports_prompt_caching"),
        schemas=able("supports_response_schema"),
        pictures=_known(card.sees, able("supports_vision")),
    )


def _known(first: T | None, second: T | None) -> T | None:
    return second if first is None else first

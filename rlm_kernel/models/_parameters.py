"""From the settings of a model to the parameters of its requests, in the names of `litellm.acompletion`.

What is known of a provider's rules stands here, so that a request is not refused, and so that what a model
does not take is told: litellm leaves it out in silence. What is not known is sent, and learnt by the refusal
(`_adapting`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.config import LLMSettings
from rlm_kernel.models import _anthropic

_CLAUDE = frozenset({"bedrock", "bedrock_converse", "vertex_ai", "azure_ai"})
_OPENAI = frozenset({"openai", "azure"})
_GEMINI = frozenset({"gemini", "vertex_ai"})
_OPENAI_REASONING = re.compile(
    r"(?:^|[/:])(?:o[1-9]\d*(?![a-z0-9])|gpt-[5-9](?![0-9])(?!\S*(?:search|chat)))"
)
_NO_SEED = frozenset({"bedrock", "bedrock_converse"})
_NO_TIER = frozenset({"ollama", "ollama_chat", "mistral", "xai", "cohere_chat", "vertex_ai", "azure_ai"})
_TAKES_BUDGET = frozenset({"anthropic", "gemini", "databricks"})
_LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")


def request_parameters(
    settings: LLMSettings,
    provider: str,
    name: str,
    entry: Mapping[str, Any] | None,
    section: str = "sub_llm",
) -> tuple[dict[str, Any], list[str]]:
    """The parameters that the settings ask for, and sentences for the user on what the model does not take.

    Args:
        settings: Of one model.
        provider: litellm's name of it.
        name: The model's, without the provider.
        entry: The model's line in litellm's table; None where it has none.
        section: Of the settings, for the sentences.
    """
    taken = _Taken(settings, provider, name.lower(), entry, section)
    taken.sampling()
    taken.reasoning()
    if taken.claude:
        taken.as_claude()
    elif taken.reasons_as_openai:
        taken.as_openai()
    if settings.headers:
        taken.found["extra_headers"] = dict(settings.headers)
    # litellm writes into what it is given.
    return taken.found | copy.deepcopy(settings.extra), taken.told


@dataclass
class _Taken:
    """The parameters as they are found, and what is told of them."""

    settings: LLMSettings
    provider: str
    name: str
    entry: Mapping[str, Any] | None
    section: str
    found: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def claude(self) -> bool:
        """Whether it is asked through Anthropic's messages, wherever it runs."""
        return self.provider == "anthropic" or (self.provider in _CLAUDE and "claude" in self.name)

    @property
    def reasons_as_openai(self) -> bool:
        """Whether it keeps the rules of OpenAI's reasoning models."""
        return self.provider in _OPENAI and bool(_OPENAI_REASONING.search(self.name))

    @property
    def thinks(self) -> bool:
        """Whether it may be asked to reason: a model that is not known may."""
        return self.reasons_as_openai or _anthropic.thinks(self.entry)

    def tell(self, setting: str, why: str, does: str = "is left out") -> None:
        self.told.append(f"{why}: {self.section}.{setting} {does}.")

    def leave_out(self, why: str, *parameters: str) -> None:
        """Without the parameters, of which one sentence each tells."""
        for parameter in parameters:
            if self.found.pop(parameter, None) is not None:
                self.tell(parameter, why)

    # All providers

    def sampling(self) -> None:
        settings = self.settings
        for part in ("temperature", "top_p", "seed", "max_tokens", "service_tier"):
            if (value := getattr(settings, part)) is not None:
                self.found[part] = value
        if settings.stop:
            self.found["stop"] = list(settings.stop)
        if self.claude or self.provider in _NO_SEED:
            self.leave_out(f"{self.provider} does not support a seed", "seed")
        if self.provider in _NO_TIER:
            self.leave_out(f"{self.provider} has no service tiers", "service_tier")

    def reasoning(self) -> None:
        """The level, or the number of tokens, as the provider takes it."""
        level, tokens = self.settings.reasoning, self.settings.thinking_tokens
        if level is None and tokens is None:
            return
        off = level == "off" or tokens == 0
        if not self.thinks:
            if not off:
                for setting, value in (("reasoning", level), ("thinking_tokens", tokens)):
                    if value is not None:
                        self.tell(setting, f"{self.name} is not a reasoning model")
            return
        if off:
            if level not in (None, "off"):
                self.tell("reasoning", f"{self.section}.thinking_tokens is 0")
            elif tokens:
                self.tell("thinking_tokens", f"{self.section}.reasoning is off")
            self._off()
            return
        if level is not None:
            self.found["reasoning_effort"] = self._level(level)
        if tokens is not None:
            self._tokens(tokens)

    def _off(self) -> None:
        if self.claude:
            if (self.entry or {}).get("thinking_always_on"):
                self.tell("reasoning", f"{self.name} always reasons")
            else:
                self.found["thinking"] = {"type": "disabled"}
            return
        known = self.entry or {}
        least = next(
            (level for level in ("minimal", "low") if known.get(f"supports_{level}_reasoning_effort")), "low"
        )
        never = self.reasons_as_openai and not known.get("supports_none_reasoning_effort")
        if never and self.entry is not None:
            self.tell("reasoning", f"{self.name} always reasons", f'is "{least}"')
        self.found["reasoning_effort"] = least if never and self.entry is not None else "none"

    def _level(self, level: str) -> str:
        """The level that is nearest to the one that is asked for."""
        known = self.entry or {}
        nearest = level
        if self.claude:
            if _anthropic.adaptive(self.name, self.entry):
                nearest = _anthropic.effort_of(level, self.entry)
        elif self.provider in _GEMINI and level in ("xhigh", "max"):
            nearest = "high"
        elif self.reasons_as_openai and self.entry is not None:
            if level == "max" and not known.get("supports_max_reasoning_effort"):
                nearest = "xhigh"
            if nearest == "xhigh" and not known.get("supports_xhigh_reasoning_effort"):
                nearest = "high"
            if nearest == "minimal" and not known.get("supports_minimal_reasoning_effort"):
                nearest = "low"
        if nearest != level:
            self.tell("reasoning", f'{self.name} has no level "{level}"', f'is "{nearest}"')
        return nearest

    def _tokens(self, tokens: int) -> None:
        if self.provider == "openrouter":
            self.found["extra_body"] = {"reasoning": {"max_tokens": tokens}}
        elif (
            self.claude
            or self.provider in _TAKES_BUDGET
            or (self.provider == "vertex_ai" and "gemini" in self.name)
        ):
            self.found["thinking"] = {"type": "enabled", "budget_tokens": tokens}
        else:
            self.tell("thinking_tokens", f"{self.provider} does not support a number of thinking tokens")
            return
        if self.found.pop("reasoning_effort", None) is not None:
            self.tell("reasoning", f"{self.section}.thinking_tokens says how much")

    # Rules of models

    def as_claude(self) -> None:
        found = self.found
        if (found.get("temperature") or 0) > 1:
            self.tell("temperature", f"{self.provider} does not accept a temperature above 1", "is 1")
            found["temperature"] = 1
        if (self.entry or {}).get("supports_sampling_params") is False:
            self.leave_out(f"{self.name} does not accept it", "temperature", "top_p")
        if "temperature" in found:
            self.leave_out(f"{self.name} accepts either temperature or top_p", "top_p")
        if "stop" in found and (kept := [text for text in found["stop"] if text.strip()]) != found["stop"]:
            self.tell("stop", f"{self.provider} accepts no white space", "is without it")
            found |= {"stop": kept}
            if not kept:
                del found["stop"]
        self._claude_thinks()

    def _claude_thinks(self) -> None:
        """Its thinking within the limits of both sides, and what may stand beside it."""
        found = self.found
        if found.get("thinking") == {"type": "disabled"} or not (
            "thinking" in found or "reasoning_effort" in found
        ):
            return
        adaptive = _anthropic.adaptive(self.name, self.entry)
        asked = "thinking_tokens" if "thinking" in found else "reasoning"
        if adaptive and asked == "thinking_tokens" and not (self.entry or {}).get("supports_legacy_thinking"):
            self.tell(asked, f"{self.name} needs an effort instead of a number", "is the nearest effort")
            found["thinking"] |= {"display": "summarized"}
        thinking, _ = _anthropic.thinking_of(found, self.name, self.entry)
        if thinking is None:
            least = (
                f"{self.provider} reasons with {_anthropic.MIN_BUDGET:,} tokens at least, within max_tokens"
            )
            self.tell(asked, least)
            del found["thinking" if asked == "thinking_tokens" else "reasoning_effort"]
            return
        if "budget_tokens" in thinking:
            budget = thinking["budget_tokens"]
            wanted = (found.get("thinking") or {}).get("budget_tokens") or _anthropic.BUDGETS[
                found["reasoning_effort"]
            ]
            if budget != wanted:
                least = f"{_anthropic.MIN_BUDGET:,} thinking tokens or more"
                why = f"{self.provider} takes {least}, below max_tokens"
                self.tell(asked, why, f"comes to {budget:,} tokens")
                found.pop("reasoning_effort", None)
                found["thinking"] = thinking
        if found.get("temperature") != 1:
            self.leave_out(f"{self.name} does not accept it while it reasons", "temperature")
        if found.get("top_p", 1) < 0.95:
            self.leave_out(f"{self.name} does not accept less than 0.95 while it reasons", "top_p")

    def as_openai(self) -> None:
        found = self.found
        if "max_tokens" in found:
            found["max_completion_tokens"] = found.pop("max_tokens")
        self.leave_out(f"{self.name} does not accept it while it reasons", "stop")
        effort = found.get("reasoning_effort") or (self.entry or {}).get("default_reasoning_effort")
        if effort == "none":
            return  # without reasoning it takes them
        if found.get("temperature") != 1:
            self.leave_out(f"{self.name} does not accept it while it reasons", "temperature")
        if found.get("top_p") != 1:
            self.leave_out(f"{self.name} does not accept it while it reasons", "top_p")

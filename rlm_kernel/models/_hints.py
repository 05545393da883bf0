"""What a person is told of a model that gave no reply: what it was, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlm_contract.tokens import tokens

from rlm_kernel.config import LLMSettings
from rlm_kernel.errors import ModelFault
from rlm_kernel.models._address import Address, Key
from rlm_kernel.models._faults import Failure
from rlm_kernel.models._http import Exchange

WHAT: dict[ModelFault, str] = {
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
_OPENAI_LIKE = frozenset({"openai", "hosted_vllm", "lm_studio", "llamafile", "litellm_proxy", "openai_like"})
"""Of litellm's providers those whose address a user writes."""


@dataclass(frozen=True)
class Asked:
    """Which model, by which settings, where, and with which key."""

    section: str
    settings: LLMSettings
    provider: str
    address: Address
    key: Key | None
    window: int | None


def hint_for(failure: Failure, asked: Asked, exchange: Exchange | None, sent: Sequence[str]) -> str:
    """What to do next. `exchange`: the request that failed; `sent`: the texts of its messages."""
    section, settings = asked.section, asked.settings
    used = exchange.url if exchange is not None else ""
    address = f"The address is {asked.address.told(used)}."
    wait = "" if failure.retry_after is None else f" {failure.retry_after:,.0f} s, as the provider asks"
    hints: dict[ModelFault, str] = {
        "auth": f"Check the key in {_key(asked)}, and that its account may use this model. {address}",
        "unknown_model": "Write it as provider/model, such as openai/gpt-4o-mini, and check "
        f"{section}.api_base if one is set. {address}",
        "rate_limit": f"Wait{wait}, or lower {section}.concurrency (now {settings.concurrency})."
        if failure.retry
        else "The account's quota is used up: check its plan and billing.",
        "timeout": f"Raise {section}.timeout (now {settings.timeout:g} s), or send smaller prompts. "
        f"{address}",
        "connection": f"Check the network, and the address: {asked.address.told(used)}.",
        "server": f"Try again later, or use another model. {address}",
        "empty": f"Raise {section}.max_tokens (now {settings.max_tokens or 'not set'}), or use another "
        "model.",
        "refused": "Word the question differently, or use another model.",
        "too_long": _too_long(asked, sent),
        "bad_request": f"Check the settings of {section} against what the provider allows. {address}",
    }
    parts = [failure.advice, hints[failure.fault]]
    if failure.moved:
        parts.append(_moved(asked, used, failure.moved))
    if failure.elsewhere:
        parts.append(_other_base(asked, used))
    if failure.fault in ("connection", "timeout") and exchange is not None and exchange.proxy is not None:
        host = used.partition("://")[2].partition("/")[0].rpartition("@")[2]
        parts.append(
            f"rlm used the proxy {exchange.proxy}. To connect directly, add "
            f"{host.rpartition(':')[0] or host} to NO_PROXY."
        )
    return " ".join(filter(None, parts))


def _key(asked: Asked) -> str:
    if asked.key is not None and asked.key.source.partition(" ")[0].isupper():
        return (
            f"{asked.key.source}"
            if " in " in asked.key.source
            else f"{asked.key.source} (environment or .env)"
        )
    return (
        asked.key.source
        if asked.key
        else f"{asked.settings.api_key_env or f'{asked.provider.upper()}_API_KEY'} (environment or .env)"
    )


def _too_long(asked: Asked, sent: Sequence[str]) -> str:
    chars, found = sum(map(len, sent)), sum(map(tokens, sent))
    size = f"The prompt has {chars:,} characters (about {found:,.0f} tokens); " if chars else ""
    window = asked.window
    limit = f"{window:,} tokens" if window else "not known"
    limit += f", about {window * chars / found:,.0f} such characters" if window and found else ""
    if asked.section == "root_llm":
        next_step = (
            "Use a root model with a larger window, or start its server with one (-c, "
            "--max-model-len, num_ctx)."
        )
    else:
        next_step = "Send smaller pieces."
    return f"{size}{'the' if size else 'The'} window is {limit}. {next_step}"


def _moved(asked: Asked, used: str, target: str) -> str:
    """What to set where a server says that it is elsewhere."""
    setting = (asked.address.source or f"{asked.section}.api_base").removesuffix(" in .env")
    added = (
        used.partition("?")[0].removeprefix((asked.address.url or "").rstrip("/"))
        if asked.address.url
        else ""
    )
    base = target.removesuffix(added) if added and target.endswith(added) else "its base"
    return (
        "rlm sends keys and prompts only to the configured address. If you trust the other address, set "
        f"{setting} to {base}."
    )


def _other_base(asked: Asked, used: str) -> str:
    """What most often is wrong with an address that gives something else."""
    base = used.partition("?")[0].removesuffix("/chat/completions")
    setting = asked.address.source or f"{asked.section}.api_base"
    versioned = "/v1" in base or "/v4" in base
    if versioned or asked.provider not in _OPENAI_LIKE:
        return ""
    setting = setting.removesuffix(" in .env")
    return f"Most servers need /v1 at the end of the address: set {setting} to {base}/v1."

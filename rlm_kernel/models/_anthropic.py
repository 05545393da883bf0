"""Anthropic's messages API: a request in the names of `litellm.acompletion` as that API takes it.

Tests hold that the body is what litellm sends, but where the API would refuse that. `_anthropic_reply` reads
what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlm_kernel.models._anthropic_reply import ANSWER as ANSWER
from rlm_kernel.models._anthropic_reply import Stream as Stream
from rlm_kernel.models._anthropic_reply import completion as completion
from rlm_kernel.models._anthropic_schema import taken

VERSION = "2023-06-01"
MIN_BUDGET = 1024
"""Tokens of thinking that the API takes at least."""
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
"""Tokens of thinking by `reasoning_effort`, of models that take a budget."""
_REPLY = 4096
"""Tokens of a reply where the model's most is not known, and of the text behind a budget of thinking."""
_OAUTH = "sk-ant-oat"
_OAUTH_BETA = "oauth-2025-04-20"
_SCHEMA_BETA = "structured-outputs-2025-11-13"
_ADAPTIVE = re.compile(
    r"claude-[a-z]+-(?:4[-._](?:[6-9]|[1-9]\d)(?!\d)|[5-9](?!\d)(?:[-._]\d{1,2}(?!\d))?)", re.IGNORECASE
)
"""Names of models that think as much as they need: from 4.6 on."""
_THOUGHTS = {"thinking": ("type", "thinking", "signature"), "redacted_thinking": ("type", "data")}
_REWRITTEN = """
model messages max_tokens max_completion_tokens temperature top_p stop thinking reasoning_effort
response_format output_config
"""
_WRITTEN = frozenset(_REWRITTEN.split())
"""Names that are written in another way."""
_OTHERS = """
api_base api_key api_version base_url timeout num_retries max_retries drop_params extra_headers extra_body
headers custom_llm_provider stream_options allowed_openai_params seed n user logprobs top_logprobs logit_bias
frequency_penalty presence_penalty prompt_cache_key verbosity modalities parallel_tool_calls store
safety_identifier
"""
_NOT_SENT = frozenset(_OTHERS.split())
"""Names of litellm's own and of OpenAI's, which the API refuses."""


def url(base: str) -> str:
    """The address of the messages, whether `base` has some of its path or none."""
    base = base.rstrip("/")
    for end in ("/v1/messages", "/messages", "/v1"):
        base = base.removesuffix(end)
    return f"{base}/v1/messages"


def headers(
    key: str, body: Mapping[str, Any] | None = None, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The headers of a request with that body; `extra` are the user's, whose betas are added to ours."""
    found = {"anthropic-version": VERSION, "accept": "application/json", "content-type": "application/json"}
    betas: list[str] = []
    if key.removeprefix("Bearer ").startswith(_OAUTH):
        found["authorization"] = f"Bearer {key.removeprefix('Bearer ')}"
        found["anthropic-dangerous-direct-browser-access"] = "true"
        betas.append(_OAUTH_BETA)
    elif key:
        found["x-api-key"] = key
    if (body or {}).get("output_format") or _mapping((body or {}).get("output_config")).get("format"):
        betas.append(_SCHEMA_BETA)
    for name, value in (extra or {}).items():
        if name.lower() == "anthropic-beta":
            betas += filter(None, map(str.strip, value.split(",")))
        else:
            found = {known: said for known, said in found.items() if known != name.lower()} | {name: value}
    return found | ({"anthropic-beta": ",".join(dict.fromkeys(betas))} if betas else {})


def body(request: Mapping[str, Any], entry: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The request's body. `entry` is the model's line in litellm's table, None where it has none."""
    name = str(request["model"]).removeprefix("anthropic/")
    known = entry or {}
    thinking, effort = thinking_of(request, name, entry)
    found: dict[str, Any] = {"model": name}
    system, found["messages"] = _conversation(request["messages"], thinks=thinking is not None)
    found |= {"system": system} if system else {}
    found["max_tokens"] = _limit(request) or (
        thinking["budget_tokens"] + _REPLY
        if thinking and "budget_tokens" in thinking
        else known.get("max_output_tokens") or known.get("max_tokens") or _REPLY
    )
    if thinking is None and _mapping(request.get("thinking")).get("type") == "disabled":
        thinking = None if known.get("thinking_always_on") else {"type": "disabled"}
    found |= {"thinking": thinking} if thinking else {}
    config = dict(_mapping(request.get("output_config"))) | ({"effort": effort} if effort else {})
    found |= {"output_config": config} if config else {}
    found |= _sampling(request, known, thinks=bool(thinking) and thinking != {"type": "disabled"})
    if stops := [text for text in _texts(request.get("stop")) if text.strip()]:
        found["stop_sequences"] = stops
    _schema(found, request, known)
    more = {part: value for part, value in request.items() if part not in _WRITTEN | _NOT_SENT}
    if more.get("top_k") is not None and known.get("supports_sampling_params") is False:
        del more["top_k"]
    return found | more | dict(_mapping(request.get("extra_body")))


# Parameters


def adaptive(name: str, entry: Mapping[str, Any] | None) -> bool:
    """Whether the model takes an effort in place of a budget for its thinking."""
    told = (entry or {}).get("supports_adaptive_thinking")
    return told if isinstance(told, bool) else bool(_ADAPTIVE.search(name))


def thinks(entry: Mapping[str, Any] | None) -> bool:
    """Whether the model may be asked to think: one that is not known may."""
    return entry is None or bool(entry.get("supports_reasoning") or entry.get("supports_adaptive_thinking"))


def effort_of(effort: str, entry: Mapping[str, Any] | None) -> str:
    """The effort that the model takes, next to the one that is asked for."""
    if effort == "minimal":
        return "low"
    return (
        "high" if effort == "xhigh" and not (entry or {}).get("supports_xhigh_reasoning_effort") else effort
    )


def thinking_of(
    request: Mapping[str, Any], name: str, entry: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, str | None]:
    """How the model is to think, in the API's words, and its effort; None for not at all."""
    asked, effort = _mapping(request.get("thinking")), request.get("reasoning_effort")
    if isinstance(effort, Mapping):
        effort = effort.get("effort")
    if asked.get("type") == "disabled" or not thinks(entry):
        return None, None
    if asked.get("type") == "enabled":
        return _budgeted(request, dict(asked), name, entry)
    if asked.get("type") == "adaptive":
        if adaptive(name, entry):
            return dict(asked), effort_of(effort, entry) if effort in BUDGETS else None
        effort = effort if effort in BUDGETS else "medium"
    if effort not in BUDGETS:
        return None, None
    if adaptive(name, entry):
        # Without this the thoughts come back empty.
        return {"type": "adaptive", "display": "summarized"}, effort_of(effort, entry)
    return _within(request, {"type": "enabled", "budget_tokens": BUDGETS[effort]}), None


def _budgeted(
    request: Mapping[str, Any], asked: dict[str, Any], name: str, entry: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, str | None]:
    told = asked.get("budget_tokens")
    budget = told if isinstance(told, int) else MIN_BUDGET
    if adaptive(name, entry) and not (entry or {}).get("supports_legacy_thinking"):
        shown = {"display": asked["display"]} if asked.get("display") in ("summarized", "omitted") else {}
        efforts = [effort for effort in ("low", "medium", "high", "xhigh") if BUDGETS[effort] <= budget]
        return {"type": "adaptive", **shown}, effort_of(efforts[-1] if efforts else "low", entry)
    return _within(request, {**asked, "budget_tokens": max(MIN_BUDGET, budget)}), None


def _within(request: Mapping[str, Any], thinking: dict[str, Any]) -> dict[str, Any] | None:
    """With a budget below the limit on the reply; None where that leaves none."""
    limit = _limit(request)
    if limit is None or thinking["budget_tokens"] < limit:
        return thinking
    return {**thinking, "budget_tokens": limit - 1} if limit > MIN_BUDGET else None


def _limit(request: Mapping[str, Any]) -> int | None:
    told = request.get("max_tokens") or request.get("max_completion_tokens")
    return told if isinstance(told, int) else None


def _sampling(request: Mapping[str, Any], known: Mapping[str, Any], *, thinks: bool) -> dict[str, Any]:
    """What the model takes of temperature and top_p: one of them at most."""
    temperature, top_p = request.get("temperature"), request.get("top_p")
    if known.get("supports_sampling_params") is False:
        return {}
    if thinks:
        temperature = 1 if temperature == 1 else None
        top_p = top_p if top_p is not None and top_p >= 0.95 else None
    if temperature is not None:
        return {"temperature": temperature}
    return {"top_p": top_p} if top_p is not None else {}


def _schema(found: dict[str, Any], request: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """The form of the reply: as the model's own, else that of a tool whose input is the reply."""
    schema = _mapping(_mapping(request.get("response_format")).get("json_schema")).get("schema")
    if not isinstance(schema, Mapping):
        return
    if known.get("supports_native_structured_output"):
        found["output_format"] = {"type": "json_schema", "schema": taken(schema)}
        return
    found["tools"] = [{"name": ANSWER, "input_schema": {"type": "object", **schema}}]
    if "thinking" not in found and known.get("supports_forced_tool_use") is not False:
        found["tool_choice"] = {"name": ANSWER, "type": "tool"}


# Messages


def _conversation(
    messages: Sequence[Mapping[str, Any]], *, thinks: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system prompt's blocks, and the messages, user and assistant by turns."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.get("role") == "assistant" else "user"
        blocks = list(_blocks(message.get("content")))
        if message.get("role") in ("system", "developer") and not turns:
            system += blocks
            continue
        # Thoughts alone are refused: a turn without text is none.
        if role == "assistant" and blocks:
            blocks = [*_thoughts(message.get("thinking_blocks")), *blocks]
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[-1]["role"] == "assistant":
        turns[-1]["content"] = _ended(turns[-1]["content"], thinks=thinks)
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": "Begin."}]})
    return system, turns


def _ended(blocks: list[dict[str, Any]], *, thinks: bool) -> list[dict[str, Any]]:
    """The blocks of a last turn that the model goes on with: without white space at the end, and without
    thoughts where the model does not think.
    """
    kept = [block for block in blocks if thinks or block["type"] not in _THOUGHTS]
    return [
        {**block, "text": block["text"].rstrip()} if block["type"] == "text" and block is kept[-1] else block
        for block in kept
    ]


def _thoughts(blocks: Any) -> Iterator[dict[str, Any]]:
    """The blocks of thoughts that the API takes back: its own, which are signed."""
    for block in blocks if isinstance(blocks, list | tuple) else ():
        kind = block.get("type") if isinstance(block, Mapping) else None
        names = _THOUGHTS.get(kind, ()) if isinstance(kind, str) else ()
        if names and isinstance(block.get(names[-1]), str) and block[names[-1]]:
            yield {name: block.get(name, "") for name in names}


def _blocks(content: Any) -> Iterator[dict[str, Any]]:
    """A message's content as blocks, without those that are empty: the API refuses them."""
    for part in [content] if isinstance(content, str | Mapping) else content or ():
        block = _block(part)
        if block is not None:
            mark = part.get("cache_control") if isinstance(part, Mapping) else None
            yield block | ({"cache_control": mark} if mark else {})


def _block(part: Any) -> dict[str, Any] | None:
    if isinstance(part, str):
        return {"type": "text", "text": part} if part.strip() else None
    if not isinstance(part, Mapping):
        return None
    if part.get("type") == "image_url":
        address = part.get("image_url")
        return _image(str(address.get("url") if isinstance(address, Mapping) else address))
    if part.get("type", "text") == "text":
        return _block(part.get("text")) if isinstance(part.get("text"), str) else None
    return {name: value for name, value in part.items() if name != "cache_control"}


def _image(address: str) -> dict[str, Any]:
    head, comma, data = address.partition(";base64,")
    if not comma or not head.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": address}}
    kind = head.removeprefix("data:").replace("image/jpg", "image/jpeg")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [text for text in value or () if isinstance(text, str)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

"""What Anthropic's messages take and refuse, by model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.providers.words import Picture, Price, Refused, picture


@dataclass(frozen=True)
class AnthropicModel:
    price: Price
    window: int = 200_000
    output: int = 64_000
    minimum: int = 1024
    """Tokens that a cached beginning has at least."""
    budgets: bool = True
    """Takes thinking of the type "enabled", with a budget."""
    adaptive: bool = False
    """Takes thinking of the type "adaptive", and an effort."""
    prefill: bool = True
    samples: bool = True
    """Takes `temperature`, `top_p` and `top_k`."""


def _price(input: float, output: float) -> Price:
    return Price(input, output, read=0.1, write=1.25, write_1h=2.0)


MODELS: dict[str, AnthropicModel] = {
    "claude-haiku-4-5": AnthropicModel(_price(1, 5), minimum=4096),
    "claude-sonnet-4-5": AnthropicModel(_price(3, 15)),
    "claude-sonnet-4-6": AnthropicModel(_price(3, 15), 1_000_000, 128_000, adaptive=True, prefill=False),
    "claude-opus-5": AnthropicModel(
        _price(5, 25),
        1_000_000,
        128_000,
        minimum=512,
        budgets=False,
        adaptive=True,
        prefill=False,
        samples=False,
    ),
}

_NAMES = """
model messages max_tokens cache_control container context_management inference_geo mcp_servers metadata output_config output_format
service_tier stop_sequences stream system temperature thinking tool_choice tools top_k top_p
"""
KNOWN = frozenset(_NAMES.split())
_BLOCKS = {
    "text": {"text", "citations"},
    "image": {"source"},
    "document": {"source", "title", "context", "citations"},
    "tool_use": {"id", "name", "input", "caller"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
}
_UNMARKED = ("thinking", "redacted_thinking")
"""Blocks that take no `cache_control`."""
_MIMES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_LARGEST = 5 << 20
"""Bytes of a picture."""
MARKS = 4
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}


def refusal(message: str, status: int = 400, kind: str = "") -> Refused:
    error = {"type": kind or _TYPES.get(status, "api_error"), "message": message}
    return Refused(status, {"type": "error", "error": error, "request_id": "req_011"})


def blocks_of(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def _tag(kind: object, known: Sequence[str]) -> str:
    tags = ", ".join(f"'{name}'" for name in known)
    return f"Input tag '{kind}' found using 'type' does not match any of the expected tags: {tags}"


def thinks(body: Mapping[str, Any]) -> bool:
    return (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


# Parameters


def check_parameters(body: Mapping[str, Any], name: str, model: AnthropicModel) -> None:
    for field in body:
        if field not in KNOWN:
            raise refusal(f"{field}: Extra inputs are not permitted")
    for field in ("max_tokens", "messages"):
        if field not in body:
            raise refusal(f"{field}: Field required")
    limit = body["max_tokens"]
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise refusal("max_tokens: Input should be a valid integer")
    if limit < 1:
        raise refusal("max_tokens: Input should be greater than or equal to 1")
    if limit > model.output:
        raise refusal(
            f"max_tokens: {limit} > {model.output}, which is the maximum allowed number of output tokens "
            f"for {name}"
        )
    if body.get("service_tier") not in (None, "auto", "standard_only"):
        raise refusal("service_tier: Input should be 'auto' or 'standard_only'")
    if any(not stop.strip() for stop in body.get("stop_sequences") or ()):
        raise refusal("stop_sequences: each stop sequence must contain non-whitespace")
    _sampling(body, model)
    _thinking(body, model)
    _output(body, model)


def _sampling(body: Mapping[str, Any], model: AnthropicModel) -> None:
    for field in ("temperature", "top_p", "top_k"):
        if body.get(field) is not None and not model.samples:
            raise refusal(f"`{field}` is deprecated for this model.")
    for field in ("temperature", "top_p"):
        if not 0 <= (body.get(field) or 0) <= 1:
            raise refusal(f"{field}: Input should be less than or equal to 1")
    if body.get("temperature") is not None and body.get("top_p") is not None:
        raise refusal(
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        )


def _thinking(body: Mapping[str, Any], model: AnthropicModel) -> None:
    thinking = body.get("thinking")
    kind = (thinking or {}).get("type")
    if thinking is not None and kind not in ("enabled", "adaptive", "disabled"):
        raise refusal(f"thinking: {_tag(kind, ('adaptive', 'disabled', 'enabled'))}")
    if not thinks(body):
        return
    if kind == "adaptive" and not model.adaptive:
        raise refusal("adaptive thinking is not supported on this model")
    if kind == "enabled":
        if not model.budgets:
            advice = 'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
            raise refusal(f'"thinking.type.enabled" is not supported for this model. {advice}')
        budget = thinking.get("budget_tokens")
        if budget is None:
            raise refusal("thinking.enabled.budget_tokens: Field required")
        if budget < 1024:
            raise refusal("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= body["max_tokens"]:
            raise refusal("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if body.get("temperature") not in (None, 1):
        raise refusal("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if body.get("top_p") is not None and body["top_p"] < 0.95:
        raise refusal("`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")
    if body.get("top_k") is not None:
        raise refusal("`top_k` must be unset when thinking is enabled.")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise refusal("Thinking may not be enabled when tool_choice forces tool use.")


def _output(body: Mapping[str, Any], model: AnthropicModel) -> None:
    config = body.get("output_config") or {}
    if config.get("effort") is not None:
        if not model.adaptive:
            raise refusal("This model does not support the effort parameter.")
        if config["effort"] not in ("low", "medium", "high", "xhigh", "max"):
            raise refusal("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    wanted, where = (
        (config["format"], "output_config.format")
        if config.get("format")
        else (body.get("output_format"), "output_format")
    )
    if wanted is not None:
        _schema(wanted.get("schema"), f"{where}.schema")


def _schema(schema: Any, where: str) -> None:
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind == "object" and schema.get("additionalProperties") is not False:
        raise refusal(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    if kind == "array" and schema.get("minItems", 0) not in (0, 1):
        raise refusal(f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    refused = {
        "integer": ("minimum", "maximum", "multipleOf"),
        "number": ("minimum", "maximum", "multipleOf"),
    }
    refused |= {"string": ("minLength", "maxLength"), "array": ("maxItems",)}
    if found := [word for word in refused.get(str(kind), ()) if word in schema]:
        raise refusal(f"{where}: For '{kind}' type, properties {', '.join(found)} are not supported")
    parts = [
        *schema.get("properties", {}).values(),
        *schema.get("$defs", {}).values(),
        *schema.get("anyOf", ()),
        schema.get("items"),
    ]
    for part in parts:
        _schema(part, where)


# Messages


def check_messages(body: Mapping[str, Any], model: AnthropicModel) -> list[dict[str, Any]]:
    """The messages, those of the same role in a row made one, each with blocks. Raises Refused."""
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        raise refusal("messages: at least one message is required")
    merged: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        role = message.get("role")
        if role == "system":
            advice = (
                'The Messages API accepts a top-level `system` parameter, not "system" as an input '
                "message role."
            )
            raise refusal(f'messages: Unexpected role "system". {advice}')
        if role not in ("user", "assistant"):
            raise refusal(f"messages.{at}.role: Input should be 'user' or 'assistant'")
        if extra := set(message) - {"role", "content"}:
            raise refusal(f"messages.{at}.{sorted(extra)[0]}: Extra inputs are not permitted")
        blocks = blocks_of(message.get("content"))
        if not blocks and at < len(messages) - 1:
            raise refusal(
                f"messages.{at}: all messages must have non-empty content except for the optional final "
                "assistant message"
            )
        for number, block in enumerate(blocks):
            _block(block, f"messages.{at}.content.{number}", role)
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += blocks
        else:
            merged.append({"role": role, "content": blocks})
    if merged[0]["role"] != "user":
        raise refusal('messages: first message must use the "user" role')
    _end(body, merged, model)
    _tools(body, merged)
    return merged


def _end(body: Mapping[str, Any], merged: Sequence[Mapping[str, Any]], model: AnthropicModel) -> None:
    last = merged[-1]
    if last["role"] != "assistant":
        return
    if not model.prefill:
        raise refusal(
            "This model does not support assistant message prefill. The conversation must end with a user "
            "message."
        )
    if thinks(body):
        _starts_with_thought(last["content"], len(merged) - 1)
    if last["content"] and last["content"][-1].get("text", "x").endswith((" ", "\n", "\t")):
        raise refusal("messages: final assistant content cannot end with trailing whitespace")


def _starts_with_thought(blocks: Sequence[Mapping[str, Any]], at: int) -> None:
    kind = blocks[0]["type"] if blocks else "text"
    if kind not in _UNMARKED:
        message = (
            f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`."
        )
        message += " When `thinking` is enabled, a final `assistant` message must start with a thinking block"
        raise refusal(f"{message} (preceeding the lastmost set of `tool_use` and `tool_result` blocks).")


def _tools(body: Mapping[str, Any], merged: Sequence[Mapping[str, Any]]) -> None:
    """Every use of a tool has its result in the next message, and with thinking begins with the thoughts that
    led to it.
    """
    for at, message in enumerate(merged):
        uses = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        following = merged[at + 1]["content"] if at + 1 < len(merged) else []
        results = {block["tool_use_id"] for block in following if block["type"] == "tool_result"}
        if missing := [use for use in uses if use not in results]:
            text = (
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately "
                f"after: {', '.join(missing)}."
            )
            raise refusal(
                f"{text} Each `tool_use` block must have a corresponding `tool_result` block in the next "
                "message."
            )
        if stray := sorted(results - set(uses)):
            text = (
                f"messages.{at + 1}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{stray[0]}."
            )
            raise refusal(
                f"{text} Each `tool_result` block must have a corresponding `tool_use` block in the "
                "previous message."
            )
        if uses and not body.get("tools"):
            raise refusal("Requests which include `tool_use` or `tool_result` blocks must define tools")
        if uses and at == len(merged) - 2 and thinks(body):
            _starts_with_thought(message["content"], at)


def _block(block: Mapping[str, Any], where: str, role: str) -> None:
    kind = block.get("type")
    if kind not in _BLOCKS:
        raise refusal(f"{where}: {_tag(kind, sorted(_BLOCKS))}")
    taken = _BLOCKS[kind] | {"type"} | (set() if kind in _UNMARKED else {"cache_control"})
    if extra := sorted(set(block) - taken):
        raise refusal(f"{where}.{kind}.{extra[0]}: Extra inputs are not permitted")
    if kind == "text" and not block.get("text"):
        if block.get("cache_control"):
            raise refusal(f"{where}: cache_control cannot be set for empty text blocks")
        raise refusal("messages: text content blocks must be non-empty")
    if kind in ("tool_use", *_UNMARKED) and role != "assistant":
        raise refusal(f"{where}: `{kind}` blocks can only be in `assistant` messages")
    if kind == "tool_use" and not re.fullmatch(r"[a-zA-Z0-9_-]+", str(block.get("id"))):
        raise refusal(f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if kind == "image":
        image_of(block, where)


def image_of(block: Mapping[str, Any], where: str) -> Picture | None:
    """The picture in a block; None of a picture at an address."""
    source = block.get("source") or {}
    if source.get("type") == "url":
        return None
    begin = f"{where}.image.source.base64"
    if source.get("media_type") not in _MIMES:
        raise refusal(
            f"{begin}.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
        )
    found = picture(source.get("data", ""))
    if found is None:
        raise refusal("Could not process image")
    if found.mime != source["media_type"]:
        seen = f"the image appears to be a {found.mime} image"
        raise refusal(
            f"{begin}: The image was specified using the {source['media_type']} media type, but {seen}"
        )
    if found.size > _LARGEST:
        raise refusal(f"{begin}: image exceeds 5 MB maximum: {found.size} bytes > {_LARGEST} bytes")
    if max(found.width, found.height) > 8000:
        raise refusal(
            f"{begin}.data: At least one of the image dimensions exceed max allowed size: 8000 pixels"
        )
    return found


# Marks


def marks(
    body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All blocks of a request in the order of the cache, with where they are."""
    for at, tool in enumerate(body.get("tools") or ()):
        yield f"tools.{at}", tool
    for at, block in enumerate(blocks_of(body.get("system"))):
        yield f"system.{at}", block
    for at, message in enumerate(messages):
        for number, block in enumerate(message["content"]):
            yield f"messages.{at}.content.{number}", block


def check_marks(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> None:
    found = [
        (where, block["cache_control"])
        for where, block in marks(body, messages)
        if block.get("cache_control")
    ]
    count = len(found) + (body.get("cache_control") is not None)
    if count > MARKS:
        raise refusal(f"A maximum of 4 blocks with cache_control may be provided. Found {count}.")
    short = False
    for where, mark in found:
        if mark.get("type") != "ephemeral":
            raise refusal(f"{where}.cache_control.type: Input should be 'ephemeral'")
        ttl = mark.get("ttl", "5m")
        if ttl not in ("5m", "1h"):
            raise refusal(f"{where}.cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
        if ttl == "1h" and short:
            text = (
                f"{where}.cache_control.ttl: a ttl='1h' cache_control block must not come after a "
                "ttl='5m' cache_control block."
            )
            raise refusal(
                f"{text} Note that blocks are processed in the following order: `tools`, `system`, "
                "`messages`."
            )
        short = short or ttl == "5m"

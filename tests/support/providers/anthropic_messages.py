"""Anthropic's messages: whole and streamed, marked caching, signed thinking, pictures, tools."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.openai_wire import Request, encode
from tests.support.providers.anthropic_rules import (
    MODELS,
    AnthropicModel,
    blocks_of,
    check_marks,
    check_messages,
    check_parameters,
    image_of,
    marks,
    refusal,
    thinks,
)
from tests.support.providers.prefix_cache import Block, MarkedCache
from tests.support.providers.server import (
    Answer,
    Asked,
    ProblemKind,
    ProviderFaultKind,
    ProviderServer,
    Says,
    listing,
    said_as_json,
)
from tests.support.providers.words import (
    CHARS,
    Bill,
    Refused,
    Reply,
    constrained,
    pieces,
    standing_for,
    tokens,
)

VERSION = "2023-06-01"
_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool": "tool_use",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "filter": "refusal",
    "pause": "pause_turn",
}
_PROBLEMS: dict[str, tuple[int, str, str]] = {
    "rate_limit": (
        429,
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute.",
        "rate_limit_error",
    ),
    "quota": (400, "Your credit balance is too low to access the Anthropic API.", "invalid_request_error"),
    "server_error": (500, "Internal server error", "api_error"),
    "overloaded": (529, "Overloaded", "overloaded_error"),
    "request_timeout": (504, "Request timed out", "timeout_error"),
    "auth": (401, "invalid x-api-key", "authentication_error"),
    "forbidden": (
        403,
        "Your API key does not have permission to use the specified resource.",
        "permission_error",
    ),
    "unknown_model": (404, "model: claude-unknown", "not_found_error"),
    "bad_request": (400, "messages: Input should be a valid list", "invalid_request_error"),
    "too_long": (400, "prompt is too long: 208310 tokens > 200000 maximum", "invalid_request_error"),
}
_SECONDS = {"5m": 300, "1h": 3600}


class AnthropicServer(ProviderServer):
    """`known` are its models by name; tests may add some."""

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(says, api_key, port)
        self.known: dict[str, AnthropicModel] = dict(MODELS)
        self.cache = MarkedCache(self.clock)
        self._signed: dict[str, str] = {}
        """What was shown of the thoughts, by signature; "" by encrypted thoughts."""

    # Requests

    def accept(self, request: Request) -> Asked | bytes:
        self._authorize(request)
        path = request.path.partition("?")[0]
        if path.endswith("/models"):
            return listing(list(self.known))
        if not path.endswith("/messages"):
            raise refusal("Not Found", 404)
        body = request.body
        if not isinstance(body.get("model"), str):
            raise refusal("model: Field required")
        if body["model"] not in self.known:
            raise refusal(f"model: {body['model']}", 404)
        model = self.known[body["model"]]
        check_parameters(body, body["model"], model)
        messages = check_messages(body, model)
        self._check_thoughts(messages)
        check_marks(body, messages)
        blocks, images = self._blocks(body, messages)
        count = sum(tokens(block.text) for block in blocks)
        if count > model.window:
            raise refusal(f"prompt is too long: {count} tokens > {model.window} maximum")
        wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        more = {"model": model, "blocks": blocks}
        return Asked(
            body["model"],
            body,
            _last(messages),
            "",
            bool(body.get("stream")),
            images,
            wanted.get("schema"),
            more,
        )

    def _authorize(self, request: Request) -> None:
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix(
            "Bearer "
        )
        if not key:
            raise refusal("x-api-key header is required", 401)
        if self.api_key is not None and key != self.api_key:
            raise refusal("invalid x-api-key", 401)
        if "anthropic-version" not in request.headers:
            raise refusal("anthropic-version: header is required")
        if request.headers["anthropic-version"] != VERSION:
            raise refusal(
                f'anthropic-version: "{request.headers["anthropic-version"]}" is not a valid version'
            )

    def _check_thoughts(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Thoughts come back as they were sent."""
        for at, message in enumerate(messages):
            for number, block in enumerate(message["content"]):
                where = f"messages.{at}.content.{number}"
                if block["type"] == "thinking" and self._signed.get(str(block.get("signature"))) != block.get(
                    "thinking"
                ):
                    raise refusal(f"{where}: Invalid `signature` in `thinking` block")
                if block["type"] == "redacted_thinking" and self._signed.get(str(block.get("data"))) != "":
                    raise refusal(f"{where}: Invalid `data` in `redacted_thinking` block")

    def _blocks(
        self, body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Block], int]:
        """The prompt as the cache sees it, and how many pictures are in it."""
        # Changes of these leave what is cached of tools and system, and nothing of the messages.
        salt = said_as_json([body.get("thinking"), body.get("tool_choice"), body.get("output_config")])
        found, images = [], 0
        for where, block in marks(body, messages):
            shown = {name: value for name, value in block.items() if name != "cache_control"}
            text = str(shown["text"]) if shown.get("type") == "text" else said_as_json(shown)
            if shown.get("type") == "image":
                images += 1
                sent = image_of(block, where)
                text = (
                    standing_for(sent, max(1, sent.width * sent.height // 750))
                    if sent
                    else said_as_json(shown)
                )
            mark = block.get("cache_control")
            seconds = _SECONDS[mark.get("ttl", "5m")] if mark else None
            found.append(Block(text, seconds, salt if where.startswith("messages") else ""))
        if body.get("cache_control") and found:
            found[-1] = Block(
                found[-1].text, _SECONDS[body["cache_control"].get("ttl", "5m")], found[-1].salt
            )
        return found, images

    # Replies

    def answer(self, asked: Asked, reply: Reply) -> Answer:
        model: AnthropicModel = asked.more["model"]
        cached = self.cache.use(asked.model, asked.more["blocks"], model.minimum)
        thoughts = reply.thoughts if thinks(asked.body) else ""
        text, stop, sequence = _ended(asked, reply, tokens(thoughts))
        content = self._content(asked, reply, thoughts, text)
        output = (
            tokens(thoughts)
            + tokens(text)
            + sum(tokens(said_as_json(dict(call.arguments))) + 8 for call in reply.calls)
        )
        counts = {
            "input": cached.rest,
            "cached": cached.read,
            "written": cached.written,
            "written_1h": cached.written_1h,
        }
        bill = model.price.bill(asked.model, **counts, output=output)
        usage = _usage(bill, tokens(thoughts))
        body = {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": content,
        }
        body |= {"stop_reason": stop, "stop_sequence": sequence, "usage": usage}
        return Answer(body, self._events(body), bill)

    def _content(self, asked: Asked, reply: Reply, thoughts: str, text: str) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        if thoughts and reply.redacted:
            data = _sign(f"redacted {thoughts}")
            self._signed[data] = ""
            content.append({"type": "redacted_thinking", "data": data})
        elif thoughts:
            shown = "" if asked.body["thinking"].get("display") == "omitted" else thoughts
            self._signed[_sign(thoughts)] = shown
            content.append({"type": "thinking", "thinking": shown, "signature": _sign(thoughts)})
        if text:
            content.append({"type": "text", "text": text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)}
            for call in reply.calls
        ]
        return content

    # Events

    def frame(self, event: Mapping[str, Any]) -> bytes:
        return f"event: {event['type']}\n".encode() + super().frame(event)

    def _events(self, body: Mapping[str, Any]) -> list[dict[str, Any] | bytes]:
        usage = body["usage"]
        start = {
            **body,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 1},
        }
        events: list[dict[str, Any] | bytes] = [{"type": "message_start", "message": start}]
        for index, block in enumerate(body["content"]):
            opened, deltas = _opened(block)
            events.append({"type": "content_block_start", "index": index, "content_block": opened})
            if index == 0:
                events.append({"type": "ping"})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        counts = (
            "input_tokens",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "output_tokens",
            "output_tokens_details",
        )
        told = {name: usage[name] for name in counts if name in usage}
        ended = {"stop_reason": body["stop_reason"], "stop_sequence": body["stop_sequence"]}
        return [*events, {"type": "message_delta", "delta": ended, "usage": told}, {"type": "message_stop"}]

    # Faults

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        status, text, name = _PROBLEMS[kind]
        return refusal(message or text, status, name)

    def spoil(self, kind: ProviderFaultKind, body: dict[str, Any]) -> dict[str, Any]:
        if kind == "no_usage":
            inner = {"message": self.spoil(kind, body["message"])} if "message" in body else {}
            return {name: value for name, value in body.items() if name != "usage"} | inner
        if kind == "empty_choices":
            if body["type"].startswith("content_block"):
                return {}
            return {**body, "content": []} if "content" in body else body
        if "content" in body:  # a list of parts where the text should be
            return {
                **body,
                "content": [
                    {**part, "text": [part["text"]]} if "text" in part else part for part in body["content"]
                ],
            }
        return body


def _opened(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as its stream begins, and what is added to it."""
    if block["type"] == "text":
        return {**block, "text": ""}, [
            {"type": "text_delta", "text": piece} for piece in pieces(block["text"])
        ]
    if block["type"] == "thinking":
        deltas: list[dict[str, Any]] = [
            {"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])
        ]
        return {**block, "thinking": "", "signature": ""}, [
            *deltas,
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    if block["type"] == "tool_use":
        parts = ["", *pieces(json.dumps(block["input"]))]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return dict(block), []


def _usage(bill: Bill, thought: int) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "input_tokens": bill.input,
        "cache_creation_input_tokens": bill.written + bill.written_1h,
        "cache_read_input_tokens": bill.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": bill.written,
            "ephemeral_1h_input_tokens": bill.written_1h,
        },
        "output_tokens": bill.output,
        "service_tier": "standard",
    }
    return usage | ({"output_tokens_details": {"thinking_tokens": thought}} if thought else {})


def _ended(asked: Asked, reply: Reply, thought: int) -> tuple[str, str, str | None]:
    """The text as the limits leave it, why it ends, and the stop sequence that ended it."""
    text, sequence = reply.text, None
    if asked.schema and not reply.calls and reply.stop == "stop":
        text = constrained(text, asked.schema)
    stop = "tool_use" if reply.calls else _STOPS[reply.stop]
    for one in asked.body.get("stop_sequences") or ():
        if one in text:
            text, stop, sequence = text.partition(one)[0], "stop_sequence", one
    left = max(0, asked.body["max_tokens"] - thought)
    if tokens(text) > left and len(text) < 1 << 20:
        text, stop, sequence = text[: left * CHARS], "max_tokens", None
    return text, stop, sequence


def _sign(text: str) -> str:
    return base64.b64encode(hashlib.sha256(b"anthropic of the tests " + encode(text)).digest() * 2).decode()


def _last(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            texts = []
            for block in message["content"]:
                inner = blocks_of(block.get("content")) if block["type"] == "tool_result" else [block]
                texts += [str(part["text"]) for part in inner if "text" in part]
            return "".join(texts)
    return ""

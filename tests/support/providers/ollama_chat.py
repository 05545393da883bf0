"""Ollama's /api/chat: lines of JSON, options, thinking, schemas, pictures, and a window that cuts the prompt
in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.support.openai_wire import Request, encode, response
from tests.support.providers.server import (
    Answer,
    Asked,
    ProblemKind,
    ProviderFaultKind,
    ProviderServer,
    Says,
    said_as_json,
)
from tests.support.providers.words import CHARS, Bill, Refused, Reply, constrained, picture, pieces, tokens

DEFAULT_WINDOW = 4096
"""Tokens of `num_ctx` where the request does not say."""
_IMAGE = 768
"""Tokens of a picture."""
_SECOND = 1_000_000_000
_INTEGERS = (
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
)
_DECIMALS = (
    "top_p",
    "min_p",
    "typical_p",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_PROBLEMS: dict[str, tuple[int, str]] = {
    "rate_limit": (429, "too many concurrent requests"),
    "quota": (402, "you've reached your weekly usage limit"),
    "server_error": (500, "llama runner process has terminated: exit status 2"),
    "overloaded": (503, "server busy, please try again.  maximum pending requests exceeded"),
    "request_timeout": (500, "timed out waiting for llama runner to start"),
    "auth": (401, "unauthorized"),
    "forbidden": (403, "ollama cloud is disabled: remote model is unavailable"),
    "unknown_model": (404, "model 'unknown' not found"),
    "bad_request": (400, "invalid options"),
    "too_long": (400, "the input length exceeds the context length"),
}


@dataclass(frozen=True)
class OllamaModel:
    thinks: bool = False
    sees: bool = False
    tools: bool = False
    window: int = 131_072


MODELS: dict[str, OllamaModel] = {
    "llama3.1:8b": OllamaModel(tools=True),
    "qwen3:8b": OllamaModel(thinks=True, tools=True, window=40_960),
    "gemma3:4b": OllamaModel(sees=True),
}


def refusal(message: str, status: int = 400) -> Refused:
    return Refused(status, {"error": message})


def _go(value: object) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


class OllamaServer(ProviderServer):
    """`known` are the models that were pulled; `shown` what of the last prompt was left after it was cut."""

    media: ClassVar[str] = "application/x-ndjson"

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(says, api_key, port)
        self.known: dict[str, OllamaModel] = dict(MODELS)
        self.shown: list[Mapping[str, Any]] = []

    # Requests

    def accept(self, request: Request) -> Asked | bytes:
        if self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise refusal("unauthorized", 401)
        path, body = request.path.partition("?")[0], request.body
        if path.endswith("/api/tags"):
            return response(200, encode({"models": [{"name": name, "model": name} for name in self.known]}))
        name, model = self._model(body)
        if path.endswith("/api/show"):
            return response(200, encode(_shown(model)))
        if not path.endswith("/api/chat"):
            return response(404, b"404 page not found", content_type="text/plain")
        _check(body)
        think = self._think(body, name, model)
        if body.get("tools") and not model.tools:
            raise refusal(f"registry.ollama.ai/library/{name} does not support tools")
        images = sum(len(message.get("images") or ()) for message in body.get("messages") or ())
        if images and not model.sees:
            raise refusal("this model does not support image input", 500)
        window = min((body.get("options") or {}).get("num_ctx") or DEFAULT_WINDOW, model.window)
        messages, count = _cut(body.get("messages") or [], window, cut=body.get("truncate") is not False)
        self.shown = messages
        text = next(
            (str(one["content"]) for one in reversed(messages) if one["role"] in ("user", "tool")), ""
        )
        wanted = body.get("format")
        schema = wanted if isinstance(wanted, dict) else ({"type": "object"} if wanted == "json" else None)
        more = {"think": think, "count": count, "window": window}
        return Asked(name, body, text, "", body.get("stream") is not False, images, schema, more)

    def _model(self, body: Mapping[str, Any]) -> tuple[str, OllamaModel]:
        name = body.get("model") or body.get("name")
        if not name:
            raise refusal("model is required")
        found = self.known.get(name) or self.known.get(f"{name}:latest")
        if found is None:
            raise refusal(f"model '{name}' not found", 404)
        return str(name), found

    def _think(self, body: Mapping[str, Any], name: str, model: OllamaModel) -> bool:
        think = body.get("think")
        if isinstance(think, str) and think not in ("high", "medium", "low", "max"):
            raise refusal(
                f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)'
            )
        if think and not model.thinks:
            raise refusal(f'"{name}" does not support thinking')
        return model.thinks and think is not False

    # Replies

    def answer(self, asked: Asked, reply: Reply) -> Answer:
        thoughts = reply.thoughts if asked.more["think"] else ""
        text, reason = reply.text, "length" if reply.stop == "length" else "stop"
        if asked.schema and not reply.calls and reply.stop == "stop":
            text = constrained(text, asked.schema)
        options = asked.body.get("options") or {}
        for stop in options.get("stop") or ():
            text = text.partition(stop)[0]
        limit = options.get("num_predict")
        if limit is not None and limit >= 0 and tokens(thoughts) + tokens(text) > limit:
            thoughts, text = thoughts[: limit * CHARS], text[: max(0, limit - tokens(thoughts)) * CHARS]
            reason = "length"
        calls = [{"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in reply.calls]
        output = tokens(thoughts) + tokens(text) + sum(tokens(said_as_json(call)) for call in calls)
        ended = {"done": True, "done_reason": reason, **_metrics(asked.more["count"], output)}
        head = {"model": asked.model, "created_at": "2026-01-02T03:04:05.678901Z"}
        message = {"role": "assistant", "content": text, **({"thinking": thoughts} if thoughts else {})}
        message |= {"tool_calls": calls} if calls else {}
        parts: list[dict[str, Any]] = [{"content": "", "thinking": piece} for piece in pieces(thoughts)]
        parts += [{"content": piece} for piece in pieces(text)]
        parts += [{"content": "", "tool_calls": calls}] if calls else []
        events: list[dict[str, Any]] = [
            {**head, "message": {"role": "assistant", **part}, "done": False} for part in parts
        ]
        events.append({**head, "message": {"role": "assistant", "content": ""}, **ended})
        return Answer(
            {**head, "message": message, **ended},
            events,
            Bill(asked.model, input=asked.more["count"], output=output),
        )

    def frame(self, event: Mapping[str, Any]) -> bytes:
        return encode(event) + b"\n"

    # Faults

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        status, text = _PROBLEMS[kind]
        return refusal(message or text, status)

    def spoil(self, kind: ProviderFaultKind, body: dict[str, Any]) -> dict[str, Any]:
        if kind == "no_usage":  # Go leaves zeros out: so it looks where the whole prompt was in the cache
            return {
                name: value for name, value in body.items() if name not in ("prompt_eval_count", "eval_count")
            }
        if kind == "empty_choices":
            return {name: value for name, value in body.items() if name != "message"}
        message = body["message"]
        return {**body, "message": {**message, "content": [{"type": "text", "text": message["content"]}]}}


def _metrics(prompt: int, output: int) -> dict[str, int]:
    """Nanoseconds, as of a machine that reads 1000 tokens in a second, and writes 50."""
    reading, writing = prompt * _SECOND // 1000, output * _SECOND // 50
    durations = {"total_duration": reading + writing + _SECOND // 10, "load_duration": _SECOND // 10}
    return {
        **durations,
        "prompt_eval_count": prompt,
        "prompt_eval_duration": reading,
        "eval_count": output,
        "eval_duration": writing,
    }


def _shown(model: OllamaModel) -> dict[str, Any]:
    able = {"completion": True, "tools": model.tools, "thinking": model.thinks, "vision": model.sees}
    info = {"general.architecture": "llama", "llama.context_length": model.window}
    details = {"family": "llama", "parameter_size": "8B", "quantization_level": "Q4_K_M"}
    return {
        "template": "",
        "details": details,
        "model_info": info,
        "capabilities": [name for name, has in able.items() if has],
    }


def _check(body: Mapping[str, Any]) -> None:
    """Types, in the words of Go's JSON. Fields that are not known are ignored, as there."""
    for message in body.get("messages") or ():
        content = message.get("content", "")
        if not isinstance(content, str):
            raise refusal(
                f"json: cannot unmarshal {_go(content)} into Go struct field ChatRequest.messages.content "
                "of type string"
            )
        for image in message.get("images") or ():
            if picture(image) is None:
                raise refusal(
                    "illegal base64 data at input byte 4"
                    if ":" in image
                    else "Failed to load image or audio file"
                )
    for name in _INTEGERS + _DECIMALS:
        value = (body.get("options") or {}).get(name)
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            kind = "integer" if name in _INTEGERS else "float32"
            raise refusal(f'option "{name}" must be of type {kind}')
    wanted = body.get("format")
    if isinstance(wanted, str) and wanted not in ("", "json"):
        raise refusal(f'invalid format: "{wanted}"; expected "json" or a valid JSON Schema object', 500)


def _size(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(
        tokens(f"<{one['role']}>{one.get('content', '')}") + _IMAGE * len(one.get("images") or ())
        for one in messages
    )


def _cut(
    messages: Sequence[Mapping[str, Any]], window: int, *, cut: bool
) -> tuple[list[Mapping[str, Any]], int]:
    """The messages that the window leaves, and their tokens: the oldest go first, the instructions and the
    last stay.

    A last message that is too long by itself loses its own beginning.
    """
    if not cut:
        if _size(messages) > window:
            raise refusal("the input length exceeds the context length")
        return list(messages), _size(messages)
    for first in range(len(messages)):
        kept = [one for one in messages[:first] if one["role"] == "system"] + list(messages[first:])
        if _size(kept) <= window:
            return kept, _size(kept)
    kept = [one for one in messages[:-1] if one["role"] == "system"] + list(messages[-1:])
    over = _size(kept) - window
    if kept and over > 0:
        kept[-1] = {**kept[-1], "content": kept[-1]["content"][over * CHARS :]}
    return kept, min(_size(kept), window)

"""OpenAI's chat completions: whole and streamed, reasoning models, automatic caching, schemas, pictures,
tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.support.openai_wire import Request
from tests.support.providers.openai_rules import (
    KNOWN,
    MODELS,
    OpenAIModel,
    check_parameters,
    refusal,
    rendered,
)
from tests.support.providers.prefix_cache import AutomaticCache
from tests.support.providers.server import (
    Answer,
    Asked,
    ProblemKind,
    ProviderFaultKind,
    ProviderServer,
    Says,
    listing,
)
from tests.support.providers.words import CHARS, Refused, Reply, constrained, pieces, tokens

FINISH = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool": "tool_calls",
    "filter": "content_filter",
}
EFFORT = {"none": 0, "minimal": 0, "low": 64, "medium": 256, "high": 1024, "xhigh": 4096}
"""Tokens that a model thinks where the test does not say what it thought."""
_PROBLEMS: dict[str, tuple[int, str, str, str | None]] = {
    "rate_limit": (
        429,
        "Rate limit reached for this model in your organization on tokens per min (TPM).",
        "tokens",
        "rate_limit_exceeded",
    ),
    "quota": (
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        *["insufficient_quota"] * 2,
    ),
    "server_error": (
        500,
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        None,
    ),
    "overloaded": (
        503,
        "The engine is currently overloaded, please try again later.",
        "service_unavailable_error",
        None,
    ),
    "request_timeout": (408, "Request timed out.", "timeout", None),
    "auth": (401, "Incorrect API key provided: sk-test.", "invalid_request_error", "invalid_api_key"),
    "forbidden": (
        403,
        "Your project does not have access to this model.",
        "invalid_request_error",
        "model_not_found",
    ),
    "unknown_model": (
        404,
        "The model does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    "bad_request": (400, "Invalid value.", "invalid_request_error", "invalid_value"),
    "too_long": (
        400,
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 "
        "tokens."
        " Please reduce the length of the messages.",
        "invalid_request_error",
        "context_length_exceeded",
    ),
}


class OpenAIServer(ProviderServer):
    """`known` are its models by name; tests may add some."""

    known_parameters: ClassVar[frozenset[str]] = KNOWN

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(says, api_key, port)
        self.known: dict[str, OpenAIModel] = dict(MODELS)
        self.cache = AutomaticCache(self.clock)

    # Requests

    def authorize(self, request: Request) -> None:
        sent = request.headers.get("authorization", "")
        if not sent.startswith("Bearer ") or not sent[7:].strip():
            raise refusal("You didn't provide an API key.", status=401)
        if self.api_key is not None and sent != f"Bearer {self.api_key}":
            raise refusal(
                f"Incorrect API key provided: {sent[7:12]}***.", None, "invalid_api_key", status=401
            )

    def model_of(self, request: Request) -> OpenAIModel:
        name = request.body.get("model")
        if not isinstance(name, str):
            raise refusal("you must provide a model parameter")
        if name not in self.known:
            raise refusal(
                f"The model `{name}` does not exist or you do not have access to it.",
                None,
                "model_not_found",
                status=404,
            )
        return self.known[name]

    def accept(self, request: Request) -> Asked | bytes:
        self.authorize(request)
        path = request.path.partition("?")[0]
        if path.endswith("/models"):
            return listing(list(self.known))
        if not path.endswith("/chat/completions"):
            raise refusal(f"Invalid URL (POST {path})", status=404)
        model = self.model_of(request)
        self.check(request.body, model)
        return self.asked(request, model)

    def check(self, body: Mapping[str, Any], model: OpenAIModel) -> None:
        check_parameters(body, model, self.known_parameters)

    def asked(self, request: Request, model: OpenAIModel) -> Asked:
        body = request.body
        prompt, images = rendered(body, model)
        if tokens(prompt) > model.window:
            raise self.too_long(tokens(prompt), model)
        wanted = body.get("response_format") or {}
        schema = wanted.get("json_schema", {}).get("schema") if wanted.get("type") == "json_schema" else None
        return Asked(
            request.model,
            body,
            last_text(body),
            prompt,
            bool(body.get("stream")),
            images,
            schema,
            {"model": model},
        )

    def too_long(self, count: int, model: OpenAIModel) -> Refused:
        if model.reasoning:
            text = (
                f"Input tokens exceed the configured limit of {model.window} tokens. Your messages "
                f"resulted in {count} tokens."
            )
        else:
            text = (
                f"This model's maximum context length is {model.window} tokens. However, your messages "
                f"resulted in {count} tokens."
            )
        return refusal(
            f"{text} Please reduce the length of the messages.", "messages", "context_length_exceeded"
        )

    # Replies

    def answer(self, asked: Asked, reply: Reply) -> Answer:
        text, thought, finish = self.ended(asked, reply)
        model = asked.more["model"]
        counts = self.counts(asked)
        output = (
            tokens(text) + thought + sum(tokens(json.dumps(dict(call.arguments))) + 8 for call in reply.calls)
        )
        bill = model.price.bill(asked.model, **counts, output=output)
        usage = self.usage(asked, bill, thought)
        message = self.message(asked, reply, text)
        head = {
            "id": "chatcmpl-1",
            "created": 1760000000,
            "model": asked.model,
            "service_tier": "default",
            "system_fingerprint": "fp_1",
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish,
            **self.beside(reply),
        }
        body = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return Answer(
            self.finished(body),
            self.events(asked, {**head, "object": "chat.completion.chunk"}, message, finish, usage),
            bill,
        )

    def counts(self, asked: Asked) -> dict[str, int]:
        """The prompt's tokens as they are billed."""
        scope = (asked.model, asked.body.get("prompt_cache_key"))
        cached, written = self.cache.use(scope, asked.prompt)
        written = written if asked.more["model"].pays_for_writes else 0
        return {"input": tokens(asked.prompt) - cached - written, "cached": cached, "written": written}

    def usage(self, asked: Asked, bill: Any, thought: int) -> dict[str, Any]:
        details = {"cached_tokens": bill.cached, "audio_tokens": 0}
        if asked.more["model"].pays_for_writes:
            details["cache_write_tokens"] = bill.written
        spent = {
            "reasoning_tokens": thought,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        }
        return {
            "prompt_tokens": bill.prompt,
            "completion_tokens": bill.output,
            "total_tokens": bill.prompt + bill.output,
            "prompt_tokens_details": details,
            "completion_tokens_details": spent,
        }

    def thinking(self, asked: Asked, reply: Reply) -> int:
        """Tokens that the model thinks before it speaks."""
        model = asked.more["model"]
        if not model.reasoning:
            return 0
        effort = asked.body.get("reasoning_effort") or model.efforts[0]
        return 0 if effort == "none" else tokens(reply.thoughts) or EFFORT[effort]

    def ended(self, asked: Asked, reply: Reply) -> tuple[str, int, str]:
        """The text as the limits leave it, tokens of thought, and the reason of the end."""
        text = (
            constrained(reply.text, asked.schema)
            if asked.schema and not reply.calls and reply.stop == "stop"
            else reply.text
        )
        finish = "tool_calls" if reply.calls else FINISH.get(reply.stop, "stop")
        stops = asked.body.get("stop") or []
        for stop in [stops] if isinstance(stops, str) else stops:
            text = text.partition(stop)[0]
        limit = (
            asked.body.get("max_completion_tokens")
            or asked.body.get("max_tokens")
            or asked.more["model"].output
        )
        thought = self.thinking(asked, reply)
        if thought >= limit:
            return "", limit, "length"
        if tokens(text) + thought > limit and len(text) < 1 << 20:
            text, finish = text[: (limit - thought) * CHARS], "length"
        return text, thought, finish

    def message(self, asked: Asked, reply: Reply, text: str) -> dict[str, Any]:
        refused = reply.stop == "refusal"
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if refused or (reply.calls and not text) else text,
        }
        message |= {"refusal": text if refused else None, "annotations": []}
        if reply.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
                }
                for call in reply.calls
            ]
        return message

    def beside(self, reply: Reply) -> dict[str, Any]:
        """What else stands in a choice."""
        return {}

    def finished(self, body: dict[str, Any]) -> dict[str, Any]:
        return body

    # Events

    def events(
        self, asked: Asked, head: dict[str, Any], message: dict[str, Any], finish: str, usage: dict[str, Any]
    ) -> list[dict[str, Any] | bytes]:
        told = bool((asked.body.get("stream_options") or {}).get("include_usage"))

        def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return {**head, "choices": [choice], **({"usage": None} if told else {})}

        events: list[dict[str, Any] | bytes] = [chunk({"role": "assistant", "content": "", "refusal": None})]
        events += [chunk(delta) for delta in self.deltas(message)]
        events.append(chunk({}, finish))
        if told:
            events.append({**head, "choices": [], "usage": usage})
        return [*events, b"data: [DONE]\n\n"]

    def deltas(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"content": piece} for piece in pieces(message["content"] or "")]
        found += [{"refusal": piece} for piece in pieces(message.get("refusal") or "")]
        for index, call in enumerate(message.get("tool_calls") or ()):
            function = {"name": call["function"]["name"], "arguments": ""}
            found.append(
                {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}
            )
            for piece in pieces(call["function"]["arguments"]):
                found.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        return found

    # Faults

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        status, text, name, code = _PROBLEMS[kind]
        return refusal(message or text, None, code, status=status, kind=name)

    def spoil(self, kind: ProviderFaultKind, body: dict[str, Any]) -> dict[str, Any]:
        if kind == "empty_choices":
            return {**body, "choices": []}
        if kind == "no_usage":
            return {name: value for name, value in body.items() if name != "usage"}
        choices = []
        for choice in body["choices"]:
            part = "message" if "message" in choice else "delta"
            inner = dict(choice[part])
            if inner.get("content"):
                inner["content"] = [{"type": "text", "text": inner["content"]}]
            choices.append({**choice, part: inner})
        return {**body, "choices": choices}


def last_text(body: Mapping[str, Any]) -> str:
    """What the user said last."""
    for message in reversed(body.get("messages") or ()):
        if message.get("role") in ("user", "tool"):
            content = message.get("content")
            if isinstance(content, list):
                return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
            return str(content)
    return ""

"""OpenRouter: OpenAI's chat completions with its own fields, errors and prices, and other providers' caches
behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.providers.openai_chat import EFFORT, FINISH, OpenAIServer
from tests.support.providers.openai_rules import OpenAIModel, check_format, rendered
from tests.support.providers.prefix_cache import Block, MarkedCache
from tests.support.providers.server import Asked, ProblemKind, Says, said_as_json
from tests.support.providers.words import Price, Refused, Reply, tokens

_PROBLEMS: dict[str, tuple[int, str]] = {
    "rate_limit": (429, "Rate limit exceeded: free-models-per-min."),
    "quota": (402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits"),
    "server_error": (500, "Internal Server Error"),
    "overloaded": (502, "Provider returned error"),
    "request_timeout": (408, "Request timed out"),
    "auth": (401, "User not found."),
    "forbidden": (403, "The request was flagged by moderation."),
    "unknown_model": (404, "No endpoints found for unknown/model."),
    "bad_request": (400, "Input validation error"),
    "too_long": (
        400,
        "This endpoint's maximum context length is 200000 tokens. However, you requested about 208310 "
        "tokens (208310 of text input)."
        ' Please reduce the length of either one, or use the "middle-out" transform to compress your prompt '
        "automatically.",
    ),
}
_COMMENT = b": OPENROUTER PROCESSING\n\n"


@dataclass(frozen=True)
class RoutedModel(OpenAIModel):
    provider: str = "OpenAI"
    """Who serves it."""
    minimum: int = 1024
    """Tokens that a beginning has which is cached by marks."""
    marked: bool = False
    """It caches what `cache_control` marks; others do it by themselves."""


_CLAUDE = Price(3, 15, read=0.1, write=1.25, write_1h=2.0)
_EFFORTS = ("medium", "none", "minimal", "low", "high", "xhigh")
MODELS: dict[str, OpenAIModel] = {
    "openai/gpt-4o-mini": RoutedModel(Price(0.15, 0.6, read=0.5)),
    "openai/gpt-5-mini": RoutedModel(Price(0.25, 2, read=0.1), 400_000, 128_000, True, _EFFORTS),
    "anthropic/claude-sonnet-4.5": RoutedModel(
        _CLAUDE, 1_000_000, 64_000, True, _EFFORTS, provider="Anthropic", marked=True
    ),
    "deepseek/deepseek-chat": RoutedModel(Price(0.28, 0.42, read=0.1), 163_840, 65_536, provider="DeepSeek"),
}


def refusal(message: str, status: int = 400, metadata: Mapping[str, Any] | None = None) -> Refused:
    error = {"message": message, "code": status, **({"metadata": dict(metadata)} if metadata else {})}
    return Refused(status, {"error": error, "user_id": "user_1"})


class OpenRouterServer(OpenAIServer):
    """Parameters that a model does not take are dropped in silence, as there: only OpenRouter's own are
    checked.
    """

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(says, api_key, port)
        self.known = dict(MODELS)
        self.marked = MarkedCache(self.clock)

    def authorize(self, request: Any) -> None:
        sent = request.headers.get("authorization", "")
        if not sent.startswith("Bearer "):
            raise refusal("No auth credentials found", 401)
        if self.api_key is not None and sent != f"Bearer {self.api_key}":
            raise refusal("User not found.", 401)

    def model_of(self, request: Any) -> OpenAIModel:
        name = str(request.body.get("model", "")).partition(":")[0]
        if not name:
            raise refusal("No models provided")
        if name not in self.known:
            raise refusal(f"{request.body['model']} is not a valid model ID")
        return self.known[name]

    def check(self, body: Mapping[str, Any], model: OpenAIModel) -> None:
        reasoning = body.get("reasoning")
        if reasoning is not None:
            if reasoning.get("effort") is not None and reasoning.get("max_tokens") is not None:
                raise refusal('Only one of "reasoning.effort" and "reasoning.max_tokens" can be specified')
            if reasoning.get("effort") not in (None, *EFFORT):
                raise refusal(
                    "reasoning.effort: Invalid option: expected one of "
                    + "|".join(f'"{name}"' for name in EFFORT)
                )
        if not 0 <= (body.get("temperature") or 0) <= 2:
            raise refusal("temperature: Too big: expected number to be <=2")
        if body.get("response_format") is not None:
            try:
                check_format(body["response_format"], str(body.get("messages", "")))
            except Refused as refused:  # the provider's own words, in a frame of OpenRouter's
                raw = said_as_json(refused.body)
                raise refusal(
                    "Provider returned error", 400, {"raw": raw, "provider_name": "OpenAI"}
                ) from None

    def asked(self, request: Any, model: OpenAIModel) -> Asked:
        found = super().asked(request, model)
        return Asked(
            found.model,
            found.body,
            found.text,
            found.prompt,
            found.stream,
            found.images,
            found.schema,
            {"model": model},
        )

    def too_long(self, count: int, model: OpenAIModel) -> Refused:
        text = (
            f"This endpoint's maximum context length is {model.window} tokens. However, you requested "
            f"about {count} tokens"
        )
        advice = (
            'Please reduce the length of either one, or use the "middle-out" transform to compress '
            "your prompt automatically."
        )
        return refusal(f"{text} ({count} of text input). {advice}")

    # Replies

    def counts(self, asked: Asked) -> dict[str, int]:
        model = asked.more["model"]
        if not model.marked:
            return super().counts(asked)
        blocks = _blocks(asked.body, model)
        if len([block for block in blocks if block.mark]) > 4:
            raw = "A maximum of 4 blocks with cache_control may be provided."
            raise refusal("Provider returned error", 400, {"raw": raw, "provider_name": model.provider})
        cached = self.marked.use(asked.model, blocks, model.minimum)
        return {
            "input": cached.rest,
            "cached": cached.read,
            "written": cached.written,
            "written_1h": cached.written_1h,
        }

    def usage(self, asked: Asked, bill: Any, thought: int) -> dict[str, Any]:
        usage = super().usage(asked, bill, thought)
        usage["prompt_tokens_details"] = {
            "cached_tokens": bill.cached,
            "cache_write_tokens": bill.written + bill.written_1h,
            "audio_tokens": 0,
        }
        costs = {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": 0,
            "upstream_inference_completions_cost": 0,
        }
        return {**usage, "cost": bill.cost, "is_byok": False, "cost_details": costs}

    def thinking(self, asked: Asked, reply: Reply) -> int:
        wanted = asked.body.get("reasoning") or {}
        model = asked.more["model"]
        effort = wanted.get("effort") or asked.body.get("reasoning_effort")
        asks = bool(effort or wanted.get("max_tokens") or wanted.get("enabled"))
        if (
            not model.reasoning
            or effort == "none"
            or wanted.get("enabled") is False
            or (model.marked and not asks)
        ):
            return 0
        count = tokens(reply.thoughts) or EFFORT[effort or "medium"]
        return min(count, wanted.get("max_tokens") or count)

    def message(self, asked: Asked, reply: Reply, text: str) -> dict[str, Any]:
        message = super().message(asked, reply, text)
        message.pop("annotations", None)
        shown = (
            reply.thoughts
            if self.thinking(asked, reply) and not (asked.body.get("reasoning") or {}).get("exclude")
            else ""
        )
        message["reasoning"] = shown or None
        if shown:
            signature = {"signature": "c2lnbmVk"} if asked.more["model"].marked else {}
            kind = {
                "format": "anthropic-claude-v1" if asked.more["model"].marked else "openai-responses-v1",
                "index": 0,
            }
            message["reasoning_details"] = [{"type": "reasoning.text", "text": shown, **signature, **kind}]
        return message

    def beside(self, reply: Reply) -> dict[str, Any]:
        return {
            "native_finish_reason": "completed"
            if reply.stop == "stop"
            else FINISH.get(reply.stop, reply.stop)
        }

    def finished(self, body: dict[str, Any]) -> dict[str, Any]:
        model = self.known[str(body["model"]).partition(":")[0]]
        assert isinstance(model, RoutedModel)
        return {**body, "id": "gen-1", "provider": model.provider}

    # Events

    def events(
        self, asked: Asked, head: dict[str, Any], message: dict[str, Any], finish: str, usage: dict[str, Any]
    ) -> list[dict[str, Any] | bytes]:
        head = {**head, "id": "gen-1", "provider": asked.more["model"].provider}
        # Usage comes with every stream, asked for or not.
        with_usage = Asked(
            asked.model,
            {**asked.body, "stream_options": {"include_usage": True}},
            asked.text,
            more=asked.more,
        )
        return [_COMMENT, _COMMENT, *super().events(with_usage, head, message, finish, usage)]

    def deltas(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        details = message.get("reasoning_details") or ()
        thought = [
            {"role": "assistant", "content": "", "reasoning": part["text"], "reasoning_details": [part]}
            for part in details
        ]
        return [*thought, *super().deltas(message)]

    # Faults

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        status, text = _PROBLEMS[kind]
        metadata = (
            {"raw": '{"message": "upstream connect error"}', "provider_name": "Anthropic"}
            if kind == "overloaded"
            else None
        )
        return refusal(message or text, status, metadata)

    def stream_problem(self, refused: Refused) -> list[dict[str, Any] | bytes]:
        choice = {
            "index": 0,
            "delta": {"content": ""},
            "finish_reason": "error",
            "native_finish_reason": "error",
        }
        head = {
            "id": "gen-1",
            "object": "chat.completion.chunk",
            "created": 1760000000,
            "model": "unknown",
            "provider": "Anthropic",
        }
        return [{**head, "error": refused.body["error"], "choices": [choice]}, b"data: [DONE]\n\n"]


def _blocks(body: Mapping[str, Any], model: OpenAIModel) -> list[Block]:
    """The prompt's blocks with their marks, as they are passed on."""
    found: list[Block] = []
    for message in body["messages"]:
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"type": "text", "text": content or ""}]:
            mark = part.get("cache_control")
            plain = {name: value for name, value in part.items() if name != "cache_control"}
            text, _ = rendered({"messages": [{"role": "user", "content": [plain]}]}, model)
            found.append(
                Block(
                    f"{message['role']}{text}", (3600 if mark.get("ttl") == "1h" else 300) if mark else None
                )
            )
    return found

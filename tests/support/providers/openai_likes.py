"""Providers that speak OpenAI's chat completions with differences of their own: DeepSeek, vLLM, Azure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.support.openai_wire import Request
from tests.support.providers.openai_chat import OpenAIServer
from tests.support.providers.openai_rules import KNOWN, OpenAIModel, check_parameters, refusal
from tests.support.providers.prefix_cache import AutomaticCache
from tests.support.providers.server import Asked, ProblemKind, Says
from tests.support.providers.words import Price, Refused, Reply


class DeepSeekServer(OpenAIServer):
    """Thoughts in `reasoning_content`, a cache in steps of 64 tokens with counts of its own, no schemas,
    comments to keep alive.
    """

    known_parameters: ClassVar[frozenset[str]] = KNOWN | {"thinking"}

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(says, api_key, port)
        price = Price(0.28, 0.42, read=0.1)
        self.known = {
            "deepseek-chat": OpenAIModel(price, 131_072, 8192, images=False),
            "deepseek-reasoner": OpenAIModel(price, 131_072, 65_536, True, ("high",), images=False),
        }
        self.cache = AutomaticCache(self.clock, minimum=64, step=64, ttl=3600.0)

    def check(self, body: Mapping[str, Any], model: OpenAIModel) -> None:
        wanted = (body.get("response_format") or {}).get("type")
        if wanted == "json_schema":
            raise refusal("This response_format type is unavailable now", None, "invalid_request_error")
        # It takes fields that it does not know, and ignores those that its thinking models have no use for.
        ignored = (
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "stop",
            "max_tokens",
            "reasoning_effort",
        )
        shown = {name: value for name, value in body.items() if name in self.known_parameters}
        check_parameters(
            {name: value for name, value in shown.items() if not (model.reasoning and name in ignored)},
            model,
            KNOWN | {"thinking"},
        )
        limit = body.get("max_tokens")
        if limit is not None and not 1 <= limit <= model.output:
            raise refusal(
                f"Invalid max_tokens value, the valid range of max_tokens is [1, {model.output}]",
                None,
                "invalid_request_error",
            )

    def too_long(self, count: int, model: OpenAIModel) -> Refused:
        begin = (
            f"This model's maximum context length is {model.window} tokens. However, you requested "
            f"{count} tokens"
        )
        text = (
            f"{begin} ({count} in the messages, 0 in the completion). Please reduce the length of the "
            "messages or completion."
        )
        return refusal(text, None, "invalid_request_error")

    def usage(self, asked: Asked, bill: Any, thought: int) -> dict[str, Any]:
        usage = super().usage(asked, bill, thought)
        usage["prompt_tokens_details"] = {"cached_tokens": bill.cached}
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
        return {**usage, "prompt_cache_hit_tokens": bill.cached, "prompt_cache_miss_tokens": bill.input}

    def message(self, asked: Asked, reply: Reply, text: str) -> dict[str, Any]:
        message = super().message(asked, reply, text)
        shown = {"role": "assistant", "content": message["content"] or ""}
        if asked.more["model"].reasoning:
            shown["reasoning_content"] = reply.thoughts
        return {**shown, **({"tool_calls": message["tool_calls"]} if reply.calls else {})}

    def deltas(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        thoughts = message.get("reasoning_content") or ""
        return [
            *({"content": None, "reasoning_content": part} for part in thoughts.split("\n") if part),
            *super().deltas(message),
        ]

    def events(
        self, asked: Asked, head: dict[str, Any], message: dict[str, Any], finish: str, usage: dict[str, Any]
    ) -> list[dict[str, Any] | bytes]:
        return [b": keep-alive\n\n", *super().events(asked, head, message, finish, usage)]

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        own = {
            "quota": (402, "Insufficient Balance", "unknown_error", "invalid_request_error"),
            "overloaded": (503, "Service is too busy.", *["service_unavailable_error"] * 2),
        }
        if kind in own:
            status, text, name, code = own[kind]
            return refusal(message or text, None, code, status=status, kind=name)
        return super().problem(kind, message)


class VllmServer(OpenAIServer):
    """Errors with a number for a code, thoughts in `reasoning`, chat templates that want roles by turns; no
    key unless one is set.
    """

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(says, api_key, port)
        self.known = {
            "mistral-7b": OpenAIModel(Price(0, 0), 32_768, 32_768, images=False),
            "qwen3-8b": OpenAIModel(
                Price(0, 0), 40_960, 40_960, True, ("medium", "low", "high"), images=False
            ),
        }
        self.alternating = {"mistral-7b"}
        """Models whose template takes the user's and the assistant's messages by turns only."""

    def authorize(self, request: Request) -> None:
        if self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise Refused(401, {"error": "Unauthorized"})

    def accept(self, request: Request) -> Asked | bytes:
        try:
            return super().accept(request)
        except Refused as refused:
            error = refused.body["error"]
            if isinstance(error, str):
                raise
            raise _vllm(error["message"], refused.status) from None

    def model_of(self, request: Request) -> OpenAIModel:
        name = request.body.get("model")
        if name not in self.known:
            raise refusal(f"The model `{name}` does not exist.", status=404)
        return self.known[str(name)]

    def check(self, body: Mapping[str, Any], model: OpenAIModel) -> None:
        roles = [
            message.get("role") for message in body.get("messages") or () if message.get("role") != "system"
        ]
        turns = all(role == ("user", "assistant")[at % 2] for at, role in enumerate(roles))
        if body.get("model") in self.alternating and not turns:
            raise refusal("Conversation roles must alternate user/assistant/user/assistant/...")

    def too_long(self, count: int, model: OpenAIModel) -> Refused:
        begin = (
            f"This model's maximum context length is {model.window} tokens. However, your request has "
            f"{count} input tokens."
        )
        return refusal(f"{begin} Please reduce the length of the input messages.")

    def message(self, asked: Asked, reply: Reply, text: str) -> dict[str, Any]:
        shown = reply.thoughts if asked.more["model"].reasoning else None
        return {
            **super().message(asked, reply, text),
            "reasoning": shown or None,
            "reasoning_content": shown or None,
        }

    def deltas(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        thoughts = (
            [{"reasoning": message["reasoning"], "reasoning_content": message["reasoning"]}]
            if message["reasoning"]
            else []
        )
        return [*thoughts, *super().deltas(message)]

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        refused = super().problem(kind, message)
        return _vllm(refused.body["error"]["message"], refused.status)


def _vllm(message: str, status: int) -> Refused:
    names = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}
    return Refused(
        status,
        {
            "error": {
                "message": message,
                "type": names.get(status, "InternalServerError"),
                "param": None,
                "code": status,
            }
        },
    )


class AzureServer(OpenAIServer):
    """A deployment in the path, `api-key`, results of content filters beside the reply and before a
    stream.
    """

    def authorize(self, request: Request) -> None:
        sent = request.headers.get("api-key", "")
        if not sent or (self.api_key is not None and sent != self.api_key):
            text = "Access denied due to invalid subscription key or wrong API endpoint."
            raise Refused(401, {"error": {"code": "401", "message": text}})
        if "api-version=" not in request.path:
            raise Refused(404, {"error": {"code": "404", "message": "Resource not found"}})

    def model_of(self, request: Request) -> OpenAIModel:
        name = request.path.partition("/deployments/")[2].partition("/")[0] or str(request.body.get("model"))
        if name not in self.known:
            raise Refused(
                404,
                {
                    "error": {
                        "code": "DeploymentNotFound",
                        "message": "The API deployment for this resource does not exist.",
                    }
                },
            )
        return self.known[name]

    def finished(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = [{**choice, "content_filter_results": _SAFE} for choice in body["choices"]]
        return {
            **body,
            "choices": choices,
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}],
        }

    def events(
        self, asked: Asked, head: dict[str, Any], message: dict[str, Any], finish: str, usage: dict[str, Any]
    ) -> list[dict[str, Any] | bytes]:
        first = {
            **head,
            "id": "",
            "model": "",
            "choices": [],
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}],
        }
        return [first, *super().events(asked, head, message, finish, usage)]

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        if kind == "forbidden":  # the prompt is filtered
            inner = {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"jailbreak": {"filtered": True, "detected": True}},
            }
            text = (
                message
                or "The response was filtered due to the prompt triggering Azure OpenAI's content "
                "management policy."
            )
            return Refused(
                400,
                {
                    "error": {
                        "message": text,
                        "type": None,
                        "param": "prompt",
                        "code": "content_filter",
                        "innererror": inner,
                    }
                },
            )
        return super().problem(kind, message)


_SAFE = {
    name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
}

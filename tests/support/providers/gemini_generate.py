"""Gemini's generateContent and streamGenerateContent: thinking, schemas, pictures, implicit caching, safety
blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.support.openai_wire import Request, encode
from tests.support.providers.prefix_cache import AutomaticCache
from tests.support.providers.server import (
    Answer,
    Asked,
    ProblemKind,
    ProviderFaultKind,
    ProviderServer,
    Says,
    Stream,
    said_as_json,
)
from tests.support.providers.words import (
    CHARS,
    Bill,
    Picture,
    Price,
    Refused,
    Reply,
    constrained,
    picture,
    pieces,
    standing_for,
    tokens,
)


@dataclass(frozen=True)
class GeminiModel:
    price: Price
    window: int = 1_048_576
    output: int = 65_536
    budget: tuple[int, int] | None = None
    """Least and most of `thinkingBudget`; None where the model takes a level instead, or does not think."""
    levels: tuple[str, ...] = ()
    system: bool = True

    @property
    def thinks(self) -> bool:
        return self.budget is not None or bool(self.levels)


MODELS: dict[str, GeminiModel] = {
    "gemini-2.5-flash": GeminiModel(Price(0.3, 2.5, read=0.1), budget=(0, 24_576)),
    "gemini-2.5-pro": GeminiModel(Price(1.25, 10, read=0.1), budget=(128, 32_768)),
    "gemini-3-flash-preview": GeminiModel(
        Price(0.5, 3, read=0.1), levels=("minimal", "low", "medium", "high")
    ),
    "gemma-3-27b-it": GeminiModel(Price(0, 0), 131_072, 8192, system=False),
}
THOUGHT = 128
"""Tokens that a model thinks where the test does not say what it thought."""
_PATH = re.compile(r"/models/([^:/?]+):(generateContent|streamGenerateContent)(?:\?(.*))?$")
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
}
_STATUS |= {500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
_TOP = {
    "contents",
    "system_instruction",
    "generation_config",
    "safety_settings",
    "tools",
    "tool_config",
    "cached_content",
    "service_tier",
}
_CONFIG_NAMES = """
temperature top_p top_k candidate_count max_output_tokens stop_sequences response_logprobs logprobs presence_penalty frequency_penalty seed
response_mime_type response_schema response_json_schema response_modalities media_resolution speech_config thinking_config image_config
enable_enhanced_civic_answers
"""
_CONFIG = set(_CONFIG_NAMES.split())
_PARTS = {
    "text",
    "inline_data",
    "file_data",
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
}
_PARTS |= {"thought", "thought_signature", "media_resolution", "video_metadata"}
_DATA = ("text", "inline_data", "file_data", "function_call", "function_response")
_SCHEMA_NAMES = """
type format title description nullable enum max_items min_items properties required min_properties max_properties min_length max_length
pattern example any_of property_ordering default items minimum maximum
"""
_SCHEMA = set(_SCHEMA_NAMES.split())
_FINISH = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "tool": "STOP",
    "length": "MAX_TOKENS",
    "refusal": "SAFETY",
    "pause": "STOP",
}
_PROBLEMS: dict[str, tuple[int, str]] = {
    "rate_limit": (
        429,
        "You exceeded your current quota, please check your plan and billing details. Please retry in 36s.",
    ),
    "quota": (429, "You exceeded your current quota, please check your plan and billing details."),
    "server_error": (500, "An internal error has occurred. Please retry."),
    "overloaded": (503, "The model is overloaded. Please try again later."),
    "request_timeout": (504, "The request timed out. Please try again."),
    "auth": (400, "API key not valid. Please pass a valid API key."),
    "forbidden": (403, "Your API key was reported as leaked. Please use another API key."),
    "unknown_model": (
        404,
        "models/gemini-unknown is not found for API version v1beta, or is not supported for generateContent.",
    ),
    "bad_request": (400, "Request contains an invalid argument."),
    "too_long": (
        400,
        "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
    ),
}


def refusal(message: str, status: int = 400, details: Sequence[Mapping[str, Any]] = ()) -> Refused:
    error = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}
    return Refused(status, {"error": {**error, **({"details": list(details)} if details else {})}})


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", lambda found: f"_{found[1].lower()}", name)


def _fields(value: Any, known: set[str], where: str) -> dict[str, Any]:
    """An object by its names of the protocol's, which may come in two spellings. Raises Refused of others."""
    found = {}
    for name, one in value.items():
        if _snake(name) not in known:
            at = f" at '{where}'" if where else ""
            message = f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
            violation = {"description": message, **({"field": where} if where else {})}
            raise refusal(
                message,
                details=[
                    {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
                ],
            )
        found[_snake(name)] = one
    return found


def _check_config(config: dict[str, Any], model: GeminiModel) -> None:
    begin = "* GenerateContentRequest.generation_config"
    for name, most in (("temperature", 2), ("top_p", 1)):
        if not 0 <= (config.get(name) or 0) <= most:
            raise refusal(f"{begin}.{name}: {name} must be in the range [0.0, {most}.0].")
    limit = config.get("max_output_tokens")
    if limit is not None and not 1 <= limit <= model.output:
        bounds = f"the supported range is from 1 (inclusive) to {model.output + 1} (exclusive)."
        raise refusal(
            f"Unable to submit request because it has a maxOutputTokens value of {limit} but {bounds}"
        )
    if len(config.get("stop_sequences") or ()) > 5:
        raise refusal(f"{begin}.stop_sequences: the number of stop_sequences must not exceed 5.")
    schema = config.get("response_schema")
    if schema is not None or config.get("response_json_schema") is not None:
        if config.get("response_mime_type") != "application/json":
            raise refusal(
                f"{begin}.response_schema: response_schema is only supported with the response_mime_type "
                "application/json."
            )
        if schema is not None:
            _check_schema(schema, "generation_config.response_schema")
    if config.get("thinking_config") is not None:
        _check_thinking(config["thinking_config"], model)


def _check_schema(schema: Any, where: str) -> None:
    found = _fields(schema, _SCHEMA, where)
    for name, part in (found.get("properties") or {}).items():
        _check_schema(part, f"{where}.properties[{list(found['properties']).index(name)}].value")
    if found.get("items") is not None:
        _check_schema(found["items"], f"{where}.items")
    for number, part in enumerate(found.get("any_of") or ()):
        _check_schema(part, f"{where}.any_of[{number}]")


def _check_thinking(given: Mapping[str, Any], model: GeminiModel) -> None:
    names = {"include_thoughts", "thinking_budget", "thinking_level"}
    wanted = _fields(given, names, "generation_config.thinking_config")
    budget, level = wanted.get("thinking_budget"), wanted.get("thinking_level")
    if budget is not None and level is not None:
        raise refusal("You can only set only one of thinking budget and thinking level.")
    if not model.thinks and budget != 0:
        raise refusal("Thinking is not enabled for this model.")
    if level is not None and str(level).lower() not in model.levels:
        raise refusal(
            "Thinking level is not supported for this model."
            if not model.levels
            else f"Thinking level {level} is not supported."
        )
    if budget is not None and model.budget is not None and budget != -1:
        least, most = model.budget
        if budget == 0 and least > 0:
            raise refusal("Budget 0 is invalid. This model only works in thinking mode.")
        if not least <= budget <= most:
            raise refusal(
                f"The thinking budget {budget} is invalid. Please choose a value between {least} and {most}."
            )


class GeminiServer(ProviderServer):
    """`known` are its models by name; tests may add some."""

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(says, api_key, port)
        self.known: dict[str, GeminiModel] = dict(MODELS)
        self.cache = AutomaticCache(self.clock, ttl=3600.0)

    # Requests

    async def _answer(self, request: Request) -> bytes | Stream | None:  # type: ignore[override]
        found = _PATH.search(request.path)
        # The model stands in the path; faults of one model look for it in the body.
        return await super()._answer(
            replace(request, body={**request.body, "model": found[1]}) if found else request
        )

    def accept(self, request: Request) -> Asked | bytes:
        self._authorize(request)
        found = _PATH.search(request.path)
        if found is None:
            raise refusal("Requested entity was not found.", 404)
        name = found[1]
        if name not in self.known:
            raise refusal(
                f"models/{name} is not found for API version v1beta, or is not supported for "
                "generateContent.",
                404,
            )
        model = self.known[name]
        body = _fields({key: value for key, value in request.body.items() if key != "model"}, _TOP, "")
        config = _fields(body.get("generation_config") or {}, _CONFIG, "generation_config")
        _check_config(config, model)
        if body.get("system_instruction") is not None and not model.system:
            raise refusal(f"Developer instruction is not enabled for models/{name}")
        prompt, images, text = _contents(body)
        if tokens(prompt) > model.window:
            raise refusal(
                f"The input token count ({tokens(prompt)}) exceeds the maximum number of tokens allowed "
                f"({model.window})."
            )
        schema = config.get("response_json_schema") or config.get("response_schema")
        stream = found[2] == "streamGenerateContent"
        more = {"model": model, "config": config, "sse": "alt=sse" in (found[3] or ""), "images": images}
        return Asked(name, request.body, text, prompt, stream, len(images), schema and _plain(schema), more)

    def _authorize(self, request: Request) -> None:
        key = request.headers.get("x-goog-api-key") or next(
            iter(re.findall(r"[?&]key=([^&]+)", request.path)), ""
        )
        if not key:
            message = "Method doesn't allow unregistered callers (callers without established identity)."
            raise refusal(
                f"{message} Please use API Key or other form of API consumer identity to call this API.", 403
            )
        if self.api_key is not None and key != self.api_key:
            info = {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            }
            raise refusal("API key not valid. Please pass a valid API key.", details=[info])

    # Replies

    def answer(self, asked: Asked, reply: Reply) -> Answer:
        model: GeminiModel = asked.more["model"]
        cached, _ = self.cache.use(asked.model, asked.prompt)
        head = {"modelVersion": asked.model, "responseId": "resp-1"}
        if reply.stop == "filter":
            bill = model.price.bill(asked.model, input=tokens(asked.prompt) - cached, cached=cached)
            ratings = [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH"}]
            body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": ratings}, **head}
            body["usageMetadata"] = _usage(asked, bill, 0)
            return Answer(body, [body], bill)
        thoughts, thought = self._thoughts(asked, reply)
        text, finish = _ended(asked, reply, thought)
        said = tokens(text) + sum(tokens(said_as_json(dict(call.arguments))) + 8 for call in reply.calls)
        bill = model.price.bill(
            asked.model, input=tokens(asked.prompt) - cached, cached=cached, output=said + thought
        )
        usage = _usage(asked, bill, thought)
        signature = {"thoughtSignature": "c2lnbmVk"} if thought and reply.calls else {}
        calls = [
            {"functionCall": {"name": call.name, "args": dict(call.arguments)}, **signature}
            for call in reply.calls
        ]
        parts: list[dict[str, Any]] = [{"text": thoughts, "thought": True}] if thoughts else []
        parts += ([{"text": text}] if text else []) + calls
        pieced = (
            [{"text": piece, "thought": True} for piece in pieces(thoughts)]
            + [{"text": piece} for piece in pieces(text)]
            + calls
        )
        events: list[dict[str, Any]] = []
        for number, part in enumerate(pieced or [None]):
            last = number == max(0, len(pieced) - 1)
            told = (
                usage
                if last
                else {name: value for name, value in usage.items() if name != "candidatesTokenCount"}
            )
            events.append(
                {
                    **_candidates([part] if part else [], finish if last else None),
                    "usageMetadata": told,
                    **head,
                }
            )
        body = {**_candidates(parts, finish), "usageMetadata": usage, **head}
        return Answer(body, events if asked.more["sse"] else [encode(events)], bill)

    def _thoughts(self, asked: Asked, reply: Reply) -> tuple[str, int]:
        """What is shown of the thoughts, and their tokens."""
        model: GeminiModel = asked.more["model"]
        wanted = {
            _snake(name): value for name, value in (asked.more["config"].get("thinking_config") or {}).items()
        }
        budget = wanted.get("thinking_budget")
        if not model.thinks or budget == 0:
            return "", 0
        count = tokens(reply.thoughts) or THOUGHT
        return reply.thoughts if wanted.get("include_thoughts") else "", min(
            count, budget
        ) if budget and budget > 0 else count

    # Events and faults

    def frame(self, event: Mapping[str, Any]) -> bytes:
        return b"data: " + encode(event) + b"\r\n\r\n"

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        status, text = _PROBLEMS[kind]
        retry = (
            [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}]
            if kind == "rate_limit"
            else []
        )
        return refusal(message or text, status, retry)

    def spoil(self, kind: ProviderFaultKind, body: dict[str, Any]) -> dict[str, Any]:
        if kind == "no_usage":
            return {name: value for name, value in body.items() if name != "usageMetadata"}
        if kind == "empty_choices":
            return {**body, "candidates": []}
        candidates = []
        for candidate in body.get("candidates", ()):
            parts = [
                {**part, "text": [part["text"]]} if "text" in part else part
                for part in candidate["content"].get("parts", ())
            ]
            candidates.append({**candidate, "content": {**candidate["content"], "parts": parts}})
        return {**body, "candidates": candidates}


def _candidates(parts: Sequence[Mapping[str, Any]], finish: str | None) -> dict[str, Any]:
    content = {"role": "model", **({"parts": list(parts)} if parts else {})}
    return {"candidates": [{"content": content, "index": 0, **({"finishReason": finish} if finish else {})}]}


def _usage(asked: Asked, bill: Bill, thought: int) -> dict[str, Any]:
    images = sum(count for _, count in asked.more["images"])
    details = [{"modality": "TEXT", "tokenCount": bill.prompt - images}]
    details += [{"modality": "IMAGE", "tokenCount": images}] if images else []
    usage: dict[str, Any] = {
        "promptTokenCount": bill.prompt,
        "totalTokenCount": bill.prompt + bill.output,
        "promptTokensDetails": details,
    }
    if bill.output > thought:
        usage["candidatesTokenCount"] = bill.output - thought
    if thought:
        usage["thoughtsTokenCount"] = thought
    if bill.cached:
        usage |= {
            "cachedContentTokenCount": bill.cached,
            "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": bill.cached}],
        }
    return usage


def _ended(asked: Asked, reply: Reply, thought: int) -> tuple[str, str]:
    config = asked.more["config"]
    text, finish = reply.text, _FINISH[reply.stop]
    if asked.schema and not reply.calls and reply.stop == "stop":
        text = constrained(text, asked.schema)
    for stop in config.get("stop_sequences") or ():
        text = text.partition(stop)[0]
    left = max(0, (config.get("max_output_tokens") or asked.more["model"].output) - thought)
    if tokens(text) > left and len(text) < 1 << 20:
        text, finish = text[: left * CHARS], "MAX_TOKENS"
    return ("" if finish == "SAFETY" else text), finish


def _contents(body: Mapping[str, Any]) -> tuple[str, list[tuple[Picture, int]], str]:
    """The prompt as one text, the pictures with their tokens, and what the user said last."""
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise refusal("* GenerateContentRequest.contents: contents is not specified")
    texts = [said_as_json(body.get("tools") or "")]
    images: list[tuple[Picture, int]] = []
    instruction = body.get("system_instruction")
    last = ""
    for at, content in enumerate([instruction, *contents] if instruction else contents):
        number = at - bool(instruction)
        content = _fields(content, {"role", "parts"}, f"contents[{number}]")
        role = content.get("role", "user")
        if role not in ("user", "model", "function") and number >= 0:
            raise refusal("Please use a valid role: user, model.")
        if not content.get("parts"):
            raise refusal(
                f"* GenerateContentRequest.contents[{number}].parts: contents.parts must not be empty."
            )
        found = [
            _part(part, f"contents[{number}].parts[{n}]", images) for n, part in enumerate(content["parts"])
        ]
        last = (
            "".join(str(part["text"]) for part in content["parts"] if "text" in part)
            if role == "user"
            else last
        )
        texts.append(f"<{role}>\n" + "\n".join(found))
    return "\n".join(texts), images, last


def _part(given: Mapping[str, Any], where: str, images: list[tuple[Picture, int]]) -> str:
    part = _fields(given, _PARTS, where)
    if not any(name in part for name in _DATA):
        raise refusal(
            f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have one initialized "
            "field"
        )
    if "inline_data" not in part:
        return said_as_json({name: value for name, value in part.items() if name in _DATA})
    data = _fields(part["inline_data"], {"mime_type", "data"}, f"{where}.inline_data")
    if not str(data.get("mime_type", "")).startswith(
        ("image/", "application/pdf", "audio/", "video/", "text/")
    ):
        raise refusal(f"Unsupported MIME type: {data.get('mime_type')}")
    found = picture(str(data.get("data", "")))
    if found is None:
        raise refusal("Unable to process input image. Please retry or report the problem.")
    tiles = (
        1 if max(found.width, found.height) <= 384 else (-(-found.width // 768)) * (-(-found.height // 768))
    )
    images.append((found, 258 * tiles))
    return standing_for(found, 258 * tiles)


def _plain(schema: Any) -> Any:
    """Gemini's schema, whose types may be in capitals, as a JSON Schema."""
    if isinstance(schema, dict):
        return {
            name: value.lower() if name == "type" and isinstance(value, str) else _plain(value)
            for name, value in schema.items()
        }
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema

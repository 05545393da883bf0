"""What OpenAI's chat completions take and refuse, by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.providers.words import Picture, Price, Refused, data_url, picture, standing_for


@dataclass(frozen=True)
class OpenAIModel:
    price: Price
    window: int = 128_000
    output: int = 16_384
    reasoning: bool = False
    efforts: tuple[str, ...] = ()
    """Of `reasoning_effort`, the default first."""
    pays_for_writes: bool = False
    """What is written to the cache is counted, and costs more."""
    images: bool = True

    @property
    def samples(self) -> bool:
        """Whether `temperature` and the like are taken at all."""
        return not self.reasoning or "none" in self.efforts


_OLD = ("medium", "minimal", "low", "high")
MODELS: dict[str, OpenAIModel] = {
    "gpt-4o": OpenAIModel(Price(2.5, 10, read=0.5)),
    "gpt-4o-mini": OpenAIModel(Price(0.15, 0.6, read=0.5)),
    "o4-mini": OpenAIModel(Price(1.1, 4.4, read=0.25), 200_000, 100_000, True, ("medium", "low", "high")),
    "gpt-5-mini": OpenAIModel(Price(0.25, 2, read=0.1), 272_000, 128_000, True, _OLD),
    "gpt-5.1": OpenAIModel(
        Price(1.25, 10, read=0.1), 272_000, 128_000, True, ("none", "low", "medium", "high")
    ),
    "gpt-5.6": OpenAIModel(
        Price(4, 20, read=0.1, write=1.25),
        922_000,
        128_000,
        True,
        ("none", "low", "medium", "high", "xhigh"),
        pays_for_writes=True,
    ),
}

_NAMES = """
messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata modalities
moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort
response_format safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user
verbosity web_search_options
"""
KNOWN = frozenset(_NAMES.split())
ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_RANGES = {"temperature": (0, 2), "top_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}
_SAMPLING = ("top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias")
_DEFAULTS = {"top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False}
_TIERS = ("auto", "default", "flex", "scale", "priority")
_STRICT_TYPES = ("allOf", "not", "dependentRequired", "dependentSchemas", "if", "then", "else", "oneOf")


def refusal(
    message: str, param: str | None = None, code: str | None = None, *, status: int = 400, kind: str = ""
) -> Refused:
    return Refused(
        status,
        {
            "error": {
                "message": message,
                "type": kind or "invalid_request_error",
                "param": param,
                "code": code,
            }
        },
    )


def quoted(values: Sequence[str]) -> str:
    names = [f"'{value}'" for value in values]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"


def check_parameters(body: Mapping[str, Any], model: OpenAIModel, known: frozenset[str] = KNOWN) -> None:
    """Everything but the messages. Raises Refused."""
    if unknown := [name for name in body if name not in known]:
        plural = "s" if len(unknown) > 1 else ""
        raise refusal(f"Unrecognized request argument{plural} supplied: {', '.join(unknown)}")
    if "max_tokens" in body and "max_completion_tokens" in body:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise refusal(message, "max_tokens", "invalid_parameter_combination")
    if body.get("stream_options") is not None and not body.get("stream"):
        raise refusal(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    for name in ("max_tokens", "max_completion_tokens", "n", "seed"):
        _whole_number(body, name)
    for name, (least, most) in _RANGES.items():
        _number(body, name, least, most)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None and limit > model.output:
        name = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
        most = f"This model supports at most {model.output} completion tokens, whereas you provided {limit}."
        message = f"{name} is too large: {limit}. {most}"
        raise refusal(message, name, "invalid_value")
    _stops(body)
    _choice(body, "service_tier", _TIERS)
    _reasoning(body, model)
    if body.get("response_format") is not None:
        check_format(body["response_format"], str(body.get("messages", "")))


def _whole_number(body: Mapping[str, Any], name: str) -> None:
    value = body.get(name)
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise refusal(
            f"Invalid type for '{name}': expected an integer, but got {_kind(value)} instead.",
            name,
            "invalid_type",
        )
    if name != "seed" and value < 1:
        message = (
            f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
        )
        raise refusal(message, name, "integer_below_min_value")


def _number(body: Mapping[str, Any], name: str, least: float, most: float) -> None:
    value = body.get(name)
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refusal(
            f"Invalid type for '{name}': expected a decimal, but got {_kind(value)} instead.",
            name,
            "invalid_type",
        )
    if not least <= value <= most:
        side, sign, bound = ("above maximum", "<=", most) if value > most else ("below minimum", ">=", least)
        code = "decimal_above_max_value" if value > most else "decimal_below_min_value"
        message = (
            f"Invalid '{name}': decimal {side} value. Expected a value {sign} {bound}, but got "
            f"{value} instead."
        )
        raise refusal(message, name, code)


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        str: "a string",
        int: "an integer",
        float: "a decimal",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null")


def _stops(body: Mapping[str, Any]) -> None:
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > 4:
        most = f"Expected an array with maximum length 4, but got an array with length {len(stop)} instead."
        message = f"Invalid 'stop': array too long. {most}"
        raise refusal(message, "stop", "array_above_max_length")


def _choice(body: Mapping[str, Any], name: str, values: Sequence[str]) -> None:
    if body.get(name) is not None and body[name] not in values:
        raise refusal(
            f"Invalid value: '{body[name]}'. Supported values are: {quoted(values)}.", name, "invalid_value"
        )


def _reasoning(body: Mapping[str, Any], model: OpenAIModel) -> None:
    effort = body.get("reasoning_effort")
    if not model.reasoning:
        if effort is not None:
            raise refusal("Unrecognized request argument supplied: reasoning_effort")
        return
    if effort is not None and effort not in model.efforts:
        message = f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model."
        message += f" Supported values are: {quoted(model.efforts)}."
        raise refusal(message, "reasoning_effort", "unsupported_value")
    if body.get("max_tokens") is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        )
        raise refusal(message, "max_tokens", "unsupported_parameter")
    if body.get("stop") is not None:
        raise refusal(
            "Unsupported parameter: 'stop' is not supported with this model.", "stop", "unsupported_parameter"
        )
    if (effort or model.efforts[0]) == "none":
        return
    if body.get("temperature") not in (None, 1):
        message = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model."
        message += " Only the default (1) value is supported."
        raise refusal(message, "temperature", "unsupported_value")
    for name in _SAMPLING:
        if body.get(name) not in (None, _DEFAULTS.get(name), {}):
            raise refusal(
                f"Unsupported parameter: '{name}' is not supported with this model.",
                name,
                "unsupported_parameter",
            )


# Schemas


def check_format(wanted: Any, messages: str) -> None:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("json_object", "json_schema", "text"):
        message = f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        raise refusal(message, "response_format.type", "invalid_value")
    if kind == "json_object" and "json" not in messages.lower():
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
            "'json_object'."
        )
        raise refusal(message, "messages")
    if kind != "json_schema":
        return
    outer = wanted.get("json_schema") or {}
    if not outer.get("name"):
        message = "Missing required parameter: 'response_format.json_schema.name'."
        raise refusal(message, "response_format.json_schema.name", "missing_required_parameter")
    schema = outer.get("schema") or {}
    begin = f"Invalid schema for response_format '{outer['name']}': "
    if schema.get("type") != "object":
        shown = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
        raise refusal(begin + shown, "response_format")
    if outer.get("strict"):
        _strict(schema, begin, (), 1)


def _strict(schema: Any, begin: str, context: tuple[str, ...], depth: int) -> None:
    if not isinstance(schema, dict):
        return
    where = f"In context=({', '.join(repr(part) for part in context)}{',' if len(context) == 1 else ''}), "
    if depth > 10:
        raise refusal(f"{begin}{depth} levels of nesting exceeds limit of 10.", "response_format")
    for word in _STRICT_TYPES:
        if word in schema:
            raise refusal(f"{begin}{where}'{word}' is not permitted.", "response_format")
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            raise refusal(
                f"{begin}{where}'additionalProperties' is required to be supplied and to be false.",
                "response_format",
            )
        missing = [name for name in schema.get("properties", {}) if name not in schema.get("required", ())]
        if missing:
            message = (
                "'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{missing[0]}'."
            )
            raise refusal(begin + where + message, "response_format")
    for word in ("properties", "$defs"):
        for name, part in schema.get(word, {}).items():
            _strict(part, begin, (*context, word, name), depth + (word == "properties"))
    if "items" in schema:
        _strict(schema["items"], begin, (*context, "items"), depth + 1)
    for number, part in enumerate(schema.get("anyOf", ())):
        _strict(part, begin, (*context, "anyOf", str(number)), depth)


# Messages


def rendered(body: Mapping[str, Any], model: OpenAIModel) -> tuple[str, int]:
    """The prompt as one text, with stand-ins for pictures, and how many pictures there are.

    Raises Refused.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise refusal("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    parts, images, open_calls = [], 0, []
    for number, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            raise refusal(
                f"Invalid value: '{role}'. Supported values are: {quoted(ROLES)}.",
                f"messages[{number}].role",
                "invalid_value",
            )
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                text = (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding "
                    "message with 'tool_calls'."
                )
                raise refusal(text, f"messages.[{number}].role")
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            raise refusal(_unanswered(open_calls), "messages")
        open_calls += [call.get("id") for call in message.get("tool_calls") or ()]
        text, more = _content(message, number, model)
        images += more
        parts.append(f"<{role}>\n{text}{_calls(message)}\n")
    if open_calls:
        raise refusal(_unanswered(open_calls), "messages")
    tools = "".join(str(tool) for tool in body.get("tools") or ())
    return tools + "".join(parts), images


def _unanswered(ids: Sequence[str]) -> str:
    begin = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        "'tool_call_id'."
    )
    return f"{begin} The following tool_call_ids did not have response messages: {', '.join(ids)}"


def _calls(message: Mapping[str, Any]) -> str:
    return "".join(str(call.get("function")) for call in message.get("tool_calls") or ())


def _content(message: Mapping[str, Any], number: int, model: OpenAIModel) -> tuple[str, int]:
    content = message.get("content")
    if (
        content is None
        and message["role"] == "assistant"
        and (message.get("tool_calls") or message.get("refusal"))
    ):
        return "", 0
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        raise refusal(
            f"Invalid value for 'content': expected a string, got {_kind(content)}.",
            f"messages.[{number}].content",
        )
    texts, images = [], 0
    for at, part in enumerate(content):
        kind = part.get("type")
        where = f"messages[{number}].content[{at}]"
        if kind in ("text", "refusal"):
            texts.append(str(part.get(kind)))
        elif kind == "image_url" and message["role"] == "user":
            found, url = _image(part, where, model)
            texts.append(standing_for(found, image_tokens(found, part["image_url"])) if found else url)
            images += 1
        else:
            values = ("text", "image_url", "input_audio", "refusal", "audio", "file")
            raise refusal(
                f"Invalid value: '{kind}'. Supported values are: {quoted(values)}.",
                f"{where}.type",
                "invalid_value",
            )
    return "\n".join(texts), images


def _image(part: Mapping[str, Any], where: str, model: OpenAIModel) -> tuple[Picture | None, str]:
    url = part["image_url"].get("url") if isinstance(part.get("image_url"), dict) else None
    if not isinstance(url, str):
        message = (
            f"Invalid type for '{where}.image_url': expected an object, but got "
            f"{_kind(part.get('image_url'))} instead."
        )
        raise refusal(message, f"{where}.image_url", "invalid_type")
    if not model.images:
        message = "Invalid content type. image_url is only supported by certain models."
        raise refusal(message, f"messages.[{where[9]}].content.[0].type")
    if url.startswith(("http://", "https://")):
        return None, url
    sent = data_url(url)
    if sent is None or not sent[0].startswith("image/"):
        mime = sent[0] if sent else "none"
        example = "'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='"
        message = (
            f"Invalid '{where}.image_url.url'. Expected a base64-encoded data URL with an image MIME "
            f"type (e.g. {example}),"
        )
        message += f" but got unsupported MIME type '{mime}'."
        raise refusal(message, f"{where}.image_url.url", "invalid_value")
    found = picture(sent[1])
    if found is None:
        message = (
            "You uploaded an unsupported image. Please make sure your image has of one the following formats:"
        )
        message += " ['png', 'jpeg', 'gif', 'webp']."
        raise refusal(message, None, "invalid_image_format")
    return found, url


def image_tokens(found: Picture, wanted: Mapping[str, Any]) -> int:
    """By the tiles of 512 pixels that cover it, as gpt-4o counts."""
    if wanted.get("detail") == "low":
        return 85
    return 85 + 170 * (-(-found.width // 512)) * (-(-found.height // 512))

"""What one model does not take, learnt from its refusals: a role for instructions, a parameter, a schema.

Servers differ in what they call OpenAI-compatible. What a refusal names is left out or written in another
way, once, and from then on for all requests to that model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rlm_kernel.models._faults import Failure


class _Told(dict[str, str]):
    """Of a parameter that stands for itself: its name."""

    def __missing__(self, change: str) -> str:
        return f"does not accept {change}; rlm leaves it out from now on."


TOLD: Mapping[str, str] = _Told(
    {
        "system": "does not accept the system role; rlm puts the instructions into the first message from "
        "now on.",
        "temperature": "does not accept a temperature; rlm leaves it out from now on.",
        "max_completion_tokens": "needs max_completion_tokens instead of max_tokens.",
        "max_tokens": "does not accept this limit on reply tokens; rlm leaves max_tokens out from now on.",
        "response_format": "does not accept a schema for its reply; rlm leaves it out from now on.",
        "reasoning_effort": "does not accept this level of reasoning; rlm uses the model's default from now "
        "on.",
        "stream_options": "does not count the tokens of streamed replies; rlm estimates them.",
        "thoughts": "does not accept its earlier reasoning as input; rlm leaves it out from now on.",
        "thinking": "does not accept a number of thinking tokens; rlm leaves it out from now on.",
    }
)
"""What is said of a change, by its name."""
_OWN = frozenset(
    [
        "model",
        "messages",
        "timeout",
        "num_retries",
        "max_retries",
        "drop_params",
        "api_base",
        "api_key",
        "stream",
    ]
)
"""Of a request's names, those that are no parameters, and two that are never left out."""
_OTHER_NAMES = {
    "reasoning_effort": r"reasoning\.effort|output_config(?:\.effort)?|effort parameter|support thinking"
    r"|thinking_?level|thinking mode",
    "thinking": r"budget_?tokens|thinking[_ ]?(?:budget|config)|support thinking|thinking (?:is|may) not"
    r"|adaptive thinking|thinking\.(?:type|enabled)",
    "stop": r"stop_?sequences",
    "top_p": r"topP",
}
"""By which a refusal names them, too."""
_THOUGHTS = re.compile(
    r"\bsignature\b|redacted_thinking.{0,40}\b(?:invalid|cannot)|invalid.{0,40}redacted_thinking"
    r"|thinking\W.{0,40}blocks?\b.{0,80}(?:cannot be modified|must remain)"
    r"|reasoning_details|encrypted_content",
    re.IGNORECASE | re.DOTALL,
)
"""That the reasoning of earlier replies, which came back, is not the model's own."""
_NOT = r"(?:not|n't|no longer|un\w+|invalid|only|disallow\w*|must|deprecated|extra|does not)"
_NO_SYSTEM = re.compile(
    rf"(?:system|developer)['\"`]?\W{{0,3}}(?:role|message|prompt|instruction)s?\b.{{0,80}}?{_NOT}"
    rf"|{_NOT}.{{0,80}}?(?:system|developer)['\"`]?\W{{0,3}}(?:role|message|prompt|instruction)"
    rf"|{_NOT}.{{0,60}}\brole\b.{{0,40}}system|\brole\b.{{0,60}}{_NOT}.{{0,40}}system|role\W+system\b"
    r"|roles?[^.]{0,30} must alternate|must alternate between|only user(?:,| and)[^.]{0,30} roles"
    r"|first message[^.]{0,30} must be[^.]{0,20}user|(?:expected|one of)[^.]{0,20}user\W{1,5}(?:or "
    r")?assistant",
    re.IGNORECASE | re.DOTALL,
)
_REFUSES = re.compile(
    r"unsupported|not (?:be )?(?:supported|permitted|allowed|accepted|recogni[sz]ed|available|valid)|n.t "
    r"support|not support"
    r"|only the default|deprecated|unknown|unrecogni[sz]ed|unexpected|extra|invalid|cannot|no longer|must"
    r"|too (?:large|big|high)|only \S+ is|exceed|maximum allowed|should be|may (?:not|only)|out of range"
    r"|unset",
    re.IGNORECASE,
)


def adapt(request: dict[str, Any], failure: Failure, *, schemas: bool | None) -> str | None:
    """Change a refused request by what its refusal says, and name what was changed; None where nothing is to
    be changed.

    `schemas`: whether the model is known to take a schema; where that is not known, any bad request may be
    about it.
    """
    said, messages = failure.said, request["messages"]
    thoughtful = any(message.get("thinking") for message in messages)
    if failure.fault == "bad_request" and thoughtful and _THOUGHTS.search(said):
        return apply(request, "thoughts")
    if (
        failure.fault in ("bad_request", "server")
        and _NO_SYSTEM.search(said)
        and folded(messages) != messages
    ):
        return apply(request, "system")
    if failure.fault in ("bad_request", "too_long") and _REFUSES.search(said):
        if "thinking" in request and "budget_tokens" in said:
            return apply(request, "thinking")
        if "max_tokens" in request and re.search(r"max_(?:completion_)?tokens", said):
            instead = re.search(
                r"(?:use|instead)\W[^.]{0,30}max_completion_tokens|max_completion_tokens\W{1,3}instead",
                said,
                re.IGNORECASE,
            )
            return apply(request, "max_completion_tokens" if instead else "max_tokens")
        if "max_completion_tokens" in request and "max_completion_tokens" in said:
            return apply(request, "max_tokens")
        if "top_p" in request and re.search(r"temperature\W+and\W+top_p", said):
            return apply(request, "top_p")
        if "temperature" in request and re.search(r"^[^:]{0,80}temperature", said.lower()):
            return apply(request, "temperature")
        if failure.fault == "bad_request" and (named := _named(request, said)):
            return apply(request, named)
        if "temperature" in request and "temperature" in said.lower():
            return apply(request, "temperature")
    about_schema = "response_format" in request and (
        not schemas or re.search(r"response_format|json_schema", said)
    )
    return apply(request, "response_format") if failure.fault == "bad_request" and about_schema else None


def _named(request: Mapping[str, Any], said: str) -> str | None:
    """The parameter that a refusal names first."""
    more = request.get("extra_body")
    names = (
        {*request, *(more if isinstance(more, Mapping) else ())} - _OWN - {"response_format", "extra_body"}
    )
    places = {name: found.start() for name in sorted(names) if (found := _names(name).search(said))}
    return min(places, key=places.__getitem__) if places else None


@cache
def _names(name: str) -> re.Pattern[str]:
    """Where a text names a parameter: in quotes, before a colon, in a list of parameters; or in any way where
    the name is no word of a language.
    """
    plain = re.escape(name)
    ways = [
        rf"['\"`](?:\w+\.)?{plain}['\"`]",
        rf"(?:^|[\s.,]){plain}: ",
        rf"(?:parameters?|arguments?|fields?|supplied|keys?|inputs?)\W{{1,3}}(?:\w+, ){{0,9}}{plain}\b",
    ]
    ways += [rf"\b{plain}\b"] if "_" in name else []
    ways += [_OTHER_NAMES[name]] if name in _OTHER_NAMES else []
    return re.compile("|".join(ways), re.IGNORECASE)


def apply(request: dict[str, Any], change: str) -> str:
    """Change a request by one of TOLD."""
    if change == "system":
        request["messages"] = folded(request["messages"])
    elif change == "thoughts":
        request["messages"] = [
            {name: value for name, value in message.items() if name != "thinking"}
            for message in request["messages"]
        ]
    elif change == "max_completion_tokens":
        if "max_tokens" in request:
            request["max_completion_tokens"] = request.pop("max_tokens")
    elif change == "max_tokens":
        request.pop("max_tokens", None)
        request.pop("max_completion_tokens", None)
    else:
        request.pop(change, None)
        if isinstance(more := request.get("extra_body"), Mapping) and change in more:
            request["extra_body"] = {name: value for name, value in more.items() if name != change}
    return change


def folded(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation without a system role, user and assistant in turns: what the system says begins
    the first message.
    """
    found: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message["role"] == "system" else message["role"]
        if found and found[-1]["role"] == role:
            last = found[-1]
            found[-1] = {**last, "content": _joined(last["content"], message["content"])}
            if pictures := [*last.get("images", ()), *message.get("images", ())]:
                found[-1]["images"] = pictures
        else:
            found.append({**message, "role": role})
    return found


def _joined(one: Any, other: Any) -> Any:
    """Two contents as one: a text of two texts, else the parts of both."""
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    parts = (
        [{"type": "text", "text": part}] if isinstance(part, str) else list(part) for part in (one, other)
    )
    return [block for part in parts for block in part]

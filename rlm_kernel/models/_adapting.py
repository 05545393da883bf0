"""What one model does not take, learnt from its refusals: a role for instructions, a parameter, a schema.

Servers differ in what they call OpenAI-compatible. What a refusal names is left out or written in another
way, once, and from then on for all requests to that model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rlm_kernel.models._faults import Failure

TOLD = {
    "system": "takes no system role: the instructions are part of the first message now.",
    "temperature": "takes no temperature: it is left out now.",
    "max_completion_tokens": "takes max_completion_tokens in place of max_tokens.",
    "max_tokens": "does not take this limit on reply tokens: max_tokens is left out now.",
    "stream_options": "does not count the tokens of streamed replies: they are estimated.",
    "response_format": "takes no schema for its reply: it is left out now.",
}
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
    r"|too (?:large|big|high)|only \S+ is|exceed|maximum allowed",
    re.IGNORECASE,
)


def adapt(request: dict[str, Any], failure: Failure, *, schemas: bool | None) -> str | None:
    """Change a refused request by what its refusal says, and name what was changed; None where nothing is to
    be changed.

    `schemas`: whether the model is known to take a schema; where that is not known, any bad request may be
    about it.
    """
    said, messages = failure.said, request["messages"]
    if (
        failure.fault in ("bad_request", "server")
        and _NO_SYSTEM.search(said)
        and folded(messages) != messages
    ):
        return apply(request, "system")
    if failure.fault in ("bad_request", "too_long") and _REFUSES.search(said):
        if "max_tokens" in request and re.search(r"max_(?:completion_)?tokens", said):
            instead = re.search(
                r"(?:use|instead)\W[^.]{0,30}max_completion_tokens|max_completion_tokens\W{1,3}instead",
                said,
                re.IGNORECASE,
            )
            return apply(request, "max_completion_tokens" if instead else "max_tokens")
        if "max_completion_tokens" in request and "max_completion_tokens" in said:
            return apply(request, "max_tokens")
        if "stream_options" in said:
            return "stream_options"
        if "temperature" in request and "temperature" in said.lower():
            return apply(request, "temperature")
    about_schema = "response_format" in request and (
        not schemas or re.search(r"response_format|json_schema", said)
    )
    return apply(request, "response_format") if failure.fault == "bad_request" and about_schema else None


def apply(request: dict[str, Any], change: str) -> str:
    """Change a request by one of TOLD."""
    if change == "system":
        request["messages"] = folded(request["messages"])
    elif change == "max_completion_tokens":
        if "max_tokens" in request:
            request["max_completion_tokens"] = request.pop("max_tokens")
    elif change == "max_tokens":
        request.pop("max_tokens", None)
        request.pop("max_completion_tokens", None)
    else:
        request.pop(change, None)
    return change


def folded(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The same conversation without a system role, user and assistant in turns: what the system says begins
    the first message.
    """
    found: list[dict[str, str]] = []
    for message in messages:
        role = "user" if message["role"] == "system" else message["role"]
        if found and found[-1]["role"] == role:
            found[-1] = {"role": role, "content": f"{found[-1]['content']}\n\n{message['content']}"}
        else:
            found.append({"role": role, "content": message["content"]})
    return found

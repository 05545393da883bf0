"""What goes to a client: completions, the pieces of a stream, and the list of models, as OpenAI has them."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.engine.totals import Totals
from rlm_kernel.serve.refusals import Refused

DONE = b"data: [DONE]\n\n"
ALIVE = b": still at work\n\n"
_TOKEN_BYTES = 4
"""Bytes of an answer that count as one token: nobody knows which model's tokens a client means."""
PIECE = 4_000
"""Characters of a piece of a stream."""


@dataclass(frozen=True)
class Answered:
    """What came of a request. `finish`: OpenAI's finish reason. `call`: the function that is called with the
    text as its arguments; "" for an answer in words.
    """

    text: str
    finish: str
    stop_reason: str
    trace: str
    totals: Totals
    call: str = ""

    def about(self) -> dict[str, Any]:
        """The field `rlm`, which OpenAI's have not."""
        return {"trace": self.trace or None, "cost": _cost(self.totals), "stop_reason": self.stop_reason}


def usage(totals: Totals) -> dict[str, Any]:
    """Tokens of root and sub models together."""
    used = totals.usage
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.completion,
        "total_tokens": used.prompt + used.completion,
        "prompt_tokens_details": {"cached_tokens": used.cached},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning},
        "cost": _cost(totals),
    }


def models(names: Sequence[str], created: int) -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, Any]:
    """One model of the list."""
    return {"id": name, "object": "model", "created": created, "owned_by": "rlm_kernel"}


@dataclass(frozen=True)
class Reply:
    """One completion: its id and time are the same in all of its pieces."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answered: Answered, reasoning: str) -> dict[str, Any]:
        """The answer to a request that is no stream."""
        message: dict[str, Any] = {"role": "assistant", "content": answered.text, "refusal": None}
        if answered.call:
            message |= {"content": None, "tool_calls": [self._call(answered)]}
        message |= {"reasoning_content": reasoning, "reasoning": reasoning} if reasoning else {}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answered.finish}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage(answered.totals),
            "rlm": answered.about(),
        }

    def first(self) -> bytes:
        return self._piece({"role": "assistant", "content": ""})

    def thought(self, text: str) -> bytes:
        """A piece of reasoning, under both names that programs read."""
        return self._piece({"reasoning_content": text, "reasoning": text})

    def said(self, answered: Answered) -> bytes:
        """The answer, in pieces."""
        if answered.call:
            return self._piece({"tool_calls": [{"index": 0, **self._call(answered)}]})
        return b"".join(self._piece({"content": text}) for text in pieces(answered.text))

    def last(self, answered: Answered, *, with_usage: bool) -> bytes:
        """The end of the answer, and its usage where that is wanted."""
        end = self._piece({}, answered.finish, {"rlm": answered.about()})
        if not with_usage:
            return end
        head = self._head("chat.completion.chunk")
        return end + event({**head, "choices": [], "usage": usage(answered.totals), "rlm": answered.about()})

    def _piece(
        self, delta: Mapping[str, Any], finish: str | None = None, more: Mapping[str, Any] | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **(more or {})})

    def _call(self, answered: Answered) -> dict[str, Any]:
        function = {"name": answered.call, "arguments": answered.text}
        return {"id": f"call_{self.id.removeprefix('chatcmpl-')}", "type": "function", "function": function}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(data: Mapping[str, Any]) -> bytes:
    """A server-sent event; JSON in ASCII has no line ends that a reader could take for its own."""
    return f"data: {json.dumps(data)}\n\n".encode()


def failed(refused: Refused) -> bytes:
    """The end of a stream that fails after it has begun."""
    return event(refused.body()) + DONE


def cut(text: str, stops: Sequence[str], most: int | None) -> tuple[str, str | None]:
    """The answer as far as a request wants it, and why it ends where it does: None for its own end."""
    why = None
    for stop in stops:
        before, found, _ = text.partition(stop)
        text, why = (before, "stop") if found else (text, why)
    if most is not None and len(whole := text.encode()) > most * _TOKEN_BYTES:
        text, why = whole[: most * _TOKEN_BYTES].decode(errors="ignore"), "length"
    return text, why


def pieces(text: str) -> list[str]:
    """The text in pieces of PIECE characters; none of an empty one."""
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def _cost(totals: Totals) -> float | None:
    cost = totals.cost
    return cost if cost is not None and math.isfinite(cost) else None

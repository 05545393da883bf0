"""What Anthropic's messages API replies, whole or as a stream, in the form of OpenAI's chat completions.

`_reading` reads it then as it reads all others. What a server sends raises nothing here, but for its size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.models._bounds import REPLY_BYTES, load
from rlm_kernel.models._parts import of, plain_text
from rlm_kernel.models._streams import too_much
from rlm_kernel.models._usage import checked

ANSWER = "json_tool_call"
"""The tool whose input is the reply, where the model takes no schema."""
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_BLOCKS = 10_000
"""Blocks of a reply; those after are left."""
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_KINDS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
_SAID = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}
"""Where the words of a block stand, by its type."""


def completion(found: Any) -> dict[str, Any]:
    """A whole reply in OpenAI's form."""
    if not isinstance(found, Mapping):
        return {}
    if "content" not in found and "stop_reason" not in found:
        return dict(found)  # an error, or another's form
    content = found["content"] if isinstance(found.get("content"), list) else [found.get("content")]
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[dict[str, Any]] = []
    for part in content[:_BLOCKS]:
        block = part if isinstance(part, Mapping) else {}
        kind = block.get("type")
        if kind in ("thinking", "redacted_thinking"):
            thoughts.append(dict(block))
        elif kind == "tool_use":
            said = json.dumps(block.get("input"), ensure_ascii=False, default=str)
            if block.get("name") == ANSWER:
                texts.append(said)
            else:
                calls.append(
                    {"type": "function", "function": {"name": str(block.get("name")), "arguments": said}}
                )
        else:
            texts.append(plain_text(part))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        message |= {"reasoning_content": plain_text(thoughts), "thinking_blocks": thoughts}
    message |= {"tool_calls": calls} if calls else {}
    told = found.get("stop_reason")
    told = told if isinstance(told, str) else None
    finish = "stop" if told == "tool_use" and texts and not calls else _FINISH.get(told or "", told)
    choice = {"message": message, "finish_reason": finish, "native_finish_reason": told}
    whole: dict[str, Any] = {"choices": [choice]}
    whole |= {"model": found["model"]} if isinstance(found.get("model"), str) else {}
    whole |= {"usage": usage} if (usage := _usage(found.get("usage"))) else {}
    return whole | ({"error": found["error"]} if found.get("error") else {})


def _usage(told: Any) -> dict[str, Any]:
    """The counts in OpenAI's names: there the prompt has what was read from the cache and written to it."""
    counts = checked(told)
    if not any(isinstance(counts.get(name), int) for name in ("input_tokens", "output_tokens")):
        return {}
    read, written = counts.get("cache_read_input_tokens", 0), counts.get("cache_creation_input_tokens", 0)
    found: dict[str, Any] = {"prompt_tokens_details": {"cached_tokens": read}}
    found |= {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    if split := of(counts, "cache_creation"):
        found["cache_creation"] = dict(split)
    if "input_tokens" in counts:
        found["prompt_tokens"] = counts["input_tokens"] + read + written
    if "output_tokens" in counts:
        found["completion_tokens"] = counts["output_tokens"]
    thought = of(counts, "output_tokens_details").get("thinking_tokens")
    if isinstance(thought, int):
        found["completion_tokens_details"] = {"reasoning_tokens": thought}
    return found


@dataclass
class _Block:
    """A block that grows by its deltas."""

    start: dict[str, Any]
    said: list[str] = field(default_factory=list)
    signature: str | None = None

    @property
    def kind(self) -> str:
        return str(self.start.get("type"))

    @property
    def answers(self) -> bool:
        """Whether its words are the reply's."""
        return self.kind == "text" or (self.kind == "tool_use" and self.start.get("name") == ANSWER)

    def whole(self) -> dict[str, Any]:
        said = "".join(self.said)
        if self.kind == "tool_use":
            return self._call(said)
        found = {**self.start, self.kind: said} if self.kind in _SAID else dict(self.start)
        return found | ({"signature": self.signature} if self.signature is not None else {})

    def _call(self, said: str) -> dict[str, Any]:
        """With its input; of one that was cut off, the text."""
        if self.answers:
            return {"type": "text", "text": said or json.dumps(self.start.get("input"), default=str)}
        try:
            return {**self.start, "input": load(said) if said.strip() else self.start.get("input")}
        except ValueError:
            return {**self.start, "input": said}


@dataclass
class Stream:
    """A reply that grows by its events. `ended`: all of it has come. `error`: what broke it off."""

    ended: bool = False
    error: Mapping[str, Any] | None = None
    _head: dict[str, Any] = field(default_factory=dict)
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _usage: dict[str, Any] = field(default_factory=dict)
    _stop: Any = None
    _size: int = 0

    def add(self, event: Any) -> tuple[str, str]:
        """The text and the thoughts that came with an event.

        Raises Unreadable for a reply that is over the limit.
        """
        if not isinstance(event, Mapping):
            return "", ""
        kind = event.get("type")
        if kind == "error" or (kind is None and event.get("error")):
            told = event.get("error")
            self.error = told if isinstance(told, Mapping) else {"message": str(told)}
        elif kind == "message_start":
            self._begin(of(event, "message"))
        elif kind == "message_delta":
            self._stop = of(event, "delta").get("stop_reason") or self._stop
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self.ended = True
        elif kind == "content_block_start":
            return self._open(event.get("index"), of(event, "content_block"))
        elif kind == "content_block_delta":
            return self._grow(event.get("index"), of(event, "delta"))
        return "", ""

    def completion(self, *, stopped: bool = False) -> dict[str, Any]:
        """What has come so far, in OpenAI's form. `stopped`: who listened had heard enough."""
        content = [self._blocks[at].whole() for at in sorted(self._blocks)]
        whole = completion(
            {**self._head, "content": content, "stop_reason": self._stop, "usage": self._usage}
        )
        choice = whole["choices"][0]
        if stopped:
            choice["finish_reason"] = "stopped"
        elif self.error is not None:
            choice["finish_reason"] = "error"
            whole["error"] = dict(self.error)
        elif not self.ended:
            choice["finish_reason"] = "error"
            choice["error"] = {"message": "the stream ended before the reply did", "code": 502}
        return whole

    def _begin(self, message: Mapping[str, Any]) -> None:
        if isinstance(message.get("model"), str):
            self._head = {"model": message["model"]}
        # How many tokens the reply has is known at its end alone.
        told = message.get("usage")
        self._count(
            {name: told[name] for name in told if name != "output_tokens"}
            if isinstance(told, Mapping)
            else {}
        )

    def _count(self, told: Any) -> None:
        if isinstance(told, Mapping) and len(told) <= 100:
            self._usage |= {name: value for name, value in told.items() if value is not None}

    def _open(self, index: Any, block: Mapping[str, Any]) -> tuple[str, str]:
        place = self._place(index)
        if place is None or place in self._blocks:
            return "", ""
        self._blocks[place] = begun = _Block(dict(block))
        self._bound(len(str(block.get("data") or "")))
        said = block.get(begun.kind) if begun.kind in ("text", "thinking") else None
        return self._say(begun, plain_text(said))

    def _grow(self, index: Any, delta: Mapping[str, Any]) -> tuple[str, str]:
        place, kind = self._place(index), str(delta.get("type"))
        if place is None or kind not in (*_DELTAS, "signature_delta"):
            return "", ""
        block = self._blocks.setdefault(place, _Block({"type": _KINDS.get(kind, "tool_use")}))
        if kind == "signature_delta":
            said = plain_text(delta.get("signature"))
            self._bound(len(said))
            block.signature = said
            return "", ""
        if _DELTAS[kind] != _SAID.get(block.kind):
            return "", ""
        return self._say(block, plain_text(delta.get(_DELTAS[kind])))

    def _say(self, block: _Block, said: str) -> tuple[str, str]:
        if not said:
            return "", ""
        self._bound(len(said))
        block.said.append(said)
        return (said if block.answers else "", said if block.kind == "thinking" else "")

    def _place(self, index: Any) -> int | None:
        """Where a block stands; None for one too many."""
        place = index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else 0
        return place if place in self._blocks or len(self._blocks) < _BLOCKS else None

    def _bound(self, more: int) -> None:
        self._size += more
        if self._size > REPLY_BYTES:
            raise too_much()

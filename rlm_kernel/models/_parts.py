"""The parts of a reply's choices: text, thoughts, refusals and tool calls, in whichever shape a provider puts
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.models._tool_calls import ToolCall, tool_calls

_THINKING = frozenset(
    {
        "thinking",
        "reasoning",
        "reasoning_text",
        "reasoning_content",
        "redacted_thinking",
        "summary_text",
        "thought",
    }
)
_TOOLS = frozenset(
    {"tool_use", "tool_call", "function_call", "functioncall", "executable_code", "executablecode"}
)
_CHOICES = 16
"""Of a reply, that are looked at: one is asked for."""


def first(choices: Any) -> Mapping[str, Any]:
    """The first choice with text in it, else the first."""
    if isinstance(choices, Mapping):
        choices = [choices]
    found = (
        [choice for choice in choices[:_CHOICES] if isinstance(choice, Mapping)]
        if isinstance(choices, list)
        else []
    )
    return next((choice for choice in found if said_in(choice)[0].strip()), found[0] if found else {})


def body_of(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("message", "delta"):
        message = choice.get(name)
        if isinstance(message, Mapping):
            return message
        if isinstance(message, str):
            return {"content": message}
    return {"content": choice.get("text", choice.get("content"))}


def said_in(choice: Mapping[str, Any]) -> tuple[str, str, list[ToolCall], str]:
    """The text of a choice, the thoughts, tool calls and refusal that stand among its parts."""
    parts = _Parts()
    parts.add(body_of(choice).get("content"))
    return "".join(parts.text), "".join(parts.thoughts), parts.calls, "".join(parts.refusal)


@dataclass
class _Parts:
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)

    def add(self, content: Any, depth: int = 4) -> None:
        if content is None or isinstance(content, bool) or not depth:
            return
        if isinstance(content, str):
            self.text.append(content)
        elif isinstance(content, list):
            for part in content:
                self.add(part, depth - 1)
        elif isinstance(content, Mapping):
            self._part(content, depth)
        else:
            self.text.append(json.dumps(content, default=str))

    def _part(self, part: Mapping[str, Any], depth: int) -> None:
        kind = str(part.get("type") or "").lower()
        if kind in _THINKING or part.get("thought") is True or (not kind and "thinking" in part):
            self.thoughts.append(plain_text(part))
        elif kind == "refusal":
            self.refusal.append(plain_text(part.get("refusal") or part))
        elif kind in _TOOLS or "functionCall" in part or "executableCode" in part:
            self.calls += tool_calls(
                {"tool_calls": [part.get("functionCall") or part.get("executableCode") or part]}
            )
        elif "text" in part or "content" in part or "parts" in part or "value" in part:
            for name in ("text", "content", "parts", "value"):
                if name in part:
                    self.add(part[name], depth - 1)
                    return
        elif not kind:  # a server that took the text for JSON and parsed it
            self.text.append(json.dumps(part, ensure_ascii=False, default=str))


def plain_text(value: Any, depth: int = 6) -> str:
    """All the text in a value, of whatever shape."""
    if isinstance(value, str):
        return value
    if not depth:
        return ""
    if isinstance(value, list):
        return "".join(plain_text(item, depth - 1) for item in value)
    if isinstance(value, Mapping):
        return "".join(
            plain_text(value[n], depth - 1)
            for n in ("thinking", "reasoning", "text", "content", "summary", "refusal")
            if n in value
        )
    return ""


def of(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}

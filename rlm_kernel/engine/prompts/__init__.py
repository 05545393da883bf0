"""Prompt profiles: what the root model is told, by family of model.

A profile is a system prompt (NAME.md), perhaps with example turns (NAME.examples.md: sections headed `## user` and `## assistant`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from rlm_kernel.engine.protocols import ContextInfo, Message

ProfileName = Literal["default", "small"]
_CHARS_PER_TOKEN = 3.5
_DEFAULT_SUB_CHARS = 100_000
_SECTION = re.compile(r"^## (user|assistant)[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Profile:
    """`digest` is the sha256 (hex) of all its texts; `output_chars` caps the settings' own; `head_chars` that of the input's beginning."""

    name: ProfileName
    system: str
    examples: tuple[Message, ...]
    digest: str
    output_chars: int
    head_chars: int


_SIZES: dict[ProfileName, tuple[int, int]] = {"default": (10**9, 300), "small": (2_000, 120)}


@cache
def load_profile(name: ProfileName) -> Profile:
    """The profile of that name."""
    folder = resources.files(__name__)
    system = (folder / f"{name}.md").read_text("utf-8")
    examples_file = folder / f"{name}.examples.md"
    examples = examples_file.read_text("utf-8") if examples_file.is_file() else ""
    parts = _SECTION.split(examples)[1:]
    turns = tuple({"role": role, "content": text.strip()} for role, text in zip(parts[::2], parts[1::2], strict=True))
    output_chars, head_chars = _SIZES[name]
    digest = hashlib.sha256(f"{system}\0{examples}".encode()).hexdigest()
    return Profile(name, system, turns, digest, output_chars, head_chars)


def system_prompt(profile: Profile, info: ContextInfo, *, output_chars: int, sub_window: int | None) -> str:
    """The profile's system prompt for this input. `sub_window` is the sub model's window in tokens, None where unknown."""
    sub_chars = int(sub_window * _CHARS_PER_TOKEN * 0.8) if sub_window else _DEFAULT_SUB_CHARS
    hints = {
        "str": "It is one str.",
        "dict": "It is a dict of name to text.",
        "list": "It is a list.",
        "NoneType": "There is none for this question.",
        "None": "There is none for this question.",
    }
    values = {
        "output_chars": f"{output_chars:,}",
        "sub_chars": f"{sub_chars:,}",
        "example_chunk": str(min(sub_chars // 2, _DEFAULT_SUB_CHARS)),
        "context_hint": hints.get(info.kind, f"It is a {info.kind}."),
    }
    # Not str.format: the prompt's code examples are full of braces.
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), profile.system)

"""Prompt profiles: what the root model is told, by family of model.

A profile is a system prompt (NAME.md), perhaps with example turns (NAME.examples.md: sections headed `## user` and `## assistant`).
What it says of child RLMs, where they are allowed, is the same in all (recursion.md).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, get_args

from rlm_kernel.engine.protocols import ContextInfo, Message

ProfileName = Literal["default", "batching", "short", "small"]
PROFILES: tuple[ProfileName, ...] = get_args(ProfileName)
SHORT_WINDOW = 40 * 1024
"""Tokens: a root model whose window is known to be no larger has the profile `short`."""
FAMILIES: tuple[tuple[str, ProfileName], ...] = (
    # What the name alone says of the window, where that is not known:
    (r"(?<![\w.])(\d|1[0-4])(\.\d+)?b(?![a-z])", "short"),  # up to 14 billion parameters
    (r"\b(phi|gemma|mixtral|codellama|starcoder|yi)", "short"),
    # Known to make a call for each line unless they are told not to:
    (r"qwen|qwq|coder", "batching"),
    # All others, such as gpt, o1 to o9, claude, gemini, grok, glm, deepseek, kimi, minimax, llama, mistral:
    (r"", "default"),
)
"""Patterns of model names without provider and organisation, in lower case; the first that is found counts."""
_CHARS_PER_TOKEN = 3.5
"""Of prose and code, which have 3.7 to 4.7; logs and numbers have about 2."""
_DENSE_CHARS_PER_TOKEN = 2.0
_SHARE = 0.8
"""Of a window: the rest is for the question around the text, and the reply."""
_USUAL_WINDOW = 36_000
"""Tokens, where a sub model's window is not known."""
_SECTION = re.compile(r"^## (user|assistant)[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Profile:
    """`digest` is the sha256 (hex) of all its texts; `output_chars` caps the settings' own; `head_chars` that of the input's beginning.

    `piece_chars`: how much of the input is to go into a prompt, where the sub model reads as much. `recursion`: on child RLMs.
    """

    name: ProfileName
    system: str
    examples: tuple[Message, ...]
    digest: str
    output_chars: int
    head_chars: int
    piece_chars: int = 100_000
    recursion: str = ""


_SIZES: dict[ProfileName, tuple[int, int, int]] = {
    "default": (10**9, 300, 100_000),
    "batching": (10**9, 300, 200_000),
    "short": (6_000, 200, 15_000),
    "small": (2_000, 120, 15_000),
}
"""Characters of outputs, of the input's beginning, and of a piece."""


def profile_of(model: str, window: int | None = None) -> ProfileName:
    """The profile that suits a root model, by its name as litellm has it, and by its window in tokens where that is known."""
    if window is not None and window <= SHORT_WINDOW:
        return "short"
    name = model.rsplit("/", 1)[-1].lower()
    found = (profile for pattern, profile in FAMILIES if re.search(pattern, name))
    return next(profile for profile in found if window is None or profile != "short")


@cache
def load_profile(name: ProfileName) -> Profile:
    """The profile of that name."""
    folder = resources.files(__name__)
    system = (folder / f"{name}.md").read_text("utf-8")
    examples_file = folder / f"{name}.examples.md"
    examples = examples_file.read_text("utf-8") if examples_file.is_file() else ""
    parts = _SECTION.split(examples)[1:]
    turns = tuple({"role": role, "content": text.strip()} for role, text in zip(parts[::2], parts[1::2], strict=True))
    recursion = (folder / "recursion.md").read_text("utf-8") if "{recursion}" in system else ""
    texts = [system, examples, recursion] if recursion else [system, examples]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    output_chars, head_chars, piece_chars = _SIZES[name]
    return Profile(name, system, turns, digest, output_chars, head_chars, piece_chars, recursion)


def system_prompt(profile: Profile, info: ContextInfo, *, output_chars: int, sub_window: int | None, depth: int = 0) -> str:
    """The profile's system prompt for this input. `sub_window` is the sub model's window in tokens, None where unknown; `depth` the levels
    of child RLMs that are still allowed.
    """
    reads = (sub_window or _USUAL_WINDOW) * _SHARE
    piece = min(profile.piece_chars, _rounded(reads * _DENSE_CHARS_PER_TOKEN))
    hints = {
        "str": "It is one str.",
        "dict": "It is a dict of name to text.",
        "list": "It is a list.",
        "NoneType": "There is none for this question.",
        "None": "There is none for this question.",
    }
    values = {
        "output_chars": f"{output_chars:,}",
        "sub_chars": f"{_rounded(reads * _CHARS_PER_TOKEN):,}",
        "sub_doubt": "" if sub_window else " (a guess: its window is not known)",
        "piece_chars": f"{piece:,}",
        "example_chunk": str(piece),
        "recursion": profile.recursion if depth > 0 else "",
        "context_hint": hints.get(info.kind, f"It is a {info.kind}."),
    }
    # Not str.format: the prompt's code examples are full of braces.
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), profile.system)


def constant_prefix(profile: Profile) -> tuple[Message, ...]:
    """The messages that every conversation by this profile begins with; none where its prompt is made for each input."""
    return () if re.search(r"\{\w+\}", profile.system) else ({"role": "system", "content": profile.system}, *profile.examples)


def _rounded(chars: float) -> int:
    """Down to two digits and zeros."""
    unit = int("1" + "0" * (len(str(int(chars))) - 2))
    return int(chars) // unit * unit

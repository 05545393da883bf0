"""The prompt caches of providers.

Some cache only what is marked: `marked` does that. OpenAI finds a cache again by a key: `cache_key`. All
others cache by themselves.

A mark says: keep what is up to here. What was kept is found again up to 20 blocks before a mark, so the mark
at the end of a conversation that only grows is enough for all of it. The marks behind the system prompt and
the model's last reply are for other conversations that begin alike: those of other runs, and of children.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
CACHE_SECONDS = 300.0
"""For so long a cache has what is not used."""
LONGEST_WAIT = 30.0
"""Seconds that a call waits for another to write what both begin with."""
MARKS = 4
"""Of a request, at most."""
CHARS_PER_TOKEN = 4
_LEAST = 1024
"""Tokens of a beginning that is cached, where the model's least is not known."""
_LEAST_OF = (
    (re.compile(r"haiku-(?:4[-.]5)|opus-4[-.][56]|mythos-preview"), 4096),
    (re.compile(r"haiku-3|3[-.]5-haiku|3-haiku|opus-4[-.]7"), 2048),
)
"""By name, where litellm's table does not say."""
_CLAUDE = frozenset({"bedrock", "bedrock_converse", "vertex_ai", "azure_ai"})
"""Providers, by litellm's names, that have Claude beside other models."""
_OPENROUTER = re.compile(r"^(?:anthropic/|qwen/)|claude")
"""Of its models; the others cache by themselves or not at all."""
_NOVA = re.compile(r"\bamazon\.nova-")
_OPENAI = "api.openai.com"


def takes_marks(provider: str, name: str, entry: Mapping[str, Any] | None) -> bool:
    """Whether the model caches what is marked, and nothing else.

    `provider` and `name` are litellm's, `entry` is the model's line in its table.
    """
    name = name.lower()
    if provider == "openrouter":
        return bool(_OPENROUTER.search(name.removeprefix("openrouter/")))
    if entry is not None and not entry.get("supports_prompt_caching"):
        return False
    if provider in _CLAUDE and "claude" in name:
        return True
    return provider == "anthropic" or (
        provider.startswith("bedrock") and entry is not None and bool(_NOVA.search(name))
    )


def marked(
    provider: str,
    name: str,
    entry: Mapping[str, Any] | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    slow: bool = False,
) -> list[dict[str, Any]]:
    """The messages of a request with marks, where the model takes them; the given ones stay as they are.

    `slow`: the turns of this conversation are more than five minutes apart. What is kept that long would be
    gone, and to keep it again each turn costs more than no cache; so it is kept for an hour by Anthropic.

    A single message of the user's is no conversation: what is kept of it would never be read, and costs more
    than what is not kept. It has the marks that it came with.
    """
    found = [dict(message) for message in messages]
    if not takes_marks(provider, name, entry) or not any(m.get("role") != "user" for m in found):
        return found
    there = sum(_marks_in(message) for message in found)
    # No mark for an hour may stand behind one for five minutes.
    mark = HOUR if slow and provider == "anthropic" and not there else MARK
    for at in list(dict.fromkeys(_places(found)))[: max(0, MARKS - there)]:
        found[at]["content"] = _with_mark(found[at]["content"], mark)
    return found


def _places(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Where marks go, the one that saves most first: the last message, the system prompt, the last reply."""
    able = [at for at, message in enumerate(messages) if _markable(message.get("content")) is not None]
    last = able[-1:]
    system = [at for at in able if messages[at].get("role") == "system"][-1:]
    reply = [at for at in able if messages[at].get("role") == "assistant"][-1:]
    return [*last, *system, *reply]


def _marks_in(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    blocks = content if isinstance(content, list | tuple) else ()
    return sum(isinstance(block, Mapping) and bool(block.get("cache_control")) for block in blocks)


def _markable(content: Any) -> int | None:
    """The last block of a content that takes a mark: empty ones and thoughts do not. None for none."""
    if isinstance(content, str):
        return 0 if content.strip() else None
    blocks = content if isinstance(content, list | tuple) else ()
    for at in range(len(blocks) - 1, -1, -1):
        block = blocks[at]
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "image_url" or (kind == "text" and str(block.get("text") or "").strip()):
            return at
    return None


def _with_mark(content: Any, mark: Mapping[str, str]) -> list[Any]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    at = _markable(blocks)
    if at is not None and not blocks[at].get("cache_control"):
        blocks[at] = {**blocks[at], "cache_control": dict(mark)}
    return blocks


def cache_key(provider: str, api_base: str | None, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """OpenAI's `prompt_cache_key`, the same for all conversations with the same system prompt.

    None for requests without a system prompt, and at all other addresses: servers that are compatible, Azure
    among them, refuse names that they do not know.
    """
    host = urlsplit(api_base).hostname if api_base else _OPENAI
    if provider != "openai" or host != _OPENAI or not messages or messages[0].get("role") != "system":
        return None
    text = str(messages[0].get("content"))
    return f"rlm-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:24]}"


def least_chars(name: str, entry: Mapping[str, Any] | None) -> int:
    """Characters, about, of the shortest beginning that the model caches."""
    told = (entry or {}).get("prompt_cache_min_tokens")
    if not isinstance(told, int):
        told = next((least for pattern, least in _LEAST_OF if pattern.search(name.lower())), _LEAST)
    return told * CHARS_PER_TOKEN


def in_blocks(beginning: str, rest: str) -> list[dict[str, Any]]:
    """A content whose beginning is a block of its own, with a mark."""
    return [
        {"type": "text", "text": beginning, "cache_control": dict(MARK)},
        {"type": "text", "text": rest},
    ]


class Writers:
    """Which beginnings are being written to the cache: those that begin alike wait for the first of them.

    A cache has a beginning only after the first reply. Calls that start together would each write it, and pay
    more than without a cache.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._writing: dict[str, asyncio.Future[None]] = {}
        self._written: OrderedDict[str, float] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, beginning: str) -> AsyncIterator[None]:
        """Enter with a request that has this marked beginning; "" for none. Waits for LONGEST_WAIT seconds at
        most.
        """
        first = self._writing.get(beginning)
        if first is not None:
            await asyncio.wait([first], timeout=LONGEST_WAIT)
        since = self._clock() - self._written.get(beginning, -math.inf)
        if not beginning or first is not None or since < CACHE_SECONDS:
            yield
            return
        writing = self._writing[beginning] = asyncio.get_running_loop().create_future()
        try:
            yield
            self._written[beginning] = self._clock()
            if len(self._written) > _FAMILIES:
                self._written.popitem(last=False)
        finally:
            del self._writing[beginning]
            writing.set_result(None)


# Prompts that begin alike

_FAMILIES = 16
"""Groups of prompts with the same first characters that are remembered."""
_RECENT = 2
"""Prompts of each that a new one is compared with."""
_BEGINNINGS = 4
"""Of each, the shared ones that are kept."""
_KEPT = 1 << 19
"""Characters of a prompt that are compared."""


@dataclass
class _Family:
    recent: list[str] = field(default_factory=list)
    beginnings: list[str] = field(default_factory=list)
    """The longest first."""


class CommonBeginning:
    """The beginnings that prompts of one endpoint have in common: instructions first, a piece last.

    `least` is how many characters a beginning has at least. A beginning that was found once stays as it is:
    a cache finds it again only whole. To look one up takes the time of comparing the texts, once or twice.
    """

    def __init__(self, least: int = _LEAST * CHARS_PER_TOKEN) -> None:
        self._least = max(1, least)
        self._families: OrderedDict[str, _Family] = OrderedDict()

    def split(self, prompt: str) -> tuple[str, str] | None:
        """The beginning that the prompt shares with earlier ones, and the rest; None where it shares none."""
        if len(prompt) <= self._least:
            return None
        key = prompt[: self._least]
        family = self._families.setdefault(key, _Family())
        self._families.move_to_end(key)
        if len(self._families) > _FAMILIES:
            self._families.popitem(last=False)
        found = next((begin for begin in family.beginnings if prompt.startswith(begin)), "")
        if longer := self._shared(prompt, family.recent, len(found)):
            found = longer
            family.beginnings = sorted([longer, *family.beginnings], key=len, reverse=True)[:_BEGINNINGS]
        family.recent = [prompt[:_KEPT], *family.recent][:_RECENT]
        rest = prompt[len(found) :]
        return (found, rest) if found and rest.strip() and found.strip() else None

    def _shared(self, prompt: str, earlier: Sequence[str], known: int) -> str:
        """What a prompt shares with earlier ones, where that is a good deal more than what is known."""
        wanted = known + self._least if known else self._least
        length = max((_common(prompt, other) for other in earlier), default=0)
        if length >= len(prompt):
            length = len(prompt) - 1
        for end in ("\n", " "):
            cut = prompt.rfind(end, wanted - 1, length) + 1
            if cut >= wanted:
                return prompt[:cut]
        return ""


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common from the beginning: each part is compared once."""
    low, step, most = 0, 4096, min(len(one), len(other))
    while low < most and one[low : low + step] == other[low : low + step]:
        low, step = min(most, low + step), step * 2
    step = min(step, most - low)
    while step > 1:
        half = step // 2
        if one[low : low + half] == other[low : low + half]:
            low, step = low + half, step - half
        else:
            step = half
    return low + (step == 1 and one[low] == other[low])

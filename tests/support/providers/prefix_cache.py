"""Prompt caches: what of a prompt's beginning was sent before, by the rules of two kinds of providers."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from tests.support.providers.words import CHARS, Clock, tokens


@dataclass
class AutomaticCache:
    """Caches the beginning of every prompt by itself, in whole steps of tokens (OpenAI, DeepSeek, Gemini)."""

    clock: Clock
    minimum: int = 1024
    """Tokens."""
    step: int = 128
    ttl: float = 600.0
    """Seconds after the last use."""
    _until: dict[Hashable, float] = field(default_factory=dict)

    def use(self, scope: Hashable, prompt: str) -> tuple[int, int]:
        """Tokens that are read from the cache, and those that are written to it."""
        cached = length = 0
        seen = hashlib.sha256()
        for start in range(0, len(prompt), self.step * CHARS):
            part = prompt[start : start + self.step * CHARS]
            if len(part) < self.step * CHARS:
                break
            seen.update(part.encode("utf-8", "replace"))
            length += self.step
            if length < self.minimum:
                continue
            key = (scope, seen.hexdigest())
            if self._until.get(key, -1.0) >= self.clock.now:
                cached = length
            self._until[key] = self.clock.now + self.ttl
        return cached, (length - cached if length >= self.minimum else 0)


@dataclass(frozen=True)
class Block:
    """One block of a prompt, in the order in which the cache sees them; `mark` is the TTL in seconds of a
    breakpoint behind it.
    """

    text: str
    mark: int | None = None
    salt: str = ""
    """Settings that make it another block though its text is the same."""


@dataclass(frozen=True)
class Cached:
    """Tokens of a prompt: read, written for five minutes, written for an hour, and the rest."""

    read: int = 0
    written: int = 0
    written_1h: int = 0
    rest: int = 0


@dataclass
class MarkedCache:
    """Caches up to the blocks that are marked, and reads what an earlier request wrote up to LOOKBACK blocks
    before a mark (Anthropic).
    """

    LOOKBACK = 20

    clock: Clock
    _until: dict[Hashable, tuple[float, int]] = field(default_factory=dict)

    def use(self, scope: Hashable, blocks: Sequence[Block], minimum: int) -> Cached:
        keys, lengths, seen, length = [], [], hashlib.sha256(), 0
        for block in blocks:
            seen.update(f"{len(block.text)}:{block.salt}:".encode() + block.text.encode("utf-8", "replace"))
            length += tokens(block.text)
            keys.append((scope, seen.hexdigest()))
            lengths.append(length)
        marks = [at for at, block in enumerate(blocks) if block.mark is not None]
        hit = self._hit(keys, marks)
        read = lengths[hit] if hit is not None else 0
        if hit is not None:
            self._until[keys[hit]] = (self.clock.now + self._until[keys[hit]][1], self._until[keys[hit]][1])
        reached, written = read, {300: 0, 3600: 0}
        for at in marks:
            ttl = blocks[at].mark or 300
            if lengths[at] > reached and lengths[at] >= minimum:
                written[ttl] += lengths[at] - reached
                reached = lengths[at]
                self._until[keys[at]] = (self.clock.now + ttl, ttl)
        return Cached(read, written[300], written[3600], length - reached)

    def _hit(self, keys: Sequence[Hashable], marks: Sequence[int]) -> int | None:
        """The longest beginning that is cached, looked for from each mark backwards."""
        found = None
        for mark in marks:
            for at in range(mark, max(-1, mark - self.LOOKBACK), -1):
                if self._until.get(keys[at], (-1.0, 0))[0] >= self.clock.now:
                    found = max(found or 0, at)
                    break
        return found

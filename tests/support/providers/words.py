"""What all the servers share: what a model says, what it was asked, tokens, pictures, the clock, and
refusals.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Stop = Literal["stop", "length", "tool", "stop_sequence", "refusal", "filter", "pause"]
"""Why a reply ended. Each server has its provider's own names for these."""
CHARS = 4
"""Characters of a token."""
PIECES = 6
"""Pieces at most in which a text is streamed."""


def tokens(text: str) -> int:
    """Tokens of a text: one for each four characters begun."""
    return -(-len(text) // CHARS)


def pieces(text: str, most: int = PIECES) -> list[str]:
    """A text in pieces, as it is streamed. None of an empty text."""
    size = max(CHARS, -(-len(text) // most))
    return [text[start : start + size] for start in range(0, len(text), size)]


@dataclass(frozen=True)
class Call:
    """A tool that the model calls."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = "call_1"


@dataclass(frozen=True)
class Reply:
    """What the model says. `stop` is set where it ends for another reason than that it is done."""

    text: str = ""
    thoughts: str = ""
    calls: Sequence[Call] = ()
    stop: Stop = "stop"
    redacted: bool = False
    """The thoughts come back encrypted (Anthropic)."""


@dataclass(frozen=True)
class Bill:
    """What one answered call cost.

    Tokens; `input` are those that were neither read from a cache nor written to one.
    """

    model: str
    input: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    output: int = 0
    cost: float = 0.0
    """US dollars."""

    @property
    def prompt(self) -> int:
        return self.input + self.cached + self.written + self.written_1h


@dataclass(frozen=True)
class Price:
    """US dollars of a million tokens; what is read from and written to a cache as shares of `input`."""

    input: float
    output: float
    read: float = 1.0
    write: float = 1.0
    write_1h: float = 1.0

    def bill(self, model: str, **counts: int) -> Bill:
        bill = Bill(model, **counts)
        read = bill.cached * self.read + bill.written * self.write + bill.written_1h * self.write_1h
        cost = ((bill.input + read) * self.input + bill.output * self.output) / 1e6
        return Bill(model, **counts, cost=cost)


class Refused(Exception):
    """A request that the API refuses: a status and its own error body."""

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(json.dumps(body))
        self.status, self.body, self.headers = status, body, dict(headers or {})


class Clock:
    """Seconds that pass only when a test says so. Tests call advance() from their own thread or loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._slept = threading.Event()

    @property
    def sleepers(self) -> int:
        """Replies that wait for the time to pass."""
        return len(self._waiting)

    def wait_for_sleeper(self, seconds: float = 30.0) -> None:
        """Block until the first reply waits for the time to pass."""
        if not self._slept.wait(seconds):
            raise TimeoutError("no reply waits")

    async def sleep(self, seconds: float) -> None:
        entry = (self.now + seconds, asyncio.get_running_loop(), asyncio.Event())
        self._waiting.append(entry)
        self._slept.set()
        try:
            await entry[2].wait()
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for due, loop, event in list(self._waiting):
            if due <= self.now:
                loop.call_soon_threadsafe(event.set)


# Pictures


@dataclass(frozen=True)
class Picture:
    """A picture as it was sent. Its size is known of PNGs; of other formats one of 512 by 512 is assumed."""

    mime: str
    width: int
    height: int
    size: int
    """Bytes."""
    digest: str


_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)


def picture(data: str) -> Picture | None:
    """The picture in a base64 text; None where there is none."""
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    mime = next((mime for magic, mime in _MAGIC.items() if raw.startswith(magic)), None)
    if mime is None:
        return None
    width = height = 512
    if mime == "image/png":
        if raw[12:16] != b"IHDR":
            return None
        width, height = int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")
    return Picture(mime, width, height, len(raw), hashlib.sha256(raw).hexdigest())


def data_url(url: str) -> tuple[str, str] | None:
    """MIME type and base64 text of a data URL; None for another."""
    found = _DATA_URL.fullmatch(url)
    return (found[1], found[2]) if found else None


def standing_for(found: Picture, count: int) -> str:
    """A text of as many tokens as the picture has, the same for the same picture: it stands for the picture
    in a prompt.
    """
    return (found.digest * (count * CHARS // len(found.digest) + 1))[: count * CHARS]


# Schemas


def fits(text: str, schema: Mapping[str, Any]) -> bool:
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def sample(schema: Mapping[str, Any]) -> Any:
    """The least value that a JSON Schema takes (of the parts that providers support)."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return sample(schema[name][0])
    kind = schema.get("type", "object")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        return {name: sample(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {"type": "string"}))] * int(schema.get("minItems", 0))
    return {
        "string": "",
        "integer": schema.get("minimum", 0),
        "number": schema.get("minimum", 0),
        "boolean": False,
    }.get(kind)


def constrained(text: str, schema: Mapping[str, Any]) -> str:
    """What a model says whose sampling a schema constrains: the text where it fits, else the least value that
    does.
    """
    return text if fits(text, schema) else json.dumps(sample(schema))

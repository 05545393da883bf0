"""Replies that come as a stream of events: the events in the bytes, and the completion that their chunks are.

Both is done as the bytes come, and no more is kept than what the chunks say: a reply has tens of times as
many bytes on the wire as in its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.models._bounds import REPLY_BYTES, Unreadable, load
from rlm_kernel.models._parts import body_of, first, of, said_in

STREAM_BYTES = 256 << 20
"""On the wire, of a reply that is streamed."""
_NAMES = 100
"""Names beside the choices that are kept of a stream."""
_BLOCKS = 100
"""Blocks of reasoning that are kept; of a reply that has more none goes back."""
_SMALL = 4096
"""Bytes of an event that count by what is kept of them; larger ones count whole."""
_BROKEN = {"message": "an event of the stream is no valid JSON", "code": 502}
_PIECE = 100
"""For how many characters a piece counts that is no text."""


def too_much() -> Unreadable:
    return Unreadable(f"the reply has more than {REPLY_BYTES >> 20} MiB, and no more is read")


class Events:
    """The JSON objects in a stream of server-sent events, whose bytes come in any pieces.

    Lines end with LF, CRLF or CR alone: JSON has other line ends of Unicode in its texts. An object may stand
    on several `data` lines, and on a line without that name. What is no JSON is left.
    """

    def __init__(self) -> None:
        self.any = False
        """There was an object, or the end was told."""
        self.ended = False
        """The stream said that it is over."""
        self._begun: list[bytes] = []
        """The parts of a line that has not ended."""
        self._size = self._large = self._all = 0
        self._after_cr = False
        self._first = True
        self._data: list[bytes] = []
        """Lines that are no object by themselves."""
        self._name = b""

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
        """The objects that end in these bytes, each with the place where its last line ends.

        Raises Unreadable for an object that is over the limit of a reply.
        """
        at = 0
        for line in data.splitlines(keepends=True):
            at += len(line)
            if self._after_cr and line == b"\n":
                self._after_cr = False
                continue
            self._after_cr = line.endswith(b"\r")
            self._begun.append(line)
            self._grow(len(line))
            if line.endswith((b"\n", b"\r")):
                whole, self._begun = b"".join(self._begun).rstrip(b"\r\n"), []
                end = at - len(line) + len(line.rstrip(b"\r\n"))
                for found in self._line(whole):
                    yield found, end

    def rest(self) -> Iterator[dict[str, Any]]:
        """The objects that end with the stream."""
        whole, self._begun = b"".join(self._begun), []
        yield from self._line(whole)
        yield from self._event()

    def all(self, body: bytes) -> Iterator[dict[str, Any]]:
        """The objects of a whole stream."""
        for found, _ in self.feed(body):
            yield found
        yield from self.rest()

    def _grow(self, more: int) -> None:
        self._size += more
        self._all += more
        if self._size + self._large > REPLY_BYTES or self._all > STREAM_BYTES:
            raise too_much()

    def _line(self, line: bytes) -> Iterator[dict[str, Any]]:
        if self._first:
            self._first, line = False, line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            yield from self._event()
            return
        name, _, value = (b"data", b"", line) if line.startswith(b"{") else line.partition(b":")
        if name == b"event":
            self._name = value.strip()
        elif name == b"data" and value.strip() == b"[DONE]":
            self.any = self.ended = True
        elif name == b"data":
            found = None if self._data else object_of(value)
            if found is None:
                self._data.append(value)
                return
            yield self._found(found)
        if not self._data:
            self._size = 0

    def _event(self) -> Iterator[dict[str, Any]]:
        """What stands on several lines."""
        data, self._data, self._size = self._data, [], 0
        if len(data) > 1 and (whole := object_of(b"\n".join(data))) is not None:
            data = []
            yield self._found(whole)
        for number, line in enumerate(data):
            found = object_of(line) if number else None
            if found is not None:
                yield self._found(found)
            elif line.lstrip().startswith(b"{"):
                yield self._found({"error": dict(_BROKEN)})
        self._name = b""

    def _found(self, found: dict[str, Any]) -> dict[str, Any]:
        self.any = True
        if self._size > _SMALL:
            self._large, self._size = self._large + self._size, 0
        return {"error": found} if self._name == b"error" and not found.get("error") else found


def object_of(data: bytes) -> dict[str, Any] | None:
    """The JSON object of a text; None for what is none."""
    try:
        found = load(data.decode("utf-8", "replace"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def heard_in(chunk: Mapping[str, Any]) -> tuple[str, str]:
    """The text, and the thoughts, that a chunk of a stream adds."""
    choice = first(chunk.get("choices"))
    if not choice:
        return "", ""
    text, thoughts, _, _ = said_in(choice)
    delta = body_of(choice)
    named = next((delta[n] for n in ("reasoning_content", "reasoning") if isinstance(delta.get(n), str)), "")
    return text, named or thoughts


class Chunks:
    """One completion that grows by the chunks of its stream."""

    def __init__(self) -> None:
        self.ended = False
        """The stream said that it is over."""
        self._broken = False
        self._whole: dict[str, Any] | None = None
        self._message = _Message()

    def add(self, chunk: Mapping[str, Any]) -> tuple[str, str]:
        """The text and the thoughts that came with a chunk.

        Raises Unreadable for a reply that is over the limit.
        """
        if chunk.get("object") == "error" and not chunk.get("choices"):
            chunk = {"error": dict(chunk)}
        whole = self._whole = {} if self._whole is None else self._whole
        for name, value in chunk.items():
            if value is not None and name != "choices" and (name in whole or len(whole) < _NAMES):
                whole[name] = value
        # An error behind the reply's end is none.
        self._broken = self._broken or (bool(chunk.get("error")) and not self._message.finish)
        if "choices" in chunk:
            whole.setdefault("choices", [])
            self._message.add(first(chunk["choices"]))
        return heard_in(chunk)

    def completion(self, *, stopped: bool = False) -> dict[str, Any] | None:
        """What has come; None for nothing. `stopped`: who listened had heard enough."""
        message = self._message
        if self._whole is None or not message.any:
            return self._whole
        more: dict[str, Any] = {}
        if stopped:
            message.finish = "stopped"
        elif self._broken or (not message.finish and not self.ended):
            message.finish = "error"
            more["error"] = {"message": "the stream ended before the reply did", "code": 502}
        return self._whole | {"choices": [more | message.choice()]}


@dataclass
class _Message:
    """A message that grows by its deltas."""

    any: bool = False
    content: list[Any] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    blocks: dict[str, _Blocks] = field(default_factory=dict)
    tools: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    """By their number in the stream: the name, and the pieces of the arguments."""
    finish: Any = None
    error: Any = None
    size: int = 0
    """Characters, about."""

    def add(self, choice: Mapping[str, Any]) -> None:
        if not choice:
            return
        self.any = True
        self.finish = choice.get("finish_reason") or self.finish
        self.error = choice.get("error") or self.error
        delta = body_of(choice)
        content = delta.get("content")
        for piece in content if isinstance(content, list) else [content]:
            if piece is not None and piece != "":
                self._grow(piece)
                self.content.append(piece)
        for name in ("reasoning_content", "reasoning", "refusal"):
            if isinstance(said := delta.get(name), str) and said:
                self._grow(said)
                self.texts.setdefault(name, []).append(said)
        for name in ("thinking_blocks", "reasoning_details"):
            for piece in pieces if isinstance(pieces := delta.get(name), list) else ():
                self._grow(self.blocks.setdefault(name, _Blocks()).add(piece))
        calls = delta.get("tool_calls")
        for number, piece in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(piece, dict):
                self._call(number, piece)

    def _call(self, number: int, piece: Mapping[str, Any]) -> None:
        function = of(piece, "function")
        names, arguments = self.tools.setdefault(repr(piece.get("index", number)), ([], []))
        if not names and isinstance(function.get("name"), str) and function["name"]:
            names.append(function["name"])
        self._grow(piece)
        if (more := function.get("arguments")) is not None:
            arguments.append(more if isinstance(more, str) else json.dumps(more))
            self._grow(arguments[-1])

    def _grow(self, piece: Any) -> None:
        self.size += len(piece) if isinstance(piece, str) else _PIECE
        if self.size > REPLY_BYTES:
            raise too_much()

    def choice(self) -> dict[str, Any]:
        plain = all(isinstance(piece, str) for piece in self.content)
        content = "".join(self.content) if plain else self.content
        tools = [
            {"function": {"name": "".join(names), "arguments": "".join(pieces)}}
            for names, pieces in self.tools.values()
        ]
        texts = {name: "".join(pieces) for name, pieces in self.texts.items()}
        blocks = {name: grown.whole() for name, grown in self.blocks.items()}
        return {
            "finish_reason": self.finish,
            "message": {"content": content, **texts, **blocks, "tool_calls": tools},
            **({"error": self.error} if self.error else {}),
        }


_GROWING = ("thinking", "text", "summary", "data", "signature")
"""Texts of a block of reasoning that come in pieces."""
_KINDS = ("type", "index", "id", "format")


@dataclass
class _Blocks:
    """Blocks of reasoning that come in pieces: those of one number, or of one kind in a row, are one."""

    done: list[dict[str, Any]] = field(default_factory=list)
    block: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, piece: Any) -> str:
        """The text that is kept of the piece."""
        if not isinstance(piece, Mapping) or len(self.done) > _BLOCKS:
            return ""
        block = self.block
        same = (block or self.parts) and all(
            piece.get(name) in (None, block.get(name)) or name not in block for name in _KINDS
        )
        again = self.parts.get("signature") and piece.get("type") == "thinking" and piece.get("thinking")
        if not same or again:
            self._end()
        kept = ""
        for name, value in piece.items():
            if name in _GROWING and isinstance(value, str):
                self.parts.setdefault(name, []).append(value)
                kept += value
            elif value is not None and (name in self.block or len(self.block) < _NAMES):
                self.block[name] = value
        return kept

    def _end(self) -> None:
        if self.block or self.parts:
            self.done.append(self.block | {name: "".join(texts) for name, texts in self.parts.items()})
        self.block, self.parts = {}, {}

    def whole(self) -> list[dict[str, Any]]:
        self._end()
        return self.done

"""The seal of a trace: one digest over all that a notebook says, and over the files that belong to it.

It is taken of the content, not of the bytes of the file: JupyterLab and VS Code save a notebook with another
order of keys, another indentation, texts by lines or whole, outputs put together, and metadata of their own.
What counts as content:

- `metadata.rlm` of the notebook, but for the seal itself and what only finds the journal again;
- of each cell, in their order: id, kind, text, `execution_count`, `metadata.rlm`, the times in
  `metadata.execution`, the tags that mean something here, attachments, and outputs;
- the bytes of the file of prompts, and the seals of the traces of child RLMs.

Inputs are covered by their sha256 in the metadata. Not content: the notebook's kernelspec and language, other
tags and other programs' metadata, and what a terminal would have written over in an output.

Whoever can write a trace can seal it anew. A seal proves something where it was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rlm_kernel.pathtext import spelled
from rlm_kernel.trace.nodes import IS_JSON
from rlm_kernel.trace.notebook_json import serialised
from rlm_kernel.trace.packed import MANY
from rlm_kernel.trace.plain import MAX_TRACE, read_plain
from rlm_kernel.trace.prompts import open_beside

MAX_CHILDREN, MAX_CHILD_BYTES = 10_000, 4 << 30
"""Traces of children whose seals are read, and bytes of them: they may be a stranger's."""
NOTED = 12
"""Characters of the digest of each part that are noted beside the seal, to name what was changed. The seal
itself is made of whole digests.
"""
_OURS = ("seal", "sealed", "journal", "journaled")
_TIMES = ("iopub.execute_input", "shell.execute_reply")
_TAGS = ("parameters", "raises-exception", "injected-parameters")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Sealed:
    """The seal, and `parts`: what it is made of, each by its name with its digest (hex)."""

    seal: str
    parts: Mapping[str, str]

    def noted(self) -> list[str]:
        """The parts as they are noted in the notebook: `turn-01-a outputs 0f3a…`."""
        return [f"{name} {digest[:NOTED]}" for name, digest in self.parts.items()]

    def as_metadata(self) -> dict[str, Any]:
        """The fields of `metadata.rlm`."""
        return {"seal": self.seal, "sealed": self.noted()}


def sealed_node(node: Any, path: Path) -> Sealed:
    """That of a notebook in memory (nbformat 4), which stands at `path`. Blocking."""
    cells = (serialised(cell, check=False) for cell in node["cells"])
    return sealed(cells, node["metadata"].get("rlm", {}), path)


def sealed(cells: Iterable[str], ours: Mapping[str, Any], path: Path) -> Sealed:
    """That of a notebook of serialised cells, with this `metadata.rlm`, which stands at `path`. Blocking."""
    parts = {
        f"notebook {name}": _digest(_written(_loads(_written(value))))
        for name, value in sorted(ours.items())
        if name not in _OURS
    }
    linked: dict[str, None] = {}
    for number, text in enumerate(cells):
        for name, digest in _parts_of(text.encode("utf-8", "replace"), linked):
            # A number, where a notebook of a stranger's has an id twice.
            key = name if name not in parts else f"{name} ({number})"
            parts[key] = digest
    if name := str(ours.get("prompts") or ""):
        parts["prompts"] = _of_prompts(path, name)
    for child, seal in _of_children(path, linked):
        parts[f"child {child}"] = seal
    made = hashlib.sha256()
    for name, digest in parts.items():
        made.update(f"{json.dumps(name)} {digest}\n".encode())
    return Sealed(made.hexdigest(), parts)


def seal_on(path: Path) -> str:
    """The seal that a notebook on the disk has; "" for none, and as long as the digest of a file is still to
    come, with which it will be another. Blocking. Raises OSError.
    """
    found = _head_of(read_plain(path, follow=True))
    return "" if found is None or any(file.digest == "pending" for file in found.files) else str(found.seal)


# The parts of a cell


def _parts_of(cell: bytes, linked: dict[str, None]) -> Iterator[tuple[str, str]]:
    """Names and digests of a cell's parts; `linked` gets the traces that its calls name."""
    found, calls = _decoded(cell)
    metadata = found.get("metadata", {})
    ours = metadata.get("rlm")
    name = str(found.get("id", ""))
    yield f"{name} text", _digest(_written([found.get("cell_type"), _joined(found.get("source", ""))]))
    if found.get("cell_type") == "code":
        yield f"{name} outputs", _digest(_written(list(_outputs(found.get("outputs", ())))))
    times, tags = metadata.get("execution"), metadata.get("tags", ())
    record = hashlib.sha256(
        _written(
            {
                "rlm": ours,
                "count": found.get("execution_count"),
                "times": {name: times.get(name) for name in _TIMES} if isinstance(times, Mapping) else {},
                "tags": [tag for tag in _TAGS if tag in tags],
                "attachments": _attachments(found.get("attachments")),
            }
        )
    )
    for place in range(0, len(calls), MANY):
        decoded = _loads(b"[" + b",".join(calls[place : place + MANY]) + b"]")
        record.update(_written(decoded)[1:-1] + b"\n")
        for call in decoded:
            if isinstance(call, Mapping) and isinstance(trace := call.get("trace"), str) and trace:
                linked[trace] = None
    yield f"{name} record", record.hexdigest()


def _decoded(cell: bytes) -> tuple[dict[str, Any], Sequence[bytes]]:
    """A cell without its calls, and these as they are written: a million as objects would take gigabytes."""
    import msgspec

    raw = dict[str, msgspec.Raw]
    calls: list[msgspec.Raw] = []
    try:
        top = msgspec.json.decode(cell, type=raw)
        metadata = msgspec.json.decode(top.pop("metadata", msgspec.Raw(b"{}")), type=raw)
        ours = metadata.pop("rlm", None)
        found = {name: _loads(value) for name, value in top.items()}
        found["metadata"] = {name: _loads(value) for name, value in metadata.items()}
        if ours is not None:
            fields = msgspec.json.decode(ours, type=raw)
            if "calls" in fields:
                calls = msgspec.json.decode(fields.pop("calls"), type=list[msgspec.Raw])
            found["metadata"]["rlm"] = {name: _loads(value) for name, value in fields.items()}
    except msgspec.MsgspecError:  # NaN, say, which Python's json writes and reads
        found = _loads(cell)
        listed = (found.get("metadata", {}).get("rlm") or {}).pop("calls", [])
        return found, [json.dumps(call).encode() for call in listed]
    return found, [bytes(memoryview(call)) for call in calls]


def _outputs(outputs: Iterable[Any]) -> Iterator[Any]:
    """Outputs as every program shows them: streams that follow each other are one."""
    name = ""
    texts: list[str] = []
    for output in outputs:
        if output.get("output_type") == "stream":
            if texts and output.get("name", "stdout") != name:
                yield {"stream": name, "text": as_shown("".join(texts))}
                texts = []
            name = output.get("name", "stdout")
            texts.append(_joined(output.get("text", "")))
            continue
        if texts:
            yield {"stream": name, "text": as_shown("".join(texts))}
            texts = []
        yield _output(output)
    if texts:
        yield {"stream": name, "text": as_shown("".join(texts))}


def _output(output: Mapping[str, Any]) -> dict[str, Any]:
    if output.get("output_type") == "error":
        return {name: output.get(name) for name in ("ename", "evalue", "traceback")}
    data = output.get("data", {})
    kind, metadata = output.get("output_type"), output.get("metadata", {})
    return {"shown": kind, "data": {mime: _datum(mime, value) for mime, value in data.items()}} | (
        {"metadata": metadata} if metadata else {}
    )


def _datum(mime: str, value: Any) -> Any:
    if IS_JSON.match(mime):
        return value
    text = _joined(value)
    if not isinstance(text, str) or mime.startswith("text/") or mime.endswith(("xml", "javascript")):
        return text
    return "".join(text.split())  # base64, which some write by lines


def _attachments(found: Any) -> Any:
    if not isinstance(found, Mapping):
        return {}
    return {name: {mime: _datum(mime, value) for mime, value in one.items()} for name, one in found.items()}


_ERASED = re.compile(r"[\b\r]")


def as_shown(text: str) -> str:
    """The text of a stream as a terminal shows it: JupyterLab saves it so."""
    if not _ERASED.search(text):
        return text
    return "\n".join(map(_line_as_shown, text.split("\n")))


def _line_as_shown(line: str) -> str:
    if not _ERASED.search(line):
        return line
    shown: list[str] = []
    for part in line.split("\r"):
        put: list[str] = []
        for character in part:
            if character != "\b":
                put.append(character)
            elif put:
                put.pop()
        shown[: len(put)] = put
    return "".join(shown)


def _joined(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value


# What lies beside the notebook


def _of_prompts(path: Path, name: str) -> str:
    try:
        file = open_beside(path, name)
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError):
        return "unreadable"
    made = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            made.update(block)
    return made.hexdigest()


def _of_children(path: Path, linked: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The seals of the traces of children, by the paths that calls name."""
    room = MAX_CHILD_BYTES
    for number, name in enumerate(linked):
        if number >= MAX_CHILDREN or room <= 0:
            return
        try:
            raw = read_plain(spelled(path.parent / name), follow=False, most=min(room, MAX_TRACE))
        except (OSError, ValueError):
            yield name, "missing"
            continue
        room -= len(raw)
        yield name, _seal_in(raw) or "without a seal"


def _seal_in(raw: bytes) -> str:
    found = _head_of(raw)
    return "" if found is None else str(found.seal)


def _head_of(raw: bytes) -> Any:
    """`metadata.rlm` of a notebook: its `seal` and `files`; None where there is none."""
    import msgspec

    try:
        return _head().decode(raw).metadata.rlm
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@cache
def _head() -> Any:
    import msgspec

    file = msgspec.defstruct("File", [("digest", str | None, None)])
    ours = msgspec.defstruct("Ours", [("seal", str, ""), ("files", list[file], [])])  # type: ignore[valid-type]
    about = msgspec.defstruct("About", [("rlm", ours, msgspec.field(default_factory=ours))])
    return msgspec.json.Decoder(msgspec.defstruct("Notebook", [("metadata", about)]))


# Canonical JSON


def _number(text: str) -> float | int:
    """A number as JavaScript would write it again: 1.0 is 1."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


@cache
def _decoder() -> Any:
    import msgspec

    return msgspec.json.Decoder(float_hook=_number)


def _loads(raw: Any) -> Any:
    import msgspec

    try:
        return _decoder().decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        text = bytes(memoryview(raw)).decode("utf-8", "replace")
        return json.loads(text, parse_float=_number)


def _written(value: Any) -> bytes:
    """Canonical JSON: keys in order, no spaces."""
    import msgspec

    try:
        return msgspec.json.encode(value, order="sorted")
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError, RecursionError):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_noted_elsewhere(seal: str, given: str) -> bool:
    """Whether a seal is the one that was noted: whole, or its beginning of at least 12 characters."""
    wanted = given.strip().lower().removeprefix("sha256:")
    return len(wanted) >= NOTED and bool(seal) and seal.startswith(wanted)

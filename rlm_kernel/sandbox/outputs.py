"""Outputs of a cell, collected from iopub messages as nbformat dicts.

Capped again here, whatever the kernel claims to have capped: this is the host's memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT_CAP = 2_000_000
"""Characters of text outputs of one cell."""
PICTURE_CAP = 20_000_000
"""Characters (base64) of pictures and other data of one cell."""
COUNT_CAP = 500
"""Outputs of one cell, merged streams counted once."""
_METADATA_CAP = 10_000
_TEXT_KINDS = ("text/plain", "text/html", "text/markdown", "text/latex", "application/json")
_JSON_KIND = re.compile(r"^application/(.*\+)?json$")  # as in nbformat's schema; all other kinds hold text
_MAX_DEPTH = 100
_MAX_ID = 200
"""Characters of a display id."""


@dataclass
class _Shown:
    """The outputs of one display id, and what they take of the caps."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    text: int = 0
    data: int = 0


class OutputCollector:
    """Collects one cell's outputs. `outputs` is valid nbformat after every message; `truncated` says that caps were met."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self.truncated = False
        self.messages = 0
        self._text = 0
        self._data = 0
        self._displays: dict[str, _Shown] = {}
        self._clear_next = False

    @property
    def size(self) -> int:
        """Characters of what is kept, about."""
        return self._text + self._data

    def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take one iopub message. Shapes that Jupyter does not know are ignored."""
        self.messages += 1
        if kind == "rlm_truncated":  # by the kernel's own caps (`rlm_runtime.display`)
            self.truncated = True
        if kind == "clear_output":
            if content.get("wait"):
                self._clear_next = True
            else:
                self._clear()
            return
        if kind not in ("stream", "display_data", "execute_result", "error", "update_display_data"):
            return
        if self._clear_next:
            self._clear()
        if kind == "stream":
            self._stream(_text(content.get("name")), _text(content.get("text")))
        elif kind == "error":
            self._error(content)
        elif kind == "update_display_data":
            self._update(content)
        else:
            self._display(kind, content)

    def say(self, text: str) -> None:
        """Add a line of our own to stderr, past the caps."""
        self._append_stream("stderr", text)

    def leave_out(self, limit: int) -> None:
        """A message was over so many bytes, and not even read."""
        if not self.truncated:
            self.truncated = True
            self.say(f"\n… an output over {limit:,} bytes left out …\n")

    def _clear(self) -> None:
        self.outputs.clear()
        self._displays.clear()
        self._clear_next = self.truncated = False
        self._text = self._data = 0  # the caps bound what is kept: a progress bar may be cleared for ever

    def _full(self) -> bool:
        if len(self.outputs) < COUNT_CAP:
            return False
        if not self.truncated:
            self.truncated = True
            self.say(f"\n… more than {COUNT_CAP} outputs: the rest is left out\n")
        return True

    def _take(self, text: str) -> str:
        room = TEXT_CAP - self._text
        self._text += min(len(text), max(room, 0))
        if len(text) <= room:
            return text
        if self.truncated and room <= 0:
            return ""
        self.truncated = True
        return f"{text[: max(room, 0)]}\n… output over {TEXT_CAP:,} characters left out …\n"

    def _stream(self, name: str, text: str) -> None:
        name = name if name in ("stdout", "stderr") else "stdout"
        same = bool(self.outputs) and self.outputs[-1].get("name") == name
        taken = self._take(text)
        if taken and (same or not self._full()):
            self._append_stream(name, taken)

    def _append_stream(self, name: str, text: str) -> None:
        if self.outputs and self.outputs[-1]["output_type"] == "stream" and self.outputs[-1]["name"] == name:
            # Taken out, so that Python adds to the text where it lies: copied each time, a million small pieces would take minutes.
            whole = self.outputs[-1].pop("text")
            whole += text
            self.outputs[-1]["text"] = whole
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": text})

    def _error(self, content: Mapping[str, Any]) -> None:
        if self._full():
            return
        traceback = content.get("traceback")
        self.outputs.append(
            {
                "output_type": "error",
                "ename": _text(content.get("ename"))[:500],
                "evalue": self._take(_text(content.get("evalue"))),
                "traceback": [self._take(_text(line)) for line in traceback[:200]] if isinstance(traceback, list) else [],
            }
        )

    def _bundle(self, content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = content.get("data"), content.get("metadata")
        taken: dict[str, Any] = {}
        over = False
        for kind, value in list(data.items())[:20] if isinstance(data, dict) else []:
            kind = _text(kind)[:200]
            if not isinstance(value, str) and not _JSON_KIND.match(kind):
                continue
            try:
                plain, size = _json_value(value)
            except ValueError:
                continue
            if kind in _TEXT_KINDS and isinstance(plain, str):
                taken[kind] = self._take(plain)
            elif self._data + size > PICTURE_CAP:
                over = self.truncated = True
            else:
                self._data += size
                taken[kind] = plain
        if over and not taken:
            taken["text/plain"] = f"… a display over {PICTURE_CAP:,} characters left out …"
        try:
            known, size = _json_value(metadata)
        except ValueError:
            return taken, {}
        return taken, known if isinstance(known, dict) and size < _METADATA_CAP else {}

    def _display(self, kind: str, content: Mapping[str, Any]) -> None:
        if self._full():
            return
        text, size = self._text, self._data
        data, metadata = self._bundle(content)
        if not data:
            return
        output: dict[str, Any] = {"output_type": kind, "data": data, "metadata": metadata}
        if kind == "execute_result":
            output["execution_count"] = execution_count(content)
        self.outputs.append(output)
        display_id = _display_id(content)
        if display_id:
            shown = self._displays.setdefault(display_id, _Shown())
            shown.outputs.append(output)
            shown.text += self._text - text
            shown.data += self._data - size

    def _update(self, content: Mapping[str, Any]) -> None:
        display_id = _display_id(content)
        if display_id is None or display_id not in self._displays:
            return
        shown = self._displays[display_id]
        text, size = self._text - shown.text, self._data - shown.data
        self._text, self._data = text, size  # the old display goes
        data, metadata = self._bundle(content)
        shown.text, shown.data = self._text - text, self._data - size
        for output in shown.outputs:
            output["data"], output["metadata"] = data, metadata


def execution_count(content: Mapping[str, Any]) -> int | None:
    """The count in a message of the kernel; None for what no notebook may hold."""
    count = content.get("execution_count")
    return count if type(count) is int and 0 <= count < 1 << 53 else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode()  # lone surrogates cannot be written to a file


def _json_value(value: Any) -> tuple[Any, int]:
    """A value as any JSON reader takes it, without lone surrogates, and its size in characters.

    Raises ValueError if it holds NaN or infinity, or is nested deeper than _MAX_DEPTH.
    """
    if isinstance(value, str):
        return _text(value), len(value)
    plain = _plain(value, _MAX_DEPTH)
    return plain, len(json.dumps(plain, ensure_ascii=False))


def _plain(value: Any, depth: int) -> Any:
    if depth == 0 or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_text(key): _plain(item, depth - 1) for key, item in value.items()}
    return _text(value) if isinstance(value, str) else value


def _display_id(content: Mapping[str, Any]) -> str | None:
    transient = content.get("transient")
    found = transient.get("display_id") if isinstance(transient, dict) else None
    return found if isinstance(found, str) and len(found) <= _MAX_ID else None

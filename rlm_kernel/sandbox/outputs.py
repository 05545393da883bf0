"""Outputs of a cell, collected from iopub messages as nbformat dicts.

Capped again here, whatever the kernel claims to have capped: this is the host's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXT_CAP = 2_000_000
"""Characters of text outputs of one cell."""
PICTURE_CAP = 20_000_000
"""Characters (base64) of pictures and other data of one cell."""
COUNT_CAP = 500
"""Outputs of one cell, merged streams counted once."""
_TEXT_KINDS = ("text/plain", "text/html", "text/markdown", "text/latex", "application/json")


class OutputCollector:
    """Collects one cell's outputs. `outputs` is valid nbformat after every message; `truncated` says that caps were met."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self.truncated = False
        self.messages = 0
        self._text = 0
        self._data = 0
        self._displays: dict[str, list[dict[str, Any]]] = {}
        self._clear_next = False

    def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take one iopub message. Shapes that Jupyter does not know are ignored."""
        self.messages += 1
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

    def _clear(self) -> None:
        self.outputs.clear()
        self._displays.clear()
        self._clear_next = False

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
            self.outputs[-1]["text"] += text
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": text})

    def _error(self, content: Mapping[str, Any]) -> None:
        traceback = content.get("traceback")
        lines = [self._take(_text(line)) for line in traceback[:200]] if isinstance(traceback, list) else []
        if not self._full():
            self.outputs.append(
                {
                    "output_type": "error",
                    "ename": _text(content.get("ename"))[:500],
                    "evalue": self._take(_text(content.get("evalue"))),
                    "traceback": lines,
                }
            )

    def _bundle(self, content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = content.get("data"), content.get("metadata")
        taken: dict[str, Any] = {}
        for kind, value in list(data.items())[:20] if isinstance(data, dict) else []:
            if kind in _TEXT_KINDS and isinstance(value, str):
                taken[kind] = self._take(value)
                continue
            size = len(value) if isinstance(value, str) else len(repr(value))
            if self._data + size > PICTURE_CAP:
                self.truncated = True
                continue
            self._data += size
            taken[str(kind)[:200]] = value
        if isinstance(data, dict) and data and not taken:
            taken["text/plain"] = f"… a display over {PICTURE_CAP:,} characters left out …"
        known = isinstance(metadata, dict) and len(repr(metadata)) < 10_000
        return taken, dict(metadata) if known and isinstance(metadata, dict) else {}

    def _display(self, kind: str, content: Mapping[str, Any]) -> None:
        if self._full():
            return
        data, metadata = self._bundle(content)
        if not data:
            return
        output: dict[str, Any] = {"output_type": kind, "data": data, "metadata": metadata}
        if kind == "execute_result":
            count = content.get("execution_count")
            output["execution_count"] = count if isinstance(count, int) else None
        self.outputs.append(output)
        display_id = _display_id(content)
        if display_id:
            self._displays.setdefault(display_id, []).append(output)

    def _update(self, content: Mapping[str, Any]) -> None:
        display_id = _display_id(content)
        if display_id is None or display_id not in self._displays:
            return
        data, metadata = self._bundle(content)
        for output in self._displays[display_id]:
            output["data"], output["metadata"] = data, metadata


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode()  # lone surrogates cannot be written to a file


def _display_id(content: Mapping[str, Any]) -> str | None:
    transient = content.get("transient")
    found = transient.get("display_id") if isinstance(transient, dict) else None
    return found if isinstance(found, str) else None

"""Outputs of a cell, collected from iopub messages as nbformat dicts.

Capped again here, whatever the kernel claims to have capped: this is the host's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from rlm_kernel.sandbox.kernel_says import Clear, Display, Raised, Stream

TEXT_CAP = 2_000_000
"""Characters of text outputs of one cell."""
PICTURE_CAP = 20_000_000
"""Characters (base64) of pictures and other data of one cell."""
COUNT_CAP = 500
"""Outputs of one cell, merged streams counted once."""
_TEXT_KINDS = ("text/plain", "text/html", "text/markdown", "text/latex", "application/json")


@dataclass
class _Shown:
    """The outputs of one display id, and what they take of the caps."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    text: int = 0
    data: int = 0


class _SoFar(Sequence[dict[str, Any]]):
    def __init__(self, collector: OutputCollector) -> None:
        self._collector = collector

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._collector.outputs[place]

    def __len__(self) -> int:
        return len(self._collector.outputs)


class OutputCollector:
    """Collects one cell's outputs, valid nbformat after every message; `truncated` says that caps were
    met.
    """

    def __init__(self) -> None:
        self._outputs: list[dict[str, Any]] = []
        self._printed: list[str] = []
        """What the last output, a stream, has besides: texts that are joined when they are looked at, and not
        at each message.
        """
        self.truncated = False
        self.messages = 0
        self._text = 0
        self._data = 0
        self._displays: dict[str, _Shown] = {}
        self._clear_next = False

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs so far."""
        if self._printed:
            self._outputs[-1]["text"] += "".join(self._printed)
            self._printed.clear()
        return self._outputs

    @property
    def so_far(self) -> Sequence[dict[str, Any]]:
        """The same for who may look later, or never."""
        return _SoFar(self)

    @property
    def size(self) -> int:
        """Characters of what is kept, about."""
        return self._text + self._data

    def add(self, kind: str, content: Mapping[Any, Any]) -> None:
        """Take one iopub message. What is unknown to Jupyter is ignored."""
        self.messages += 1
        if kind == "rlm_truncated":  # by the kernel's own caps (`rlm_runtime.display`)
            self.truncated = True
        if kind == "clear_output":
            if Clear.part(content).wait:
                self._clear_next = True
            else:
                self._clear()
            return
        if kind not in ("stream", "display_data", "execute_result", "error", "update_display_data"):
            return
        if self._clear_next:
            self._clear()
        if kind == "stream":
            self._stream(Stream.part(content))
        elif kind == "error":
            self._error(Raised.part(content))
        elif kind == "update_display_data":
            self._update(Display.part(content))
        else:
            self._display(kind, Display.part(content))

    def say(self, text: str) -> None:
        """Add a line of our own to stderr, past the caps."""
        self._append_stream("stderr", text)

    def leave_out(self, limit: int) -> None:
        """A message was over so many bytes, and not even read."""
        if not self.truncated:
            self.truncated = True
            self.say(f"\n… an output over {limit:,} bytes left out …\n")

    def _clear(self) -> None:
        self._outputs.clear()
        self._printed.clear()
        self._displays.clear()
        self._clear_next = self.truncated = False
        self._text = self._data = 0  # the caps bound what is kept: a progress bar may be cleared for ever

    def _full(self) -> bool:
        if len(self._outputs) < COUNT_CAP:
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

    def _stream(self, told: Stream) -> None:
        same = bool(self._outputs) and self._outputs[-1].get("name") == told.name
        taken = self._take(told.text)
        if taken and (same or not self._full()):
            self._append_stream(told.name, taken)

    def _append_stream(self, name: str, text: str) -> None:
        if (
            self._outputs
            and self._outputs[-1]["output_type"] == "stream"
            and self._outputs[-1]["name"] == name
        ):
            self._printed.append(text)
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": text})

    def _error(self, told: Raised) -> None:
        if self._full():
            return
        error = {"output_type": "error", "ename": told.ename, "evalue": self._take(told.evalue)}
        self.outputs.append({**error, "traceback": [self._take(line) for line in told.traceback]})

    def _bundle(self, told: Display) -> dict[str, Any]:
        taken: dict[str, Any] = {}
        over = False
        for part in told.data:
            if part.kind in _TEXT_KINDS and isinstance(part.value, str):
                taken[part.kind] = self._take(part.value)
            elif self._data + part.size > PICTURE_CAP:
                over = self.truncated = True
            else:
                self._data += part.size
                taken[part.kind] = part.value
        if over and not taken:
            taken["text/plain"] = f"… a display over {PICTURE_CAP:,} characters left out …"
        return taken

    def _display(self, kind: str, told: Display) -> None:
        if self._full():
            return
        text, size = self._text, self._data
        data = self._bundle(told)
        if not data:
            return
        output: dict[str, Any] = {"output_type": kind, "data": data, "metadata": told.metadata}
        if kind == "execute_result":
            output["execution_count"] = told.execution_count
        self.outputs.append(output)
        if told.display_id:
            shown = self._displays.setdefault(told.display_id, _Shown())
            shown.outputs.append(output)
            shown.text += self._text - text
            shown.data += self._data - size

    def _update(self, told: Display) -> None:
        if told.display_id is None or told.display_id not in self._displays:
            return
        shown = self._displays[told.display_id]
        text, size = self._text - shown.text, self._data - shown.data
        self._text, self._data = text, size  # the old display goes
        data = self._bundle(told)
        shown.text, shown.data = self._text - text, self._data - size
        for output in shown.outputs:
            output["data"], output["metadata"] = data, told.metadata

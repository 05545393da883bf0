"""Outputs of a cell that the trace writer made, not the kernel: they show what is in the cell's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARK = "rlm"
"""Of an output's metadata; no output of a kernel keeps it (`sanitize.output`)."""


def made(part: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """An output of ours, by MIME type; `part` says what it shows."""
    return {"output_type": "display_data", "data": dict(data), "metadata": {MARK: {"part": part}}}


def is_made(output: Mapping[str, Any]) -> bool:
    """Whether an output is ours: nobody compares it, and the root model is not told of it."""
    metadata = output.get("metadata")
    found = metadata.get(MARK) if isinstance(metadata, Mapping) else None
    return isinstance(found, Mapping) and isinstance(found.get("part"), str)

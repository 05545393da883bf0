"""What may be written into a trace: values without secrets, and metadata and outputs as JSON data.

Secrets are replaced in the values, not in their JSON: there a line break in a secret would hide it from the
search, and a secret such as "metadata" or 12345678 would be found in what is no text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from rlm_kernel import sanitize
from rlm_kernel.bounded import shallow
from rlm_kernel.secrets import redact, redact_cut
from rlm_kernel.trace.schema import NotebookMeta

_FIXED = frozenset({"kind", "status", "stop_reason", "created", "started", "at", "code_digest"})
"""Fields of the metadata that hold no free text."""
_CUT = frozenset({"preview", "thoughts"})
"""Fields whose text may end in the middle of a secret."""


class Writable:
    """Makes values writable; `secrets` are replaced wherever they turn up."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets

    def text(self, text: str) -> str:
        return redact(text, self._secrets)

    def output(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """A cell's output, in nbformat's shape, which fetches nothing when the trace is opened."""
        return sanitize.output(
            {
                name: value if name in ("output_type", "name") else self.value(value)
                for name, value in output.items()
            }
        )

    def meta(self, meta: BaseModel) -> dict[str, Any]:
        """Metadata as JSON data."""
        plain: dict[str, Any] = {"version": meta.version} if isinstance(meta, NotebookMeta) else {}
        for name, value in meta.model_dump(mode="json", exclude_defaults=True).items():
            own = getattr(meta, name)
            if isinstance(own, list) and own and isinstance(own[0], BaseModel):
                plain[name] = [self.meta(part) for part in own]
            elif name in _CUT:
                plain[name] = redact_cut(value, self._secrets)
            else:
                plain[name] = value if name in _FIXED else self.value(value)
        return plain

    def whole(self, blocks: Sequence[Mapping[str, Any]], most: int) -> list[Any]:
        """Blocks that are of use only as they are; none where a secret is in them, where JSON cannot hold
        them, or where they have more than so many characters of it.
        """
        plain = [dict(block) for block in blocks]
        try:
            long = len(json.dumps(plain, allow_nan=False)) > most
        except (TypeError, ValueError, RecursionError):
            return []
        return [] if long or not shallow(plain) or self.value(plain) != plain else plain

    def value(self, value: Any) -> Any:
        """JSON data as it may be written."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        # A limit of infinity is fine; JupyterLab's JSON is not.
        return None if isinstance(value, float) and not math.isfinite(value) else value

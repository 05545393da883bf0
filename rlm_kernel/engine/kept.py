"""Answers that were paid for, and that code may not have had, because its cell did not come to its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rlm_kernel.engine.values import CallRecord, answered


class Kept:
    """They are given to the same calls when later cells make them again: each answer once.

    A cell that came to its end has had its answers: who asks the same anew wants another one. There are no
    more of them than are recorded (`engine.records`).
    """

    def __init__(self) -> None:
        self._by_digest: dict[str, deque[CallRecord]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_digest.values()))

    def __contains__(self, digest: str) -> bool:
        return digest in self._by_digest

    def add(self, calls: Iterable[CallRecord]) -> None:
        """A cell was cut off that had made these calls."""
        for call in calls:
            if answered(call):
                self._by_digest.setdefault(call.prompt_digest, deque()).append(call)

    def take(self, digest: str, model: str | None = None) -> CallRecord | None:
        """An answer to what has this digest, which is then no more kept; None if there is none.

        `model`: who would be asked now. In a session it may be another than then; None for any.
        """
        found = self._by_digest.get(digest)
        if not found or (model is not None and found[0].model not in (None, model)):
            return None
        call = found.popleft()
        if not found:
            del self._by_digest[digest]
        return call

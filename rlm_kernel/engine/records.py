"""The records of a run's host calls: how many of them are kept, for the trace and in the host's memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from rlm_kernel.engine.protocols import TOLD_CALLS, CallKind, CallRecord, HostCall
from rlm_kernel.errors import RLMError

Kind = Literal["answers", "records"]
_CELLS_SHARE = 8
"""One cell may take this part of what is kept of calls that cost nothing: those of later cells are to be
kept, too.
"""
_BESIDE = 400
"""Characters of a record besides its texts, about."""
_PICTURE = 150
"""Of what it has of a picture besides its preview."""


@dataclass(frozen=True)
class Keep:
    """Characters that are kept of a run's host calls.

    `answers` of calls of models, child RLMs and tools, and `records` of all others, which code can repeat for
    nothing: refused and failed ones, the budget, files. `before`: of both, what a trace has already.
    `previews` of pictures count among them, and are left out once there are so many characters of them,
    `shown` of them before.
    """

    answers: int = 128 << 20
    records: int = 16 << 20
    before: tuple[int, int] = (0, 0)
    previews: int = 2 << 20
    shown: int = 0

    def beside(self, calls: Iterable[CallRecord]) -> Keep:
        """As it is for a trace that has these calls already."""
        sizes: dict[Kind, int] = {"answers": 0, "records": 0}
        shown = 0
        for call in calls:
            sizes[_kind(call)] += _size(call)
            shown += _shown(call)
        return replace(self, before=(sizes["answers"], sizes["records"]), shown=shown)

    def words(self, kind: Kind) -> str:
        """What is told when one is met."""
        if kind == "answers":
            return (
                f"The trace has {self.answers:,} characters of answers of models (trace.answers): those "
                "that come now are not recorded. A "
                "replay will lack them, and a resumed run will ask, and pay, for them again."
            )
        return (
            f"The trace keeps {self.records:,} characters of calls that failed or cost nothing "
            "(trace.records), an eighth of them of one "
            "cell: the others are left out."
        )


class Records:
    """What is kept of the calls of a run, cell by cell."""

    def __init__(self, keep: Keep, most_free: int) -> None:
        """`most_free`: records of one cell's calls that failed or cost nothing."""
        self.keep = keep
        self.kept: list[CallRecord] = []
        """Those of the cell in progress, or the last."""
        self.left_out = 0
        """Calls of that cell that are not in them."""
        self.full: Kind | None = None
        """Why the last one that was left out was."""
        self._most_free = most_free
        self._used: dict[Kind, int] = {"answers": keep.before[0], "records": keep.before[1]}
        self._free, self._free_size = 0, 0
        self._shown = keep.shown
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Another cell."""
        self.kept, self.left_out, self._free, self._free_size = [], 0, 0, 0
        self._seen.clear()

    def take(self, record: CallRecord) -> CallRecord | None:
        """Keep a record, if there is room for it: as it is kept, or None."""
        record = self._previewed(record) if record.images else record
        kind, size = _kind(record), _size(record)
        over = self._used[kind] + size > getattr(self.keep, kind)
        if kind == "records":
            over = (
                over
                or self._free >= self._most_free
                or self._free_size + size > self.keep.records // _CELLS_SHARE
            )
        if over:
            self.left_out, self.full = self.left_out + 1, kind
            return None
        self._used[kind] += size
        self._seen.update(image.digest for image in record.images)
        self._shown += _shown(record)
        if kind == "records":
            self._free, self._free_size = self._free + 1, self._free_size + size
        self.kept.append(record)
        return record

    def _previewed(self, record: CallRecord) -> CallRecord:
        """With previews of those pictures that this cell has none of yet, as far as there is room."""
        new: set[str] = set()
        images, size = [], self._shown
        for image in record.images:
            full = size + len(image.preview) > self.keep.previews
            images.append(
                replace(image, preview="")
                if full or image.digest in self._seen or image.digest in new
                else image
            )
            new.add(image.digest)
            size += len(images[-1].preview)
        return replace(record, images=tuple(images))


def _kind(record: CallRecord) -> Kind:
    return "answers" if record.kind in TOLD_CALLS and record.error is None else "records"


def _size(record: CallRecord) -> int:
    answer = record.answer if isinstance(record.answer, str) else json.dumps(record.answer)
    texts = (answer, record.preview, record.error or "", record.thoughts)
    return _BESIDE + sum(map(len, texts)) + _shown(record) + _PICTURE * len(record.images)


def _shown(record: CallRecord) -> int:
    """Characters of its previews."""
    return sum(len(image.preview) for image in record.images)


def at_once(
    call: HostCall, kind: CallKind, digest: str, preview: str, answer: Any, failure: RLMError | None
) -> CallRecord:
    """The record of a call that has taken no time."""
    error, error_type = (str(failure), failure.in_cell) if failure else (None, None)
    return CallRecord(
        call.id,
        kind,
        digest,
        preview,
        datetime.now(UTC),
        0.0,
        answer,
        error,
        error_type=error_type,
        occurrence=call.occurrence,
    )


async def no_wait() -> None:
    """There is room for whatever comes."""

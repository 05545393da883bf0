"""The cells of a trace that is taken up again: what was cut off has ended, what was taken back is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

STOPPED = "KeyboardInterrupt"
_ERROR = {
    "output_type": "error",
    "ename": STOPPED,
    "evalue": "",
    "traceback": [f"{STOPPED}: the cell was stopped here"],
}


def ended(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells, those that were cut off as cells that were interrupted: nobody will finish them."""
    return [_ended(cell) if _ours(cell).get("status") == "running" else dict(cell) for cell in cells]


def _ended(cell: Mapping[str, Any]) -> dict[str, Any]:
    ours = {**_ours(cell), "status": "error"}
    ours.setdefault("seconds", 0.0)
    return {
        **cell,
        "outputs": [*cell["outputs"], dict(_ERROR)],
        "metadata": {**cell["metadata"], "rlm": ours},
    }


def before_last_question(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """The cells up to the last question that was put, without it; None if there was none.

    The first question stands in the title: what comes before it is the set-up, and what a person ran before
    any turn.
    """
    kinds = [_ours(cell).get("kind") for cell in cells]
    if "question" in kinds:
        place = len(kinds) - 1 - kinds[::-1].index("question")
        return [dict(cell) for cell in cells[:place]]
    if "model" not in kinds:
        return None
    return [dict(cell) for cell in cells[: kinds.index("model")]]


def _ours(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = cell["metadata"].get("rlm", {})
    return found

"""Pictures that cells display, as the root model sees them: where the setting `prompt.images` is on.

The same outputs give the same pictures, so that a run that is taken up, or forked, has the conversation as it
was.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from rlm_contract import MAX_ALL_PICTURES, MAX_PICTURE, MAX_PICTURES

from rlm_kernel.engine import pictures
from rlm_kernel.engine.protocols import CellResult, Message, Picture

SHOWN_A_TURN = 4
SIDE = 2_000
"""Pixels of a side: Anthropic takes no larger ones where a conversation has more than 20."""
_KINDS = ("image/png", "image/jpeg")


def shown(results: Sequence[CellResult], before: Sequence[Message]) -> tuple[list[Picture], str]:
    """The pictures that these cells displayed, as far as there is room for them after those of the messages
    before; and what to say of them, "" where there are none.
    """
    seen = [picture for message in before for picture in message.get("images", ())]
    room = MAX_ALL_PICTURES - sum(len(picture.data) for picture in seen)
    kept: list[Picture] = []
    left = 0
    why = f"at most {SHOWN_A_TURN} a turn and {MAX_PICTURES} in all, of {SIDE:,} pixels a side"
    for encoded in _displayed(results):
        picture = _read(encoded)
        full = len(kept) >= SHOWN_A_TURN or len(seen) + len(kept) >= MAX_PICTURES
        if picture is None or full or len(picture.data) > room:
            left += 1
            continue
        kept.append(picture)
        room -= len(picture.data)
    told = [f"You see {_pictures(len(kept))} of the output above, in order."] if kept else []
    told += [f"{_pictures(left).capitalize()} not shown to you: {why}."] if left else []
    return kept, " ".join(told)


def _pictures(count: int) -> str:
    return f"{count} picture{'s' if count > 1 else ''}"


def _displayed(results: Sequence[CellResult]) -> Iterator[str]:
    """Each picture in base64."""
    for result in results:
        for output in result.outputs:
            data = output.get("data") or {}
            if found := next((data[kind] for kind in _KINDS if isinstance(data.get(kind), str)), None):
                yield found


def _read(encoded: str) -> Picture | None:
    """None for what is no picture that a model takes."""
    if len(encoded) > 2 * MAX_PICTURE:
        return None
    try:
        return pictures.read(base64.b64decode("".join(encoded.split()), validate=True), side=SIDE)
    except ValueError:
        return None

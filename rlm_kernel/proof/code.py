"""Whether the cells of a trace have the code that was run, and whether they are those that the model
wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rlm_kernel.engine.protocols import counted
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.proof.account import own_from
from rlm_kernel.proof.claims import MOST_FAULTS, REDACTED, Claim, by_another_version, claim, not_checked
from rlm_kernel.trace.calls import delivered
from rlm_kernel.trace.reader import TraceCell, TraceFile

_EDITED = re.compile(r"(turn-\d+-\w+) \((?:differs|failed|same): edited\b")
_OF_TURN = re.compile(r"turn-(\d+)(?:-([a-z]|\d+|final))?")


def check_code(trace: TraceFile) -> Claim:
    """The claim `code`."""
    cells = len(trace.code_cells)
    persons = sum(cell.kind == "person" for cell in trace.code_cells)
    more = f"; {counted(persons, 'of them')} a person's" if persons else ""
    taken_up = _taken_up(trace)
    others = list(_of_replies(trace))
    faults = [*_edited(trace), *_order(trace), *(told for name, told in others if name not in taken_up)]
    if by_hand := sorted({name for name, _ in others if name in taken_up}):
        more += f"; edited by hand before the run was resumed: {', '.join(by_hand[:MOST_FAULTS])}"
    unknown = [cell.id for cell in trace.code_cells if cell.kind == "code" and not _digest_of(cell)]
    if (other := by_another_version(trace)) and unknown and not faults:
        return not_checked("code", f"{other}; {unknown[0]} has no digest of its code")
    faults += [f"{name}: the digest of its code is gone" for name in unknown]
    return claim("code", faults, f"{counted(cells, 'cell')} with the code that was run{more}")


def _taken_up(trace: TraceFile) -> set[str]:
    """The cells that were run anew as a run was taken up, and of which the root model was told that they had
    been edited.
    """
    ends = [own_from(trace, origin) for origin in trace.meta.origins if origin.kind != "apply"]
    notes = (cell.meta.text or "" for cell in trace.cells if cell.kind == "note" and cell.meta)
    told = {found[1] for note in notes for found in _EDITED.finditer(note)}
    return told & {cell.id for cell in trace.cells[: max(ends, default=0)]}


def _edited(trace: TraceFile) -> Iterator[str]:
    for cell in trace.code_cells:
        if cell.edited:
            yield f"{cell.id}: its code is not what was run"


def _digest_of(cell: TraceCell) -> str | None:
    return cell.meta.code_digest if cell.meta is not None else None


def _order(trace: TraceFile) -> Iterator[str]:
    """Cells of turns are in their order, and no turn is missing."""
    places = [(place, cell) for cell in trace.cells if (place := _place(cell)) is not None]
    for (before, one), (after, other) in pairwise(places):
        if after < before:
            yield f"{other.id} stands behind {one.id}"
    turns = sorted({place[0] for place, _ in places})
    known = set(turns)
    yield from (
        f"turn-{turn:02d} is missing" for turn in range(1, max(turns, default=0)) if turn not in known
    )
    replies = {cell.turn for cell in trace.cells if cell.kind == "model"}
    yield from (
        f"turn-{turn:02d}: the reply of the root model is missing" for turn in turns if turn not in replies
    )


def _place(cell: TraceCell) -> tuple[int, int] | None:
    found = _OF_TURN.fullmatch(cell.id)
    if found is None:
        return None
    return int(found[1]), -1 if found[2] is None else _number(found[2])


def _number(letter: str) -> int:
    if letter == "final":
        return 1_000_000
    return int(letter) - 1 if letter.isdigit() else ord(letter) - ord("a")


def _of_replies(trace: TraceFile) -> Iterator[tuple[str, str]]:
    """The cells of each turn are the blocks of its reply; which are not, each with what is wrong."""
    last = max((cell.turn for cell in trace.cells if cell.kind == "model"), default=0)
    for cell in trace.cells:
        if cell.kind == "model" and cell.meta is not None and cell.meta.reply:
            if REDACTED in cell.meta.reply:
                continue
            ran = [one for one in trace.code_cells if one.turn == cell.turn and _place(one) is not None]
            yield from _of_reply(parse_reply(cell.meta.reply).cells, ran, last=cell.turn == last)


def _of_reply(blocks: Sequence[str], ran: Sequence[TraceCell], *, last: bool) -> Iterator[tuple[str, str]]:
    numbers = {}
    for cell in ran:
        place = _place(cell)
        if place is None or cell.id.endswith("-final"):
            continue
        numbers[place[1]] = cell
        # The last answer in code is the last block of its reply alone.
        expected = blocks[place[1]] if place[1] < len(blocks) else None
        if cell.source != expected and not (last and place[1] == 0 and cell.source in blocks[-1:]):
            yield cell.id, f"{cell.id}: the model's reply has other code"
    for number in range(max(numbers, default=-1) + 1):
        if number not in numbers:
            yield _missing(_id(ran[0].turn, number))
    final = max(numbers, default=None)
    if final is not None and not last and final + 1 < len(blocks):
        meta = numbers[final].meta
        if meta is not None and meta.status == "ok" and not delivered(meta):
            yield _missing(_id(ran[0].turn, final + 1))


def _missing(name: str) -> tuple[str, str]:
    return name, f"{name}: the model's reply has this cell, and the notebook does not"


def _id(turn: int, number: int) -> str:
    return f"turn-{turn:02d}-{chr(ord('a') + number) if number < 26 else number + 1}"

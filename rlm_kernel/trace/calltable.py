"""The sub-calls of a cell as an output below its code: a folded table that every program shows which shows
notebooks.

It is HTML of a few plain tags without scripts, pictures and style sheets, with the same as plain text beside
it. All texts in it are those of models and of code: they stand escaped, on one line, and cut. What begins and
ends mathematics stands in a tag of its own: MathJax finds no formula across tags, in whatever program. (As
code the texts would be safe from it, too, but VS Code shows code in grey, line by line.)
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from rlm_kernel.engine.protocols import TOLD_CALLS, counted, duration, tool_answer
from rlm_kernel.printable import printable
from rlm_kernel.trace import parts
from rlm_kernel.trace.calls import cell_meta
from rlm_kernel.trace.nodes import node_of
from rlm_kernel.trace.schema import CallMeta

ROWS = 20
"""Calls that the table has."""
BEGINNING, END = 160, 80
"""Characters of a text that are shown of its beginning and its end."""
_WORD = 20
"""Characters of a word that is left out rather than cut."""
_PREVIEW = 200
"""Characters of a preview: a longer prompt was cut there."""
_PLAIN = 100
_HEAD = ("", "prompt", "answer", "model", "tokens", "seconds", "cost", "")
_MATH = re.compile(r"[$\\]")
_LEFT = ' style="text-align: left"'


@dataclass(frozen=True)
class _Row:
    """What the table says of one call."""

    number: int
    prompt: str
    answer: str
    model: str
    tokens: str
    seconds: str
    cost: str
    notes: str
    trace: str


def made(
    cell_id: str,
    calls: Sequence[CallMeta],
    plain: Sequence[Mapping[str, Any]],
    prompts: Mapping[str, str],
    left_out: int = 0,
) -> dict[str, Any] | None:
    """The output for a cell's calls; None where no model was asked, and no tool called.

    `plain`: the same calls as they are written, without secrets. `prompts`: of calls by id, what was asked,
    without secrets and cut by `shortened`, where more of it is known than the preview.
    """
    asked = [number for number, call in enumerate(calls) if call.kind in TOLD_CALLS]
    if not asked:
        return None
    line = summary([calls[number] for number in asked])
    rows = [
        _row(place, calls[number], plain[number], prompts) for place, number in enumerate(asked[:ROWS], 1)
    ]
    more = _more(cell_id, len(asked) - len(rows), left_out)
    return parts.made("calls", {"text/html": _html(line, rows, more), "text/plain": _text(line, rows, more)})


def renew(cell: MutableMapping[str, Any]) -> None:
    """Have the table of a cell that was cut off, as a file has it, show all calls of its record.

    Raises ValueError for a record that does not hold.
    """
    ours = cell["metadata"].get("rlm", {})
    if ours.get("status") != "running" or not ours.get("calls"):
        return
    meta = cell_meta(ours)
    table = made(cell["id"], meta.calls, ours["calls"], {}, meta.left_out)
    kept = [output for output in cell["outputs"] if not parts.is_made(output)]
    cell["outputs"] = [node_of(table), *kept] if table else kept


def summary(calls: Sequence[CallMeta]) -> str:
    """`300 sub-calls · 2 failed · 13 s · 41,200 tokens · $0.014`."""
    began = min(call.started for call in calls)
    ended = max(_end(call) for call in calls)
    tokens = sum(call.prompt_tokens + call.completion_tokens for call in calls)
    tools = sum(call.kind == "tool" for call in calls)
    told = [counted(len(calls) - tools, "sub-call")] if len(calls) > tools else []
    told += [counted(tools, "tool call")] if tools else []
    for name, number in (
        ("failed", sum(call.error is not None for call in calls)),
        ("stored", sum(call.stored for call in calls)),
        ("taken over", sum(call.again for call in calls)),
    ):
        told += [f"{number:,} {name}"] if number else []
    told += [took((ended - began).total_seconds()), counted(tokens, "token")]
    unpriced = any(call.cost is None and call.error is None for call in calls)
    return " · ".join([*told, *cost(sum(call.cost or 0.0 for call in calls), unpriced=unpriced)])


def cost(known: float, *, unpriced: bool) -> list[str]:
    """Dollars as parts of a line: `$0.014`, `$0.014 + unknown`, or nothing where none is known."""
    if unpriced:
        return [f"{dollars(known)} + unknown"] if known else []
    return [dollars(known)]


def dollars(amount: float) -> str:
    """`$12.40`, `$0.014`, `$0.0002`, `$0`."""
    if amount == 0:
        return "$0"
    # `rlm verify` makes the tables of earlier traces anew: amounts stay as these have them.
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.3f}" if amount >= 0.01 else f"${amount:.2g}"


def took(seconds: float) -> str:
    """A time for people: `0.4 s`, `13 s`, `12 min`, `3 h 20 min`."""
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(seconds)


def shortened(text: str) -> str:
    """A text on one line: whole, or its beginning and its end."""
    if len(text) > 4 * (BEGINNING + END):
        text = f"{text[: 2 * BEGINNING]} … {text[-2 * END :]}"
    line = " ".join(printable(text).split())
    if len(line) <= BEGINNING + END + 3:
        return line
    beginning, end = line[:BEGINNING], line[-END:]
    if " " in beginning[-_WORD:]:
        beginning = beginning.rpartition(" ")[0]
    if " " in end[:_WORD]:
        end = end.partition(" ")[2]
    return f"{beginning} … {end}"


def _end(call: CallMeta) -> datetime:
    return call.started + timedelta(seconds=call.seconds)


def _row(number: int, call: CallMeta, plain: Mapping[str, Any], prompts: Mapping[str, str]) -> _Row:
    preview = str(plain.get("preview", ""))
    cut = "…" if len(call.preview) >= _PREVIEW else ""
    answer = plain.get("error") if call.error is not None else plain.get("answer")
    answer = tool_answer(answer) if call.kind == "tool" else answer
    notes = {
        "tool": call.kind == "tool",
        "failed": call.error is not None,
        "stored": call.stored,
        "taken over": call.again,
        "cut": call.cut,
        "child RLM": bool(call.trace),
    }
    return _Row(
        number,
        prompts.get(call.id) or shortened(preview) + cut,
        shortened(answer if isinstance(answer, str) else "" if answer is None else repr(answer)[:2_000]),
        shortened(str(plain.get("model") or "")),
        f"{call.prompt_tokens + call.completion_tokens:,}",
        f"{call.seconds:,.1f}",
        "" if call.cost is None else dollars(call.cost),
        ", ".join(name for name, is_so in notes.items() if is_so),
        call.trace,
    )


def _more(cell_id: str, more: int, left_out: int) -> list[str]:
    told = [f"… and {more:,} more. All of them: rlm show TRACE --cell {cell_id} --calls"] if more else []
    return told + ([f"The records of {counted(left_out, 'call')} are not kept."] if left_out else [])


def _html(line: str, rows: Sequence[_Row], more: Sequence[str]) -> str:
    head = "".join(f"<th{_LEFT}>{title}</th>" for title in _HEAD)
    body = "".join(
        f"<tr>{''.join(f'<td{_LEFT}>{value}</td>' for value in _cells(row))}</tr>\n" for row in rows
    )
    below = "".join(f"<p>{html.escape(told)}</p>\n" for told in more)
    return (
        f"<details><summary>{html.escape(line)}</summary>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n{below}</details>"
    )


def _cells(row: _Row) -> list[str]:
    notes = html.escape(row.notes)
    if row.trace:
        notes = f'<a href="{html.escape(quote(row.trace))}">{notes}</a>'
    texts = (
        _MATH.sub(r"<span>\g<0></span>", html.escape(text)) for text in (row.prompt, row.answer, row.model)
    )
    return [str(row.number), *texts, row.tokens, row.seconds, row.cost, notes]


def _text(line: str, rows: Sequence[_Row], more: Sequence[str]) -> str:
    shown = [
        f"{row.number}. {_cut(row.prompt)} -> {_cut(row.answer)}"
        f" ({', '.join(filter(None, [row.model, f'{row.seconds} s', row.cost, row.notes, row.trace]))})"
        for row in rows
    ]
    return "\n".join([line, *shown, *more])


def _cut(text: str) -> str:
    return text if len(text) <= _PLAIN else f"{text[:_PLAIN]}…"

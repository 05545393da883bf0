"""Whether what readers see of a trace is what its records say.

The title, the words and headings of turns, tables of calls, pictures, the answer, the costs and the timeline
are made of metadata by the trace's writer. Here they are made anew, by the same functions, and compared: so
nobody can change what people see and leave what programs check.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rlm_kernel import sanitize
from rlm_kernel.engine.protocols import MODEL_CALLS, Answer, Completion, Memory, Outcome
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.proof.claims import REDACTED, Claim, by_another_version, claim, has_ended, not_checked
from rlm_kernel.trace import calltable, document, dollars
from rlm_kernel.trace.calls import linked
from rlm_kernel.trace.parts import is_made
from rlm_kernel.trace.prompts import PromptFile
from rlm_kernel.trace.reader import TraceCell, TraceFile, instant
from rlm_kernel.trace.schema import CallMeta, CellMeta
from rlm_kernel.trace.tally import Tally

_PROMPTS = re.compile(r"<tr><td[^>]*>(\d+)</td><td[^>]*>([^<]*)</td>")
"""The number and the prompt of a row of a table of calls, without `_TAGS`."""
_TAGS = re.compile(r"</?(?:code|span)>")
"""Tags around texts in a table of calls, which say nothing: the texts stood in the one, `$` stands in the
other.
"""
_TIMES = timedelta(milliseconds=2)
"""Between the end of a cell by its times and by its seconds, which are rounded."""
_BEST_EFFORT = ("turns", "calls", "cost", "tokens", "seconds", "no_answer")
_UNFINISHED = re.compile(r"unfinished-(\d+)-\d+")
_AROUND = 40
"""Characters that are told of the place where texts differ."""
_SEEN = 80
"""Characters of a prompt's beginning by which its row is known where the whole is not kept."""


def check_shown(trace: TraceFile, prompts: PromptFile) -> Claim:
    """The claim `shown`."""
    shown = _Shown(trace, prompts)
    faults = list(shown.faults())
    other = by_another_version(trace)
    if other and all(fault.made for fault in faults) and faults:
        return not_checked("shown", f"{other}, which words these cells otherwise: {faults[0].told}")
    said = f"{shown.checked:,} texts, tables and pictures match the records"
    return claim("shown", (fault.told for fault in faults), said)


@dataclass(frozen=True)
class _Fault:
    """`made`: by another version it may be made otherwise, with nothing wrong."""

    told: str
    made: bool = True


class _Shown:
    def __init__(self, trace: TraceFile, prompts: PromptFile) -> None:
        self._trace = trace
        self._prompts = prompts
        self._tally = Tally()
        self._asked = ""
        self._children: list[CallMeta] = []
        self._places = {cell.id: place for place, cell in enumerate(trace.cells)}
        self.checked = 0
        for cell in trace.cells:
            if cell.meta is not None:
                if cell.kind == "question":
                    self._asked, self._tally.delivered = cell.meta.text or "", ""
                self._tally.heard(cell.id, cell.meta, cell.started)
                self._children += linked(cell.meta)

    def faults(self) -> Iterator[_Fault]:
        for cell, raw in zip(self._trace.cells, self._trace.node.cells, strict=True):
            if cell.meta is None:
                yield _Fault(f"{cell.id}: the run did not write this cell", made=False)
            elif cell.code:
                yield from self._code(cell, cell.meta, raw)
            elif (made := self._made(cell, cell.meta)) is not None:
                self.checked += 1
                # Earlier traces have no tags around dollar signs.
                said = dollars.without(cell.source)
                if said not in map(dollars.without, made) and not _redacted(cell.source, *made):
                    yield _Fault(f"{cell.id}: {_place(cell, made[0])}")
        missing = {"title", *(("answer", "summary") if has_ended(self._trace) else ())}
        for name in sorted(missing - {cell.id for cell in self._trace.cells}):
            yield _Fault(f"{name}: the cell is not there", made=False)

    # Cells of text

    def _made(self, cell: TraceCell, meta: CellMeta) -> list[str] | None:
        """What a cell may say; None where nothing is known of it."""
        make: dict[str, Callable[[TraceCell, CellMeta], list[Sequence[str]] | None]] = {
            "title": self._title,
            "model": self._turn,
            "unfinished": _unfinished,
            "note": lambda _, meta: [[document.note(meta.text or "")]],
            "question": lambda _, meta: [[document.question(meta.text or "")]],
            "memory": _memory,
            "answer": self._answer,
            "summary": self._summary,
            "pictures": self._pictures,
        }
        found = make[cell.kind](cell, meta) if cell.kind in make else None
        if found is None:
            return None
        thoughts = document.folded(meta.thoughts, len(meta.thoughts)) if meta.thoughts.strip() else []
        return [_joined([*parts, *thoughts]) for parts in found]

    def _title(self, _cell: TraceCell, _meta: CellMeta) -> list[Sequence[str]] | None:
        meta = self._trace.meta
        if meta.status != "finished":
            return None  # it is written anew at the end
        if meta.stop_reason is None or not meta.question:
            return [document.title(meta)]
        answer = self._last_answer()
        outcome = Outcome(answer, meta.stop_reason, meta.forced, meta.detail)
        cells = [self._tally.delivered if answer else "", ""]
        return [document.title(meta, document.Delivered(outcome, one, self._asked)) for one in cells]

    def _last_answer(self) -> Answer | None:
        last = next((cell.meta for cell in reversed(self._trace.cells) if cell.id == "answer"), None)
        return None if last is None or last.text is None else answer_of(last)

    def _turn(self, cell: TraceCell, meta: CellMeta) -> list[Sequence[str]]:
        turn = meta.turn or 0
        words = document.model_words(turn, parse_reply(meta.reply or "").prose)
        titled = document.titled(words, self._tally.heading(turn))
        return [[titled], [words]] if self._trace.meta.status == "running" else [[titled]]

    def _answer(self, cell: TraceCell, meta: CellMeta) -> list[Sequence[str]]:
        answer = None if meta.text is None else answer_of(meta)
        outcomes: list[Outcome]
        if cell.id == "answer":
            about = self._trace.meta
            outcomes = [Outcome(answer, about.stop_reason or "answered", about.forced, about.detail)]
        elif answer is not None:
            outcomes = [Outcome(answer, "answered"), *(Outcome(answer, one, True) for one in _BEST_EFFORT)]  # type: ignore[arg-type]
        else:
            return [[cell.source]] if cell.source.startswith("## No answer") else [["## No answer"]]
        passages = document.evidence(answer.evidence) if answer is not None else []
        if answer is not None and len(answer.text) == document.ANSWER_CAP:
            said = dollars.without(cell.source)
            beginning, end = (
                dollars.without(_joined(one)) for one in ([document.answer(outcomes[0])], passages)
            )
            if said.startswith(beginning) and said.endswith(end):
                return [[document.Raw(cell.source)]]
        return [[document.answer(one), *passages] for one in outcomes]

    def _summary(self, _cell: TraceCell, _meta: CellMeta) -> list[Sequence[str]]:
        spans = self._tally.spans(cell.id for cell in self._trace.cells)
        return [document.summary(self._trace.meta, self._children, self._tally.table(), spans)]

    def _pictures(self, cell: TraceCell, _meta: CellMeta) -> list[Sequence[str]]:
        place = self._places.get(cell.id.removesuffix("-pictures"))
        sent = self._trace.cells[place].meta if place is not None else None
        text, attached = document.pictures(sent.calls if sent is not None else [])
        raw = self._trace.node.cells[self._places[cell.id]]
        return [[document.Raw(text)]] if attached == raw.get("attachments", {}) else [[document.Raw("")]]

    # Code cells

    def _code(self, cell: TraceCell, meta: CellMeta, raw: Any) -> Iterator[_Fault]:
        yield from _times(cell, meta, raw)
        shown = [output for output in raw.get("outputs", ()) if is_made(output)]
        if meta.status == "running":
            return
        plain = raw.metadata.get("rlm", {}).get("calls", ())
        told = str(shown[0].get("data", {}).get("text/html", "")) if shown else ""
        known, faults = self._prompts_of(cell, meta.calls, plain, told)
        yield from faults
        made = calltable.made(cell.id, meta.calls, plain, known, meta.left_out)
        self.checked += made is not None
        if [_untagged(one) for one in shown] != ([_untagged(made)] if made else []):
            seen = _text(told), _text(made["data"]["text/html"] if made else "")
            forked = any(origin.kind == "fork" for origin in self._trace.meta.origins)
            if all(seen) and forked and seen[0] == seen[1]:
                return  # its links lead to the traces of children as they were seen from the other notebook
            where = difference(*seen) if all(seen) else "it is not there" if made else "there are no calls"
            if not _redacted(*seen):
                yield _Fault(f"{cell.id}: the table of its calls: {where}")

    def _prompts_of(
        self, cell: TraceCell, calls: Sequence[CallMeta], plain: Sequence[Mapping[str, Any]], told: str
    ) -> tuple[dict[str, str], list[_Fault]]:
        """The prompts as the table has them, by the ids of calls, and what is wrong with them: it may have
        more of a prompt than the record.
        """
        rows = {int(found[1]): html.unescape(found[2]) for found in _PROMPTS.finditer(_TAGS.sub("", told))}
        asked = [number for number, call in enumerate(calls) if call.kind in MODEL_CALLS]
        known: dict[str, str] = {}
        faults: list[_Fault] = []
        for row, number in enumerate(asked[: calltable.ROWS], 1):
            call, text = calls[number], rows.get(row)
            if text is None:
                continue
            preview = calltable.shortened(str(plain[number].get("preview", "")))
            sent = self._prompts.messages_of_call(call.prompt_digest)
            whole = calltable.shortened(sent[0]["content"]) if sent else None
            begins = text[:_SEEN] == preview[:_SEEN] if len(text) > _SEEN else preview.startswith(text[:-1])
            if text in (whole, f"{preview}…", preview) or (whole is None and begins):
                known[call.id] = text
            elif not _redacted(text, preview):
                faults.append(_Fault(f"{cell.id}: the prompt of call {call.id} is another in the table"))
        return known, faults


def answer_of(meta: CellMeta) -> Answer:
    """The answer that a cell has."""
    return Answer(meta.text or "", evidence=tuple(one.evidence() for one in meta.evidence))


def _joined(parts: Sequence[str]) -> str:
    """As the writer puts parts together."""
    return "".join(
        part if isinstance(part, document.Raw) else dollars.shown(sanitize.markdown(part)) for part in parts
    )


def _unfinished(cell: TraceCell, meta: CellMeta) -> list[Sequence[str]] | None:
    found = _UNFINISHED.fullmatch(cell.id)
    return [[document.unfinished(int(found[1]), meta.text or "")]] if found else None


def _memory(_cell: TraceCell, meta: CellMeta) -> list[Sequence[str]]:
    return [
        [
            document.memory(
                Memory(
                    meta.text or "",
                    meta.tokens_before or 0,
                    meta.tokens_after or 0,
                    estimated,
                    Completion("", meta.model or ""),
                )
            )
        ]
        for estimated in (False, True)
    ]


def _untagged(output: Mapping[str, Any]) -> dict[str, Any]:
    """A table of calls with nothing around its texts."""
    data = output.get("data", {})
    return {**output, "data": {**data, "text/html": _TAGS.sub("", str(data.get("text/html", "")))}}


def _times(cell: TraceCell, meta: CellMeta, raw: Any) -> Iterator[_Fault]:
    times = raw.metadata.get("execution") or {}
    ended = instant({"iopub.execute_input": times.get("shell.execute_reply")})
    if cell.started is None or ended is None or meta.seconds is None or meta.status == "running":
        return
    if abs(ended - cell.started - timedelta(seconds=meta.seconds)) > _TIMES:
        yield _Fault(
            f"{cell.id}: its times are not {meta.seconds:,.4f} s apart, as its record says", made=False
        )


def _redacted(*texts: str) -> bool:
    return any(REDACTED in text for text in texts)


def _place(cell: TraceCell, made: str) -> str:
    what = {
        "title": "the title or the answer's box",
        "model": "the words or the heading of the turn",
        "summary": "the costs or the timeline",
        "pictures": "the pictures that calls sent",
    }.get(cell.kind, f"the {cell.kind}")
    return f"{what}: {difference(cell.source, made)}"


def difference(one: str, other: str, by: str = "the records say") -> str:
    """Where a text begins to differ from the one that it should be, in words."""
    place = next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
    begin = max(0, place - _AROUND // 2)
    seen = [" ".join(text[begin : begin + _AROUND].split()) or "(nothing)" for text in (one, other)]
    return f"{seen[0]!r}, where {by} {seen[1]!r}"


def _text(shown: str) -> str:
    return html.unescape(re.sub(r"<[^<>]*>", " ", shown))

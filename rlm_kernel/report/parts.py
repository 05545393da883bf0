"""What the template of the page asks for: the parts of a trace, escaped by it or made safe by `markup`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlm_kernel import sanitize
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import places_of
from rlm_kernel.pathtext import spelled
from rlm_kernel.report import markup, outline
from rlm_kernel.report.sourcelinks import SourceLinks
from rlm_kernel.trace import timeline
from rlm_kernel.trace.prompts import open_prompts
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta

if TYPE_CHECKING:
    from markupsafe import Markup

ROOM = 24_000_000
"""Characters of texts that a page has; beyond them, each is cut to `_LEAST`."""
PICTURES_ROOM = 24_000_000
"""Characters (base64) of its pictures."""
MOST_CALLS = 20_000
MOST_PASSAGES = 500
"""Of an answer's evidence."""
MOST_CHILDREN = 300
"""Children that are shown with their cells; more are named."""
_LEAST = 300
_ANSWER, _OUTPUT, _PROMPT, _REPLY, _SHORT = 400_000, 40_000, 20_000, 20_000, 160
_FOLDED = 40
"""Lines of an output beyond which it is folded."""
_GROUP = 100
"""Calls that are unfolded together: a browser lays out what is unfolded."""
_ENDED = {"error": "failed", "timeout": "stopped", "died": "the kernel died", "running": "cut off"}
_TAG, _QUIET = re.compile(r"(<[^<>]*>)"), re.compile(r"</?(?:a|code|pre)\b")
_MARK = re.compile(r"\[(\d{1,7})\]")
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def safe(text: str) -> Markup:
    """HTML that `markup` has made, or a file of ours."""
    from markupsafe import Markup

    return Markup(text)


@dataclass
class _Room:
    """How much text the page may still have."""

    left: int = ROOM
    pictures: int = PICTURES_ROOM
    calls: int = MOST_CALLS
    cuts: int = 0

    def cut(self, text: str, most: int) -> str:
        shown, left_out = outline.cut(text, most if self.left > 0 else min(most, _LEAST))
        self.left -= len(shown)
        self.cuts += bool(left_out)
        return markup.plain(shown)


@dataclass(frozen=True)
class _Part:
    """Something of a cell: `text` or `made` (HTML that is safe), or a picture's address."""

    kind: str
    text: str = ""
    made: Markup | None = None
    lines: int = 0
    folded: bool = False


@dataclass(frozen=True)
class _Call:
    """A row of the table of calls. `prompt`: messages by role, where there is more than `asked`."""

    number: int
    id: str
    asked: str
    prompt: list[tuple[str, str]]
    answer: str
    reply: str
    model: str
    tokens: str
    seconds: str
    money: str
    state: str
    child: str


@dataclass
class _Cell:
    id: str
    name: str
    kind: str
    state: str = ""
    about: str = ""
    said: Markup | None = None
    thoughts: str = ""
    note: str = ""
    code: Markup | None = None
    parts: list[_Part] = field(default_factory=list)
    calls_line: str = ""
    groups: list[tuple[str, list[_Call]]] = field(default_factory=list)
    more_calls: int = 0


@dataclass(frozen=True)
class _Passage:
    """A passage of evidence; `id`: where the page has it."""

    id: str
    mark: int
    place: str
    quote: str


@dataclass(frozen=True)
class _Exchange:
    """A question, and what came of it; `cell`: where the answer stands, `more`: passages left out."""

    question: str
    answer: Markup | None
    about: str
    cell: str
    evidence: list[_Passage]
    more: int


@dataclass
class _Turn:
    id: str
    title: str
    line: str
    cells: list[_Cell]


@dataclass
class _Run:
    """One trace of the page. `number` 0 is the topmost; `level` counts from there."""

    number: int
    level: int
    name: str
    trace: TraceFile
    asked_by: str
    question: str
    line: str
    exchanges: list[_Exchange]
    turns: list[_Turn]
    timeline: str
    shown: bool = True


class Page:
    """Everything that the template asks for."""

    def __init__(
        self, trace: TraceFile, children: Sequence[TraceFile], sources: SourceLinks | None = None
    ) -> None:
        self.trace, self.sources = trace, sources
        below = [one for one in children if one.path != trace.path]
        self.all = [trace, *below]
        self.room = _Room()
        self._numbers = {os.path.normpath(one.path): number for number, one in enumerate(self.all)}
        self._levels = self._found_levels()
        self.question = markup.plain(
            outline.one_line(trace.meta.question or f"Session {trace.meta.name}", 200)
        )
        self.name = markup.plain(trace.path.name)
        self.models = outline.by_model(trace)
        self.spent = trace.spent().line()
        self.files = trace.meta.files[:1_000]
        self.more_files = len(trace.meta.files) - len(self.files)
        self.turn_costs = [
            (
                f"t0-turn-{one.number}",
                one.number,
                sum(cell.code for cell in one.cells),
                one.calls,
                one.spent(),
            )
            for one in outline.turns(trace)
            if one.number
        ]

    def _found_levels(self) -> list[int]:
        """How far each is beneath the topmost; who asked for it stands before it."""
        levels = [0] * len(self.all)
        self._askers = [""] * len(self.all)
        for number, one in enumerate(self.all):
            for cell in one.cells:
                for call in outline.calls_of(cell) if cell.meta and cell.meta.calls else ():
                    at = self._number(one, call)
                    if at > number and not self._askers[at]:
                        levels[at], self._askers[at] = levels[number] + 1, f"t{number}-{cell.id}"
        return levels

    def _number(self, trace: TraceFile, call: CallMeta) -> int:
        """The number of the child that a call has started, on this page; 0 for none."""
        return (
            self._numbers.get(os.path.normpath(spelled(trace.path.parent / call.trace)), 0)
            if call.trace
            else 0
        )

    def runs(self) -> Iterator[_Run]:
        for number, one in enumerate(self.all):
            shown = number <= MOST_CHILDREN
            with open_prompts(one) as prompts:
                run = _Maker(self, one, number, prompts, self.room)
                yield _Run(
                    number=number,
                    level=min(self._levels[number], 8),
                    name=markup.plain(one.path.stem),
                    trace=one,
                    asked_by=self._askers[number],
                    question=markup.plain(outline.one_line(one.meta.question, 160)),
                    line=one.spent().line(),
                    exchanges=list(run.exchanges()) if shown else [],
                    turns=list(run.turns()) if shown else [],
                    timeline=_timeline(one) if number == 0 else "",
                    shown=shown,
                )


class _Maker:
    """The parts of one trace."""

    def __init__(self, page: Page, trace: TraceFile, number: int, prompts: Any, room: _Room) -> None:
        self._page, self._trace, self._number = page, trace, number
        self._prompts, self._room = prompts, room

    def exchanges(self) -> Iterator[_Exchange]:
        for one in outline.exchanges(self._trace):
            answer = None if one.answer is None else _answer(self._room.cut(one.answer, _ANSWER))
            evidence = list(self._evidence(one))
            yield _Exchange(
                self._room.cut(one.question, _ANSWER),
                None if answer is None else _linked(answer, evidence),
                markup.plain(one.about),
                one.cell and self._id(one.cell),
                evidence,
                len(one.evidence) - len(evidence),
            )

    def _evidence(self, one: outline.Exchange) -> Iterator[_Passage]:
        places = places_of(one.evidence)
        for passage, place in zip(one.evidence[:MOST_PASSAGES], places, strict=False):
            unread = ", not read by the host" if passage.verdict == "unread" else ""
            place += f" ({passage.unit} {passage.start:,} to {passage.end:,}{unread})"
            name = self._id(f"{one.cell}-evidence-{passage.mark}")
            quote = self._room.cut(passage.quote, _PROMPT)
            yield _Passage(name, passage.mark, markup.plain(place), quote)

    def turns(self) -> Iterator[_Turn]:
        for place, turn in enumerate(outline.turns(self._trace)):
            cells = [self._cell(cell) for cell in turn.cells if cell.kind not in ("answer",)]
            title = (
                f"Turn {turn.number}" if turn.number else "Before the first turn" if not place else "Question"
            )
            name = f"part-{place}"
            if turn.number:
                title, name = f"Turn {turn.number}", f"turn-{turn.number}"
            if cells:
                yield _Turn(self._id(name), title, turn.line, cells)

    def _id(self, name: str) -> str:
        return f"t{self._number}-{name}"

    def _cell(self, cell: TraceCell) -> _Cell:
        made = _Cell(self._id(cell.id), cell.id, cell.kind)
        meta = cell.meta
        if cell.code:
            made.code = safe(markup.code(self._room.cut(cell.source, 4 * _OUTPUT)))
            made.parts = list(self._outputs(cell.outputs))
            self._calls(made, cell)
            made.state = _ENDED.get(str(meta.status), "") if meta else "added by a person"
            made.about = outline.seconds(meta.seconds) if meta and meta.seconds is not None else ""
            if cell.edited:
                made.state = f"{made.state}, edited since it ran".removeprefix(", ")
        elif cell.kind == "model" and meta:
            made.said = safe(markup.prose(self._room.cut(outline.words_of(cell), _ANSWER)))
            made.thoughts = self._room.cut(meta.thoughts, _OUTPUT)
        elif meta and meta.text:
            made.note = self._room.cut(meta.text, _OUTPUT)
        else:
            made.note = self._room.cut(cell.source, _OUTPUT)
        return made

    # Outputs

    def _outputs(self, outputs: Sequence[Mapping[str, Any]]) -> Iterator[_Part]:
        for one in outputs:
            kind = one.get("output_type")
            if kind in ("stream", "error"):
                name = "error" if kind == "error" else str(one.get("name", "stdout"))
                yield from self._text("error" if name in ("error", "stderr") else "text", output_text([one]))
            else:
                yield from self._display(one)

    def _display(self, one: Mapping[str, Any]) -> Iterator[_Part]:
        data = sanitize.output(one).get("data") or {}
        for kind in _PICTURES:
            if isinstance(picture := data.get(kind), str):
                picture = "".join(picture.split())
                if len(picture) <= self._room.pictures:
                    self._room.pictures -= len(picture)
                    yield _Part("picture", f"data:{kind};base64,{picture}")
                else:
                    self._room.cuts += 1
                    yield _Part("text", f"[{kind}: {len(picture) * 3 // 4:,} bytes, left out]", lines=1)
                return
        if isinstance(text := data.get("text/html"), str) and self._room.left > len(text):
            self._room.left -= len(text)
            lines = text.count("<tr") or text.count("\n") + 1
            yield _Part("html", made=safe(markup.fragment(text)), lines=lines, folded=lines > _FOLDED)
        elif isinstance(text := data.get("text/markdown"), str):
            made = safe(markup.prose(self._room.cut(text, _OUTPUT)))
            yield _Part("prose", made=made, lines=text.count("\n") + 1)
        elif data:
            yield from self._text("text", _first_text(data))

    def _text(self, kind: str, text: str) -> Iterator[_Part]:
        if text.strip():
            lines = text.count("\n") + 1
            yield _Part(kind, self._room.cut(text, _OUTPUT), lines=lines, folded=lines > _FOLDED)

    # Calls

    def _calls(self, made: _Cell, cell: TraceCell) -> None:
        group: list[_Call] = []
        total = failed = 0
        for total, call in enumerate(outline.calls_of(cell), 1):
            failed += call.error is not None
            if self._room.calls > 0:
                self._room.calls -= 1
                group.append(self._call(made, total, call))
                if len(group) == _GROUP:
                    made.groups.append((f"{total - _GROUP + 1:,} to {total:,}", group))
                    group = []
            else:
                made.more_calls += 1
        if group:
            first = group[0].number
            made.groups.append((f"{first:,} to {first + len(group) - 1:,}", group))
        if total and cell.meta:
            spent = outline.spent_in(cell)
            parts = [
                f"{total:,} sub-call{'s' * (total != 1)}",
                f"{failed:,} failed" if failed else "",
                f"{spent.usage.total:,} tokens",
                outline.money(spent),
            ]
            made.calls_line = " · ".join(part for part in parts if part)

    def _call(self, made: _Cell, number: int, call: CallMeta) -> _Call:
        asked, answer = outline.one_line(call.preview, _SHORT), outline.answer_text(call)
        child = self._page._number(self._trace, call)
        state = "failed" if call.error is not None else "cut" if call.cut else "stored" if call.stored else ""
        short = outline.one_line(answer, _SHORT)
        return _Call(
            number,
            f"{made.id}-c{number}",
            markup.plain(asked),
            self._sent(call, asked),
            markup.plain(short),
            self._room.cut(answer, _REPLY) if short != answer.strip() else "",
            markup.plain(call.model or call.role),
            f"{call.prompt_tokens:,} → {call.completion_tokens:,}",
            outline.seconds(call.seconds),
            outline.money_of(call.cost or 0.0, 0),
            "again" if call.again else state,
            f"t{child}" if child else "",
        )

    def _sent(self, call: CallMeta, asked: str) -> list[tuple[str, str]]:
        """What the model was sent, in full where that is kept."""
        messages = self._prompts.messages_of_call(call.prompt_digest)
        if messages is not None:
            return [
                (markup.plain(role), self._room.cut(text, _PROMPT))
                for role, text in outline.message_texts(messages)
            ]
        more = call.preview.strip() != asked
        return [("beginning", self._room.cut(call.preview, _PROMPT))] if more else []


def _answer(text: str) -> Markup:
    """One line is a value, and stands as it is; more are Markdown."""
    from markupsafe import Markup

    return safe(markup.prose(text)) if "\n" in text.strip() else Markup("<p>{}</p>").format(text)


def _linked(answer: Markup, evidence: Sequence[_Passage]) -> Markup:
    """The answer's HTML with its marks, but for those in code and in links, as links to the passages."""
    places = {str(one.mark): one.id for one in evidence}
    inside, parts = 0, _TAG.split(str(answer))

    def link(found: re.Match[str]) -> str:
        return f'<a href="#{places[found[1]]}">{found[0]}</a>' if found[1] in places else found[0]

    for place, part in enumerate(parts):
        if place % 2:
            inside += _QUIET.match(part) is not None and (-1 if part.startswith("</") else 1)
        elif inside <= 0:
            parts[place] = _MARK.sub(link, part)
    return safe("".join(parts))


def _first_text(data: Mapping[str, Any]) -> str:
    import json

    for kind in ("text/plain", "text/latex"):
        if isinstance(text := data.get(kind), str):
            return text
    if "application/json" in data:
        return json.dumps(data["application/json"], ensure_ascii=False, indent=1)
    return f"[{', '.join(map(str, data))}]"


def _timeline(trace: TraceFile) -> str:
    """An address of the run's timeline as a picture: a script in it does not run, and nothing is fetched."""
    spans = timeline.spans_of(trace.cells)
    return timeline.data_uri(timeline.svg(spans)) if spans else ""

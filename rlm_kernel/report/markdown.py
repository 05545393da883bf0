"""A trace as one Markdown document, for issues, wikis and mails.

What models, cells and files have said cannot leave its place: it stands in fences that are longer than any in
it, in quotes, or escaped. No HTML, no pictures from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rlm_kernel import sanitize
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import Usage, places_of
from rlm_kernel.proof.findings import Provenance
from rlm_kernel.report import markup, outline
from rlm_kernel.report.sourcelinks import SourceLinks
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta

MOST_CALLS = 50
"""Calls of a cell that are listed."""
MOST_PASSAGES = 200
"""Of an answer's evidence, that are shown."""
ROOM = 1_000_000
"""Characters of texts; beyond them, each is cut to `_LEAST`. Of what one cell or answer says: `_TEXT`."""
_TEXT, _OUTPUT, _SHORT, _LEAST = 100_000, 4_000, 120, 200
_FENCE = re.compile(r"^[ \t>]*([`~]{3,})", re.MULTILINE)
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_MARK = re.compile(r"\\?\[(\d{1,7})\\?\]")
_TICKS = re.compile(r"`+")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>&~$@:])")
_MENTION = re.compile(r"(?P<code>(?<!`)(`++).{1,2000}?(?<!`)\2(?!`))|(?<![\w./`])@(?=[A-Za-z0-9])")
_HEADING = re.compile(r"^( {0,3})(#{1,6})(?=[ \t]|$)", re.MULTILINE)
_UNDERLINE = re.compile(r"^ {0,3}(=+|-+)[ \t]*$", re.MULTILINE)


def markdown(trace: TraceFile, children: Sequence[TraceFile] = (), found: Provenance | None = None) -> str:
    """The document: questions and answers, turns with code, outputs and calls, files, cost.

    `children`: the traces of the child RLMs beneath it, each told by question and answer. `found`:
    where the answer and the prompts come from.
    """
    sources = _sources(SourceLinks(trace, found)) if found else ()
    return "\n\n".join(part for part in (*_Document().parts(trace, children), *sources) if part) + "\n"


class _Document:
    def __init__(self) -> None:
        self._left = ROOM
        self._cuts = 0

    def parts(self, trace: TraceFile, children: Sequence[TraceFile]) -> Iterator[str]:
        heading = outline.one_line(trace.meta.question or f"Session {trace.meta.name}", 150)
        yield f"# {words(heading)}"
        for number, one in enumerate(outline.exchanges(trace), 1):
            if one.question.strip() != heading:
                yield f"**Question**\n\n{quoted(self._cut(one.question, _TEXT))}"
            yield "## Answer" if one.answer is not None else "## No answer"
            if one.answer is not None:
                yield self._linked(self._said(one.answer), one, number)
                yield from self._evidence(one, number)
            yield f"*{words(one.about)}*" if one.about else ""
        yield f"{trace.meta.created:%Y-%m-%d %H:%M UTC}: {trace.spent().line()}"
        for number, turn in enumerate(outline.turns(trace)):
            title = f"Turn {turn.number}" if turn.number else "Question" if number else "Set-up"
            cells = [part for cell in turn.cells for part in self._cell(cell)]
            if cells:
                yield f"## {title}{f' · {turn.line}' if turn.line else ''}"
                yield from cells
        yield from self._children(children)
        yield from _cost(trace)
        yield from _files(trace)
        if self._cuts:
            name = code_span(trace.path.name)
            yield f"*{self._cuts:,} long texts are cut here; the trace {name} has all of them.*"

    def _cut(self, text: str, most: int) -> str:
        shown, left_out = outline.cut(text, most if self._left > 0 else min(most, _LEAST))
        self._left -= len(shown)
        self._cuts += bool(left_out)
        return markup.plain(shown)

    def _said(self, text: str) -> str:
        """An answer: one line is a value; more are Markdown of the model's."""
        shown = self._cut(text, _TEXT)
        return quoted(shown) if "\n" in shown.strip() else f"> {words(shown)}"

    @staticmethod
    def _linked(said: str, one: outline.Exchange, number: int) -> str:
        """The answer with its marks as footnotes."""
        marks = {str(passage.mark) for passage in one.evidence}
        parts = _CODE.split(said)
        for place in range(0, len(parts), 2):
            parts[place] = _MARK.sub(
                lambda found: f"[^{number}-{found[1]}]" if found[1] in marks else found[0], parts[place]
            )
        return "".join(parts)

    def _evidence(self, one: outline.Exchange, number: int) -> Iterator[str]:
        """The passages, each as a footnote."""
        places = places_of(one.evidence)
        for passage, place in zip(one.evidence[:MOST_PASSAGES], places, strict=False):
            unread = ", not read by the host" if passage.verdict == "unread" else ""
            span = f"{passage.unit} {passage.start:,} to {passage.end:,}{unread}"
            quote = fenced(self._cut(passage.quote, _TEXT), "text").replace("\n", "\n    ")
            yield f"[^{number}-{passage.mark}]: {words(place)} ({span})\n\n    {quote}"

    def _cell(self, cell: TraceCell) -> Iterator[str]:
        if cell.kind == "answer":
            return
        if not cell.code:
            text = (cell.meta and cell.meta.text) or cell.source
            if cell.kind == "model":
                text = outline.words_of(cell)
            if text.strip():
                yield quoted(self._cut(text, _TEXT))
            return
        state = f", {cell.meta.status}" if cell.meta and cell.meta.status not in (None, "ok") else ""
        edited = ", edited since it ran" if cell.edited else ""
        took = f", {outline.seconds(cell.meta.seconds)}" if cell.meta and cell.meta.seconds else ""
        yield f"{code_span(cell.id)}{took}{state}{edited}"
        yield fenced(self._cut(cell.source, _TEXT), "python")
        if (text := output_text(cell.outputs)).strip():
            yield fenced(self._cut(text, _OUTPUT), "text")
        yield from self._calls(cell)

    def _calls(self, cell: TraceCell) -> Iterator[str]:
        rows: list[str] = []
        total = 0
        for total, call in enumerate(outline.calls_of(cell), 1):
            if total <= MOST_CALLS:
                rows.append(_row(total, call))
        if rows:
            titles = "| # | prompt | answer | model | tokens | time | cost |"
            yield "\n".join([titles, "| ---: | --- | --- | --- | --- | --- | --- |", *rows])
        if total > MOST_CALLS:
            yield f"… and {total - MOST_CALLS:,} more calls."

    def _children(self, children: Sequence[TraceFile]) -> Iterator[str]:
        if children:
            yield "## Child RLMs"
        for child in children:
            last = outline.exchanges(child)[-1:]
            answer = last[0].answer if last else None
            yield (
                f"- {code_span(child.path.stem)}: {words(outline.one_line(child.meta.question, 200))}  \n"
                + (f"  {words(self._cut(outline.one_line(answer, 500), 500))}" if answer else "  no answer")
            )


def _row(number: int, call: CallMeta) -> str:
    answer = outline.one_line(outline.answer_text(call), _SHORT)
    cells = [
        str(number),
        words(outline.one_line(call.preview, _SHORT)),
        words(answer),
        words(call.model or call.role),
        f"{call.prompt_tokens:,} → {call.completion_tokens:,}",
        outline.seconds(call.seconds),
        words(outline.money_of(call.cost or 0.0, 0)),
    ]
    return f"| {' | '.join(cells)} |"


def _cost(trace: TraceFile) -> Iterator[str]:
    def row(role: str, model: str, calls: int, used: Usage, cost: str) -> str:
        tokens = f"{used.prompt:,} | {used.cached:,} | {used.completion:,}"
        return f"| {words(role)} | {words(model)} | {calls:,} | {tokens} | {words(cost)} |"

    yield "## Cost"
    titles = "| | model | calls | tokens in | cached | tokens out | cost |"
    line = "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    yield "\n".join([titles, line, *(row(*one) for one in outline.by_model(trace))])


def _sources(found: SourceLinks) -> Iterator[str]:
    yield "## Where the answer comes from"
    yield from (f"*{words(why)}*" for why in found.trouble)
    for piece in found.pieces():
        yield "\n".join([f"- **{words(piece.text)}**", *(f"  - {words(line)}" for line in piece.said)])
        yield from (f"  {words(where)}:\n\n  > {words(text)}" for where, text in piece.passages)
    yield "### What the prompts held"
    for call in found.calls():
        where = "; ".join(words(where) for where, _ in call.passages)
        yield f"- call {call.number:,}: {words(call.said)}{f': {where}' if where else ''}"
    if found.more_calls:
        yield f"… and {found.more_calls:,} more calls."
    yield "### How much of each file was in a prompt"
    yield "\n".join(f"- {words(name)}: {words(share)}" for name, share in found.files())


def _files(trace: TraceFile) -> Iterator[str]:
    if files := trace.meta.files:
        yield "## Files"
        rows = [
            f"| {words(file.path)} | {file.size:,} | {file.sha256 or 'not known'} |" for file in files[:500]
        ]
        yield "\n".join(["| file | bytes | sha256 |", "| --- | ---: | --- |", *rows])
        if len(files) > 500:
            yield f"… and {len(files) - 500:,} more."


def fenced(text: str, language: str) -> str:
    """A text in a fence that is longer than any run of backticks in it."""
    longest = max((len(run) for run in _TICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def code_span(text: str) -> str:
    """A name or a path as code, in one line."""
    text = " ".join(markup.plain(text).split()) or " "
    ticks = "`" * (max((len(run) for run in _TICKS.findall(text)), default=0) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"


def words(text: str) -> str:
    """A text in one line in which nothing is Markdown, no address is a link, and nobody is mentioned."""
    line = _SPECIAL.sub(r"\\\1", " ".join(markup.plain(text).split()))
    line = line.replace("\\@", "@\N{WORD JOINER}").replace("\\:", ":")
    return line.replace("://", ":\N{WORD JOINER}//").replace("www.", "www\\.")


def quoted(text: str) -> str:
    """A text as a quote, in which Markdown is as the model wrote it, but for HTML, pictures and headings, and
    nobody is mentioned.

    What it leaves open ends with the quote.
    """
    return "\n".join(f"> {line}".rstrip() for line in lower(sanitize.markdown(text)).split("\n"))


def lower(text: str) -> str:
    """Headings of a text below those of the document: at the third level or deeper; not in fences. GitHub
    sends no mail to a name after `@` there.
    """
    done: list[str] = []
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
        elif found and line.strip(" \t>").rstrip(found[1][0]) == "" and found[1].startswith(fence):
            fence = ""
        if not fence:
            line = _HEADING.sub(lambda one: f"{one[1]}{'#' * min(6, len(one[2]) + 2)}", line)
            line = _MENTION.sub(lambda one: one["code"] or "@\N{WORD JOINER}", line)
            if _UNDERLINE.fullmatch(line) and done and done[-1].strip():
                line = f"\\{line.lstrip()}"
        done.append(line)
    return "\n".join(done)

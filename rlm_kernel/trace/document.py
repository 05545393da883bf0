"""The prose of a trace: its markdown cells, so that the notebook reads as a document."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from urllib.parse import quote

from rlm_kernel import sanitize
from rlm_kernel.engine.protocols import ROLES, Evidence, Memory, Outcome, counted, places_of, trace_dollars
from rlm_kernel.trace import timeline
from rlm_kernel.trace.headings import below
from rlm_kernel.trace.schema import CallMeta, NotebookMeta


class Raw(str):
    """Markdown that may hold HTML, of ours: what is of others in it is sanitized."""

    __slots__ = ()


_HEADING = 100
_MARKS = re.compile(r"([\\`*_>\[\]$])")
_CHILDREN_SHOWN = 500
_PICTURES_SHOWN = 50
_PNG = "iVBORw0KGgo"
"""How a PNG file begins in base64."""
ANSWER_CAP = 1_000_000
"""Characters of an answer that the answer cell shows."""
_BOX_CHARACTERS, _BOX_LINES = 2_000, 30
"""Of an answer, in the title."""
_BOX = Raw(
    '<table style="border: 2px solid #2f81f7; margin: 0"><tbody><tr>'
    '<td style="text-align: left; padding: 4px 16px">\n\n'
)
"""A table of one cell: GitHub shows its border, and the others that of its style, which GitHub leaves out."""
_BOX_END = Raw("\n\n</td></tr></tbody></table>\n\n")
_PASSAGES, _BOX_PASSAGES, _BOX_QUOTE = 200, 20, 300
"""Passages of evidence that the answer's cell shows; that the title shows; characters of each there."""
_TAKEN_UP = {"fork": "Forked", "resume": "Resumed", "rebuild": "Rebuilt", "apply": "Applied"}
_REASONS = {
    "turns": "the turns were used up",
    "calls": "the sub-model calls were used up",
    "cost": "the money was used up",
    "tokens": "the tokens were used up",
    "seconds": "the time was used up",
    "batch": "the budget that it shared was used up",
    "no_answer": "the model gave no answer",
    "interrupted": "the run was interrupted",
    "error": "the run failed",
}


@dataclass(frozen=True)
class Delivered:
    """What the last question came to, as its outcome is told first. `cell`: whose code gave the answer, ""
    if none did; `question`: "" for the only one.
    """

    outcome: Outcome
    cell: str = ""
    question: str = ""


def title(meta: NotebookMeta, delivered: Delivered | None = None) -> list[str]:
    """The question, its answer if there is one, and what it was asked of."""
    box: list[str] = []
    if delivered is not None:
        given = delivered.outcome.answer.evidence if delivered.outcome.answer else ()
        shown = evidence(given, _BOX_PASSAGES, _BOX_QUOTE)
        box = [_BOX, _told_first(delivered), *shown, _BOX_END]
    return [_asked(meta), *box, _asked_of(meta)]


def _told_first(delivered: Delivered) -> str:
    """What is in the box."""
    outcome = delivered.outcome
    to = f" to *{_line(delivered.question)}*" if delivered.question else ""
    link = f" · from cell [{delivered.cell}](#cell-id={delivered.cell})" if delivered.cell else ""
    if outcome.answer is None:
        return f"**No answer**{to}\n\n{_because(outcome)}"
    text = shown = outcome.answer.text
    if len(text) > _BOX_CHARACTERS or text.count("\n") >= _BOX_LINES:
        shown = "\n".join(text[:_BOX_CHARACTERS].split("\n")[:_BOX_LINES]).rstrip() + " …"
    more = f"\n\n[The whole answer: {len(text):,} characters](#cell-id=answer)" if shown != text else ""
    head = f"**Best-effort answer** ({_limit(outcome)})" if outcome.forced else "**Answer**"
    return f"{head}{to}{link}\n\n{_value(shown)}{more}"


def _line(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return _MARKS.sub(r"\\\1", line if len(line) <= _HEADING else f"{line[:_HEADING].rstrip()}…")


def _value(text: str) -> str:
    """An answer inside of the notebook."""
    shown = below(text)
    # One line is a value, not a document: a name like __init__ must stand as it is.
    return _MARKS.sub(r"\\\1", shown) if "\n" not in shown else shown


def _asked(meta: NotebookMeta) -> str:
    question = meta.question.strip() or f"Session {meta.name}"
    first = question.split("\n", 1)[0]
    heading = first if len(first) <= _HEADING else f"{first[:_HEADING].rstrip()}…"
    lines = [f"# {heading}", ""]
    if heading != question:
        lines += [_quote(question), ""]
    return "\n".join([*lines, ""])


def _asked_of(meta: NotebookMeta) -> str:
    lines = []
    if meta.models["root"]:
        lines += [
            f"- Root model `{meta.models['root']}`, sub model `{meta.models['sub']}`, prompt profile "
            f"`{meta.prompt_profile}`"
        ]
        lines += [f"- Model {name}: `{model}`" for name, model in meta.models.items() if name not in ROLES]
    lines += [
        f"- Input `{file.path}` ({'folder, ' if file.directory else ''}{file.size:,} bytes)"
        for file in meta.files
    ]
    lines += [
        f"- {_TAKEN_UP[origin.kind]} from `{origin.trace}` at `{origin.cell}`, {_utc(origin.at)}"
        for origin in meta.origins
    ]
    if meta.parent is not None:
        lines.append(
            f"- A child RLM, asked for by `{meta.parent.cell}` of "
            f"[{_name(meta.parent.trace)}]({_link(meta.parent.trace)})"
        )
    created = _utc(meta.created)
    return "\n".join(
        [
            *lines,
            f"- Session `{meta.session}`, {created}, rlm_kernel {meta.rlm_version}, image `{meta.image}`",
        ]
    )


def model_words(turn: int, prose: str) -> str:
    """The root model's words of a turn, without its code."""
    return f"## Turn {turn}\n\n{below(prose)}".strip()


_TURN = re.compile(r"## Turn \d+[^\n]*")


def titled(words: str, heading: str) -> str:
    """The words of a turn with this heading, which tells what the turn holds."""
    return _TURN.sub(lambda _: heading, words, count=1) if _TURN.match(words) else words


def unfinished(turn: int, text: str) -> str:
    """What the root model had said of a reply that did not come to its end."""
    return f"**Turn {turn} was cut off here.** Its words do not count.\n\n{_quote(text)}".rstrip()


def folded(thoughts: str, length: int) -> list[str]:
    """What the root model thought, folded; of that `length`."""
    summary = f"<summary>Reasoning: {length:,} characters</summary>"
    return [Raw(f"\n\n<details>{summary}\n\n"), _quote(thoughts), Raw("\n\n</details>")]


def note(text: str) -> str:
    """Something that the engine said to the root model."""
    return _quote(f"**Note to the model.** {text}")


def question(text: str) -> str:
    """A further question."""
    return f"## Question\n\n{_quote(text)}"


def memory(kept: Memory) -> str:
    """A summary that the root model sees from here on in place of the turns before it."""
    about = "about " if kept.estimated else ""
    return f"**Memory.** {about}{kept.before:,} → {kept.after:,} tokens.\n\n{_quote(kept.text)}"


def answer(outcome: Outcome) -> str:
    """The answer, or why there is none."""
    if outcome.answer is None:
        return f"## No answer\n\n{_because(outcome)}"
    text = outcome.answer.text
    shown = (
        text
        if len(text) <= ANSWER_CAP
        else f"{text[:ANSWER_CAP]}\n\n… {len(text) - ANSWER_CAP:,} more characters."
    )
    return f"## Answer\n\n{_value(shown)}" + (
        f"\n\n*Best-effort answer: {_limit(outcome)}.*" if outcome.forced else ""
    )


def evidence(given: Sequence[Evidence], most: int = _PASSAGES, characters: int | None = None) -> list[str]:
    """The passages that an answer stands on, folded: at most so many, and so many `characters` of each."""
    if not given:
        return []
    unread = sum(one.verdict == "unread" for one in given)
    how = f", {unread:,} of them not read by the host" if unread else ""
    parts: list[str] = [
        Raw(f"\n\n<details><summary>Evidence: {counted(len(given), 'passage')}{how}</summary>\n\n")
    ]
    for one, where in zip(given[:most], places_of(given), strict=False):
        cut = characters is not None and len(one.quote) > characters
        quote = f"{one.quote[:characters]}…" if cut else one.quote
        place = _MARKS.sub(r"\\\1", where)
        span = "" if not one.line else f" ({one.unit} {one.start:,} to {one.end:,})"
        parts += [
            f"**\\[{one.mark}\\]** {place}{span}\n\n",
            # JupyterLab takes what stands between dollar signs for a formula here too, and escapes it again.
            Raw(f"<pre>{sanitize.text(quote).replace('$', '&#36;')}</pre>\n\n"),
        ]
    more = len(given) - most
    return [*parts, *([f"… and {more:,} more.\n\n"] if more > 0 else []), Raw("</details>")]


def _limit(outcome: Outcome) -> str:
    """What brought the run to its best-effort answer."""
    if outcome.stop_reason == "no_answer":
        return "the replies of the root model had nothing to run"
    return f"the limit of {outcome.stop_reason} was reached"


def _because(outcome: Outcome) -> str:
    reason = _REASONS.get(outcome.stop_reason, outcome.stop_reason)
    return f"{reason[:1].upper()}{reason[1:]}. {outcome.detail}".strip()


def pictures(calls: Iterable[CallMeta]) -> tuple[str, dict[str, dict[str, str]]]:
    """The pictures that calls sent, each once: Markdown, and its attachments. "" where there is none to be
    seen.

    Nothing in it is the words of anybody.
    """
    seen = {image.digest: image for call in calls for image in call.images if image.preview}
    attached: dict[str, dict[str, str]] = {}
    lines = ["*Pictures that this cell sent to the sub model:*"]
    for number, image in enumerate(list(seen.values())[:_PICTURES_SHOWN], 1):
        ending = "png" if image.preview.startswith(_PNG) else "jpeg"
        name = f"picture-{number}.{ending}"
        attached[name] = {f"image/{ending}": image.preview}
        about = (
            f"{image.width:,} x {image.height:,} pixels, {image.size:,} bytes, sha256 `{image.digest[:12]}`"
        )
        lines.append(f"![{name}](attachment:{name}) {about}")
    more = len(seen) - len(attached)
    lines += [f"… and {more:,} more."] if more else []
    return ("\n\n".join(lines), attached) if attached else ("", {})


def summary(
    meta: NotebookMeta,
    children: Sequence[CallMeta] = (),
    turns: Sequence[str] = (),
    spans: Sequence[timeline.Span] = (),
) -> list[str]:
    """What it cost by model and by turn (`turns`: that table's lines), the timeline, and the traces of the
    child RLMs.
    """
    return [_costs(meta, turns), *_timeline(spans), "\n".join(_children(children))]


def _timeline(spans: Sequence[timeline.Span]) -> list[str]:
    """The picture stands in the text itself: programs that show no SVG of an output, and none that is
    attached, show it there.
    """
    if not spans:
        return []
    source, words = timeline.data_uri(timeline.svg(spans)), timeline.alternative(spans)
    return ["\n\n## Timeline\n\n", Raw(f'<img src="{source}" alt="{html.escape(words)}">'), f"\n\n{words}\n"]


def _costs(meta: NotebookMeta, turns: Sequence[str]) -> str:
    if meta.totals is None:
        return "## Cost"
    totals = meta.totals.totals()
    root, sub = totals.root_usage, totals.sub_usage
    rows = [
        ("Root model", meta.models["root"], totals.turns + totals.child_turns, root),
        ("Sub model", meta.models["sub"], totals.calls - totals.child_turns, sub),
    ]
    if not totals.models.keys() <= set(ROLES):
        titles = {"root": "Root model", "sub": "Sub model"}
        rows = [
            (titles.get(name, name), meta.models.get(name, ""), share.calls, share.usage)
            for name, share in totals.models.items()
        ]
    lines = [
        "## Cost",
        "",
        "| | model | calls | tokens in | of these cached | tokens out |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {role} | `{model}` | {calls:,} | {used.prompt:,} | {used.cached:,} | {used.completion:,} |"
        for role, model, calls, used in rows
    ]
    lines += ["", f"Together: {totals.line(trace_dollars)}."]
    return "\n".join([*lines, *turns])


def _children(calls: Sequence[CallMeta]) -> list[str]:
    """The children by name, with what each took."""
    if not calls:
        return []
    rows = []
    for call in calls[:_CHILDREN_SHOWN]:
        cost = "" if call.cost is None else f"\\{trace_dollars(call.cost)}"
        asked = _MARKS.sub(r"\\\1", " ".join(call.preview.split())[:_HEADING]).replace("|", "\\|")
        how = "failed" if call.error is not None else "answered"
        rows.append(
            f"| [{_name(call.trace)}]({_link(call.trace)}) | {asked} | {how} | {call.calls:,} | {cost} | "
            f"{call.seconds:,.1f} |"
        )
    more = [f"\n… and {len(calls) - _CHILDREN_SHOWN:,} more."] if len(calls) > _CHILDREN_SHOWN else []
    head = [
        "",
        "## Child RLMs",
        "",
        "| trace | question | | calls | cost | seconds |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    return [*head, *rows, *more]


def _name(trace: str) -> str:
    return _MARKS.sub(r"\\\1", PurePosixPath(trace).stem)


def _link(trace: str) -> str:
    return quote(trace)


def _utc(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in below(text).splitlines())

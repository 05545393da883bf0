"""The prose of a trace: its markdown cells, so that the notebook reads as a document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from urllib.parse import quote

from rlm_kernel.engine.protocols import Memory, Outcome
from rlm_kernel.trace.schema import CallMeta, NotebookMeta

_HEADING = 100
_MARKS = re.compile(r"([\\`*_>\[\]$])")
_CHILDREN_SHOWN = 500
ANSWER_CAP = 1_000_000
"""Characters of an answer that the answer cell shows."""
_TAKEN_UP = {"fork": "Forked", "resume": "Resumed", "rebuild": "Rebuilt"}
_REASONS = {
    "turns": "the turns were used up",
    "calls": "the sub-model calls were used up",
    "cost": "the money was used up",
    "tokens": "the tokens were used up",
    "seconds": "the time was used up",
    "no_answer": "the model gave no answer",
    "interrupted": "the run was interrupted",
    "error": "the run failed",
}


def title(meta: NotebookMeta) -> str:
    """The question, and what it was asked of."""
    question = meta.question.strip() or f"Session {meta.name}"
    first = question.split("\n", 1)[0]
    heading = first if len(first) <= _HEADING else f"{first[:_HEADING].rstrip()}…"
    lines = [f"# {heading}", ""]
    if heading != question:
        lines += [_quote(question), ""]
    if meta.models["root"]:
        lines += [
            f"- Root model `{meta.models['root']}`, sub model `{meta.models['sub']}`, prompt profile "
            f"`{meta.prompt_profile}`"
        ]
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
    return f"## Turn {turn}\n\n{prose}".strip()


def unfinished(turn: int, text: str) -> str:
    """What the root model had said of a reply that did not come to its end."""
    return f"**Turn {turn} was cut off here.** Its words do not count.\n\n{_quote(text)}".rstrip()


def folded(thoughts: str, length: int) -> str:
    """What the root model thought, folded; of that `length`. It must be sanitized: only the fold is HTML."""
    summary = f"<summary>Reasoning: {length:,} characters</summary>"
    return f"\n\n<details>{summary}\n\n{_quote(thoughts)}\n\n</details>"


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
    if "\n" not in shown:
        # One line is a value, not a document: a name like __init__ must stand as it is.
        shown = _MARKS.sub(r"\\\1", shown)
    return f"## Answer\n\n{shown}" + (
        f"\n\n*Best-effort answer: {_limit(outcome)}.*" if outcome.forced else ""
    )


def _limit(outcome: Outcome) -> str:
    """What brought the run to its best-effort answer."""
    if outcome.stop_reason == "no_answer":
        return "the replies of the root model had nothing to run"
    return f"the limit of {outcome.stop_reason} was reached"


def _because(outcome: Outcome) -> str:
    reason = _REASONS.get(outcome.stop_reason, outcome.stop_reason)
    return f"{reason[:1].upper()}{reason[1:]}. {outcome.detail}".strip()


def summary(meta: NotebookMeta, children: Sequence[CallMeta] = ()) -> str:
    """The cost table, and the traces of the child RLMs."""
    if meta.totals is None:
        return "## Cost"
    totals = meta.totals.totals()
    root, sub = totals.root_usage, totals.sub_usage
    rows = [
        ("Root model", meta.models["root"], totals.turns + totals.child_turns, root),
        ("Sub model", meta.models["sub"], totals.calls - totals.child_turns, sub),
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
    lines += ["", f"Together: {totals.line()}."]
    return "\n".join([*lines, *_children(children)])


def _children(calls: Sequence[CallMeta]) -> list[str]:
    """The children by name, with what each took."""
    if not calls:
        return []
    rows = []
    for call in calls[:_CHILDREN_SHOWN]:
        cost = "" if call.cost is None else f"${call.cost:,.4f}"
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
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())

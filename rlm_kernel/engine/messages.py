"""What the loop says to the root model between its replies.

Every message is constant in size whatever the input's, but for a short input that is shown whole.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlm_kernel.engine import whole
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import CellResult, ContextInfo, Partial

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_COUNT = re.compile(r"In ?\[\d+\]")
_LISTED, _FEW = 20, 8
"""Pieces that are listed; and of more than these, whose kinds are told."""
_HEAD_OF_SEVERAL = 160
NO_CODE = (
    "Your reply held neither a ```repl block nor FINAL. Write code in a ```repl block to go on; if you have "
    "the answer, "
    "write FINAL(answer) on a line of its own."
)
ALL_THOUGHT = (
    "Your reply was reasoning alone, without an end; nothing came after it. Think less, and then reply with "
    "a sentence and code in a "
    "```repl block, or with FINAL(answer) on a line of its own."
)
INVENTED = (
    "The output that you wrote yourself is not real: only what stands above was printed. What you wrote "
    "after it was not run. End your "
    "reply with the code, and wait for its output."
)
LOOPED = (
    "Your reply said the same over and over, so it was ended: only what came before the second time counts. "
    "Reply with a sentence and one short cell."
)
TEMPLATE = (
    "That is the form of an answer and not the answer. Write FINAL(...) with the text itself, or "
    "with the name of a variable that holds it."
)
NOT_LOOKED = (
    "That answer came before any code had looked at the input, so it was not taken. Look at "
    "`context` with code first."
)
AFTER_ERROR = (
    "That answer was not taken, because the cell before it ended in an error, and nothing was computed "
    "since. Correct that cell and look "
    "at what it gives. If the answer holds all the same, give it again."
)
REPEATED = (
    "That was the same code as before, and it gave the same. Say what is wrong with it, and write "
    "different code."
)
CUT_OFF = (
    "Your reply was too long and was cut off in the middle of its code, which did not run. Write "
    "less: one short cell."
)
_NO_TOOLS = (
    "You called {names}, but there are no tools here, and nothing was run. Write Python in a ```repl block: "
    "it runs in the kernel, "
    "with `context` and all functions."
)
BESIDE_CODE = (
    "FINAL(...) outside code was not taken, because the same reply ran code whose output you had not seen. "
    "If the output above settles it, give FINAL now."
)

NEARLY_USED = "Come to an answer with what you have, and spend what is left on what matters most."

CITE = (
    "Give evidence: cite(passage) the passages of the input that your answer stands on, and put the marks "
    'that it returns into the answer, such as FINAL(f"The pump failed at noon {cite(hit)}.").'
)
SUM_UP = (
    "Now sum up, for yourself, the work since your last summary, or else since the first question: each "
    "question, what you found and where "
    "in the input, which variables "
    "hold it, what is left to do, and each answer that there is. From now on you see this summary in place "
    "of those messages. Plain text without code blocks, at most 300 words."
)
AFTER_MEMORY = (
    "The message above is your summary of the work until here. Variables and files are as they were; "
    "`history` in the kernel has "
    "every turn in full (a list of dicts: question, turns, answer)."
)
STOPPED = "The work on that question was stopped here; it has no answer."
_ANSWER_SHOWN = 2_000
_LAST_PART = 4
"""The last cell's output has at least so many-th of the room for all: it is what comes of the others."""
_PERSONS = 20
"""Cells of a person that are shown in one message."""


@dataclass(frozen=True)
class Asked:
    """A further question in the same kernel."""

    question: str

    def __str__(self) -> str:
        return f"The next question, with the variables that are there: {self.question}"


Remark = str | CellResult | Asked
"""What is said beside the outputs. A CellResult is a cell that a person ran."""
_LAZY = (
    " What is too large for memory is a LazyText, which has a str's slices, len, in, find, count, "
    "splitlines() and split() as iterators; "
    "re.search, re.finditer and re.findall take; grep and chunks are fastest. Never take str() of it."
)


def question_message(
    question: str, info: ContextInfo, from_files: bool, head_chars: int, progress: str
) -> str:
    """The first message: the question, with type, sizes, names and first characters of the input, or the
    whole of one that is short.
    """
    look = input_lines(info, from_files, head_chars)
    return "\n".join(filter(None, [look, f"Question: {question}", progress]))


def input_lines(info: ContextInfo, from_files: bool, head_chars: int) -> str:
    """Type, sizes, names and first characters of the input, and then the whole of one that is short."""
    if not info.item_count and not info.total_chars:
        return "Context: none was given."
    sizes, notes = _sizes(info, from_files), _notes(info)
    if info.whole:
        return "\n".join([*sizes, *notes, whole.shown(info.whole)])
    return "\n".join([*sizes, *_heads(info, head_chars), *notes])


def _sizes(info: ContextInfo, from_files: bool) -> list[str]:
    pieces = f"{info.item_count:,} pieces" if info.item_count != 1 else "1 piece"
    about = "about " if info.about else ""
    lazy = _LAZY if info.about else ""
    lines = [f"Context: {info.kind}, {about}{info.total_chars:,} characters in {pieces}.{lazy}"]
    lines += [f"Kinds: {_kinds(info, from_files)}"] if info.kinds else []
    shown = [
        f"{_typed(name)} ({info.pictures.get(name) or f'{about}{size:,} characters'})"
        for name, size in info.items[: _FEW if info.kinds and info.item_count > _LISTED else _LISTED]
    ]
    more = f", and {info.item_count - len(shown):,} more" if info.item_count > len(shown) else ""
    return [*lines, f"{'Files' if from_files else 'Pieces'}: {', '.join(shown)}{more}"]


def _notes(info: ContextInfo) -> list[str]:
    lines = [f"Form: {info.form}"] if info.form else []
    lines += [f"Form: {_typed(name)}: {form}" for name, form in info.forms]
    return [*lines, *(f"Note: {remark}" for remark in info.remarks)]


def input_now(
    info: ContextInfo, from_files: bool, head_chars: int, told: Sequence[str]
) -> tuple[ContextInfo, list[str]]:
    """The input as a conversation has it, in which this was `told`, and what to say of it.

    Where the last message that tells of the input tells of another one, that is what it is now. Where that
    message shows the beginning alone, it stays so: then the input is returned without its whole.
    """
    now = input_lines(info, from_files, head_chars)
    last = next((text for text in reversed(told) if _TELLS_INPUT.search(text)), now)
    if now in last:
        return info, []
    if _told_otherwise(info, from_files, head_chars, last):
        return replace(info, whole=()), []
    return info, [f"The input is another one now.\n{now}"]


_TELLS_INPUT = re.compile(r"^Context: (?:none was given|.+ characters in [\d,]+ pieces?)\.", re.MULTILINE)


def _told_otherwise(info: ContextInfo, from_files: bool, head_chars: int, last: str) -> bool:
    """Whether the message tells of this input, of which it shows the beginning alone where there was less
    room, or the whole where there was more.
    """
    if info.whole:
        return input_lines(replace(info, whole=()), from_files, head_chars) in last
    heads = [head for _, head in info.heads] if info.kinds else [info.head]
    seen = "\n".join([*_sizes(info, from_files), *_notes(info)])
    return seen in last and all(whole.readable(head.rstrip()) in last for head in heads)


def _kinds(info: ContextInfo, from_files: bool) -> str:
    """How many pieces there are of each kind: "22 .txt, 14 .eml"."""
    without = "without an ending" if from_files else "others"
    return ", ".join(f"{count:,} {_typed(kind) if kind else without}" for kind, count in info.kinds)


def _heads(info: ContextInfo, most: int) -> list[str]:
    """The first characters of the one piece, or of one of each kind."""
    if not info.kinds:
        return [f"Starts with: {info.head[:most]!r}"]
    most = min(most, _HEAD_OF_SEVERAL)
    return [f"Starts with: {head[:most]!r} ({_typed(name)})" for name, head in info.heads]


def _typed(name: str) -> str:
    """A name as it is; one with line breaks or signs that are not seen as Python's literal of it."""
    return name if name.isprintable() and name == name.strip() else repr(name)


def progress_line(ledger: Ledger, turn: int | None = None) -> str:
    """Turn (by default the next one) and budget left, for the end of every message."""
    turn = ledger.totals().turns + 1 if turn is None else turn
    if turn > ledger.limits.turns:
        return "No turn is left."
    left = ledger.left()
    units = {
        "calls": "{:,.0f} sub-model calls",
        "cost": "${:.4g}",
        "tokens": "{:,.0f} tokens",
        "seconds": "{:.0f} s",
    }
    parts = [form.format(left[name]) for name, form in units.items() if left[name] is not None]
    return f"Turn {turn} of {ledger.limits.turns}." + (f" Left: {', '.join(parts)}." if parts else "")


def nothing_to_run(labels: Sequence[str]) -> str:
    """That a reply had neither code nor an answer. `labels`: of the blocks in it that are not Python."""
    if not labels:
        return NO_CODE
    which = " and ".join(f"```{label[:40]}" for label in dict.fromkeys(labels[:5]))
    what = (
        f"The {which} block was not run" if len(set(labels[:5])) == 1 else f"The blocks {which} were not run"
    )
    return f"{what}: only Python runs here. {NO_CODE}"


def not_evaluated(source: str, output: str) -> str:
    """That FINAL(...) in prose was code which did not give an answer."""
    return (
        f"FINAL({source}) was not taken as the answer. It was run as code, and that gave:\n{output}\n"
        "Mend it, or give the answer as a text."
    )


def no_tools(names: Sequence[str]) -> list[str]:
    """What to remark where a reply called tools, of these names, that nobody offered."""
    shown = ", ".join(repr(name[:60]) for name in names[:3])
    return (
        [_NO_TOOLS.format(names=f"the tool {shown}" if len(names) == 1 else f"the tools {shown}")]
        if names
        else []
    )


def kept_answers(results: Sequence[CellResult]) -> list[str]:
    """What there is of batches that were cut off, and that answers of other calls are kept which code may not
    have.
    """
    partial = [partial_results(result.partial) for result in results if result.partial is not None]
    return partial + kept(sum(result.lost_answers for result in results if result.partial is None))


def kept(answers: int) -> list[str]:
    """That so many answers of a cell which was cut off are kept."""
    if not answers:
        return []
    which = (
        "1 answer that its calls had is kept"
        if answers == 1
        else f"{answers:,} answers that its calls had are kept"
    )
    return [f"{which}: the same calls, made again, have them at once and cost nothing."]


def partial_results(partial: Partial) -> str:
    """What the kernel has of a batch that was cut off."""
    return (
        f"The batch was cut off{' by a limit' if partial.by_limit else ''}: partial_results has "
        f"{partial.answers:,} of {partial.prompts:,} answers, in the order of the prompts; the others are "
        "falsy." + ("" if partial.by_limit else " The same call again asks only the rest.")
    )


def nearly_used(ledger: Ledger) -> list[str]:
    """Remarks on limits that are used up nearly, each once in a run."""
    return [f"{told} {NEARLY_USED}" for told in ledger.newly_near()]


def output_message(
    results: Sequence[CellResult], not_run: int, limit: int, remarks: Sequence[Remark], progress: str
) -> str:
    """What the cells of a turn gave, the remarks, and how far the run is.

    All outputs together, with the cells of persons among the remarks, have `limit` characters: short ones are
    whole, long ones share what is left and lose their middle.
    """
    outputs, told = parts(results, not_run, limit, remarks)
    return "\n\n".join([*outputs, *told, progress])


def parts(
    results: Sequence[CellResult], not_run: int, limit: int, remarks: Sequence[Remark]
) -> tuple[list[str], list[str]]:
    """Of `output_message`: the outputs, and the remarks."""
    persons = [one for one in remarks if isinstance(one, CellResult)]
    hidden, persons = len(persons[:-_PERSONS]), persons[-_PERSONS:]
    texts = [output_text(result.outputs) for result in results]
    of_persons = [text for cell in persons for text in (cell.code, output_text(cell.outputs))]
    room = shares(list(map(len, [*texts, *of_persons])), limit, len(texts) - 1)
    cut = list(map(truncate, [*texts, *of_persons], room))
    outputs = [
        _output(result, text, "the cell" if len(results) + not_run == 1 else f"cell {number}")
        for number, (result, text) in enumerate(zip(results, cut, strict=False), 1)
    ]
    if not_run:
        why = ", because of the error above" if any(result.status != "ok" for result in results) else ""
        outputs.append(f"The {'last block' if not_run == 1 else f'last {not_run} blocks'} did not run{why}.")
    ran = iter(cut[len(texts) :])
    told = [f"A person ran {hidden:,} more cells in your kernel before these."] if hidden else []
    for one in _without_first(remarks, hidden):
        told.append(_of_person(next(ran), next(ran)) if isinstance(one, CellResult) else str(one))
    return outputs, told


def _without_first(remarks: Sequence[Remark], cells: int) -> Iterator[Remark]:
    for one in remarks:
        if not isinstance(one, CellResult) or cells <= 0:
            yield one
        else:
            cells -= 1


def _output(result: CellResult, text: str, which: str) -> str:
    failed = {
        "ok": "",
        "error": " (it raised an error)",
        "timeout": " (it was stopped)",
        "died": " (the kernel died)",
    }
    shown = text or "(it printed nothing; print what you want to see)"
    return f"Output of {which}{failed[result.status]}:\n{shown}"


def _of_person(code: str, output: str) -> str:
    """A cell that a person ran in the same kernel."""
    shown = output or "(it printed nothing)"
    return f"A person ran this in your kernel:\n```python\n{code}\n```\nOutput:\n{shown}"


def shares(lengths: Sequence[int], limit: int, last: int) -> list[int]:
    """How many characters of each text are shown, `limit` together: short ones are whole, and the long ones
    have equal parts of what is left. The one at `last` has a quarter of all at least; -1: there is no such.
    """
    given = _equally(lengths, limit)
    least = min(lengths[last], limit // _LAST_PART) if last >= 0 else 0
    if last < 0 or given[last] >= least:
        return given
    others = _equally([*lengths[:last], *lengths[last + 1 :]], limit - least)
    return [*others[:last], least, *others[last:]]


def _equally(lengths: Sequence[int], limit: int) -> list[int]:
    given, left = [0] * len(lengths), limit
    for done, place in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        given[place] = min(lengths[place], left // (len(lengths) - done))
        left -= given[place]
    return given


def answer_given(answer: str) -> str:
    """The answer that was delivered: where code did that, no message has it."""
    return f"The answer that you gave: {truncate(answer, _ANSWER_SHOWN)}"


def after_memory(covered: Sequence[Asked], remarks: Sequence[Remark], limit: int, progress: str) -> str:
    """What follows a summary.

    `covered`: the further questions that were put in the messages for which it stands; they stay as the user
    put them.
    """
    also = ["The further questions that it covers, as the user put them:"] if covered else []
    also += [asked.question for asked in covered]
    _, told = parts((), 0, limit, remarks)
    return "\n\n".join([AFTER_MEMORY, *also, *told, progress])


def named_files(paths: Sequence[str], absent: Sequence[str] = ()) -> str:
    """Files that the user named: those that code can load, and what is said of others."""
    shown = ", ".join(repr(path) for path in paths[:_LISTED])
    lines = [f"The user named these files; load_file(path) loads one: {shown}"] if paths else []
    lines += [f"The question names a path, but {one}." for one in absent[:_LISTED]]
    return "\n".join(lines)


def forced_message(reason: str, unseen: Sequence[tuple[str, str]] = ()) -> str:
    """Ask for the one last answer at exhaustion. `unseen`: the input's texts, which are shown for it."""
    shown = f"{whole.shown(unseen)}\n\n" if unseen else ""
    return shown + (
        f"{reason} No more code will run. Give your best answer now, from what you have seen: FINAL(answer) "
        "on a line of its own, "
        "or FINAL_VAR(name) for a variable of the session. Reply with that line alone."
    )


def output_text(outputs: Sequence[Mapping[str, Any]]) -> str:
    """Outputs as plain text: terminal codes removed, pictures named by their kind."""
    parts = []
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            parts.append(_overwrite(output["text"]))
        elif kind == "error":
            parts.append("\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}")
        else:
            data = output["data"]
            text = data.get("text/plain") or data.get("text/markdown") or ""
            pictures = [_picture(name, data[name]) for name in data if name.startswith("image/")]
            parts.append(str(text) + (f" [{pictures[0]}]" if pictures else ""))
    told = (_ANSI.sub("", part).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") for part in parts)
    return "\n".join(part for part in told if part.strip())


def _picture(kind: str, data: Any) -> str:
    """A picture's kind; of a PNG its size, too, which stands at its beginning."""
    if kind != "image/png" or not isinstance(data, str):
        return kind
    try:
        head = base64.b64decode("".join(data[:40].split())[:32])
    except ValueError:
        return kind
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        return kind
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    return f"{kind}, {width:,} x {height:,} pixels"


def without_counts(results: Sequence[CellResult]) -> str:
    """What cells gave, without the numbers that a kernel gives its cells: the same code gives the same
    text.
    """
    return "\n".join(_COUNT.sub("In[]", output_text(result.outputs)) for result in results)


def _overwrite(text: str) -> str:
    """A stream as it would stand in a terminal.

    Codes are gone. Of a line that was rewritten with carriage returns, as by a progress bar, the last form
    stays. (Carriage returns in data that was printed are no such ones: the kernel has made line ends of
    them.)
    """
    plain = _ANSI.sub("", text).replace("\r\n", "\n")
    return (
        "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in plain.split("\n"))
        if "\r" in plain
        else plain
    )


def truncate(text: str, limit: int) -> str:
    """The text, or its two ends of together `limit` characters with a notice between them."""
    if len(text) <= limit:
        return text
    head = limit // 2
    tail = limit - head
    gone = len(text) - limit
    return (
        f"{text[:head]}\n… [{gone:,} of {len(text):,} characters left out here] …\n{text[len(text) - tail :]}"
    )

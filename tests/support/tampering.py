"""A run with everything that a trace can prove, and all the ways in which somebody may change what it left."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Completion, Message, Usage
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session import documents
from rlm_kernel.session.ask import ask
from rlm_kernel.trace.reader import read_notebook, read_trace
from rlm_kernel.trace.sealed import sealed_node
from tests.support.story import repl

QUESTION, CHILD = "What is in it?", "CHILD: how many words?"
TEXT = "hello world\n" * 100 + "The pump failed on 3 March.\n"
QUOTE = "The pump failed on 3 March."
ANSWER = "It failed on 3 March; 206 words."
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OTHER_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
TURNS = [
    [
        f"import base64\nfrom IPython.display import Image, display\ndisplay(Image(base64.b64decode({PIXEL!r})))",
        "print(len(context.splitlines()))",
    ],
    [
        f"words = rlm_query({CHILD!r}, context)\nprint(words, llm_query_batched(['when?', 'who?'] + ['a' * 400]))"
    ],
    [f"cite({QUOTE!r})\nFINAL(f'It failed on 3 March; {{words}} words.')"],
]


class _Models(ScriptedModels):
    def __init__(self) -> None:
        super().__init__(self._root, lambda prompt: f"About {prompt[:10]}")

    def _root(self, messages: Sequence[Message]) -> str:
        if not any(QUESTION in message["content"] for message in messages):
            return repl("FINAL(str(len(context.split())))")
        return repl(*TURNS[sum(message["role"] == "assistant" for message in messages)])

    async def complete(self, *arguments: Any, **options: Any) -> Completion:
        from dataclasses import replace

        reply = await super().complete(*arguments, **options)
        return replace(reply, usage=Usage(100, 20), cost=0.001)


def record(folder: Path) -> Path:
    """The run's trace, with its input, its child, its prompts and its exports."""
    (folder / "a.txt").write_text(TEXT)
    trace = folder / "t.ipynb"
    settings = load_settings(None, {"sandbox.memory": "1g", "limits.depth": 1})
    result = asyncio.run(ask(QUESTION, folder / "a.txt", settings=settings, trace=trace, models=_Models()))
    assert result.answer == ANSWER, result
    export(trace)
    return trace


def export(trace: Path) -> None:
    found = read_trace(trace)
    trace.with_suffix(".html").write_text(documents.html(found), "utf-8")
    trace.with_suffix(".md").write_text(documents.markdown(found), "utf-8")
    lines = documents.records(found, None, lambda _why: None, children=True)
    trace.with_suffix(".jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")


def copied(trace: Path, folder: Path) -> Path:
    """A copy of all that belongs to a run, to be changed."""
    shutil.copytree(trace.parent, folder, dirs_exist_ok=True)
    return folder / trace.name


def change(trace: Path, how: Callable[[Any], object], *, sealed: bool) -> None:
    """Edit a notebook; `sealed`: and seal it anew, as whoever can write it can."""
    node = json.loads(trace.read_text("utf-8"))
    how(node)
    trace.write_text(json.dumps(node), "utf-8")
    if sealed:
        reseal(trace)


def reseal(trace: Path) -> None:
    found = sealed_node(read_notebook(trace), trace)
    node = json.loads(trace.read_text("utf-8"))
    node["metadata"]["rlm"].update(found.as_metadata())
    trace.write_text(json.dumps(node), "utf-8")


def cell(node: Any, name: str) -> Any:
    return next(one for one in node["cells"] if one["id"] == name)


def call(node: Any, cell_id: str, kind: str) -> Any:
    return next(one for one in cell(node, cell_id)["metadata"]["rlm"]["calls"] if one["kind"] == kind)


def source(one: Any) -> str:
    return one["source"] if isinstance(one["source"], str) else "".join(one["source"])


def said(name: str, old: str, new: str) -> Callable[[Any], None]:
    """Replaces a text of a cell."""

    def edit(node: Any) -> None:
        one = cell(node, name)
        assert old in source(one), (name, old)
        one["source"] = source(one).replace(old, new)

    return edit


def recorded(name: str, **fields: Any) -> Callable[[Any], None]:
    """Changes fields of a cell's record."""
    return lambda node: cell(node, name)["metadata"]["rlm"].update(fields)


def of_call(kind: str, **fields: Any) -> Callable[[Any], None]:
    return lambda node: call(node, "turn-02-a", kind).update(fields)


def evidence(**fields: Any) -> Callable[[Any], None]:
    return lambda node: cell(node, "answer")["metadata"]["rlm"]["evidence"][0].update(fields)


def notebook(**fields: Any) -> Callable[[Any], None]:
    return lambda node: node["metadata"]["rlm"].update(fields)


def _inserted(node: Any) -> None:
    new = copy.deepcopy(cell(node, "turn-01-b"))
    new["id"], new["source"] = "turn-01-c", "print('new')"
    node["cells"].insert(node["cells"].index(cell(node, "turn-01-b")) + 1, new)


def _swapped(node: Any) -> None:
    cells = node["cells"]
    one, other = cells.index(cell(node, "turn-01-a")), cells.index(cell(node, "turn-01-b"))
    cells[one], cells[other] = cells[other], cells[one]


def _outputs(name: str, **fields: Any) -> Callable[[Any], None]:
    def edit(node: Any) -> None:
        shown = next(one for one in cell(node, name)["outputs"] if "rlm" not in one.get("metadata", {}))
        for field, value in fields.items():
            if field == "png":
                shown["data"]["image/png"] = value
            else:
                shown[field] = value

    return edit


def _table(node: Any) -> None:
    shown = next(one for one in cell(node, "turn-02-a")["outputs"] if "rlm" in one.get("metadata", {}))
    html = shown["data"]["text/html"]
    text = html if isinstance(html, str) else "".join(html)
    assert "About when?" in text
    shown["data"]["text/html"] = text.replace("About when?", "Never")


def _code(node: Any) -> None:
    from rlm_kernel.trace.reader import code_digest

    one = cell(node, "turn-01-b")
    one["source"] = "print(7)"
    one["metadata"]["rlm"]["code_digest"] = code_digest("print(7)")


@dataclass(frozen=True)
class Tampering:
    """A change of a notebook.

    `named`: what `rlm verify` says of it, where the seal was left as it was. `by`: the claim that is broken
    although the forger sealed the notebook anew; "cells" is one that runs them again, "" none. `resealed`:
    what is said then.
    """

    name: str
    how: Callable[[Any], object]
    named: str
    by: str
    resealed: str


def _deleted(name: str) -> Callable[[Any], None]:
    return lambda node: node["cells"].remove(cell(node, name))


def _answer(node: Any) -> None:
    recorded("answer", text="It failed on 4 March; 206 words.")(node)
    said("answer", "3 March", "4 March")(node)
    said("title", "3 March", "4 March")(node)


TAMPERINGS = [
    Tampering(
        "answer-text", recorded("answer", text="Never"), "answer: the record", "answer", "5 characters"
    ),
    Tampering(
        "answer-shown",
        said("answer", "3 March", "4 March"),
        "answer: the text",
        "shown",
        "answer: the answer",
    ),
    Tampering(
        "answer-box",
        said("title", "3 March", "4 March"),
        "title: the text",
        "shown",
        "title: the title or the answer's box",
    ),
    Tampering(
        "answer-everywhere", _answer, "answer: the text", "cells", "answer: turn-03-a delivers another"
    ),
    Tampering(
        "final-output",
        _outputs("turn-02-a", text="9"),
        "turn-02-a: what it gave",
        "cells",
        "turn-02-a: differs",
    ),
    Tampering(
        "code", said("turn-01-b", "print", "repr"), "turn-01-b: the text", "code", "turn-01-b: its code"
    ),
    Tampering("code-with-digest", _code, "turn-01-b: the text", "code", "turn-01-b: the model's reply"),
    Tampering(
        "output", _outputs("turn-01-b", text="7\n"), "turn-01-b: what it gave", "cells", "turn-01-b: differs"
    ),
    Tampering(
        "picture",
        _outputs("turn-01-a", png=OTHER_PIXEL),
        "turn-01-a: what it gave",
        "cells",
        "turn-01-a: differs",
    ),
    Tampering(
        "deleted-cell",
        _deleted("turn-01-a"),
        "turn-01-a: the text is gone",
        "code",
        "turn-01-a: the model's reply",
    ),
    Tampering("deleted-last-cell", _deleted("turn-01-b"), "turn-01-b: the text is gone", "code", "turn-01-b"),
    Tampering(
        "deleted-reply", _deleted("turn-01"), "turn-01: the text is gone", "code", "turn-01: the reply"
    ),
    Tampering("inserted-cell", _inserted, "turn-01-c: the text was added", "code", "turn-01-c"),
    Tampering(
        "swapped-cells", _swapped, "turn-01-b stands where turn-01-a stood", "code", "turn-01-a stands behind"
    ),
    Tampering(
        "call-answer",
        of_call("llm_query", answer="Never"),
        "turn-02-a: the record",
        "shown",
        "turn-02-a: the table",
    ),
    Tampering("call-cost", of_call("llm_query", cost=5.0), "turn-02-a: the record", "account", "cost"),
    Tampering(
        "call-model", of_call("llm_query", model="other/model"), "turn-02-a: the record", "shown", "turn-02-a"
    ),
    Tampering(
        "call-tokens",
        of_call("llm_query", prompt_tokens=7),
        "turn-02-a: the record",
        "account",
        "prompt tokens",
    ),
    Tampering(
        "call-prompt",
        of_call("llm_query", preview="why?"),
        "turn-02-a: the record",
        "prompts",
        "another prompt",
    ),
    Tampering(
        "call-child-answer",
        of_call("rlm_query", answer="9"),
        "turn-02-a: the record",
        "children",
        "its answer",
    ),
    Tampering("call-table", _table, "turn-02-a: what it gave", "shown", "turn-02-a: the table of its calls"),
    Tampering(
        "turn-tokens", recorded("turn-01", prompt_tokens=1), "turn-01: the record", "account", "prompt tokens"
    ),
    Tampering("turn-cost", recorded("turn-01", cost=1.0), "turn-01: the record", "account", "cost"),
    Tampering(
        "totals",
        lambda node: node["metadata"]["rlm"]["totals"].update(turns=9),
        "metadata.rlm.totals was changed",
        "account",
        "turns: the totals say 9",
    ),
    Tampering(
        "file-digest",
        lambda node: node["metadata"]["rlm"]["files"][0].update(sha256="0" * 64),
        "metadata.rlm.files was changed",
        "files",
        "its sha256 is not",
    ),
    Tampering(
        "file-size",
        lambda node: node["metadata"]["rlm"]["files"][0].update(size=5),
        "metadata.rlm.files was changed",
        "files",
        "then it had 5",
    ),
    Tampering("evidence-span", evidence(start=3), "answer: the record", "evidence", "[1]"),
    Tampering(
        "evidence-unit",
        evidence(unit="characters", verdict="unread", line=0),
        "answer: the record",
        "answer",
        "its evidence",
    ),
    Tampering("evidence-line", evidence(line=7), "answer: the record", "evidence", "stands in line 101"),
    Tampering("evidence-mark", evidence(mark=2), "answer: the record", "answer", "its evidence"),
    Tampering("evidence-quote", evidence(quote=QUOTE.upper()), "answer: the record", "evidence", "[1]"),
    Tampering(
        "evidence-file", evidence(path="/etc/hostname"), "answer: the record", "evidence", "/etc/hostname"
    ),
    Tampering(
        "timeline", said("summary", "base64,", "base64,AAAA"), "summary: the text", "shown", "the timeline"
    ),
    Tampering(
        "costs", said("summary", "| Root model |", "| A model |"), "summary: the text", "shown", "the costs"
    ),
    Tampering(
        "question", notebook(question="What else?"), "metadata.rlm.question was changed", "shown", "title"
    ),
    Tampering(
        "words", said("turn-01", "Now this.", "Not this."), "turn-01: the text", "shown", "turn-01: the words"
    ),
    Tampering("reply", recorded("turn-01", reply="Not this."), "turn-01: the record", "code", "turn-01-a"),
    Tampering(
        "heading", said("turn-02", "sub-calls", "calls"), "turn-02: the text", "shown", "heading of the turn"
    ),
    Tampering(
        "time-of-a-cell", recorded("turn-01-b", seconds=99.0), "turn-01-b: the record", "shown", "turn-01-b"
    ),
    Tampering(
        "start-of-a-cell",
        lambda node: cell(node, "turn-01-b")["metadata"]["execution"].update(
            {"iopub.execute_input": "2020-01-01T00:00:00+00:00"}
        ),
        "turn-01-b: the record",
        "shown",
        "turn-01-b: its times",
    ),
    Tampering(
        "model", notebook(models={"root": "a/b", "sub": "c/d"}), "metadata.rlm.models", "shown", "title"
    ),
    Tampering(
        "stop-reason",
        notebook(stop_reason="turns"),
        "metadata.rlm.stop_reason",
        "answer",
        "stop_reason is turns",
    ),
    Tampering("limits", notebook(limits={"turns": 1}), "metadata.rlm.limits was changed", "", ""),
    Tampering("image", notebook(image_digest="sha256:0"), "metadata.rlm.image_digest was changed", "", ""),
]

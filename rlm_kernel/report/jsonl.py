"""The calls of models in a trace, one object each: as training data (the `messages` of OpenAI's chat format),
and for other viewers. docs/export.md has the fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rlm_kernel.engine.protocols import TOKENS
from rlm_kernel.trace.calls import was_made
from rlm_kernel.trace.prompts import PromptFile
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta, CellMeta, tokens_of, usage_of

PREVIEW = 200
"""Characters of a prompt that the notebook has; one with fewer is whole there."""
_CUT = "[redacted]"
Only = Literal["root", "sub"]


def records(
    trace: TraceFile, prompts: PromptFile, name: str, only: Only | None = None
) -> Iterator[dict[str, Any]]:
    """The calls of a trace that were made, in the order of its cells, without those of its children, which
    have traces of their own.

    `name`: of the trace, for `trace`. All texts are texts and all numbers numbers, but `cost`, which is None
    where it is not known.
    """
    around = _around(trace, name)
    for cell in trace.cells:
        if cell.meta is None:
            continue
        if cell.kind in ("model", "memory") and only != "sub":
            yield _of_root(cell, cell.meta, prompts) | around
        if only != "root":
            for call in cell.meta.calls:
                if was_made(call) and not call.trace:
                    yield _of_call(cell, call, prompts) | around


def _around(trace: TraceFile, name: str) -> dict[str, Any]:
    parent = trace.meta.parent
    return {
        "trace": name,
        "session": trace.meta.session,
        "parent": parent.session if parent else "",
        "parent_cell": parent.cell if parent else "",
    }


def _of_root(cell: TraceCell, meta: CellMeta, prompts: PromptFile) -> dict[str, Any]:
    if cell.kind == "memory":
        reply, sent = meta.text or "", prompts.messages_of_memory(meta.text or "")
    else:
        reply, sent = meta.reply or "", prompts.messages_of_turn(cell.turn)
    known = [{"role": "user", "content": meta.told}] if meta.told else []
    usage = {f"{token}_tokens": getattr(meta, f"{token}_tokens") or 0 for token in TOKENS}
    return {
        **_said(known if sent is None else sent, reply, answered=True),
        "complete": sent is not None,
        "call": "root",
        "kind": "memory" if cell.kind == "memory" else "turn",
        "model": meta.model or "",
        "reply": reply,
        "error": "",
        "schema": "",
        **usage,
        "cost": meta.cost,
        "seconds": meta.seconds or 0.0,
        "started": "",
        "attempts": 1,
        "stored": False,
        "cut": False,
        "turn": cell.turn,
        "cell": cell.id,
        "id": "",
    }


def _of_call(cell: TraceCell, call: CallMeta, prompts: PromptFile) -> dict[str, Any]:
    sent = prompts.messages_of_call(call.prompt_digest)
    schema = prompts.schema_of_call(call.prompt_digest)
    if call.kind == "rlm_query":  # at the limit of depth: the question went out with its context
        complete, schema = prompts.has_sent(call.prompt_digest), None
    else:
        complete = sent is not None or (len(call.preview) < PREVIEW and _CUT not in call.preview)
    reply = call.answer if isinstance(call.answer, str) else json.dumps(call.answer, ensure_ascii=False)
    answered = call.error is None
    said = _said(
        sent or [{"role": "user", "content": call.preview}], reply if answered else "", answered=answered
    )
    pictures = [
        {name: getattr(image, name) for name in ("digest", "media_type", "size", "width", "height")}
        for image in call.images
    ]
    if pictures:
        said["images"] = json.dumps([{"message": 0, **picture} for picture in pictures])
    return {
        **said,
        "complete": complete,
        "call": "sub",
        "kind": call.kind,
        "model": call.model or "",
        "reply": reply if answered else "",
        "error": call.error or "",
        "schema": "" if schema is None else json.dumps(schema, ensure_ascii=False),
        **tokens_of(usage_of(call)),
        "cost": call.cost,
        "seconds": call.seconds,
        "started": call.started.isoformat(),
        "attempts": call.attempts,
        "stored": call.stored,
        "cut": call.cut,
        "turn": cell.turn,
        "cell": cell.id,
        "id": call.id,
    }


def _said(sent: Sequence[Mapping[str, Any]], reply: str, *, answered: bool) -> dict[str, Any]:
    """The messages as a chat, with the reply at its end, and what is known of the pictures in them."""
    messages = [{"role": one["role"], "content": one["content"]} for one in sent]
    images = [
        {"message": number, **picture}
        for number, one in enumerate(sent)
        for picture in one.get("images", ())
        if isinstance(picture, dict)
    ]
    if answered:
        messages.append({"role": "assistant", "content": reply})
    # As text: readers that guess a column's type from its first rows see lists that are empty there.
    return {"messages": messages, "images": json.dumps(images) if images else ""}

"""Whether the answer of a trace is the one that its code, or its root model, delivered."""

from __future__ import annotations

from collections.abc import Iterator

from rlm_kernel.engine.answers import words_of
from rlm_kernel.engine.evidence import final_body
from rlm_kernel.engine.finals import meaning, unmarked
from rlm_kernel.engine.hostcalls import digest
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.proof.claims import REDACTED, Claim, by_another_version, claim, has_ended, not_checked
from rlm_kernel.trace.document import ANSWER_CAP
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta, CellMeta


def check_answer(trace: TraceFile) -> Claim:
    """The claim `answer`: of the last question."""
    meta = trace.meta
    closing = next((cell for cell in reversed(trace.cells) if cell.kind == "answer" and cell.meta), None)
    if meta.status == "running":
        return not_checked("answer", "the run is in progress, or was cut off: it has no answer yet")
    if not has_ended(trace):
        return claim("answer", [], "no question is open, because the last one was undone")
    if closing is None or closing.id != "answer" or closing.meta is None:
        return claim("answer", ["answer: the cell with the answer is missing"], "")
    text = closing.meta.text
    if text is None and meta.stop_reason == "answered" and (other := by_another_version(trace)):
        return not_checked("answer", f"{other}; its answer stands in no record")
    if text is None:
        wrong = ["metadata.rlm.stop_reason says answered, and there is no answer"]
        return claim(
            "answer", wrong if meta.stop_reason == "answered" else [], f"there is none: {meta.stop_reason}"
        )
    if meta.stop_reason != "answered" and not meta.forced:
        reason = f"metadata.rlm.stop_reason is {meta.stop_reason}, and there is an answer"
        return claim("answer", [reason], "")
    cell, call = delivering(trace)
    if call is not None and cell is not None:
        return claim("answer", _of_record(cell, call, closing.meta), f"as {cell.id} delivered it")
    return claim("answer", _of_words(trace, text), "as the root model's last reply has it")


def delivering(trace: TraceFile) -> tuple[TraceCell | None, CallMeta | None]:
    """The cell whose code gave the answer to the last question, and its call; None where no code did."""
    for cell in reversed(trace.cells):
        if cell.kind == "question":
            break
        if cell.meta is not None and cell.kind == "code":
            for call in reversed(cell.meta.calls):
                if call.kind == "final" and call.error is None:
                    return cell, call
    return None, None


def _of_record(cell: TraceCell, call: CallMeta, closing: CellMeta) -> Iterator[str]:
    text, evidence = closing.text or "", [one.evidence() for one in closing.evidence]
    secret = any(REDACTED in one.quote for one in evidence)
    characters = call.answer if isinstance(call.answer, int) else -1
    if not secret and call.prompt_digest != digest("final", final_body(characters, evidence)):
        given = " or its evidence is not that which was delivered" if evidence else ""
        yield f"{cell.id}: the record of the final answer (call {call.id}) does not agree with itself{given}"
    if REDACTED not in text and len(text) < ANSWER_CAP and call.answer != len(text):
        yield f"answer: it has {len(text):,} characters; {cell.id} delivered {call.answer:,}"


def _of_words(trace: TraceFile, text: str) -> Iterator[str]:
    last = next((cell for cell in reversed(trace.cells) if cell.kind == "model" and cell.meta), None)
    reply = "" if last is None or last.meta is None else last.meta.reply or ""
    if REDACTED in text or REDACTED in reply:
        return
    parsed = parse_reply(reply)
    given = {
        words_of(parsed.prose),
        (meaning(unmarked(parsed.final.text)).text or "") if parsed.final else "",
    }
    if text not in given and " ".join(text.split()) not in " ".join(reply.split()):
        yield "answer: neither the code of a cell nor the last reply of the root model has it"

"""Whether the file of prompts is that of its trace: what calls and turns sent, by their digests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlm_kernel.engine.hostcalls import digest
from rlm_kernel.engine.protocols import MODEL_CALLS, counted
from rlm_kernel.proof.account import own_from
from rlm_kernel.proof.claims import REDACTED, Claim, claim, not_checked
from rlm_kernel.trace.calls import was_made
from rlm_kernel.trace.prompts import PromptFile
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.schema import CallMeta


def check_prompts(trace: TraceFile, prompts: PromptFile) -> Claim:
    """The claim `prompts`. Blocking."""
    if not trace.meta.prompts:
        return not_checked("prompts", "the trace keeps the beginnings of prompts alone")
    checked = _Checked(trace, prompts)
    faults = list(checked.faults())
    if prompts.trouble:
        faults.insert(0, prompts.trouble)
    unsure = f"; of {counted(checked.unsure, 'prompt')} the beginning alone" if checked.unsure else ""
    return claim("prompts", faults, f"{counted(checked.known, 'text')} with the recorded digests{unsure}")


class _Checked:
    def __init__(self, trace: TraceFile, prompts: PromptFile) -> None:
        self._trace = trace
        self._prompts = prompts
        self.known = self.unsure = 0
        ends = [own_from(trace, origin) for origin in trace.meta.origins if origin.kind == "fork"]
        self._before = {cell.id for cell in trace.cells[: max(ends, default=0)]}
        """The cells of the trace that was forked: its file of prompts may not have been beside it."""

    def faults(self) -> Iterator[str]:
        for cell in self._trace.cells:
            if cell.meta is None:
                continue
            if cell.kind == "model" and not cell.meta.again:  # else it was asked in the trace that is applied
                yield from self._turn(cell.turn, cell.id, cell.meta.told)
            for call in cell.meta.calls:
                if call.kind in MODEL_CALLS and was_made(call):
                    yield from (f"{cell.id}: call {call.id}: {fault}" for fault in self._call(call))

    def _turn(self, turn: int, name: str, told: str) -> Iterator[str]:
        messages = self._prompts.messages_of_turn(turn)
        if messages is None and name in self._before:
            self.unsure += 1
            return
        if messages is None:
            yield f"{name}: what the root model was sent is not in the file of prompts"
            return
        self.known += 1
        last = messages[-1]["content"] if messages else ""
        if told and REDACTED not in last and not last.endswith(told):
            yield f"{name}: the file of prompts has another message for this turn"

    def _call(self, call: CallMeta) -> Iterator[str]:
        line = self._prompts.call(call.prompt_digest)
        if line is None:
            if not call.again:
                yield "its prompt is not in the file of prompts"
            return
        prompt = str(line.get("prompt", ""))
        if REDACTED in prompt or REDACTED in call.preview:
            self.unsure += 1
        elif not prompt.startswith(call.preview):
            yield "the file of prompts has another prompt for it"
        elif call.kind == "llm_query" and not call.images:
            yield from self._digest(call, prompt, line.get("schema"))
        else:  # the digest covers its context or its pictures, too, which are not here
            self.unsure += 1

    def _digest(self, call: CallMeta, prompt: str, schema: Any) -> Iterator[str]:
        more = {} if schema is None else {"schema": schema}
        named = self._trace.meta.models
        for model in dict.fromkeys((None, call.role, call.model, *named, *named.values())):
            if digest("llm_query", {"prompt": prompt, "model": model, **more}) == call.prompt_digest:
                self.known += 1
                return
        yield "the prompt in the file of prompts does not have the digest that the call names"

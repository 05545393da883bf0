"""The events of a run as text that chat programs show as reasoning."""

from __future__ import annotations

from collections.abc import Callable

from rlm_kernel.engine import events
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import MODEL_CALLS, CellResult
from rlm_kernel.engine.totals import counted
from rlm_kernel.printable import printable

MAX_TOLD = 200_000
"""Characters of one answer's reasoning."""
_OUTPUT = 1_000
"""Characters of a cell's output."""
Put = Callable[[str], None]


class Reasoning:
    """A listener that tells what a run does: what the root model says, its cells and their outputs."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._told = 0
        self._heard = False
        """Pieces of the reply of this turn came."""

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.TurnStarted(turn):
                self._heard = False
                self.tell(f"\n\nTurn {turn}\n\n")
            case events.TurnPiece(text=text):
                self._heard = True
                self.tell(text)
            case events.TurnReplied(reply=reply) if not self._heard:
                self.tell("\n".join(filter(None, (reply.thoughts, reply.text))))
            case events.CellFinished(turn, result) if turn:
                self._cell(result)
            case events.CallRetried(call_id="", retry=retry):
                self.tell(f"\n[The root model is asked again in {max(0.0, retry.seconds):,.0f} s.]\n")
            case events.Noted(text):
                self.tell(f"\n[{text}]\n")
            case events.Summarized():
                self.tell("\n[rlm summarised the turns so far.]\n")

    def say(self, text: str) -> None:
        """What is being set up, a line at a time."""
        self.tell(f"{text}\n")

    def tell(self, text: str) -> None:
        """Text for people; once there was too much of it, nothing."""
        left = MAX_TOLD - self._told
        if left <= 0 or not text:
            return
        self._told += len(text)
        shown = printable(text)
        self._put(shown if len(shown) <= left else f"{shown[:left]}\n[…]\n")

    def _cell(self, result: CellResult) -> None:
        calls = sum(call.kind in MODEL_CALLS for call in result.calls)
        made = f", {counted(calls, 'sub-call')}" if calls else ""
        shown = output_text(result.outputs).strip()
        if len(shown) > _OUTPUT:
            shown = f"{shown[:_OUTPUT]}\n[…]"
        self.tell(f"\n\n[The code ran: {result.status} in {result.seconds:.1f} s{made}]\n")
        self.tell(f"{shown}\n" if shown else "")

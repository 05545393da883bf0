"""The guard over answers: which are not taken, and when a run that leads nowhere is given up."""

from __future__ import annotations

from collections.abc import Sequence

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.python import looks_at_input
from rlm_kernel.engine.replies import Reply
from rlm_kernel.engine.values import CellResult, StopReason

_PATIENCE = 3
"""Replies in a row with nothing to run before the run is given up."""
_TRIES = 4
"""Turns with the same code that gave the same, before the run is given up."""


class Exhausted(Exception):
    """The run must end: one last answer is asked for."""

    def __init__(self, reason: StopReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Guard:
    """Turns down an answer that came before any code looked at the input, and one after an error about which
    nothing was done: each once.

    `looked`: code has looked at the input, or there is none.
    """

    def __init__(self) -> None:
        self.looked = False
        self._told_to_look = False
        self._told_of_error = False
        self._failed = False
        """The last cell ended in an error."""
        self._last: tuple[tuple[str, ...], str] = ((), "")
        """The code of the last turn, and what it gave."""
        self._idle = 0
        self._tries = 1
        """Turns in a row with code that were the same, and gave the same."""

    def see(self, code: str) -> None:
        """Code was run."""
        self.looked = self.looked or looks_at_input(code)

    def recall(self, results: Sequence[CellResult], remarks: Sequence[say.Remark]) -> None:
        """Take up what was run and remarked in an earlier part of the run."""
        for result in results:
            self.see(result.code)
        self._told_to_look = self._told_to_look or say.NOT_LOOKED in remarks
        self._told_of_error = self._told_of_error or say.AFTER_ERROR in remarks

    def new_question(self) -> None:
        """A further question is put: an error before it is no matter any more."""
        self._failed = False

    def hasty(self, reply: Reply) -> bool:
        """Whether a reply delivers an answer after an error, with nothing done about it."""
        return self._failed and reply.only_delivers and not self._told_of_error

    def turn_ended(self, reply: Reply, results: Sequence[CellResult]) -> bool:
        """Remember how a turn's cells ended; whether they were the last turn's, and gave the same."""
        if not results:
            return False
        self._failed = results[-1].status != "ok"
        before, self._last = self._last, (reply.cells, say.without_counts(results))
        same = self._last == before
        self._tries = self._tries + 1 if same else 1
        return same

    def objection(self, *, hasty: bool) -> str | None:
        """Why an answer that was given is not taken, for the root model; None: it stands."""
        if not self.looked and not self._told_to_look:
            self._told_to_look = True
            return say.NOT_LOOKED
        if hasty:
            self._told_of_error = True
            return say.AFTER_ERROR
        return None

    def count(self, results: Sequence[CellResult]) -> None:
        """Count replies with nothing to run, and turns that were the same. Raises Exhausted after too many in
        a row.
        """
        self._idle = 0 if results else self._idle + 1
        if self._idle >= _PATIENCE:
            raise Exhausted("no_answer", f"The last {self._idle} replies had nothing to run.")
        if self._tries >= _TRIES:
            raise Exhausted("no_answer", f"The same code was run {self._tries} times, and gave the same.")

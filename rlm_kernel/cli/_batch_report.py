"""What `rlm batch` tells of a batch: how far it is, and in the end what came of it and what to type next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.cli._text import shown_path
from rlm_kernel.engine.totals import counted, duration
from rlm_kernel.views.batch import Counts

if TYPE_CHECKING:
    from rlm_kernel.session.batch.doing import Doing
    from rlm_kernel.session.batch.item import Done
    from rlm_kernel.session.batch.questions import Entry
    from rlm_kernel.session.batch.run import Tally


class Report:
    """Counts of a batch as they are now. `go_on`: the command to type."""

    def __init__(self, out: Path, go_on: str) -> None:
        import time

        from rlm_kernel.session.batch.run import Tally

        self.go_on = go_on
        self.total: int | None = None
        self.tally: Tally = Tally()
        self.doing: Callable[[], Mapping[str, Doing]] = dict
        """What the questions that run have used so far, by their ids."""
        self._out = self.traces = out
        self._clock = time.monotonic
        self._began = self._clock()

    def counts(self) -> Counts:
        """For the live view."""
        now = self.tally
        before = sum(now.before.values()) - now.before["answered"]
        total = now.done + now.running if now.all_read else self.total
        failed = now.failed + now.no_answer + now.bad + before
        going = list(self.doing().values())
        return Counts(
            total,
            now.done,
            now.asked,
            failed,
            min(now.running, now.places),
            now.paid.cost,
            sum(one.cost for one in going),
            sum(one.turns for one in going),
            sum(one.calls for one in going),
        )

    def event(self, entry: Entry, done: Done) -> Mapping[str, Any]:
        """A question that is done, for `--json-events`."""
        result, failure = done.result, done.failure
        status = "failed" if result is None else "no_answer" if result.answer is None else "answered"
        counts = self.counts()
        return {
            "id": str(entry.id),
            "status": status,
            "error": f"{failure.kind}: {failure.message}" if failure else None,
            "node": done.node,
            "done": counts.done,
            "failed": counts.failed,
            "running": counts.running,
            "total": counts.total,
            "spent": counts.spent,
        }

    def so_far(self) -> str:
        """For who interrupts it; "" as long as nothing was done."""
        if not self.tally.begun:
            return ""
        stopped = min(self.tally.begun - self.tally.asked, self.tally.places)
        left = f" ({counted(stopped, 'other')} stopped; the next run asks them again)" if stopped else ""
        return (
            f" after {self._asked()}{left}. The answers are in {shown_path(self._out)}; "
            f"to continue:\n{self.go_on}"
        )

    def lines(self, *, next_: bool) -> Iterator[str]:
        """What came of it, for people. `next_`: with what to type next, where something failed."""
        from rlm_kernel.report.batchindex import PAGE

        now = self.tally
        answered = now.answered + now.before["answered"]
        yield f"{counted(now.done - now.bad, 'question')}: {answered:,} answered{self._others()}"
        earlier = sum(now.before.values())
        told = [
            self._asked(),
            *([f"{earlier:,} in the results before"] if earlier else []),
            *([f"{now.changed:,} asked again because they changed"] if now.changed else []),
            *([f"{now.again:,} asked again"] if now.again else []),
        ]
        yield f"this run: {', '.join(told)}"
        if now.asked > 1:
            slowest = (f"{id_[:40]} {seconds:,.1f} s" for seconds, id_ in sorted(now.slowest, reverse=True))
            yield f"slowest: {', '.join(slowest)}"
        yield f"results: {shown_path(self._out)}"
        page = self.traces / PAGE
        yield f"traces: {shown_path(page if page.is_file() else self.traces)}"
        if next_ and (command := self._next()):
            yield f"next: {command}"

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        now = self.tally
        return {
            "questions": now.done,
            "answered": now.answered + now.before["answered"],
            "no_answer": now.no_answer + now.before["no_answer"],
            "failed": now.failed + now.before["failed"],
            "bad_lines": now.bad,
            "kinds": dict(now.kinds),
            "asked": now.asked,
            "changed": now.changed,
            "again": now.again,
            "cost": None if now.paid.unpriced else now.paid.cost,
            "known_cost": now.paid.cost,
            "tokens": now.paid.tokens,
            "calls": now.calls,
            "seconds": round(self._clock() - self._began, 3),
            "results": str(self._out),
            "traces": str(self.traces),
        }

    def _others(self) -> str:
        """Those that have no answer, by kind."""
        now = self.tally
        none = now.no_answer + now.before["no_answer"]
        failed = now.failed + now.before["failed"]
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in now.kinds.most_common(5) if count)
        told = [
            *([f"{none:,} without an answer"] if none else []),
            *([f"{failed:,} failed"] if failed else []),
            *([f"{counted(now.bad, 'line')} skipped"] if now.bad else []),
        ]
        return f", {', '.join(told)}{f' ({kinds})' if kinds else ''}" if told else ""

    def _asked(self) -> str:
        now, seconds = self.tally, self._clock() - self._began
        return ", ".join(
            [
                f"{counted(now.asked, 'question')} asked",
                counted(now.calls, "call"),
                counted(now.paid.tokens, "token"),
                _money(now.paid.cost, now.paid.unpriced),
                duration(seconds),
            ]
        )

    def _next(self) -> str:
        now = self.tally
        none = now.no_answer + now.before["no_answer"] + now.failed + now.before["failed"]
        if not none or "--retry-all" in self.go_on or ("--retry" in self.go_on and not now.passing):
            return ""
        go_on = self.go_on.removesuffix(" --retry-failed")
        return f"{go_on} --retry-{'failed' if now.passing else 'all'}"


def _money(known: float, unpriced: int) -> str:
    from rlm_kernel.report.outline import money_of

    return money_of(known, unpriced) or "no cost"

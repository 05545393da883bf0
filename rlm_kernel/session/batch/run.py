"""A batch at work: questions are read as there is room for them, asked in their order, and told as they
come.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import Totals, Usage
from rlm_kernel.engine.purse import BATCH
from rlm_kernel.errors import BudgetExceeded, NoAnswer, RLMError, UsageError
from rlm_kernel.loops import to_its_end
from rlm_kernel.session.answertypes import AnswerType
from rlm_kernel.session.batch.doing import Doing
from rlm_kernel.session.batch.engine import Engine
from rlm_kernel.session.batch.failures import failure_of
from rlm_kernel.session.batch.item import Done, Failure, Item
from rlm_kernel.session.batch.questions import Entries, Entry
from rlm_kernel.session.batch.results import Paid, Results, Retry, row_of
from rlm_kernel.session.batch.rows import BadLine
from rlm_kernel.session.batch.stopped import counts, spent, stopped
from rlm_kernel.session.batch.traces import Traces

AHEAD = 2
"""Questions that wait for a place, so that none is empty while the next question is read."""
LOOK_SECONDS = 1.0
"""Between two looks at the places of the engine."""
ALIKE = 10
"""Failures of one kind, and nothing else since the start, after which a batch ends."""
_SLOWEST = 3


@dataclass(frozen=True)
class Budget:
    """What all questions of a batch may use together, earlier runs of it included; None: no limit."""

    cost: float | None = None
    tokens: int | None = None

    def left(self, paid: Paid) -> Budget:
        """What earlier runs of the batch have left of it."""
        return Budget(
            None if self.cost is None else max(0.0, self.cost - paid.cost),
            None if self.tokens is None else max(0, self.tokens - paid.tokens),
        )

    def of_each(self, settings: Settings) -> Settings:
        """The settings of one question: with a limit of money for all, it has one, too, so that a model whose
        price is not known is refused.
        """
        if self.cost is None or settings.limits.cost is not None:
            return settings
        limits = settings.limits.model_copy(update={"cost": self.cost})
        return settings.model_copy(update={"limits": limits})

    def used_up(self, paid: Paid) -> str:
        """What is used up, in words; "" while there is some left."""
        if self.cost is not None and paid.cost >= self.cost:
            return f"${paid.cost:,.4f} of ${self.cost:,.4f}"
        if self.tokens is not None and paid.tokens >= self.tokens:
            return f"{paid.tokens:,} of {self.tokens:,} tokens"
        return ""


@dataclass(frozen=True)
class How:
    """How a batch is asked. `retry`: what of the results is asked again; `keep_going`: however many fail at
    the beginning; `answer_type`: of the answers to questions that have its schema.
    """

    budget: Budget = Budget()
    retry: Retry = "no"
    keep_going: bool = False
    answer_type: AnswerType | None = None

    def typed(self, item: Item, done: Done) -> Done:
        """The answer as a value of its type. Raises NoAnswer where it is none."""
        wanted = self.answer_type
        if done.result is None or wanted is None or item.schema is not wanted.schema:
            return done
        return replace(done, result=wanted.of(done.result))


class Tally:
    """How far a batch is."""

    def __init__(self) -> None:
        self.answered = self.no_answer = self.failed = 0
        """By this run, as `bad`, lines that are no questions, and `begun`, those that an engine was given."""
        self.bad = self.begun = self.running = 0
        self.places = 0
        """Of the engine: others of those that run wait for one."""
        self.before: Counter[str] = Counter()
        """How questions ended earlier that need not be asked, by status."""
        self.kinds: Counter[str] = Counter()
        """Of failures, and the stop reasons of questions without an answer; earlier ones, too."""
        self.passing = 0
        """Failures that may be over another time, earlier ones, too."""
        self.again = self.changed = 0
        """Questions that were asked once more, and because they have changed."""
        self.paid = Paid()
        """By this run, as `calls`, without what calls may have used that were given up: that is `lost`, which
        counts against limits and is not shown.
        """
        self.lost = Paid()
        self.calls = 0
        self.all_read = False
        """Whether there are no more questions."""
        self.slowest: list[tuple[float, str]] = []

    @property
    def asked(self) -> int:
        """By this run."""
        return self.answered + self.no_answer + self.failed

    @property
    def done(self) -> int:
        """Lines that need no more."""
        return self.asked + sum(self.before.values()) + self.bad

    @property
    def whole(self) -> bool:
        """Whether every question has an answer."""
        return not (
            self.no_answer or self.failed or self.bad or self.before["failed"] or self.before["no_answer"]
        )

    def count(self, entry: Entry, done: Done, totals: Totals) -> None:
        """Another question is done."""
        result = done.result
        self.answered += result is not None and result.answer is not None
        self.no_answer += result is not None and result.answer is None
        self.failed += result is None
        if result is None or result.answer is None:
            self.kinds[done.failure.kind if done.failure else result.stop_reason if result else ""] += 1
        self.passing += done.failure is not None and done.failure.passing
        self.pay(totals)
        heapq.heappush(self.slowest, (done.seconds, str(entry.id)))
        if len(self.slowest) > _SLOWEST:
            heapq.heappop(self.slowest)

    def pay(self, totals: Totals) -> None:
        """A question has used so much, whether it is done or was stopped."""
        self.paid += Paid(totals.known_cost, totals.usage.total, totals.unpriced)
        self.lost += Paid(totals.lost_cost, math.ceil(totals.lost_tokens))
        self.calls += totals.turns + totals.calls


@dataclass(frozen=True)
class Heard:
    """Who hears of a batch, on its event loop: of each question that is done, and each bad line."""

    done: Callable[[Entry, Done], None] = lambda _entry, _done: None
    bad: Callable[[BadLine], None] = lambda _line: None


class Batch:
    """Many questions, asked by an engine."""

    def __init__(
        self,
        engine: Engine,
        traces: Traces,
        results: Results | None = None,
        how: How = How(),
    ) -> None:
        """`results`: where each result goes, and what need not be asked again."""
        self._engine, self._traces, self._results, self._how = engine, traces, results, how
        self._heard = Heard()
        self._ids: dict[str, str] = {}
        """Of the questions that are asked now, by the names that the engine knows them by."""
        self._used: Mapping[str, Doing] = {}
        """By the questions that were at work when all were stopped."""
        self._first: Counter[str] = Counter()
        """Kinds of failures, until anything else comes."""
        self.tally = Tally()

    def doing(self) -> Mapping[str, Doing]:
        """As of Engine, by the ids that the questions were given."""
        return {self._ids.get(name, name): doing for name, doing in self._engine.doing().items()}

    async def run(self, entries: Entries, heard: Heard = Heard()) -> AsyncGenerator[Done, None]:
        """What comes of each question, as it comes; a bad line is a failure. What is in the results already
        is neither asked nor told.

        Leaving it stops what runs, which is asked again another time; what it has used by then is in the
        results, as is what has its answer.

        Raises:
            BudgetExceeded: all may use no more; what was running has ended by itself.
            RLMError: what would fail every question, or the results cannot be written.
        """
        self._heard = heard
        wanted = self._wanted(entries)
        running: set[asyncio.Task[Done]] = set()
        reading: asyncio.Future[Entry | BadLine | None] | None = None
        ended: RLMError | None = None
        try:
            while True:
                self.tally.places = self._engine.places
                room = len(running) < self.tally.places + AHEAD
                if reading is None and room and ended is None and not self.tally.all_read:
                    reading = _in_daemon(wanted)
                if not running and (reading is None or ended is not None):
                    break
                waited = {*running, *({reading} if reading is not None else ())}
                # There may be more places by then, though no question is done yet.
                await asyncio.wait(waited, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if reading is not None and reading.done():
                    one, reading = reading.result(), None
                    if one is None:
                        self.tally.all_read = True
                    elif isinstance(one, BadLine):
                        yield self._bad(one)
                    elif (ended := ended or self._used_up()) is None:
                        running.add(asyncio.create_task(self._one(one)))
                for task in [task for task in running if task.done()]:
                    running.discard(task)
                    try:
                        done = task.result()
                    except BudgetExceeded as error:
                        ended = error
                        continue
                    if done.result is not None and done.result.stop_reason == BATCH:
                        ended = ended or self._used_up() or _over("the rest is too little for another call")
                    yield done
                    self._check(done)
        finally:
            if reading is not None:
                reading.cancel()
            self._used = self._engine.doing()
            await _stopped(running)
        if ended is not None:
            raise ended

    def _bad(self, line: BadLine) -> Done:
        """What comes of a line that is no question."""
        self.tally.bad += 1
        self._heard.bad(line)
        return Done(Item(f"line-{line.number}", ""), failure=Failure(UsageError.__name__, line.why))

    def _wanted(self, entries: Entries) -> Iterator[Entry | BadLine]:
        """Those that are to be asked. In the thread that reads."""
        for entry in entries:
            if isinstance(entry, BadLine) or self._results is None:
                yield entry
                continue
            why = self._results.why(entry, self._how.retry)
            if why is None:
                last = self._results.last(entry)
                self.tally.before[last.status] += 1
                if last.status != "answered":
                    self.tally.kinds[last.kind] += 1
                    self.tally.passing += last.passing
                continue
            self.tally.changed += why == "changed"
            self.tally.again += why == "again"
            yield entry

    async def _one(self, entry: Entry) -> Done:
        """Ask a question, and keep what came of it; a cancellation takes nothing of that away."""
        self.tally.begun += 1
        self.tally.running += 1
        with self._traces.place(entry.item.id) as trace:
            self._ids[entry.item.id] = str(entry.id)
            try:
                if (known := self._results) is not None:
                    add, attempt = known.begun.add, known.attempt(entry)
                    await to_its_end(asyncio.to_thread(add, entry, attempt, trace))
                done = await self._engine.answer(entry.item, trace)
            except BaseException:
                await to_its_end(self._keep_stopped(entry, trace))
                raise
            finally:
                self.tally.running -= 1
                del self._ids[entry.item.id]
            try:
                typed = self._how.typed(entry.item, done)
            except NoAnswer as error:
                typed = done = replace(done, result=None, failure=failure_of(error, entry.item))
            await to_its_end(self._keep(entry, done))  # the results have plain data
            return typed

    async def _keep(self, entry: Entry, done: Done) -> None:
        totals = await asyncio.to_thread(spent, done)
        if self._results is not None:
            row = row_of(
                entry, done, totals, self._results.attempt(entry), self._results.path.absolute().parent
            )
            await self._results.add(row)
            self._results.begun.ended(entry)
        self.tally.count(entry, done, totals)
        self._heard.done(entry, done)

    async def _keep_stopped(self, entry: Entry, trace: Path) -> None:
        """A question that was stopped half-way has a line of what it has used, which later runs count."""
        done = stopped(entry.item, trace)
        totals = await asyncio.to_thread(spent, done)
        if not counts(totals) and (seen := self._used.get(entry.item.id)):
            done = replace(done, trace=None, node=seen.node)  # it is on another machine
            totals = Totals(known_cost=seen.cost, root_usage=Usage(seen.tokens, 0), turns=seen.turns)
        self.tally.pay(totals)
        if self._results is not None:
            await self._results.stop(entry, done, totals, self._results.attempt(entry))
            self._results.begun.ended(entry)

    def _used_up(self) -> BudgetExceeded | None:
        now = self.tally
        paid = now.paid + now.lost if self._results is None else self._results.paid
        what = self._how.budget.used_up(paid)
        return _over(what) if what else None

    def _check(self, done: Done) -> None:
        """Raises RLMError where all that has come so far are failures of one kind."""
        kind = done.failure.kind if done.failure else ""
        self._first[kind] += 1
        if self._how.keep_going or not kind or len(self._first) > 1 or self._first[kind] < ALIKE:
            return
        assert done.failure is not None
        raise RLMError(
            f"The first {ALIKE} questions all failed with {kind}. The last one: {done.failure.message}",
            hint=f"{done.failure.hint}\nWith --keep-going, rlm asks the other questions anyway.".strip(),
        )


def _over(what: str) -> BudgetExceeded:
    return BudgetExceeded(
        f"The budget of all questions is used up: {what}.",
        limit=BATCH,
        hint="With a larger budget, the same command continues.",
    )


async def _stopped(running: set[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, and wait for their end; cancelled again, they hurry."""
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in running if not task.done()]:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    for task in running:
        if not task.cancelled():
            task.exception()  # nobody waits for it any more
    if cancelled is not None:
        raise cancelled


def _in_daemon(entries: Iterator[Any]) -> asyncio.Future[Any]:
    """The next one, None after the last, read by a thread that keeps no process from ending: a pipe may say
    nothing for hours.
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Any] = loop.create_future()

    def tell(value: Any, error: BaseException | None) -> None:
        if told.done():
            return
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(value)

    def read() -> None:
        value, error = None, None
        try:
            value = next(entries, None)
        except BaseException as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, value, error)

    threading.Thread(target=read, name="batch-questions", daemon=True).start()
    return told

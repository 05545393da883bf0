"""The algorithm: ask the root model, run its cells, give the output back, until the answer is delivered or a limit is reached.

The conversation is append-only, so that providers' prefix caches hit. Owned by one task; cancelling it is how a run is interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from rlm_kernel.engine import answers, memory
from rlm_kernel.engine import messages as say
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.events import CallRetried, Listener, Noted, Summarized, TurnReplied, TurnStarted
from rlm_kernel.engine.finals import ProseFinal, final_in_sentence
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.prompts import Profile, system_prompt
from rlm_kernel.engine.protocols import (
    Answer,
    CellResult,
    Completion,
    ContextInfo,
    Kernel,
    Memory,
    Message,
    Models,
    Outcome,
    Retry,
    StopReason,
    Usage,
)
from rlm_kernel.engine.python import looks_at_input
from rlm_kernel.engine.replies import Reply, parse_reply
from rlm_kernel.engine.subcalls import complete
from rlm_kernel.errors import BudgetExceeded, ModelError

LAST_ANSWER_SECONDS = 120.0
"""Time for the forced answer, and again for a cell that delivers it, when the run's own is up."""
_PATIENCE = 3
"""Replies in a row with nothing to run before the run is given up."""


class _Exhausted(Exception):
    """The run must end: one last answer is asked for."""

    def __init__(self, reason: StopReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class PastTurn:
    """A turn of earlier: the reply as it came, what its cells gave, what was remarked then.

    `memory`: the reply is a summary, which stands for all turns since the question that they answered. `asked`: with the last of the
    remarks a further question was put.
    """

    number: int
    reply: str
    results: Sequence[CellResult] = ()
    remarks: Sequence[str] = ()
    memory: bool = False
    asked: bool = False


@dataclass(frozen=True)
class Past:
    """What a run goes on from. `unfinished`: the last turn was cut off; what is left of it is done first.

    `message` is said to the root model before it is asked again, and then a further `question` is put to it.
    """

    turns: Sequence[PastTurn]
    message: str = ""
    question: str = ""
    unfinished: bool = False


@dataclass
class Loop:
    """One question, from its first message to its outcome.

    `output_chars` of each cell go back to the root model. `share` of the room in its window: beyond that its turns are summed up; None for
    never.
    """

    kernel: Kernel
    models: Models
    calls: HostCalls
    ledger: Ledger
    tell: Listener
    profile: Profile
    output_chars: int = 20_000
    share: float | None = None
    _history: list[Message] = field(default_factory=list)
    _number: int = 0
    _looked: bool = False
    _guarded: bool = False
    _failed: bool = False
    _warned: bool = False
    _before: tuple[tuple[str, ...], str] = ((), "")
    _idle: int = 0
    _last: bool = False
    _answer: Answer | None = None
    _named: str = ""
    _asked_at: int = 0
    _shown: tuple[Sequence[CellResult], int] = ((), 0)
    _used: Usage = field(default_factory=Usage)
    _seen: int = 0
    _summed_at: int = -1
    _outgrown: int | None = None
    _tools: Sequence[str] = ()
    _typed: bool = False

    def __post_init__(self) -> None:
        self._cells = Cells(self.kernel, self.calls, self.tell)

    async def set_up(self, cell_id: str, code: str) -> CellResult:
        """Run a set-up cell (parameters, loading of the input). Its result is in the trace; the caller judges it."""
        return await self._cells.run(cell_id, code, 0, setup=True, seconds=self.ledger.seconds_left())

    async def run(
        self,
        question: str,
        info: ContextInfo,
        *,
        from_files: bool,
        past: Past | None = None,
        named: Sequence[str] = (),
        absent: Sequence[str] = (),
    ) -> Outcome:
        """Answer a question, or go on with a conversation that began with it.

        `named`: paths that the user named in the last question, and that code can load; `absent`: what they named and is not there.

        Raises ModelError when the root model gives no reply, KernelError without a kernel.
        """
        self._named = say.named_files(named, absent)
        self._open(question, info, from_files, asked=past is None)
        try:
            if past is not None:
                await self._take_up(past)
            while self._answer is None:
                await self._turn()
            return Outcome(self._answer, "answered")
        except BudgetExceeded as limit:
            reason: StopReason = limit.limit  # type: ignore[assignment]
            return await self._last_answer(reason, limit.message)
        except _Exhausted as end:
            return await self._last_answer(end.reason, end.detail)

    def _open(self, question: str, info: ContextInfo, from_files: bool, *, asked: bool) -> None:
        self.output_chars = min(self.output_chars, self.profile.output_chars)
        self._looked, self._typed = info.total_chars == 0, info.typed
        window, depth = self.models.window("sub"), self.ledger.limits.depth
        system = system_prompt(self.profile, info, output_chars=self.output_chars, sub_window=window, depth=depth)
        last = [self._named if asked else "", say.progress_line(self.ledger, 1)]
        first = say.question_message(question, info, from_files, self.profile.head_chars, "\n".join(filter(None, last)))
        self._history = [{"role": "system", "content": system}, *self.profile.examples, {"role": "user", "content": first}]
        self._asked_at = len(self._history)

    async def _take_up(self, past: Past) -> None:
        """Have the conversation as it was, and do what is left of its last turn."""
        question = say.new_question(past.question) if past.question else ""
        said = [text for text in (past.message, question, self._named) if text]
        for turn in past.turns:
            self._number = turn.number
            self._looked = self._looked or turn.memory or any(looks_at_input(result.code) for result in turn.results)
            self._guarded = self._guarded or say.NOT_LOOKED in turn.remarks
            self._warned = self._warned or say.AFTER_ERROR in turn.remarks
            self._history.append({"role": "assistant", "content": turn.reply})
            parsed = parse_reply(turn.reply).after([result.code for result in turn.results])
            last = turn is past.turns[-1]
            if last and past.unfinished and not turn.memory:
                await self._play(parsed, turn.results, said)
                return
            self._took_place(parsed, turn.results)
            remarks = [*turn.remarks, *(said if last else ())]
            if turn.memory:
                self._say(say.after_memory(remarks, self._progress()))
            else:
                not_run = max(0, len(parsed.cells) - len(turn.results))
                self._say(say.output_message(turn.results, not_run, self.output_chars, remarks, self._progress()))
            if turn.asked or (last and question):
                self._asked_at = len(self._history)
                self._failed = False
        if past.message:
            self.tell(Noted(past.message))
        if not past.turns and said:
            self._say("\n\n".join(said))

    async def remember(self) -> Memory | None:
        """After an answer: have the turns of its question summed up, for the questions to come. None if they stay as they are."""
        ask = say.sum_up_message(*self._shown, self.output_chars, self._answer.text if self._answer else "")
        return await self._sum_up(self._history[self._asked_at :], ask)

    async def _sum_up(self, replaced: Sequence[Message], ask: str, *, whole: bool = True) -> Memory | None:
        try:
            found = await memory.sum_up(self.models, self.ledger, self._history[: self._asked_at], replaced, ask, whole=whole)
        except memory.Unremembered as why:
            if str(why):
                self.tell(Noted(f"The conversation is kept in full: {why}."))
            return None
        self._history[self._asked_at :] = [{"role": "assistant", "content": found.text}]
        self.tell(Summarized(found))
        return found

    async def _make_room(self) -> None:
        """Sum up the turns so far where they crowd the root model's window; not turn after turn where that does not help."""
        if self.share is None or self._number < self._summed_at + 2:
            return
        if not memory.crowded(self._history, self._asked_at, self._used, self._seen, self._window(), self.share):
            return
        turns = self._history[self._asked_at :]
        if not turns:
            return
        await self._condense(turns)

    async def _condense(self, turns: Sequence[Message], *, whole: bool = True) -> bool:
        """Have a summary in place of the turns; whether there is one. `whole`: of as long messages as they are."""
        self._summed_at = self._number
        *replaced, last = turns
        if not replaced or not await self._sum_up(replaced, f"{last['content']}\n\n{say.SUM_UP}", whole=whole):
            return False
        self._say(say.after_memory((), self._progress()))
        self._used, self._seen = Usage(), 0
        return True

    def _window(self) -> int | None:
        """Tokens that the root model reads, as far as is known; less where so many were too many."""
        return min(filter(None, (self.models.window("root"), self._outgrown)), default=None)

    async def _turn(self) -> None:
        self.ledger.check_turn()
        await self._make_room()
        self._number += 1
        await self._play(await self._ask(), notes=say.no_tools(self._tools))

    async def _play(self, parsed: Reply, done: Sequence[CellResult] = (), notes: Sequence[str] = ()) -> None:
        """Run a reply's cells, but those that are `done`. Sets the answer if one was delivered and stands."""
        results, not_run = self._shown = await self._run_cells(parsed.cells, done)
        hasty = self._failed and parsed.only_delivers and not self._warned
        again = self._took_place(parsed, results)
        remarks = [*notes, *await self._judge(parsed, results, hasty=hasty)]
        if self._answer is not None:
            return
        self.calls.check_cut_short()
        remarks += [say.REPEATED] if again else []
        remarks += [say.CUT_OFF] if parsed.unclosed else []
        remarks += [say.INVENTED] if parsed.invented and results else []
        self._idle = 0 if results else self._idle + 1
        if self._idle >= _PATIENCE:
            raise _Exhausted("no_answer", f"The last {self._idle} replies had nothing to run.")
        remarks += say.nearly_used(self.ledger)
        for remark in remarks:
            self.tell(Noted(remark))
        remarks += [say.person_remark(cell, self.output_chars) for cell in self.kernel.person_cells()]
        self._say(say.output_message(results, not_run, self.output_chars, remarks, self._progress()))

    def _progress(self) -> str:
        return say.progress_line(self.ledger, self.ledger.totals().turns + 1)

    async def _ask(self) -> Reply:
        self.tell(TurnStarted(self._number))
        async with self._deadline():
            reply = await self._reply()
        self.ledger.count_turn()
        self._tools = reply.tools
        self._used, self._seen = reply.usage, len(self._history)
        self._history.append({"role": "assistant", "content": reply.text})
        parsed = parse_reply(reply.text)
        self.tell(TurnReplied(self._number, reply, parsed.prose))
        return parsed.cut_off() if reply.finish_reason == "length" else replace(parsed, unclosed=False)

    def _retried(self, retry: Retry) -> None:
        self.tell(CallRetried("", "", retry))

    async def _reply(self, *, last: bool = False) -> Completion:
        """The root model's reply. Where the conversation has outgrown its window, once more after the turns are summed up.

        Raises ModelError where they cannot be, or what stays is too long by itself.
        """
        try:
            return await complete(self.models, self.ledger, self._history, role="root", last=last, retried=self._retried)
        except ModelError as error:
            turns = self._history[self._asked_at :]
            if error.fault != "too_long" or not turns:
                raise
            if self.share is None:
                error.hint += " The turns are not summed up, because memory_compaction.enabled is off."
                raise
            self._outgrown = round(memory.tokens(self._history, self._used, self._seen))
            self.tell(Noted("The conversation is longer than the root model's window: the turns so far are summed up."))
            if not await self._condense(turns, whole=False):
                raise
        return await complete(self.models, self.ledger, self._history, role="root", last=last, retried=self._retried)

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        left = self.ledger.seconds_left()
        try:
            async with asyncio.timeout(left):
                yield
        except TimeoutError:
            raise self.ledger.late() from None

    def _say(self, text: str) -> None:
        # Some models' templates take no two messages of one role in a row.
        if self._history[-1]["role"] == "user":
            text = f"{self._history.pop()['content']}\n\n{text}"
        self._history.append({"role": "user", "content": text})

    async def _run_cells(self, cells: Sequence[str], done: Sequence[CellResult] = ()) -> tuple[list[CellResult], int]:
        results = list(done)
        for index in range(len(done), len(cells)):
            if results and (results[-1].answer is not None or results[-1].status != "ok"):
                break
            results.append(await self._cell(chr(ord("a") + index) if index < 26 else str(index + 1), cells[index]))
            self._looked = self._looked or looks_at_input(cells[index])
        return results, max(0, len(cells) - len(results))

    async def _cell(self, letter: str, code: str) -> CellResult:
        """Run a cell of the turn; at the run's deadline it is interrupted."""
        seconds = LAST_ANSWER_SECONDS if self._last else self.ledger.seconds_left()
        return await self._cells.run(f"turn-{self._number:02d}-{letter}", code, self._number, seconds=seconds)

    def _took_place(self, parsed: Reply, results: Sequence[CellResult]) -> bool:
        """Remember how a turn's cells ended; whether they were the last turn's, and gave the same."""
        if not results:
            return False
        self._failed = results[-1].status != "ok"
        before, self._before = self._before, (parsed.cells, say.without_counts(results))
        return self._before == before

    async def _judge(self, parsed: Reply, results: Sequence[CellResult], *, hasty: bool) -> list[str]:
        """Take the answer, if there is one and it stands; else what to remark. `hasty`: nothing was done about an error before it."""
        failed = any(result.status != "ok" for result in results)
        answer = results[-1].answer if results else None
        remarks: list[str] = []
        if answer is None and parsed.final is not None and not failed:
            if results and parsed.final.kind == "FINAL":
                remarks.append(say.BESIDE_CODE)
            else:
                answer = await self._prose_answer(parsed.final, remarks)
        if answer is None and not results and not remarks and not parsed.unclosed:
            remarks.append(say.ALL_THOUGHT if parsed.empty else say.nothing_to_run(parsed.labels))
        if answer is not None and not self._looked and not self._guarded:
            self._guarded = True
            remarks.append(say.NOT_LOOKED)
        elif answer is not None and hasty:
            self._warned = True
            remarks.append(say.AFTER_ERROR)
        else:
            self._answer = answer
        return remarks

    async def _prose_answer(self, final: ProseFinal, remarks: list[str]) -> Answer | None:
        """The answer of FINAL or FINAL_VAR outside code. What is code there is run as a cell."""
        found = await answers.in_prose(final, lambda code: self._cell("final", code), self.output_chars, typed=self._typed)
        if isinstance(found, Answer):
            return found
        remarks.append(found)
        return None

    async def _last_answer(self, reason: StopReason, detail: str) -> Outcome:
        """Ask once more, for an answer from what was seen. It is marked as forced."""
        self._last = True
        self.tell(Noted(detail))
        self._say(say.forced_message(detail))
        self._number += 1
        self.tell(TurnStarted(self._number))
        try:
            async with asyncio.timeout(LAST_ANSWER_SECONDS):
                # What is left for all belongs to the topmost RLM.
                reply = await self._reply(last=not self.ledger.is_child)
        except BudgetExceeded:
            return Outcome(None, reason, detail=detail)
        except (ModelError, TimeoutError) as error:
            return Outcome(None, reason, detail=f"{detail} The last answer did not come: {str(error) or 'time-out'}")
        self.ledger.count_turn()
        self._history.append({"role": "assistant", "content": reply.text})
        self._shown = (), 0
        parsed = parse_reply(reply.text)
        self.tell(TurnReplied(self._number, reply, parsed.prose))
        answer: Answer | None = None
        if said := parsed.final or (None if parsed.cells else final_in_sentence(parsed.prose)):
            answer = await self._prose_answer(said, [])
        elif parsed.cells and "FINAL" in parsed.cells[-1]:
            # Told not to, models still answer in code. What that code spends stays within the ledger's limits.
            results, _ = self._shown = await self._run_cells(parsed.cells[-1:])
            answer = results[0].answer
        elif words := answers.words_of(parsed.prose):
            answer = await self._prose_answer(ProseFinal("FINAL", repr(words)), []) if self._typed else Answer(words)
        self._answer = answer
        return Outcome(answer, reason, forced=answer is not None, detail=detail)

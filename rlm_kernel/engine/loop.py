"""The algorithm: ask the root model, run its cells, give the output back, until the answer is delivered or a
limit is reached.

Owned by one task; cancelling it is how a run is interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from rlm_kernel.engine import answers, displays, patterns, whole
from rlm_kernel.engine import messages as say
from rlm_kernel.engine.cells import Cells
from rlm_kernel.engine.conversation import Conversation, Past, PastTurn
from rlm_kernel.engine.events import Noted, TurnReplied
from rlm_kernel.engine.finals import ProseFinal, final_in_sentence
from rlm_kernel.engine.guard import Exhausted, Guard
from rlm_kernel.engine.prompts import Profile, system_prompt
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.purse import BATCH
from rlm_kernel.engine.replies import Reply, parse_reply
from rlm_kernel.engine.values import (
    Answer,
    CellResult,
    Completion,
    ContextInfo,
    Message,
    Outcome,
    StopReason,
)
from rlm_kernel.errors import BudgetExceeded, ModelError, RLMError

LAST_ANSWER_SECONDS = 120.0
"""Time for the best-effort answer, and again for a cell that delivers it, when the run's own is up."""

BESIDE_CHARS = 1_000
"""Characters that are told of what FINAL_VAR(...) in prose gave, beside the outputs of a reply's cells."""


@dataclass(frozen=True)
class View:
    """What the root model is shown: `output_chars` of what the cells of a reply gave, and, if it can see
    them, the pictures that cells display (`images`). `share`, `verbatim`: as of `Conversation`.

    `cell_seconds`: the time of a cell; None where it has no end. `whole`: the share of the root model's
    window that an input may take which is shown whole. `cite`: the answer is to have evidence.
    """

    output_chars: int = 20_000
    share: float | None = None
    verbatim: int = 8_000
    images: bool = False
    cell_seconds: float | None = None
    whole: float = 0.0
    cite: bool = False


class Loop:
    """One question, from its first message to its outcome.

    `cells` runs the code, with the host calls and the ledger of the run.
    """

    def __init__(
        self,
        cells: Cells,
        models: Models,
        profile: Profile,
        view: View,
    ) -> None:
        self.cells = cells
        self.ledger = cells.calls.ledger
        self.conversation = Conversation(models, self.ledger, cells.tell, view.share, view.verbatim)
        self._guard = Guard()
        self._profile = profile
        self._view = view
        self._output_chars = min(view.output_chars, profile.output_chars)
        self._images = view.images and models.card("root").sees is not False
        self._typed = False
        """The answer must have a form of its own."""
        self._cites = False
        """The answer is to have evidence."""
        self._last = False
        """The last answer was asked for."""
        self._seen_whole = False
        """The first message shows the input whole."""
        self._reads = False
        """The root model was told to read the input, and not to compute over it."""
        self._outputs = ""
        """With what the last message begins: what the last turn's cells gave."""
        self._answer: Answer | None = None

    async def set_up(self, cell_id: str, code: str) -> CellResult:
        """Run a set-up cell (parameters, loading of the input).

        Its result is in the trace; the caller judges it.
        """
        return await self.cells.run(cell_id, code, 0, setup=True, seconds=self.ledger.seconds_left())

    async def look(self) -> ContextInfo:
        """What the root model is told of the input that the kernel has now."""
        root = self.conversation.models.card("root")
        most = whole.room(self._view.whole, root, self.ledger.left()) if self._profile.fits_input else 0
        return await self.cells.kernel.describe(most)

    def first_message(self, question: str, info: ContextInfo, *, from_files: bool) -> str:
        """What the root model would be told first of this question."""
        return str(self._first_messages(question, info, "", from_files=from_files)[-1]["content"])

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

        `named`: paths that the user named in the last question, and that code can load; `absent`: what they
        named and is not there.

        Raises ModelError when the root model gives no reply, KernelError without a kernel.
        """
        files = say.named_files(named, absent)
        told = [turn.told for turn in past.turns] if past and past.turns and past.turns[0].told else []
        info = self._profile.suits(past.question if past and past.question else question, info)
        info, changed = say.input_now(info, from_files, self._profile.head_chars, told)
        further = past.question if past is not None else ""
        await self._ask_for_evidence(info, further, past.turns[-1].number if past and past.turns else 0)
        changed += [say.CITE] if further and self._cites else []
        self._open(question, info, files if past is None else "", from_files=from_files)
        try:
            if past is not None:
                await self._take_up(past, [*([files] if files else []), *changed])
            while self._answer is None:
                await self._turn()
            return Outcome(self._answer, "answered")
        except BudgetExceeded as limit:
            reason: StopReason = limit.limit  # type: ignore[assignment]
            return await self._last_answer(reason, limit.message)
        except Exhausted as end:
            return await self._last_answer(end.reason, end.detail)

    async def _ask_for_evidence(self, info: ContextInfo, further: str, turn: int) -> None:
        """Have the kernel refuse an answer without evidence, or refuse it no more. What was taken up goes on
        as it began.
        """
        asked = self._view.cite and not self.ledger.is_child
        self._cites = asked or (info.cites and not further)
        if self._cites != info.cites or (self._cites and further):
            await self._expect_evidence(self._cites, turn)

    async def _expect_evidence(self, wanted: bool, turn: int) -> None:
        cell_id = f"cite-{turn:02d}-{'on' if wanted else 'off'}"
        await self.set_up(cell_id, "expect_evidence()" if wanted else "expect_evidence(False)")

    def _open(self, question: str, info: ContextInfo, files: str, *, from_files: bool) -> None:
        self._guard.looked, self._typed = info.total_chars == 0 or bool(info.whole), info.typed
        seen = self._first_messages(question, info, files, from_files=from_files)
        self._seen_whole = bool(info.whole)
        self._reads = bool(info.whole and self._profile.read)
        unseen = replace(info, whole=())
        shorter = self._first_messages(question, unseen, files, from_files=from_files)
        self.conversation.begin(seen, shorter)

    def _first_messages(
        self, question: str, info: ContextInfo, files: str, *, from_files: bool
    ) -> list[Message]:
        models = self.conversation.models
        system = system_prompt(
            self._profile,
            info,
            output_chars=self._output_chars,
            sub=models.card("sub"),
            others=models.others,
            depth=self.ledger.limits.depth,
            root_sees=self._images,
            cell_seconds=self._view.cell_seconds,
        )
        cite = say.CITE if self._cites else ""
        last = "\n".join(filter(None, [cite, files, say.progress_line(self.ledger, 1)]))
        near = patterns.as_turns(patterns.nearest(self._profile.patterns, question, info))
        first = say.question_message(question, info, from_files, self._profile.head_chars, last)
        reads = self._profile.read and info.whole
        return [
            {"role": "system", "content": system},
            *([] if reads else [*self._profile.examples, *near]),
            {"role": "user", "content": first},
        ]

    async def _take_up(self, past: Past, also: Sequence[str]) -> None:
        """Have the conversation as it was, and do what is left of its last turn. `also`: what there is to say
        beside the question.
        """
        talk, guard = self.conversation, self._guard
        said: list[say.Remark] = [past.message] if past.message else []
        said += [say.Asked(past.question)] if past.question else []
        said += also
        for turn in past.turns:
            if turn.told:
                talk.say_again("\n\n".join(filter(None, (self._outputs, turn.told))))
            guard.looked = guard.looked or turn.memory
            guard.recall(turn.results, turn.remarks)
            talk.recall(turn)
            parsed = parse_reply(turn.reply).after([result.code for result in turn.results])
            if turn is past.turns[-1] and past.unfinished and not turn.memory:
                await self._play(parsed, turn.results, said)
                return
            guard.turn_ended(parsed, turn.results)
            not_run = max(0, len(parsed.cells) - len(turn.results))
            if turn is not past.turns[-1]:
                self._say_after(turn, not_run)
            elif not past.question or not await self._sum_up(past, not_run, said):
                self._say_after(turn, not_run, said)
        if past.message:
            self.cells.tell(Noted(past.message))
        if not past.turns and said:
            talk.say("\n\n".join(map(str, said)))

    def _say_after(self, turn: PastTurn, not_run: int, said: Sequence[say.Remark] = ()) -> None:
        """What was said after a turn of earlier, and what is `said` now."""
        remarks = [*turn.remarks, *said]
        if turn.memory:
            self._say_after_memory(turn.covered, remarks)
        else:
            self._tell_outputs(turn.results, not_run, remarks)
        if any(isinstance(remark, say.Asked) for remark in remarks):
            self.conversation.question_is_put()
            self._guard.new_question()

    def _say_after_memory(self, covered: Sequence[say.Asked], remarks: Sequence[say.Remark]) -> None:
        self._outputs = ""
        progress = say.progress_line(self.ledger)
        self.conversation.say(say.after_memory(covered, remarks, self._output_chars, progress))
        self.conversation.summary_ends()

    async def _sum_up(self, past: Past, not_run: int, said: Sequence[say.Remark]) -> bool:
        """Before a further question is put: have the turns since the last summary summed up, if they are
        long; whether they were, and all is `said`.
        """
        begin = max((at + 1 for at, turn in enumerate(past.turns) if turn.memory), default=0)
        if begin == len(past.turns):
            return False
        last, turns = past.turns[-1], past.turns[begin:]
        ask = say.output_message(last.results, not_run, self._output_chars, last.remarks, say.SUM_UP)
        if not await self.conversation.remember(ask, turns[0].number):
            return False
        self._say_after_memory([asked for turn in turns for asked in turn.asked], said)
        self.conversation.question_is_put()
        self._guard.new_question()
        return True

    async def _turn(self) -> None:
        self.ledger.check_turn()
        await self.conversation.make_room()
        async with self._deadline():
            reply = await self.conversation.ask()
        if self.conversation.shortened and self.conversation.turn == 1:
            self._guard.looked = False
        parsed = self._replied(reply)
        ended = reply.cut or reply.finish_reason == "stopped"
        parsed = parsed.cut_off() if ended else replace(parsed, unclosed=False)
        why = self.conversation.ended_by
        await self._play(parsed, notes=[*say.no_tools(reply.tools), *([why] if why else [])])

    def _replied(self, reply: Completion) -> Reply:
        parsed = parse_reply(reply.text)
        *sent, _ = self.conversation.messages
        told = sent[-1]["content"]
        if self._outputs:
            told = told.removeprefix(f"{self._outputs}\n\n")
        self.cells.tell(TurnReplied(self.conversation.turn, reply, parsed.prose, told, sent))
        return parsed

    async def _play(
        self, parsed: Reply, done: Sequence[CellResult] = (), notes: Sequence[say.Remark] = ()
    ) -> None:
        """Run a reply's cells, but those that are `done`. Sets the answer if one was delivered and stands."""
        results, not_run = await self._run_cells(parsed.cells, done)
        hasty = self._guard.hasty(parsed)
        again = self._guard.turn_ended(parsed, results)
        remarks: list[say.Remark] = [*notes, *await self._judge(parsed, results, hasty=hasty)]
        if self._answer is not None:
            return
        self.cells.calls.check_cut_short()
        remarks += [say.REPEATED] if again else []
        remarks += [say.CUT_OFF] if parsed.unclosed else []
        remarks += [say.INVENTED] if parsed.invented and results else []
        self._guard.count(results)
        remarks += [*say.kept_answers(results[len(done) :]), *say.nearly_used(self.ledger)]
        for remark in remarks:
            if isinstance(remark, str):
                self.cells.tell(Noted(remark, to_model=True))
        remarks += self.cells.kernel.person_cells()
        self._tell_outputs(results, not_run, remarks)

    def _tell_outputs(
        self, results: Sequence[CellResult], not_run: int, remarks: Sequence[say.Remark]
    ) -> None:
        progress, most = say.progress_line(self.ledger), self._output_chars
        images, told = displays.shown(results, self.conversation.messages) if self._images else ((), "")
        said = [told, *remarks] if told else remarks
        outputs, remarked = say.parts(results, not_run, most, said)
        self.conversation.say("\n\n".join([*outputs, *remarked, progress]), images)
        self._outputs = "\n\n".join(outputs)

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        left = self.ledger.seconds_left()
        try:
            async with self.ledger.paying.timeout(left):
                yield
        except TimeoutError:
            raise self.ledger.late() from None

    async def _run_cells(
        self, cells: Sequence[str], done: Sequence[CellResult] = ()
    ) -> tuple[list[CellResult], int]:
        results = list(done)
        for index in range(len(done), len(cells)):
            if results and (results[-1].answer is not None or results[-1].status != "ok"):
                break
            results.append(
                await self._cell(chr(ord("a") + index) if index < 26 else str(index + 1), cells[index])
            )
            self._guard.see(cells[index])
        return results, max(0, len(cells) - len(results))

    async def _cell(self, letter: str, code: str) -> CellResult:
        """Run a cell of the turn; at the run's deadline it is interrupted."""
        turn = self.conversation.turn
        seconds = LAST_ANSWER_SECONDS if self._last else self.ledger.seconds_left()
        return await self.cells.run(f"turn-{turn:02d}-{letter}", code, turn, seconds=seconds)

    async def _judge(self, parsed: Reply, results: Sequence[CellResult], *, hasty: bool) -> list[str]:
        """Take the answer, if there is one and it stands; else what to remark.

        `hasty`: nothing was done about an error before it.
        """
        failed = any(result.status != "ok" for result in results)
        answer = results[-1].answer if results else None
        remarks: list[str] = []
        if answer is None and parsed.final is not None and not failed:
            if results and parsed.final.kind == "FINAL":
                remarks.append(say.BESIDE_CODE)
            else:
                answer = await self._prose_answer(parsed.final, remarks, beside=bool(results))
        if answer is None and self._reads and not (results or remarks or parsed.unclosed):
            answer = await self._words(parsed.prose)
        if answer is None and not results and not remarks and not parsed.unclosed:
            remarks.append(say.ALL_THOUGHT if parsed.empty else say.nothing_to_run(parsed.labels))
        objection = self._guard.objection(hasty=hasty) if answer is not None else None
        if objection is not None:
            remarks.append(objection)
        else:
            self._answer = answer
        return remarks

    async def _prose_answer(
        self, final: ProseFinal, remarks: list[str], *, beside: bool = False
    ) -> Answer | None:
        """The answer of FINAL or FINAL_VAR outside code.

        What is code there is run as a cell; `beside` others, little is told of what it gave.
        """
        most = min(BESIDE_CHARS, self._output_chars) if beside else self._output_chars
        typed = self._typed or self._cites or self.conversation.has_said("cite(")
        found = await answers.in_prose(final, lambda code: self._cell("final", code), most, typed=typed)
        if isinstance(found, Answer):
            return found
        remarks.append(found)
        return None

    async def _unseen_input(self) -> Sequence[tuple[str, str]]:
        """The input, where it is short and was not shown: a model that got nowhere by code can read it."""
        if self._seen_whole and not self.conversation.shortened:
            return ()
        root = self.conversation.models.card("root")
        most = whole.room(self._view.whole, root, self.ledger.left())
        try:
            return (await self.cells.kernel.describe(most)).whole if most else ()
        except RLMError:  # the kernel is gone
            return ()

    async def _words(self, prose: str) -> Answer | None:
        """The words of a reply as the answer, if there are any and they have the form that it must have."""
        words = answers.words_of(prose)
        if words and self._typed:
            return await self._prose_answer(ProseFinal("FINAL", repr(words)), [])
        return Answer(words) if words else None

    async def _last_answer(self, reason: StopReason, detail: str) -> Outcome:
        """Ask once more, for an answer from what was seen: the best-effort answer."""
        self._last = True
        self.cells.tell(Noted(detail))
        if reason == BATCH:  # there is nothing left for one
            return Outcome(None, reason, detail=detail)
        if self._cites:  # there is no further try
            await self._expect_evidence(False, self.conversation.turn)
        self.conversation.say(say.forced_message(detail, await self._unseen_input()))
        try:
            async with self.ledger.paying.timeout(LAST_ANSWER_SECONDS):
                # What is left for all belongs to the topmost RLM.
                reply = await self.conversation.ask(last=not self.ledger.is_child)
        except BudgetExceeded as refusal:
            if refusal.limit == BATCH:
                return Outcome(None, BATCH, detail=f"{detail} {refusal.message}")
            return Outcome(None, reason, detail=detail)
        except (ModelError, TimeoutError) as error:
            return Outcome(
                None, reason, detail=f"{detail} The last answer did not come: {str(error) or 'time-out'}"
            )
        parsed = self._replied(reply)
        answer: Answer | None = None
        if said := parsed.final or (None if parsed.cells else final_in_sentence(parsed.prose)):
            answer = await self._prose_answer(said, [])
        elif parsed.cells and "FINAL" in parsed.cells[-1]:
            # Told not to, models still answer in code. What that code spends stays within the ledger's
            # limits.
            results, _ = await self._run_cells(parsed.cells[-1:])
            answer = results[0].answer
        else:
            answer = await self._words(parsed.prose)
        self._answer = answer
        return Outcome(answer, reason, forced=answer is not None, detail=detail)

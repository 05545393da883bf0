"""The conversation with the root model: its messages, and the summary that takes the place of turns where
they crowd its window.

Messages are only ever added, so that providers' prefix caches hit; a summary alone replaces any. That holds
from question to question, too, and where they are put by other processes: the trace has what was said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlm_kernel.engine import memory
from rlm_kernel.engine import messages as say
from rlm_kernel.engine.events import (
    CallRetried,
    Listener,
    Noted,
    Summarized,
    TurnCutOff,
    TurnPiece,
    TurnStarted,
)
from rlm_kernel.engine.hearing import Hearing
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.subcalls import chars, complete
from rlm_kernel.engine.totals import Usage
from rlm_kernel.engine.values import CellResult, Completion, Memory, Message, Picture, Retry
from rlm_kernel.errors import ModelError


@dataclass(frozen=True)
class PastTurn:
    """A turn of earlier: the reply as it came, what its cells gave, what was remarked then.

    `memory`: the reply is a summary, which stands for turns before; `covered`: the further questions that had
    been put in these.

    `told`: what was said before the reply, word for word, without the outputs of the turn before; "" where
    that is not known. `thinking` (blocks) goes back to `model` alone. `read`: tokens of the prompt by its
    provider's count; 0: not known.
    """

    number: int
    reply: str
    results: Sequence[CellResult] = ()
    remarks: Sequence[say.Remark] = ()
    memory: bool = False
    covered: Sequence[say.Asked] = ()
    told: str = ""
    model: str = ""
    thinking: Sequence[Mapping[str, Any]] = ()
    read: int = 0

    @property
    def asked(self) -> list[say.Asked]:
        """The further questions that were put after it."""
        return [remark for remark in self.remarks if isinstance(remark, say.Asked)]


@dataclass(frozen=True)
class Past:
    """What a run goes on from. `unfinished`: the last turn was cut off; what is left of it is done first.

    `message` is said to the root model before it is asked again, and then a further `question` is put to it.
    """

    turns: Sequence[PastTurn]
    message: str = ""
    question: str = ""
    unfinished: bool = False


class Conversation:
    """Asks the root model, and keeps what was said.

    `share` of the room in its window: beyond that its turns are summed up; None: never. `verbatim`: tokens of
    earlier questions' turns, beyond which these are summed up before a further question.
    """

    def __init__(
        self, models: Models, ledger: Ledger, tell: Listener, share: float | None, verbatim: int = 8_000
    ) -> None:
        self.models = models
        self.share = share
        self.verbatim = verbatim
        self.messages: list[Message] = []
        self.turn = 0
        """Number of the last turn."""
        self.ended_by = ""
        """Why the last reply was ended before its time, for the root model; "" where it was not."""
        self._ledger = ledger
        self._tell = tell
        self._kept = 0
        """The first messages, up to the question: no summary within its turns replaces them."""
        self._since = 0
        """The first messages, up to the last summary and what was said with it: none replaces them."""
        self._used, self._read = Usage(), 0
        """Of the last reply: its tokens, and how many messages the model had read."""
        self._summed_at = -1
        """The turn of the last summary."""
        self._first: tuple[Sequence[Message], Sequence[Message]] = ((), ())
        """What the conversation began with, and what is to be in its place where that is too long."""
        self.shortened = False
        """It is, since the window was too small for what the conversation began with."""
        self._outgrown: int | None = None
        """Tokens that were too many for the window."""
        self._late = False
        """The root model's reasoning stands in its replies without a mark at its beginning."""

    def begin(self, messages: Sequence[Message], shorter: Sequence[Message] = ()) -> None:
        """Start with these, of which the last puts the question; with as many `shorter` ones where they turn
        out to be too long for the root model's window.
        """
        self._first = messages, shorter
        self.messages = list(messages)
        self.question_is_put()
        self._since = self._kept

    def question_is_put(self) -> None:
        """The last message puts a question: what comes now may be summed up, and nothing before."""
        self._kept = len(self.messages)

    def has_said(self, words: str) -> bool:
        """Whether the root model has, in what it sees of its replies."""
        return any(words in message["content"] for message in self.messages if message["role"] == "assistant")

    def say(self, text: str, images: Sequence[Picture] = ()) -> None:
        """Add a message to the root model."""
        # Some models' templates take no two messages of one role in a row.
        if self.messages[-1]["role"] == "user":
            last = self.messages.pop()
            text, images = f"{last['content']}\n\n{text}", (*last.get("images", ()), *images)
        message: Message = {"role": "user", "content": text}
        self.messages.append({**message, "images": tuple(images)} if images else message)

    def summary_ends(self) -> None:
        """What comes now is in no summary yet."""
        self._since = len(self.messages)

    def say_again(self, text: str) -> None:
        """The last message is this text, as it was said then."""
        self.messages[-1] = {**self.messages[-1], "content": text}
        if len(self.messages) == len(self._first[0]):
            self._first = list(self.messages), self._first[1]

    def recall(self, turn: PastTurn) -> None:
        """Add a reply of earlier."""
        own = turn.model in ("", self.models.card("root").name)
        self.turn = turn.number
        self._used, self._read = Usage(turn.read), len(self.messages)
        self.add_reply(turn.reply, turn.thinking if own else ())

    def add_reply(self, text: str, thinking: Sequence[Mapping[str, Any]] = ()) -> None:
        """Add what the root model said, with the blocks of its reasoning that go back to it."""
        beside = {"thinking": list(thinking)} if thinking else {}
        self.messages.append({"role": "assistant", "content": text, **beside})

    async def ask(self, *, last: bool = False) -> Completion:
        """The next turn: the root model's reply, which is counted and added. `last`: as of `Ledger.call`.

        Where the conversation has outgrown the window, the turns are summed up first. Raises BudgetExceeded,
        and ModelError also where they cannot be, or what stays is too long by itself.
        """
        self.turn += 1
        self._tell(TurnStarted(self.turn))
        reply = await self._reply(last)
        self._ledger.count_turn()
        self._used, self._read = reply.usage, len(self.messages)
        if reply.finish_reason == "stopped":
            reply = replace(reply, thinking=list(filter(_whole, reply.thinking)))
        self.add_reply(reply.text, reply.thinking)
        return reply

    async def _reply(self, last: bool) -> Completion:
        try:
            return await self._complete(last)
        except ModelError as error:
            if error.fault == "too_long" and self._shorten():
                return await self._reply(last)
            if not await self._shrink(error):
                raise
        return await self._complete(last)

    async def _complete(self, last: bool) -> Completion:
        hearing = Hearing(self._say_piece, late=self._late)

        def retried(retry: Retry) -> None:
            hearing.again()
            self._tell(CallRetried("", "", retry))

        try:
            reply = await complete(
                self.models,
                self._ledger,
                self.messages,
                role="root",
                last=last,
                retried=retried,
                heard=hearing,
            )
        except (asyncio.CancelledError, ModelError):
            if hearing.words or hearing.thoughts:
                self._tell(TurnCutOff(self.turn, hearing.words, hearing.thoughts))
            raise
        self._late = self._late or hearing.was_late
        self.ended_by = hearing.why
        return reply if hearing.kept is None else replace(reply, text=hearing.kept, finish_reason="stopped")

    def _say_piece(self, text: str, thought: bool) -> None:
        self._tell(TurnPiece(self.turn, text, thought))

    async def _shrink(self, error: ModelError) -> bool:
        """If the error is that the messages are too long, sum the turns up; whether they are shorter now."""
        if error.fault != "too_long":
            return False
        turns = self.messages[self._kept :]
        if not turns:
            return False
        if self.share is None:
            error.hint += " rlm does not summarise the turns, because memory_compaction.enabled is off."
            return False
        self._outgrown = round(memory.tokens(self.messages, self._used, self._read))
        self._tell(
            Noted("The conversation is longer than the root model's window: rlm summarises the turns so far.")
        )
        return await self._condense(turns, whole=False)

    def _shorten(self) -> bool:
        """Have the shorter first messages, with what was added to the last of them since."""
        (long, short), self._first = self._first, ((), ())
        if not short or chars(short) >= chars(long):
            return False
        last = self.messages[len(short) - 1]
        added = last["content"].removeprefix(long[-1]["content"])
        self.messages[: len(short)] = [*short[:-1], {**last, "content": short[-1]["content"] + added}]
        self._used, self._read = Usage(), 0
        self.shortened = True
        self._tell(
            Noted(
                "The whole input does not fit into the root model's window, so the root model sees "
                "only its beginning."
            )
        )
        return True

    async def make_room(self) -> None:
        """Sum up the turns so far where they crowd the root model's window; not turn after turn where that
        does not help.
        """
        if self.share is None or self.turn < self._summed_at + 2:
            return
        if memory.crowded(self.messages, self._kept, self._used, self._read, self._window(), self.share):
            await self._condense(self.messages[self._kept :])

    def _window(self) -> int | None:
        """Tokens that the root model reads, as far as is known; less where so many were too many."""
        return min(filter(None, (self.models.card("root").window, self._outgrown)), default=None)

    async def _condense(self, turns: Sequence[Message], *, whole: bool = True) -> bool:
        """Have a summary in place of the turns; whether there is one.

        `whole`: of as long messages as they are.
        """
        if not turns:
            return False
        self._summed_at = self.turn
        *replaced, last = turns
        if not replaced or not await self._sum_up(
            replaced, f"{last['content']}\n\n{say.SUM_UP}", whole=whole
        ):
            return False
        self.say(say.after_memory((), (), 0, say.progress_line(self._ledger)))
        return True

    async def remember(self, ask: str, first: int) -> bool:
        """Before a further question: have the turns since the last summary summed up, on `ask`, if they are
        longer than stays verbatim; whether a summary stands for them now. `first`: the number of the first.
        """
        turns = self.messages[self._since :]
        if self.share is None or not turns:
            return False
        measured = (*self.messages, {"role": "user", "content": ask}), self._since, self._used, self._read
        long = memory.turns(*measured) > self.verbatim
        if not long and not memory.crowded(*measured, self._window(), self.share):
            return False
        self._kept = self._since
        return await self._sum_up(turns, ask, since=first) is not None

    async def _sum_up(
        self, replaced: Sequence[Message], ask: str, *, whole: bool = True, since: int | None = None
    ) -> Memory | None:
        try:
            found = await memory.sum_up(
                self.models, self._ledger, self.messages[: self._kept], replaced, ask, whole=whole
            )
        except memory.Unremembered as why:
            if str(why):
                self._tell(Noted(f"The conversation is kept in full: {why}."))
            return None
        self.messages[self._kept :] = [{"role": "assistant", "content": found.text}]
        self._used, self._read = Usage(), 0
        self._tell(Summarized(replace(found, since=since)))
        return found


def _whole(block: Mapping[str, Any]) -> bool:
    """Whether a block of reasoning has come to its end: its provider signs or encrypts it last."""
    return bool(block.get("signature") or block.get("data"))

"""The host calls that cost something: sub-model calls, and child RLMs, which at the depth limit are sub-model
calls, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlm_kernel.engine.drafts import without_drafts
from rlm_kernel.engine.kernel_says import Query
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import (
    CallRecord,
    Children,
    Completion,
    Handed,
    HostCall,
    Message,
    Models,
    Retry,
    Role,
    Watch,
)
from rlm_kernel.errors import BudgetExceeded, ModelError, NoAnswer, NoRecord, UsageError

_CHARS_PER_TOKEN = 3.0
"""Few, so that what is let through fits the window."""
_LESS_THOUGHT = "Ask for less at once, or allow longer replies: sub_llm.max_tokens."
_USUAL_WINDOW = 128_000
"""Tokens of a sub model whose window is not known."""


@dataclass
class Work:
    """A call in progress.

    `record`: what is known of it so far; `retried` hears of its failed attempts; `ledger` is that of its
    child RLM, if it has one: what that used counts where the call fails or is cut off, too.
    """

    record: CallRecord
    retried: Callable[[Retry], None] = lambda _retry: None
    ledger: Ledger | None = None

    def begun(self, trace: str) -> None:
        """The child RLM has a trace."""
        self.record = replace(self.record, trace=trace)
        if self.ledger is not None:
            self.ledger.begin()

    def spent(self, failure: BaseException | None = None) -> CallRecord:
        """With what it has used: its child RLM by the account of that, another call by what its `failure`
        tells.
        """
        if self.ledger is not None:
            totals = self.ledger.totals()
            return replace(self.record, usage=totals.usage, cost=totals.cost, calls=self.ledger.calls)
        attempts, spent = getattr(failure, "attempts", 1), getattr(failure, "spent", None)
        if isinstance(spent, Completion):
            return replace(
                self.record.replied(spent), answer=None, attempts=attempts, stored=False, cut=False
            )
        return replace(
            self.record, attempts=attempts, calls=0 if isinstance(failure, BudgetExceeded | NoRecord) else 1
        )


async def complete(
    models: Models,
    ledger: Ledger,
    messages: Sequence[Message],
    *,
    role: Role,
    model: str | None = None,
    schema: Mapping[str, Any] | None = None,
    last: bool = False,
    retried: Callable[[Retry], None] = lambda _retry: None,
    heard: Callable[[str, bool], bool] | None = None,
) -> Completion:
    """A model's reply, on an account: of a sub model or of the root.

    `last`: as of `Ledger.call`; `retried` hears of failed attempts; `heard`: as of `Watch`.

    What the model wrote for itself is in the reply's `thoughts` alone. Raises BudgetExceeded, and ModelError:
    at once where the provider wants no call before the run's time is over, and also where a sub model wrote
    nothing but thoughts.
    """

    def retrying(retry: Retry) -> bool:
        left = ledger.seconds_left()
        if left is not None and retry.asked is not None and retry.asked > left:
            return False
        retried(retry)
        return True

    async with ledger.call(role, chars(messages), last=last) as call:

        def hear(piece: str, thought: bool) -> bool:
            call.heard(len(piece))
            return heard is None or heard(piece, thought)

        watch = Watch(call.sent, retrying, hear if heard is not None else None)
        try:
            reply = await models.complete(messages, role=role, model=model, schema=schema, watch=watch)
        except ModelError as error:
            if error.spent is not None:
                call.settle(error.spent)
            raise
        call.settle(reply)
        text, thoughts = without_drafts(reply.text)
        if role == "sub" and thoughts and not text.strip():
            name = reply.model or models.name(role)
            why = f"The reply of {name} is reasoning alone, without an answer."
            spent = replace(reply, text="", thoughts=thoughts)
            raise ModelError(
                why, fault="empty", model=name, attempts=reply.attempts, hint=_LESS_THOUGHT, spent=spent
            )
    return (
        replace(reply, text=text, thoughts="\n\n".join(filter(None, (reply.thoughts, thoughts))))
        if text != reply.text
        else reply
    )


def chars(messages: Sequence[Message]) -> int:
    """Characters of the messages together."""
    return sum(len(message["content"]) for message in messages)


class SubCalls:
    """Makes the calls of one RLM, within its account.

    Without models each is refused with NoRecord, which has `how_to_allow` as hint.
    """

    def __init__(
        self, models: Models | None, ledger: Ledger, children: Children | None = None, how_to_allow: str = ""
    ) -> None:
        self._models = models
        self.ledger = ledger
        self._children = children
        self._how_to_allow = how_to_allow

    def name(self, model: str | None) -> str | None:
        """The model that a call is for."""
        return model or (self._models.name("sub") if self._models else None)

    async def take(self, given: Any) -> Handed:
        """What code hands over to a child RLM. Raises UsageError, FileRefused."""
        if self._children is None:
            raise UsageError("There are no child RLMs here: use llm_query.")
        return await self._children.take(given)

    async def complete(self, query: Query, work: Work) -> CallRecord:
        """Ask the sub model. Raises ModelError, BudgetExceeded, NoRecord."""
        messages = [{"role": "user", "content": query.prompt}]
        reply = await complete(
            self._allowed(),
            self.ledger,
            messages,
            role="sub",
            model=query.model,
            schema=query.schema,
            retried=work.retried,
        )
        return work.record.replied(reply)

    async def child(self, query: Query, handed: Handed, call: HostCall, work: Work) -> CallRecord:
        """Have a child RLM answer, or at the depth limit the sub model.

        Raises NoAnswer too, and what a child's set-up raises.

        Only the child's time is none of the cell's: a cell that asks for ever and is refused, say, must come
        to its time-out.
        """
        models = self._allowed()
        if self._children is None or self.ledger.limits.depth <= 0:
            text = await handed.text(self._reads())
            parts = [query.prompt, f"The context:\n{text}" if text else ""]
            parts += (
                [f"Reply with JSON alone, which fits this JSON schema:\n{json.dumps(query.schema)}"]
                if query.schema
                else []
            )
            return await self.complete(
                Query("\n\n".join(filter(None, parts)), None, None, query.timeout), work
            )
        ledger = work.ledger = self.ledger.child()
        work.record = replace(work.record, model=models.name("root"))
        try:
            with call.pause_timer():
                outcome = await self._children.ask(
                    query.prompt, handed, query.schema, name=call.cell, ledger=ledger, begun=work.begun
                )
        except BudgetExceeded:
            raise
        except BaseException:
            ledger.came_to_nothing()
            raise
        finally:
            ledger.end()
        answer = outcome.answer
        if answer is None:
            reason = outcome.stop_reason
            raise NoAnswer(
                f"The child RLM gave no answer ({reason}). {outcome.detail}".rstrip(),
                of_budget=reason != "no_answer",
            )
        return replace(work.spent(), answer=answer.value if answer.typed else answer.text)

    def _reads(self) -> int:
        """Characters that the sub model reads at once."""
        window = (self._models.card("sub").window if self._models else None) or _USUAL_WINDOW
        return int(window * _CHARS_PER_TOKEN)

    def _allowed(self) -> Models:
        if self._models is None:
            raise NoRecord(
                "This call has no record in the trace, so it was not answered.", hint=self._how_to_allow
            )
        return self._models

"""The host calls that cost something: sub-model calls, and child RLMs, which at the depth limit are sub-model
calls, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from rlm_contract.tokens import tokens as tokens_of

from rlm_kernel.engine.drafts import without_drafts
from rlm_kernel.engine.evidence import without_marks
from rlm_kernel.engine.kernel_says import Query
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.protocols import (
    ROLES,
    CallKind,
    CallRecord,
    Card,
    Children,
    Completion,
    Handed,
    HostCall,
    Message,
    Models,
    Picture,
    Retry,
    Role,
    Watch,
)
from rlm_kernel.errors import BudgetExceeded, ModelError, NoAnswer, NoRecord, UsageError

_MOST_CHARS_PER_TOKEN = 5.0
"""Of prose. What is let through by it is looked at."""
_CHARS_PER_PICTURE_TOKEN = 4
"""As `chars` has it."""
_LESS_THOUGHT = "Ask for less at once, or allow longer replies: sub_llm.max_tokens."
_USUAL_WINDOW = 128_000
"""Tokens of a sub model whose window is not known."""


@dataclass
class Work:
    """A call in progress.

    `record`: what is known of it so far; `retried` hears of its failed attempts; `waiting` is entered for as
    long as a model, or a child RLM, is at work: that time is none of the cell's. `ledger` is that of its
    child RLM, if it has one: what that used counts where the call fails or is cut off, too. `sent`: the
    prompt, where that is not the one that was asked for.
    """

    record: CallRecord
    retried: Callable[[Retry], None] = lambda _retry: None
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ledger: Ledger | None = None
    sent: str = ""

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
            return replace(
                self.record,
                usage=totals.usage,
                cost=totals.cost,
                calls=self.ledger.calls,
                models=totals.models,
                tool_calls=totals.tool_calls,
            )
        attempts, spent = getattr(failure, "attempts", 1), getattr(failure, "spent", None)
        if isinstance(spent, Completion):
            return replace(
                self.record.replied(spent), answer=None, attempts=attempts, stored=False, cut=False
            )
        unmade = isinstance(failure, BudgetExceeded | NoRecord) or _unknown(failure)
        return replace(self.record, attempts=attempts, calls=0 if unmade else 1)


def _unknown(failure: BaseException | None) -> bool:
    """Whether a model was named that is none of the run's."""
    return isinstance(failure, ModelError) and failure.fault == "unknown_model" and not failure.attempts


def card_for(models: Models, role: Role, model: str | None) -> Card:
    """The model that a call is for: by default the role's own.

    `model`: the name of one beside root and sub, or the `provider/model` of one of them all. Raises
    ModelError for another, which says what there is.
    """
    if model is None:
        return models.card(role)
    others = list(models.others)
    known = [*others, models.card("sub"), models.card("root")]
    for card in others:
        if model == card.role:
            return card
    for card in known:
        if model == card.name:
            return card
    name = model if len(model) <= 80 else f"{model[:77]}..."
    meant = f" If it is an instruction: llm_query(chunk, instruction={name!r})." if name.isalpha() else ""
    raise ModelError(
        f"There is no model {name!r} here.",
        fault="unknown_model",
        model=name,
        attempts=0,
        hint=(
            f"Known: {'; '.join(map(_worded, others))}. Without model=, {models.name('sub')} is asked."
            if others
            else f"Known: {' and '.join(dict.fromkeys(card.name for card in known))}; leave model= out for "
            "the sub model."
        )
        + meant,
    )


def _worded(card: Card) -> str:
    return f"{card.role!r} ({card.name})" + (f", for {card.about}" if card.about else "")


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
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Completion:
    """A model's reply, on an account: of a sub model or of the root.

    `last`: as of `Ledger.call`; `retried` hears of failed attempts; `heard`: as of `Watch`; `waiting`: as of
    `Work`. A call that is refused has waited for no model: a cell that asks for ever and is refused must come
    to its time-out.

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

    card = card_for(models, role, model)
    named = model if model is None or card.role in ROLES else card.role
    if role == "root" and ledger.is_child and not last:
        expected = ledger.expected.of_calls(card, 1, tokens(messages))
        await ledger.approval.check(ledger, card.name, expected, waiting)
    calling = ledger.call(
        role, tokens(messages), model=card.role, last=last, prices=card.prices, waiting=waiting
    )
    async with calling as call:

        def hear(piece: str, thought: bool) -> bool:
            call.heard(tokens_of(piece))
            return heard is None or heard(piece, thought)

        watch = Watch(call.sent, retrying, call.attempted, hear if heard is not None else None)
        try:
            with waiting():
                reply = await models.complete(messages, role=role, model=named, schema=schema, watch=watch)
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
    """Characters of the messages together; a picture counts as many as its tokens make."""
    pictures: Iterable[Picture] = (one for message in messages for one in message.get("images", ()))
    texts = sum(len(message["content"]) for message in messages)
    return texts + _CHARS_PER_PICTURE_TOKEN * sum(picture.tokens for picture in pictures)


def tokens(messages: Sequence[Message]) -> float:
    """About how many tokens the messages have together, with their pictures."""
    pictures: Iterable[Picture] = (one for message in messages for one in message.get("images", ()))
    return sum(tokens_of(message["content"]) for message in messages) + sum(one.tokens for one in pictures)


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
        """The model that a call is for, `provider/model` where it is known."""
        others = self._models.others if self._models else ()
        named = next((card.name for card in others if card.role == model), model)
        return named or (self._models.name("sub") if self._models else None)

    def expected(
        self, kind: CallKind, model: str | None, calls: int, prompts: float
    ) -> tuple[str, float | None]:
        """The model that so many calls of this kind are for, and about how many US dollars they cost with
        prompts of about so many tokens together; None where that is not known.
        """
        if self._models is None:
            return "", None
        child = kind == "rlm_query" and self._children is not None and self.ledger.limits.depth > 0
        try:
            card = card_for(self._models, "root" if child else "sub", model)
        except ModelError:
            return str(model), None
        known = self.ledger.expected
        return card.name, known.of_children(card, calls) if child else known.of_calls(card, calls, prompts)

    async def take(self, given: Any) -> Handed:
        """What code hands over to a child RLM. Raises UsageError, FileRefused."""
        if self._children is None:
            raise UsageError("There are no child RLMs here: use llm_query.")
        return await self._children.take(given)

    async def complete(self, query: Query, work: Work) -> CallRecord:
        """Ask the sub model. Raises ModelError, BudgetExceeded, NoRecord."""
        messages = [query.as_message()]
        models = self._allowed()
        card = card_for(models, "sub", query.model)
        work.record = replace(work.record, role=card.role)
        if query.images:
            _check_sees(models, card)
        reply = await complete(
            models,
            self.ledger,
            messages,
            role="sub",
            model=query.model,
            schema=query.schema,
            retried=work.retried,
            waiting=work.waiting,
        )
        return work.record.replied(reply)

    async def child(self, query: Query, handed: Handed, call: HostCall, work: Work) -> CallRecord:
        """Have a child RLM answer, or at the depth limit the sub model.

        Raises NoAnswer too, and what a child's set-up raises.
        """
        models = self._allowed()
        if self._children is None or self.ledger.limits.depth <= 0:
            text = await _read(handed, card_for(models, "sub", query.model))
            parts = [query.prompt, f"The context:\n{text}" if text else ""]
            parts += (
                [f"Reply with JSON alone, which fits this JSON schema:\n{json.dumps(query.schema)}"]
                if query.schema
                else []
            )
            work.sent = "\n\n".join(filter(None, parts))
            return await self.complete(Query(work.sent, query.model, None, query.timeout), work)
        card = card_for(models, "root", query.model)
        ledger = work.ledger = self.ledger.child(card.role)
        work.record = replace(work.record, model=card.name, role=card.role)
        try:
            with work.waiting():
                outcome = await self._children.ask(
                    query.prompt,
                    handed,
                    query.schema,
                    name=call.cell,
                    model=query.model and card.role,
                    ledger=ledger,
                    begun=work.begun,
                )
        except BudgetExceeded:
            raise
        except BaseException:
            ledger.came_to_nothing()
            raise
        finally:
            ledger.end()
        self.ledger.expected.see_child(work.spent().cost)
        answer = outcome.answer
        if answer is None:
            reason = outcome.stop_reason
            raise NoAnswer(
                f"The child RLM gave no answer ({reason}). {outcome.detail}".rstrip(),
                of_budget=reason != "no_answer",
            )
        given = answer.value if answer.typed else answer.text
        return replace(work.spent(), answer=without_marks(given, answer.evidence))

    def _allowed(self) -> Models:
        if self._models is None:
            raise NoRecord(
                "This call has no record in the trace, so it was not answered.", hint=self._how_to_allow
            )
        return self._models


def _check_sees(models: Models, card: Card) -> None:
    """Raises ModelError where it is known that the model which is asked sees no pictures: nothing is sent."""
    if card.sees is not False:
        return
    cards = (models.card("sub"), models.card("root"), *models.others)
    seeing = [one.name if one.role in ROLES else one.role for one in cards if one.sees]
    raise ModelError(
        f"The model {card.name} sees no pictures, so it was not asked.",
        fault="refused",
        model=card.name,
        attempts=0,
        hint=f"Models that do: {', '.join(dict.fromkeys(seeing))}."
        if seeing
        else "Name one with sub_llm.model.",
    )


async def _read(handed: Handed, card: Card) -> str:
    """The text that is handed over, if the model can read it at once. Raises UsageError, TextWanted."""
    window = card.window or _USUAL_WINDOW
    text = await handed.text(int(window * _MOST_CHARS_PER_TOKEN))
    if (found := tokens_of(text)) > window:
        raise UsageError(
            f"At this depth rlm_query asks the sub model, which reads {window:,} tokens at once, and the "
            f"context has about {found:,.0f}. Hand over less at a time."
        )
    return text

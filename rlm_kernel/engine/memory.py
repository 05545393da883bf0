"""Conversation memory: turns that are replaced by a summary in what the root model sees.

That is where they crowd its window, and, before a further question, where those of earlier questions are so
many that to read them each time costs more than a summary. The trace and the kernel's `history` keep them in
full. The system prompt, the examples and the first question's message, which has the files' sizes and names,
are never replaced: a summary stands as the reply to a message.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlm_contract.tokens import tokens as tokens_of

from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.messages import SUM_UP, truncate
from rlm_kernel.engine.protocols import Completion, Memory, Message, Models, Usage
from rlm_kernel.engine.subcalls import chars, complete
from rlm_kernel.engine.subcalls import tokens as estimated
from rlm_kernel.errors import BudgetExceeded, ModelError

SECONDS = 120.0
"""Time for a summary."""
WORTH = 1_000
"""Characters of messages below which there is nothing to gain."""
_SHORTER = (4_000, 1_000, 250)
"""Characters of each message in what is summed up, one after the other, where the whole is too long for the
window.
"""
_USUAL_WINDOW = 128_000
"""Tokens of a root model whose window is not known."""


class Unremembered(Exception):
    """There is no summary; the messages stay as they are.

    The text says why, and is empty where none was wanted.
    """


def tokens(messages: Sequence[Message], last: Usage, seen: int) -> float:
    """About how many tokens these are.

    `last`: what the last call used, for the first `seen` messages; the others are estimated.
    """
    return (last.prompt or estimated(messages[:seen])) + estimated(messages[seen:])


def turns(messages: Sequence[Message], kept: int, last: Usage, seen: int) -> float:
    """About how many tokens the messages have beside the first `kept`, by their share of an estimate.

    `last`, `seen`: as of `tokens`.
    """
    return tokens(messages, last, seen) * estimated(messages[kept:]) / max(1.0, estimated(messages))


def crowded(
    messages: Sequence[Message], kept: int, last: Usage, seen: int, window: int | None, share: float
) -> bool:
    """Whether the turns pass a share of what the root model's window has for them, beside the first `kept`
    messages, which stay.

    `last`, `seen`: as of `tokens`.
    """
    of_turns = turns(messages, kept, last, seen)
    staying = tokens(messages, last, seen) - of_turns
    return of_turns > share * ((window or _USUAL_WINDOW) - staying)


async def sum_up(
    models: Models,
    ledger: Ledger,
    kept: Sequence[Message],
    replaced: Sequence[Message],
    ask: str,
    *,
    whole: bool = True,
) -> Memory:
    """Have the root model write the summary that is to stand for `replaced` and for what `ask`, which asks
    for it, tells before SUM_UP.

    Where that is longer than its window, or not `whole`, long messages lose their middle. What it costs is in
    the ledger. Raises Unremembered.
    """
    told: list[Message] = [*replaced, {"role": "user", "content": ask.removesuffix(SUM_UP)}]
    stood_for = chars(told)
    if stood_for < WORTH:
        raise Unremembered
    forms = [[*kept, *replaced, {"role": "user", "content": ask}]] if whole else []
    forms += (
        [*kept, *_shorter(replaced, most), {"role": "user", "content": _shorter_ask(ask, most)}]
        for most in _SHORTER
    )
    try:
        left = ledger.seconds_left()
        async with ledger.paying.timeout(SECONDS if left is None else min(SECONDS, left)):
            messages, reply = await _first_that_fits(models, ledger, forms)
    except (ModelError, BudgetExceeded) as error:
        raise Unremembered(f"the model gave no summary: {error.message.rstrip('.')}") from error
    except TimeoutError as error:
        raise Unremembered("the model gave no summary: time-out") from error
    text = reply.text.strip()
    if not text:
        raise Unremembered("the summary was empty")
    if len(text) >= stood_for:
        raise Unremembered("the summary was not shorter than the messages it replaces")
    return _measured(text, reply, told, messages)


async def _first_that_fits(
    models: Models, ledger: Ledger, forms: Sequence[Sequence[Message]]
) -> tuple[Sequence[Message], Completion]:
    """The reply to the first of these that is not too long, and that one.

    Raises ModelError, BudgetExceeded.
    """
    for messages in forms[:-1]:
        try:
            return messages, await complete(models, ledger, messages, role="root")
        except ModelError as error:
            if error.fault != "too_long":
                raise
    return forms[-1], await complete(models, ledger, forms[-1], role="root")


def _shorter(messages: Sequence[Message], most: int) -> list[Message]:
    return [{"role": message["role"], "content": truncate(message["content"], most)} for message in messages]


def _shorter_ask(ask: str, most: int) -> str:
    return truncate(ask.removesuffix(SUM_UP), most) + SUM_UP


def _measured(text: str, reply: Completion, told: Sequence[Message], sent: Sequence[Message]) -> Memory:
    counted = reply.usage.prompt > 0 and reply.usage.completion > 0
    before = estimated(told) * (reply.usage.prompt / estimated(sent) if counted else 1.0)
    after = reply.usage.completion if counted else tokens_of(text)
    return Memory(text, round(before), round(after), not counted, reply, sent=sent)

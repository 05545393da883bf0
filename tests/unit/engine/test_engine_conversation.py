"""The conversation with the root model by itself: what is added to it, what is asked, and what stands when a
summary came.
"""

from __future__ import annotations

from typing import Any

import pytest

from rlm_kernel.engine.conversation import Conversation, PastTurn
from rlm_kernel.engine.events import Noted, Summarized, TurnPiece, TurnStarted
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.errors import BudgetExceeded, ModelError
from rlm_kernel.models.scripted import ScriptedModels
from tests.support.engine import Recorder

FIRST = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
LONG = "x" * 2_000


def conversation(
    root: Any, heard: Recorder | None = None, share: float | None = None, limits: Limits | None = None
) -> Conversation:
    made = Conversation(ScriptedModels(root), Ledger(limits or Limits()), heard or Recorder(), share)
    made.begin(FIRST)
    return made


async def test_each_reply_is_a_turn_that_is_told_counted_and_added() -> None:
    heard = Recorder()
    talk = conversation(["One.", "Two."], heard)
    assert (await talk.ask()).text == "One."
    talk.say("Go on.")
    assert (await talk.ask()).text == "Two."
    assert [message["role"] for message in talk.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert heard.events == [
        TurnStarted(1),
        TurnPiece(1, "One.", False),
        TurnStarted(2),
        TurnPiece(2, "Two.", False),
    ]
    assert talk.turn == 2


async def test_messages_of_one_role_in_a_row_are_one_message() -> None:
    talk = conversation([])
    talk.say("And be quick.")
    talk.say("Please.")
    assert [message["content"] for message in talk.messages] == [
        "Be brief.",
        "How many?\n\nAnd be quick.\n\nPlease.",
    ]


async def test_a_summary_stands_for_the_turns_since_the_last_one_and_for_nothing_before() -> None:
    heard = Recorder()
    talk = conversation(["I look.", "All in short."], heard, share=0.5)
    talk.verbatim = 100
    await talk.ask()
    talk.say(LONG)
    assert await talk.remember("Sum up.", 1)
    assert talk.messages == [*FIRST, {"role": "assistant", "content": "All in short."}]
    (summed,) = heard.of(Summarized)
    assert (summed.memory.text, summed.memory.since) == ("All in short.", 1)
    talk.say("And in the other one?")
    talk.summary_ends()
    assert not await talk.remember("Sum up.", 2), "there is nothing new"


async def test_turns_before_a_further_question_stay_when_those_after_it_crowd_the_window() -> None:
    talk = conversation(["Five.", "I look.", "I look on.", "In short."], share=0.0001)
    await talk.ask()
    talk.say("And in the other one?")
    talk.question_is_put()
    before = list(talk.messages)
    for _ in range(2):
        await talk.ask()
        talk.say(LONG)
    await talk.make_room()
    assert talk.messages[: len(before) + 1] == [*before, {"role": "assistant", "content": "In short."}]


async def test_without_room_for_it_the_conversation_stays_as_it_is_and_that_is_told() -> None:
    heard = Recorder()
    talk = conversation(["I look.", LONG * 2], heard, share=0.5)
    talk.verbatim = 100
    await talk.ask()
    talk.say(LONG)
    before = list(talk.messages)
    assert not await talk.remember("Sum up.", 1)
    assert talk.messages == before
    assert heard.of(Noted) == [
        Noted("The conversation is kept in full: the summary was not shorter than the messages it replaces.")
    ]


async def test_reasoning_of_earlier_goes_back_to_the_model_whose_it_was_and_to_no_other() -> None:
    signed = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]
    talk = conversation([])
    own = talk.models.card("root").name
    for number, model in enumerate((own, "other/model"), 1):
        talk.recall(PastTurn(number, "I look.", model=model, thinking=signed))
    assert [message.get("thinking") for message in talk.messages[2:]] == [signed, None]


@pytest.mark.parametrize("share", [None, 0.5])
async def test_a_first_message_that_is_too_long_by_itself_is_an_error_and_is_asked_once(
    share: float | None,
) -> None:
    asked: list[Any] = []

    def root(messages: Any) -> str:
        asked.append(messages)
        raise ModelError("It is too long.", fault="too_long", model="m")

    talk = conversation(root, share=share)
    with pytest.raises(ModelError, match="too long"):
        await talk.ask()
    assert len(asked) == 1
    assert talk.messages == FIRST


async def test_what_is_refused_changes_nothing_that_was_said() -> None:
    talk = conversation(["Five."], limits=Limits(seconds=0.0))
    with pytest.raises(BudgetExceeded):
        await talk.ask()
    assert talk.messages == FIRST
    assert (await talk.ask(last=True)).text == "Five.", "the last answer is always asked for"

"""A short input in the first message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine import messages as say
from rlm_kernel.engine import whole
from rlm_kernel.engine.prompts import load_profile, system_prompt
from rlm_kernel.engine.values import Answer, Card, ContextInfo, Message
from rlm_kernel.errors import KernelError, ModelError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.sandbox import kernel_says
from tests.support.engine import INFO, Run

NO_LIMIT = {"tokens": None, "cost": None}
SEEN = replace(INFO, whole=[("a.txt", "hello world")])


@given(
    st.lists(
        st.tuples(st.text(max_size=9), st.text("</input-0123456789abcdef>\n", max_size=99)),
        min_size=1,
        max_size=4,
    )
)
def test_no_text_can_fake_the_marks_around_it(texts: list[tuple[str, str]]) -> None:
    told, *_ = shown = whole.shown(texts).split("\n")
    mark = re.search(r"<(input-[0-9a-f]{8})>", told)
    assert mark is not None
    assert not any(mark[1] in part for pair in texts for part in pair)
    assert sum(line == f"</{mark[1]}>" for line in shown) == len(texts)
    assert sum(line.startswith(f"<{mark[1]} ") for line in shown) == len(texts)


def test_a_mark_is_the_same_for_the_same_texts_and_controls_are_shown() -> None:
    text = "```\nFINAL('x')\n</input>\r\nbell\x07 \x9b\x00"
    shown = whole.shown([("a\nb", text)])
    assert shown == whole.shown([("a\nb", text)])
    assert "'a\\nb'" in shown
    assert "```\nFINAL('x')\n</input>\nbell␇ \N{REPLACEMENT CHARACTER}␀" in shown


@pytest.mark.parametrize(
    ("share", "window", "left", "tokens"),
    [
        (0.25, 8_000, {}, 2_000),
        (0.25, 1_000_000, {}, 32_000),
        (0.25, None, {}, 9_000),
        (0.0, 200_000, {}, 0),
        (0.25, 200_000, {"tokens": 40_000}, 10_000),
        (0.5, 200_000, {"cost": 0.01}, 5_000),
    ],
)
def test_a_share_of_the_window_of_the_tokens_and_of_the_money_left_may_be_shown(
    share: float, window: int | None, left: dict[str, Any], tokens: int
) -> None:
    assert whole.room(share, Card("root", "m", window, input_price=1.0), NO_LIMIT | left) == int(0.7 * tokens)


async def test_an_input_that_was_shown_may_be_answered_at_once() -> None:
    run = Run(ScriptedModels(["FINAL(world)"]))
    assert (await run.outcome(info=SEEN)).answer == Answer("world")
    first = run.told()
    assert first.index("\nhello world\n</input-") < first.index("Question: ")


@pytest.mark.parametrize("name", ["default", "batching", "short"])
def test_the_prompt_says_that_the_input_was_shown(name: Any) -> None:
    told = [
        system_prompt(load_profile(name), info, output_chars=9, sub=Card("sub", "s")) for info in (INFO, SEEN)
    ]
    assert "you have seen it" not in told[0]
    assert "you have seen it" in told[1]
    assert (
        "Do not answer before you have looked" not in told[1] or "{unseen}" not in load_profile(name).system
    )
    assert load_profile(name).fits_input


def test_what_a_kernel_says_is_the_whole_is_bounded_and_checked() -> None:
    assert kernel_says.whole([["a", "x " * 70]], 100) == [("a", "x " * 70)]
    lies: list[Any] = [
        None,
        "a",
        {},
        [["a"]],
        [["a", 1]],
        [["a", "x " * 100]],
        [["a", "中" * 110]],
        [["a", ""]] * 501,
    ]
    for lie in lies:
        assert list(kernel_says.whole(lie, 100)) == []
    assert kernel_says.whole([["a\ud800", "\udfff"]], 100) == [("a?", "?")]


async def test_what_does_not_fit_the_window_after_all_is_asked_again_without_the_input() -> None:
    replies = ["FINAL(early)", "FINAL(world)"]

    def speak(messages: Sequence[Message]) -> str:
        if "</input-" in str(messages):
            raise ModelError("The prompt is too long.", fault="too_long", model="narrow")
        return replies.pop(0)

    run = Run(ScriptedModels(speak, str.upper))
    assert (await run.outcome(info=SEEN)).answer == Answer("world")
    assert say.NOT_LOOKED in run.told()
    assert "Starts with: 'hello world'" in run.told(-2)


READ = "What is the magic number for noble-harbor?"


def repl(code: str) -> str:
    return f"```repl\n{code}\n```"


@pytest.mark.parametrize(
    ("question", "read"),
    [
        (READ, True),
        ("Why did the ferry come late?", True),
        ("Where does the baker hide the letter?", True),
        ("How often does the word lamp occur?", False),
        ("How many lines does the text have?", False),
    ],
)
async def test_a_small_model_reads_a_short_text_unless_code_computes_the_answer(
    question: str, read: bool
) -> None:
    run = Run(ScriptedModels([repl("say(context)"), "FINAL(x)"]), profile=load_profile("small"))
    await run.outcome(question, info=SEEN)
    first = run.models.requests[0]
    assert [message["role"] for message in first] == ["system", "user"] if read else len(first) > 2
    assert ("<input-" in first[-1]["content"]) == read
    assert ("it is too long to show" in first[0]["content"]) != read


async def test_what_a_small_model_says_of_a_text_that_it_was_to_read_is_the_answer() -> None:
    run = Run(ScriptedModels(["1498793"]), profile=load_profile("small"))
    assert (await run.outcome(READ, info=SEEN)).answer == Answer("1498793")
    run = Run(ScriptedModels(["1498793", "FINAL(in words)"]))
    assert (await run.outcome(READ, info=SEEN)).answer == Answer("in words"), "others say FINAL"
    assert run.ledger.totals().turns == 2


async def test_the_last_answer_is_asked_for_with_a_short_input_that_was_not_shown() -> None:
    look = repl("say(context[:5])")
    run = Run(ScriptedModels([look] * 4 + ["FINAL(hello world)"]), whole=0.5)
    outcome = await run.outcome()
    assert (outcome.answer, outcome.stop_reason, outcome.forced) == (Answer("hello world"), "no_answer", True)
    assert "<input-" in run.told()
    assert "hello world" in run.told()


@pytest.mark.parametrize(("whole_share", "info"), [(0.0, INFO), (0.5, SEEN)])
async def test_it_is_not_shown_against_the_setting_or_twice(whole_share: float, info: ContextInfo) -> None:
    look = repl("say(context[:5])")
    run = Run(ScriptedModels([look] * 4 + ["FINAL(hello world)"]), whole=whole_share)
    assert (await run.outcome(info=info)).forced
    assert "<input-" not in run.told()


async def test_a_kernel_that_is_gone_does_not_keep_the_last_answer_from_being_asked_for() -> None:
    run = Run(ScriptedModels([repl("say(context[:5])")] * 4 + ["FINAL(hello)"]), whole=0.5)

    async def lost(whole: int = 0) -> ContextInfo:
        raise KernelError("It is gone.")

    run.kernel.describe = lost  # type: ignore[method-assign]
    assert (await run.outcome()).answer == Answer("hello")

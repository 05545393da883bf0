"""Pictures that cells display, as the root model sees them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rlm_contract import MAX_PICTURE

from rlm_kernel.engine import displays
from rlm_kernel.engine.conversation import Past, PastTurn
from rlm_kernel.engine.protocols import Card, CellResult, Message, Picture
from rlm_kernel.models.scripted import ScriptedModels
from tests.support.engine import Run, picture
from tests.unit.engine.test_loop import repl
from tests.unit.engine.test_pictures import JPEG, PNG, saved


def result(*outputs: Any) -> CellResult:
    return CellResult("turn-01-a", "x", "ok", outputs, datetime.now(UTC), 0.1)


def seen(message: Message) -> list[tuple[int, int]]:
    return [(one.width, one.height) for one in message.get("images", ())]


class Seeing(ScriptedModels):
    def __init__(self, replies: Sequence[str], sees: bool | None = None) -> None:
        super().__init__(replies)
        self._sees = sees

    def card(self, which: str) -> Card:
        return replace(super().card(which), sees=self._sees)


def run(*codes: str, sees: bool | None = None, images: bool = True) -> Run:
    made = Run(Seeing([*map(repl, [*codes, "say(context)"]), repl("FINAL('done')")], sees), images=images)
    made.kernel.variables |= {"png": PNG, "small": saved("PNG", (10, 20)), "large": saved("PNG", (2001, 10))}
    return made


async def test_what_a_cell_displays_comes_back_as_pictures_with_its_output() -> None:
    made = run("show(png, small)")
    await made.outcome()
    assert seen(made.models.requests[1][-1]) == [(70, 50), (10, 20)]
    assert "You see 2 pictures of the output above, in order." in made.told(1)
    assert [seen(message) for message in made.models.requests[2]][-3:] == [[(70, 50), (10, 20)], [], []]
    assert "picture" not in made.told(2)


@pytest.mark.parametrize(("sees", "images"), [(None, False), (False, True)])
async def test_pictures_stay_with_the_cell_without_the_setting_or_where_the_model_sees_none(
    sees: bool | None, images: bool
) -> None:
    made = run("show(png)", sees=sees, images=images)
    await made.outcome()
    assert not any(seen(message) for message in made.models.requests[-1])
    assert "[image/png, 70 x 50 pixels]" in made.told(1)
    assert "You see" not in made.told(1)


async def test_pictures_are_bounded_by_turn_and_in_all_and_the_model_is_told() -> None:
    made = run("show(*[png] * 7)", *[f"show(*[small] * 4) or {turn}" for turn in range(5)])
    await made.outcome()
    assert (
        "You see 4 pictures of the output above, in order. 3 pictures not shown to you: at most 4"
        in made.told(1)
    )
    counts = [len(seen(message)) for message in made.models.requests[-1] if message["role"] == "user"]
    assert counts == [0, 4, 4, 4, 4, 4, 0, 0]
    assert "4 pictures not shown to you" in made.told(-2)


def test_what_no_model_takes_is_left_out_and_told() -> None:
    outputs = [
        picture(saved("PNG", (2001, 10))),
        picture(b"no picture"),
        picture(PNG + bytes(MAX_PICTURE)),
        picture(b"<svg/>", "image/svg+xml"),
        {"output_type": "display_data", "data": {"image/png": "%%%"}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/png": 7}, "metadata": {}},
        {"output_type": "stream", "name": "stdout", "text": "words"},
        picture(JPEG, "image/jpeg"),
        {
            "output_type": "execute_result",
            "data": {"image/png": base64.encodebytes(PNG).decode()},
            "metadata": {},
        },
        picture(JPEG),  # what it is counts, not what it is said to be
    ]
    found, told = displays.shown([result(*outputs)], [])
    assert [one.media_type for one in found] == ["image/jpeg", "image/png", "image/jpeg"]
    assert told.startswith("You see 3 pictures of the output above, in order. 4 pictures not shown to you: ")
    assert displays.shown([result()], []) == ([], "")


def test_the_bytes_of_all_pictures_are_bounded() -> None:
    large = Picture(bytes(MAX_PICTURE), "image/png", 1, 1)
    before = [{"role": "user", "content": "", "images": (large,) * 3}]
    found, told = displays.shown([result(picture(PNG + bytes(MAX_PICTURE - len(PNG))))], before)
    assert not found
    assert "1 picture not shown to you" in told


async def test_a_conversation_that_is_taken_up_has_the_same_pictures() -> None:
    first = run("show(png, large)", "show(small)")
    await first.outcome()
    shown = repl("show(png, large)")
    outputs = [picture(PNG), picture(saved("PNG", (2001, 10)))]
    again = run("show(small)")
    await again.outcome(past=Past([PastTurn(1, shown, [result(*outputs)])]))
    for one, other in zip(again.models.requests[-1][:6], first.models.requests[-1], strict=False):
        assert seen(one) == seen(other)
        assert one["content"].partition("Turn ")[0] == other["content"].partition("Turn ")[0]
    assert [seen(message) for message in again.models.requests[-1]][3] == [(70, 50)]


async def test_messages_that_are_joined_keep_their_pictures() -> None:
    made = run("say(1)")
    made.loop.conversation.begin([{"role": "user", "content": "a"}])
    one = Picture(PNG, "image/png", 70, 50)
    made.loop.conversation.say("b", [one])
    made.loop.conversation.say("c", [one])
    assert made.loop.conversation.messages == [
        {"role": "user", "content": "a\n\nb\n\nc", "images": (one, one)}
    ]


async def test_the_prompt_tells_of_pictures_where_models_may_see_them() -> None:
    from rlm_kernel.engine.prompts import load_profile

    for sees, images, told in ((None, True, True), (True, False, True), (False, True, False)):
        made = run("say(1)", sees=sees, images=images)
        made.loop._profile = load_profile("default")
        await made.outcome()
        system = made.models.requests[0][0]["content"]
        assert ("`images=[...]`" in system) is told
        assert ("displays (a figure" in system) is (images and sees is not False)
        assert "{pictures}" not in system
        assert "{displays}" not in system

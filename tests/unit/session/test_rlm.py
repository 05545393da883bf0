"""RLM's own checks, before anything is started."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM, ConfigError, NoAnswer, UsageError
from rlm_kernel.engine.events import TurnStarted
from rlm_kernel.engine.protocols import Totals
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.answertypes import AnswerType
from rlm_kernel.session.result import Result
from rlm_kernel.session.streaming import Stream

MODELS = ScriptedModels("FINAL(1)", "x")


async def test_a_stream_that_is_closed_has_ended_its_run() -> None:
    ended: list[str] = []

    async def run(hear: Any) -> Any:
        hear(TurnStarted(1))
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("all")

    async with contextlib.aclosing(Stream(run, None)) as events:
        async for _ in events:
            break
    assert ended == ["all"]
    async with contextlib.aclosing(Stream(run, None)):
        pass


def test_the_event_loop_of_another_library_is_refused_in_words() -> None:
    asking = RLM(models=MODELS).aask("How many?")
    with pytest.raises(UsageError, match="asyncio"):
        asking.send(None)


@pytest.mark.parametrize("kind", [int | None, str | None, list[str] | None])
def test_none_is_a_value_where_the_type_takes_it(kind: Any) -> None:
    result = Result("None", None, Path("t.ipynb"), "answered", False, "", Totals())
    assert AnswerType(kind).of(result).value is None
    with pytest.raises(NoAnswer):
        AnswerType(int).of(result)


def test_none_as_an_option_is_no_limit() -> None:
    assert RLM(models=MODELS).settings.limits.calls == 5000
    assert RLM(models=MODELS, options={"limits.calls": None}).settings.limits.calls is None


def test_none_is_refused_where_there_must_be_a_value() -> None:
    with pytest.raises(ConfigError, match=r"limits\.turns"):
        RLM(models=MODELS, options={"limits.turns": None})


@pytest.mark.parametrize("kind", [ScriptedModels, object(), "no such type"])
def test_a_type_that_answers_cannot_have_is_refused_before_anything_is_asked(kind: Any) -> None:
    with pytest.raises(UsageError, match="Answers cannot be of the type"):
        RLM(models=MODELS).ask("How many?", answer_type=kind)

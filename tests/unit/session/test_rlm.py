"""RLM's own checks, before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_kernel import RLM, ConfigError, UsageError
from rlm_kernel.models.scripted import ScriptedModels

MODELS = ScriptedModels("FINAL(1)", "x")


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

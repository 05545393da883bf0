"""The models of a run: who leads a child, what a trace names again, and prices that a limit needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Card
from rlm_kernel.errors import ConfigError
from rlm_kernel.models.factory import _check_prices
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.environment import limits_of, max_in_flight
from rlm_kernel.session.models import models_of
from rlm_kernel.session.replaying import settings_of
from rlm_kernel.trace.reader import TraceFile
from tests.support.trace import meta

MODELS = {"fast": {"model": "a/fast", "calls": 3, "cost": 0.5}, "strong": {"model": "b/qwen3-coder"}}
CARDS = [Card("fast", "a/fast", 9_000, 0.1, 0.2), Card("strong", "b/qwen3-coder", 128_000)]
CHOSEN = {"root_llm.model": "openai/gpt-5"} | {
    f"models.{name}.{key}": value for name, llm in MODELS.items() for key, value in llm.items()
}


def scripted(root: Card | None = None) -> ScriptedModels:
    more = [root] if root else []
    return ScriptedModels(
        ["I lead."], {}, others={"fast": ["fast"], "strong": ["strong"]}, cards=[*CARDS, *more]
    )


async def test_a_child_is_led_by_the_model_that_was_named_with_its_window_and_prompt() -> None:
    settings = load_settings(overrides=CHOSEN)
    async with models_of(settings, scripted(), lambda _: None) as ready:
        assert ready.names == {
            "root": "scripted/root",
            "sub": "scripted/sub",
            "fast": "a/fast",
            "strong": "b/qwen3-coder",
        }
        led = {name: ready.led_by(name, settings) for name in ("fast", "strong", "sub")}
    assert {name: one.profile.name for name, one in led.items()} == {
        "fast": "short",
        "strong": "batching",
        "sub": "default",
    }
    assert ready.profile.name == "default"
    fast = led["fast"]
    assert (fast.names["root"], fast.models.name("root"), fast.models.card("root").window) == (
        "a/fast",
        "a/fast",
        9_000,
    )
    assert (fast.models.card("root").role, fast.models.name("sub")) == ("fast", "scripted/sub")
    reply = await fast.models.complete([{"role": "user", "content": "x"}], role="root")
    assert (reply.text, reply.model) == ("fast", "a/fast")


def test_a_run_that_is_taken_up_has_the_models_of_its_trace_and_their_limits(isolated: Path) -> None:
    names = {"root": "openai/gpt-5", "sub": "a/sub", "fast": "a/fast", "no name": "x/y", "old": "c/old"}
    limits: dict[str, Any] = {
        "turns": 7.0,
        "models.fast.calls": 3.0,
        "models.fast.api_key": 1.0,
        "models.zz.q": 1.0,
    }
    trace = TraceFile(isolated / "t.ipynb", meta(models=names, limits=limits), [], None)
    (isolated / "cwd" / "config.json").write_text(
        '{"models": {"fast": {"model": "new/one", "about": "labels", "api_base": "http://here"}, "mine": {"model": "m/n"}}}'
    )
    settings = settings_of(trace, None, {}, models=True)
    assert {name: llm.model for name, llm in settings.models.items()} == {
        "fast": "a/fast",
        "old": "c/old",
        "mine": "m/n",
    }
    fast = settings.models["fast"]
    assert (fast.calls, fast.about, fast.api_base, fast.api_key) == (3, "labels", "http://here", None)
    assert settings.limits.turns == 7
    assert settings_of(trace, None, {"models.fast.calls": 9}, models=True).models["fast"].calls == 9


def test_limits_and_batches_are_those_of_all_models() -> None:
    settings = load_settings(overrides=CHOSEN | {"models.strong.concurrency": 200})
    own = limits_of(settings).models
    assert {name: (one.calls, one.cost) for name, one in own.items()} == {"fast": (3, 0.5)}
    assert max_in_flight(settings) == 400


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, None),
        ({"models.fast.cost": "none", "models.strong.cost": 1}, "models.strong, or limit calls"),
        ({"limits.cost": 1}, "models.strong, or limit tokens"),
    ],
)
def test_a_limit_of_money_needs_the_prices_of_the_models_that_it_holds_for(
    changes: dict[str, Any], missing: str | None
) -> None:
    priced = [Card("root", "a/root", None, 1.0, 2.0), Card("sub", "a/sub", None, 0.0, 0.0)]
    models = ScriptedModels([], {}, others={"fast": {}, "strong": {}}, cards=[*CARDS, *priced])
    settings = load_settings(overrides=CHOSEN | changes)
    if missing is None:
        _check_prices(models, settings)
        return
    with pytest.raises(ConfigError, match="it knows no price for b/qwen3-coder") as caught:
        _check_prices(models, settings)
    assert missing in caught.value.hint

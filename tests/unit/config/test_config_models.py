"""Models beside root and sub, and what a provider is sent: the same from each source, and no secret shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from rlm_kernel.config import (
    LLMSettings,
    Settings,
    explain_settings,
    from_assignments,
    known_keys,
    load_settings,
)
from rlm_kernel.errors import ConfigError
from rlm_kernel.secrets import redact

FAST = {"model": "openai/gpt-4o-mini", "about": "quick labels", "calls": 100, "cost": 0.5}


def load(cwd: Path, config: Any = None, environ: dict[str, str] | None = None, *sets: str) -> Settings:
    if config is not None:
        (cwd / "config.json").write_text(json.dumps(config))
    return load_settings(None, from_assignments(sets), environ or {}, cwd)


def refused(cwd: Path, *sources: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(cwd, *sources)
    assert caught.value.hint
    return caught.value


def test_each_source_names_models_and_later_ones_add_and_win(tmp_path: Path) -> None:
    config = {"models": {"fast": FAST, "my-Strong": {"model": "a/b"}, "off": None}}
    environ = {
        "RLM_MODELS": '{"third": {"model": "x/y", "retries": 1}, "fast": {"calls": 7}}',
        "RLM_MODELS__FAST__CALLS": "8",
        "RLM_MODELS__MY_STRONG__ABOUT": "hard questions",
        "RLM_MODELS__FOURTH__MODEL": "p/q",
    }
    models = load(
        tmp_path,
        config,
        environ,
        "models.fast.cost=none",
        'models={"fifth": {"model": "r/s"}, "third": {"retries": 2}}',
        'models.sixth={"model": "t/u"}',
    ).models
    assert set(models) == {"fast", "my-Strong", "third", "fourth", "fifth", "sixth"}
    assert (models["fast"].model, models["fast"].calls, models["fast"].cost) == (FAST["model"], 8, None)
    assert (models["my-Strong"].model, models["my-Strong"].about) == ("a/b", "hard questions")
    assert (models["third"].model, models["third"].retries) == ("x/y", 2)
    assert [models[name].model for name in ("fourth", "fifth", "sixth")] == ["p/q", "r/s", "t/u"]


@pytest.mark.parametrize(
    ("config", "environ", "said"),
    [
        ({"models": {"fast": {"about": "labels"}}}, {}, "models.fast (CONFIG): model is required"),
        ({"models": {"fast": {}}}, {}, "models.fast (in CONFIG) is empty"),
        ({"models": {"fast": "openai/x"}}, {}, "models.fast (in CONFIG) must be a JSON object"),
        ({"models": ["openai/x"]}, {}, "models (in CONFIG) must be a JSON object"),
        ({"models": {"root": FAST}}, {}, "'root' (in models, CONFIG) is not a valid name for a model"),
        ({"models": {"a.b": FAST}}, {}, "'a.b' (in models"),
        ({"models": {"9": FAST}}, {}, "'9' (in models"),
        ({"models": {"a" * 42: FAST}}, {}, "is not a valid name for a model"),
        ({"models": {"fast": FAST, "Fast": FAST}}, {}, "fast and Fast are the same name"),
        ({"models": {f"m{n}": FAST for n in range(21)}}, {}, "21 models are named; at most 20"),
        ({"models": {"fast": {**FAST, "calls": -1}}}, {}, "models.fast.calls = -1 (CONFIG)"),
        (None, {"RLM_MODELS": "fast"}, "RLM_MODELS is not JSON"),
        (None, {"RLM_MODELS__FAST__CALLS": "1"}, "variable RLM_MODELS__FAST__CALLS): model is required"),
    ],
)
def test_what_is_wrong_with_a_model_is_said_with_its_source(
    tmp_path: Path, config: Any, environ: dict[str, str], said: str
) -> None:
    problem = refused(tmp_path, config, environ)
    assert said.replace("CONFIG", str(tmp_path / "config.json")) in problem.message


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("models.fast.modle", "models.fast.model"),
        ("models.fast.abuot", "models.fast.about"),
    ],
)
def test_an_unknown_key_of_a_model_names_the_nearest(tmp_path: Path, key: str, near: str) -> None:
    problem = refused(tmp_path, None, {}, f"{key}=x")
    assert problem.message == f"{key} (in --set) is not a setting of rlm."
    assert problem.hint == f"Did you mean {near}?"


def test_an_unknown_variable_of_a_model_names_the_nearest(tmp_path: Path) -> None:
    problem = refused(tmp_path, None, {"RLM_MODELS__FAST__MODLE": "x"})
    assert problem.hint == "Did you mean RLM_MODELS__FAST__MODEL?"


def test_a_model_that_is_the_roots_has_its_settings(tmp_path: Path) -> None:
    root = {"model": "a/b", "api_base": "http://x", "api_key": "sk-12345678", "timeout": 5}
    settings = load(
        tmp_path,
        {"root_llm": root, "models": {"same": {"model": "a/b", "timeout": 9}, "other": {"model": "c/d"}}},
    )
    same, other = settings.models["same"], settings.models["other"]
    assert (same.api_base, same.timeout, same.api_key) == ("http://x", 9.0, SecretStr("sk-12345678"))
    assert (other.api_base, other.timeout, other.api_key) == (None, 600.0, None)


def test_fixed_settings_are_listed_and_those_of_models_are_shown_where_they_are_set(tmp_path: Path) -> None:
    config = {"root_llm": {"model": "a/b", "timeout": 5}, "models": {"fast": {"model": "a/b"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    environ = {"RLM_MODELS__FAST__CALLS": "3"}
    shown = {one.key: one for one in explain_settings(environ=environ, cwd=tmp_path)}
    assert list(shown)[: len(known_keys())] == known_keys()
    others = {key: (one.value, one.source) for key, one in shown.items() if key.startswith("models.")}
    assert others == {
        "models.fast.model": ("a/b", str(tmp_path / "config.json")),
        "models.fast.timeout": (5.0, "root_llm"),
        "models.fast.calls": (3, "environment variable RLM_MODELS__FAST__CALLS"),
    }


# What a provider is sent

VALUES: dict[str, tuple[str, Any]] = {
    "top_p": ("0.5", 0.5),
    "seed": ("7", 7),
    "stop": ('["###", "END"]', ["###", "END"]),
    "reasoning": ("high", "high"),
    "thinking_tokens": ("2e3", 2000),
    "service_tier": ("flex", "flex"),
    "headers": ('{"X-Team": "a=b, c"}', {"X-Team": "a=b, c"}),
    "extra": ('{"verbosity": "low", "nested": {"n": [1]}}', {"verbosity": "low", "nested": {"n": [1]}}),
    "stream": ("true", True),
    "caching": ("off", False),
}


@pytest.mark.parametrize("section", ["root_llm", "sub_llm", "models.fast"])
@pytest.mark.parametrize("name", VALUES)
def test_what_a_provider_is_sent_is_the_same_from_each_source(
    tmp_path: Path, section: str, name: str
) -> None:
    text, value = VALUES[name]
    first, _, inner = section.partition(".")
    model = {"model": "a/b", name: value}
    variable = f"RLM_{section}__{name}".upper().replace(".", "__")
    named = {f"RLM_{section}__MODEL".upper().replace(".", "__"): "a/b"}
    sources: list[tuple[Any, ...]] = [
        ({first: {inner: model} if inner else model},),
        ({}, {variable: text, **named}),
        ({}, named, f"{section}.{name}={text}"),
        ({}, named, f"{section}={json.dumps({name: value})}"),
    ]
    for source in sources:
        loaded = load(tmp_path, *source)
        llm = getattr(loaded, first) if not inner else loaded.models[inner]
        assert getattr(llm, name) == value, source


def test_one_text_at_which_a_reply_ends_may_stand_alone(tmp_path: Path) -> None:
    for text in ("###", "[1, 2", "12"):
        assert load(tmp_path, {}, {"RLM_SUB_LLM__STOP": text}).sub_llm.stop == [text]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-A\nEvil": "1"}, "what begins with X-A is not the name of an HTTP header"),
        ({"Authorization: Bearer sk-12345678": "1"}, "what begins with Authorization is not the name"),
        ({"": "1"}, "that is not the name of an HTTP header"),
        (
            {"X-A": "sk-12345678\r\nX-Evil: 1"},
            "the value of X-A has characters that are not allowed in an HTTP header",
        ),
        ({"X-A": "sk-12345678é"}, "the value of X-A has characters"),
        ({"X-A": 5}, "valid string"),
        ("X-A: sk-12345678", "valid dictionary"),
    ],
)
def test_headers_that_http_cannot_carry_are_refused_and_not_shown(
    tmp_path: Path, headers: Any, said: str
) -> None:
    problem = refused(tmp_path, {"sub_llm": {"headers": headers}})
    assert said in problem.message
    assert "sk-12345678" not in str(problem)
    assert str(tmp_path / "config.json") in problem.message


def test_no_source_shows_a_key_a_header_or_a_secret_parameter(tmp_path: Path) -> None:
    secret = "sk-12345678"
    llm = {
        "model": "a/b",
        "api_key": secret,
        "headers": {"Authorization": f"Bearer {secret}", "X-Team": "blue-team"},
        "extra": {"aws_secret_access_key": secret, "list": [{"api_key": secret}], "verbosity": "low"},
    }
    config = {"root_llm": llm, "sub_llm": {**llm, "model": "c/d"}, "models": {"fast": llm}}
    settings = load(tmp_path, config)
    shown = [str(one) for one in explain_settings(environ={}, cwd=tmp_path)]
    for text in (*shown, repr(settings), str(settings)):
        assert secret not in text
    by_key = {one.key: one.value for one in explain_settings(environ={}, cwd=tmp_path)}
    assert by_key["models.fast.api_key"] == "set"
    assert by_key["models.fast.headers"] == {"Authorization": "set", "X-Team": "set"}
    assert by_key["sub_llm.extra"]["verbosity"] == "low"
    assert "headers" not in settings.model_dump()["models"]["fast"]
    assert set(settings.secrets()) == {secret, f"Bearer {secret}"}
    assert redact(f"<Bearer {secret}> <{secret}> blue-team", ()) == "<[redacted]> <[redacted]> blue-team"


@pytest.mark.parametrize(
    "text",
    [
        "models.fast.api_key=sk-12345678",
        'models={"fast": {"api_key": "sk-12345678"}}',
        'models.fast={"model": "a/b", "api_key": "sk-12345678"}',
        'root_llm.headers={"authorization": "Bearer sk-12345678"}',
        'root_llm.headers={"X-Api-Key": "sk-12345678"}',
        'sub_llm.extra={"inner": {"aws_secret_access_key": "sk-12345678"}}',
    ],
)
def test_set_takes_no_key_in_any_form(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be set on the command line") as caught:
        from_assignments([text])
    assert "sk-12345678" not in str(caught.value)


def test_a_key_of_a_model_may_be_in_a_variable(tmp_path: Path) -> None:
    environ = {"RLM_MODELS__FAST__MODEL": "a/b", "RLM_MODELS__FAST__API_KEY": "sk-12345678"}
    assert load(tmp_path, {}, environ).models["fast"].api_key == SecretStr("sk-12345678")
    assert "sk-12345678" not in repr(LLMSettings(headers={"Authorization": "sk-12345678"}))

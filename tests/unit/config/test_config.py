from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from rlm_kernel.config import LLMSettings, Settings, known_keys, load_settings, parse_size
from rlm_kernel.errors import ConfigError

TURNS = st.none() | st.integers(1, 1000)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def load(
    cwd: Path,
    config: Any = None,
    environ: dict[str, str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> Settings:
    if config is not None:
        write(cwd / "config.json", config)
    return load_settings(None, overrides or {}, environ or {}, cwd)


def error(*args: Any, **kwargs: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


# Precedence


@given(in_file=TURNS, in_environ=TURNS, in_overrides=TURNS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_later_sources_win(
    tmp_path: Path, in_file: int | None, in_environ: int | None, in_overrides: int | None
) -> None:
    config = {} if in_file is None else {"limits": {"turns": in_file}}
    environ = {} if in_environ is None else {"RLM_LIMITS__TURNS": str(in_environ)}
    loaded = load(tmp_path, config, environ, {"limits.turns": in_overrides})
    given_values = [value for value in (in_overrides, in_environ, in_file) if value is not None]
    assert loaded.limits.turns == (given_values[0] if given_values else 30)


def test_sources_add_up(tmp_path: Path) -> None:
    config = {"root_llm": {"model": "a/b", "temperature": 0}, "sandbox": {"memory": "512M"}}
    loaded = load(
        tmp_path, config, {"RLM_ROOT_LLM__MAX_TOKENS": "100", "RLM_SANDBOX__CPUS": "1.5"}, {"limits.cost": 2}
    )
    assert (loaded.root_llm.model, loaded.root_llm.temperature, loaded.root_llm.max_tokens) == (
        "a/b",
        0.0,
        100,
    )
    assert (loaded.sandbox.memory, loaded.sandbox.cpus, loaded.limits.cost) == ("512m", 1.5, 2.0)


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    for key in known_keys():
        variable = "RLM_" + key.upper().replace(".", "__")
        try:
            load(tmp_path, environ={variable: "true"})
        except ConfigError as problem:
            assert key in problem.message or "price" in key  # noqa: PT017


def test_short_names_of_the_models(tmp_path: Path) -> None:
    loaded = load(tmp_path, environ={"RLM_MODEL": "a/b", "RLM_SUB_MODEL": "c/d"})
    assert (loaded.root_llm.model, loaded.sub_llm.model) == ("a/b", "c/d")
    loaded = load(tmp_path, environ={"RLM_MODEL": "a/b", "RLM_ROOT_LLM__MODEL": "long/name"})
    assert loaded.root_llm.model == "long/name"


def test_none_lifts_a_limit_and_an_empty_variable_is_unset(tmp_path: Path) -> None:
    environ = {"RLM_LIMITS__CALLS": "none", "RLM_LIMITS__TURNS": " ", "RLM_SANDBOX__NETWORK": "none"}
    loaded = load(tmp_path, environ=environ)
    assert (loaded.limits.calls, loaded.limits.turns, loaded.sandbox.network) == (None, 30, "none")


def test_other_variables_of_the_project_are_left_alone(tmp_path: Path) -> None:
    environ = dict.fromkeys(
        ("RLM_CACHE_DIR", "RLM_DEBUG", "RLM_INSTALL_DOCKER", "RLM_LOCAL_THREADS", "RLM_MODELS_DIR", "RLMX"),
        "1",
    )
    assert load(tmp_path, environ=environ) == Settings()


def test_an_explicit_file_is_read_instead(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"limits": {"turns": 3}})
    mine = write(tmp_path / "mine.json", {"limits": {"turns": 4}})
    assert load_settings(mine, {}, {}, tmp_path).limits.turns == 4
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        load_settings(tmp_path / "nowhere.json", {}, {}, tmp_path)


def test_the_process_is_the_default_source(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_LIMITS__TURNS", "7")
    write(isolated / "cwd" / "config.json", {"limits": {"depth": 2}})
    loaded = load_settings()
    assert (loaded.limits.turns, loaded.limits.depth) == (7, 2)


# Files as earlier programs of this kind wrote them

GLM = {
    "enabled": False,
    "api_base": "https://api.z.ai/api/coding/paas/v4",
    "root_model": "glm-4.6",
    "sub_model": "glm-4.5-air",
}
EARLIER: dict[str, Any] = {
    "root_llm": {"model": "gpt-4o"},
    "sub_llm": {"model": "gpt-4o-mini"},
    "glm_coding": GLM,
    "memory_compaction": {"enabled": True},
}


def test_an_earlier_file_works_as_it_is(tmp_path: Path) -> None:
    loaded = load(tmp_path, EARLIER)
    assert (loaded.root_llm.model, loaded.sub_llm.model, loaded.memory_compaction.enabled) == (
        "gpt-4o",
        "gpt-4o-mini",
        True,
    )
    loaded = load(tmp_path, {**EARLIER, "glm_coding": {**GLM, "enabled": True}})
    assert (loaded.root_llm.model, loaded.sub_llm.model) == ("openai/glm-4.6", "openai/glm-4.5-air")
    assert loaded.root_llm.api_base == loaded.sub_llm.api_base == GLM["api_base"]


@pytest.mark.parametrize("missing", EARLIER)
def test_any_section_of_it_may_be_missing_empty_or_null(tmp_path: Path, missing: str) -> None:
    without = load(tmp_path, {name: values for name, values in EARLIER.items() if name != missing})
    assert getattr(without, missing) == (
        without.root_llm if missing == "sub_llm" else getattr(Settings(), missing)
    )
    assert load(tmp_path, {**EARLIER, missing: {}}) == load(tmp_path, {**EARLIER, missing: None}) == without


def test_blanks_around_its_values_do_not_count_and_a_blank_value_is_unset(tmp_path: Path) -> None:
    glm = {"enabled": " true ", "api_base": " ", "root_model": " glm-4.6\n", "sub_model": ""}
    loaded = load(
        tmp_path,
        {"root_llm": {"model": "", "api_key": "  "}, "sub_llm": {"model": " gpt-4o "}, "glm_coding": glm},
    )
    assert (loaded.root_llm.model, loaded.sub_llm.model) == ("openai/glm-4.6", "openai/glm-4.7")
    assert (loaded.root_llm.api_base, loaded.root_llm.api_key) == (
        "https://api.z.ai/api/coding/paas/v4",
        None,
    )
    assert load(tmp_path, {"sub_llm": {"model": " gpt-4o "}}).sub_llm.model == "gpt-4o"


def test_it_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(EARLIER), "utf-8-sig")
    assert load_settings(None, {}, {}, tmp_path).root_llm.model == "gpt-4o"


# The sub model


def test_a_sub_model_without_a_name_is_the_root_with_changes(tmp_path: Path) -> None:
    root = {
        "model": "a/b",
        "api_base": "http://x",
        "input_price": 1,
        "output_price": 2,
        "api_key": "sk-12345678",
    }
    loaded = load(tmp_path, {"root_llm": root, "sub_llm": {"concurrency": 1}})
    assert (loaded.sub_llm.model, loaded.sub_llm.api_base, loaded.sub_llm.output_price) == (
        "a/b",
        "http://x",
        2.0,
    )
    assert (loaded.sub_llm.concurrency, loaded.root_llm.concurrency) == (1, 64)
    assert loaded.sub_llm.api_key == SecretStr("sk-12345678")


def test_another_sub_model_has_nothing_of_the_roots(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, {"root_llm": {"model": "a/b", "api_base": "http://x"}, "sub_llm": {"model": "c/d"}}
    )
    assert loaded.sub_llm.api_base is None


# The GLM coding plan


def test_glm_coding_gives_both_models(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, {"glm_coding": {"enabled": True, "sub_model": "glm-air"}, "root_llm": {"model": "a/b"}}
    )
    assert (loaded.root_llm.model, loaded.sub_llm.model) == ("openai/glm-4.7", "openai/glm-air")
    assert loaded.root_llm.api_base == loaded.sub_llm.api_base == "https://api.z.ai/api/coding/paas/v4"
    assert loaded.root_llm.api_key_env == "ZAI_API_KEY"


def test_what_a_later_source_sets_wins_over_glm_coding(tmp_path: Path) -> None:
    root = {"api_base": "http://earlier", "api_key": "sk-earlier"}
    environ = {"RLM_SUB_LLM__API_BASE": "http://later", "RLM_SUB_LLM__API_KEY": "sk-later"}
    loaded = load(tmp_path, {"glm_coding": {"enabled": True}, "root_llm": root}, environ)
    assert (loaded.root_llm.api_base, loaded.root_llm.api_key) == (
        "https://api.z.ai/api/coding/paas/v4",
        None,
    )
    assert (loaded.sub_llm.model, loaded.sub_llm.api_base, loaded.sub_llm.api_key) == (
        "openai/glm-4.7",
        "http://later",
        SecretStr("sk-later"),
    )


def test_a_model_of_glm_coding_may_name_its_provider(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {"glm_coding": {"enabled": True, "root_model": "zai/glm-4.7", "sub_model": "openai/glm-4.5-air"}},
    )
    assert (loaded.root_llm.model, loaded.sub_llm.model) == ("zai/glm-4.7", "openai/glm-4.5-air")


def test_a_model_named_later_wins_over_glm_coding(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"glm_coding": {"enabled": True}}, {"RLM_MODEL": "a/b"})
    assert (loaded.root_llm.model, loaded.root_llm.api_base, loaded.root_llm.api_key_env) == (
        "a/b",
        None,
        None,
    )
    assert loaded.sub_llm.model == "openai/glm-4.7"


# Errors


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("limits.turn", "limits.turns"),
        ("limits.max_turns", "limits.turns"),
        ("root_llm.modle", "root_llm.model"),
        ("sandbox.mem", "sandbox.memory"),
        ("turns", "limits.turns"),
        ("limit.cost", "limits.cost"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, key: str, nearest: str) -> None:
    problem = error(tmp_path, overrides={key: 1})
    assert problem.message == f"{key} (in option) is not a setting of rlm."
    assert problem.hint == f"Did you mean {nearest}?"


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    problem = error(tmp_path, {"limits": {"turn": 1}})
    assert str(tmp_path / "config.json") in problem.message
    problem = error(tmp_path, {"limits": {}, "sandbx": {}})
    assert "Did you mean sandbox" in problem.hint


def test_an_unknown_variable_names_the_nearest(tmp_path: Path) -> None:
    problem = error(tmp_path, environ={"RLM_LIMIT__TURNS": "1"})
    assert "RLM_LIMIT__TURNS" in problem.message
    assert problem.hint == "Did you mean RLM_LIMITS__TURNS?"


def test_a_key_like_nothing_gets_the_list(tmp_path: Path) -> None:
    assert "limits.turns" in error(tmp_path, overrides={"zzz.qqq": 1}).hint


@pytest.mark.parametrize("content", [{"name": "webpack", "port": 1}, "[1, 2]", "not json", '"text"'])
def test_the_config_file_of_another_program_is_told(tmp_path: Path, content: Any) -> None:
    problem = error(tmp_path, content)
    assert str(tmp_path / "config.json") in problem.message
    assert "--config" in problem.hint


def test_a_section_must_be_an_object(tmp_path: Path) -> None:
    problem = error(tmp_path, {"root_llm": "gpt-4o"})
    assert problem.message.startswith("root_llm (in ")
    assert problem.hint == 'Write {"root_llm": {…}}.'


def test_a_dotted_key_in_a_file_is_told_how_to_write_it(tmp_path: Path) -> None:
    assert error(tmp_path, {"limits.turns": 5}).hint == 'Write {"limits": {"turns": …}}.'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits.turns", 0),
        ("limits.cost", -1),
        ("limits.cost", float("nan")),
        ("limits.seconds", "soon"),
        ("sandbox.memory", "much"),
        ("sandbox.seccomp", "loose"),
        ("root_llm.model", "  "),
        ("root_llm.concurrency", 0),
        ("root_llm.timeout", 0),
        ("memory_compaction.share", 0),
        ("memory_compaction.share", 1.5),
        ("session.idle", 0),
        ("session.wait", -1),
        ("session.wait", float("inf")),
        ("trace.dir", "~no-such-user/traces"),
    ],
)
def test_a_bad_value_names_setting_value_and_source(tmp_path: Path, key: str, value: Any) -> None:
    problem = error(tmp_path, overrides={key: value})
    assert problem.message.startswith(f"{key} = {value!r} (option): ")
    section, name = key.split(".")
    variable = f"RLM_{section}__{name}".upper()
    if str(value).strip():
        assert f"environment variable {variable}" in error(tmp_path, environ={variable: str(value)}).message


def test_one_price_alone_is_an_error(tmp_path: Path) -> None:
    assert "output_price" in error(tmp_path, overrides={"root_llm.input_price": 1}).message


def test_a_bad_key_is_not_shown(tmp_path: Path) -> None:
    assert "sk-12345678" not in str(error(tmp_path, overrides={"root_llm.api_key": ["sk-12345678"]}))


def test_a_key_where_the_name_of_its_variable_belongs_is_told_and_not_shown(tmp_path: Path) -> None:
    problem = error(tmp_path, {"sub_llm": {"api_key_env": "sk-12345678"}})
    assert "not the key itself" in problem.message
    assert "sk-12345678" not in str(problem)


# Secrets and sizes


def test_a_key_is_never_printed_or_serialised() -> None:
    loaded = Settings(root_llm=LLMSettings(model="a/b", api_key=SecretStr("sk-12345678")))
    for text in (repr(loaded), str(loaded), loaded.model_dump_json(), str(loaded.model_dump())):
        assert "sk-12345678" not in text


@pytest.mark.parametrize(
    ("text", "size"), [("2g", 2**31), ("512m", 2**29), ("1 KB", 1024), ("1GiB", 2**30), ("77", 77)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "g", "-1g", "0", "1.5g", "2x", "2g2"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_size(text)

"""The settings that hold, from all sources, and where each of them came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from rlm_kernel.config.envfile import read_dotenv
from rlm_kernel.config.settings import Settings, known_keys, may_be_none
from rlm_kernel.config.sources import (
    IN_DOTENV,
    IN_ENVIRONMENT,
    IN_OVERRIDES,
    SERVERS,
    Given,
    apply_glm,
    check_known,
    from_file,
    from_variables,
    one_spelling,
    with_servers,
)
from rlm_kernel.errors import ConfigError
from rlm_kernel.secrets import hold, names_secret

DEFAULT = "default"
_PASSWORD = re.compile(r"//[^/@\s]+@")


@dataclass(frozen=True)
class Explained:
    """A setting for people to see."""

    key: str
    value: Any
    """As JSON has it. "set" for a key that is set, and without the password of an address."""
    source: str
    """A file's path, an environment variable, "glm_coding", "root_llm" where the sub model follows it,
    "--set", "option" or "default".
    """


def load_settings(
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """The settings that hold, from all sources.

    `config_file` must exist; without it, config.json in `cwd` is read if it is there. `.env` in `cwd` is read
    if it is there. `overrides` has dotted names, with values or what from_assignments() gives; None there
    means not given. `environ` and `cwd` default to the process's own. Raises ConfigError, which names the
    setting, what is wrong with it, and where it came from.
    """
    return _checked(_gather(config_file, overrides, environ, cwd))


def with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with others in place of some of them, by dotted name.

    What the sub model had of the root's stays. Raises ConfigError.
    """
    given = dict(_from_overrides(changes))
    checked = _checked(given)
    made: dict[str, Any] = {}
    for key in given:
        section, _, name = key.rpartition(".")
        if not hasattr(settings, section):
            raise ConfigError(f"{key} cannot be set for a single question.", hint="Set it for all questions.")
        value = getattr(getattr(checked, section), name)
        made[section] = made.get(section, getattr(settings, section)).model_copy(update={name: value})
    return settings.model_copy(update=made)


def explain_settings(
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> list[Explained]:
    """Every setting with where it came from; parameters and errors as of load_settings().

    What load_api_keys() has taken from `.env` counts as of the environment: call this first.
    """
    given = _gather(config_file, overrides, environ, cwd)
    settings = _checked(given)
    dumped = settings.model_dump(mode="json")
    others = [f"models.{name}.{field}" for name, llm in settings.models.items() for field in llm.set_fields()]
    explained = []
    for key in [*known_keys(), *others]:
        *place, name = key.split(".")
        section, values = settings, dumped
        for part in place:
            section = section[part] if isinstance(section, dict) else getattr(section, part)
            values = values[part]
        value = getattr(section, name)
        shown = _told(name, value, values.get(name))
        explained.append(Explained(key, shown, _source(key, given, settings)))
    return explained


def _told(name: str, value: Any, dumped: Any) -> Any:
    """A value as people may see it."""
    if isinstance(value, SecretStr):
        return "set"
    if name == "headers":
        return dict.fromkeys(value, "set")
    if name == "servers":
        return {server: one.shown() for server, one in value.items()}
    if name == "extra":
        return _without_secrets(dumped)
    return _PASSWORD.sub("//[redacted]@", dumped) if isinstance(dumped, str) else dumped


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "set" if names_secret(name) or "header" in name else _without_secrets(inner)
            for name, inner in value.items()
        }
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value


def _source(key: str, given: Mapping[str, Given], settings: Settings) -> str:
    if key in given:
        return given[key].source
    section, _, name = key.rpartition(".")
    llm = settings.models.get(section.partition(".")[2]) if section != "sub_llm" else settings.sub_llm
    like_root = llm is not None and llm.model == settings.root_llm.model
    return "root_llm" if like_root and f"root_llm.{name}" in given else DEFAULT


def _gather(
    config_file: Path | None,
    overrides: Mapping[str, Any] | None,
    environ: Mapping[str, str] | None,
    cwd: Path | None,
) -> dict[str, Given]:
    """What somebody set, by dotted name; the last source's."""
    cwd = Path.cwd() if cwd is None else cwd
    given: dict[str, Given] = {}
    variables = os.environ if environ is None else environ
    for found in (
        from_file(config_file, cwd),
        from_variables(read_dotenv(cwd), "variable {} in .env", IN_DOTENV),
        from_variables(variables, "environment variable {}", IN_ENVIRONMENT),
        _from_overrides(overrides or {}),
    ):
        for key, item in found:
            given[key] = with_servers(given[key], item) if key == SERVERS and key in given else item
    given = one_spelling(given)
    apply_glm(given)
    return given


def _from_overrides(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Given]]:
    for key, value in overrides.items():
        if isinstance(value, Given):
            yield key, value
        elif value is not None:
            check_known(key, source := "option")
            yield key, Given(value, source, IN_OVERRIDES)


def _checked(given: Mapping[str, Given]) -> Settings:
    tree: dict[str, Any] = {}
    for key, item in given.items():
        *place, name = key.split(".")
        unset = (
            may_be_none(key)
            and isinstance(item.value, str)
            and item.value.strip().lower() in ("none", "null")
        )
        section = tree
        for part in place:
            section = section.setdefault(part, {})
        section[name] = None if unset else item.value
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise _bad_value(error, given) from None
    for secret in settings.secrets():
        hold(secret)
    return settings


def _bad_value(error: ValidationError, given: Mapping[str, Given]) -> ConfigError:
    problem = error.errors(include_url=False)[0]
    place = [str(part) for part in problem["loc"]]
    key = ".".join(place[: 3 if place[0] == "models" else 2])
    item = given.get(key)
    text = problem["msg"].removeprefix("Value error, ")
    # A key that is put where its variable's name belongs is secret, too.
    hidden = ".api_key" in key or key.endswith((".headers", ".extra")) or key == SERVERS
    value = f" = {_shortened(item.value)}" if item and not hidden else ""
    of_it = item or next((one for name, one in given.items() if name.startswith(f"{key}.")), None)
    source = f" ({of_it.source})" if of_it and (item or place[0] == "models") else ""
    if key == SERVERS and place[2:]:
        key = ".".join(["mcp_servers", *place[2:]])
    message = f"{key}{value}{source}: {text[:1].lower()}{text[1:]}."
    return ConfigError(message, hint="Correct the value, or remove it to use the default.")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

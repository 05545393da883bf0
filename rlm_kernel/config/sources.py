"""What each source gives: config.json, `.env`, the environment, --set, and the GLM coding plan."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_kernel.config.servers import servers_in
from rlm_kernel.config.settings import GLMCodingSettings, OtherLLM, field_of, known_keys, sections
from rlm_kernel.config.values import checked_model_name, json_value, same_model_name
from rlm_kernel.errors import ConfigError
from rlm_kernel.secrets import secrets_in

CONFIG_FILE = "config.json"
NOT_SETTINGS = (
    "RLM_CACHE_DIR",
    "RLM_DEBUG",
    "RLM_INSTALL_DOCKER",
    "RLM_MCP_TOKEN",
    "RLM_LOCAL_*",
    "RLM_MODELS_DIR",
    "RLM_TRACE",
)
"""Variables that start with RLM_ and are no settings; a star stands for any ending."""
SHORTHANDS = {"RLM_MODEL": "root_llm.model", "RLM_SUB_MODEL": "sub_llm.model"}
SERVERS = "mcp.servers"
"""The MCP servers: those of several sources are all there."""
MODELS = "models"
"""The section whose entries are the user's own: `models.NAME.…`."""
_VARIABLE = "RLM_MODELS"
SET = "--set"
IN_FILE, IN_DOTENV, IN_ENVIRONMENT, IN_OVERRIDES = range(1, 5)


@dataclass(frozen=True)
class Given:
    """A value somebody set. `layer` grows with precedence; `source` is for people."""

    value: Any
    source: str
    layer: int


def variable_of(key: str) -> str:
    """The environment variable of a setting."""
    return "RLM_" + key.upper().replace(".", "__")


def from_file(config_file: Path | None, cwd: Path) -> Iterator[tuple[str, Given]]:
    """What config.json sets; blank texts and absent (null) sections count as unset. Raises ConfigError."""
    path = cwd / CONFIG_FILE if config_file is None else config_file
    if config_file is None and not path.is_file():
        return
    hint = (
        f"If {path} belongs to another program, name a file of your own with --config."
        if config_file is None
        else ""
    )
    content = _with_servers_in_place(_json_object(path, hint))
    if content and not any(name.partition(".")[0] in _sections() for name in content):
        names = ", ".join(sorted(_sections()))
        raise ConfigError(
            f"{path} has no settings of rlm; known settings: {names}.",
            hint=hint or nearest(next(iter(content))),
        )
    for section, values in content.items():
        if section in known_keys():
            first, _, name = section.partition(".")
            raise ConfigError(
                f"{section} (in {path}) must be a JSON object.",
                hint=f'Write {{"{first}": {{"{name}": …}}}}.',
            )
        yield from _from_section(section, values, str(path), IN_FILE)


def _with_servers_in_place(content: dict[str, Any]) -> dict[str, Any]:
    """What stands under `mcp_servers`, or `mcpServers` as other programs write it, is `mcp.servers`."""
    content = dict(content)
    for name in ("mcpServers", "mcp_servers"):
        if name in content:
            mcp = content.setdefault("mcp", {})
            if isinstance(mcp, dict):
                content["mcp"] = {"servers": content.pop(name), **mcp}
    return content


def from_server_files(paths: Iterable[Path], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and the MCP servers of files of this or another program, as `--mcp FILE` names them.

    Raises ConfigError.
    """
    given = dict(given)
    for path in paths:
        content = _json_object(path, 'It must have {"mcpServers": {"NAME": {"command": …}}}.')
        servers = servers_in(content)
        if servers is None:
            raise ConfigError(
                f"{path} has no MCP servers.",
                hint='Write {"mcpServers": {"NAME": {"command": …, "args": […]}}}, or "url" for an address.',
            )
        item = Given(dict(servers), str(path), IN_OVERRIDES)
        given[SERVERS] = with_servers(given[SERVERS], item) if SERVERS in given else item
    return given


def with_servers(earlier: Given, later: Given) -> Given:
    """The MCP servers of two sources; of two with one name the later one."""
    one, other = json_value(earlier.value), json_value(later.value)
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return later
    return Given({**one, **other}, later.source, later.layer)


def _sections() -> list[str]:
    return [*sections(), MODELS]


def _from_section(section: str, values: Any, source: str, layer: int) -> Iterator[tuple[str, Given]]:
    if not section.startswith(f"{MODELS}."):
        check_known(section, source, known=_sections())
    if not isinstance(values, dict | None):
        raise ConfigError(f"{section} (in {source}) must be a JSON object.", hint=_as_object(section))
    for name, value in (values or {}).items():
        key = f"{section}.{name}"
        if section == MODELS:
            _check_name(name, source)
            if value == {}:
                raise ConfigError(f"{key} (in {source}) is empty.", hint=_as_object(key))
            yield from _from_section(key, value, source, layer)
            continue
        check_known(key, source)
        value = value.strip() if isinstance(value, str) else value
        if value != "":
            yield key, Given(value, source, layer)


def _as_object(section: str) -> str:
    inner = '{"model": "provider/model", …}' if section.startswith(f"{MODELS}.") else "{…}"
    for name in reversed(section.split(".")):
        inner = f'{{"{name}": {inner}}}'
    return f"Write {inner}."


def _check_name(name: str, source: str) -> None:
    try:
        checked_model_name(name)
    except ValueError as error:
        raise ConfigError(
            f"{name[:60]!r} (in {MODELS}, {source}) is not a valid name for a model: {error}.",
            hint='For example: {"models": {"fast": {"model": "provider/model"}}}',
        ) from None


def from_assignments(texts: Iterable[str]) -> dict[str, Given]:
    """What `--set section.key=value` sets, by dotted name; the last one of a key wins.

    The value is all that follows the first `=`, read as in an environment variable: nothing in it is split,
    unquoted or escaped. A whole section may be given as the JSON object that config.json would have. Raises
    ConfigError.
    """
    given: dict[str, Given] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            raise ConfigError(
                f"--set takes KEY=VALUE, not {_start(key)}.", hint="For example: --set limits.turns=50"
            )
        if key in _sections() or (key.startswith(f"{MODELS}.") and key.count(".") == 1):
            given.update(_assigned_section(key, value))
            continue
        check_known(key, SET)
        if not value:
            raise ConfigError(
                f"--set {key}= has no value.",
                hint="Write none to remove a limit, or leave --set out to use the default.",
            )
        given[key] = Given(value, SET, IN_OVERRIDES)
    for key, item in given.items():
        if is_secret(key, item.value):
            raise ConfigError(
                f"{key} cannot be set on the command line, where other users and the shell's history see it.",
                hint="Put the key into .env or an environment variable, such as OPENAI_API_KEY.",
            )
    return given


def _assigned_section(section: str, text: str) -> Iterator[tuple[str, Given]]:
    try:
        values = json.loads(text)
    except ValueError:
        values = text
    if not isinstance(values, dict):
        example = f"{section}.model" if section.startswith(f"{MODELS}.") else f"{section}.NAME.model"
        if section in sections():
            example = f"{section}.{next(iter(sections()[section]))}"
        raise ConfigError(
            f"{section} is a section, not a setting.",
            hint=f"Name a setting in it, such as --set {example}=…",
        )
    first, _, name = section.partition(".")
    return _from_section(first, {name: values} if name else values, SET, IN_OVERRIDES)


def is_secret(key: str, value: object) -> bool:
    """Whether a setting is a key, or has one in it: in a header, or in what else the provider is sent."""
    field = key.rpartition(".")[2]
    if field == "api_key":
        return True
    value = json_value(value)
    if key == SERVERS and isinstance(value, dict):
        return any(isinstance(one, dict) and _has_secret(one) for one in value.values())
    return field in ("headers", "extra") and bool(secrets_in(value))


def _has_secret(server: dict[str, Any]) -> bool:
    """Whether a server is given a secret itself, and not the name of its variable, `${NAME}`."""
    found = [*secrets_in(server.get("headers")), *secrets_in(server.get("env"))]
    return any("${" not in one for one in found)


def _start(text: str) -> str:
    """The first word: what follows may be a secret."""
    return repr(text.split()[0][:40]) if text else "a value without a key"


def _json_object(path: Path, hint: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read: {error.strerror or error}.", hint=hint
        ) from None
    except ValueError as error:
        raise ConfigError(f"The configuration file {path} is not JSON: {error}.", hint=hint) from None
    if not isinstance(content, dict):
        raise ConfigError(f"The configuration file {path} must hold a JSON object.", hint=hint)
    return content


def from_variables(variables: Mapping[str, str], source: str, layer: int) -> Iterator[tuple[str, Given]]:
    """What RLM_ variables set. `source` has a place for the variable's name. Raises ConfigError."""
    names = SHORTHANDS | {variable_of(key): key for key in known_keys()}
    if whole := variables.get(_VARIABLE, "").strip():
        yield from _models_variable(whole, source.format(f"{_VARIABLE}"), layer)
    names |= {name: key for name in variables if (key := _key_of(name)) is not None}
    # Shorthands come first, so that the long names win over them.
    for variable, key in names.items():
        if value := variables.get(variable, "").strip():
            yield key, Given(value, source.format(variable), layer)
    for variable in variables:
        if (
            variable.startswith("RLM_")
            and variable not in (*names, _VARIABLE)
            and not _is_no_setting(variable)
        ):
            near = difflib.get_close_matches(variable, [*names, *_likely(variable)], 1, 0.5)
            raise ConfigError(
                f"The {source.format(variable)} is not a setting of rlm.",
                hint=f"Did you mean {near[0]}?"
                if near
                else "Names are RLM_<SECTION>__<NAME>, such as RLM_LIMITS__TURNS.",
            )


def _models_variable(text: str, source: str, layer: int) -> Iterator[tuple[str, Given]]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"The {source} is not JSON: {error}.", hint=_as_object(f"{MODELS}.fast")) from None
    yield from _from_section(MODELS, values, source, layer)


def _key_of(variable: str) -> str | None:
    """The setting of a model of the user's that a variable is for, such as RLM_MODELS__FAST__MODEL."""
    prefix, _, rest = variable.partition("__")
    name, between, field = rest.rpartition("__")
    key = f"{MODELS}.{name.lower()}.{field.lower()}"
    return key if prefix == _VARIABLE and between and field_of(key) is not None else None


def _likely(variable: str) -> list[str]:
    """What a variable that is none may have been meant as, among those of a model of the user's."""
    name = variable.removeprefix(f"{_VARIABLE}__").rpartition("__")[0] or "NAME"
    return [f"{_VARIABLE}__{name}__{field.upper()}" for field in OtherLLM.model_fields]


def one_spelling(given: dict[str, Given]) -> dict[str, Given]:
    """The same with one spelling of each model's name: a variable has capitals, and _ in place of -.

    What was set for a name by several sources is the last one's.
    """
    spelt: dict[str, str] = {}
    found: dict[str, Given] = {}
    for key in given:
        if (name := _model_of(key)) is not None and given[key].layer not in (IN_DOTENV, IN_ENVIRONMENT):
            spelt.setdefault(same_model_name(name), name)
    for key, item in sorted(given.items(), key=lambda one: one[1].layer):
        name = _model_of(key)
        if name is not None and item.layer in (IN_DOTENV, IN_ENVIRONMENT):
            key = f"{MODELS}.{spelt.get(same_model_name(name), name)}.{key.rpartition('.')[2]}"
        found[key] = item
    return found


def _model_of(key: str) -> str | None:
    """The name in `models.NAME.…`."""
    section, _, rest = key.partition(".")
    return rest.partition(".")[0] if section == MODELS else None


def _is_no_setting(variable: str) -> bool:
    return any(
        variable.startswith(name[:-1]) if name.endswith("*") else variable == name for name in NOT_SETTINGS
    )


def apply_glm(given: dict[str, Given]) -> None:
    """Where the coding plan is on, let it give the models that no later source names."""
    enabled = given.get("glm_coding.enabled")
    try:
        glm = GLMCodingSettings.model_validate(
            {k[11:]: v.value for k, v in given.items() if k.startswith("glm_coding.")}
        )
    except ValidationError:
        return  # The check of the whole tells it better.
    if enabled is None or not glm.enabled:
        return

    def earlier(key: str) -> bool:
        return key not in given or given[key].layer <= enabled.layer

    for section, model in (("root_llm", glm.root_model), ("sub_llm", glm.sub_model)):
        if not earlier(f"{section}.model"):
            continue
        if earlier(f"{section}.api_key"):
            given.pop(f"{section}.api_key", None)
        full_name = model if "/" in model else f"openai/{model}"
        for name, value in (("model", full_name), ("api_base", glm.api_base), ("api_key_env", "ZAI_API_KEY")):
            if earlier(f"{section}.{name}"):
                given[f"{section}.{name}"] = Given(value, "glm_coding", enabled.layer)


# Errors


def check_known(key: str, source: str, *, known: list[str] | None = None) -> None:
    """Raise ConfigError, which names the nearest known one, unless the key is a setting's dotted name or in
    `known`.
    """
    if not (field_of(key) is not None if known is None else key in known):
        raise ConfigError(f"{key} (in {source}) is not a setting of rlm.", hint=nearest(key))


def nearest(key: str) -> str:
    """A hint with the setting whose dotted name, last part or section is most like the key."""
    keys = known_keys()
    name = _model_of(key) or "NAME"
    others = [f"{MODELS}.{name}.{field}" for field in OtherLLM.model_fields]
    scores = {known: _likeness(key, known) for known in [*keys, *_sections(), *others]}
    best = max(scores, key=lambda known: scores[known])
    return (
        f"Did you mean {best}?"
        if scores[best] >= 0.6
        else f"Known settings: {', '.join(keys)}, models.NAME.…"
    )


def _likeness(key: str, known: str) -> float:
    def ratio(a: str, b: str) -> float:
        return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()

    # The full name counts a little more, so that equal last parts do not beat the same section.
    return max(ratio(key, known), 0.95 * ratio(key.rpartition(".")[2], known.rpartition(".")[2]))

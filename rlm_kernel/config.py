"""The settings: what they are, where they come from, and what is wrong with them.

Later wins: defaults, `config.json`, the environment, overrides (command-line options).

A setting has a dotted name, `limits.turns`. In config.json it is a key in an object, `{"limits": {"turns": 5}}`; in the
environment it is `RLM_LIMITS__TURNS=5`: RLM_, the name in capitals, two underscores for the dot. `RLM_MODEL` and
`RLM_SUB_MODEL` are short for RLM_ROOT_LLM__MODEL and RLM_SUB_LLM__MODEL, which win over them. An empty variable counts as
unset; the value `none` lifts a limit or unsets what may be unset. Other variables of this project that start with RLM_
are in NOT_SETTINGS.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from rlm_kernel.errors import ConfigError
from rlm_kernel.secrets import is_secret_name

CONFIG_FILE = "config.json"
NOT_SETTINGS = ("RLM_CACHE_DIR", "RLM_DEBUG", "RLM_INSTALL_DOCKER", "RLM_LOCAL_*", "RLM_MODELS_DIR", "RLM_TRACE")
"""Variables that start with RLM_ and are no settings; a star stands for any ending."""
SHORTHANDS = {"RLM_MODEL": "root_llm.model", "RLM_SUB_MODEL": "sub_llm.model"}

_SIZE = re.compile(r"(\d+)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a size such as "512m" or "2g" (k, m, g, t are powers of 1024; none means bytes). Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    size = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if size <= 0:
        raise ValueError("a size is a whole number above 0 with k, m, g or t behind it, such as 512m or 2g")
    return size


def _checked_size(text: str) -> str:
    parse_size(text)
    return text.strip().lower()


def _path_list(value: Any) -> Any:
    """Of an environment variable: paths with os.pathsep between them."""
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Size = Annotated[str, AfterValidator(_checked_size)]
"""Text such as "2g"; parse_size() gives its bytes."""
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class LLMSettings(_Section):
    """One model and how it is called."""

    model: Name | None = None
    """litellm's name, `provider/model`."""
    api_base: Name | None = None
    """Address of the API; None for the provider's own or what its environment variable says."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Never printed or serialised. None: `api_key_env`, else the provider's environment variable."""
    api_key_env: Name | None = None
    """Name of the environment variable with the key, where it is not the provider's usual one."""
    timeout: Seconds = 600.0
    """Seconds for one attempt."""
    retries: Annotated[int, Field(ge=0, le=100)] = 4
    """Attempts after the first, for faults that may pass."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    """Calls at one time."""
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of one reply at most."""
    window: Annotated[int, Field(ge=1)] | None = None
    """Context window in tokens; None for what litellm's table says."""
    input_price: Price | None = None
    """US dollars per million prompt tokens; None for what litellm's table says."""
    output_price: Price | None = None
    """US dollars per million reply tokens. Both prices are set, or none."""

    @model_validator(mode="after")
    def _both_prices(self) -> LLMSettings:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price are set together or not at all")
        return self


class GLMCodingSettings(_Section):
    """The GLM coding plan: when enabled it gives both models, with the key from ZAI_API_KEY, unless a later source names one."""

    enabled: bool = False
    api_base: Name = "https://api.z.ai/api/coding/paas/v4"
    root_model: Name = "glm-4.7"
    sub_model: Name = "glm-4.7"


class MemoryCompactionSettings(_Section):
    """Whether a long history of the root model is summarised."""

    enabled: bool = True


class LimitSettings(_Section):
    """What a run may use. None: no limit."""

    turns: Annotated[int, Field(ge=1)] = 30
    calls: Annotated[int, Field(ge=0)] | None = 5000
    """Sub-model calls."""
    cost: Price | None = None
    """US dollars."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Prompt and reply tokens of both models."""
    seconds: Seconds | None = None
    depth: Annotated[int, Field(ge=0)] = 1
    """How deep child RLMs may nest."""
    cell_timeout: Seconds = 300.0
    """Seconds for one cell."""
    output_chars: Annotated[int, Field(ge=200)] = 20_000
    """Characters of a cell's output that the root model sees."""


class SandboxSettings(_Section):
    """The kernel's container."""

    image: Name | None = None
    """An image to use as it is, instead of the one built from `base`."""
    base: Name | None = None
    """Base image to build on; None for the usual one."""
    memory: Size = "2g"
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    pids: Annotated[int, Field(ge=16)] = 256
    """Processes and threads at most."""
    network: Name = "none"
    """A Docker network; anything but none lets the cell's code talk to it."""
    runtime: Name | None = None
    """A Docker runtime, such as runsc."""
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    tmp: Size = "1g"
    """Size of the container's /tmp, which lives in memory."""
    allow: Annotated[list[Annotated[Path, AfterValidator(Path.expanduser)]], BeforeValidator(_path_list)] = []
    """Folders whose files a notebook in Jupyter may have loaded by naming them in `paths`."""


class TraceSettings(_Section):
    """Where notebooks go."""

    dir: Annotated[Path, AfterValidator(Path.expanduser)] = Path("rlm-traces")
    """Relative to the current directory."""


class Settings(_Section):
    """All settings. Built by load_settings(); the defaults alone name no model."""

    root_llm: LLMSettings = LLMSettings()
    sub_llm: LLMSettings = LLMSettings()
    """Without a model of its own, or with the root's, it is the root's settings and what is set here on top."""
    glm_coding: GLMCodingSettings = GLMCodingSettings()
    memory_compaction: MemoryCompactionSettings = MemoryCompactionSettings()
    limits: LimitSettings = LimitSettings()
    sandbox: SandboxSettings = SandboxSettings()
    trace: TraceSettings = TraceSettings()

    @model_validator(mode="before")
    @classmethod
    def _sub_follows_root(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        root, sub = (_set_fields(data.get(name)) for name in ("root_llm", "sub_llm"))
        if sub.get("model") in (None, root.get("model")):
            sub = {**root, **{name: value for name, value in sub.items() if name != "model"}}
        return {**data, "sub_llm": sub} if sub else data


def _set_fields(section: object) -> dict[str, Any]:
    if isinstance(section, LLMSettings):
        return {name: getattr(section, name) for name in section.model_fields_set}
    return dict(section) if isinstance(section, Mapping) else {}


@dataclass(frozen=True)
class _Given:
    """A value somebody set. `layer` grows with precedence; `source` is for people."""

    value: Any
    source: str
    layer: int


def load_settings(
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """The settings that hold, from all sources.

    `config_file` must exist; without it, config.json in `cwd` is read if it is there. `overrides` has dotted names; None
    there means not given. `environ` and `cwd` default to the process's own. Raises ConfigError, which names the setting,
    what is wrong with it, and where it came from.
    """
    given: dict[str, _Given] = {}
    given.update(_from_file(config_file, Path.cwd() if cwd is None else cwd))
    given.update(_from_environment(os.environ if environ is None else environ))
    for key, value in (overrides or {}).items():
        if value is not None:
            _known(key, source := "option")
            given[key] = _Given(value, source, 3)
    _apply_glm(given)
    tree: dict[str, dict[str, Any]] = {}
    for key, item in given.items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = _unset_none(key, item)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _bad_value(error, given) from None


def load_api_keys(cwd: Path | None = None) -> list[str]:
    """Put the API keys (and provider addresses) of `.env` in `cwd` into os.environ, where they are not set; return their names.

    Other variables of the file are left alone: a folder's `.env` must not steer this program's PATH or Docker host.
    """
    path = (Path.cwd() if cwd is None else cwd) / ".env"
    if not path.is_file():
        return []
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="Write it as UTF-8 text, lines of NAME=value.") from None
    loaded = []
    for name, value in values.items():
        wanted = is_secret_name(name) or name.endswith(("_API_BASE", "_BASE_URL", "_API_VERSION"))
        if value and wanted and not os.environ.get(name):
            os.environ[name] = value
            loaded.append(name)
    return loaded


def known_keys() -> list[str]:
    """Dotted names of all settings."""
    return [f"{section}.{name}" for section, fields in _sections().items() for name in fields]


def _sections() -> dict[str, dict[str, FieldInfo]]:
    return {name: info.annotation.model_fields for name, info in Settings.model_fields.items() if _is_section(info.annotation)}  # type: ignore[union-attr]


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


# Sources


def _from_file(config_file: Path | None, cwd: Path) -> Iterator[tuple[str, _Given]]:
    path = cwd / CONFIG_FILE if config_file is None else config_file
    if config_file is None and not path.is_file():
        return
    hint = f"If {path} belongs to another program, name a file of your own with --config." if config_file is None else ""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror or error}.", hint=hint) from None
    except ValueError as error:
        raise ConfigError(f"The configuration file {path} is not JSON: {error}.", hint=hint) from None
    if not isinstance(content, dict):
        raise ConfigError(f"The configuration file {path} must hold a JSON object.", hint=hint)
    sections = _sections()
    if content and not sections.keys() & content.keys():
        names = ", ".join(sorted(sections))
        raise ConfigError(f"{path} has no setting of rlm in it; known are {names}.", hint=hint or _nearest(next(iter(content))))
    for section, values in content.items():
        _known(section, str(path), known=list(sections))
        if not isinstance(values, dict):
            raise ConfigError(f"{section} (in {path}) must be a JSON object, not {_shown(values)}.", hint=_nearest(section))
        for name, value in values.items():
            _known(key := f"{section}.{name}", str(path))
            yield key, _Given(value, str(path), 1)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    names = SHORTHANDS | {_variable(key): key for key in known_keys()}
    # Shorthands come first, so that the long names win over them.
    for variable, key in names.items():
        if environ.get(variable, "").strip():
            yield key, _Given(environ[variable], f"environment variable {variable}", 2)
    for variable in environ:
        if variable.startswith("RLM_") and variable not in names and not _is_no_setting(variable):
            near = difflib.get_close_matches(variable, names, 1, 0.5)
            raise ConfigError(
                f"The environment variable {variable} is no setting of rlm.",
                hint=f"Did you mean {near[0]}?" if near else "Names are RLM_<SECTION>__<NAME>, such as RLM_LIMITS__TURNS.",
            )


def _variable(key: str) -> str:
    return "RLM_" + key.upper().replace(".", "__")


def _is_no_setting(variable: str) -> bool:
    return any(variable.startswith(name[:-1]) if name.endswith("*") else variable == name for name in NOT_SETTINGS)


def _apply_glm(given: dict[str, _Given]) -> None:
    """Where the coding plan is on, let it give the models that no later source names."""
    enabled = given.get("glm_coding.enabled")
    try:
        glm = GLMCodingSettings.model_validate({k[11:]: v.value for k, v in given.items() if k.startswith("glm_coding.")})
    except ValidationError:
        return  # The check of the whole tells it better.
    if enabled is None or not glm.enabled:
        return
    for section, model in (("root_llm", glm.root_model), ("sub_llm", glm.sub_model)):
        named = given.get(f"{section}.model")
        if named is None or named.layer <= enabled.layer:
            values = {"model": f"openai/{model}", "api_base": glm.api_base, "api_key_env": "ZAI_API_KEY"}
            given.pop(f"{section}.api_key", None)
            given.update({f"{section}.{name}": _Given(value, "glm_coding", enabled.layer) for name, value in values.items()})


def _unset_none(key: str, item: _Given) -> Any:
    section, name = key.split(".")
    optional = type(None) in get_args(_sections()[section][name].annotation)
    return None if optional and isinstance(item.value, str) and item.value.strip().lower() == "none" else item.value


# Errors


def _known(key: str, source: str, *, known: list[str] | None = None) -> None:
    if key not in (known_keys() if known is None else known):
        raise ConfigError(f"{key} (in {source}) is no setting of rlm.", hint=_nearest(key))


def _nearest(key: str) -> str:
    """A hint with the setting whose dotted name, last part or section is most like the key."""
    keys = known_keys()
    scores = {known: _likeness(key, known) for known in [*keys, *_sections()]}
    best = max(scores, key=lambda known: scores[known])
    return f"Did you mean {best}?" if scores[best] >= 0.6 else f"Known settings: {', '.join(keys)}."


def _likeness(key: str, known: str) -> float:
    def ratio(a: str, b: str) -> float:
        return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()

    # The full name counts a little more, so that equal last parts do not beat the same section.
    return max(ratio(key, known), 0.95 * ratio(key.rpartition(".")[2], known.rpartition(".")[2]))


def _bad_value(error: ValidationError, given: Mapping[str, _Given]) -> ConfigError:
    problem = error.errors(include_url=False)[0]
    section, *rest = (str(part) for part in problem["loc"])
    key = f"{section}.{rest[0]}" if rest else section
    item = given.get(key)
    text = problem["msg"].removeprefix("Value error, ")
    value = f" = {_shown(item.value)}" if item and not is_secret_name(key.rpartition(".")[2]) else ""
    source = f" ({item.source})" if item else ""
    message = f"{key}{value}{source}: {text[:1].lower()}{text[1:]}."
    return ConfigError(message, hint="Correct the value, or leave it out for the default.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""The settings themselves, as one pydantic model: names, types, defaults, checks."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
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
    model_validator,
)
from pydantic.fields import FieldInfo

_SIZE = re.compile(r"(\d+)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_EXPONENT = re.compile(r"[+-]?\d+(\.\d+)?[eE]\+?\d{1,2}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a size such as "512m" or "2g" (k, m, g, t are powers of 1024; none means bytes).

    Raises ValueError.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if size <= 0:
        raise ValueError("a size is a whole number above 0 with k, m, g or t behind it, such as 512m or 2g")
    return size


def _checked_size(text: str) -> str:
    parse_size(text)
    return text.strip().lower()


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path.parts[0]} is no user with a home folder") from None


def _checked_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "this is to be the name of an environment variable, such as OPENAI_API_KEY, and not the key "
            "itself"
        )
    return name


def _path_list(value: Any) -> Any:
    """Of an environment variable: a JSON array, or paths with os.pathsep between them."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError):
        if isinstance(parsed := json.loads(value), list):
            return parsed
    return [part for part in value.split(os.pathsep) if part]


def _whole_number(value: Any) -> Any:
    """Of an environment variable: 2e6 is a whole number as well."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value.strip()):
        number = float(value)
        return int(number) if number.is_integer() else value
    return value


def _json_value(value: Any) -> Any:
    """Of an environment variable: a JSON object or array, or else the text itself."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if isinstance(parsed := json.loads(value), dict | list):
                return parsed
    return value


def _texts(value: Any) -> Any:
    """A list of texts; one text alone is a list of it."""
    value = _json_value(value)
    return [value] if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_whole_number)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Size = Annotated[str, AfterValidator(_checked_size)]
"""Text such as "2g"; parse_size() gives its bytes."""
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Folder = Annotated[Path, AfterValidator(_expanded)]
"""Relative to the current directory; ~ is the user's home."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)


class LLMSettings(_Section):
    """One model and how it is called."""

    model: Name | None = None
    """litellm's name, `provider/model`."""
    api_base: Name | None = None
    """Address of the API; None for the provider's own or what its environment variable says."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Never printed or serialised. None: `api_key_env`, else the provider's environment variable."""
    api_key_env: Annotated[Name, AfterValidator(_checked_variable)] | None = None
    """Name of the environment variable with the key, where it is not the provider's usual one."""
    timeout: Seconds = 600.0
    """Seconds for one attempt."""
    retries: Annotated[Whole, Field(ge=0, le=100)] = 4
    """Attempts after the first, for faults that may pass."""
    concurrency: Annotated[Whole, Field(ge=1, le=1000)] = 64
    """Calls at one time at most; fewer while the provider says that there are too many."""
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Whole | None = None
    stop: Annotated[list[str], BeforeValidator(_texts)] | None = None
    """Texts at which a reply ends."""
    reasoning: Literal["off", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much a model that reasons is to do so; None for its provider's default."""
    thinking_tokens: Annotated[Whole, Field(ge=0)] | None = None
    """Tokens of its reasoning at most, where the provider takes a number; 0 for none."""
    service_tier: Name | None = None
    """The provider's name of it, such as flex or priority."""
    headers: Annotated[dict[str, str], BeforeValidator(_json_value)] = {}
    """HTTP headers of each request."""
    extra: Annotated[dict[str, Any], BeforeValidator(_json_value)] = {}
    """Anything else that the provider takes, by litellm's names."""
    stream: bool | None = None
    """Whether replies are streamed; None: those of the root model."""
    caching: bool = True
    """Whether the beginning of a prompt is marked for the provider's cache, where it caches only what is
    marked.
    """
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    """Tokens of one reply at most."""
    window: Annotated[Whole, Field(ge=1)] | None = None
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


class OtherLLM(LLMSettings):
    """A model beside root and sub, which code may ask by its name here.

    What is not set is as of `root_llm` where it has the same model.
    """

    about: str = ""
    """What it is good for: the root model is told."""
    calls: Annotated[Whole, Field(ge=0)] | None = None
    """Calls of it in a run at most."""
    cost: Price | None = None
    """US dollars that its calls in a run may cost."""


class GLMCodingSettings(_Section):
    """The GLM coding plan: when enabled it gives both models, with the key from ZAI_API_KEY, unless a later
    source names one.
    """

    enabled: bool = False
    api_base: Name = "https://api.z.ai/api/coding/paas/v4"
    root_model: Name = "glm-4.7"
    sub_model: Name = "glm-4.7"


class MemoryCompactionSettings(_Section):
    """Whether the turns of a question are summed up, in what the root model sees: after its answer, and when
    they are too long.
    """

    enabled: bool = True
    share: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the room for turns in the root model's window, above which the turns of a run are summed
    up.
    """


class PromptSettings(_Section):
    """What the root model is told of its task."""

    profile: (
        Literal["default", "batching", "short", "small"] | Annotated[str, Field(pattern=r"\.md$")] | None
    ) = None
    """One of the project's, or a file of the user's.

    None: the one that suits the root model, by its name and window.
    """
    images: bool = False
    """Whether the root model is shown the pictures that its cells display."""


class LimitSettings(_Section):
    """What a run may use. None: no limit."""

    turns: Annotated[Whole, Field(ge=1)] = 30
    calls: Annotated[Whole, Field(ge=0)] | None = 5000
    """Sub-model calls."""
    cost: Price | None = None
    """US dollars."""
    tokens: Annotated[Whole, Field(ge=1)] | None = None
    """Prompt and reply tokens of both models."""
    seconds: Seconds | None = None
    depth: Annotated[Whole, Field(ge=0)] = 1
    """How deep child RLMs may nest."""
    cell_timeout: Seconds = 300.0
    """Seconds for one cell."""
    output_chars: Annotated[Whole, Field(ge=200)] = 20_000
    """Characters of a cell's output that the root model sees."""


class SandboxSettings(_Section):
    """The kernel's container."""

    image: Name | None = None
    """An image to use as it is, instead of the one built from `base`."""
    base: Name | None = None
    """Base image to build on; None for the usual one."""
    memory: Size = "2g"
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    pids: Annotated[Whole, Field(ge=16)] = 256
    """Processes and threads at most."""
    network: Name = "none"
    """A Docker network; anything but none lets the cell's code talk to it."""
    runtime: Name | None = None
    """A Docker runtime, such as runsc."""
    seccomp: Literal["tight", "engine"] = "tight"
    """The system calls that code may make: few, or those of the engine's own profile."""
    tmp: Size = "1g"
    """Size of the container's /tmp, which lives in memory."""
    children: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    """Containers of child RLMs at one time; None for as many as the free memory has room for."""
    volumes: Size = "20g"
    """Of all files that were sent to an engine which does not see them; what was not used for longest goes
    first.
    """
    allow: Annotated[list[Folder], BeforeValidator(_path_list)] = []
    """Folders whose files a notebook in Jupyter may have loaded by naming them in `paths`."""


class SessionSettings(_Section):
    """Sessions that are kept between commands."""

    dir: Folder = Path(".rlm_state")
    """Where they are remembered."""
    idle: Seconds = 7200.0
    """Seconds without use after which a session's container ends. The next command rebuilds it."""
    wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Seconds to wait for another command that uses the same session."""


class CacheSettings(_Section):
    """Whether sub-model calls at temperature 0 are answered from what the same call was answered before, by
    this user's runs.
    """

    enabled: bool = False
    size: Size = "1g"
    """Of the file at most; what was not used for longest goes first."""
    dir: Folder | None = None
    """None: the user's cache folder."""


class TraceSettings(_Section):
    """Where notebooks go, and how much of a run each keeps."""

    dir: Folder = Path("rlm-traces")
    outputs: Size = "40m"
    """Of the outputs of all cells together, passed by no more than the last cell's."""
    answers: Size = "128m"
    """Of the answers of models and child RLMs that are recorded."""
    records: Size = "16m"
    """Of all other calls of the code that are recorded: those that failed or cost nothing.

    An eighth of it for one cell.
    """


class Settings(_Section):
    """All settings. Built by load_settings(); the defaults alone name no model."""

    root_llm: LLMSettings = LLMSettings()
    sub_llm: LLMSettings = LLMSettings()
    """Without a model of its own, or with the root's, it is the root's settings and what is set here on
    top.
    """
    models: dict[str, OtherLLM] = {}
    """Models beside these, by the names that code uses."""
    glm_coding: GLMCodingSettings = GLMCodingSettings()
    memory_compaction: MemoryCompactionSettings = MemoryCompactionSettings()
    prompt: PromptSettings = PromptSettings()
    limits: LimitSettings = LimitSettings()
    sandbox: SandboxSettings = SandboxSettings()
    session: SessionSettings = SessionSettings()
    cache: CacheSettings = CacheSettings()
    trace: TraceSettings = TraceSettings()

    @property
    def memory_share(self) -> float | None:
        """Share of the root model's window above which its turns are summed up; None where that is off."""
        return self.memory_compaction.share if self.memory_compaction.enabled else None

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


def known_keys() -> list[str]:
    """Dotted names of all settings."""
    return [f"{section}.{name}" for section, fields in sections().items() for name in fields]


def sections() -> dict[str, dict[str, FieldInfo]]:
    """The fields of each section, by its name."""
    return {
        name: info.annotation.model_fields  # type: ignore[union-attr]
        for name, info in Settings.model_fields.items()
        if _is_section(info.annotation)
    }


def may_be_none(key: str) -> bool:
    """Whether the setting of this dotted name may be unset."""
    section, name = key.split(".")
    return type(None) in get_args(sections()[section][name].annotation)


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)

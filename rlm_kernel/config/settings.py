"""The settings themselves, as one pydantic model: names, types, defaults, checks."""

from __future__ import annotations

import contextlib
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

from rlm_kernel.config.servers import MCPServer, few_servers
from rlm_kernel.config.values import (
    Folder,
    Name,
    Price,
    Seconds,
    Size,
    Whole,
    checked_model_name,
    checked_variable,
    json_value,
    path_list,
    same_model_name,
    sendable,
    texts,
)
from rlm_kernel.secrets import secrets_in

MAX_MODELS = 20
"""Beside root and sub."""


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
    api_key_env: Annotated[Name, AfterValidator(checked_variable)] | None = None
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
    stop: Annotated[list[str], BeforeValidator(texts)] | None = None
    """Texts at which a reply ends."""
    reasoning: Literal["off", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much a model that reasons is to do so; None for its provider's default."""
    thinking_tokens: Annotated[Whole, Field(ge=0)] | None = None
    """Tokens of its reasoning at most, where the provider takes a number; 0 for none."""
    service_tier: Name | None = None
    """The provider's name of it, such as flex or priority."""
    headers: Annotated[dict[str, str], BeforeValidator(json_value), AfterValidator(sendable)] = Field(
        default={}, exclude=True, repr=False
    )
    """HTTP headers of each request. Values are never printed or serialised."""
    extra: Annotated[dict[str, Any], BeforeValidator(json_value)] = Field(default={}, repr=False)
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

    def set_fields(self) -> list[str]:
        """Names of the settings that were given, in their order."""
        return [name for name in type(self).model_fields if name in self.model_fields_set]

    def secrets(self) -> list[str]:
        """What must be told nobody: its key, and those in headers and in `extra`."""
        key = [self.api_key.get_secret_value()] if self.api_key else []
        return [*key, *secrets_in(self.headers), *secrets_in(self.extra)]

    @model_validator(mode="after")
    def _both_prices(self) -> LLMSettings:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("set both input_price and output_price, or neither")
        return self


class OtherLLM(LLMSettings):
    """A model beside root and sub, which code may ask by its name here. `model` must be set.

    What is not set is as of `root_llm` where it has the same model.
    """

    about: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] = ""
    """What it is good for: the root model is told."""
    calls: Annotated[Whole, Field(ge=0)] | None = None
    """Calls of it in a run at most."""
    cost: Price | None = None
    """US dollars that its calls in a run may cost."""

    @model_validator(mode="after")
    def _named(self) -> OtherLLM:
        if self.model is None:
            raise ValueError('model is required: name one, such as "openai/gpt-4o-mini"')
        return self


class GLMCodingSettings(_Section):
    """The GLM coding plan: when enabled it gives both models, with the key from ZAI_API_KEY, unless a later
    source names one.
    """

    enabled: bool = False
    api_base: Name = "https://api.z.ai/api/coding/paas/v4"
    root_model: Name = "glm-4.7"
    sub_model: Name = "glm-4.7"


class MemoryCompactionSettings(_Section):
    """Whether turns are summed up in what the root model sees: those of earlier questions before a further
    one is put, where they are long, and those of a question where they crowd the window.
    """

    enabled: bool = True
    tokens: Annotated[Whole, Field(ge=0)] = 8_000
    """Tokens of earlier questions' turns that stay as they are; 0: none do."""
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
    cite: bool = False
    """Whether answers are to have evidence: passages of the input, which the code cites."""
    whole: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the root model's window that an input may take which is shown to it whole; 0: none is."""


class LimitSettings(_Section):
    """What a run may use. None: no limit."""

    turns: Annotated[Whole, Field(ge=1)] = 30
    calls: Annotated[Whole, Field(ge=0)] | None = 5000
    """Sub-model calls."""
    cost: Price | None = None
    """US dollars."""
    ask: Price | None = 1.0
    """US dollars that the code's calls may cost before the user is asked, where there is a terminal and no
    limit on the cost. None: they never are.
    """
    tokens: Annotated[Whole, Field(ge=1)] | None = None
    """Prompt and reply tokens of both models."""
    seconds: Seconds | None = None
    depth: Annotated[Whole, Field(ge=0)] = 1
    """How deep child RLMs may nest."""
    tool_calls: Annotated[Whole, Field(ge=0)] | None = 1000
    """Calls of tools by the code."""
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
    allow: Annotated[list[Folder], BeforeValidator(path_list)] = []
    """Folders whose files a notebook in Jupyter may have loaded by naming them in `paths`."""
    question_files: bool = True
    """Whether code may load the files whose paths stand in a question, too. No, where the question may be a
    stranger's.
    """


class SessionSettings(_Section):
    """Sessions that are kept between commands."""

    dir: Folder = Path(".rlm_state")
    """Where they are remembered."""
    idle: Seconds = 7200.0
    """Seconds without use after which a session's container ends. The next command rebuilds it."""
    wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Seconds to wait for another command that uses the same session."""


class ServeSettings(_Section):
    """`rlm serve`: an endpoint for chat programs."""

    host: Name = "127.0.0.1"
    """Address to listen at. Another than loopback needs keys."""
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8000
    """0: any free one."""
    keys: Folder | None = None
    """The file with the keys of clients, and the limits of each; None: no key, and loopback alone."""
    at_once: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    """Questions answered at the same time; None: as many as their kernels fit into the free memory."""
    waiting: Annotated[Whole, Field(ge=0, le=10_000)] = 32
    """Requests that wait for their turn at most."""
    chats: Annotated[Whole, Field(ge=0, le=1000)] = 8
    """Kernels that are kept for chats that may go on."""
    idle: Seconds = 600.0
    """Seconds without a message after which a chat's kernel ends."""
    body: Size = "32m"
    """Of one request, with its files."""
    files: Size = "1g"
    """Of all files that clients sent, which are kept beside their traces; those of the oldest chats go first.
    """
    files_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 30.0
    """Days after which a chat's files go; 0: with its kernel; None: never."""
    long: Annotated[Whole, Field(ge=200, le=1_000_000)] = 4_000
    """Characters of a message above which it is context, and no part of the question."""
    origins: Annotated[list[Name], BeforeValidator(texts)] = []
    """Origins of web pages that may ask (CORS), such as https://chat.example.org."""


class CacheSettings(_Section):
    """Whether sub-model calls at temperature 0 are answered from what the same call was answered before, by
    this user's runs.
    """

    enabled: bool = False
    size: Size = "1g"
    """Of the file at most; what was not used for longest goes first."""
    dir: Folder | None = None
    """None: the user's cache folder."""


class ToolSettings(_Section):
    """Calls of tools, functions of the host that were given to the run."""

    timeout: Seconds = 600.0
    """Seconds that a call of any tool may take at most; each has less of its own."""
    size: Size = "8m"
    """Of the arguments of one call, and of its result, as JSON."""
    at_once: Annotated[Whole, Field(ge=1, le=256)] = 16
    """Calls under way at one time; others wait."""
    kept: Size = "256m"
    """Of the files that tools give, which are kept beside the trace; others are read where they lie."""


class TraceSettings(_Section):
    """Where notebooks go, and how much of a run each keeps."""

    dir: Folder = Path("rlm-traces")
    prompts: Literal["full", "preview"] = "full"
    """Whether what models were sent is kept in full, compressed, in a file beside the notebook."""
    outputs: Size = "40m"
    """Of the outputs of all cells together, passed by no more than the last cell's."""
    answers: Size = "128m"
    """Of the answers of models and child RLMs that are recorded."""
    records: Size = "16m"
    """Of all other calls of the code that are recorded: those that failed or cost nothing.

    An eighth of it for one cell.
    """


class MCPSettings(_Section):
    """MCP servers, whose tools code in the kernel may call."""

    servers: Annotated[dict[str, MCPServer], BeforeValidator(json_value), AfterValidator(few_servers)] = {}
    """By the names that their tools begin with. In config.json also `mcp_servers` or `mcpServers`."""


def _few_and_distinct(models: dict[str, OtherLLM]) -> dict[str, OtherLLM]:
    if len(models) > MAX_MODELS:
        raise ValueError(
            f"{len(models)} models are named; at most {MAX_MODELS} are allowed besides root and sub"
        )
    spelt: dict[str, str] = {}
    for name in models:
        if (other := spelt.setdefault(same_model_name(name), name)) != name:
            raise ValueError(
                f"{other} and {name} are the same name: upper and lower case, and - and _, count as equal"
            )
    return models


class Settings(_Section):
    """All settings. Built by load_settings(); the defaults alone name no model."""

    root_llm: LLMSettings = LLMSettings()
    sub_llm: LLMSettings = LLMSettings()
    """Without a model of its own, or with the root's, it is the root's settings and what is set here on
    top.
    """
    models: Annotated[
        dict[Annotated[str, AfterValidator(checked_model_name)], OtherLLM], AfterValidator(_few_and_distinct)
    ] = {}
    """Models beside these, by the names that code uses."""
    glm_coding: GLMCodingSettings = GLMCodingSettings()
    memory_compaction: MemoryCompactionSettings = MemoryCompactionSettings()
    prompt: PromptSettings = PromptSettings()
    limits: LimitSettings = LimitSettings()
    sandbox: SandboxSettings = SandboxSettings()
    session: SessionSettings = SessionSettings()
    serve: ServeSettings = ServeSettings()
    cache: CacheSettings = CacheSettings()
    trace: TraceSettings = TraceSettings()
    tools: ToolSettings = ToolSettings()
    mcp: MCPSettings = MCPSettings()

    @property
    def memory_share(self) -> float | None:
        """Share of the root model's window above which its turns are summed up; None where that is off."""
        return self.memory_compaction.share if self.memory_compaction.enabled else None

    def secrets(self) -> list[str]:
        """What must be told nobody of all models and MCP servers."""
        models = (self.root_llm, self.sub_llm, *self.models.values())
        of_models = [secret for llm in models for secret in llm.secrets()]
        return of_models + [secret for one in self.mcp.servers.values() for secret in one.secrets()]

    @model_validator(mode="before")
    @classmethod
    def _like_root(cls, data: Any) -> Any:
        """Models that are the root's have its settings, and what is set of their own on top."""
        if not isinstance(data, Mapping):
            return data
        root, sub = (_set_fields(data.get(name)) for name in ("root_llm", "sub_llm"))
        if sub.get("model") in (None, root.get("model")):
            sub = {**root, **{name: value for name, value in sub.items() if name != "model"}}
        found = {**data, "sub_llm": sub} if sub else dict(data)
        if isinstance(others := data.get("models"), Mapping):
            found["models"] = {name: _with_root(root, other) for name, other in others.items()}
        return found


def _with_root(root: Mapping[str, Any], other: Any) -> Any:
    own = _set_fields(other)
    return {**root, **own} if own.get("model") is not None and own["model"] == root.get("model") else other


def _set_fields(section: object) -> dict[str, Any]:
    if isinstance(section, LLMSettings):
        return {name: getattr(section, name) for name in section.model_fields_set}
    return dict(section) if isinstance(section, Mapping) else {}


def known_keys() -> list[str]:
    """Dotted names of all settings, but for those of the models that users name: `models.NAME.…`."""
    return [f"{section}.{name}" for section, fields in sections().items() for name in fields]


def sections() -> dict[str, dict[str, FieldInfo]]:
    """The fields of each section, by its name; for `models.NAME` see `field_of`."""
    return {
        name: info.annotation.model_fields  # type: ignore[union-attr]
        for name, info in Settings.model_fields.items()
        if _is_section(info.annotation)
    }


def field_of(key: str) -> FieldInfo | None:
    """What the setting of this dotted name takes, be it fixed or `models.NAME.…`; None if it is none."""
    match key.split("."):
        case ["models", name, field]:
            with contextlib.suppress(ValueError):
                checked_model_name(name)
                return OtherLLM.model_fields.get(field)
        case [section, field]:
            return sections().get(section, {}).get(field)
    return None


def may_be_none(key: str) -> bool:
    """Whether the setting of this dotted name may be unset."""
    field = field_of(key)
    return field is not None and type(None) in get_args(field.annotation)


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)

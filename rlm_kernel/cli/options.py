"""The options that commands share: each is written once, with its name, help, type and default, and the
setting it stands for.

A command asks for them with one parameter:

    @with_options
    def ask(question: str, *, options: RunOptions) -> None: ...

Typer then sees one option for each field of the class, and the command gets them as one value. A parameter of
the command itself stands in place of the option of the same name.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from rlm_kernel.cli import _complete, _events

if TYPE_CHECKING:
    from rlm_kernel.config import Settings
    from rlm_kernel.engine.events import Event
    from rlm_kernel.views.live import LiveView

SERVER, INPUT, MODELS, LIMITS, OUTPUT, SANDBOX, SETTINGS = (
    "Server",
    "Input",
    "Models",
    "Limits per question",
    "Output",
    "Sandbox",
    "Settings",
)
PANELS = (SERVER, INPUT, MODELS, LIMITS, OUTPUT, SANDBOX, SETTINGS)
"""The groups of options in a command's help, in this order; all others come last."""


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """An option of that group, as `typer.Option` has it otherwise."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


SESSION = Annotated[
    str,
    option(
        INPUT,
        "--session",
        metavar="NAME",
        help="Name of the session in this folder.",
        autocompletion=_complete.sessions,
    ),
]
FILES = Annotated[
    list[Path] | None,
    option(
        INPUT,
        "--file",
        "-f",
        metavar="PATH",
        help="File, folder or glob to load; - is stdin. Repeatable.",
        autocompletion=_complete.files,
    ),
]
MOVED_FILES = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--file",
        "-f",
        metavar="NAME=PATH",
        help="New place of a file of the trace, by its name or old path. Repeatable.",
        autocompletion=_complete.files,
    ),
]
ALLOW_CHANGED = Annotated[
    bool, option(INPUT, "--allow-changed", help="Accept input files that have changed.")
]
TRACE = Annotated[
    Path,
    typer.Argument(
        metavar="TRACE", help="The trace: a notebook.", show_default=False, autocompletion=_complete.traces
    ),
]
TRACE_OR_LAST = Annotated[
    Path | None,
    typer.Argument(
        metavar="[TRACE]",
        help="The trace: a notebook. Default: the last one.",
        show_default=False,
        autocompletion=_complete.traces,
    ),
]
TRACE_OUT = Annotated[
    Path | None,
    option(
        OUTPUT,
        "--trace",
        metavar="FILE",
        help="Write the trace to this notebook. Default: a new one in rlm-traces/.",
        autocompletion=_complete.files,
    ),
]
JSON = Annotated[bool, option(OUTPUT, "--json", help="Print one JSON object.")]


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    """The options of a command that reads settings."""

    set_: Annotated[
        list[str] | None,
        option(
            SETTINGS,
            "--set",
            metavar="KEY=VALUE",
            help="Set any setting, such as limits.tokens=2e6. Repeatable.",
            autocompletion=_complete.assignments,
        ),
    ] = None
    config: Annotated[
        Path | None,
        option(
            SETTINGS,
            "--config",
            metavar="FILE",
            help="Settings file. Default: config.json, if it exists.",
            autocompletion=_complete.files,
        ),
    ] = None

    mcp: Annotated[
        list[Path] | None,
        option(
            SETTINGS,
            "--mcp",
            metavar="FILE",
            help="File with more MCP servers, in the form of config.json or of another program. Repeatable.",
            autocompletion=_complete.files,
        ),
    ] = None

    def settings(self) -> Settings:
        """The settings of this command line. Raises ConfigError."""
        from rlm_kernel.config import load_settings

        return load_settings(self.config, self.given())

    def changes(self) -> dict[str, Any]:
        """What the command line sets, by dotted name. Raises ConfigError, which names the option."""
        self.settings()
        return {key: getattr(value, "value", value) for key, value in self.given().items()}

    def given(self) -> dict[str, Any]:
        """What --set sets, and the other options over it."""
        from rlm_kernel.config import from_assignments, from_server_files

        options: dict[str, Any] = {
            key: getattr(self, name)
            for name, key in _SETTING.items()
            if getattr(self, name, None) is not None
        }
        if getattr(self, "yes", False):
            options["limits.ask"] = "none"
        return from_server_files(self.mcp or (), {**from_assignments(self.set_ or ()), **options})


@dataclass(frozen=True, kw_only=True)
class KernelOptions(SettingsOptions):
    """The options of a command that runs cells in a kernel, and shows this."""

    as_json: JSON = False
    json_events: Annotated[
        bool,
        option(
            OUTPUT,
            "--json-events",
            help="Print events on stderr, one JSON object per line: docs/events.md.",
        ),
    ] = False
    quiet: Annotated[bool, option(OUTPUT, "--quiet", "-q", help="Print only errors on stderr.")] = False
    runtime: Annotated[
        str | None,
        option(
            SANDBOX, "--runtime", metavar="NAME", help="Docker runtime, such as runsc. Default: the engine's."
        ),
    ] = None

    def settings(self) -> Settings:
        """The settings of this command line; the API keys of `.env` are loaded. Raises ConfigError."""
        from rlm_kernel.config import load_api_keys

        load_api_keys()
        found = super().settings()
        _events.hide(found)
        return found

    @property
    def may_ask(self) -> bool:
        """Whether the user may be asked a question in the terminal."""
        return not (self.quiet or self.as_json or self.json_events)

    def view(self, *, lines: bool = True, quiet: bool = False) -> LiveView:
        """What shows a run on stderr. `lines`: off a terminal, a line for each turn and cell."""
        from rlm_kernel.views.live import LiveView

        if not self.json_events:
            return LiveView(quiet=self.quiet or quiet, lines=lines)

        class Told(LiveView):
            """What it has to say are lines of JSON among those of the events."""

            def __call__(self, event: Event) -> None:
                _events.listener(event)
                super().__call__(event)

        return Told(lines=False)


@dataclass(frozen=True, kw_only=True)
class SubCallOptions(KernelOptions):
    """The options of a command whose cells may ask sub models."""

    model: Annotated[
        str | None,
        option(
            MODELS,
            "--model",
            "-m",
            metavar="MODEL",
            help="Root model: provider/model, or local.",
            autocompletion=_complete.models,
        ),
    ] = None
    sub_model: Annotated[
        str | None,
        option(
            MODELS,
            "--sub-model",
            metavar="MODEL",
            help="Model for sub-calls. Default: the root model.",
            autocompletion=_complete.models,
        ),
    ] = None
    subllm: Annotated[
        str | None,
        option(
            MODELS,
            "--subllm",
            metavar="MODEL",
            help="The former name of --sub-model.",
            hidden=True,
            autocompletion=_complete.models,
        ),
    ] = None
    reasoning: Annotated[
        str | None,
        option(
            MODELS,
            "--reasoning",
            metavar="LEVEL",
            help="Reasoning of the root model: off, minimal, low, medium, high, xhigh or max. Default: the "
            "provider's.",
            autocompletion=_complete.reasoning,
        ),
    ] = None
    cache: Annotated[
        bool | None,
        option(
            MODELS,
            "--cache/--no-cache",
            help="Reuse cached replies to sub-calls at temperature 0. Default: off.",
        ),
    ] = None
    max_cost: Annotated[
        float | None,
        option(LIMITS, "--max-cost", metavar="USD", help="Maximum cost in US dollars. Default: no limit."),
    ] = None
    timeout: Annotated[
        float | None,
        option(LIMITS, "--timeout", metavar="SECONDS", help="Maximum time in seconds. Default: no limit."),
    ] = None
    max_calls: Annotated[
        int | None,
        option(LIMITS, "--max-calls", metavar="N", help="Maximum number of sub-model calls. Default: 5000."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions(SubCallOptions):
    """The options of a command that asks the root model."""

    profile: Annotated[
        str | None,
        option(
            MODELS,
            "--profile",
            metavar="NAME",
            help="System prompt: default, batching, short, small, or a .md file. Default: chosen for the "
            "root model.",
            autocompletion=_complete.profiles,
        ),
    ] = None
    compact: Annotated[
        bool | None,
        option(
            MODELS,
            "--compact/--no-compact",
            help="Summarise long turns for the root model: memory_compaction.enabled.",
            hidden=True,
        ),
    ] = None
    cite: Annotated[
        bool | None,
        option(OUTPUT, "--cite", help="Let the answer cite its evidence: passages of the input."),
    ] = None
    max_turns: Annotated[
        int | None,
        option(
            LIMITS, "--max-turns", metavar="N", help="Maximum number of turns of the root model. Default: 30."
        ),
    ] = None
    max_depth: Annotated[
        int | None,
        option(LIMITS, "--max-depth", metavar="N", help="Maximum depth of child RLMs; 0: none. Default: 1."),
    ] = None
    yes: Annotated[
        bool,
        option(LIMITS, "--yes", "-y", help="Do not ask before the code spends a lot: limits.ask=none."),
    ] = False
    tools: Annotated[
        list[Path] | None,
        option(
            INPUT,
            "--tools",
            metavar="FILE.py",
            help="File with functions that the code may call; they run on this machine. Repeatable.",
            autocompletion=_complete.files,
        ),
    ] = None

    def given_tools(self) -> dict[str, Any]:
        """The tools of --tools, as a keyword of the session functions. Raises UsageError."""
        from rlm_kernel.tools.module import tools_in

        return {"tools": tools_in(self.tools)} if self.tools else {}


_SETTING = {
    "model": "root_llm.model",
    "subllm": "sub_llm.model",
    "compact": "memory_compaction.enabled",
    "sub_model": "sub_llm.model",
    "reasoning": "root_llm.reasoning",
    "profile": "prompt.profile",
    "cite": "prompt.cite",
    "cache": "cache.enabled",
    "max_cost": "limits.cost",
    "timeout": "limits.seconds",
    "max_turns": "limits.turns",
    "max_calls": "limits.calls",
    "max_depth": "limits.depth",
    "runtime": "sandbox.runtime",
}
"""The setting that each option stands for."""


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer is to see it: with an option for each field of its parameter `options`."""
    hints = get_type_hints(function, include_extras=True)
    kind: type[SettingsOptions] = hints.pop("options")
    shared = {field.name: field.default for field in dataclasses.fields(kind) if field.name not in hints}
    shared_hints = get_type_hints(kind, include_extras=True)

    @wraps(function)
    def command(**given: Any) -> None:
        options = kind(**{name: given.pop(name) for name in shared})
        if isinstance(options, KernelOptions) and options.json_events:
            _events.begin(function.__name__)
        function(**given, options=options)

    own = [
        one.replace(annotation=hints[name])
        for name, one in inspect.signature(function).parameters.items()
        if name != "options"
    ]
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=shared_hints[name]
        )
        for name, default in shared.items()
    ]
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in (*own, *added)} | {"return": None}
    return command

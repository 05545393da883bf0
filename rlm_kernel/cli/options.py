"""The options that commands share: each is written once, with its name, help, type and default, and the setting it stands for.

A command asks for them with one parameter:

    @with_options
    def ask(question: str, *, options: RunOptions) -> None: ...

Typer then sees one option for each field of the class, and the command gets them as one value.
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

from rlm_kernel.cli import _complete

if TYPE_CHECKING:
    from rlm_kernel.config import Settings

INPUT, MODELS, LIMITS, OUTPUT, SANDBOX, SETTINGS = "Input", "Models", "Limits per question", "Output", "Sandbox", "Settings"
PANELS = (INPUT, MODELS, LIMITS, OUTPUT, SANDBOX, SETTINGS)
"""The groups of options in a command's help, in this order; all others come last."""

SESSION = Annotated[
    str,
    typer.Option(
        "--session", metavar="NAME", help="Name of the session in this folder.", rich_help_panel=INPUT, autocompletion=_complete.sessions
    ),
]
FILES = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="PATH",
        help="File, folder or glob to load; - is stdin. Repeatable.",
        rich_help_panel=INPUT,
        autocompletion=_complete.files,
    ),
]
MOVED_FILES = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="NAME=PATH",
        help="Where a file of the trace is now, by name or old path. Repeatable.",
        rich_help_panel=INPUT,
        autocompletion=_complete.files,
    ),
]
ALLOW_CHANGED = Annotated[bool, typer.Option("--allow-changed", help="Accept input files that have changed.", rich_help_panel=INPUT)]
TRACE = Annotated[Path, typer.Argument(metavar="TRACE", help="The trace: a notebook.", show_default=False, autocompletion=_complete.traces)]
TRACE_OUT = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Write the trace to this notebook. Default: a new one in rlm-traces/.",
        rich_help_panel=OUTPUT,
        autocompletion=_complete.files,
    ),
]
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    """The options of a command that reads settings."""

    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any setting, such as limits.tokens=2e6. Repeatable.",
            rich_help_panel=SETTINGS,
            autocompletion=_complete.assignments,
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings file. Default: config.json, if it exists.",
            rich_help_panel=SETTINGS,
            autocompletion=_complete.files,
        ),
    ] = None

    def settings(self) -> Settings:
        """The settings of this command line. Raises ConfigError."""
        from rlm_kernel.config import load_settings

        return load_settings(self.config, self._given())

    def changes(self) -> dict[str, Any]:
        """What the command line sets, by dotted name. Raises ConfigError, which names the option."""
        self.settings()
        return {key: getattr(value, "value", value) for key, value in self._given().items()}

    def _given(self) -> dict[str, Any]:
        """What --set sets, and the other options over it."""
        from rlm_kernel.config import from_assignments

        options = {key: getattr(self, name) for name, key in _SETTING.items() if getattr(self, name, None) is not None}
        return {**from_assignments(self.set_ or ()), **options}


@dataclass(frozen=True, kw_only=True)
class RunOptions(SettingsOptions):
    """The options of a command that asks models."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Root model: provider/model, or local.",
            rich_help_panel=MODELS,
            autocompletion=_complete.models,
        ),
    ] = None
    sub_model: Annotated[
        str | None,
        typer.Option(
            "--sub-model",
            metavar="MODEL",
            help="Model for sub-calls. Default: the root model.",
            rich_help_panel=MODELS,
            autocompletion=_complete.models,
        ),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="NAME",
            help="System prompt: default, batching, short, small, or a .md file. Default: chosen for the root model.",
            rich_help_panel=MODELS,
            autocompletion=_complete.profiles,
        ),
    ] = None
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache", help="Reuse cached replies to sub-calls at temperature 0. Default: off.", rich_help_panel=MODELS
        ),
    ] = None
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", help="US dollars. Default: no limit.", rich_help_panel=LIMITS)
    ] = None
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Seconds. Default: no limit.", rich_help_panel=LIMITS)
    ] = None
    max_turns: Annotated[
        int | None, typer.Option("--max-turns", metavar="N", help="Turns of the root model. Default: 30.", rich_help_panel=LIMITS)
    ] = None
    max_calls: Annotated[
        int | None, typer.Option("--max-calls", metavar="N", help="Sub-model calls. Default: 5000.", rich_help_panel=LIMITS)
    ] = None
    max_depth: Annotated[
        int | None, typer.Option("--max-depth", metavar="N", help="Nesting of child RLMs; 0: none. Default: 1.", rich_help_panel=LIMITS)
    ] = None
    as_json: JSON = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.", rich_help_panel=OUTPUT)] = False
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", metavar="NAME", help="Docker runtime, such as runsc. Default: the engine's.", rich_help_panel=SANDBOX),
    ] = None

    def settings(self) -> Settings:
        """The settings of this command line; the API keys of `.env` are loaded. Raises ConfigError."""
        from rlm_kernel.config import load_api_keys

        load_api_keys()
        return super().settings()

    @property
    def may_ask(self) -> bool:
        """Whether the user may be asked a question in the terminal."""
        return not (self.quiet or self.as_json)


_SETTING = {
    "model": "root_llm.model",
    "sub_model": "sub_llm.model",
    "profile": "prompt.profile",
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
    shared = {field.name: field.default for field in dataclasses.fields(kind)}
    shared_hints = get_type_hints(kind, include_extras=True)

    @wraps(function)
    def command(**given: Any) -> None:
        options = kind(**{name: given.pop(name) for name in shared})
        function(**given, options=options)

    own = [one.replace(annotation=hints[name]) for name, one in inspect.signature(function).parameters.items() if name != "options"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=shared_hints[name])
        for name, default in shared.items()
    ]
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in (*own, *added)} | {"return": None}
    return command

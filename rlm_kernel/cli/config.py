"""`rlm config`: all settings, and where each came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from rlm_kernel.cli._help import GroupedCommand
from rlm_kernel.cli._text import json_line
from rlm_kernel.cli.options import JSON, SettingsOptions, with_options
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.config import Explained

config_app = typer.Typer(help="Show the settings, and where each comes from.", no_args_is_help=True)


@config_app.callback()
def _group() -> None:
    """Without it, Typer would make the one command the group itself."""


@config_app.command(cls=GroupedCommand)
@with_options
def show(as_json: JSON = False, *, options: SettingsOptions) -> None:
    """Show all settings, their sources, and which API keys are set (names only)."""
    from rlm_kernel.config import explain_settings, find_api_keys

    settings = explain_settings(options.config, options.given())
    keys = find_api_keys(
        str(setting.value) for setting in settings if setting.key.endswith(".api_key_env") and setting.value
    )
    if as_json:
        shown = {setting.key: {"value": setting.value, "source": setting.source} for setting in settings}
        typer.echo(json_line({"settings": shown, "api_keys": keys}))
    else:
        typer.echo(printable("\n".join(_table(settings, keys))))


def _table(settings: Sequence[Explained], keys: Mapping[str, str | None]) -> Iterator[str]:
    rows = [(setting.key, _text(setting.value), setting.source) for setting in settings]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    section = rows[0][0].partition(".")[0]
    for key, value, source in rows:
        if section != (section := key.partition(".")[0]):
            yield ""
        yield f"{key:{first}}  {value:{second}}  {source}"
    yield ""
    yield "API keys (names only):"
    for name, place in keys.items():
        yield f"  {name}: {place or 'not set'}"
    if not keys:
        yield "  none"


def _text(value: object) -> str:
    """As it would be written in a variable."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        import os

        return os.pathsep.join(map(str, value)) or "[]"
    if isinstance(value, dict):
        return json_line(value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)

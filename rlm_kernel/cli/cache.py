"""`rlm cache`: what is kept of sub-model calls, and how to empty it."""

from __future__ import annotations

from pathlib import Path

import typer

from rlm_kernel.cli._help import GroupedCommand
from rlm_kernel.cli.options import JSON, SettingsOptions, with_options

cache_app = typer.Typer(help="Show or empty the cache of sub-model calls.", no_args_is_help=True)


@cache_app.command(cls=GroupedCommand)
@with_options
def info(as_json: JSON = False, *, options: SettingsOptions) -> None:
    """Show the cache: path, replies, size."""
    from rlm_kernel.models.cache import look_at

    found = look_at(_path(options))
    if as_json:
        import json

        typer.echo(json.dumps({"path": str(found.path), "entries": found.entries, "size": found.size}))
        return
    typer.echo(
        f"{'path':8} {found.path}\n{'entries':8} {found.entries:,}\n{'size':8} {found.size / 1e6:,.1f} MB"
    )


@cache_app.command(cls=GroupedCommand)
@with_options
def clear(*, options: SettingsOptions) -> None:
    """Empty the cache, even a damaged one. Running questions continue."""
    from rlm_kernel.models.cache import clear as empty

    path = _path(options)
    empty(path)
    typer.echo(f"rlm: the cache is empty: {path}", err=True)


def _path(options: SettingsOptions) -> Path:
    from rlm_kernel.models.cache import cache_path

    return cache_path(options.settings().cache.dir)

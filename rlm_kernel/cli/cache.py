"""`rlm cache`: what is kept of sub-model calls, and how to empty it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlm_kernel.cli.session import CONFIG

cache_app = typer.Typer(help="The cache of sub-model calls: what is in it, and how to empty it.", no_args_is_help=True)


@cache_app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config: CONFIG = None,
) -> None:
    """Show where the cache is, how many replies it has, and how many bytes it takes."""
    from rlm_kernel.models.cache import look_at

    found = look_at(_path(config))
    if as_json:
        import json

        typer.echo(json.dumps({"path": str(found.path), "entries": found.entries, "size": found.size}))
        return
    typer.echo(f"{'path':8} {found.path}\n{'entries':8} {found.entries:,}\n{'size':8} {found.size / 1e6:,.1f} MB")


@cache_app.command()
def clear(config: CONFIG = None) -> None:
    """Empty the cache, also one that is damaged. Runs in progress go on."""
    from rlm_kernel.models.cache import clear as empty

    path = _path(config)
    empty(path)
    typer.echo(f"rlm: the cache is empty: {path}", err=True)


def _path(config: Path | None) -> Path:
    from rlm_kernel.config import load_settings
    from rlm_kernel.models.cache import cache_path

    return cache_path(load_settings(config).cache.dir)

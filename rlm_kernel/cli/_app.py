"""The Typer application: all commands, and what holds for every one."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from rlm_kernel._version import __version__
from rlm_kernel.cli._complete import use_scripts
from rlm_kernel.cli._help import GroupedCommand
from rlm_kernel.cli.ask import ask
from rlm_kernel.cli.attach import attach
from rlm_kernel.cli.bench import bench
from rlm_kernel.cli.cache import cache_app
from rlm_kernel.cli.chat import chat
from rlm_kernel.cli.config import config_app
from rlm_kernel.cli.doctor import doctor
from rlm_kernel.cli.gc import gc
from rlm_kernel.cli.image import image_app
from rlm_kernel.cli.kernelspec import kernelspec_app
from rlm_kernel.cli.models import models_app
from rlm_kernel.cli.replay import replay
from rlm_kernel.cli.resume import fork, resume
from rlm_kernel.cli.session import init, run, status, stop

use_scripts()
app = typer.Typer(
    name="rlm",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ask questions over inputs of any size: a root model writes code in a locked Jupyter kernel; every step is in a notebook.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _shown: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")] = False,
) -> None:
    if debug:
        os.environ["RLM_DEBUG"] = "1"


app.command(cls=GroupedCommand)(ask)
app.command(cls=GroupedCommand)(chat)
app.command(cls=GroupedCommand)(init)
app.command(cls=GroupedCommand)(run)
app.command(cls=GroupedCommand)(status)
app.command(cls=GroupedCommand)(stop)
app.command(cls=GroupedCommand)(replay)
app.command(cls=GroupedCommand)(resume)
app.command(cls=GroupedCommand)(fork)
app.command(cls=GroupedCommand)(attach)
app.command(cls=GroupedCommand)(bench)
app.command(cls=GroupedCommand)(doctor)
app.command(cls=GroupedCommand)(gc)
app.add_typer(cache_app, name="cache")
app.add_typer(config_app, name="config")
app.add_typer(image_app, name="image")
app.add_typer(kernelspec_app, name="kernelspec")
app.add_typer(models_app, name="models")

"""The Typer application: all commands, and what holds for every one."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from rlm_kernel._version import __version__
from rlm_kernel.cli._complete import use_scripts
from rlm_kernel.cli._help import ASK, SESSIONS, TOOLS, TRACES, GroupedCommand, GroupedCommands
from rlm_kernel.cli.apply import apply
from rlm_kernel.cli.ask import ask
from rlm_kernel.cli.attach import attach
from rlm_kernel.cli.auth import auth_app
from rlm_kernel.cli.batch import batch
from rlm_kernel.cli.bench import bench
from rlm_kernel.cli.cache import cache_app
from rlm_kernel.cli.chat import chat
from rlm_kernel.cli.config import config_app
from rlm_kernel.cli.diff import diff
from rlm_kernel.cli.doctor import doctor
from rlm_kernel.cli.export import export
from rlm_kernel.cli.gc import gc
from rlm_kernel.cli.image import image_app
from rlm_kernel.cli.kernelspec import kernelspec_app
from rlm_kernel.cli.mcp import mcp
from rlm_kernel.cli.models import models_app
from rlm_kernel.cli.open import open_
from rlm_kernel.cli.replay import replay
from rlm_kernel.cli.resume import fork, resume
from rlm_kernel.cli.serve import serve
from rlm_kernel.cli.session import init, run, status, stop
from rlm_kernel.cli.show import show
from rlm_kernel.cli.test import test
from rlm_kernel.cli.tools import tools
from rlm_kernel.cli.traces import traces
from rlm_kernel.cli.verify import verify

use_scripts()
app = typer.Typer(
    cls=GroupedCommands,
    name="rlm",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ask questions about inputs of any size. A model writes code in a sandboxed Jupyter kernel; a "
    "notebook records every step.",
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
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _shown: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ["RLM_DEBUG"] = "1"


for panel, commands in {
    ASK: (ask, chat, batch),
    SESSIONS: (init, run, status, stop, attach),
    TRACES: (show, traces, open_, export, diff, verify, replay, resume, fork, apply, test),
    TOOLS: (serve, mcp, tools, doctor, gc, bench),
}.items():
    for command in commands:
        app.command(command.__name__.strip("_"), cls=GroupedCommand, rich_help_panel=panel)(command)
for name, group in {
    "auth": auth_app,
    "cache": cache_app,
    "config": config_app,
    "image": image_app,
    "kernelspec": kernelspec_app,
    "models": models_app,
}.items():
    app.add_typer(group, name=name, rich_help_panel=TOOLS)

"""The Typer application, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from rlm_kernel.cli._text import printable
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
from rlm_kernel.errors import RLMError

app = typer.Typer(
    name="rlm",
    help="Ask questions over inputs of any size: a root model writes code in a locked Jupyter kernel; every step is in a notebook.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["RLM_DEBUG"] = "1"


app.command()(ask)
app.command()(chat)
app.command()(init)
app.command()(run)
app.command()(status)
app.command()(stop)
app.command()(replay)
app.command()(resume)
app.command()(fork)
app.command()(attach)
app.command()(bench)
app.command()(doctor)
app.command()(gc)
app.add_typer(cache_app, name="cache")
app.add_typer(config_app, name="config")
app.add_typer(image_app, name="image")
app.add_typer(kernelspec_app, name="kernelspec")
app.add_typer(models_app, name="models")


def main() -> None:
    """Entry point of `rlm`. Exit codes: 0 answered, 1 no answer, 2 usage, 3 set-up, 130 interrupted."""
    # jsonschema, which nbformat brings, would load it to check IRIs: two seconds for what is never asked here.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    try:
        app()
    except RLMError as error:
        if os.environ.get("RLM_DEBUG"):
            raise
        print(f"rlm: {printable(error.message)}", file=sys.stderr)
        if error.hint:
            print(printable(error.hint), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)

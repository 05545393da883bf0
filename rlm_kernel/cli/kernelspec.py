"""`rlm kernelspec`: the Docker kernel for JupyterLab, nbclient, nbconvert and papermill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlm_kernel.errors import UsageError

kernelspec_app = typer.Typer(help="The Docker kernel for JupyterLab, nbclient, nbconvert and papermill.", no_args_is_help=True)

_Name = Annotated[str | None, typer.Option("--name", help="The kernelspec's name (default: rlm, with --live rlm-live). Traces name rlm.")]
_Live = Annotated[bool, typer.Option("--live", help="The one that asks the models what a trace has no record of.")]


@kernelspec_app.command()
def install(
    user: Annotated[bool, typer.Option("--user", help="For the user, in any environment.")] = False,
    sys_prefix: Annotated[
        bool, typer.Option("--sys-prefix", help="In the Python environment of this rlm; the default if it is a virtual one, else --user.")
    ] = False,
    prefix: Annotated[Path | None, typer.Option("--prefix", metavar="PATH", help="Below this folder, in share/jupyter/kernels.")] = None,
    name: _Name = None,
    live: _Live = False,
) -> None:
    """Install the kernelspec, so that Jupyter opens traces with their files and recording. Its folder goes to stdout."""
    from rlm_kernel.session.kernelspecs import install

    if user + sys_prefix + (prefix is not None) > 1:
        raise UsageError("--user, --sys-prefix and --prefix exclude each other.")
    typer.echo(install(name=name, live=live, user=user, prefix=Path(sys.prefix) if sys_prefix else prefix))
    typer.echo(f"rlm: Jupyter finds it if it runs where rlm-kernel is installed: {sys.prefix}", err=True)


@kernelspec_app.command()
def remove(name: _Name = None, live: _Live = False) -> None:
    """Remove the kernelspec. Its folder goes to stdout."""
    from rlm_kernel.session.kernelspecs import remove

    typer.echo(remove(name=name, live=live))

"""`rlm kernelspec`: the Docker kernel for JupyterLab, nbclient, nbconvert and papermill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlm_kernel.errors import UsageError

kernelspec_app = typer.Typer(help="Install the sandboxed kernel for Jupyter.", no_args_is_help=True)

_Name = Annotated[
    str | None,
    typer.Option(
        "--name", help="Name of the kernelspec. Default: rlm, which traces use; with --live: rlm-live."
    ),
]
_Live = Annotated[
    bool, typer.Option("--live", help="Install the kernel that asks the models if a call is not recorded.")
]


@kernelspec_app.command()
def install(
    user: Annotated[bool, typer.Option("--user", help="Install for this user, in any environment.")] = False,
    sys_prefix: Annotated[
        bool,
        typer.Option(
            "--sys-prefix",
            help="Install in this Python environment. Default in a virtual environment; otherwise --user.",
        ),
    ] = False,
    prefix: Annotated[
        Path | None, typer.Option("--prefix", metavar="PATH", help="Install in PATH/share/jupyter/kernels.")
    ] = None,
    name: _Name = None,
    live: _Live = False,
) -> None:
    """Install the kernelspec, so that Jupyter opens traces with their files and recording.

    Prints its folder on stdout.
    """
    from rlm_kernel.session.kernelspecs import install

    if user + sys_prefix + (prefix is not None) > 1:
        raise UsageError("Use only one of --user, --sys-prefix and --prefix.")
    typer.echo(install(name=name, live=live, user=user, prefix=Path(sys.prefix) if sys_prefix else prefix))
    typer.echo(
        f"rlm: Jupyter finds the kernel only if Jupyter runs in the environment of rlm-kernel: {sys.prefix}",
        err=True,
    )


@kernelspec_app.command()
def remove(name: _Name = None, live: _Live = False) -> None:
    """Remove the kernelspec. Prints its folder on stdout."""
    from rlm_kernel.session.kernelspecs import remove

    typer.echo(remove(name=name, live=live))

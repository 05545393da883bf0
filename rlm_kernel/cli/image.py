"""`rlm image`: builds or shows the kernel image."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from rlm_kernel.cli._help import GroupedCommand
from rlm_kernel.cli.options import JSON, SettingsOptions, with_options

image_app = typer.Typer(help="Build or show the kernel image.", no_args_is_help=True)

_Base = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="IMAGE", help="Base image with Python 3.11 or later. Default: python:3.12-slim."
    ),
]


@image_app.command(cls=GroupedCommand)
@with_options
def build(
    base: _Base = None,
    force: Annotated[bool, typer.Option("--force", help="Build again even if it exists.")] = False,
    *,
    options: SettingsOptions,
) -> None:
    """Build the kernel image if it does not exist. Prints its tag on stdout."""
    from rlm_kernel.sandbox.docker_host import connect
    from rlm_kernel.sandbox.image import ensure_image

    with closing(connect()) as client:
        image = ensure_image(
            client,
            base=base or options.settings().sandbox.base,
            force=force,
            progress=lambda line: typer.echo(line, err=True),
        )
    typer.echo(image.tag)


@image_app.command(cls=GroupedCommand)
@with_options
def info(
    base: _Base = None,
    as_json: JSON = False,
    *,
    options: SettingsOptions,
) -> None:
    """Show this version's kernel image. Exit code 3 if it is not built."""
    from rlm_kernel.errors import ImageError
    from rlm_kernel.sandbox.docker_host import connect
    from rlm_kernel.sandbox.image import find_image, image_tag

    base = base or options.settings().sandbox.base
    with closing(connect()) as client:
        image = find_image(client, base)
    if image is None:
        command = f"rlm image build --base {base}" if base else "rlm image build"
        raise ImageError(f"The kernel image {image_tag(base)} is not built.", hint=f"Type `{command}`.")
    if as_json:
        json.dump(asdict(image), sys.stdout)
        typer.echo()
        return
    for name, value in asdict(image).items():
        typer.echo(f"{name:8} {value / 1e6:.0f} MB" if name == "size" else f"{name:8} {value}")

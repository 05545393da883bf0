"""`rlm gc`: removes what nobody uses any more."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from rlm_kernel.cli.options import JSON, SettingsOptions, with_options
from rlm_kernel.printable import printable


@with_options
def gc(
    images: Annotated[
        bool,
        typer.Option("--images", help="Also remove kernel images of other versions that no container uses."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")
    ] = False,
    as_json: JSON = False,
    *,
    options: SettingsOptions,
) -> None:
    """Remove unused containers, folders, images and copied files.

    They are left over from crashes, killed commands and earlier versions. Removes only your own, and nothing
    that a session still needs. Completes the traces of killed runs in trace.dir from their journals, and
    keeps the files next to them. Removes empty notebooks of runs that were killed before they started. Files
    that have lost their trace are listed, but not removed.
    """
    from rlm_kernel.sandbox.cleanup import Leftover, collect
    from rlm_kernel.sandbox.docker_host import connect
    from rlm_kernel.sandbox.image import image_tag
    from rlm_kernel.session.besides import without_trace
    from rlm_kernel.session.places import left_empty
    from rlm_kernel.trace.reader import fold_all

    settings = options.settings()
    sandbox = settings.sandbox
    completed = [] if dry_run else fold_all(settings.trace.dir)
    keep = {image_tag(sandbox.base), sandbox.image or ""}
    found: list[Leftover] = []

    def tell(leftover: Leftover) -> None:
        found.append(leftover)
        if not as_json:
            typer.echo(f"{leftover.kind:10} {leftover.size / 1e6:9,.1f} MB  {printable(leftover.name)}")

    with closing(connect()) as client:
        for leftover in collect(client, dry_run=dry_run, images=keep if images else None):
            tell(leftover)
    for path in list(left_empty(settings.trace.dir)):
        if not dry_run:
            path.unlink(missing_ok=True)
        tell(Leftover("notebook", str(path), 0))
    alone = list(without_trace(settings.trace.dir))
    if as_json:
        import json
        from dataclasses import asdict

        traces = [str(path) for path in completed]
        typer.echo(
            json.dumps(
                {
                    "dry_run": dry_run,
                    "removed": [asdict(leftover) for leftover in found],
                    "completed": traces,
                    "without_trace": [{"path": str(one.path), "size": one.size} for one in alone],
                }
            )
        )
    else:
        for path in completed:
            typer.echo(f"rlm: the trace of a killed run was completed: {printable(str(path))}", err=True)
        for one in alone:
            typer.echo(
                f"rlm: kept without its trace: {printable(str(one.path))} ({one.size / 1e6:,.1f} MB). "
                "Remove it, unless you moved the trace and want to replay it.",
                err=True,
            )
        done = "would be removed" if dry_run else "removed"
        typer.echo(f"rlm: {len(found) or 'nothing'} {done}", err=True)

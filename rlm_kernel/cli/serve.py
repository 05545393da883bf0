"""`rlm serve`: an OpenAI-compatible endpoint, through which chat programs use an RLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli.options import SERVER, RunOptions, option, with_options
from rlm_kernel.errors import SetupError, UsageError


@with_options
def serve(
    host: Annotated[
        str | None,
        option(SERVER, "--host", metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1."),
    ] = None,
    port: Annotated[
        int | None, option(SERVER, "--port", min=0, max=65535, help="Port; 0: any free one. Default: 8000.")
    ] = None,
    key_file: Annotated[
        Path | None,
        option(
            SERVER,
            "--key-file",
            metavar="FILE",
            help="File with the keys of clients. Default: none; then only this machine may ask.",
            autocompletion=_complete.files,
        ),
    ] = None,
    new_key: Annotated[
        str | None,
        option(SERVER, "--new-key", metavar="NAME", help="Make a key in the key file, print it, and exit."),
    ] = None,
    at_once: Annotated[
        int | None,
        option(
            SERVER,
            "--at-once",
            metavar="N",
            min=1,
            help="Number of questions answered at the same time. Default: as many as fit into memory.",
        ),
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Answer chat programs as an OpenAI-compatible endpoint, until Ctrl-C.

    Long messages and attached files of a chat become the context; a chat that continues keeps its kernel.
    """
    from rlm_kernel.config import load_settings

    if options.as_json or options.json_events:
        raise UsageError(
            "rlm serve prints no results, because its clients get them.",
            hint="Leave --json and --json-events out.",
        )
    changes = options.changes() | {
        key: value
        for key, value in {
            "serve.host": host,
            "serve.port": port,
            "serve.keys": key_file,
            "serve.at_once": at_once,
        }.items()
        if value is not None
    }
    if new_key is not None:
        _make_key(load_settings(options.config, changes).serve.keys, new_key)
        return
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise SetupError(
            "rlm serve needs starlette and uvicorn.", hint='pip install "rlm-kernel[serve]"'
        ) from None
    from rlm_kernel.cli._signals import run_to_end

    run_to_end(_serve(options, changes), before=": the server has ended.")


async def _serve(options: RunOptions, changes: dict[str, object]) -> None:
    from rlm_kernel.serve.server import listen
    from rlm_kernel.serve.service import serving, to_stderr

    options.settings()  # the keys of models are loaded
    say = (lambda _text: None) if options.quiet else to_stderr
    given = {"config_file": options.config, "changes": changes, "say": say, **options.given_tools()}
    async with serving(**given) as service:
        count = service.turns.at_once
        say(f"Models: {', '.join(service.names)}. Questions at the same time: {count}.")
        if not service.keys.needed:
            say("There are no keys, so only this machine may ask.")
        await listen(service, lambda url: typer.echo(f"Listening at {url} (Ctrl-C stops it)."))


def _make_key(path: Path | None, name: str) -> None:
    from rlm_kernel.serve.keys import new_key

    if path is None:
        raise UsageError("--new-key needs a key file.", hint="rlm serve --key-file keys.json --new-key NAME")
    made = new_key(path, name)
    typer.echo(made)
    typer.echo(f"{path} stores only a digest of the key: copy the key now.", err=True)

"""`rlm mcp`: the MCP server."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli.options import INPUT, LIMITS, MODELS, SANDBOX, SettingsOptions, option, with_options
from rlm_kernel.errors import SetupError, UsageError

TOKEN = "RLM_MCP_TOKEN"
_SERVER = "Options"


@dataclass(frozen=True, kw_only=True)
class McpOptions(SettingsOptions):
    """What a server's questions may do."""

    model: Annotated[
        str | None,
        option(
            MODELS,
            "--model",
            "-m",
            metavar="MODEL",
            help="Root model, if a client names none.",
            autocompletion=_complete.models,
        ),
    ] = None
    sub_model: Annotated[
        str | None,
        option(
            MODELS,
            "--sub-model",
            metavar="MODEL",
            help="Model for sub-calls. Default: the root model.",
            autocompletion=_complete.models,
        ),
    ] = None
    max_cost: Annotated[
        float | None,
        option(LIMITS, "--max-cost", metavar="USD", help="Maximum cost in US dollars. Default: no limit."),
    ] = None
    timeout: Annotated[
        float | None,
        option(LIMITS, "--timeout", metavar="SECONDS", help="Maximum time in seconds. Default: no limit."),
    ] = None
    max_turns: Annotated[
        int | None,
        option(
            LIMITS, "--max-turns", metavar="N", help="Maximum number of turns of the root model. Default: 30."
        ),
    ] = None
    runtime: Annotated[
        str | None,
        option(
            SANDBOX, "--runtime", metavar="NAME", help="Docker runtime, such as runsc. Default: the engine's."
        ),
    ] = None


@with_options
def mcp(
    folder: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]…",
            help="Folders that clients may ask about, instead of the roots that they name.",
            show_default=False,
        ),
    ] = None,
    allow: Annotated[
        list[Path] | None,
        option(
            INPUT,
            "--allow",
            metavar="FOLDER",
            help="Folder that clients may ask about. Repeatable.",
            autocompletion=_complete.files,
        ),
    ] = None,
    http: Annotated[
        str | None,
        option(
            _SERVER,
            "--http",
            metavar="[HOST:]PORT",
            help="Serve streamable HTTP at this address instead of stdin and stdout.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        option(
            _SERVER,
            "--token-file",
            metavar="FILE",
            help=f"File with the token of HTTP clients. Default: ${TOKEN}; without it, rlm makes a token "
            "and prints it.",
            autocompletion=_complete.files,
        ),
    ] = None,
    total_cost: Annotated[
        float | None,
        option(
            _SERVER,
            "--total-cost",
            metavar="USD",
            help="Maximum cost of all questions while the server runs, in US dollars. Default: no limit.",
            min=0,
        ),
    ] = None,
    kernels: Annotated[
        int,
        option(
            _SERVER,
            "--kernels",
            metavar="N",
            help="Maximum number of kernels at the same time, including those of sessions.",
            min=1,
            max=1000,
        ),
    ] = 4,
    idle: Annotated[
        float,
        option(
            _SERVER, "--idle", metavar="SECONDS", help="Seconds after which an unused session ends.", min=10
        ),
    ] = 900.0,
    *,
    options: McpOptions,
) -> None:
    """Serve MCP: let models of other programs ask about input that is too large for them.

    A client such as Claude Code, Cursor, VS Code or Zed starts it: docs/mcp.md. It ends with its client.
    Only the protocol goes to stdout.
    """
    if find_spec("mcp") is None or find_spec("uvicorn") is None:
        raise SetupError("rlm mcp needs the package mcp.", hint="pip install 'rlm-kernel[mcp]'")
    from rlm_kernel.cli._signals import run_to_end
    from rlm_kernel.config import load_api_keys
    from rlm_kernel.mcpserver.doing import Rules

    load_api_keys()
    _quiet()
    rules = Rules(
        changes=_with_traces(options),
        config_file=options.config,
        folders=_folders([*(folder or ()), *(allow or ())]),
        total_cost=total_cost,
        kernels=kernels,
        idle=idle,
    )
    if http is None:
        from rlm_kernel.mcpserver import stdio

        run_to_end(stdio.serve(rules))
        _leave()
    from rlm_kernel.mcpserver.http import address_of, serve

    address = address_of(http)
    run_to_end(serve(rules, address, _token(token_file, may_make=address.is_loopback), _say))


def _leave() -> NoReturn:
    """End the process now: a thread still waits for stdin."""
    sys.stderr.flush()
    os._exit(0)


def _say(line: str) -> None:
    print(f"rlm: {line}", file=sys.stderr, flush=True)


def _quiet() -> None:
    """Libraries log their worst alone, and on stderr."""
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="rlm: %(message)s")


def _folders(given: list[Path]) -> list[Path]:
    """Raises UsageError for what is not a folder."""
    found = []
    for path in given:
        if not path.expanduser().is_dir():
            raise UsageError(f"{path} is not a folder.", hint="Name folders that exist: rlm mcp ~/documents")
        found.append(path.expanduser().resolve())
    return found


def _with_traces(options: McpOptions) -> dict[str, Any]:
    """The settings, with a place for traces where the working folder takes none: some clients start servers
    in the file system's root.
    """
    changes = options.changes()
    folder = options.settings().trace.dir.absolute()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if os.access(there, os.W_OK):
        return {**changes, "trace.dir": str(folder)}
    import platformdirs

    folder = Path(platformdirs.user_data_dir("rlm_kernel")) / "traces"
    _say(f"traces go to {folder}")
    return {**changes, "trace.dir": str(folder)}


def _token(file: Path | None, *, may_make: bool) -> str:
    """Raises UsageError."""
    from rlm_kernel.mcpserver.http import check_token

    if file is not None:
        try:
            return check_token(file.expanduser().read_text(encoding="utf-8")[:10_000])
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if token := os.environ.pop(TOKEN, ""):
        return check_token(token)
    if not may_make:
        raise UsageError(
            "A server that other machines can reach needs a token that you chose.",
            hint=f"--token-file FILE, or {TOKEN}",
        )
    made = secrets.token_urlsafe(32)
    print(f"rlm: token: {made}", file=sys.stderr, flush=True)
    return made

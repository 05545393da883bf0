"""`rlm models`: shows the models that are configured; downloads and serves the local ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_kernel.cli.options import JSON, SettingsOptions, with_options
from rlm_kernel.errors import LocalModelError, UsageError

if TYPE_CHECKING:
    from rlm_kernel.config import LLMSettings
    from rlm_kernel.models import weights

models_app = typer.Typer(
    help="Show the models; download or serve the local ones.", invoke_without_command=True
)

_Name = Annotated[
    str, typer.Argument(metavar="[NAME]", help="local (1.5B) or local:0.5b.", show_default=False)
]


@models_app.callback()
@with_options
def overview(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Ask each configured model for one token, and show what is known of it."
        ),
    ] = False,
    as_json: JSON = False,
    *,
    options: SettingsOptions,
) -> None:
    """Show the local models, the configured models, and which API keys are set (names only).

    With --check: latency, prices, window, and what each configured model can do. Exit code 3 if one fails.
    """
    if context.invoked_subcommand is not None:
        return
    if check:
        from rlm_kernel.cli._models_check import check_and_report

        check_and_report(options, as_json=as_json)
        return
    if as_json:
        raise UsageError("--json works only with --check.", hint="Type: rlm models --check --json")
    for line in _overview_lines(options):
        typer.echo(line)


def _overview_lines(options: SettingsOptions) -> Iterator[str]:
    from rlm_kernel.config import find_api_keys, load_api_keys
    from rlm_kernel.models import weights

    yield "Local models (no key, nothing leaves the machine):"
    for model in weights.MODELS:
        state = (
            "downloaded"
            if weights.is_pulled(model.name)
            else f"not downloaded; type `rlm models pull {model.name}`"
        )
        yield f"  {model.name:12} {model.title}, {model.size / 1e9:.1f} GB: {state}"
        yield f"  {'':12} {weights.weights_path(model.name)}"
    load_api_keys()
    settings = options.settings()
    yield "Configured:"
    yield f"  {'root':12} {_described('root_llm', settings.root_llm)}"
    yield f"  {'sub':12} {_described('sub_llm', settings.sub_llm)}"
    keys = [f"{name} ({place})" for name, place in find_api_keys().items() if name.endswith("_API_KEY")]
    yield f"API keys set: {', '.join(keys) or 'none (`rlm auth add PROVIDER` adds one)'}"


def _described(section: str, llm: LLMSettings) -> str:
    from rlm_kernel.models._address import address_of

    if llm.model is None:
        return "none (name one with -m, RLM_MODEL or config.json)"
    address = address_of(section, llm, llm.model.partition("/")[0])
    return f"{llm.model} at {address.told()}" if address.source else llm.model


@models_app.command("pull")
def pull_command(name: _Name = "local") -> None:
    """Download a local model (1.1 GB; local:0.5b: 0.5 GB). Prints its path on stdout."""
    from rlm_kernel.models import weights

    model = weights.find_model(name)
    with _shown_progress(model) as progress:
        path = weights.pull(name, progress)
    typer.echo(path)


@contextmanager
def _shown_progress(model: weights.LocalModel) -> Iterator[weights.Progress]:
    """A bar where stderr is a terminal, else a line for every tenth."""
    label = f"{model.name} ({model.size / 1e9:.1f} GB)"
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=model.size)
            yield lambda done, _total: bar.update(task, completed=done)
        return
    said = 0

    def line(done: int, total: int) -> None:
        nonlocal said
        if (tenths := 10 * done // total) > said:
            said = tenths
            typer.echo(f"{label}: {10 * tenths} %", err=True)

    yield line


@models_app.command()
def serve(
    name: _Name = "local",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")] = 0,
    slots: Annotated[
        int, typer.Option(min=1, max=16, help="Number of requests answered at the same time.")
    ] = 1,
) -> None:
    """Serve a local model to OpenAI-compatible clients on this machine, until Ctrl-C."""
    from rlm_kernel.loops import run

    run(_serve(name, port, slots))


async def _serve(name: str, port: int, slots: int) -> None:
    from rlm_kernel.models.local import LocalServer

    server = await LocalServer.start(
        name, port=port, slots=slots, on_progress=lambda line: typer.echo(line, err=True)
    )
    try:
        typer.echo(f"{server.model.title} answers at {server.api_base} (Ctrl-C stops it). For example:")
        address = f"OPENAI_BASE_URL={server.api_base} OPENAI_API_KEY=local"
        typer.echo(f'  {address} rlm ask -m {server.model_name} "How many lines contain def?" -f FILE')
        status = await server.wait()
        raise LocalModelError(
            f"The local model's server stopped unexpectedly (exit status {status}):\n{server.last_words()}",
            hint=f"Start it again: rlm models serve {name}",
        )
    finally:
        await server.aclose()

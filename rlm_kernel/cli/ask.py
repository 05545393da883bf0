"""`rlm ask`: one question, the answer on stdout, the trace beside it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli._text import printable

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rlm_kernel.session.ask import Result

NO_ANSWER = 1
INTERRUPTED = 130


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="A file or folder to ask of; may be given again.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Root model: provider/model, or local.")] = None,
    sub_model: Annotated[str | None, typer.Option("--sub-model", help="Model for sub-calls; default: the root model.")] = None,
    max_turns: Annotated[int | None, typer.Option("--max-turns", help="Replies of the root model; default 30.")] = None,
    max_calls: Annotated[int | None, typer.Option("--max-calls", help="Sub-model calls; default 5000.")] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="US dollars; default no limit.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds for the whole run; default no limit.")] = None,
    trace: Annotated[Path | None, typer.Option("--trace", help="Where the notebook goes; default: a new file in rlm-traces/.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: answer, trace, turns, calls, tokens, cost …")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file; default config.json, if there is one.")] = None,
) -> None:
    """Ask one question over files of any size.

    The answer goes to stdout, progress and cost to stderr. Exit codes: 0 answered, 1 no answer, 2 usage, 3 set-up, 130 interrupted.
    """
    import asyncio

    from rlm_kernel.config import load_api_keys, load_settings

    load_api_keys()
    overrides = {
        "root_llm.model": model,
        "sub_llm.model": sub_model,
        "limits.turns": max_turns,
        "limits.calls": max_calls,
        "limits.cost": max_cost,
        "limits.seconds": timeout,
    }
    settings = load_settings(config, overrides)
    from rlm_kernel.cli._live import LiveView
    from rlm_kernel.session.ask import ask as run

    async def main() -> Result:
        _stop_on_signals()
        with LiveView(quiet=quiet) as view:
            return await run(question, file, settings=settings, trace=trace, view=view, say=view.say)

    result = asyncio.run(_or_exit(main()))
    _report(result, as_json=as_json, quiet=quiet)
    if result.answer is None:
        raise typer.Exit(NO_ANSWER)


def _stop_on_signals() -> None:
    """The first Ctrl-C or SIGTERM cancels the task that calls this; the second ends the process at once (the lease ends the container)."""
    import asyncio

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def stop() -> None:
        if not task.cancelling():
            task.cancel()
        else:
            os._exit(INTERRUPTED)

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop)


async def _or_exit(running: Coroutine[Any, Any, Result]) -> Result:
    """The result; once a cancelled run has closed all it opened, the process ends without waiting for threads, such as an image's build."""
    import asyncio

    try:
        return await running
    except asyncio.CancelledError:
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def _report(result: Result, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        import json

        print(json.dumps(result.as_json(), ensure_ascii=False))
    elif result.answer is not None:
        print(printable(result.answer) if sys.stdout.isatty() else result.answer)
    if result.answer is None:
        print(f"rlm: no answer ({result.stop_reason}). {printable(result.detail)}".rstrip(), file=sys.stderr)
    elif result.forced:
        print(f"rlm: the answer was forced: {printable(result.detail)}", file=sys.stderr)
    if not quiet:
        totals = result.totals
        cost = "cost unknown" if result.cost is None else f"${result.cost:.4f}"
        print(
            f"{totals.turns} turns, {totals.calls:,} sub-calls, {result.usage.total:,} tokens, {cost}, {totals.seconds:.1f} s\n"
            f"trace: {os.path.relpath(result.trace)}",
            file=sys.stderr,
        )

"""`rlm ask`: one question, the answer on stdout, the trace beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_kernel.cli._run import NOTHING_ASKED, Report, run_to_end, so_far_of, worded
from rlm_kernel.cli.session import CACHE, DEPTH, PROFILE, RUNTIME

if TYPE_CHECKING:
    from rlm_kernel.session.result import Result


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know; - is stdin.")],
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="A file, folder or glob to ask of, or - for stdin; may be given again.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Root model: provider/model, or local.")] = None,
    sub_model: Annotated[str | None, typer.Option("--sub-model", help="Model for sub-calls; default: the root model.")] = None,
    profile: PROFILE = None,
    max_turns: Annotated[int | None, typer.Option("--max-turns", help="Replies of the root model; default 30.")] = None,
    max_calls: Annotated[int | None, typer.Option("--max-calls", help="Sub-model calls; default 5000.")] = None,
    max_depth: DEPTH = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="US dollars; default no limit.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds for the whole run; default no limit.")] = None,
    cache: CACHE = None,
    runtime: RUNTIME = None,
    trace: Annotated[Path | None, typer.Option("--trace", help="Where the notebook goes; default: a new file in rlm-traces/.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: answer, trace, turns, calls, tokens, cost …")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file; default config.json, if there is one.")] = None,
) -> None:
    """Ask one question over files of any size.

    The answer goes to stdout, progress and cost to stderr. Exit codes: 0 answered, 1 no answer, 2 usage, 3 set-up, 130 interrupted.
    """
    from rlm_kernel.config import load_api_keys, load_settings

    question = worded(question)
    load_api_keys()
    overrides = {
        "root_llm.model": model,
        "sub_llm.model": sub_model,
        "limits.turns": max_turns,
        "limits.calls": max_calls,
        "limits.depth": max_depth,
        "limits.cost": max_cost,
        "limits.seconds": timeout,
        "prompt.profile": profile,
        "cache.enabled": cache,
        "sandbox.runtime": runtime,
    }
    settings = load_settings(config, overrides)
    from rlm_kernel.cli._consent import consent_in
    from rlm_kernel.cli._live import LiveView
    from rlm_kernel.session.ask import ask as run
    from rlm_kernel.session.ask import trace_path

    path, view = trace_path(settings, question, trace), LiveView(quiet=quiet)
    report = Report(view, as_json=as_json, quiet=quiet)

    async def main() -> Result:
        with view:
            consent = None if quiet or as_json else consent_in(view)
            return await run(
                question, file, settings=settings, trace=path, view=view, say=view.say, consent=consent, answered=report.answered
            )

    report.end(run_to_end(main(), so_far_of(view, lambda: path), before=NOTHING_ASKED, answered=lambda: report.result))

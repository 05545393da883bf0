"""`rlm resume` and `rlm fork`: go on from a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli._run import NOTHING_ASKED, Report, run_to_end, so_far_of, worded
from rlm_kernel.cli.replay import ALLOW_CHANGED, CONFIG, FILES, TRACE, named_files
from rlm_kernel.cli.session import CACHE, DEPTH, PROFILE, RUNTIME

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from rlm_kernel.session.result import Result

_MODEL = Annotated[str | None, typer.Option("--model", "-m", help="Root model; default: the trace's.")]
_SUB_MODEL = Annotated[str | None, typer.Option("--sub-model", help="Model for sub-calls; default: the trace's.")]
_TURNS = Annotated[int | None, typer.Option("--max-turns", help="Replies of the root model; default: the trace's limit.")]
_CALLS = Annotated[int | None, typer.Option("--max-calls", help="Sub-model calls; default: the trace's limit.")]
_COST = Annotated[float | None, typer.Option("--max-cost", help="US dollars; default: the trace's limit.")]
_TIMEOUT = Annotated[float | None, typer.Option("--timeout", help="Seconds; default: the trace's limit.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object, as rlm ask does.")]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")]


def resume(
    trace: TRACE,
    file: FILES = None,
    allow_changed: ALLOW_CHANGED = False,
    model: _MODEL = None,
    sub_model: _SUB_MODEL = None,
    max_turns: _TURNS = None,
    max_calls: _CALLS = None,
    max_depth: DEPTH = None,
    max_cost: _COST = None,
    timeout: _TIMEOUT = None,
    profile: PROFILE = None,
    cache: CACHE = None,
    runtime: RUNTIME = None,
    as_json: _JSON = False,
    quiet: _QUIET = False,
    config: CONFIG = None,
) -> None:
    """Go on with a run that was killed, interrupted, or ended at a limit.

    Its state is rebuilt by running its cells again, with the recorded answers; then it goes on in the same notebook. Limits hold for the
    run as a whole: give a higher one where one was used up. Exit codes as of rlm ask.
    """
    from rlm_kernel.session.resume import resume as run

    changes = _changes(model, sub_model, max_turns, max_calls, max_cost, timeout)
    changes |= {"cache.enabled": cache, "limits.depth": max_depth, "prompt.profile": profile, "sandbox.runtime": runtime}
    _go_on(
        lambda **hear: run(trace, config_file=config, changes=changes, files=named_files(file), allow_changed=allow_changed, **hear),
        lambda: trace,
        as_json=as_json,
        quiet=quiet,
    )


def fork(
    trace: TRACE,
    question: Annotated[
        str, typer.Argument(help="A further question; without one it goes on with the trace's own.", show_default=False)
    ] = "",
    at: Annotated[
        str | None, typer.Option("--at", metavar="CELL", help="The last cell to keep, by id, or a turn, by its; default: all.")
    ] = None,
    file: FILES = None,
    allow_changed: ALLOW_CHANGED = False,
    model: _MODEL = None,
    sub_model: _SUB_MODEL = None,
    max_turns: _TURNS = None,
    max_calls: _CALLS = None,
    max_depth: DEPTH = None,
    max_cost: _COST = None,
    timeout: _TIMEOUT = None,
    profile: PROFILE = None,
    cache: CACHE = None,
    runtime: RUNTIME = None,
    out: Annotated[Path | None, typer.Option("--trace", help="Where the new notebook goes; default: a new file in rlm-traces/.")] = None,
    as_json: _JSON = False,
    quiet: _QUIET = False,
    config: CONFIG = None,
) -> None:
    """Go on from a cell of a trace, in a new notebook.

    The cells up to there are run again, as they are now: an edited one as edited. Then the models take over, with limits that count from
    there. The trace itself stays as it is. Exit codes as of rlm ask.
    """
    from rlm_kernel.session.resume import fork as run

    changes = _changes(model, sub_model, max_turns, max_calls, max_cost, timeout)
    changes |= {"cache.enabled": cache, "limits.depth": max_depth, "prompt.profile": profile, "sandbox.runtime": runtime}
    files = named_files(file)
    made = [trace]
    _go_on(
        lambda **hear: run(
            trace,
            worded(question),
            at=at,
            out=out,
            config_file=config,
            changes=changes,
            files=files,
            allow_changed=allow_changed,
            placed=made.append,
            **hear,
        ),
        lambda: made[-1],
        as_json=as_json,
        quiet=quiet,
    )


def _changes(
    model: str | None, sub_model: str | None, turns: int | None, calls: int | None, cost: float | None, seconds: float | None
) -> dict[str, Any]:
    return {
        "root_llm.model": model,
        "sub_llm.model": sub_model,
        "limits.turns": turns,
        "limits.calls": calls,
        "limits.cost": cost,
        "limits.seconds": seconds,
    }


def _go_on(run: Callable[..., Coroutine[Any, Any, Result]], trace: Callable[[], Path], *, as_json: bool, quiet: bool) -> None:
    from rlm_kernel.cli._consent import consent_in
    from rlm_kernel.cli._live import LiveView
    from rlm_kernel.config import load_api_keys

    load_api_keys()
    view = LiveView(quiet=quiet)
    report = Report(view, as_json=as_json, quiet=quiet)

    async def main() -> Result:
        with view:
            consent = None if quiet or as_json else consent_in(view)
            return await run(view=view, say=view.say, consent=consent, answered=report.answered)

    report.end(run_to_end(main(), so_far_of(view, trace), before=NOTHING_ASKED, answered=lambda: report.result))

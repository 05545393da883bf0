"""`rlm init`, `rlm run`, `rlm status`, `rlm stop`: a session that is kept between commands."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli._run import NOTHING_ASKED, Report, run_to_end, so_far_of, stopping, worded
from rlm_kernel.cli._text import json_line, printable, shown_path

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from rlm_kernel.cli._live import LiveView
    from rlm_kernel.session.result import Result
    from rlm_kernel.session.session import Session

SESSION = Annotated[str, typer.Option("--session", metavar="NAME", help="Which session of this folder.")]
MODEL = Annotated[str | None, typer.Option("--model", "-m", help="Root model: provider/model, or local.")]
SUB_MODEL = Annotated[str | None, typer.Option("--sub-model", help="Model for sub-calls; default: the root model.")]
TURNS = Annotated[int | None, typer.Option("--max-turns", help="Replies of the root model to a question; default 30.")]
CALLS = Annotated[int | None, typer.Option("--max-calls", help="Sub-model calls for a question; default 5000.")]
DEPTH = Annotated[int | None, typer.Option("--max-depth", help="How deep child RLMs may nest, 0 for none; default 1.")]
COST = Annotated[float | None, typer.Option("--max-cost", help="US dollars for a question; default no limit.")]
TIMEOUT = Annotated[float | None, typer.Option("--timeout", help="Seconds for a question; default no limit.")]
PROFILE = Annotated[
    str | None,
    typer.Option("--profile", help="Prompt: default, batching, short, small, or a file of your own; default: what suits the root model."),
]
CACHE = Annotated[bool | None, typer.Option("--cache/--no-cache", help="Answer sub-calls at temperature 0 from earlier ones; default off.")]
RUNTIME = Annotated[
    str | None, typer.Option("--runtime", metavar="NAME", help="Docker runtime for a new container, such as runsc; default: the engine's.")
]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")]
CONFIG = Annotated[Path | None, typer.Option("--config", help="Settings file; default config.json, if there is one.")]
FILES = Annotated[
    list[Path] | None, typer.Option("--file", "-f", help="A file, folder or glob to load, or - for stdin; may be given again.")
]


def init(
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Files, folders and globs to load; - is stdin.")] = None,
    session: SESSION = "default",
    model: MODEL = None,
    sub_model: SUB_MODEL = None,
    profile: PROFILE = None,
    max_turns: TURNS = None,
    max_calls: CALLS = None,
    max_depth: DEPTH = None,
    max_cost: COST = None,
    timeout: TIMEOUT = None,
    runtime: RUNTIME = None,
    quiet: QUIET = False,
    config: CONFIG = None,
) -> None:
    """Begin a session whose container stays: load files, then ask with rlm run or rlm chat.

    The session is found again through .rlm_state/ in this folder. Models, limits, profile and runtime that are given here hold for
    all its questions.
    """
    changes = changes_of(model, sub_model, max_turns, max_calls, max_cost, timeout)
    changes |= {"prompt.profile": profile, "limits.depth": max_depth, "sandbox.runtime": runtime}

    async def main() -> None:
        from rlm_kernel.cli._live import LiveView

        with LiveView(quiet=quiet) as view:
            async with open_(session, files, config, changes, view, "rlm init", new=True, with_models=False) as kept:
                status = await kept.status()
        if not quiet:
            print(printable("\n".join(status.lines())), file=sys.stderr)

    run_to_end(main(), before="; no session was begun.")


def run(
    question: Annotated[str, typer.Argument(help="What you want to know; - is stdin.")],
    file: FILES = None,
    session: SESSION = "default",
    model: MODEL = None,
    sub_model: SUB_MODEL = None,
    profile: PROFILE = None,
    max_turns: TURNS = None,
    max_calls: CALLS = None,
    max_depth: DEPTH = None,
    max_cost: COST = None,
    timeout: TIMEOUT = None,
    cache: CACHE = None,
    runtime: RUNTIME = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, as rlm ask does.")] = False,
    quiet: QUIET = False,
    config: CONFIG = None,
) -> None:
    """Ask a question in the session of this folder; one is begun if there is none.

    Files, variables and the conversation so far are there. The answer goes to stdout, all else to stderr; exit codes as of rlm ask.
    """
    question = worded(question)
    changes = changes_of(model, sub_model, max_turns, max_calls, max_cost, timeout)
    changes |= {"prompt.profile": profile, "cache.enabled": cache, "limits.depth": max_depth, "sandbox.runtime": runtime}

    from rlm_kernel.cli._live import LiveView

    view = LiveView(quiet=quiet)
    report = Report(view, as_json=as_json, quiet=quiet)
    traces: list[Path] = []

    async def main() -> Result:
        with view:
            async with open_(session, file, config, changes, view, "rlm run", consent=not (quiet or as_json)) as kept:
                traces.append(kept.trace)
                for line in kept.opened:
                    view.tell(line)
                result = await kept.ask(question, report.answered)
                if not stopping():
                    await kept.remember()
                return replace(result, totals=kept.used)  # with what the summary took

    so_far = so_far_of(view, lambda: traces[-1], "rlm run QUESTION")
    report.end(run_to_end(main(), so_far, before=NOTHING_ASKED, answered=lambda: report.result))


def status(
    session: SESSION = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: CONFIG = None,
) -> None:
    """Show a session: files, variables, turns, what was spent, the container, the idle time that is left."""
    from rlm_kernel.session.manager import look_at

    found = run_to_end(look_at(session, config_file=config))
    if as_json:
        print(json_line(found.as_json()))
    else:
        print(printable("\n".join(found.lines())))


def stop(
    session: SESSION = "default",
    keep: Annotated[bool, typer.Option("--keep", help="End the container only: the next question rebuilds it from the trace.")] = False,
    config: CONFIG = None,
) -> None:
    """End a session: its container is removed, its trace stays."""
    from rlm_kernel.session.manager import stop_session

    state = run_to_end(stop_session(session, keep=keep, config_file=config))
    trace = shown_path(state.trace)
    if keep:
        print(f"rlm: the container has ended; `rlm run` or `rlm chat` rebuilds the session from {printable(trace)}.", file=sys.stderr)
    else:
        print(f"rlm: the session has ended. Its trace: {printable(trace)}", file=sys.stderr)


def changes_of(
    model: str | None, sub_model: str | None, turns: int | None, calls: int | None, cost: float | None, seconds: float | None
) -> dict[str, Any]:
    """The settings that these options are, by dotted name; keys of `.env` are loaded."""
    from rlm_kernel.config import load_api_keys

    load_api_keys()
    return {
        "root_llm.model": model,
        "sub_llm.model": sub_model,
        "limits.turns": turns,
        "limits.calls": calls,
        "limits.cost": cost,
        "limits.seconds": seconds,
    }


def open_(
    session: str,
    files: list[Path] | None,
    config: Path | None,
    changes: dict[str, Any],
    view: LiveView,
    command: str,
    *,
    new: bool | None = None,
    with_models: bool = True,
    consent: bool = False,
) -> AbstractAsyncContextManager[Session]:
    """The session of a command's options. `consent`: the user is asked for files that they did not name, where there is a terminal."""
    from rlm_kernel.cli._consent import consent_in
    from rlm_kernel.session.manager import open_session

    return open_session(
        session,
        paths=files or (),
        new=new,
        command=command,
        config_file=config,
        changes=changes,
        with_models=with_models,
        view=view,
        say=view.say,
        consent=consent_in(view) if consent else None,
    )

"""What a command prints of a run: the answer, what it took, where the trace is; and how to go on when it was
interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from rlm_kernel import system
from rlm_kernel.cli import _events
from rlm_kernel.cli._answer import show_answer, show_evidence
from rlm_kernel.cli._signals import NO_ANSWER, run_to_end
from rlm_kernel.cli._streams import lost
from rlm_kernel.cli._text import json_line, print_lines, shown_path
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from rlm_kernel.cli.options import RunOptions
    from rlm_kernel.session.result import Result
    from rlm_kernel.views.live import LiveView

NOTHING_ASKED = " before any model was asked; nothing was spent."


def run_and_report(
    options: RunOptions,
    start: Callable[..., Coroutine[Any, Any, Result]],
    trace: Callable[[], Path],
    *,
    go_on: str = "",
) -> None:
    """Ask a question, show it at work, and print its result.

    `start` gets the keywords `view`, `say`, `answered`, and those of tools and of who is asked, of the
    session functions.
    `trace`: where the notebook is, once the run has begun; `go_on`: as of `so_far_of`. Raises typer.Exit if
    there is no answer.
    """
    from rlm_kernel.cli._consent import asking_in

    tools = options.given_tools()
    view = options.view()
    report = Report(view, as_json=options.as_json, quiet=options.quiet or options.json_events)
    _events.trace_is(lambda: str(trace()))

    async def main() -> Result:
        with view:
            asks = asking_in(view) if options.may_ask else {}
            return await start(view=view, say=view.say, **asks, **tools, answered=report.answered)

    report.end(
        run_to_end(
            main(), so_far_of(view, trace, go_on), before=NOTHING_ASKED, answered=lambda: report.result
        )
    )


class Report:
    """What a command prints of its result: the answer as soon as it is there, what it took in the end.

    `result`: what was told; None as long as there is no answer.
    """

    def __init__(self, view: LiveView, *, as_json: bool, quiet: bool) -> None:
        self._view = view
        self._json = as_json
        self._quiet = quiet
        self.result: Result | None = None

    def answered(self, result: Result) -> None:
        """Print the answer, or the JSON object; flushed, so that it is out whatever comes next."""
        with self._view.answering():
            self._print(result)
        self.result = result

    def _print(self, result: Result) -> None:
        if self._json:
            print(json_line(result.as_json()), flush=True)
        else:
            show_answer(result.answer or "")
            if not self._quiet:
                show_evidence(result.evidence)

    def end(self, result: Result) -> None:
        """Print the rest. Raises typer.Exit if there is no answer."""
        if self.result is None and (
            self._json or result.answer is not None
        ):  # none, or what shows it has failed
            self._print(result)
        if line := outcome_line(result):
            print_lines([line], sys.stderr)
        if not self._quiet:
            print_lines([result.totals.line()], sys.stderr)
            if result.applied is not None:
                print(printable(result.applied.line(result.totals)), file=sys.stderr)
        if not self._quiet or lost() is not None:
            print(f"trace: {printable(shown_path(result.trace))}", file=sys.stderr)
        if result.answer is None:
            raise typer.Exit(NO_ANSWER)


def so_far_of(view: LiveView, trace: Callable[[], Path], go_on: str = "") -> Callable[[], str]:
    """For `run_to_end`: " after 3 turns … To continue:", and on a line of its own "rlm resume TRACE".

    `go_on`: the command to type, instead of `rlm resume TRACE`.
    """

    def tell() -> str:
        if view.ended is None:
            return ""
        outcome, totals = view.ended
        if totals.nothing and not view.asked:
            return ""
        path = system.quoted(shown_path(trace()))
        if outcome.answer is not None:
            return f" after the answer. The trace has it: {path}"
        done = (
            f"after {totals.line()}"
            if totals.turns
            else "during the root model's first reply, for which the provider may charge"
        )
        return f" {done}. The trace has everything so far. To continue:\n{go_on or f'rlm resume {path}'}"

    return tell


def worded(question: str) -> str:
    """A question as it was typed, in bytes of any encoding; `-` is standard input. Raises UsageError."""
    try:
        typed = os.fsencode(question)
        if question == "-":
            if sys.stdin.isatty():
                raise UsageError(
                    "Standard input is a terminal, so rlm cannot read the question from it.",
                    hint="cat question.txt | rlm ask - -f FILE",
                )
            typed = sys.stdin.buffer.read()
    except UnicodeEncodeError:
        typed = question.encode(errors="replace")
    except OSError as error:
        raise UsageError(
            f"The question cannot be read from standard input: {error.strerror or error}."
        ) from error
    return typed.decode(errors="replace").strip()


def outcome_line(result: Result) -> str:
    """Why there is no answer, or that it is a best-effort answer; "" of an answer as it should be."""
    if result.answer is None:
        return f"rlm: no answer ({result.stop_reason}). {printable(result.detail)}".rstrip()
    return f"rlm: best-effort answer. {printable(result.detail)}" if result.forced else ""

"""`rlm batch`: many questions, with results that a later run goes on from."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli import _complete, _events
from rlm_kernel.cli._engines import ENGINE, LOCAL, Where, checked_engine, engine_of
from rlm_kernel.cli._report import worded
from rlm_kernel.cli._signals import NO_ANSWER, run_to_end
from rlm_kernel.cli._text import json_line
from rlm_kernel.cli.options import FILES, INPUT, LIMITS, OUTPUT, SANDBOX, RunOptions, option, with_options
from rlm_kernel.errors import BudgetExceeded, RLMError, UsageError
from rlm_kernel.nearest import did_you_mean, nearest_path
from rlm_kernel.printable import printable
from rlm_kernel.system import quoted

if TYPE_CHECKING:
    from rlm_kernel.config import Settings
    from rlm_kernel.session.batch.doing import Doing
    from rlm_kernel.session.batch.engine import Engine
    from rlm_kernel.session.batch.output import Places
    from rlm_kernel.session.batch.questions import Drafts
    from rlm_kernel.session.batch.results import Paid, Retry
    from rlm_kernel.session.batch.run import How
    from rlm_kernel.views.batch import BatchView

_TELL_SECONDS = 1.0
_SHOWN = 20
"""Bad lines, and failures, that are told one by one."""


@with_options
def batch(
    questions: Annotated[
        list[str],
        typer.Argument(
            metavar="QUESTIONS",
            help="A file of questions (.jsonl, .csv, .parquet; - is stdin), or one question with --each or "
            "--rows.",
            show_default=False,
            autocompletion=_complete.files,
        ),
    ],
    each: Annotated[
        list[str] | None,
        option(
            INPUT,
            "--each",
            metavar="GLOB",
            help="Ask the question about each of these files. Repeatable.",
            autocompletion=_complete.files,
        ),
    ] = None,
    rows: Annotated[
        Path | None,
        option(
            INPUT,
            "--rows",
            metavar="FILE",
            help="Ask the question about each row of this table; {column} in the question stands for the "
            "value in that column.",
            autocompletion=_complete.files,
        ),
    ] = None,
    id_: Annotated[
        str | None,
        option(INPUT, "--id", metavar="COLUMN", help="Column of --rows that has the ids of the results."),
    ] = None,
    file: FILES = None,
    out: Annotated[
        Path | None,
        option(
            OUTPUT,
            "--out",
            metavar="FILE",
            help="Results file, one line per question. Questions already in it are not asked again. "
            "Default: beside the questions.",
            autocompletion=_complete.files,
        ),
    ] = None,
    traces: Annotated[
        Path | None,
        option(
            OUTPUT,
            "--traces",
            metavar="FOLDER",
            help="Folder of the traces. Default: beside the results.",
            autocompletion=_complete.files,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        option(
            SANDBOX,
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Number of questions asked at the same time; each has its own container. Default: as many "
            "as fit "
            "into memory.",
        ),
    ] = None,
    engine: ENGINE = LOCAL,
    max_cost_all: Annotated[
        float | None,
        option(
            LIMITS,
            "--max-cost-all",
            metavar="USD",
            min=0,
            help="Maximum cost of all questions together, in US dollars.",
        ),
    ] = None,
    max_tokens_all: Annotated[
        int | None,
        option(
            LIMITS,
            "--max-tokens-all",
            metavar="N",
            min=0,
            help="Maximum number of tokens of all questions together.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask questions again that failed for a temporary reason."),
    ] = False,
    retry_all: Annotated[
        bool, typer.Option("--retry-all", help="Ask all questions again that failed or have no answer.")
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Continue even if the first ten questions fail in the same way."),
    ] = False,
    *,
    options: RunOptions,
) -> None:
    """Ask many questions, each in its own container.

    Each result is written to the results file as soon as it is ready. The same command continues where it was
    stopped, and asks nothing twice. Options for models and limits apply to each question. Exit codes: 0 all
    answered, 1 some failed or have no answer, 2 wrong usage, 3 missing set-up, 130 interrupted.
    """
    from rlm_kernel.session.batch.fields import has_fields

    settings = options.settings()
    asked = _asked(questions, each, rows, id_, file)
    if (each or rows) and has_fields(questions[0]):
        sandbox = settings.sandbox.model_copy(update={"question_files": False})
        settings = settings.model_copy(update={"sandbox": sandbox})
    from rlm_kernel.session.batch.output import Places
    from rlm_kernel.session.batch.run import Budget, How

    retry: Retry = "all" if retry_all else "passing" if retry_failed else "no"
    place = (out or asked.out).absolute()
    _refuse_input(place, asked)
    budget = Budget(max_cost_all, max_tokens_all)
    how = How(budget, retry, keep_going)
    where = Where(checked_engine(engine), jobs, budget)
    running = _Running(options, _Task(asked, Places(place, traces), how))
    ended = run_to_end(
        running.run(
            lambda view, paid: engine_of(settings, where, paid, view.say, options.given_tools()), settings
        ),
        lambda: running.report.so_far(),
        before=" before a question was asked; nothing was spent.",
    )
    _end(running, ended, options)


@dataclass(frozen=True)
class _Asked:
    """The questions of a command line. `out`: where their results go by default; `files`: of every
    question.
    """

    drafts: Callable[[], Drafts]
    total: Callable[[], int | None]
    out: Path
    files: list[Path]
    source: Path | None = None


@dataclass(frozen=True)
class _Task:
    asked: _Asked
    places: Places
    how: How


def _asked(
    questions: list[str], each: list[str] | None, rows: Path | None, id_: str | None, files: list[Path] | None
) -> _Asked:
    """Raises UsageError."""
    from rlm_kernel.session.batch import questions as made
    from rlm_kernel.session.batch.output import RESULTS, files_of_all
    from rlm_kernel.session.batch.rows import STDIN, count_rows

    if each and rows:
        raise UsageError("--each and --rows cannot be used together.", hint="Run two batches, one with each.")
    if id_ is not None and rows is None:
        raise UsageError(
            "--id names a column of --rows, and there is no --rows.",
            hint='Questions in a file have their own ids: {"id": …}',
        )
    common = files_of_all(files)
    if each:
        # A glob that the shell has spelt out: its first file is --each's, and the others come as words.
        question, patterns = worded(questions[0]), [*each, *questions[1:]]
        return _Asked(
            lambda: made.for_each(question, patterns),
            lambda: made.count_files(patterns),
            Path(_slug(question) + RESULTS),
            common,
        )
    if len(questions) > 1:
        raise UsageError(
            f"rlm batch takes one question or one file of questions, and was given {len(questions)} words.",
            hint="Put the question in quotes.",
        )
    if rows:
        question = worded(questions[0])
        place = rows.with_name(f"{rows.stem}.{_slug(question)}{RESULTS}") if rows != STDIN else None
        return _Asked(
            lambda: made.for_rows(question, rows, id_),
            lambda: count_rows(rows),
            place or Path(_slug(question) + RESULTS),
            common,
            rows,
        )
    source = Path(questions[0])
    if source.is_dir():
        raise UsageError(
            f"{source} is a folder.",
            hint=f"To ask a question about each file in it: --each {quoted(str(source))}",
        )
    if source != STDIN and not source.exists():
        near = did_you_mean(nearest_path(source)) if len(questions[0]) < 200 else ""
        raise UsageError(
            f"There is no file {questions[0][:200]}.",
            hint=near
            or "A question needs --each FILES or --rows TABLE. To ask a single question: rlm ask QUESTION",
        )
    place = Path("questions" + RESULTS) if source == STDIN else source.with_name(source.stem + RESULTS)
    return _Asked(lambda: made.of_file(source), lambda: count_rows(source), place, common, source)


def _slug(question: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", question.lower())[:6])[:50] or "question"


def _refuse_input(out: Path, asked: _Asked) -> None:
    """Raises UsageError where the results would go into the questions."""
    with contextlib.suppress(OSError):
        if asked.source is not None and asked.source.samefile(out):
            raise UsageError(
                f"{out} has the questions, so the results cannot go there.",
                hint="Name another file for the results with --out.",
            )


class _Running:
    """A batch at work, and what is shown of it."""

    def __init__(self, options: RunOptions, task: _Task) -> None:
        from rlm_kernel.cli._batch_report import Report
        from rlm_kernel.views.batch import BatchView

        self._task = task
        self.report = Report(task.places.out or Path(), _go_on())
        self._view = BatchView(self.report.counts, quiet=options.quiet or options.json_events)
        self._bad = 0
        self._failed = 0

    async def run(self, engine: Callable[[BatchView, Paid], Engine], settings: Settings) -> RLMError | None:
        """Ask all of it. What ended it before its end, if the budget did. Raises RLMError."""
        import asyncio

        from rlm_kernel.session.batch.output import by
        from rlm_kernel.session.batch.output import ready as open_
        from rlm_kernel.session.batch.run import Heard

        task, report = self._task, self.report
        with self._view:
            report.total = await asyncio.to_thread(task.asked.total)
            asked, made_by = task.asked, by(settings)
            made = open_(
                asked.drafts(),
                lambda paid: engine(self._view, paid),
                task.places,
                task.how,
                made_by,
                asked.files,
            )
            async with made as ready:
                report.traces = ready.traces
                if ready.results is not None and ready.results.dropped:
                    self._view.tell("The last line of the results was cut off; its question is asked again.")
                report.tally, report.doing = ready.batch.tally, ready.batch.doing
                telling = asyncio.create_task(self._tell_of_running())
                try:
                    async for _ in ready.batch.run(ready.entries, Heard(self._done, self._told_bad)):
                        pass
                except BudgetExceeded as error:
                    return error
                finally:
                    telling.cancel()
        return None

    async def _tell_of_running(self) -> None:
        """What the questions that run have used, where that has changed, for `--json-events`."""
        import asyncio

        told: Mapping[str, Doing] = {}
        while _events.on():
            now = self.report.doing()
            for name, doing in now.items():
                if doing != told.get(name):
                    _events.running(_of_running(name, doing))
            told = now
            await asyncio.sleep(_TELL_SECONDS)

    def _done(self, entry: Any, done: Any) -> None:
        self._view.heard()
        if done.failure is not None:
            self._failed += 1
            if self._failed <= _SHOWN:
                self._view.tell(f"{entry.id}: {done.failure.kind}: {done.failure.message[:300]}")
            elif self._failed == _SHOWN + 1:
                self._view.tell(
                    "Further failures are not shown here; the results say why each question failed."
                )
        _events.answered(self.report.event(entry, done))

    def _told_bad(self, line: Any) -> None:
        self._bad += 1
        if self._bad <= _SHOWN:
            print(f"rlm: line {line.number} is skipped: {printable(line.why)}", file=sys.stderr)
        elif self._bad == _SHOWN + 1:
            print(
                "rlm: further skipped lines are not shown here; the summary counts them.",
                file=sys.stderr,
            )


def _of_running(name: str, doing: Doing) -> Mapping[str, Any]:
    return {
        "id": name,
        "turns": doing.turns,
        "calls": doing.calls,
        "tokens": doing.tokens,
        "spent": doing.cost,
        "node": doing.node,
    }


def _go_on() -> str:
    """The same command, as it is typed."""
    return quoted("rlm", *sys.argv[1:])


def _end(running: _Running, ended: RLMError | None, options: RunOptions) -> None:
    """Print what came of it. Raises typer.Exit if a question has no answer."""
    report = running.report
    if not options.quiet:
        for line in report.lines(next_=ended is None):
            print(printable(line), file=sys.stderr)
    if ended is not None:
        _events.failed(ended.message)
        then = f"{ended.hint.rstrip('.')}: {report.go_on}"
        print(f"rlm: {printable(ended.message)}\n{printable(then)}", file=sys.stderr)
    if options.as_json:
        print(json_line(report.as_json()))
    if ended is not None or not report.tally.whole:
        raise typer.Exit(NO_ANSWER)

"""`rlm bench`: long-context tasks, with any model."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._engines import ENGINE, LOCAL, Where, checked_engine, engine_of
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.cli._text import json_line
from rlm_kernel.cli.options import INPUT, MODELS, OUTPUT, SANDBOX, RunOptions, option, with_options
from rlm_kernel.errors import SetupError, UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.bench.runner import Row

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
_JOBS = 2
"""Tasks at one time, on this machine."""
_LEAST, _MOST = 1_000, 10_000_000


@with_options
def bench(
    suite: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...",
            help="niah, oolong, pairs, copy, small, or jsonl:FILE with your own tasks.",
            show_default=False,
            autocompletion=_complete.suites,
        ),
    ] = None,
    length: Annotated[
        str, option(INPUT, "--length", metavar="TOKENS", help="Input length, 1K to 10M; several with commas.")
    ] = "8K,32K,131K",
    count: Annotated[
        int, option(INPUT, "--count", "-n", min=1, metavar="N", help="Tasks per suite and length.")
    ] = 20,
    seed: Annotated[
        int, option(INPUT, "--seed", metavar="N", help="Random seed; another seed makes other tasks.")
    ] = 0,
    trec: Annotated[
        Path | None,
        option(
            INPUT,
            "--trec",
            metavar="FILE",
            help="TREC questions with labels, for oolong and pairs.",
            autocompletion=_complete.files,
        ),
    ] = None,
    filler: Annotated[
        Path | None,
        option(
            INPUT,
            "--filler",
            metavar="FILE",
            help="File with the text to hide needles in. Default: one sentence, repeated.",
            autocompletion=_complete.files,
        ),
    ] = None,
    strategy: Annotated[
        str,
        option(
            MODELS,
            "--strategy",
            "-s",
            metavar="NAME",
            help="auto, rlm, rlm-flat, bare, retrieval; several with commas.",
            autocompletion=_complete.strategies,
        ),
    ] = "auto",
    jobs: Annotated[
        int | None,
        option(
            SANDBOX,
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Number of tasks run at the same time; each RLM has its own container. Default: 2, or as "
            "many as fit "
            "on the cluster.",
        ),
    ] = None,
    engine: ENGINE = LOCAL,
    out: Annotated[
        Path,
        option(
            OUTPUT,
            "--out",
            metavar="FOLDER",
            help="Results, traces and inputs. Finished tasks are not run again.",
            autocompletion=_complete.files,
        ),
    ] = Path("rlm-bench"),
    list_: Annotated[bool, typer.Option("--list", help="List the suites.")] = False,
    *,
    options: RunOptions,
) -> None:
    """Measure a model on long-context tasks.

    The model answers each task as in `rlm ask`, and with other strategies for comparison. The table goes to
    stdout. OUT/results.jsonl has score, tokens, cost and seconds of each task, OUT/traces the traces. The
    same command continues where it was stopped. Exit codes: 0 done, 1 some tasks failed, 2 wrong usage, 3
    missing set-up, 130 interrupted.
    """
    if list_:
        _list()
        return
    from rlm_kernel.bench import suites
    from rlm_kernel.bench.strategies import STRATEGIES
    from rlm_kernel.session.batch.run import Budget

    names = _chosen(strategy, STRATEGIES, "strategy")
    if "retrieval" in names and find_spec("bm25s") is None:
        raise SetupError(
            "The strategy retrieval needs the package bm25s.", hint="pip install 'rlm-kernel[bench]'"
        )
    if not suite:
        raise UsageError(
            "No suite was named.", hint="`rlm bench --list` lists them; `rlm bench niah` runs one."
        )
    lengths = [_tokens(text) for text in length.split(",")]
    tasks = suites.tasks(suite, lengths, suites.Choice(lengths[0], count, seed, trec, filler))
    where = Where(checked_engine(engine), jobs or (_JOBS if engine == LOCAL else None), Budget())
    rows = run_to_end(
        _run(options, tasks, names, out.absolute(), where),
        before=f"; the finished tasks are in {printable(str(out))}, and the same command continues from "
        "there.",
    )
    _report(rows, out, as_json=options.as_json, quiet=options.quiet)


async def _run(options: RunOptions, tasks: Any, strategies: list[str], out: Path, where: Where) -> list[Row]:
    import asyncio

    from rlm_kernel.bench.runner import Results, run
    from rlm_kernel.bench.strategies import ONE_CALL, Bench
    from rlm_kernel.session.batch.results import Paid
    from rlm_kernel.session.models import models_of

    def say(text: str) -> None:
        if not options.quiet:
            print(printable(text), file=sys.stderr)

    settings = options.settings()

    def heard(row: Row, new: bool) -> None:
        took = f"{row['seconds']:.1f} s, {row['turns']} turns, {row['calls']} calls" if new else "done before"
        what = row.get("error") or row["note"] or took
        say(f"{row['score']:.2f}  {row['task']}  {row['strategy']}  {what[:200]}")

    results = await asyncio.to_thread(Results.open, out)
    async with contextlib.AsyncExitStack() as stack:
        chosen = await stack.enter_async_context(models_of(settings, None, say))
        engine = engine_of(settings, where, Paid(), say, options.given_tools(), chosen.models)
        if not ONE_CALL.issuperset(strategies):
            await stack.enter_async_context(engine)
        profile = chosen.profile
        by: dict[str, str] = {**dict(chosen.names.items()), "prompt": f"{profile.name} {profile.digest[:12]}"}
        return await run(
            Bench(settings, chosen.models, engine, out),
            tasks,
            strategies,
            results,
            by,
            jobs=where.jobs,
            heard=heard,
        )


def _report(rows: list[Row], out: Path, *, as_json: bool, quiet: bool) -> None:
    from rlm_kernel.bench.report import picture, summary, table
    from rlm_kernel.errors import ConfigError

    groups = summary(rows)
    (out / "report.json").write_text(json.dumps({"groups": groups}, indent=1) + "\n", "utf-8")
    print(json_line({"groups": groups, "rows": rows}) if as_json else table(groups))
    try:
        picture(groups, out / "score.svg")
    except ConfigError as missing:
        if not quiet:
            print(f"rlm: {missing.message} {missing.hint}", file=sys.stderr)
    if not quiet:
        print(f"results: {printable(str(out))}", file=sys.stderr)
    if any(row.get("error") for row in rows):
        raise typer.Exit(1)


def _list() -> None:
    from rlm_kernel.bench.suites import JSONL, SUITES

    for name, suite in SUITES.items():
        print(f"{name:12}{suite.about}")
    print(f"{JSONL}FILE  tasks of your own, a JSON object on each line")


def _chosen(text: str, known: Any, what: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"There is no {what} {name!r}.", hint=f"Choose from {', '.join(known)}.")
    return names


def _tokens(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    tokens = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not _LEAST <= tokens <= _MOST:
        raise UsageError(
            f"{text.strip()!r} is not an input length.",
            hint="Lengths are from 1K to 10M tokens, such as 8K,131K,1M.",
        )
    return tokens

"""`rlm bench`: long-context tasks, with any model."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli._run import run_to_end
from rlm_kernel.cli._text import json_line, printable
from rlm_kernel.cli.session import CACHE, CONFIG, DEPTH, PROFILE, QUIET
from rlm_kernel.errors import UsageError

if TYPE_CHECKING:
    from rlm_kernel.bench.runner import Row
    from rlm_kernel.config import Settings

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
_LEAST, _MOST = 1_000, 10_000_000


def bench(
    suite: Annotated[
        list[str] | None, typer.Argument(help="niah, oolong, pairs, copy, small, or jsonl:FILE with tasks of your own.")
    ] = None,
    length: Annotated[str, typer.Option("--length", help="Tokens of input, 1K to 10M; several with commas.")] = "8K,32K,131K",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Tasks of each suite at each length.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Another seed makes other tasks.")] = 0,
    strategy: Annotated[str, typer.Option("--strategy", "-s", help="rlm, rlm-flat, bare, retrieval; several with commas.")] = "rlm",
    model: Annotated[str | None, typer.Option("--model", "-m", help="Root model: provider/model, or local.")] = None,
    sub_model: Annotated[str | None, typer.Option("--sub-model", help="Model for sub-calls; default: the root model.")] = None,
    trec: Annotated[Path | None, typer.Option("--trec", help="TREC questions with labels, for oolong and pairs.")] = None,
    filler: Annotated[Path | None, typer.Option("--filler", help="A text to hide needles in; default: one sentence, repeated.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for results, traces and inputs; what is done there is not run again.")] = Path(
        "rlm-bench"
    ),
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Tasks at one time; each RLM has a container.")] = 2,
    profile: PROFILE = None,
    max_turns: Annotated[int | None, typer.Option("--max-turns", help="Replies of the root model to a task; default 30.")] = None,
    max_calls: Annotated[int | None, typer.Option("--max-calls", help="Sub-model calls for a task; default 5000.")] = None,
    max_depth: DEPTH = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="US dollars for a task; default no limit.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds for a task; default no limit.")] = None,
    cache: CACHE = None,
    list_: Annotated[bool, typer.Option("--list", help="Say what suites there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: groups and rows.")] = False,
    quiet: QUIET = False,
    config: CONFIG = None,
) -> None:
    """Measure a model on long-context tasks: as an RLM, and by other strategies beside it.

    The table goes to stdout. Score, tokens, money and seconds of each task are in OUT/results.jsonl, the traces in OUT/traces; a command
    that was stopped goes on where it was. Exit codes: 0 done, 1 some tasks failed, 2 usage, 3 set-up, 130 interrupted.
    """
    if list_:
        _list()
        return
    from rlm_kernel.bench import suites
    from rlm_kernel.bench.strategies import STRATEGIES
    from rlm_kernel.config import load_api_keys, load_settings

    names = _chosen(strategy, STRATEGIES, "strategy")
    if not suite:
        raise UsageError("No suite was named.", hint="`rlm bench --list` says what there is; `rlm bench niah` runs one.")
    lengths = [_tokens(text) for text in length.split(",")]
    tasks = suites.tasks(suite, lengths, suites.Choice(lengths[0], count, seed, trec, filler))
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
    }
    rows = run_to_end(
        _run(load_settings(config, overrides), tasks, names, out.absolute(), jobs, quiet=quiet),
        before=f"; what is done is in {printable(str(out))}, and the same command goes on from there.",
    )
    _report(rows, out, as_json=as_json, quiet=quiet)


async def _run(settings: Settings, tasks: Any, strategies: list[str], out: Path, jobs: int, *, quiet: bool) -> list[Row]:
    import asyncio

    from rlm_kernel.bench.runner import Results, run
    from rlm_kernel.bench.strategies import Bench
    from rlm_kernel.session.models import models_of

    def say(text: str) -> None:
        if not quiet:
            print(printable(text), file=sys.stderr)

    def heard(row: Row, new: bool) -> None:
        took = f"{row['seconds']:.1f} s, {row['turns']} turns, {row['calls']} calls" if new else "done before"
        what = row.get("error") or row["note"] or took
        say(f"{row['score']:.2f}  {row['task']}  {row['strategy']}  {what[:200]}")

    results = await asyncio.to_thread(Results.open, out)
    async with models_of(settings, None, say) as chosen:
        profile = chosen.profile
        by: dict[str, str] = {**dict(chosen.names.items()), "prompt": f"{profile.name} {profile.digest[:12]}"}
        return await run(Bench(settings, chosen.models, out), tasks, strategies, results, by, jobs=jobs, heard=heard)


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
            raise UsageError(f"There is no {what} {name!r}.", hint=f"Take one or more of {', '.join(known)}.")
    return names


def _tokens(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    tokens = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not _LEAST <= tokens <= _MOST:
        raise UsageError(f"{text.strip()!r} is no length.", hint="Lengths are from 1K to 10M tokens, such as 8K,131K,1M.")
    return tokens

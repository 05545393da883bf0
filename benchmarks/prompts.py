"""Compare two prompts for the root model on easy tasks of ten kinds: `python benchmarks/prompts.py --a small
--b my.md`.

Each task is asked with both; the difference of the scores is told with a 95 % interval (bootstrap over the
tasks, paired). What was asked once is kept in `--out` by the prompt's digest, so that a run that was stopped
goes on, and a third prompt costs only its own runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rlm_kernel.bench import small
from rlm_kernel.bench.report import interval
from rlm_kernel.bench.runner import Results, Row, run
from rlm_kernel.bench.strategies import Bench
from rlm_kernel.bench.task import Task
from rlm_kernel.config import load_api_keys, load_settings
from rlm_kernel.session.batch.local import LocalEngine
from rlm_kernel.session.many import Asker
from rlm_kernel.session.models import models_of

HALVES = {**small.HALVES, "all": tuple(range(small.FORMS))}


def chosen(args: argparse.Namespace) -> list[Task]:
    """The first tasks of the half, and of the kind if one was named."""
    forms = HALVES[args.half]
    places = [
        place for place in range(args.count * small.FORMS) if place // len(small.KINDS) % small.FORMS in forms
    ][: args.count]
    made = list(small.tasks(places[-1] + 1, args.seed))
    return [made[place] for place in places if args.kind in (None, made[place].kind)]


async def rows_of(profile: str, tasks: Sequence[Task], args: argparse.Namespace) -> list[Row]:
    """The tasks' rows with that prompt."""
    changes = {"root_llm.model": args.model, "sub_llm.model": args.sub_model, "prompt.profile": profile}
    changes |= {"limits.turns": 8, "limits.seconds": args.seconds}
    settings = load_settings(None, {name: value for name, value in changes.items() if value is not None})

    def heard(row: Row, new: bool) -> None:
        if new:
            print(
                f"{row['score']:.2f} {row['seconds']:6.1f} s {row['turns']:2} turns  {row['task']:28} "
                f"{row['answer']!r:.60}",
                flush=True,
            )

    async with (
        models_of(settings, None, print) as chosen,
        LocalEngine(Asker(settings, models=chosen.models), 1) as engine,
    ):
        by = {**dict(chosen.names.items()), "prompt": chosen.profile.digest[:12]}
        return await run(
            Bench(settings, chosen.models, engine, args.out),
            iter(tasks),
            ["auto"],
            Results.open(args.out),
            by,
            heard=heard,
        )


def table(names: Sequence[str], runs: Sequence[Sequence[Row]]) -> None:
    """Scores by kind, and what a task took on the mean."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(runs[0]):
        kinds[row["kind"]].append(place)
    print(f"{'kind':12}" + "".join(f"{Path(name).stem:>20}" for name in names))
    for kind, places in [*kinds.items(), ("all", list(range(len(runs[0]))))]:
        print(
            f"{kind:12}"
            + "".join(
                f"{sum(rows[place]['score'] for place in places):12.2f} of {len(places):4}" for rows in runs
            )
        )
    for name, rows in zip(names, runs, strict=True):
        low, high = interval([row["score"] for row in rows])
        means = ", ".join(
            f"{fmean(row[what] for row in rows):.3g} {what}"
            for what in ("seconds", "turns", "calls", "prompt_tokens")
        )
        print(f"{name}: {fmean(row['score'] for row in rows):.1%} ({low:.0%} to {high:.0%}); a task: {means}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--a", default="small", help="a profile's name, or a file")
    parser.add_argument("--b", help="the one to compare it with")
    parser.add_argument("--model", default="local")
    parser.add_argument("--sub-model")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", choices=tuple(HALVES), default="tuned")
    parser.add_argument("--kind", choices=tuple(small.KINDS))
    parser.add_argument("--out", type=Path, default=Path("rlm-bench-prompts"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0, help="for a question; more on a busy machine")
    args = parser.parse_args()
    load_api_keys()
    tasks = chosen(args)
    names = [name for name in (args.a, args.b) if name]
    runs = [await rows_of(name, tasks, args) for name in names]
    table(names, runs)
    if len(runs) == 2:
        differences = [b["score"] - a["score"] for a, b in zip(*runs, strict=True)]
        low, high = interval(differences)
        print(f"b - a: {fmean(differences):+.3f}, 95 % of resamples from {low:+.3f} to {high:+.3f}")
    if args.json:
        args.json.write_text(json.dumps(dict(zip(names, runs, strict=True)), indent=1))


if __name__ == "__main__":
    asyncio.run(main())

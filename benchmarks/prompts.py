"""Compare two prompts for the root model on easy tasks of ten kinds: `python benchmarks/prompts.py --a small --b my.md`.

Each task is asked with both; the difference of the scores is told with a 95 % confidence interval (bootstrap over the tasks, paired). What was
asked once is kept by the prompt's digest in `--out`, so that a run that was stopped goes on, and a third prompt costs only its own runs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.bench import small
from rlm_kernel.bench.scorers import score
from rlm_kernel.bench.task import Task
from rlm_kernel.config import Settings, load_api_keys, load_settings
from rlm_kernel.errors import RLMError
from rlm_kernel.session.ask import ask
from rlm_kernel.session.players import open_models, profile_for

RESAMPLES = 10_000
Row = dict[str, Any]


def chosen_tasks(args: argparse.Namespace) -> list[Task]:
    """Those for work on prompts (forms 0, 2, 4), those kept aside (1, 3, 5), or all."""
    halves = {"tuned": {0, 2, 4}, "aside": {1, 3, 5}, "all": set(range(small.FORMS))}
    places = [n for n in range(10**6) if n // len(small.KINDS) % small.FORMS in halves[args.half]]
    made = list(small.tasks(places[args.count - 1] + 1, args.seed))
    return [made[place] for place in places[: args.count] if args.kind in (None, made[place].kind)]


async def run_all(settings: Settings, tasks: Sequence[Task], out: Path, repeat: bool) -> dict[str, Row]:
    """The rows of one prompt, by task."""
    digest = profile_for(settings).digest[:12]
    model = hashlib.sha256(json.dumps([settings.root_llm.model, settings.sub_llm.model]).encode()).hexdigest()[:8]
    log = out / f"{digest}-{model}.jsonl"
    rows = {row["task"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() and not repeat else {}
    left = [task for task in tasks if task.id not in rows]
    if left:
        async with open_models(settings, print) as models:
            for task in left:
                row = await run_one(settings, task, models, out / digest / f"{task.id}.ipynb")
                rows[task.id] = row
                with log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    f"{row['score']:.2f} {row['seconds']:6.1f} s {row['turns']:2} turns  {task.id:28} {str(row['answer'])[:50]!r} ({task.expected})",
                    flush=True,
                )
    return {task.id: rows[task.id] for task in tasks}


async def run_one(settings: Settings, task: Task, models: Any, trace: Path) -> Row:
    trace.parent.mkdir(parents=True, exist_ok=True)
    trace.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, text in task.texts.items():
            paths.append(Path(folder, name))
            paths[-1].write_text(text)
        try:
            result = await ask(task.question, paths, settings=settings, models=models, trace=trace)
        except RLMError as error:
            return {
                "task": task.id,
                "kind": task.kind,
                "score": 0.0,
                "answer": f"{type(error).__name__}: {error}",
                "turns": 0,
                "calls": 0,
                "seconds": 0.0,
                "tokens": 0,
                "stop": "error",
            }
    points = 0.0 if result.answer is None else score(task.scorer, task.expected, result.answer)
    tokens = result.usage.prompt + result.usage.completion
    return {
        "task": task.id,
        "kind": task.kind,
        "score": points,
        "answer": (result.answer or "")[:500],
        "turns": result.totals.turns,
        "calls": result.totals.calls,
        "seconds": round(result.totals.seconds, 1),
        "tokens": tokens,
        "stop": result.stop_reason,
    }


def interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % of the means of resamples."""
    draw = random.Random(seed)
    means = sorted(statistics.fmean(draw.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def table(names: Sequence[str], runs: Sequence[dict[str, Row]]) -> None:
    kinds: dict[str, list[str]] = defaultdict(list)
    for task, row in runs[0].items():
        kinds[row["kind"]].append(task)
    print(f"{'kind':12}" + "".join(f"{name[-20:]:>22}" for name in names))
    for kind, tasks in [*kinds.items(), ("all", list(runs[0]))]:
        print(f"{kind:12}" + "".join(f"{sum(run[task]['score'] for task in tasks):14.2f} of {len(tasks):4}" for run in runs))
    for name, run in zip(names, runs, strict=True):
        rows = list(run.values())
        mean = {key: statistics.fmean(row[key] for row in rows) for key in ("score", "seconds", "turns", "calls", "tokens")}
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in mean.items()))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--a", default="small", help="a profile's name, or a file")
    parser.add_argument("--b", help="the one to compare it with")
    parser.add_argument("--model", default="local")
    parser.add_argument("--sub-model")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", choices=("tuned", "aside", "all"), default="tuned")
    parser.add_argument("--kind", choices=tuple(small.KINDS))
    parser.add_argument("--out", type=Path, default=Path("prompt-runs"))
    parser.add_argument("--repeat", action="store_true", help="ask again what was asked")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    load_api_keys()
    tasks = chosen_tasks(args)
    names = [name for name in (args.a, args.b) if name]
    runs = []
    for name in names:
        changes = {
            "root_llm.model": args.model,
            "sub_llm.model": args.sub_model,
            "prompt.profile": name,
            "limits.turns": 8,
            "limits.seconds": 240.0,
        }
        settings = load_settings(None, {key: value for key, value in changes.items() if value is not None})
        runs.append(await run_all(settings, tasks, args.out, args.repeat))
    table(names, runs)
    if len(runs) == 2:
        differences = [runs[1][task.id]["score"] - runs[0][task.id]["score"] for task in tasks]
        low, high = interval(differences)
        print(f"b - a: {statistics.fmean(differences):+.3f}, 95 % of resamples from {low:+.3f} to {high:+.3f}")
    if args.json:
        args.json.write_text(json.dumps({name: list(run.values()) for name, run in zip(names, runs, strict=True)}, indent=1))


asyncio.run(main())

"""How many machines so many sessions a day take: measured costs of a session, and a simulation of nodes.

    python benchmarks/scale.py                      # from benchmarks/scale.json, as in docs/scale.md
    python benchmarks/scale.py --measure --write    # measures anew, and writes that file and that page

`--measure` runs sessions in containers, for some minutes; nothing else should run meanwhile. With `--levels
64` it measures that many at once alone, and keeps the other figures. The simulation needs neither containers
nor models. Its random numbers have a fixed seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.scale_days import DAY, Costs, Node, day, durations, mean_duration, simulate

FIGURES = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
GB = 1e9
SEED = 1


def per_session(figures: Mapping[str, Any]) -> str:
    """A table of what each session costs, by how many there are at once."""
    heads = [
        "sessions",
        "ready",
        "answered",
        "containers left",
        "start, s",
        "kernel idle, MB",
        "kernel maximum, MB",
    ]
    heads += [
        "host, MB",
        "descriptors",
        "CPU of a start: kernel, engine, host, s",
        "total CPU: kernel, host, s",
    ]
    heads += ["notebook, other files, journal, KB"]
    rows = []
    for one in figures["levels"]:
        rows.append(
            [
                f"{one['sessions']:.0f}",
                f"{one['at_once']:.0f}",
                f"{one['answered']:.0f}",
                f"{one['left']:.0f}",
                f"{one['start_seconds']:.1f}",
                f"{one['rest_memory'] / 1e6:.0f}",
                f"{one['run_memory'] / 1e6:.0f}",
                f"{one['host_memory'] / 1e6:.1f}",
                f"{one['descriptors']:.0f}",
                ", ".join(f"{one[f'start_{whose}_cpu']:.2f}" for whose in ("container", "engine", "host")),
                f"{one['run_container_cpu']:.2f}, {one['host_cpu']:.2f}",
                f"{one['notebook'] / 1e3:.0f}, {one['beside'] / 1e3:.0f}, {one['journal'] / 1e3:.0f}",
            ]
        )
    return _table(heads, rows)


def typical(figures: Mapping[str, Any]) -> dict[str, float]:
    """Of a session among many: the highest level, and for what grows in a run the largest of all levels."""
    levels = figures["levels"]
    most = ("run_memory", "run_container_cpu", "beside", "notebook")
    return levels[-1] | {name: max(one[name] for one in levels) for name in most}


def costs_of(figures: Mapping[str, Any], memory: float) -> Costs:
    """Of a session among many."""
    one = typical(figures)
    start = one["start_container_cpu"] + one["start_engine_cpu"] + one["start_host_cpu"]
    whole = one["run_container_cpu"] + one["start_engine_cpu"] + one["host_cpu"]
    return Costs(start, max(0.0, whole - start), memory)


def needs(figures: Mapping[str, Any], options: argparse.Namespace) -> str:
    """A table of what so many sessions a day take, by multiplication alone."""
    one = typical(figures)
    costs = costs_of(figures, 0)
    rate = options.sessions / DAY
    seconds = mean_duration(figures["seconds"], options.median, options.sigma)
    at_once = rate * seconds
    tokens = one["tokens_read"], one["tokens_written"]
    money = (tokens[0] * options.prices[0] + tokens[1] * options.prices[1]) / 1e6
    calls = one["root_calls"] + one["sub_calls"]
    disk = (one["notebook"] + one["beside"]) * options.sessions
    rows = [
        ["sessions", f"{rate:.1f} a second", f"{rate * options.peak:.1f} a second"],
        ["mean duration of a session, s", f"{seconds:.0f}", ""],
        ["sessions at the same time", f"{at_once:,.0f}", f"{at_once * options.peak:,.0f}"],
        *(
            [
                f"kernels' memory, {label}",
                f"{at_once * size / GB:,.0f} GB",
                f"{at_once * size * options.peak / GB:,.0f} GB",
            ]
            for label, size in (
                ("as used in a run", one["run_memory"]),
                ("with a limit of 512 MB each", 512 * 2**20),
                ("with the default limit of 2 GB each", 2 * 2**30),
            )
        ),
        [
            "hosts' memory (processes of rlm)",
            f"{at_once * one['host_memory'] / GB:,.1f} GB",
            f"{at_once * one['host_memory'] * options.peak / GB:,.1f} GB",
        ],
        [
            "hosts' descriptors",
            f"{at_once * one['descriptors']:,.0f}",
            f"{at_once * one['descriptors'] * options.peak:,.0f}",
        ],
        ["cores for starts", f"{rate * costs.start:.1f}", f"{rate * costs.start * options.peak:.1f}"],
        [
            "cores in total",
            f"{rate * (costs.start + costs.run):.1f}",
            f"{rate * (costs.start + costs.run) * options.peak:.1f}",
        ],
        ["model calls", f"{rate * calls:,.0f} a second", f"{rate * calls * options.peak:,.0f} a second"],
        [
            "tokens read",
            f"{rate * tokens[0] * 60 / 1e6:.1f} million a minute",
            f"{rate * tokens[0] * options.peak * 60 / 1e6:.1f} million a minute",
        ],
        ["tokens, read and written", f"{sum(tokens) * options.sessions / 1e9:.1f} billion a day", ""],
        [
            f"money, at ${options.prices[0]:g} and ${options.prices[1]:g} per million tokens",
            f"${money * options.sessions:,.0f} a day",
            "",
        ],
        ["traces", f"{disk / GB:,.0f} GB and {options.sessions * 2 / 1e6:.0f} million files a day", ""],
    ]
    return _table(["what", "mean", f"peak ({options.peak:g} times the mean)"], rows)


def simulated(figures: Mapping[str, Any], options: argparse.Namespace) -> str:
    """A table of simulated days, by limit of memory and number of nodes."""
    node = Node(options.cores, options.node_memory * GB)
    rows = []
    for label, memory in (("2 GB", 2 * 2**30), ("512 MB", 512 * 2**20)):
        costs = costs_of(figures, memory)
        seconds = costs.start + mean_duration(figures["seconds"], options.median, options.sigma)
        wanted = options.sessions / DAY * options.peak * seconds / node.places(memory)
        for part in options.parts:
            nodes = max(1, round(wanted * part))
            numbers = random.Random(SEED)
            took = durations(figures["seconds"], options.median, options.sigma, numbers)
            outcome = simulate(day(options.sessions, options.peak, numbers), took, nodes, node, costs)
            rows.append(
                [
                    label,
                    f"{nodes}",
                    f"{nodes * node.places(memory):,}",
                    f"{outcome.used:.0%}, {outcome.used_most:.0%}",
                    f"{outcome.cpu:.0%}, {outcome.cpu_most:.0%}",
                    ", ".join(f"{outcome.wait(part):,.1f}" for part in (0.5, 0.99, 1.0)),
                    f"{outcome.line:,}",
                ]
            )
    heads = ["limit of a kernel", "nodes", "places", "places taken: day, busiest hour"]
    heads += ["CPU: day, busiest hour", "wait: median, 99 %, maximum, s", "longest queue"]
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


async def _measure(options: argparse.Namespace) -> None:
    """Measure the levels, and write each as soon as it is there; others that were measured before stay."""
    from benchmarks.scale_figures import measure

    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"levels": []}
    async for one in measure(options.levels, options.limit):
        if one["sessions"] == 1:
            known["seconds"] = one["seconds"]
            one["seconds"] = statistics.median(one["seconds"])
        kept = [other for other in known["levels"] if other["sessions"] != one["sessions"]]
        known["levels"] = sorted([*kept, one], key=lambda level: level["sessions"])
        FIGURES.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{one['sessions']:.0f} at once", file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure a session's costs first")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scale.md")
    parser.add_argument(
        "--levels", type=int, nargs="+", default=(1, 2, 4, 8, 16, 32), help="sessions at once to measure"
    )
    parser.add_argument("--limit", default="300m", help="memory of a kernel, when measuring")
    parser.add_argument("--sessions", type=int, default=1_000_000, help="sessions per day")
    parser.add_argument("--peak", type=float, default=2.0, help="ratio of the rate at noon to the mean rate")
    parser.add_argument(
        "--median", type=float, default=60.0, help="seconds that the models take in a session"
    )
    parser.add_argument("--sigma", type=float, default=0.8, help="how far these seconds are spread")
    parser.add_argument("--prices", type=float, nargs=2, default=(0.25, 2.0), help="$ per million tokens")
    parser.add_argument("--cores", type=int, default=16, help="cores of a node")
    parser.add_argument("--node-memory", type=float, default=64.0, help="memory of a node, in GB")
    parser.add_argument("--parts", type=float, nargs="+", default=(0.8, 0.9, 1.0, 1.1, 1.25))
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    if options.measure:
        asyncio.run(_measure(options))
    figures = json.loads(FIGURES.read_text())
    tables = {
        "costs": per_session(figures),
        "needs": needs(figures, options),
        "days": simulated(figures, options),
    }
    print("\n\n".join(tables.values()))
    if options.write:
        PAGE.write_text(written(PAGE.read_text("utf-8"), tables), "utf-8")


def written(page: str, tables: Mapping[str, str]) -> str:
    """The page with the tables between their marks."""
    for name, table in tables.items():
        before, begin, rest = page.partition(f"<!-- {name}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        page = f"{before}{begin}{table}\n{end}{after}"
    return page


if __name__ == "__main__":
    main()

"""What a benchmark's rows say: a table, an object, and the picture of score against length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from rlm_kernel.bench.runner import Row
from rlm_kernel.errors import ConfigError

_RESAMPLES = 2_000
_COLUMNS = (
    "suite",
    "length",
    "strategy",
    "tasks",
    "score",
    "95 %",
    "tokens",
    "cost",
    "seconds",
    "turns",
    "calls",
    "failed",
)


def interval(scores: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Between which 95 % of the means of resamples lie (the bootstrap's percentile interval)."""
    draw = Random(seed)
    means = sorted(fmean(draw.choices(scores, k=len(scores))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A group for each suite, length and strategy.

    Tokens, cost, seconds, turns and calls are means of a task; one unknown cost makes it None.
    """
    groups: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["suite"], row["length"], row["strategy"]].append(row)
    return [_group(suite, length, strategy, group) for (suite, length, strategy), group in groups.items()]


def _group(suite: str, length: int, strategy: str, rows: Sequence[Row]) -> dict[str, Any]:
    scores = [row["score"] for row in rows]
    costs = [row["cost"] for row in rows if not row.get("error")]
    kinds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row["score"])
    return {
        "suite": suite,
        "length": length,
        "strategy": strategy,
        "tasks": len(rows),
        "score": fmean(scores),
        "interval": interval(scores),
        "tokens": fmean(row["prompt_tokens"] + row["completion_tokens"] for row in rows),
        "cost": None if None in costs or not costs else fmean(costs),
        "seconds": fmean(row["seconds"] for row in rows),
        "turns": fmean(row["turns"] for row in rows),
        "calls": fmean(row["calls"] for row in rows),
        "failed": sum(bool(row.get("error")) for row in rows),
        "refused": sum(row["note"].startswith("refused") for row in rows),
        "kinds": {kind: {"tasks": len(points), "score": fmean(points)} for kind, points in kinds.items()},
    }


def table(groups: Sequence[dict[str, Any]]) -> str:
    """The groups as lines of text."""
    lines = [_COLUMNS, *(_cells(group) for group in groups)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 3 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cells(group: dict[str, Any]) -> tuple[str, ...]:
    low, high = group["interval"]
    failed = f"{group['failed']}" + (f" ({group['refused']} refused)" if group["refused"] else "")
    return (
        group["suite"],
        length_worded(group["length"]),
        group["strategy"],
        f"{group['tasks']}",
        f"{group['score']:.1%}",
        f"{low:.0%}-{high:.0%}",
        f"{group['tokens']:,.0f}",
        "unknown" if group["cost"] is None else f"${group['cost']:.4f}",
        f"{group['seconds']:.1f}",
        f"{group['turns']:.1f}",
        f"{group['calls']:.1f}",
        failed,
    )


def length_worded(tokens: int) -> str:
    """131072 as 131K, 1000000 as 1M; "-" for 0."""
    if not tokens:
        return "-"
    if tokens >= 1_000_000:
        return f"{tokens / 1_000_000:.3g}M"
    return f"{tokens / 1_000:.3g}K" if tokens >= 1_000 else str(tokens)


def picture(groups: Sequence[dict[str, Any]], path: Path) -> None:
    """Score against length: a panel for each suite that has lengths, a line for each strategy.

    Raises OSError, ConfigError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "The picture needs the package matplotlib.", hint="pip install 'rlm-kernel[bench]'"
        ) from error
    suites = list(dict.fromkeys(group["suite"] for group in groups if group["length"]))
    if not suites:
        return
    figure = Figure(figsize=(4.5 * len(suites), 3.6), layout="constrained")
    for place, suite in enumerate(suites, 1):
        axes = figure.add_subplot(1, len(suites), place)
        for strategy in dict.fromkeys(group["strategy"] for group in groups):
            line = sorted(
                (g for g in groups if g["suite"] == suite and g["strategy"] == strategy),
                key=lambda g: g["length"],
            )
            if line:
                off = [
                    [g["score"] - g["interval"][0] for g in line],
                    [g["interval"][1] - g["score"] for g in line],
                ]
                axes.errorbar(
                    [g["length"] for g in line],
                    [g["score"] for g in line],
                    [[max(0, x) for x in side] for side in off],
                    marker="o",
                    capsize=3,
                    label=strategy,
                )
        axes.set(
            title=suite,
            xlabel="tokens of input",
            xscale="log",
            ylim=(-0.03, 1.03),
            ylabel="score" if place == 1 else None,
        )
        lengths = sorted({g["length"] for g in groups if g["suite"] == suite})
        axes.set_xticks(lengths, [length_worded(length) for length in lengths])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)

"""Trajectories for training: what `rlm batch` has answered, with every prompt and reply, and a reward.

    rlm batch tasks.jsonl --engine ray -m openai/gpt-5
    .venv/bin/python benchmarks/trajectories.py tasks.jsonl tasks.results.jsonl > trajectories.jsonl

tasks.jsonl has questions as `rlm batch` reads them, each with an `id`, what is `expected`, and a `scorer` of
`rlm bench` (default: contains). A line for each question that has a trace: `reward` from 0 to 1, and its
`calls` of root and sub models in order, those of child RLMs too, with fields as of `rlm export --jsonl`. What
failed has reward 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlm_kernel.bench.scorers import SCORERS, score
from rlm_kernel.errors import RLMError, UsageError
from rlm_kernel.session.documents import records
from rlm_kernel.trace.reader import read_trace

SCORER = "contains"


def trajectories(tasks: Path, results: Path, *, whole: bool = False) -> Iterator[dict[str, Any]]:
    """A trajectory for each result whose trace can be read; of an id with several results, of the last.

    Args:
        tasks: The file of questions, with what is expected.
        results: The file of results, beside which the traces are.
        whole: Leave out those of which a prompt is not complete in the trace.

    Raises:
        UsageError: a file cannot be read, or a task has nothing expected, or a scorer that there is not.
    """
    known = {str(task.get("id")): task for task in _lines(tasks)}
    for name, task in known.items():
        if "expected" not in task or task.get("scorer", SCORER) not in SCORERS:
            raise UsageError(
                f"The task {name[:80]!r} has nothing that is expected, or no scorer that there is.",
                hint=f"Scorers: {', '.join(SCORERS)}.",
            )
    last = {str(row.get("id")): row for row in _lines(results)}
    for name, row in last.items():
        if name in known and row.get("trace"):
            made = _trajectory(name, known[name], row, results.parent / row["trace"])
            if made is not None and not (whole and not made["complete"]):
                yield made


def _trajectory(name: str, task: dict[str, Any], row: dict[str, Any], path: Path) -> dict[str, Any] | None:
    try:
        calls = list(records(read_trace(path), None, _say, children=True))
    except RLMError as error:
        _say(f"{name}: {error.message}")
        return None
    answer = row.get("answer")
    return {
        "id": name,
        "question": task.get("question", ""),
        "answer": answer,
        "expected": task["expected"],
        "reward": score(task.get("scorer", SCORER), task["expected"], answer) if answer is not None else 0.0,
        "status": row.get("status", ""),
        "stop_reason": row.get("stop_reason") or "",
        "cost": row.get("cost"),
        "complete": all(call["complete"] for call in calls),
        "calls": calls,
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    read = json.loads(line)
                    if not isinstance(read, dict):
                        raise ValueError(f"line {number} is no object")
                    yield read
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """Print them, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--whole", action="store_true", help="only those whose prompts are all complete")
    given = parser.parse_args()
    try:
        for one in trajectories(given.tasks, given.results, whole=given.whole):
            print(json.dumps(one, ensure_ascii=False))
    except UsageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

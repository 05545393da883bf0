"""The suites by name: what makes their tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlm_kernel.bench import copying, niah, oolong, pairs, small, user_tasks
from rlm_kernel.bench.task import Task
from rlm_kernel.bench.trec import read_pool
from rlm_kernel.errors import UsageError

JSONL = "jsonl:"
"""Before the path of a file of the user's tasks."""


@dataclass(frozen=True)
class Choice:
    """Which tasks.

    `length` in tokens. `trec`, `filler`: files of the user's, for the suites that need them.
    """

    length: int
    count: int
    seed: int = 0
    trec: Path | None = None
    filler: Path | None = None


@dataclass(frozen=True)
class Suite:
    """`about` in a line; `lengths`: whether its tasks are made to a length."""

    about: str
    make: Callable[[Choice], Iterator[Task]]
    lengths: bool = True


SUITES: dict[str, Suite] = {
    "niah": Suite(
        "one sentence with a magic number in a long text (RULER)",
        lambda c: niah.tasks(c.length, c.count, c.seed, c.filler),
    ),
    "oolong": Suite(
        "counting questions over lines whose kinds must be understood (OOLONG trec_coarse); needs --trec",
        lambda c: oolong.tasks(c.length, c.count, c.seed, c.trec),
    ),
    "pairs": Suite(
        "all pairs of users with certain kinds of lines (OOLONG-Pairs); needs --trec",
        lambda c: pairs.tasks(c.length, c.count, c.seed, c.trec),
    ),
    "copy": Suite("a passage of a long text, verbatim", lambda c: copying.tasks(c.length, c.count, c.seed)),
    "small": Suite(
        "easy questions of ten kinds, over some hundred thousand characters",
        lambda c: small.tasks(c.count, c.seed),
        lengths=False,
    ),
}


def tasks(names: Sequence[str], lengths: Sequence[int], choice: Choice) -> Iterator[Task]:
    """The tasks of some suites, each at each length.

    Raises UsageError, for what is wrong with any suite, before the first.
    """
    made = [one for name in names for one in _made(name, lengths, choice)]
    return (task for one in made for task in one)


def _made(name: str, lengths: Sequence[int], choice: Choice) -> Iterator[Iterator[Task]]:
    if name.startswith(JSONL):
        yield user_tasks.tasks(Path(name.removeprefix(JSONL)).expanduser())
        return
    if name not in SUITES:
        raise UsageError(f"There is no suite {name!r}.", hint=f"Take {', '.join(SUITES)} or {JSONL}FILE.")
    suite = SUITES[name]
    if name in ("oolong", "pairs"):
        read_pool(choice.trec)  # says what is wrong at once
    for length in lengths if suite.lengths else (0,):
        yield suite.make(replace(choice, length=length))

"""Tasks of the user's own: a JSON object on each line of a file, with question, files, expected and
scorer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlm_kernel.bench.scorers import SCORERS
from rlm_kernel.bench.task import Task
from rlm_kernel.errors import UsageError


class UserTask(BaseModel):
    """A line of the file. `files`: paths, relative to the file's own folder."""

    model_config = ConfigDict(extra="forbid")

    question: Annotated[str, Field(min_length=1)]
    files: Annotated[list[str], Field(min_length=1)]
    expected: Any
    scorer: str = "contains"
    id: Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")] | None = None
    kind: str = "task"


def tasks(path: Path) -> Iterator[Task]:
    """The file's tasks, in order. Raises UsageError, which names the line, before the first."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The tasks in {path} cannot be read: {error}.", hint="docs/bench.md says what such a file holds."
        ) from error
    made = [_task(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    ids = [task.id for task in made]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise UsageError(
            f"{path} has more than one task with the id {' and '.join(sorted(twice))}.",
            hint="Give each an id of its own.",
        )
    if not made:
        raise UsageError(f"{path} has no task in it.", hint="docs/bench.md says what such a file holds.")
    return iter(made)


def _task(path: Path, number: int, line: str) -> Task:
    where = f"{path}, line {number}"
    try:
        read = UserTask.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where}: {f'{name}: ' if name else ''}{first['msg']}.",
            hint="docs/bench.md says what such a line holds.",
        ) from error
    if read.scorer not in SCORERS:
        raise UsageError(
            f"{where}: there is no scorer {read.scorer!r}.", hint=f"Take one of {', '.join(SCORERS)}."
        )
    _try(read, where)
    files = tuple((path.parent / name).resolve() for name in read.files)
    if missing := [str(file) for file in files if not file.is_file()]:
        raise UsageError(
            f"{where}: there is no file {missing[0]}.", hint="Paths are relative to the folder of the tasks."
        )
    return Task(
        read.id or f"{path.stem}-{number:03d}",
        path.stem,
        read.kind,
        read.question,
        read.expected,
        read.scorer,
        paths=files,
    )


def _try(read: UserTask, where: str) -> None:
    try:
        SCORERS[read.scorer](read.expected, "0")
    except Exception as error:
        raise UsageError(
            f"{where}: the scorer {read.scorer!r} cannot use what is expected: {error}.",
            hint="docs/bench.md lists them.",
        ) from error

"""Variables of a notebook, by name, as the context of a question."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rlm_kernel.errors import UsageError
from rlm_kernel.magics.line import is_name
from rlm_kernel.nearest import did_you_mean, nearest
from rlm_kernel.session.contexts import written

Evaluate = Callable[[str], Any]
"""The value of an expression in the notebook."""
LARGE = 1 << 30
"""Bytes from which the user is told what becomes of a value."""
_PLAIN = (str, int, float, bool, list, tuple, dict, set, frozenset, type(None))
"""What stands in a dict with others of its kind; all else is a file of its own."""
_LONG = 1000
"""Characters from which a text is not taken for a path."""


def look_up(names: Iterable[str], evaluate: Evaluate, known: Iterable[str]) -> dict[str, Any]:
    """The values of the names that the user has written, by these.

    `known`: the notebook's names, for a hint. Raises UsageError for what is no name, is not there, or cannot
    be a context.
    """
    found = {}
    for name in names:
        found[name] = value = value_of(name, evaluate, known)
        _check(name, value)
    return found


def value_of(name: str, evaluate: Evaluate, known: Iterable[str]) -> Any:
    """The value of one name. Raises UsageError."""
    if not is_name(name):
        raise UsageError(
            f"{name} is not the name of a variable.",
            hint="Use names: df, logs[0], run.notes. For anything else, make a variable first. Write the "
            "question in the lines below %%rlm, or after -- with %rlm.",
        )
    try:
        return evaluate(name)
    except NameError as error:
        near = did_you_mean(nearest(name, (one for one in known if not one.startswith("_"))))
        raise UsageError(
            f"There is no variable {error.name or name} in this notebook.",
            hint=near or "Run the cell that makes it. If it is part of the question: %rlm -- QUESTION",
        ) from error
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise UsageError(f"{name} cannot be read: {type(error).__name__}: {said}") from error


def _check(name: str, value: Any) -> None:
    """Raise UsageError for what nobody means as a context."""
    what = (
        "None"
        if value is None
        else "a module"
        if isinstance(value, ModuleType)
        else "a class"
        if isinstance(value, type)
        else "a function"
        if callable(value) and inspect.isroutine(value)
        else "a coroutine"
        if inspect.iscoroutine(value)
        else ""
    )
    if what:
        raise UsageError(
            f"{name} is {what}, which has no content to ask about.",
            hint="Give a text, bytes, a Path or several, a table, a file object, or what JSON can hold.",
        )
    if isinstance(value, str) and _names_a_file(value):
        raise UsageError(
            f"{name} is a text that names a file, not the file's content.",
            hint=f"To ask about the file: {name} = Path({name})",
        )


def _names_a_file(text: str) -> bool:
    if not text or len(text) > _LONG or "\n" in text or "\0" in text:
        return False
    try:
        return Path(text).is_file()
    except OSError:
        return False


def size_of(value: Any) -> int:
    """About how many bytes a value has in memory, as it tells itself without a look at all of it."""
    try:
        if hasattr(value, "memory_usage"):  # pandas
            used = value.memory_usage()
            return int(used if isinstance(used, int) else used.sum())
        if hasattr(value, "estimated_size"):  # polars
            return int(value.estimated_size())
        return int(value.nbytes) if hasattr(value, "nbytes") else sys.getsizeof(value)
    except Exception:  # it is no more than a courtesy
        return 0


def large_ones(values: Mapping[str, Any]) -> list[str]:
    """A sentence for each value that takes long to hand over."""
    return [
        f"{name} ({type(value).__name__}) has about {size / 1e9:,.1f} GB, so rlm writes it to a file first. "
        "If you have it as a file, give its Path instead: rlm needs no copy then."
        for name, value in values.items()
        if (size := size_of(value)) >= LARGE
    ]


def as_context(values: Mapping[str, Any], folder: Path) -> Any:
    """The context: one value itself, several plain ones as a dict by name, others as files in the folder.

    Blocking. Raises what `written` raises.
    """
    if len(values) == 1:
        return next(iter(values.values()))
    if all(isinstance(value, _PLAIN) and not _paths(value) for value in values.values()):
        return dict(values) or None
    return Files(folder).add(values)


class Files:
    """Values as files in a folder, named after their variables; a Path stands for itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._given: dict[str, str] = {}
        """What was last given under a name: a digest, or paths."""

    def add(self, values: Mapping[str, Any]) -> list[Path]:
        """The files of values that are new, or others than before. Blocking. Raises what `written` raises."""
        found: list[Path] = []
        for name, value in zip(map(_plain, values), values.values(), strict=True):
            if paths := _paths(value):
                found += self._if_new(name, repr(paths), lambda paths=paths: paths)  # type: ignore[misc]
            else:
                found += self._file(name, value)
        return found

    def forget(self, values: Iterable[str]) -> None:
        """Take these as not given."""
        for name in values:
            self._given.pop(_plain(name), None)

    def _file(self, name: str, value: Any) -> list[Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as made:
            if isinstance(value, str):
                places: tuple[Path, ...] = (Path(made, f"{name}.txt"),)
                places[0].write_text(value, encoding="utf-8", errors="surrogatepass", newline="")
            else:
                places = written(value, Path(made, name)).paths
            digest = hashlib.sha256()
            for place in places:
                with place.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            return self._if_new(name, digest.hexdigest(), lambda: [self._keep(name, one) for one in places])

    def _if_new(self, name: str, mark: str, give: Callable[[], list[Path]]) -> list[Path]:
        if self._given.get(name) == mark:
            return []
        self._given[name] = mark
        return give()

    def _keep(self, name: str, made: Path) -> Path:
        """The file under its variable's name, or, of a dict of tables, that and its own."""
        stem = name if made.name.startswith(f"{name}.") else f"{name}-{made.stem}"
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        free = (self._folder / f"{one}{made.suffix}" for one in names)
        place = next(path for path in free if not path.exists())
        shutil.move(made, place)
        return place


def _plain(name: str) -> str:
    """What a file of a variable is called."""
    return re.sub(r"\W+", "_", name).strip("_")


def _paths(value: Any) -> list[Path]:
    """The paths that a value is; none of anything else."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(one, Path) for one in value):
        return list(value)
    return []

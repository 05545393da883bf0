"""What a question is asked of: files and folders, or an object from Python."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import CellResult
from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.session import contexts
from rlm_kernel.session.contexts import written
from rlm_kernel.session.globs import matching, why_none

Context = Any
"""The path or paths of files and folders (`Path`), or an object as of `session.contexts.written`: a text,
what JSON can hold, bytes, a file object, a table, a generator; None for nothing.
"""
MAX_MATCHES = 1000
"""Files of one glob."""
CONTEXT, STDIN, TEXT = contexts.JSON, ".stdin.txt", contexts.TEXT
"""Endings, after the trace's stem, of the files that keep an object, standard input, and a text that a child
RLM was handed.
"""
KEPT = (CONTEXT, STDIN, TEXT, contexts.TABLE, contexts.BYTES)
"""All endings of single files that are kept beside a trace."""
_BLOCK = 1 << 20
_TOO_SMALL = (
    (("MemoryError", "Cannot allocate memory"), "memory", "8g"),
    (("No space left on device", "No usable temporary directory"), "tmp", "4g"),
    (("can't start new thread", "Resource temporarily unavailable"), "pids", "512"),
)
"""Signs of a limit that is too low, its setting, and a value that is enough for most."""
_DESCRIPTOR = re.compile(r"/dev/fd/\d+|/proc/(?:self|\d+)/fd/\d+|/dev/stdin")


@dataclass(frozen=True)
class Placed:
    """A context of files that are elsewhere than the user has them: `paths` here, `known_as` there.

    `made`: as of Inputs.
    """

    paths: tuple[Path, ...]
    known_as: tuple[Path, ...]
    made: bool = False


@dataclass(frozen=True)
class Beside:
    """A context that is no file, and files beside it: it becomes one of them, a text, or JSON."""

    context: Context
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Inputs:
    """`paths` as the user named them. `made`: they hold one object from Python, written beside the trace.
    `known_as`: as of FileGrants.
    """

    paths: tuple[Path, ...]
    made: bool = False
    known_as: tuple[Path, ...] = ()

    def cells(
        self,
        question: str,
        resolved: Sequence[Path],
        schema: Mapping[str, Any] | None = None,
        tools: str = "",
    ) -> list[tuple[str, str]]:
        """The notebook's set-up cells: `parameters`, and `setup`, which loads what they name.

        `schema`: the answer must fit it. `tools`: the code that declares them (`session.toolbox.declared`).
        """
        shown = ",\n    ".join(repr(str(path)) for path in resolved)
        listed = f"[\n    {shown},\n]" if len(resolved) > 1 else f"[{shown}]"
        cells = [("parameters", f"question = {question!r}\npaths = {listed}")]
        setup = [tools] if tools else []
        setup += ["load_object(paths[0]);"] if self.made else ["load_files(paths)"] if resolved else []
        setup += [f"expect_answer({dict(schema)!r})"] if schema is not None else []
        return [*cells, ("setup", "\n".join(setup))] if setup else cells


def gather(context: Context, trace_path: Path) -> Inputs:
    """The paths of a context; what is no path is written to a file beside the trace (`session.contexts`).

    Blocking. Raises what `expand` and `written` raise.
    """
    if context is None:
        return Inputs(())
    if isinstance(context, Placed):
        return Inputs(context.paths, context.made, context.known_as)
    if isinstance(context, Beside):
        first = io.StringIO(context.context) if isinstance(context.context, str) else context.context
        files = expand(context.files, trace_path.with_suffix(STDIN))
        return Inputs(tuple(dict.fromkeys((*gather(first, trace_path).paths, *files))))
    if isinstance(context, Path):
        return Inputs(expand([context], trace_path.with_suffix(STDIN)))
    if are_paths(context):
        return Inputs(expand(context, trace_path.with_suffix(STDIN)))
    made = written(context, trace_path)
    return Inputs(made.paths, made=made.as_object)


def are_paths(context: Context) -> bool:
    """Whether a context is several paths."""
    several = isinstance(context, Sequence) and not isinstance(context, str)
    return several and bool(context) and all(isinstance(one, Path) for one in context)


def beside(context: Context, files: Sequence[Path]) -> Context:
    """A context with files beside it, which are loaded as its own are."""
    if not files:
        return context
    if context is None or isinstance(context, Path) or are_paths(context):
        own = [] if context is None else [context] if isinstance(context, Path) else context
        return list(dict.fromkeys([*own, *files]))
    return Beside(context, tuple(files))


def expand(paths: Sequence[Path], stdin: Path) -> tuple[Path, ...]:
    """Paths as a user gives them: `-` is standard input, kept in the file `stdin`; the shell's `<(command)`
    is read as that is, into a file beside it; what is not there may be a glob. Blocking.

    A glob's files are in order of their names, and nothing comes twice. Where it has `**` it stands for files
    alone: their folders would bring them again. Raises UsageError for a glob without a match or with too
    many, or a terminal as standard input; TraceError where the file cannot be written.
    """
    found: dict[Path, None] = {}
    for path in dict.fromkeys(paths):
        if str(path) == "-":
            found[_standard_input(stdin)] = None
        elif pipe := inherited_pipe(path):
            found[_kept(pipe, stdin.with_suffix(f".{pipe.name}.txt"), f"The input from {path}")] = None
        elif not os.path.lexists(path.expanduser()) and glob.has_magic(str(path)):
            found |= dict.fromkeys(_matching(path))
        else:
            found[path] = None
    return tuple(found)


def check_readable(paths: Iterable[Path]) -> None:
    """Raise FileRefused for a path that cannot be read, before anything else is set up.

    Not of `-`, or of a glob. Blocking.
    """
    from rlm_kernel.sandbox.grants import resolve

    for path in paths:
        if str(path) != "-" and (not glob.has_magic(str(path)) or os.path.lexists(path.expanduser())):
            resolve(path)


def _matching(pattern: Path) -> list[Path]:
    names = map(Path, sorted(matching(str(pattern.expanduser()))))
    found = [path for path in names if "**" not in pattern.parts or not path.is_dir()]
    if not found:
        raise UsageError(
            f"Nothing matches {pattern}.",
            hint=why_none(str(pattern)),
        )
    if len(found) > MAX_MATCHES:
        raise UsageError(
            f"{len(found):,} files match {pattern}, and at most {MAX_MATCHES:,} can be loaded one by one.",
            hint="Name the folder instead; it may have any number of files.",
        )
    return found


def _standard_input(path: Path) -> Path:
    """What comes from standard input, in a file of any size."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "Standard input is a terminal: there is nothing to read.",
            hint="Pipe the input in: cat FILE | rlm ask … -f -",
        )
    return _kept(sys.stdin.buffer, path, "Standard input")


def inherited_pipe(path: Path) -> Path | None:
    """A pipe that this process has inherited, as the shell's `<(command)`; None for any other path, also for
    a pipe with a name: nobody may ever write into that.
    """
    try:
        return path if _DESCRIPTOR.fullmatch(str(path)) and stat.S_ISFIFO(path.stat().st_mode) else None
    except OSError:
        return None


def _kept(source: IO[bytes] | Path, path: Path, what: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            path.open("wb") as file,
            source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source) as reading,
        ):
            shutil.copyfileobj(reading, file, _BLOCK)
    except OSError as error:
        raise TraceError(
            f"{what} cannot be stored in {path}: {error.strerror or error}.",
            hint="Free some space or check the folder's permissions, or choose another place for the trace.",
        ) from error
    return path


def check_setup(result: CellResult, settings: Settings) -> None:
    """Raise UsageError if the input could not be loaded."""
    if result.status == "ok":
        return
    if result.status == "died":
        raise UsageError(
            f"The input could not be loaded: {' '.join(result.notices)}",
            hint=f"The kernel has {settings.sandbox.memory} of memory. Give it more with sandbox.memory "
            "(RLM_SANDBOX__MEMORY=8g).",
        )
    errors = [output for output in result.outputs if output["output_type"] == "error"]
    why = " ".join([str(error["evalue"]) for error in errors] or result.notices)
    kinds = " ".join(str(error["ename"]) for error in errors)
    raise UsageError(f"The input could not be loaded: {why}", hint=_more_room(f"{kinds} {why}", settings))


def _more_room(why: str, settings: Settings) -> str:
    """Which limit of the container to raise, if that is what an error tells of."""
    for signs, setting, value in _TOO_SMALL:
        if any(sign in why for sign in signs):
            variable = f"RLM_SANDBOX__{setting.upper()}"
            now = getattr(settings.sandbox, setting)
            return f"The container is too small: sandbox.{setting} is {now}. Give it more: {variable}={value}"
    return ""

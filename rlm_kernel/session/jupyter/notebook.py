"""The notebook that a kernel in Jupyter is started for, and the files that the kernel gets for it."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rlm_kernel.errors import FileRefused, TraceError
from rlm_kernel.sandbox.grants import resolve
from rlm_kernel.session.tracefiles import check_files
from rlm_kernel.trace.reader import TraceFile, read_notebook, read_trace, trace_of

_PARAMETERS = ("parameters", "injected-parameters")
"""Tags of the cells whose `paths` count: papermill's names for what is there and what it puts in."""
_RULE = (
    "This kernel may not read {asked}. It may read the files of the notebook's trace, and the files that "
    "`paths` in the parameters cell names, if they are in the notebook's folder, below the folder where "
    "Jupyter was started, or in a folder of the setting sandbox.allow."
)
_RULE_HINT = "rlm reads the notebook when the kernel starts: after a change, save it and restart the kernel."


@dataclass(frozen=True)
class Opened:
    """A notebook that a kernel is started for.

    Without a `node` it is read from its `path`, which is absolute.

    `named`: by the user, with RLM_TRACE. `given`: the parameters that papermill was called with for this very
    run.
    """

    path: Path
    node: Any = None
    named: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> tuple[Any, TraceFile | None, str]:
        """The notebook (nbformat 4), the trace that it is, and what is wrong with that; None where there is
        none. Blocking.

        Raises UsageError and TraceError for a named one that is missing or cannot be used.
        """
        if self.named:
            trace = read_trace(self.path)
            return trace.node, trace, ""
        node = self.node if self.node is not None else _read(self.path)
        if node is None or "rlm" not in node.metadata:
            return node, None, ""
        try:
            return node, trace_of(node, self.path), ""
        except TraceError as error:
            return node, None, error.message


def _read(path: Path) -> Any:
    try:
        return read_notebook(path)
    except Exception:  # no notebook, as for a console's session; or none that anybody can read
        return None


def find_opened(environ: Mapping[str, str] | None) -> Opened | None:
    """The notebook that a kernel is being started for, as far as that can be known.

    Call it where the kernel is started.

    `environ` is what the starting program gave for the kernel. In this order: RLM_TRACE; the
    nbclient.NotebookClient that is starting the kernel, which is found among the callers (nbclient,
    nbconvert, papermill); JPY_SESSION_NAME, by which jupyter_server tells the path.
    """
    named = (environ or {}).get("RLM_TRACE") or os.environ.get("RLM_TRACE")
    if named:
        return Opened(Path(named).expanduser().absolute(), named=True)
    client = _starting_client()
    if client is not None:
        return Opened(_place(client), client.nb, given=_papermill_parameters(client))
    session = (environ or {}).get("JPY_SESSION_NAME")
    return Opened(Path(session).absolute()) if session else None


def _starting_client() -> Any:
    """The nbclient.NotebookClient that this thread is starting a kernel for, or None. nbconvert's and
    papermill's clients are ones too.
    """
    nbclient = sys.modules.get("nbclient")
    if nbclient is None:
        return None
    for frame in _callers(sys._getframe()):
        client = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames else None
        if isinstance(client, nbclient.NotebookClient):
            return client
    return None


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and its callers. Coroutines that await each other stand on the stack as callers do."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _papermill_parameters(client: Any) -> Mapping[str, Any]:
    """What papermill was given for this notebook by whoever runs it now.

    The notebook's own metadata do not tell: they may be from an earlier run, of somebody else. papermill may
    wait in another thread.
    """
    for top in list(sys._current_frames().values()):
        for frame in _callers(top):
            if (
                frame.f_code.co_name == "execute_notebook"
                and frame.f_globals.get("__name__") == "papermill.execute"
            ):
                names = frame.f_locals
                if names.get("nb") is client.nb:
                    return dict(names.get("parameters") or {})
    return {}


def _place(client: Any) -> Path:
    """Where the notebook of a client lies, or would: nbclient itself knows its folder at most."""
    recorded = client.nb.metadata.get("papermill", {}).get("input_path")
    if (
        isinstance(recorded, str)
        and type(client).__module__.startswith("papermill.")
        and Path(recorded).is_file()
    ):
        return Path(recorded).absolute()
    metadata = (client.resources or {}).get("metadata", {})
    return Path(metadata.get("path") or ".", f"{metadata.get('name') or 'notebook'}.ipynb").absolute()


@dataclass(frozen=True)
class OpenedFiles:
    """What a kernel gets: `paths`, with `known_as` as for FileGrants. `refused` says why not, by path."""

    folder: Path
    paths: Sequence[Path] = ()
    known_as: Sequence[Path | None] = ()
    refused: Mapping[Path, str] = field(default_factory=dict)

    def place(self, asked: str) -> str:
        """A path that code asks for; a relative one is meant from the notebook's folder."""
        return os.path.join(self.folder, asked)

    def why_not(self, asked: str) -> FileRefused:
        """The error for a path that the kernel was not given."""
        known = self.refused.get(Path(os.path.abspath(self.place(asked))))
        return FileRefused(known or _RULE.format(asked=asked), hint=_RULE_HINT)


def files_of(opened: Opened | None, node: Any, trace: TraceFile | None, allow: Sequence[Path]) -> OpenedFiles:
    """The files for a notebook: those of its trace that are as they were, and those of its `paths` that lie
    where they may. Blocking.

    A notebook may come from a stranger. A recorded file needs its recorded digest, which nobody knows of a
    file that they cannot read, or it lies where `paths` may point to. What is not given does not keep the
    kernel from starting.
    """
    folder = opened.path.parent if opened else Path.cwd()
    roots = [Path(os.path.realpath(root)) for root in (*([folder] if opened else []), Path.cwd(), *allow)]
    paths: list[Path] = []
    names: list[Path | None] = []
    refused: dict[Path, str] = {}
    for file in check_files(trace) if trace else ():
        name = Path(file.meta.path)
        if file.path is None or file.fault:
            refused[name] = (
                f"{file.fault} The trace was recorded with another version of the file, so it is not loaded."
            )
        elif not file.proven and not _allowed(file.path, roots):
            refused[name] = (
                f"{file.path} is known by its size alone: the trace has no sha256 of it. "
                f"{_RULE.format(asked='it')}"
            )
        else:
            paths.append(file.path)
            names.append(name)
    given = set(_texts(opened.given)) if opened else set()
    for text in _named_paths(node):
        path = Path(os.path.abspath(os.path.join(folder, text)))
        if path in names or (path in refused and text not in given):
            continue
        try:
            resolve(path)
        except FileRefused as error:
            refused[path] = error.message
            continue
        if text in given or _allowed(path, roots):
            refused.pop(path, None)
            paths.append(path)
            names.append(path)
    return OpenedFiles(folder, paths, names, refused)


def _allowed(path: Path, roots: Sequence[Path]) -> bool:
    return any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots)


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    for value in values.values():
        yield from (
            item for item in (value if isinstance(value, list | tuple) else [value]) if isinstance(item, str)
        )


def _named_paths(node: Any) -> list[str]:
    """The list that the parameters cells assign to `paths`; the last one holds."""
    found: list[str] = []
    for cell in node.cells if node is not None else ():
        if cell.cell_type == "code" and set(cell.metadata.get("tags", [])) & set(_PARAMETERS):
            found = _assigned(cell.source, "paths", found)
    return found


def _assigned(source: str, name: str, otherwise: list[str]) -> list[str]:
    """The texts that code assigns to a name as a literal list."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return otherwise
    for statement in statements:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in statement.targets
        ):
            try:
                value = ast.literal_eval(statement.value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                continue
            if isinstance(value, list | tuple):
                otherwise = [text for text in value if isinstance(text, str) and "\0" not in text]
    return otherwise

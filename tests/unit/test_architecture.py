"""The rooms and the arrows between them: cli → bench → session → engine → protocols ← models, sandbox,
trace; views → engine, report → proof → trace.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import rlm_contract

import rlm_kernel

pytestmark = pytest.mark.xdist_group("architecture")  # they share what takes long to parse
PACKAGE = Path(rlm_kernel.__file__).parent
ROOMS = (
    "bench",
    "cli",
    "engine",
    "magics",
    "mcpserver",
    "models",
    "proof",
    "report",
    "sandbox",
    "serve",
    "session",
    "tools",
    "trace",
    "views",
)
BESIDE = {
    "bounded",
    "checked",
    "columns",
    "config",
    "errors",
    "sanitize",
    "loops",
    "nearest",
    "pathtext",
    "printable",
    "scratch",
    "secrets",
    "system",
    "_version",
}
"""Modules beside the rooms, which import no room."""
SLOW = {"litellm", "docker", "jupyter_client", "nbformat", "prompt_toolkit", "xllamacpp"}
MAY_IMPORT = {
    "cli": {
        "cli",
        "bench",
        "session",
        "engine",
        "mcpserver",
        "models",
        "proof",
        "report",
        "sandbox",
        "serve",
        "tools",
        "trace",
        "views",
    },
    "bench": {"bench", "session", "engine"},
    "mcpserver": {"mcpserver", "session", "engine", "report", "sandbox", "trace"},
    "serve": {"serve", "session", "engine", "sandbox", "tools"},
    "session": {"session", "engine", "models", "proof", "report", "sandbox", "tools", "trace", "views"},
    "engine": {"engine"},
    "magics": {"magics", "session"},
    "models": {"models", "engine"},
    "sandbox": {"sandbox", "engine"},
    "trace": {"trace", "engine"},
    "proof": {"proof", "trace", "engine"},
    "report": {"report", "proof", "trace", "engine"},
    "tools": {"tools"},
    "views": {"views", "engine"},
}
SEES_THE_SEAMS_ALONE = ("models", "sandbox", "trace")
SEAMS = {"protocols", "events"}
"""What these see of the engine."""
ENGINE_STDLIB = {
    "__future__", "ast", "asyncio", "base64", "calendar", "collections", "contextlib", "dataclasses", "datetime", "functools", "hashlib", "html",
    "importlib",
    "itertools", "json", "math", "operator", "re", "time", "typing", "warnings",
}  # fmt: skip
"""No way to files, processes or the network but `importlib.resources`, for the prompts."""


ENGINE_LIBRARIES = {"markdown_it", "pygments", "rlm_contract"}
"""They read text, and do nothing else; the last one has names and limits alone."""


def modules(room: str = "") -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path, *, late: bool = True) -> Iterator[str]:
    """Dotted names that a module imports; without `late`, only when it is itself imported.

    Names of a `from` are included.
    """
    for node in _nodes(tree_of(path), late):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _nodes(node: ast.AST, late: bool) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_alone = (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        )
        if late or not (function or typing_alone):
            yield from _nodes(child, late)


def ours(path: Path) -> Iterator[list[str]]:
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "rlm_kernel":
            yield parts[1:]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_lies_below_them(room: str) -> None:
    for path in modules(room):
        for parts in ours(path):
            if parts[0] in ROOMS:
                assert parts[0] in MAY_IMPORT[room], f"{path.relative_to(PACKAGE)} imports {'.'.join(parts)}"
                if room in SEES_THE_SEAMS_ALONE and parts[0] == "engine":
                    assert parts[1] in SEAMS, f"{path.relative_to(PACKAGE)} imports {'.'.join(parts)}"
            else:
                assert parts[0] in BESIDE, f"{path.relative_to(PACKAGE)} imports {'.'.join(parts)}"


def test_the_engine_imports_the_errors_and_a_little_beside() -> None:
    for path in modules("engine"):
        for name in imported(path):
            parts = name.split(".")
            allowed = ENGINE_STDLIB | ENGINE_LIBRARIES if parts[0] != "rlm_kernel" else {"rlm_kernel"}
            assert parts[0] in allowed, f"{path.relative_to(PACKAGE)} imports {name}"
            assert parts[0] != "rlm_kernel" or parts[1] in ("bounded", "checked", "engine", "errors"), (
                f"{path.name} imports {name}"
            )
            assert parts[0] != "importlib" or name == "importlib.resources"


def test_the_engine_opens_no_file() -> None:
    for path in modules("engine"):
        calls = [
            node.func.id
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert not {"open", "exec", "eval", "__import__"} & set(calls), path


def test_nothing_is_unpickled_or_evaluated() -> None:
    unpickling = {
        "pickle",
        "_pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "multiprocessing",
        "shelve",
        "numpy",
        "pandas",
        "yaml",
    }
    for path in modules():
        # A DataFrame of plain rows; pandas reads nothing there.
        allowed = {"pandas"} if path == PACKAGE / "report" / "records.py" else set()
        assert not {name.split(".")[0] for name in imported(path)} & (unpickling - allowed), path
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                assert called not in ("eval", "exec", "unpickle", "recv_pyobj", "read_pickle"), path


def test_modules_beside_the_rooms_import_no_room() -> None:
    for name in BESIDE:
        for path in modules(name) or [PACKAGE / f"{name}.py"]:
            for parts in ours(path):
                assert parts[0] in BESIDE, f"{name} imports {'.'.join(parts)}"


def test_nothing_imports_the_command_line() -> None:
    for path in modules():
        if path.parent != PACKAGE / "cli" and path.name != "__main__.py":
            assert all(parts[0] != "cli" for parts in ours(path)), path


def test_the_kernels_package_imports_nothing_of_the_host() -> None:
    for path in sorted((PACKAGE.parent / "kernel_image").rglob("*.py")):
        assert not list(ours(path)), path


def test_what_host_and_container_share_imports_python_alone() -> None:
    for path in sorted(Path(rlm_contract.__file__).parent.rglob("*.py")):
        assert {name.split(".")[0] for name in imported(path)} <= {
            *sys.stdlib_module_names,
            "rlm_contract",
        }, path


@pytest.mark.parametrize("package", sorted(SLOW - {"jupyter_client"}))
def test_slow_packages_are_imported_late(package: str) -> None:
    for path in modules():
        assert all(name.split(".")[0] != package for name in imported(path, late=False)), path


@pytest.mark.parametrize(
    "code", ["import rlm_kernel", "from rlm_kernel import RLM", "from rlm_kernel.cli import main; main()"]
)
def test_import_and_help_load_nothing_slow(code: str) -> None:
    probe = f"""
import sys, json
sys.argv = ["rlm", "--help"]
try:
    {code}
except SystemExit as end:
    assert not end.code
print("\\n" + json.dumps(sorted(name.split(".")[0] for name in sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not SLOW & set(loaded)
    assert "rlm_kernel" in loaded


MADE_IN = {
    "HostCalls": "session/assembly.py",
    "Loop": "session/assembly.py",
    "Cells": "session/assembly.py",
    "DockerKernel": "session/running.py",
    "RunningKernel": "session/running.py",
    "Broker": "session/running.py",
    "NotebookWriter": "session/traces.py",
    "ModelSet": "session/models.py",
}
"""The parts of a run, each with the one module that makes it: what is wired twice drifts apart."""


@pytest.mark.parametrize("part", MADE_IN)
def test_each_part_of_a_run_is_made_in_one_place(part: str) -> None:
    made = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == part
    }
    assert made == {MADE_IN[part]}


MOST_ARGUMENTS = 6
RESULTS = {"CaseResult", "Replayed", "Rerun", "Result", "SessionStatus"}
"""What is told of a run or a session: values, made in one place and by name."""
PUBLIC = {"RLM"}
"""Made by users, who name what they want of it."""


def test_no_constructor_of_the_session_takes_more_than_six_arguments() -> None:
    for path in modules("session"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and node.name not in RESULTS | PUBLIC:
                assert _arguments(node) <= MOST_ARGUMENTS, f"{path.name}: {node.name}"


def _arguments(made: ast.ClassDef) -> int:
    """Of a class's constructor; of a dataclass its fields. A pydantic model is read from a file."""
    if any(isinstance(base, ast.Name) and base.id == "BaseModel" for base in made.bases):
        return 0
    start = next(
        (node for node in made.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None
    )
    if start is not None:
        return len(start.args.args) + len(start.args.kwonlyargs) - 1
    return sum(isinstance(node, ast.AnnAssign) for node in made.body) if made.decorator_list else 0


def test_no_listener_of_the_session_forwards_unknown_names() -> None:
    for path in modules("session"):
        names = {node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)}
        assert "__getattr__" not in names, path.name

"""Tools of a file of Python that the user names: it is run here, on the host."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rlm_kernel.errors import UsageError
from rlm_kernel.tools.functions import tools_of, wrapped_in
from rlm_kernel.tools.tool import Tool, ToolSource


def tools_in(paths: Sequence[Path]) -> list[Tool | ToolSource]:
    """The tools of such files: those that `__all__` names, or else all public functions and tools that are
    made there.

    Raises UsageError.
    """
    return [found for path in paths for found in _tools_in(path)]


def _tools_in(path: Path) -> list[Tool | ToolSource]:
    place = path.expanduser()
    if not place.is_file() or place.suffix != ".py":
        raise UsageError(
            f"{path} is not a Python file.", hint="Give --tools a file such as tools.py with functions in it."
        )
    module = _imported(place.absolute())
    names = getattr(module, "__all__", None)
    if names is not None and not all(isinstance(name, str) and hasattr(module, name) for name in names):
        raise UsageError(
            f"__all__ of {path} names functions that do not exist.",
            hint="It must be a list of the names of functions in this file.",
        )
    found = [getattr(module, name) for name in names] if names is not None else _public(module)
    if not found:
        tools_of([value for value in vars(module).values() if wrapped_in(value)])  # which says what to do
        raise UsageError(
            f"{path} has no public function.",
            hint="Its tools are the functions in __all__, or else all functions whose names do not begin "
            "with an underscore.",
        )
    return tools_of(found)


def _public(module: ModuleType) -> list[Any]:
    return [
        value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            isinstance(value, Tool)
            or (inspect.isroutine(value) and getattr(value, "__module__", None) == module.__name__)
        )
    ]


def _imported(path: Path) -> ModuleType:
    """The module of a file, as `python FILE` would find what it imports. Raises UsageError."""
    name = f"rlm_tools_{path.stem}" if path.stem.isidentifier() else "rlm_tools_file"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit, too
        del sys.modules[name]
        raise UsageError(
            f"{path} cannot be imported: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}{_line(error, path)}",
            hint=f"rlm runs it on this machine. To test it: python {path}",
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _line(error: BaseException, path: Path) -> str:
    """Where in the file it happened."""
    if isinstance(error, SyntaxError):
        return f" (line {error.lineno})" if error.lineno and error.filename == str(path) else ""
    last, found = error.__traceback__, 0
    while last is not None:
        if last.tb_frame.f_code.co_filename == str(path):
            found = last.tb_lineno
        last = last.tb_next
    return f" (line {found})" if found else ""

"""What tables and arrays look like as text: wide enough to be read whole by who reads them here, a model.

With their own defaults, of 80 characters a line and 50 a column, values lose their ends and tables their
columns, and models take what they do not see for missing. pandas and numpy are imported when code wants them,
and not before: that takes a third of a second.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from rlm_runtime import parquetframes

WIDTH = 250
"""Characters of a line."""
COLUMN = 200
"""Characters of one value of a table."""
COLUMNS = 100
ROWS, SHOWN_ROWS = 60, 20
"""A table of more rows shows so many of them: the first and the last."""


def _pandas(pandas: Any) -> None:
    options = {
        "width": WIDTH,
        "max_colwidth": COLUMN,
        "max_columns": COLUMNS,
        "max_rows": ROWS,
        "min_rows": SHOWN_ROWS,
    }
    for name, value in options.items():
        pandas.set_option(f"display.{name}", value)
    parquetframes.install(pandas)


def _numpy(numpy: Any) -> None:
    numpy.set_printoptions(linewidth=WIDTH)


_SET: dict[str, Callable[[Any], None]] = {"pandas": _pandas, "numpy": _numpy}


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, and sets its options then."""

    def __init__(self, loader: Any, name: str) -> None:
        self._loader, self._name = loader, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        with contextlib.suppress(Exception):  # another version, or a module of the user's with this name
            _SET[self._name](module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _SET:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, fullname)
        return spec


def install() -> None:
    """Called once, when the kernel starts."""
    for name, set_options in _SET.items():
        if name in sys.modules:
            set_options(sys.modules[name])
    sys.meta_path.insert(0, _Finder())

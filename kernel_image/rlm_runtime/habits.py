"""What code that was written for a script or a terminal takes for granted, made to come to something in a
kernel.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import multiprocessing
import multiprocessing.context
import sys
import types
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, NoReturn

from IPython.core import interactiveshell, page

from rlm_runtime import nested

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def install(shell: InteractiveShell) -> None:
    """Called once, when the kernel starts."""
    nested.install(asyncio.get_event_loop())
    sys.set_int_max_str_digits(0)  # numbers of any length are shown and delivered
    _processes_fork()
    _exit_ends_the_cell(shell)
    sys.meta_path.insert(0, _BarsFinder())
    shell.set_hook("show_in_pager", page.as_hook(_show_page), 0)
    for name in ("pip", "conda", "mamba", "uv"):
        shell.register_magic_function(_no_packages, "line", name)


def _processes_fork() -> None:
    """A process that is spawned imports the main module to find the functions of the code, and cells are in
    none: its workers would die of that, one after the other, for ever. A forked process has them. So whatever
    start method code asks for, processes are forked.
    """
    forked = multiprocessing.get_context("fork")
    contexts: dict[str, Any] = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    contexts.update(dict.fromkeys(contexts, forked))
    multiprocessing.set_start_method("fork", force=True)


def _exit_ends_the_cell(shell: InteractiveShell) -> None:
    """exit() and quit() end the cell as sys.exit() does, and not the kernel."""

    def ask_exit() -> NoReturn:
        raise SystemExit

    warn = interactiveshell.warn

    def warn_of_others(message: Any, *args: Any, **kwargs: Any) -> None:
        if not str(message).startswith("To exit:"):
            warn(message, *args, **kwargs)

    shell.ask_exit = ask_exit
    interactiveshell.warn = warn_of_others


def _show_page(strg: Any, start: int = 0, screen_lines: int = 0, pager_cmd: Any = None) -> None:
    """What `name?` shows: there is no pager, so it is printed."""
    print(strg.get("text/plain", "") if isinstance(strg, dict) else strg)


def _no_packages(_line: str) -> None:
    print(
        "Nothing can be installed: there is no network. numpy, pandas, matplotlib, bs4, lxml and all of "
        "Python's own modules are there."
    )


class _Bars(types.ModuleType):
    """tqdm's modules for notebooks, which draw with widgets: here they are its bars of text."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        import tqdm

        return getattr(tqdm, {"tqdm_notebook": "tqdm", "tnrange": "trange"}.get(name, name))


class _BarsFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return (
            ModuleSpec(fullname, self)
            if fullname in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook")
            else None
        )

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Bars(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass

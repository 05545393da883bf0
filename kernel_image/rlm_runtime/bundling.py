"""Writes the bundles (`rlm_runtime.bundle`): `python -m rlm_runtime.bundling`, when the image is built.

A kernel is started here, as in a container, and what it has imported by its first cell is kept. So nothing
else is imported here before that.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

from rlm_runtime import bundle
from rlm_runtime.bundle import Unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rlm_runtime.bundle import Kept

_LATE = frozenset((
    "ssl", "asyncio.sslproto", "base64", "bz2", "code", "curses", "difflib", "ipaddress", "lzma", "ntpath",
    "shlex", "tarfile", "zipfile",
))  # fmt: skip
"""Beside all of `rlm_runtime`: modules that are unread unless the kernel needs them at its start. Others
import them whole (`import ssl`), and use them only in functions.
"""
_PACKAGES = frozenset(("curses",))
"""Those of them that may be packages: their code imports none of their modules. One that does would be run in
the midst of its module, where that is imported first (`import zipfile._path`), and find half of it.
"""


class _Unreading:
    """Finds those that may stay unread, as Python does, and has them unread."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _LATE and not name.startswith("rlm_runtime."):
            return None
        kept = _kept(name, PathFinder.find_spec(name, path, target), late=True)
        return None if kept is None or (kept[2] and name not in _PACKAGES) else bundle.spec_of(name, kept)


def _kept(name: str, spec: ModuleSpec | None, *, late: bool) -> Kept | None:
    if spec is None or type(spec.loader) is not SourceFileLoader or spec.origin is None:
        return None
    code: Any = spec.loader.get_code(name)
    is_package = spec.submodule_search_locations is not None
    return spec.origin, spec.cached, is_package, marshal.dumps(code) if late else code


def _collect(before: set[str]) -> dict[str, Kept]:
    """What has been imported since there were the modules `before`."""
    kept: dict[str, Kept] = {}
    for name, module in list(sys.modules.items()):
        spec = module.__spec__ if isinstance(module, ModuleType) else None
        if name in before or spec is None or spec.name != name:
            continue
        late = type(module) is Unread
        if late and not _can_be_read(module):
            continue
        if (found := _kept(name, spec, late=late)) is not None:
            kept[name] = found
    return kept


def _can_be_read(module: ModuleType) -> bool:
    """Whether an unread module is one that this Python can import: those who import it may ask for that."""
    try:
        vars(module)
    except ImportError:
        return False
    return True


class _Recorder:
    """`_sre` for `re._compiler`: remembers what patterns were made of."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.made: dict[int, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def compile(self, *of: Any) -> Any:
        pattern = self._real.compile(*of)
        self.made[id(pattern)] = of
        return pattern


def _patterns(recorder: _Recorder) -> list[tuple[Any, ...]]:
    """What is in the cache of `re`: its text and flags there, and what it was made of."""
    import re

    found = []
    for (_, text, flags), pattern in getattr(re, "_cache", {}).items():
        if (made := recorder.made.get(id(pattern))) is not None:
            text, made_flags, code, groups, names, indexed = made
            made = (text, int(made_flags), list(map(int, code)), groups, dict(names), tuple(indexed))
            found.append((text, int(flags), made))
    return found


def _work(shell: Any) -> None:
    """Do what every question asks of its kernel: load a text, tell of it, and run a cell that shows one."""
    import shutil
    import tempfile

    from rlm_runtime import api, files, wire

    path = f"{tempfile.mkdtemp()}/context.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.write("One line.\nAnother.\n")
    wire.call = lambda *_: {"inside": path, "path": path, "directory": False}
    files.load_files([path])
    api.describe()
    shell.transform_cell("print(len(context))")
    shell.display_formatter.format("text")
    shutil.rmtree(os.path.dirname(path))


def _write(place: str, kept: dict[str, Kept], patterns: list[tuple[Any, ...]]) -> None:
    with open(f"{place}.new", "wb") as file:
        marshal.dump((bundle.changed(), kept, patterns), file)
    os.replace(file.name, place)


def main() -> None:
    """Start a kernel that speaks to nobody, and write the bundles.

    Ends this process, with 1 if there is none.
    """
    before = set(sys.modules)
    import re._compiler  # type: ignore[import-not-found]

    recorder = re._compiler._sre = _Recorder(re._compiler._sre)
    from rlm_contract import RUN

    from rlm_runtime import engine, first, lean

    begun, of_first = set(sys.modules), (_collect(before), _patterns(recorder))
    engine.remember()
    first.write({"key": "-", "session": {}})  # type: ignore[typeddict-item]
    os.unlink(f"{RUN}/session.json")  # without it no host is asked
    said = os.dup(2)
    with lean.imports(debugger=False):
        sys.meta_path.insert(0, _Unreading())
        shell = first.kernel().shell
        _work(shell)
        of_kernel = _collect(begun), _patterns(recorder)
    if "FINAL" not in shell.user_ns:
        os.write(said, b"The kernel does not start as in a container.\n")
        os._exit(1)
    _write(bundle.FIRST, *of_first)
    _write(bundle.KERNEL, *of_kernel)
    os._exit(0)


if __name__ == "__main__":
    main()

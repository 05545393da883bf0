"""The code of the modules that a kernel imports before its first cell, in two files of the image: those of
the first process, which the kernel has from it, and all others.

Hundreds of files that are looked for, opened and read one by one take twice as long. So do the regular
expressions that they compile, which are kept as well. The files are written when the image is built
(`bundling`), by the Python that reads them. Without them, as outside of an image, modules are imported as
ever. This module is read before them: it imports what `python -m` has imported already.

Some modules are imported by others long before anything of them is used, if it ever is. These stay unread:
their code runs once somebody asks for something of theirs.

Code in a cell sees none of this: modules and their loaders are as if Python had found them itself.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from _thread import RLock
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Kept = tuple[str, str | None, bool, Any]
    """Of a module: where its source and its bytecode are, whether it is a package, and its code.

    That of one which stays unread is bytes of `marshal`.
    """

FIRST, KERNEL = "/opt/rlm/first.bundle", "/opt/rlm/kernel.bundle"
_KNOWN = frozenset(
    ("__class__", "__name__", "__spec__", "__loader__", "__package__", "__file__", "__cached__", "__path__")
)
"""Attributes that a module has before its code has run."""


class Finder:
    """Finds the modules that are kept. Owned by the main thread, before the first cell."""

    def __init__(self, kept: dict[str, Kept]) -> None:
        self._kept = kept

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Called by `import`; a module is found once."""
        found = self._kept.pop(name, None)
        return None if found is None else spec_of(name, found)


class _Loader:
    """Runs code that has been read, and leaves Python's own loader in its place."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def create_module(self, _spec: ModuleSpec) -> None:
        """An ordinary module is made."""

    def exec_module(self, module: ModuleType) -> None:
        spec, (source, _, _, code) = module.__spec__, self._kept
        assert spec is not None
        spec.loader = module.__loader__ = SourceFileLoader(spec.name, source)
        if isinstance(code, bytes):
            _unread[spec.name] = _Code(code)
            module.__class__ = Unread
        else:
            exec(code, module.__dict__)


def spec_of(name: str, kept: Kept) -> ModuleSpec:
    """What `import` makes the module of."""
    source, cached, is_package, _ = kept
    spec = ModuleSpec(name, _Loader(kept), origin=source, is_package=is_package)  # type: ignore[arg-type]
    spec.has_location = True
    spec.cached = cached
    if spec.submodule_search_locations is not None:
        spec.submodule_search_locations.append(source.rpartition("/")[0])
    return spec


class _Code:
    """The code of a module that is unread."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.lock = RLock()
        self.runs = False


_unread: dict[str, _Code] = {}


class Unread(ModuleType):
    """A module until something of it is asked for: then its code runs, and it is an ordinary one."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _KNOWN:
            _read(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _read(self)  # also for its name or class, without which nobody would read it later
        ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _read(self)
        ModuleType.__delattr__(self, name)


def _read(module: ModuleType) -> None:
    """Run its code, whichever thread asks. Others wait; what that code runs sees as much as there is."""
    name = module.__name__
    if (unread := _unread.get(name)) is None:
        return
    with unread.lock:
        if unread.runs:
            return
        unread.runs = True
        try:
            exec(marshal.loads(unread.code), ModuleType.__getattribute__(module, "__dict__"))
        except BaseException:  # an interrupt, say: whoever asks next begins anew
            unread.runs = False
            raise
        module.__class__ = ModuleType
        del _unread[name]


def changed() -> list[str | int]:
    """Which build of Python this is, and when something was put into the folders of the image's packages
    last, in seconds of the clock.
    """
    return [sys.version] + [
        int(os.stat(folder).st_mtime) for folder in sys.path if folder.startswith("/opt/rlm/")
    ]


@contextlib.contextmanager
def installed(place: str) -> Iterator[None]:
    """Within this, modules are found in one of the bundles, and its regular expressions are compiled.

    Nothing is different where there is no bundle, or another image was made of this one, with another Python
    or other packages.
    """
    if (read := _read_from(place)) is None:
        yield
        return
    kept, patterns = read
    finder = Finder(kept)
    sys.meta_path.insert(0, finder)
    import _sre  # type: ignore[import-not-found]
    import re

    # As if `re.compile` had made them: for the modules it is a look into its cache.
    for text, flags, made in patterns:
        re._cache[type(text), text, flags] = _sre.compile(*made)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


def _read_from(place: str) -> tuple[dict[str, Kept], list[tuple[Any, ...]]] | None:
    """Its modules, and its regular expressions: text and flags of each, and what it is made of."""
    import mmap  # which saves a copy

    try:
        with open(place, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as all_of_it:
            then, kept, patterns = marshal.loads(all_of_it)
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return (kept, patterns) if then == changed() else None

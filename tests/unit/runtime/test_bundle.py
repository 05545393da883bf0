"""Modules out of the bundle are what Python would have found itself, and unread ones are read once, whole."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import marshal
import pickle
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rlm_runtime import bundle, bundling
from rlm_runtime.bundle import Finder, Unread

SOURCE = '''"""What it is for."""
import sys
runs = getattr(sys, "bundled_runs", 0) + 1
sys.bundled_runs = runs
myself = sys.modules[__name__]
value = 42
class Thing: pass
def double(x): return 2 * x
'''


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package on Python's path, of which nothing is imported yet."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    (folder / "__init__.py").write_text("name = __name__\n")
    (folder / "inner.py").write_text(SOURCE)
    (folder / "user.py").write_text(
        "from bundled import inner\nimport bundled.inner\ndef f(): return inner.value\n"
    )
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "bundled"]:
        del sys.modules[name]
    if hasattr(sys, "bundled_runs"):
        del sys.bundled_runs


@pytest.fixture
def found(package: Path) -> Iterator[Any]:
    """Has the package's modules found in a bundle: those that are named stay unread."""
    finders: list[Finder] = []

    def find(*unread: str) -> Finder:
        kept: dict[str, tuple[str, str | None, bool, Any]] = {}
        for name, file in (("bundled", "__init__"), ("bundled.inner", "inner"), ("bundled.user", "user")):
            path = str(package / f"{file}.py")
            code: Any = SourceFileLoader(name, path).get_code(name)
            cached = importlib.util.cache_from_source(path)
            kept[name] = (path, cached, file == "__init__", marshal.dumps(code) if name in unread else code)
        finders.append(Finder(kept))
        sys.meta_path.insert(0, finders[0])
        return finders[0]

    yield find
    for finder in finders:
        sys.meta_path.remove(finder)


def as_told(module: ModuleType) -> dict[str, Any]:
    names = ("__name__", "__package__", "__file__", "__cached__", "__doc__")
    told = {name: getattr(module, name, None) for name in names} | {
        "path": list(getattr(module, "__path__", []))
    }
    spec: Any = module.__spec__
    told |= {"type": type(module), "loaders": (type(module.__loader__), type(spec.loader))}
    return told | {"spec": (spec.name, spec.origin, spec.cached, spec.has_location, spec.parent)}


@pytest.mark.parametrize("unread", [(), ("bundled.inner",)])
def test_a_module_of_the_bundle_is_as_python_finds_it_itself(found: Any, unread: tuple[str, ...]) -> None:
    names = ("bundled", "bundled.inner", "bundled.user")
    itself = [as_told(importlib.import_module(name)) for name in names]
    for name in names:
        del sys.modules[name]
    found(*unread)
    modules = [importlib.import_module(name) for name in names]
    assert modules[1].double(21) == 42
    assert [as_told(module) for module in modules] == itself
    assert inspect.getsource(modules[1].double) == "def double(x): return 2 * x\n"
    assert pickle.loads(pickle.dumps(modules[1].Thing())).__class__ is modules[1].Thing
    assert importlib.reload(modules[1]) is modules[1]


def test_an_unread_module_runs_once_something_of_it_is_asked_for(found: Any) -> None:
    found("bundled.inner")
    user = importlib.import_module("bundled.user")
    inner = sys.modules["bundled.inner"]
    assert type(inner) is Unread
    assert inspect.getmodule(sys._getframe()) is sys.modules[__name__]  # looks at all modules there are
    assert inner.__name__ == "bundled.inner"
    assert not hasattr(sys, "bundled_runs")
    assert user.f() == 42
    assert type(inner) is ModuleType
    assert inner.myself is inner
    assert inner.runs == 1
    assert inner.runs == 1
    assert "double" in dir(inner)


@pytest.mark.parametrize(
    "look", [vars, dir, lambda module: module.double, lambda module: hasattr(module, "x")]
)
def test_whatever_looks_into_an_unread_module_finds_all_of_it(found: Any, look: Any) -> None:
    found("bundled.inner")
    inner = importlib.import_module("bundled.inner")
    look(inner)
    assert type(inner) is ModuleType
    assert inner.__dict__["value"] == 42


def test_what_is_put_into_an_unread_module_stays(found: Any) -> None:
    found("bundled.inner")
    inner: Any = importlib.import_module("bundled.inner")
    inner.value = 7
    assert inner.value == 7
    assert inner.runs == 1
    del inner.value
    assert not hasattr(inner, "value")


class Own(ModuleType):
    """A module of a class of one's own, as programs make for attributes that are computed."""


@pytest.mark.parametrize(("name", "value"), [("__class__", Own), ("__name__", "other"), ("__spec__", None)])
def test_an_unread_module_that_is_given_another_class_or_name_is_whole(
    found: Any, name: str, value: Any
) -> None:
    found("bundled.inner")
    inner: Any = importlib.import_module("bundled.inner")
    setattr(inner, name, value)
    assert (getattr(inner, name), inner.value) == (value, 42)


def test_threads_that_ask_at_once_all_see_the_whole_module(found: Any, package: Path) -> None:
    (package / "inner.py").write_text(f"import threading\ngate = threading.Event()\ngate.wait(0.2)\n{SOURCE}")
    found("bundled.inner")
    inner: Any = importlib.import_module("bundled.inner")
    barrier = threading.Barrier(8)

    def ask(_number: int) -> int:
        barrier.wait()
        return int(inner.double(inner.value))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [84] * 8
    assert inner.runs == 1


def test_an_interrupt_while_it_is_read_leaves_it_to_the_next_who_asks(found: Any, package: Path) -> None:
    (package / "inner.py").write_text(
        f"import sys\nif not hasattr(sys, 'bundled_runs'):\n    sys.bundled_runs = 0\n    raise KeyboardInterrupt\n{SOURCE}"
    )
    found("bundled.inner")
    inner: Any = importlib.import_module("bundled.inner")
    with pytest.raises(KeyboardInterrupt):
        _ = inner.value
    assert inner.value == 42


@pytest.mark.parametrize(
    ("text", "flags"),
    [(r"(?P<a>x)|[^\W\d]+(?i:b)", 0), (rb"\x00+(y)", 0), ("é+", re.I | re.M), ("[a-zß]{2,9}?$", re.A)],
)
def test_a_pattern_that_is_kept_is_the_one_that_re_compiles(text: Any, flags: int) -> None:
    compiler: Any = importlib.import_module("re._compiler")
    real, recorder = compiler._sre, bundling._Recorder(compiler._sre)
    re.purge()
    compiler._sre = recorder
    try:
        made = re.compile(text, flags)
    finally:
        compiler._sre = real
    (kept,) = [one for one in bundling._patterns(recorder) if one[0] == text]
    _, key, of = marshal.loads(marshal.dumps(kept))
    again = real.compile(*of)
    assert (again, again.groupindex, again.flags, key) == (made, made.groupindex, made.flags, int(flags))


def test_a_bundle_that_is_missing_damaged_or_of_another_python_or_other_packages_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "kernel.bundle"
    before = list(sys.meta_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", f"{sys.version} of another day")
        python = bundle.changed()
    for content in (None, b"", b"?", *(marshal.dumps((other, {}, [])) for other in ([1], python))):
        if content is not None:
            place.write_bytes(content)
        with bundle.installed(str(place)):
            assert sys.meta_path == before


def test_a_bundle_is_there_while_it_is_installed_and_never_after(tmp_path: Path) -> None:
    place = tmp_path / "kernel.bundle"
    place.write_bytes(marshal.dumps((bundle.changed(), {}, [])))
    before = list(sys.meta_path)
    with contextlib.suppress(ZeroDivisionError), bundle.installed(str(place)):
        assert [type(one) for one in sys.meta_path if one not in before] == [Finder]
        raise ZeroDivisionError
    assert sys.meta_path == before


@pytest.mark.parametrize(("source", "can"), [(SOURCE, True), ("import _no_such_part_of_python\n", False)])
def test_an_unread_module_that_this_python_cannot_import_is_not_kept(
    found: Any, package: Path, source: str, can: bool
) -> None:
    (package / "inner.py").write_text(source)
    found("bundled.inner")
    assert bundling._can_be_read(importlib.import_module("bundled.inner")) is can
    sys.modules.pop("bundled.inner")

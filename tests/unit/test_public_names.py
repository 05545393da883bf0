"""The public names are exactly `__all__`."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import rlm_kernel
from rlm_kernel import RLM, errors


def test_all_is_sorted_and_everything_in_it_can_be_imported() -> None:
    names = rlm_kernel.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(rlm_kernel, name) is not None


def test_nothing_else_of_ours_is_importable() -> None:
    ours = {
        name
        for name, value in vars(rlm_kernel).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", "").startswith("rlm_kernel")
    }
    ours -= {"load_ipython_extension", "unload_ipython_extension"}  # IPython calls them by these names
    assert ours | set(rlm_kernel._LATE) | {"__version__"} == set(rlm_kernel.__all__)


def test_every_error_of_the_tree_is_public() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.RLMError)
    }
    assert tree <= set(rlm_kernel.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        rlm_kernel.nothing  # noqa: B018


def test_a_star_import_brings_all_names() -> None:
    code = (
        "from rlm_kernel import *; import rlm_kernel; print(all(name in globals() for name in "
        "rlm_kernel.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def public_methods() -> list[tuple[str, Any]]:
    found = []
    for name in rlm_kernel.__all__:
        value = getattr(rlm_kernel, name)
        if inspect.isclass(value):
            found += [(f"{name}.{key}", one) for key, one in vars(value).items() if not key.startswith("_")]
    return [(name, one) for name, one in found if inspect.isfunction(one)]


def test_every_public_name_is_documented() -> None:
    names = [name for name in rlm_kernel.__all__ if name != "__version__"]
    assert [name for name in names if not inspect.getdoc(getattr(rlm_kernel, name))] == []
    methods = [name for name, one in public_methods() if not one.__doc__]
    assert methods == [name for name in methods if name.startswith("ScriptedModels.")]  # as the protocol says


def test_the_arguments_of_asking_are_documented() -> None:
    for function in (RLM.aask, RLM.__init__):
        told = inspect.getdoc(function) or ""
        told = told if "Args:" in told else inspect.getdoc(RLM) or ""
        for name in list(inspect.signature(function).parameters)[1:]:
            assert re.search(rf"^ +(\w+, )*{name}(, \w+)*: ", told, re.MULTILINE), (function.__name__, name)

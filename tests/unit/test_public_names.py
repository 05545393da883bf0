"""The public names are exactly `__all__`."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import rlm_kernel
from rlm_kernel import errors


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

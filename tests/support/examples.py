"""The examples in notebooks/, and the scripts that make their inputs."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
TRACES = [path for path in sorted(FOLDER.glob("*.ipynb")) if path.stem != "tutorial"]
"""All its notebooks that are traces."""
EXAMPLES = ("needle", "classify", "repository", "children", "fork", "apply")


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


INPUTS = script("example_inputs")


def with_inputs(folder: Path) -> Path:
    """A copy of notebooks/ with all inputs beside the traces."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("payments.log"))
    INPUTS.make(folder)
    return folder

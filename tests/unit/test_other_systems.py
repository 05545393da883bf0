"""The host's side on macOS and Windows, as far as they can be pretended here
(`tests.support.other_system`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    "chat",
    "containers",
    "grants",
    "inputs",
    "journal",
    "late_grants",
    "resume",
    "rlm",
    "state",
    "sweep",
    "trace_writer",
    "tracefiles",
)
"""Of tests/unit: files, grants, journals, traces and their files, kept sessions, a chat without a terminal,
resuming with a kernel that is a stand-in.
"""
IMPORT_ALL = """
import importlib, pkgutil, tests.support.other_system, rlm_kernel
for module in pkgutil.walk_packages(rlm_kernel.__path__, "rlm_kernel."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
COMMAND = "import tests.support.other_system; from rlm_kernel.cli import main; main()"


def python(system: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "OTHER_SYSTEM": system,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernel_image'}",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_the_hosts_side_works_without_what_linux_has_of_its_own(system: str) -> None:
    tests = [str(path) for name in FILES for path in (ROOT / "tests" / "unit").rglob(f"test_{name}.py")]
    done = python(
        system, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.support.other_system", *tests
    )
    assert done.returncode == 0, done.stdout[-6_000:]


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_every_module_can_be_imported(system: str) -> None:
    done = python(system, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_commands_work(system: str, tmp_path: Path) -> None:
    for arguments in (["--help"], ["ask", "--help"], ["config", "show"]):
        done = python(system, "-c", COMMAND, *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        assert done.stdout
    missing = python(system, "-c", COMMAND, "ask", "What is in it?", "-f", str(tmp_path / "nothing.txt"))
    assert missing.returncode == 2
    assert "nothing.txt cannot be read" in missing.stderr
    assert "Traceback" not in missing.stderr

"""A folder seen through FUSE, as Docker Desktop shares folders: its files are there, its unix sockets cannot
be connected to.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.own_engine import PATH


def why_not() -> str:
    """Why there can be none here; "" if there can be one."""
    missing = [name for name in ("bindfs", "fusermount3") if shutil.which(name, path=PATH) is None]
    return (
        f"needs {', '.join(missing)} (scripts/engines.sh)"
        if missing
        else ""
        if Path("/dev/fuse").exists()
        else "needs /dev/fuse"
    )


@contextmanager
def seen_through_fuse(folder: Path, at: Path, *, others: bool = True) -> Iterator[Path]:
    """A folder, and another, empty one, where it is seen; by other users too, unless `others` is False.

    Needs root for those.
    """
    only = [] if others else ["--no-allow-other"]
    ran = subprocess.run(["bindfs", *only, folder, at], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    try:
        yield at
    finally:
        subprocess.run(["fusermount3", "-u", "-z", at], check=True)

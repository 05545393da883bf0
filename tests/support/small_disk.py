"""A small file system of a test's own, which can be filled and emptied. Needs the right to mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_BLOCK = 4096


class SmallDisk:
    """It is at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, spare: int = 0) -> None:
        """Leave no more than so many bytes."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(_BLOCK)):
                pass
        size = self._ballast.stat().st_size
        with self._ballast.open("r+b") as file:
            file.truncate(max(0, size - spare))

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(path: Path, size: int, **options: int) -> Iterator[SmallDisk]:
    """`size` in bytes; `options` as mount has them for tmpfs, such as nr_inodes.

    Skips the test where nothing can be mounted.
    """
    wanted = ",".join([f"size={size}", "mode=700", *(f"{name}={value}" for name, value in options.items())])
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", wanted, "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted: {mounted.stderr}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)

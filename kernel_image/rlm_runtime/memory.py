"""How much memory this container has, and which part of it texts may take."""

from __future__ import annotations

import functools
import os
from pathlib import Path

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),  # cgroup v2
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # cgroup v1
)


@functools.cache
def total() -> int:
    """Bytes that this container may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _LIMITS:
        try:
            return min(machine, int(limit.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return machine


def one_text() -> int:
    """Bytes of a file from which on its text stays on disk. A str can take four times as much."""
    return total() // 8


def all_texts() -> int:
    """Bytes of all files together whose texts are in memory."""
    return total() // 4

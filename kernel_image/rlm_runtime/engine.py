"""The stderr that the kernel is started with, which the container's first process reads.

It is for the last words of a kernel that does not start. Once it is up, no descriptor of this process leads
there any more, those that ipykernel keeps included: what code writes would keep the first process from what
the kernel says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_theirs: set[tuple[int, int]] = set()
"""What the first process reads, by device and inode."""


def remember() -> None:
    """To be called before anything takes the place of stderr."""
    status = os.fstat(2)
    _theirs.add((status.st_dev, status.st_ino))


def leave_alone() -> None:
    """Have each descriptor that leads there lead nowhere.

    To be called before any code that is not trusted runs.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for number in _leading_there():
        os.dup2(nowhere, number, inheritable=os.get_inheritable(number))
    os.close(nowhere)


def _leading_there() -> list[int]:
    return [number for number in _descriptors() if _leads_there(number)]


def _descriptors() -> Iterator[int]:
    return map(int, os.listdir("/proc/self/fd"))


def _leads_there(number: int) -> bool:
    try:
        status = os.fstat(number)
    except OSError:  # it was that of the list
        return False
    return (status.st_dev, status.st_ino) in _theirs

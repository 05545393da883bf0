"""The lease of a session: the lock by which its owner shows that it lives.

It is an open file description's lock, for writing: it falls with the owner's process, however that ends, and code in the container, which
can open the file for reading alone, can never hold one. The container looks at it in `rlm_runtime.__main__`.
"""

from __future__ import annotations

import fcntl
import os
import struct

_LOCK = struct.Struct("hhqqi4x")
"""C's struct flock: type, whence, start, length, pid."""


def take(lease: int) -> bool:
    """Hold the lease until `lease`, a descriptor opened for writing, is closed. False if somebody has it; code in the container can bring
    that about, too, with a lock for reading. Raises OSError.
    """
    try:
        # Earlier versions know this lock alone: their containers end without it, and they sweep folders that nobody holds by it.
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.fcntl(lease, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def held(lease: int) -> bool:
    """Whether an owner has the lease. Asking takes no lock. Raises OSError."""
    asked = _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    return bool(_LOCK.unpack(fcntl.fcntl(lease, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)

"""Start the kernel under its lease.

Two processes: this one, which holds no user code, and the kernel as its child. The container's life hangs on this one:

- The host's owner process holds a lock on the lease file as long as it lives (an open file description's, for writing: code in here can
  open that file for reading alone, and so never hold one). This process looks several times a second whether somebody does. If nobody
  does, the owner is gone, even by SIGKILL, and the container ends: at once, or after the idle time of a session that is kept, if no other
  owner has come by then. None of this needs the kernel's GIL.
- When the kernel dies, its exit status becomes the container's, with out-of-memory told apart by `EXIT_OOM`.
- A SIGINT that the host sends to the container is passed on to the kernel and what it has started, as Ctrl-C in a terminal is. A request
  over the kernel's sockets would need its GIL, which compiled code may hold; the signal itself needs none, so that a regular expression
  without end is interrupted too.

Code in the kernel has the same user id as this process, so this is the first process of its namespace, which nobody inside can stop or
kill; no memory of it can be read or written; and it has one thread, which asks nothing of the system that a limit could refuse. Whatever
goes wrong in it ends the container.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import struct
import time
from pathlib import Path
from typing import IO

HOST = Path("/rlm/host")
LEASE = HOST / "lease"
EXIT_OOM = 97
EXIT_LEASE = 98
LOOK_SECONDS = 0.25
_WAKES = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
_LOCK = struct.Struct("hhqqi4x")
"""C's struct flock: type, whence, start, length, pid."""
_LEAST_NICE = 19
_PR_SET_DUMPABLE = 4
_OOM_COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),  # cgroup v2
    Path("/sys/fs/cgroup/memory/memory.oom_control"),  # cgroup v1
)


def _oom_kills() -> int:
    """How many processes of this container the kernel has killed for memory so far; 0 where that cannot be read."""
    for counter in _OOM_COUNTERS:
        try:
            fields = dict(line.split() for line in counter.read_text().splitlines())
            return int(fields.get("oom_kill", 0))
        except (OSError, ValueError):
            continue
    return 0


def _owned(lease: IO[bytes]) -> bool:
    """Whether somebody holds the lease. Asking takes no lock, so that it is in nobody's way."""
    asked = _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    return bool(_LOCK.unpack(fcntl.fcntl(lease, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)


def _watch(kernel: int, lease: IO[bytes], idle: float) -> int:
    """The status that the container is to end with, as soon as it is."""
    owned = time.monotonic()
    while True:
        # All of it in each turn: a flood of signals, or of orphans that end, makes for more turns and hides nothing.
        now = time.monotonic()
        if _owned(lease):
            owned = now
        elif now - owned >= idle:
            return EXIT_LEASE
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == kernel:
            return _status(os.waitstatus_to_exitcode(status))
        woken = None if ended else signal.sigtimedwait(_WAKES, LOOK_SECONDS)
        if woken and woken.si_signo == signal.SIGTERM:
            return 128 + signal.SIGTERM
        if woken and woken.si_signo == signal.SIGINT:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(kernel, signal.SIGINT)


def _status(code: int) -> int:
    if code == -signal.SIGKILL and _oom_kills():
        return EXIT_OOM
    return 128 - code if code < 0 else code


def _dumpable(yes: bool) -> None:
    """Whether processes of the same user may look into this one and change it (ptrace, /proc/PID/mem and what else asks for that)."""
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(yes), 0, 0, 0):
        raise OSError("prctl(PR_SET_DUMPABLE) failed")


def _run_kernel() -> None:
    from ipykernel.kernelapp import IPKernelApp
    from traitlets.config import Config

    from rlm_runtime import engine

    engine.remember()
    config = Config()
    config.InteractiveShellApp.extensions = ["rlm_runtime"]
    config.HistoryManager.enabled = False  # the home directory is read-only
    config.InteractiveShell.colors = "nocolor"  # tracebacks are read by models
    config.IPKernelApp.pylab_import_all = False
    IPKernelApp.launch_instance(config=config)


def main() -> None:
    idle = float(json.loads((HOST / "session.json").read_text()).get("idle", 0))
    lease = LEASE.open("rb")
    _dumpable(False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAKES)
    kernel = os.fork()
    if kernel == 0:
        os.setpgid(0, 0)  # with all that it starts
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        lease.close()
        _dumpable(True)
        # All that runs in here has the least share of the CPU, so that nothing can leave the watching process without.
        # Where the profile of system calls refuses it, nobody can take that process's share either.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _LEAST_NICE)
        _run_kernel()
        return
    status = EXIT_LEASE
    try:
        status = _watch(kernel, lease, idle)
    finally:
        os._exit(status)  # without a word: with an engine that is gone, nobody would read it, and the pipe may be full


if __name__ == "__main__":
    main()

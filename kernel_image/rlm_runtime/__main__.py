"""Start the kernel under its lease.

Two processes: this one, which holds no user code, and the kernel as its child. The container's life hangs on this one:

- The host's owner process holds an exclusive flock on the lease file as long as it lives. A thread here waits for that lock; getting it
  means that the owner is gone, even by SIGKILL, and ends the container: at once, or after the idle time of a session that is kept, if no
  other owner has come by then. It does not need the kernel's GIL.
- When the kernel dies, its exit status becomes the container's, with out-of-memory told apart by `EXIT_OOM`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

HOST = Path("/rlm/host")
LEASE = HOST / "lease"
EXIT_OOM = 97
EXIT_LEASE = 98
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


def _end_with_owner() -> None:
    idle = float(json.loads((HOST / "session.json").read_text()).get("idle", 0))
    with LEASE.open("rb") as lease:
        while True:
            fcntl.flock(lease, fcntl.LOCK_SH)
            fcntl.flock(lease, fcntl.LOCK_UN)
            if not _owned_within(lease.fileno(), idle):
                os._exit(EXIT_LEASE)


def _owned_within(lease: int, seconds: float) -> bool:
    """Whether an owner took the lease again. Looked at once a second: the lock tells of an owner's end, but not of one's coming."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        try:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(lease, fcntl.LOCK_UN)
    return False


def _run_kernel() -> None:
    from ipykernel.kernelapp import IPKernelApp
    from traitlets.config import Config

    config = Config()
    config.InteractiveShellApp.extensions = ["rlm_runtime"]
    config.HistoryManager.enabled = False  # the home directory is read-only
    config.InteractiveShell.colors = "nocolor"  # tracebacks are read by models
    config.IPKernelApp.pylab_import_all = False
    IPKernelApp.launch_instance(config=config)


def main() -> None:
    child = os.fork()
    if child == 0:
        _run_kernel()
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    if LEASE.exists():
        threading.Thread(target=_end_with_owner, daemon=True).start()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and _oom_kills():
        sys.exit(EXIT_OOM)
    sys.exit(128 - code if code < 0 else code)


if __name__ == "__main__":
    main()

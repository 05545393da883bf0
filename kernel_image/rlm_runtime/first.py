"""Start the kernel, and carry everything between it and the host.

Two processes: this one, which holds no user code, and the kernel as its child. The container's life hangs on
this one:

- Its stdin and stdout are the stream to the host (`frames`), the only tie there is. When the owner ends, even
  by SIGKILL, the engine closes stdin, and the container ends. A session that is kept has a stdin that stays
  open: it ends once no owner was heard for its idle time. None of this needs the kernel's GIL.
- When the kernel dies, the host is told how, and its exit status becomes the container's, with out-of-memory
  told apart by `EXIT_OOM`.
- An interrupt from the host becomes a SIGINT for the kernel and what it has started, as Ctrl-C in a terminal
  is. A request over the kernel's sockets would need its GIL, which compiled code may hold; the signal itself
  needs none, so that a regular expression without end is interrupted too.

Code in the kernel has the same user id as this process, so this is the first process of its namespace, to
which SIGSTOP and SIGKILL from inside do nothing; no memory of it can be read or written, nor its descriptors
had; and it has one thread, which asks nothing of the system that a limit could refuse. Whatever goes wrong in
it ends the container, and so does a SIGTERM.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from typing import Any

from rlm_contract import CALLS, EXIT_LEASE, EXIT_OOM, RUN, SOCKETS, Hello

from rlm_runtime import engine, lean
from rlm_runtime.bridge import Bridge

FIRST_SECONDS = 60.0
"""In which the first owner has to be heard."""
_LEAST_NICE = 19
_PR_SET_DUMPABLE = 4
_OOM_COUNTERS = (
    "/sys/fs/cgroup/memory.events",  # cgroup v2
    "/sys/fs/cgroup/memory/memory.oom_control",  # cgroup v1
)


def _oom_kills() -> int:
    """How many processes of this container the kernel has killed for memory so far; 0 where that cannot be
    read.
    """
    for counter in _OOM_COUNTERS:
        try:
            with open(counter, encoding="ascii") as lines:
                fields = dict(line.split() for line in lines)
            return int(fields.get("oom_kill", 0))
        except (OSError, ValueError):
            continue
    return 0


def _status(code: int) -> int:
    if code == -signal.SIGKILL and _oom_kills():
        return EXIT_OOM
    return 128 - code if code < 0 else code


def _dumpable(yes: bool) -> None:
    """Whether processes of the same user may look into this one and change it (ptrace, /proc/PID/mem and what
    else asks for that).
    """
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(yes), 0, 0, 0):
        raise OSError("prctl(PR_SET_DUMPABLE) failed")


def _run_kernel(hello: Hello) -> None:
    engine.remember()
    with lean.imports(debugger=hello.get("debugger", False)):
        app = kernel()
    app.start()


def kernel() -> Any:
    """A kernel that is ready to start. Loads all that is there before the first cell."""
    from ipykernel.kernelapp import IPKernelApp
    from traitlets.config import Config

    config = Config()
    config.InteractiveShellApp.extensions = ["rlm_runtime"]
    config.HistoryManager.enabled = False  # the home directory is read-only
    config.InteractiveShell.colors = "nocolor"  # tracebacks are read by models
    config.IPKernelApp.pylab_import_all = False
    config.IPythonKernel._execute_sleep = (
        0.0  # outputs are in their order without it: what says that a cell has ended comes last
    )
    config.IPKernelApp.connection_file = f"{RUN}/connection.json"
    app: Any = IPKernelApp.instance(config=config)  # its methods have no types
    app.parse_command_line = lambda _argv: None  # nothing is there, and a parser takes long to make
    app.initialize([])
    return app


def write(hello: Hello) -> None:
    """What the kernel is told, by files that code in it may read."""
    ports = {f"{name}_port": number for name, number in SOCKETS.items()}
    connection = {
        "transport": "ipc",
        "ip": f"{RUN}/k",
        "signature_scheme": "hmac-sha256",
        "key": hello["key"],
        **ports,
    }
    for name, told in (("session.json", hello["session"]), ("connection.json", connection)):
        with open(f"{RUN}/{name}", "w", encoding="ascii", opener=_for_us_alone) as file:
            json.dump(told, file)


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _become_kernel(errors: int) -> None:
    """Leave nothing in this process, a child of the first, that leads to the host."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)  # with all that it starts
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, instead in enumerate((nothing, nothing, errors)):
        os.dup2(instead, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _dumpable(True)
    # All that runs in here has the least share of the CPU, so that nothing can leave the first process
    # without. Where the profile of system calls refuses it, nobody can take that process's share either.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _LEAST_NICE)


class _First:
    """The first process, from its start on."""

    def __init__(self) -> None:
        self._told_to_end = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(CALLS)
        listener.listen(128)
        os.set_blocking(2, False)  # what is said last must not keep the container
        said, self.errors = os.pipe()
        self._bridge = Bridge(0, 1, listener, RUN, said)
        self._bridge.wake_by(woken)

    def _end(self, *_: object) -> None:
        self._told_to_end = True

    def wait_for_owner(self) -> Hello | None:
        """Wait for the first one, and write down what the kernel is told by them. None if none comes."""
        bridge = self._bridge
        while bridge.hello is None:
            bridge.turn()
            if bridge.over or self._told_to_end or time.monotonic() - bridge.heard > FIRST_SECONDS:
                return None
        write(bridge.hello)
        return bridge.hello

    def serve(self, kernel: int) -> int:
        """The status that the container is to end with, as soon as it is."""
        os.close(self.errors)
        bridge = self._bridge
        bridge.interrupt = lambda: _interrupt(kernel)
        bridge.listen()
        while True:
            # All of it in each turn: a flood of signals, or of orphans that end, makes for more turns and
            # hides nothing.
            idle = bridge.hello["idle"] if bridge.hello else 0.0
            if bridge.over or (idle and time.monotonic() - bridge.heard > idle):
                return EXIT_LEASE
            if self._told_to_end:
                bridge.end(128 + signal.SIGTERM)
                return 128 + signal.SIGTERM
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(-1, os.WNOHANG)
                if ended == kernel:
                    how = _status(os.waitstatus_to_exitcode(status))
                    bridge.finish()
                    bridge.end(how)
                    return how
                if ended:
                    continue
            bridge.turn()


def _interrupt(kernel: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(kernel, signal.SIGINT)


def main() -> None:
    """The first process, from its owner's first word to its end."""
    _dumpable(False)
    first, status = _First(), EXIT_LEASE
    if hello := first.wait_for_owner():
        kernel = os.fork()
        if not kernel:
            _become_kernel(first.errors)
            _run_kernel(hello)
            return
        try:
            status = first.serve(kernel)
        except Exception:
            with contextlib.suppress(BlockingIOError):
                sys.excepthook(*sys.exc_info())
    os._exit(status)

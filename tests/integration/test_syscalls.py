"""What the tight seccomp profile refuses to code in a container, by trying it; what ordinary code needs still
works.
"""

from __future__ import annotations

import ast
from typing import Any

import pytest

# Numbers of x86-64 and arm64, which agree from 424 on.
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "userfaultfd": 323, "perf_event_open": 298,
        "bpf": 321, "keyctl": 250, "add_key": 248, "request_key": 249, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308,
        "pivot_root": 155, "chroot": 161, "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "reboot": 169,
        "open_by_handle_at": 304, "name_to_handle_at": 303, "acct": 163, "swapon": 167, "settimeofday": 164, "clock_settime": 227,
        "adjtimex": 159, "syslog": 103, "vmsplice": 278, "splice": 275, "tee": 276, "shmget": 29, "semget": 64, "msgget": 68,
        "mq_open": 240, "setpriority": 141, "sched_setparam": 142, "sched_setattr": 314, "ioprio_set": 251, "iopl": 172, "ioperm": 173,
        "quotactl": 179, "lookup_dcookie": 212, "move_pages": 279, "migrate_pages": 256, "mbind": 237, "set_mempolicy": 238,
        "fanotify_init": 300, "sethostname": 170, "vhangup": 153, "modify_ldt": 154, "uselib": 134, "remap_file_pages": 216,
        "inotify_init": 253, "inotify_init1": 294, "inotify_add_watch": 254,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "userfaultfd": 282, "perf_event_open": 241,
        "bpf": 280, "keyctl": 219, "add_key": 217, "mount": 40, "umount2": 39, "unshare": 97, "setns": 268, "pivot_root": 41, "chroot": 51,
        "init_module": 105, "kexec_load": 104, "reboot": 142, "open_by_handle_at": 265, "acct": 89, "syslog": 116, "vmsplice": 75,
        "splice": 76, "shmget": 194, "setpriority": 140, "sched_setattr": 274, "ioprio_set": 30, "inotify_init1": 26,
    },
}  # fmt: skip
NEWER = {
    "pidfd_getfd": 438, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsmount": 432, "fspick": 433, "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447,
    "process_mrelease": 448, "set_mempolicy_home_node": 450,
}  # fmt: skip
TRY = """
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
def tried(number, *arguments):
    ctypes.set_errno(0)
    gave = libc.syscall(number, *map(ctypes.c_long, arguments or [0] * 6))
    return "allowed" if gave != -1 else errno.errorcode[ctypes.get_errno()]
"""


@pytest.fixture
async def box(sandbox: Any) -> Any:
    made = await sandbox()
    await made.run(TRY)
    return made


async def test_calls_that_reach_further_than_files_and_the_own_process_are_refused(box: Any) -> None:
    told = await box.text(
        f"print({{name: tried(number) for name, number in ({NUMBERS!r}[platform.machine()] | "
        f"{NEWER!r}).items()}})"
    )
    unknown = {(name, "ENOSYS") for name in NEWER}  # to libseccomp
    assert {
        name for name, how in ast.literal_eval(told).items() if how != "EPERM" and (name, how) not in unknown
    } == set()


async def test_calls_are_refused_by_their_arguments(box: Any) -> None:
    told = await box.text(
        "import fcntl, os, resource, socket\n"
        "def can(do):\n"
        "    try:\n"
        "        do()\n"
        "        return True\n"
        "    except OSError:\n"
        "        return False\n"
        "socket.AF_BLUETOOTH = 31  # some builds of Python do not name it\n"
        "kinds = {name: can(lambda: socket.socket(getattr(socket, name), socket.SOCK_RAW if name == "
        "'AF_PACKET' else socket.SOCK_STREAM))\n"
        "         for name in ('AF_UNIX', 'AF_INET', 'AF_INET6', 'AF_PACKET', 'AF_VSOCK', 'AF_BLUETOOTH')}\n"
        "kinds['AF_ALG'] = can(lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))\n"
        "kinds['netlink audit'] = can(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9))\n"
        "kinds['own limits'] = can(lambda: resource.prlimit(0, resource.RLIMIT_CORE))\n"
        "kinds['limits of 1'] = can(lambda: resource.prlimit(1, resource.RLIMIT_AS, (1, 1)))\n"
        "kinds['a lease'] = can(lambda: fcntl.fcntl(open('/tmp/leased', 'w'), fcntl.F_SETLEASE, "
        "fcntl.F_WRLCK))\n"
        "kinds['idle policy'] = can(lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))\n"
        "print(kinds)\n"
    )
    assert {name for name, how in ast.literal_eval(told).items() if how} == {
        "AF_UNIX",
        "AF_INET",
        "AF_INET6",
        "own limits",
    }
    clone = {"x86_64": 56, "aarch64": 220}
    spaces = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
    told = await box.text(
        f"print([tried({clone!r}[platform.machine()], flags | 17, 0, 0, 0, 0) for flags in {spaces!r}], "
        "tried(435, 0, 0))"
    )
    assert told.strip() == f"{['EPERM'] * len(spaces)} ENOSYS"


async def test_bits_that_the_kernel_does_not_look_at_hide_no_command(box: Any) -> None:
    fcntl = {"x86_64": 72, "aarch64": 25}
    leases = [bits << 32 | 1024 for bits in (0, 1, 0xFFFFFFFF)]
    told = await box.text(
        "import os\n"
        "file = os.open('/etc/passwd', os.O_RDONLY)\n"
        f"number = {fcntl!r}[platform.machine()]\n"
        f"print([tried(number, file, command, 0) for command in {leases!r}], tried(number, file, 1030, 3))"
    )
    assert told.strip() == f"{['EPERM'] * len(leases)} allowed"


async def test_what_ordinary_code_does_still_works(box: Any) -> None:
    told = await box.text(
        "import asyncio, concurrent.futures, multiprocessing, os, shutil, signal, socket, subprocess, "
        "tempfile, mmap\n"
        "import matplotlib, numpy, pandas\n"
        "matplotlib.use('Agg')\n"
        "import matplotlib.pyplot as plt\n"
        "with multiprocessing.Pool(2) as pool:\n"
        "    print(pool.map(abs, [-1, 2]))\n"
        "with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool:\n"
        "    print(list(pool.map(abs, [-3])))\n"
        "print(subprocess.run('echo a | tr a b; ls / | wc -l > /tmp/n', shell=True, "
        "capture_output=True).stdout)\n"
        "print(numpy.ones((300, 300)).dot(numpy.ones((300, 300)))[0, 0], pandas.DataFrame({'a': [1, "
        "2]}).a.sum())\n"
        "plt.plot([1, 2]); plt.savefig('/tmp/x.png'); plt.close()\n"
        "listener = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(listener.getsockname())\n"
        "shutil.copy2('/etc/passwd', '/tmp/p'); os.mkfifo('/tmp/f'); os.link('/tmp/p', '/tmp/q'); "
        "os.chmod('/tmp/q', 0o600)\n"
        "print(len(mmap.mmap(-1, 4096)), signal.setitimer(signal.ITIMER_REAL, 0), "
        "socket.getaddrinfo('localhost', 80)[0][4][1])\n"
        "print(len(os.sched_getaffinity(0)) > 0)\n"
    )
    assert told.split("\n")[:6] == ["[1, 2]", "[3]", "b'b\\n'", "300.0 3", "4096 (0.0, 0.0) 80", "True"]


async def test_the_engines_profile_can_be_had_instead(sandbox: Any, docker_client: Any) -> None:
    box = await sandbox(seccomp="engine")
    assert docker_client.containers.get(box.container).attrs["HostConfig"]["SecurityOpt"] == [
        "no-new-privileges"
    ]

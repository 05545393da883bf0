"""The system calls that code in a container may make: a seccomp profile that lets through less than Docker's
own.

A list of what is allowed; all else fails with EPERM. Refused, beside what Docker's refuses: other processes'
memory and limits (ptrace, process_vm_*, prlimit64 and scheduling of another process), io_uring, userfaultfd,
perf, keys, System V and POSIX message IPC, splicing through pipes, inotify, sockets of other families than
unix and internet, 32-bit system calls. The format is that of Docker's `seccomp` option
(https://docs.docker.com/engine/security/seccomp/).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

_FILES = """
access faccessat faccessat2 open openat openat2 creat close close_range read pread64 preadv preadv2 readv
write pwrite64 pwritev pwritev2 writev lseek stat fstat lstat newfstatat fstatat64 statx statfs fstatfs
getdents getdents64 readlink readlinkat link linkat symlink symlinkat unlink unlinkat rename renameat
renameat2 mkdir mkdirat rmdir mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask
truncate ftruncate fallocate fadvise64 fsync fdatasync sync syncfs sync_file_range utime utimes utimensat
futimesat flock dup dup2 dup3 pipe pipe2 ioctl copy_file_range sendfile getxattr lgetxattr fgetxattr listxattr
llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr chdir fchdir getcwd
memfd_create readahead
"""
_WAITING = """
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old
epoll_pwait epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4
nanosleep clock_nanosleep pause alarm getitimer setitimer timer_create timer_settime timer_gettime
timer_getoverrun timer_delete futex futex_waitv futex_wake futex_wait futex_requeue
restart_syscall
"""
_MEMORY = """
brk mmap munmap mprotect mremap madvise msync mincore mlock mlock2 munlock mlockall munlockall membarrier
pkey_alloc pkey_free
pkey_mprotect get_mempolicy map_shadow_stack
"""
_PROCESSES = """
fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pidfd_open pidfd_send_signal
getpid getppid gettid getpgid getpgrp setpgid getsid setsid getuid geteuid getgid getegid getgroups getresuid
getresgid setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capget capset prctl
arch_prctl set_tid_address set_robust_list get_robust_list rseq sched_yield sched_getaffinity
sched_setaffinity sched_getparam sched_getscheduler sched_getattr sched_get_priority_max
sched_get_priority_min sched_rr_get_interval getpriority ioprio_get getrlimit setrlimit getrusage times getcpu
seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self riscv_hwprobe riscv_flush_icache
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait sigaltstack sigreturn
"""
_FACTS = "clock_gettime clock_getres gettimeofday time uname sysinfo getrandom"
_SOCKETS = """
bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt sendto recvfrom sendmsg
recvmsg sendmmsg recvmmsg
shutdown
"""
_MACHINES = ("X86_64", "AARCH64", "PPC64LE", "S390X", "RISCV64")
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6."""
_NETLINK, _NETLINK_ROUTE = 16, 0
_NEW_NAMESPACES = 0x7E020080
"""The CLONE_NEW… flags of clone."""
_F_SETLEASE = 1024
"""The first of fcntl's commands that Linux has of its own."""
_LAST_COMMAND = 1040
"""None of Linux's is as high yet."""
_PERSONALITIES = (0, 0xFFFFFFFF)
"""The usual one, and asking which it is."""
_ENOSYS = 38
_ALLOW, _REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"


@functools.cache
def seccomp_profile() -> str:
    """The profile as JSON, for docker's `security_opt`."""
    names = " ".join((_FILES, _WAITING, _MEMORY, _PROCESSES, _FACTS, _SOCKETS)).split()
    rules = [
        {"names": sorted(names), "action": _ALLOW},
        # glibc then takes clone, whose flags can be looked at.
        {"names": ["clone3"], "action": _REFUSE, "errnoRet": _ENOSYS},
        _only("clone", _has_none(0, _NEW_NAMESPACES)) | {"excludes": {"arches": ["s390x"]}},
        _only("clone", _has_none(1, _NEW_NAMESPACES)) | {"includes": {"arches": ["s390x"]}},
        *(_only("socket", _is(0, family)) for family in _FAMILIES),
        # libzmq ends the process where it cannot list the network interfaces.
        _only("socket", _is(0, _NETLINK), _is(2, _NETLINK_ROUTE)),
        _only("socketpair", _is(0, _FAMILIES[0])),
        # A process's own limits alone.
        _only("prlimit64", _is(0, 0)),
        # With a lease on a file (F_SETLEASE) code could hold up whoever opens it on the host. All others are
        # named: the filter compares 64 bits and the kernel takes 32 of them, so that a command with more bits
        # would be another to the filter, and the same to the kernel.
        _only("fcntl", {"index": 1, "value": _F_SETLEASE, "op": "SCMP_CMP_LT"}),
        *(_only("fcntl", _is(1, command)) for command in range(_F_SETLEASE + 1, _LAST_COMMAND)),
        # libzmq gives its threads the policy that they have, SCHED_OTHER.
        _only("sched_setscheduler", _is(1, 0)),
        *(_only("personality", _is(0, kind)) for kind in _PERSONALITIES),
    ]
    machines = [{"architecture": f"SCMP_ARCH_{machine}", "subArchitectures": []} for machine in _MACHINES]
    return json.dumps(
        {"defaultAction": _REFUSE, "defaultErrnoRet": 1, "archMap": machines, "syscalls": rules}
    )


def security_options(tight: bool, file: Path | None = None) -> list[str]:
    """Docker's `security_opt` for every container; if not `tight`, with the engine's own profile.

    `file` is written, for an engine that takes the name of a file instead of the profile.
    """
    if not tight:
        return ["no-new-privileges"]
    if file is not None:
        file.write_text(seccomp_profile())
    return ["no-new-privileges", f"seccomp={file or seccomp_profile()}"]


def _only(name: str, *tests: dict[str, Any]) -> dict[str, Any]:
    """A call that is allowed for some values of its arguments."""
    return {"names": [name], "action": _ALLOW, "args": list(tests)}


def _is(argument: int, value: int) -> dict[str, Any]:
    return {"index": argument, "value": value, "op": "SCMP_CMP_EQ"}


def _has_none(argument: int, flags: int) -> dict[str, Any]:
    return {"index": argument, "value": flags, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}

"""Another system, as far as one can be pretended here: `pytest -p tests.support.other_system`, with
OTHER_SYSTEM=darwin or win32.

For modules of rlm_kernel and rlm_contract alone, and not for libraries, the standard library and tests:
- `sys.platform` is the other system's;
- `os`, `signal`, `socket`, `select` and `asyncio` lack what that system's do not have; `fcntl`, `termios` and
  `resource` are not there on Windows, and lack Linux's own names on macOS; `msvcrt` and `ctypes.WinDLL` are
  small stand-ins on Windows.

For the whole process: no file of /proc or /sys can be opened or listed. On Windows a file that is open can be
neither deleted nor replaced, and the event loop has neither handlers of signals nor unix sockets.

`os.name` and paths stay those of POSIX: what is done with Windows paths has tests of its own.
"""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import errno
import fcntl
import importlib
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_LINUX = {
    "os": """O_PATH O_TMPFILE O_DIRECT O_NOATIME O_RSYNC O_LARGEFILE copy_file_range eventfd eventfd_read eventfd_write fdatasync
        getrandom
        getresgid getresuid setresgid setresuid getxattr setxattr listxattr removexattr memfd_create pidfd_open posix_fadvise
        posix_fallocate sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler
        splice preadv2 pwritev2 unshare setns timerfd_create""",
    "signal": "SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT sigtimedwait sigwaitinfo pidfd_send_signal",
    "socket": "AF_NETLINK AF_PACKET AF_VSOCK AF_ALG AF_CAN SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED "
    "SO_PASSCRED MSG_CMSG_CLOEXEC",
    "select": "epoll EPOLLIN EPOLLOUT EPOLLERR EPOLLHUP EPOLLONESHOT",
    "fcntl": """F_OFD_SETLK F_OFD_SETLKW F_OFD_GETLK F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS F_SETLEASE F_GETLEASE F_NOTIFY
        FICLONE FICLONERANGE""",
    "resource": "prlimit RLIMIT_OFILE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_MSGQUEUE RLIMIT_SIGPENDING "
    "RUSAGE_THREAD",
}
_POSIX = {
    "os": """O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_DIRECTORY O_NOCTTY O_SYNC O_DSYNC O_ASYNC O_ACCMODE O_NDELAY chown fchown lchown fchmod
        chroot
        confstr ctermid getuid geteuid getgid getegid getgroups getgrouplist getlogin_tty getpgid getpgrp getpriority setpriority
        getsid setuid seteuid setgid setegid setgroups setpgid setpgrp setsid setregid setreuid fork forkpty fpathconf pathconf
        fstatvfs statvfs initgroups killpg lockf login_tty major minor makedev mkfifo mknod nice openpty posix_openpt posix_spawn
        posix_spawnp pread preadv pwrite pwritev readv writev register_at_fork sched_yield sendfile sync sysconf tcgetpgrp
        tcsetpgrp ttyname uname wait wait3 wait4 waitid WNOHANG WIFEXITED WEXITSTATUS WIFSIGNALED WTERMSIG fchdir getloadavg
        setblocking_fifo F_LOCK F_TLOCK F_ULOCK""",
    "signal": """SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGPIPE SIGALRM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGQUIT SIGWINCH SIGIO
        SIGURG
        SIGBUS SIGTRAP SIGSYS SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIG_BLOCK SIG_UNBLOCK SIG_SETMASK pthread_kill pthread_sigmask
        sigpending sigwait siginterrupt alarm pause setitimer getitimer ITIMER_REAL""",
    "socket": "AF_UNIX SO_REUSEPORT MSG_DONTWAIT SCM_RIGHTS SCM_CREDENTIALS CMSG_LEN CMSG_SPACE sethostname "
    "send_fds recv_fds",
    "select": "poll POLLIN POLLOUT POLLERR POLLHUP POLLNVAL kqueue",
    "asyncio": "start_unix_server open_unix_connection",
}
_OURS = ("rlm_kernel", "rlm_contract")
_NOT_ON_WINDOWS = ("fcntl", "termios", "resource", "pwd", "grp", "tty", "pty")


def pretend(system: str) -> None:
    """Be the other system from now on, in this process. To be called before ours are imported."""
    assert not [name for name in sys.modules if name.split(".")[0] in _OURS]
    assert system in ("darwin", "win32")
    windows = system == "win32"
    without = {
        name: _LINUX.get(name, "").split()
        for name in ("os", "signal", "socket", "select", "asyncio", "fcntl", "resource", "termios")
    }
    if windows:
        without = {name: [*names, *_POSIX.get(name, "").split()] for name, names in without.items()}
    modules: dict[str, types.ModuleType | None] = {
        name: _Reduced(importlib.import_module(name), names) for name, names in without.items()
    }
    modules["sys"] = _Reduced(sys, (), platform=system)
    _hide_proc()
    if windows:
        modules |= dict.fromkeys(_NOT_ON_WINDOWS)
        modules["os"] = _Reduced(os, without["os"], kill=_kill, O_BINARY=0)
        modules["ctypes"] = _Reduced(
            ctypes, (), WinDLL=lambda *_args, **_options: _Kernel32(), get_last_error=lambda: _Kernel32.error
        )
        modules["asyncio"] = _Reduced(
            asyncio, without["asyncio"], ProactorEventLoop=asyncio.SelectorEventLoop
        )
        modules["msvcrt"] = _msvcrt()
        _share_nothing()
    _have_imported(modules)


class _Reduced(types.ModuleType):
    """A module without some of its names, or with others in their place.

    What is set in it is set in the module itself.
    """

    def __init__(self, module: types.ModuleType, without: Iterable[str], **instead: Any) -> None:
        own = super().__getattribute__("__dict__")
        own.update({"/module": module, "/without": frozenset(without) - set(instead), "/instead": instead})

    def __getattribute__(self, name: str) -> Any:
        own = super().__getattribute__("__dict__")
        if name in own["/without"]:
            raise AttributeError(
                f"module {own['/module'].__name__!r} has no attribute {name!r} on the system that is "
                "pretended"
            )
        return own["/instead"][name] if name in own["/instead"] else getattr(own["/module"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(super().__getattribute__("__dict__")["/module"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(super().__getattribute__("__dict__")["/module"], name)


def _have_imported(modules: dict[str, types.ModuleType | None]) -> None:
    """Give our modules these for what they import."""
    real = builtins.__import__

    def replaced(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if globals and str(globals.get("__name__")).split(".")[0] in _OURS and name in modules:
            found = modules[name]
            if found is None:
                raise ModuleNotFoundError(
                    f"No module named {name!r} on the system that is pretended", name=name
                )
            return found
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = replaced


_inside = False
"""This module looks into /proc itself."""


def _hide_proc() -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event in ("open", "os.listdir", "os.scandir")
            and not _inside
            and str(arguments[0]).startswith(("/proc/", "/sys/"))
        ):
            raise FileNotFoundError(
                errno.ENOENT, "there is no /proc on the system that is pretended", str(arguments[0])
            )

    sys.addaudithook(hook)


# Windows


def _kill(pid: int, number: int) -> None:
    assert number != 0, "on Windows this is Ctrl-C for the other process, and no question whether it lives"
    os.kill(pid, number)


def _open_files() -> Iterator[tuple[int, int]]:
    global _inside
    _inside = True
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    finally:
        _inside = False
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue
        yield status.st_dev, status.st_ino


def _refuse_open(path: Any, dir_fd: int | None = None) -> None:
    try:
        status = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return
    if (status.st_dev, status.st_ino) in set(_open_files()):
        raise PermissionError(errno.EACCES, "another program has the file open", str(path))


def _share_nothing() -> None:
    """Refuse what Windows refuses."""

    def unlink(path: Any, *, dir_fd: int | None = None, real: Callable[..., None] = os.unlink) -> None:
        _refuse_open(path, dir_fd)
        real(path, dir_fd=dir_fd)

    def replace(source: Any, target: Any, *, real: Callable[..., None] = os.replace, **options: Any) -> None:
        _refuse_open(source)
        _refuse_open(target)
        real(source, target, **options)

    os.unlink = os.remove = unlink  # type: ignore[assignment]
    os.replace = os.rename = replace  # type: ignore[assignment]
    shutil.rmtree.avoids_symlink_attacks = shutil._use_fd_functions = False  # type: ignore[attr-defined, misc]
    loop: Any = asyncio.SelectorEventLoop
    for name in (
        "add_signal_handler",
        "remove_signal_handler",
        "create_unix_server",
        "create_unix_connection",
    ):
        setattr(loop, name, _not_implemented)


def _not_implemented(*_args: Any, **_options: Any) -> Any:
    raise NotImplementedError


def _msvcrt() -> types.ModuleType:
    """Locks of Windows are of a byte, and those of the system here of a file: what is locked is remembered by
    both.
    """
    module = types.ModuleType("msvcrt")

    def locking(file: int, how: int, count: int) -> None:
        assert count == 1
        assert os.lseek(file, 0, os.SEEK_CUR) > 1 << 30, "a byte that others want to read"
        try:
            fcntl.flock(file, fcntl.LOCK_UN if how == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    vars(module).update(locking=locking, LK_UNLCK=0, LK_NBLCK=2, kbhit=lambda: False, getwch=lambda: "")
    return module


class _Kernel32:
    """What of Windows tells of processes, by POSIX."""

    error = 0

    def OpenProcess(self, _rights: int, _inherit: bool, pid: int) -> int:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            type(self).error = 87
            return 0
        except OSError:
            type(self).error = 5
            return 0
        return pid

    def GetExitCodeProcess(self, _handle: int, status: Any) -> bool:
        status._obj.value = 259
        return True

    def CloseHandle(self, _handle: int) -> bool:
        return True


_NOT_HERE = {
    "test_what_a_killed_run_left_is_folded_by_the_next_command",
    "test_where_nothing_may_be_written_a_killed_run_is_read_all_the_same",
    "test_what_is_made_when_it_is_read_is_read_on_the_host",
}
NOT_THERE = {
    "darwin": _NOT_HERE,
    "win32": {
        *_NOT_HERE,
        "test_links_pipes_and_what_cannot_be_read_are_passed_over",
        "test_the_file_is_replaced_and_never_written_in_place",
        "test_what_is_no_plain_file_is_not_read",
        "test_a_journal_that_goes_away_is_noticed_at_the_next_event",
    },
}
"""Tests that start programs, which would not be pretended to; and of what the system does not have, or that
do what it does not allow: files of /proc, pipes with names, deleting or replacing a file that is open.
"""


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave those out."""
    left_out = [item for item in items if item.originalname in NOT_THERE[os.environ["OTHER_SYSTEM"]]]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


if found := os.environ.get("OTHER_SYSTEM"):
    pretend(found)

"""What operating systems do each in their own way: locks, owners, processes, signals.

The one module that asks which it is.

Everything else is written for what Linux, macOS and Windows have in common, and calls this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TextIO

WINDOWS = sys.platform == "win32"
WINDOWS_PATHS = os.sep == "\\"
"""Paths have drives, backslashes, and `\\\\server\\share`."""
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
_PLAIN: int = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
"""Not to wait for who writes into a pipe, to have no terminal in control, and, on Windows, bytes as they
are.
"""
_JUNCTION = 0xA0000003
"""What Windows says of a folder that is elsewhere."""
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\.|$)", re.IGNORECASE
)
_WORD = re.compile(r""""(?P<double>[^"]*)"|'(?P<single>[^']*)'|\S+""")
ENDING: tuple[signal.Signals, ...] = tuple(
    found
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if (found := getattr(signal, name, None)) is not None
)
"""What ends a program: Ctrl-C, the system, the terminal that was closed."""
USER, GROUP = 1000, 1000
"""The uid and gid that containers have for a user without such numbers: those of the first user of most Linux
systems.
"""
_REPLACE_TRIES, _REPLACE_WAIT = 5, 0.01
"""Tries to replace a file that another program has open, and seconds between the first two; each wait is
twice as long as the last.
"""


# Files


def cache_dir() -> Path:
    """Where things are kept that can be fetched or made again: RLM_CACHE_DIR, else `rlm_kernel` in the user's
    cache directory.
    """
    import platformdirs  # late: most commands do without

    return Path(os.environ.get("RLM_CACHE_DIR") or platformdirs.user_cache_dir("rlm_kernel", appauthor=False))


def state_dir() -> Path:
    """Where this user's register of sessions is kept."""
    import platformdirs

    return Path(platformdirs.user_state_dir("rlm_kernel", appauthor=False))


def open_plain(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o600, *, follow: bool = False) -> int:
    """`os.open` of a file that somebody else may have put there: it never waits, and no child inherits it.

    Args:
        path: of the file.
        flags: of `os.open`.
        mode: of a file that is made.
        follow: take a link in the last part of the path for what it leads to; without it a link is an error.

    Raises:
        OSError: as `os.open`.
    """
    if not follow and not _NO_LINK and _is_link(path):
        raise OSError(errno.ELOOP, "it is a link", str(path))
    return os.open(path, flags | _PLAIN | (0 if follow else _NO_LINK), mode)


def _is_link(path: str | Path) -> bool:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION


def is_remote(path: str | Path) -> bool:
    r"""Whether a path, if it is only looked at, has Windows log in at another machine (`\\server\share`) or
    reach a device (`\\.\name`).

    Such a path is taken from the user alone, who names it as an input: never from a text, a trace, or code in
    the kernel.
    """
    return WINDOWS_PATHS and str(path).replace("/", "\\").startswith("\\\\")


def is_possible_name(name: str) -> bool:
    """Whether a file can be called so.

    On Windows NUL and others are devices, and what follows a colon is a part of another file.
    """
    return not (
        WINDOWS_PATHS
        and (_DEVICE.match(name) or re.search(r'[<>:"|?*\x00-\x1f]', name) or name.endswith((".", " ")))
    )


def replace(made: str | Path, path: str | Path) -> None:
    """Put a file in another's place. Raises OSError.

    Windows refuses that while any program has the other one open, such as a virus scanner that looks at it
    for a moment: it is tried again, for a sixth of a second at most.
    """
    for number in range(_REPLACE_TRIES):
        try:
            Path(made).replace(path)
            return
        except PermissionError:
            if not WINDOWS or number == _REPLACE_TRIES - 1:
                raise
            time.sleep(_REPLACE_WAIT * 2**number)


def is_in_use(error: OSError) -> bool:
    """Whether a file could not be replaced because another program has it open."""
    return WINDOWS and isinstance(error, PermissionError)


def remove_open(path: str | Path, file: int) -> None:
    """Delete a file that is open as `file`, and close it. Raises OSError, and has it closed then, too.

    It is deleted first, so that who waits for its lock finds it gone; Windows deletes only what is closed.
    """
    try:
        if not WINDOWS:
            _unlink(path)
    finally:
        os.close(file)
    if WINDOWS:
        _unlink(path)


def _unlink(path: str | Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def is_own(status: os.stat_result) -> bool:
    """Whether a file belongs to this user.

    Windows has another notion of it, and keeps a user's folders by itself.
    """
    return WINDOWS or status.st_uid == ids()[0]


def is_closed_to_others(status: os.stat_result) -> bool:
    """Whether a file is this user's, and nobody else may write to it."""
    return WINDOWS or (is_own(status) and not status.st_mode & 0o022)


def give(path: str | Path, uid: int, gid: int) -> None:
    """Make a path another user's, where the system has such numbers. Raises OSError."""
    if sys.platform != "win32":
        os.chown(path, uid, gid, follow_symlinks=False)


def share_content(file: int, made: int) -> bool:
    """Have an empty open file share the content of another one, without a copy; False where the file system
    cannot.
    """
    if sys.platform != "linux":
        return False
    import fcntl

    clone = 0x40049409
    try:
        fcntl.ioctl(made, clone, file)
    except OSError:
        return False
    return True


# Locks. On Windows nobody can read or write the bytes that are locked, so it is one far behind all content.

if sys.platform == "win32":
    import msvcrt

    _BYTE = (1 << 31) - 2

    def _locking(file: int, how: int) -> None:
        place = os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, how, 1)
        finally:
            os.lseek(file, place, os.SEEK_SET)

    def lock(file: int) -> bool:
        """Take the lock of an open file, if nobody has it."""
        try:
            _locking(file, msvcrt.LK_NBLCK)
        except PermissionError:
            return False
        return True

    def is_locked(file: int) -> bool:
        """Whether another process holds the lock."""
        if not lock(file):
            return True
        _locking(file, msvcrt.LK_UNLCK)
        return False

else:
    import fcntl

    def lock(file: int) -> bool:
        """Lock an open file for oneself, without waiting; False if another one has it.

        The lock falls when the file is closed, however its process ends. Raises OSError where the file system
        has no locks.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_locked(file: int) -> bool:
        """Whether another one has the lock of this open file. Raises OSError."""
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False


# Users and processes


def ids() -> tuple[int, int]:
    """This user's uid and gid."""
    if sys.platform == "win32":
        return USER, GROUP
    return os.getuid(), os.getgid()


def is_root() -> bool:
    """Whether this user may do everything on a system that has such a one."""
    return sys.platform != "win32" and os.geteuid() == 0


if sys.platform == "win32":
    import ctypes

    def is_gone(pid: int) -> bool:
        """Whether no process has this id any more."""
        # Not os.kill(pid, 0), which is Ctrl-C here.
        reading, no_such, still_active = 0x1000, 87, 259
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = kernel.OpenProcess(reading, False, pid)
        if not handle:
            return ctypes.get_last_error() == no_such
        status = ctypes.c_ulong()
        try:
            return (
                bool(kernel.GetExitCodeProcess(handle, ctypes.byref(status))) and status.value != still_active
            )
        finally:
            kernel.CloseHandle(handle)

else:

    def is_gone(pid: int) -> bool:
        """Whether a process of this machine has ended."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # another user's
            return False
        return False


def be_quiet(thread: int, nice: int = 10) -> None:
    """Have a thread give way to others, where the system has that for a thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, nice)


def memory() -> tuple[int, int] | None:
    """Bytes that this machine has, and that are free; None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = {
                name: int(value.split()[0]) << 10 for name, value in (line.split(":", 1) for line in file)
            }
        return fields["MemTotal"], fields["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return None


def bound_memory(size: int) -> None:
    """Have this process end rather than take more than so many bytes, where the system has that."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(ValueError, OSError):  # macOS takes no limit below what the process has mapped
        resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


def quoted(*words: str) -> str:
    """Words as they are typed in this system's shell."""
    if sys.platform == "win32":
        import subprocess

        return subprocess.list2cmdline(words)
    import shlex

    return shlex.join(words)


def words(text: str) -> list[str]:
    """The words of a line as this system's shell reads them: in quotes they may have spaces.

    Raises ValueError for a quote left open.
    """
    if not WINDOWS_PATHS:
        import shlex

        return shlex.split(text)
    found = list(_WORD.finditer(text))  # a backslash is part of a path
    if any(word[0][0] in "\"'" and word.lastgroup is None for word in found):
        raise ValueError("No closing quotation")
    return [word[word.lastgroup or 0] for word in found]


# Words for the user


def engine_here() -> str:
    """How to have a Docker engine on this system."""
    if sys.platform == "win32":
        return (
            "Install Docker Desktop for Windows (with WSL 2 and Linux containers: "
            "docs.docker.com/desktop) and start it."
        )
    if sys.platform == "darwin":
        return "Install Docker Desktop for Mac (docs.docker.com/desktop) and start it."
    return "Install and start Docker Engine; as root on Debian or Ubuntu, `rlm doctor --fix` does it."


def engine_restart() -> str:
    """How to restart it."""
    return (
        "Restart it (`sudo systemctl restart docker`)."
        if sys.platform == "linux"
        else "Restart Docker Desktop."
    )


def engine_access() -> str:
    """What to do who may not use it."""
    if sys.platform == "win32":
        return "Add your account to the group docker-users, then log in again."
    if sys.platform == "darwin":
        return (
            "Start Docker Desktop as the user who runs rlm, and let it make its socket (Settings, Advanced)."
        )
    return "Join the docker group: `sudo usermod -aG docker $USER`, then log in again."


def is_attended(stream: TextIO) -> bool:
    """Whether the stream is a terminal with a person at it: a service that builds and tests software may give
    its jobs a terminal, and says so by CI.
    """
    return stream.isatty() and os.environ.get("CI", "").lower() in ("", "0", "false")

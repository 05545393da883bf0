"""Which paths a client may name: those below the folders that the server was given, or else the client's
roots.

A path comes from a model, which may have it from a stranger's text. It is resolved once, links and all, and
what it leads to must lie in one of the folders; the resolved path is what is used.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rlm_kernel import system
from rlm_kernel.errors import FileRefused
from rlm_kernel.printable import printable

MAX_ROOTS = 50
MAX_PATHS = 1_000
_LONGEST = 4_096
_SHOWN = 200
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
NO_FOLDERS = (
    "Start the server with the folders that it may read (rlm mcp FOLDER…), let the client name its roots, "
    "or give the input itself as `text`."
)


def folders_of(uris: Iterable[str]) -> list[Path]:
    """The folders that a client's roots name, of MAX_ROOTS at most; what is no folder here is left out.

    Blocking.
    """
    found: dict[Path, None] = {}
    for uri in list(uris)[:MAX_ROOTS]:
        try:
            path = Path(os.path.realpath(_plain(uri)))
            if path.is_dir():
                found[path] = None
        except (FileRefused, OSError, ValueError):
            continue
    return list(found)


def allowed(given: Sequence[str], folders: Sequence[Path]) -> list[Path]:
    """The real paths of files and folders that a client names, each once.

    Blocking. Raises FileRefused for one that is not there, is no file or folder, or lies in none of the
    folders.
    """
    if not given:
        return []
    if not folders:
        raise FileRefused(
            "This server's clients may not read any folder, so it cannot read paths.", hint=NO_FOLDERS
        )
    if len(given) > MAX_PATHS:
        raise FileRefused(
            f"{len(given):,} paths are too many; at most {MAX_PATHS:,} are allowed.",
            hint="Name their folder instead.",
        )
    return list(dict.fromkeys(_allowed(one, folders) for one in given))


def _allowed(given: str, folders: Sequence[Path]) -> Path:
    shown = printable(given[:_SHOWN])
    named = _plain(given)
    tops = [Path(os.path.realpath(folder)) for folder in folders]
    # A relative path may be meant from any of the folders; the first that has it counts.
    candidates = [Path(named)] if os.path.isabs(named) else [top / named for top in tops]
    refused = FileRefused(
        f"{shown} does not exist, or is not in a folder that this server may read.",
        hint="Folders: " + ", ".join(printable(str(top)) for top in tops[:10]),
    )
    for candidate in candidates:
        try:
            real = Path(os.path.realpath(candidate, strict=True))
            mode = real.stat().st_mode
        except (OSError, ValueError):
            continue
        # What lies outside is told as what is not there: whether it exists is nobody's business.
        if not any(_is_below(real, top) for top in tops):
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise FileRefused(f"{shown} is neither a file nor a folder.")
        return real
    raise refused


def _plain(given: str) -> str:
    """A path as text, also of a file: URI. Raises FileRefused."""
    shown = printable(given[:_SHOWN])
    path = given
    if given.lower().startswith("file:"):
        try:
            parts = urlsplit(given)
        except ValueError:
            raise FileRefused(f"{shown} is not a file URI.") from None
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise FileRefused(f"{shown} is not a file on this machine.")
        path = unquote(parts.path, errors="surrogateescape")
        if system.WINDOWS_PATHS and re.match(r"/[A-Za-z]:", path):
            path = path[1:]
    elif _SCHEME.match(given) and not _DRIVE.match(given):
        raise FileRefused(f"{shown} is not a file on this machine.", hint="Name a path, or a file: URI.")
    if not path or "\0" in path or len(path) > _LONGEST:
        raise FileRefused(f"{shown!r} is not a path.")
    if path.startswith("~"):
        raise FileRefused(f"{shown}: ~ has no meaning here.", hint="Name the full path.")
    if system.is_remote(path) or (_DRIVE.match(path) and not system.WINDOWS_PATHS):
        raise FileRefused(f"{shown} is a path on another machine.")
    return path


def _is_below(path: Path, top: Path) -> bool:
    """Whether a real path is a folder or lies in it; file systems that mind no case are asked themselves."""
    if path.is_relative_to(top):
        return True
    depth = len(top.parts)
    parent = next((one for one in (path, *path.parents) if len(one.parts) == depth), None)
    if parent is None or str(parent).casefold() != str(top).casefold():
        return False
    try:
        return os.path.samefile(parent, top)
    except OSError:
        return False

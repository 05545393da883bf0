"""Names of API keys: their variables, and which of them are in the system's keyring.

A keyring cannot list what it holds, and to ask it may open a window. So each key that is put there has an
empty file with its name in `keys` of the state directory, and the keyring is asked for those alone.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from rlm_kernel import system

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def provider_variable(provider: str) -> str:
    """The usual variable of a provider's key."""
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', provider).upper()}_API_KEY"


def kept_in_keyring() -> list[str]:
    """Names of the keys that `rlm auth add` has put into the keyring, sorted."""
    try:
        return sorted(path.name for path in _folder().iterdir() if _VARIABLE.fullmatch(path.name))
    except (OSError, RuntimeError):  # there is none, or no home
        return []


def note_kept(name: str) -> None:
    """Note that the keyring has a key of that name. Raises OSError."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / name).touch(mode=0o600)


def note_removed(name: str) -> None:
    """Note that the keyring has no key of that name any more. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        (_folder() / name).unlink()


def _folder() -> Path:
    return system.state_dir() / "keys"

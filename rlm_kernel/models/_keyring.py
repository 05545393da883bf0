"""API keys in the system's keyring: those that `rlm auth add` has put there.

A keyring may be locked, wait for a window that nobody sees, crash, or not be there. So it is asked in a
process of its own, which is given little time, and only for keys that were put there.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlm_kernel import secrets
from rlm_kernel.config import LLMSettings, kept_in_keyring, note_kept, note_removed, provider_variable
from rlm_kernel.errors import KeyringError, UsageError
from rlm_kernel.models._address import Key, key_of, key_variable, tidy_key

SERVICE = "rlm_kernel"
"""Under this name the keyring has the keys; the user's name there is the key's variable."""
SECONDS, SECONDS_AT_A_SCREEN = 5.0, 30.0
"""For an answer. Where there is a screen, somebody may have to type a password into a window first."""
_MOST = 1 << 20
"""Characters of an answer."""
_TOLD = 300
"""Characters of what a backend says."""


@dataclass(frozen=True)
class _Answer:
    """What came of a request: the key that the keyring has now, and the class of the backend."""

    key: str | None
    backend: str


def key_name(provider: str) -> str:
    """The name under which a key is kept: a provider's variable, such as OPENAI_API_KEY, or the variable
    itself.
    """
    return provider if provider.endswith("_API_KEY") or provider.isupper() else provider_variable(provider)


async def find_key(section: str, settings: LLMSettings, provider: str) -> Key | None:
    """The key for a model of that provider, by the settings, the environment or the keyring, in this order;
    None where none has it: the provider may have ways of its own to sign in.

    Does not block the event loop. Raises KeyringError when the keyring should have the key, and does not give
    it.
    """
    return key_of(section, settings, provider) or await ask_keyring(key_variable(settings, provider))


def keyring_key(provider: str) -> Key | None:
    """The key of a provider, or of a variable (`api_key_env`), if `rlm auth add` has put it into the keyring.

    Blocks for up to 30 seconds if there is one: on an event loop use `ask_keyring`. Raises KeyringError when
    the keyring does not give the key.
    """
    name = key_name(provider)
    if name not in kept_in_keyring():
        return None
    found = _ask("get", name)
    value = tidy_key(found.key or "")
    if not value:
        raise KeyringError(
            f"The keyring no longer has {name} ({found.backend}).",
            hint=f"Add it again: rlm auth add {name}. Or remove it from rlm: rlm auth remove {name}.",
        )
    secrets.hold(value)
    return Key(value, f"{name} in the keyring")


async def ask_keyring(provider: str) -> Key | None:
    """`keyring_key` for an event loop, which it does not block. Can be cancelled at once."""
    if key_name(provider) not in kept_in_keyring():
        return None
    found: Future[Key | None] = Future()

    def ask() -> None:
        try:
            result = keyring_key(provider)
        except BaseException as error:
            found.set_exception(error)
        else:
            found.set_result(result)

    # A thread of an executor would be waited for when the program ends.
    if found.set_running_or_notify_cancel():
        threading.Thread(target=ask, daemon=True).start()
    return await asyncio.wrap_future(found)


def add_key(provider: str, written: str) -> str:
    """Put a key into the keyring, in the place of an older one; returns the backend's class.

    Raises UsageError for what is no key, and KeyringError when the keyring does not take it.
    """
    name, value = key_name(provider), tidy_key(written)
    if not value:
        raise UsageError("No key was given, so nothing changed.", hint=f"Try again: rlm auth add {provider}")
    secrets.hold(value)
    if odd := Key(value, name).oddity:
        raise UsageError(
            f"This is not a key: it has {odd} in it. Nothing changed.",
            hint="Copy the key again, and enter only the key.",
        )
    found = _ask("add", name, value)
    if found.key != value:
        raise KeyringError(
            f"The keyring did not store the key ({found.backend}).", hint=f"{_BACKEND} {_elsewhere(name)}"
        )
    note_kept(name)
    return found.backend


def remove_key(provider: str) -> None:
    """Delete a key from the keyring, and ask for it there no more, even if the keyring does not delete it.

    Raises UsageError if there is none, KeyringError.
    """
    name, kept = key_name(provider), kept_in_keyring()
    note_removed(name)
    try:
        found = _ask("remove", name).key is not None
    except KeyringError as error:
        if error.kind != "none":
            left = "rlm no longer uses this key, but the keyring may still have it."
            raise KeyringError(f"{error.message} {left}", hint=error.hint, kind=error.kind) from None
        found = False
    if not found and name not in kept:
        raise UsageError(
            f"The keyring has no {name} from rlm.",
            hint=f"It has {', '.join(kept)}." if kept else "rlm stored no keys there.",
        )


def keyring_problems() -> dict[str, KeyringError | None]:
    """For each key that `rlm auth add` has put into the keyring why it cannot be had; None if it can.

    Blocks as `keyring_key` does; a keyring that is locked or does not answer is asked once.
    """
    problems: dict[str, KeyringError | None] = {}
    problem: KeyringError | None = None
    for name in kept_in_keyring():
        if problem is None or problem.kind == "failed":
            problem = None
            try:
                keyring_key(name)
            except KeyringError as error:
                problem = error
        problems[name] = problem
    return problems


# The process


def _ask(do: Literal["get", "add", "remove"], name: str, key: str | None = None) -> _Answer:
    """Raises KeyringError."""
    seconds = SECONDS_AT_A_SCREEN if _has_screen() else SECONDS
    request = {
        "do": do,
        "service": SERVICE,
        "name": name,
        "key": key,
        "seconds": seconds + 1,
        "path": _path(),
    }
    # -P: nor is what lies beside this file taken for a library.
    command = [sys.executable, "-P", str(Path(__file__).with_name("_keyring_process.py"))]
    try:
        # In a session of its own it has no terminal, where it could ask or that it could leave without echo.
        ran = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failure("late", name, f"{seconds:g} seconds", "") from None
    except OSError as error:
        raise _failure("failed", name, f"Python cannot be started: {error}", "") from None
    try:
        reply: dict[str, Any] = json.loads(ran.stdout[:_MOST])
    except ValueError:
        raise _failure("failed", name, f"its process ended with status {ran.returncode}", "") from None
    if "error" in reply:
        raise _failure(reply["error"], name, reply["said"], reply["backend"])
    return _Answer(reply["key"] if isinstance(reply["key"], str) else None, reply["backend"])


def _path() -> list[str]:
    """Where this process finds its libraries; not in the current folder, which is anybody's."""
    try:
        here = os.getcwd()
    except OSError:  # it is gone
        here = ""
    return [place for place in sys.path if os.path.isabs(place) and os.path.normpath(place) != here]


def _has_screen() -> bool:
    """Whether a window would be seen that asks for the keyring's password."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


_BACKEND = "`keyring --list-backends` lists the keyrings; PYTHON_KEYRING_BACKEND chooses one."


def _elsewhere(name: str) -> str:
    return f"Without the keyring: set {name} in the environment or in a .env file in the current directory."


def _failure(kind: str, name: str, said: str, backend: str) -> KeyringError:
    said = secrets.redact(" ".join(said.split()), ())[:_TOLD]
    unlock = "Unlock it (log in at the desktop, or open its program), and try again."
    message, hint = {
        "none": (
            "This machine has no keyring.",
            f"On Linux it is part of the desktop (GNOME Keyring, KWallet). {_BACKEND}",
        ),
        "locked": ("The keyring is locked, and was not unlocked.", unlock),
        "late": (
            f"The keyring did not answer within {said}. It probably shows a window and waits for you to "
            "unlock it.",
            unlock,
        ),
        "failed": (f"The keyring failed: {said}{f' ({backend})' if backend else ''}.", _BACKEND),
    }[kind]
    return KeyringError(message, hint=f"{hint} {_elsewhere(name)}", kind=kind)

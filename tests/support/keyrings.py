"""Keyrings for tests, chosen by PYTHON_KEYRING_BACKEND: one in a file, and others as people meet them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from keyring import backend, errors

ROOT = Path(__file__).parents[2]
FILE = "KEYRING_OF_THE_TEST"
"""The variable with the path of the keyring's file."""


def use(name: str, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Have new processes use a class of this module, with its keys in a file."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"{__name__}.{name}")
    monkeypatch.setenv(FILE, str(file))


def kept(file: Path) -> dict[str, str]:
    """Its keys by their names; each process that asked is counted in a file beside."""
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


def asked(file: Path) -> int:
    """How often it was asked."""
    beside = file.with_suffix(".asked")
    return beside.stat().st_size if beside.exists() else 0


class Working(backend.KeyringBackend):
    """A keyring in a file. It prints, as some do."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self._file = Path(os.environ[FILE])

    def get_password(self, service: str, username: str) -> str | None:
        with self._file.with_suffix(".asked").open("a") as count:
            count.write(".")
        print("looking into the keyring")
        print("warning: an odd thing", file=sys.stderr)
        return kept(self._file).get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._file.write_text(json.dumps(kept(self._file) | {f"{service}/{username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        held = kept(self._file)
        if held.pop(f"{service}/{username}", None) is None:
            raise errors.PasswordDeleteError("No such password!")
        self._file.write_text(json.dumps(held))


class Plaintext(Working):
    """As keyrings.alt has one."""


class Hanging(Working):
    """A daemon that waits for somebody."""

    def get_password(self, service: str, username: str) -> str | None:
        time.sleep(600)
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        time.sleep(600)


class Locked(Working):
    """A collection that nobody unlocks."""

    def get_password(self, service: str, username: str) -> str | None:
        raise errors.KeyringLocked("Failed to unlock the collection!")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise errors.KeyringLocked("Failed to unlock the collection!")


class Forgetful(Working):
    """As the null backend: takes everything, and keeps nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class Talkative(Working):
    """Its error has the key in it, and what moves a terminal's cursor."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise ValueError(f"\x1b[2J cannot store {password!r} for {username}")

    def get_password(self, service: str, username: str) -> str | None:
        raise ValueError("\x1b[2J not today")


class Crashing(Working):
    """As a library in C that fails."""

    def get_password(self, service: str, username: str) -> str | None:
        os.abort()


class Asking(Working):
    """As keyrings.alt's encrypted file: asks for its password where the keyboard is."""

    def get_password(self, service: str, username: str) -> str | None:
        with open("/dev/tty") as terminal:
            return terminal.readline()


class Odd(Working):
    """Has something that is no text."""

    def get_password(self, service: str, username: str) -> str | None:
        return b"sk-bytes-0123456789"  # type: ignore[return-value]


class Exiting(Working):
    """Ends the process."""

    def get_password(self, service: str, username: str) -> str | None:
        sys.exit(0)

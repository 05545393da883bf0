"""Who may ask, and how much: keys with names, and the limits of each."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlm_kernel.errors import ConfigError
from rlm_kernel.serve.refusals import Refused

ANYONE = "local"
"""Whose traces are those of a server without keys."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_SHORTEST = 16
_HINT = 'For example: {"alice": {"key": "sha256:…", "at_once": 2, "cost_per_day": 1.0}}; see docs/serve.md.'


class Key(BaseModel):
    """One client. `key`: itself, or `sha256:` and the digest of it in hexadecimal digits; money in US
    dollars, days of UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, Field(repr=False)] = ""
    name: str = ANYONE
    at_once: Annotated[int, Field(ge=1)] | None = None
    cost_per_day: Annotated[float, Field(ge=0)] | None = None
    cost: Annotated[float, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None


class Keys:
    """The keys of a file; without one there is a single client, which needs none."""

    def __init__(self, path: Path | None = None) -> None:
        """Blocking. Raises ConfigError."""
        self._path = path
        self._keys = {} if path is None else _read(path)

    @property
    def needed(self) -> bool:
        return self._path is not None

    def find(self, authorization: str | None) -> Key:
        """The client with this header. Takes the same time for each wrong one. Raises Refused."""
        if self._path is None:
            return Key()
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Refused(
                401,
                "No API key was given: send it as the header Authorization: Bearer KEY.",
                code="invalid_api_key",
            )
        digest = _digest(given.strip())
        found: Key | None = None
        for known, key in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = key
        if found is None:
            raise Refused(401, "This server does not know this API key.", code="invalid_api_key")
        return found


def new_key(path: Path, name: str) -> str:
    """A key of that name, added to the file as its digest. It is told this once.

    Raises ConfigError.
    """
    known = {one.name for one in _read(path).values()} if path.exists() else set()
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:60]!r} is not a valid name for a key.", hint="Use letters, digits, _ and -, at most 32."
        )
    if name in known:
        raise ConfigError(f"{path} already has a key {name}.", hint="Choose another name.")
    made = f"rlm-{secrets.token_urlsafe(32)}"
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    write_whole(path, content | {name: {"key": f"sha256:{hashlib.sha256(made.encode()).hexdigest()}"}})
    return made


def _read(path: Path) -> dict[bytes, Key]:
    content = read_object(path)
    keys: dict[bytes, Key] = {}
    for name, given in content.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:60]!r} in {path} is not a valid name for a key.", hint=_HINT)
        try:
            key = Key.model_validate({**given, "name": name} if isinstance(given, dict) else given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise ConfigError(f"{where} in {path} cannot be used: {first['msg']}.", hint=_HINT) from None
        if not _HASH.fullmatch(key.key) and len(key.key) < _SHORTEST:
            raise ConfigError(
                f"The key {name} in {path} has fewer than {_SHORTEST} characters, so it can be guessed.",
                hint="To make a good key: rlm serve --new-key NAME",
            )
        digest = (
            bytes.fromhex(key.key.removeprefix("sha256:")) if _HASH.fullmatch(key.key) else _digest(key.key)
        )
        if digest in keys:
            raise ConfigError(f"{keys[digest].name} and {name} in {path} have the same key.", hint=_HINT)
        keys[digest] = key.model_copy(update={"key": ""})
    if not keys:
        raise ConfigError(f"{path} has no keys.", hint=_HINT)
    return keys


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of keys, or of what they have used. Raises ConfigError."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"The key file {path} cannot be read: {error.strerror or error}.",
            hint="To make it: rlm serve --new-key NAME",
        ) from None
    except (ValueError, RecursionError):  # its message may show what stands there
        raise ConfigError(f"The key file {path} is not JSON.", hint=_HINT) from None
    if not isinstance(content, dict):
        raise ConfigError(f"The key file {path} must hold a JSON object.", hint=_HINT)
    return content


def write_whole(path: Path, content: Any) -> None:
    """Write JSON: all of it or nothing, readable by nobody else. Blocking. Raises ConfigError."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave an empty file in the place of the old one
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a read-only disk refuses even this
            beside.unlink()
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}.", hint="Check the folder's permissions."
        ) from error


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

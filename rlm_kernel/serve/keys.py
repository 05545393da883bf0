"""Who may ask, and how much: keys with names, the limits of each, and what each has used."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
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
_RETRY = 10
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


class Used(BaseModel):
    """What a key has used in all, and on the last day on which it was."""

    cost: float = 0.0
    tokens: int = 0
    day: str = ""
    cost_of_day: float = 0.0

    def on(self, day: str) -> float:
        return self.cost_of_day if self.day == day else 0.0


@dataclass(eq=False)
class _Held:
    """What a question that is being answered may use."""

    cost: float
    tokens: int


class Keys:
    """The keys of a file; without one there is a single client, which needs none."""

    def __init__(self, path: Path | None = None) -> None:
        """Blocking. Raises ConfigError."""
        self._path = path
        self._keys = {} if path is None else _read(path)
        self._used = {} if path is None else _read_used(_beside(path))
        self._held: dict[str, list[_Held]] = {}

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
            raise Refused(401, "The API key is not known here.", code="invalid_api_key")
        return found

    def used(self, key: Key) -> Used:
        """What a key has used."""
        return self._used.get(key.name, Used())

    def rest(self, key: Key) -> tuple[float | None, int | None]:
        """US dollars and tokens that a key has left; None is no limit. Raises Refused where that is
        nothing.
        """
        used, day = self.used(key), _today()
        left = [
            limit - spent
            for limit, spent in ((key.cost, used.cost), (key.cost_per_day, used.on(day)))
            if limit is not None
        ]
        tokens = None if key.tokens is None else key.tokens - used.tokens
        if (left and min(left) <= 0) or (tokens is not None and tokens <= 0):
            daily = key.cost_per_day is not None and used.on(day) >= key.cost_per_day
            raise Refused(
                429,
                f"The key {key.name} has used all that it may{' today' if daily else ''}.",
                code="insufficient_quota",
                retry_after=_until_tomorrow() if daily else None,
            )
        return (min(left) if left else None), tokens

    @contextlib.contextmanager
    def holding(self, key: Key, places: int) -> Iterator[tuple[float | None, int | None]]:
        """US dollars and tokens that one of the key's questions may use; None is no limit.

        That is an equal share of what is left for each question that it may have at one time: so many as it
        has `at_once`, and `places` of the server at most. It is held back from its other questions until
        the context is left, when what was used is written down. Raises Refused where nothing is left.
        """
        cost, tokens = self.rest(key)
        held = self._held.setdefault(key.name, [])
        free = max(1, min(key.at_once or places, places) - len(held))
        if cost is not None:
            cost = max(0.0, cost - sum(one.cost for one in held)) / free
        if tokens is not None:
            tokens = (tokens - sum(one.tokens for one in held)) // free
        if (cost is not None and cost <= 0) or (tokens is not None and tokens <= 0):
            raise Refused(
                429,
                f"What the key {key.name} has left may be used by its questions that are being answered.",
                code="rate_limit_exceeded",
                retry_after=_RETRY,
            )
        mine = _Held(cost or 0.0, tokens or 0)
        held.append(mine)
        try:
            yield cost, tokens
        finally:
            held.remove(mine)

    def spend(self, key: Key, cost: float, tokens: int) -> None:
        """Write down what a request has used. Blocking."""
        used, day = self.used(key), _today()
        self._used[key.name] = Used(
            cost=used.cost + cost,
            tokens=used.tokens + tokens,
            day=day,
            cost_of_day=used.on(day) + cost,
        )
        if self._path is not None:
            _write(_beside(self._path), {name: one.model_dump() for name, one in self._used.items()})


def new_key(path: Path, name: str) -> str:
    """A key of that name, added to the file as its digest. It is told this once.

    Raises ConfigError.
    """
    known = {one.name for one in _read(path).values()} if path.exists() else set()
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:60]!r} is no name for a key.", hint="Letters, digits, _ and -, 32 at most."
        )
    if name in known:
        raise ConfigError(f"There is a key {name} already in {path}.", hint="Take another name.")
    made = f"rlm-{secrets.token_urlsafe(32)}"
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    _write(path, content | {name: {"key": f"sha256:{hashlib.sha256(made.encode()).hexdigest()}"}})
    return made


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.used")


def _read(path: Path) -> dict[bytes, Key]:
    content = _object(path)
    keys: dict[bytes, Key] = {}
    for name, given in content.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:60]!r} in {path} is no name for a key.", hint=_HINT)
        try:
            key = Key.model_validate({**given, "name": name} if isinstance(given, dict) else given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise ConfigError(f"{where} in {path} cannot be used: {first['msg']}.", hint=_HINT) from None
        if not _HASH.fullmatch(key.key) and len(key.key) < _SHORTEST:
            raise ConfigError(
                f"The key {name} in {path} has fewer than {_SHORTEST} characters, which can be guessed.",
                hint="rlm serve --new-key NAME makes one.",
            )
        digest = (
            bytes.fromhex(key.key.removeprefix("sha256:")) if _HASH.fullmatch(key.key) else _digest(key.key)
        )
        if digest in keys:
            raise ConfigError(f"{keys[digest].name} and {name} in {path} have one key.", hint=_HINT)
        keys[digest] = key.model_copy(update={"key": ""})
    if not keys:
        raise ConfigError(f"{path} has no key in it.", hint=_HINT)
    return keys


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"The file of keys {path} cannot be read: {error.strerror or error}.",
            hint="rlm serve --new-key NAME makes it.",
        ) from None
    except (ValueError, RecursionError):  # its message may show what stands there
        raise ConfigError(f"The file of keys {path} is not JSON.", hint=_HINT) from None
    if not isinstance(content, dict):
        raise ConfigError(f"The file of keys {path} must hold a JSON object.", hint=_HINT)
    return content


def _read_used(path: Path) -> dict[str, Used]:
    if not path.exists():
        return {}
    try:
        return {name: Used.model_validate(one) for name, one in _object(path).items()}
    except ValidationError:
        raise ConfigError(
            f"{path}, which has what keys have used, cannot be read.",
            hint="Restore it, or delete it: then all count from nothing.",
        ) from None


def _write(path: Path, content: Any) -> None:
    """All of it or nothing, readable by nobody else."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(content, file, indent=2)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}.", hint="Check the folder's permissions."
        ) from error


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _until_tomorrow() -> int:
    now = datetime.now(UTC)
    return 86_400 - (now.hour * 3600 + now.minute * 60 + now.second)

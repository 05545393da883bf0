"""The secrets of this process, and keeping them out of texts.

Secrets are the variables of the environment whose names suggest one, and what was told to `hold`: keys from a
keyring or the settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

REDACTED = "[redacted]"
MIN_LENGTH = 8
"""Shorter values are no secrets: replacing "1" or "test" would only spoil texts."""

_SECRET_NAME = re.compile(
    r"API_?KEY|ACCESS_?KEY|(?:^|_)TOKEN(?:_|$)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|_KEY$",
    re.IGNORECASE,
)
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie")
_NOT_SECRET = re.compile(r"_(?:FILE|PATH|DIR|URL|ENV)(?:_|$)", re.IGNORECASE)
_held: set[str] = set()
"""Secrets that no variable of the environment has."""


def hold(secret: str) -> None:
    """Have `redact` replace a secret from now on in every text, whatever secrets it is given.

    It works for what was made before, such as the writer of a trace. Values of fewer than 8 characters are no
    secrets.
    """
    if len(secret) >= MIN_LENGTH:
        _held.add(secret)


def forget_held() -> None:
    """Forget what was held, as a new process would. For tests."""
    _held.clear()


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is likely to hold a secret, as OPENAI_API_KEY or HF_TOKEN does."""
    return bool(_SECRET_NAME.search(name)) and not _NOT_SECRET.search(name)


def names_secret(name: str) -> bool:
    """Whether a header or parameter of this name is likely to hold a secret."""
    return name.lower() in _SECRET_HEADERS or is_secret_name(name.replace("-", "_"))


def secrets_in(value: object) -> list[str]:
    """The secrets in headers or parameters, by the names that these have.

    Of `Bearer KEY` also the key alone.
    """
    if isinstance(value, list | tuple):
        return [secret for one in value for secret in secrets_in(one)]
    if not isinstance(value, Mapping):
        return []
    found: list[str] = []
    for name, inner in value.items():
        if isinstance(inner, str) and names_secret(str(name)):
            found += dict.fromkeys((inner, inner.partition(" ")[2].strip() or inner))
        else:
            found += secrets_in(inner)
    return found


def known_secrets(environ: Mapping[str, str]) -> list[str]:
    """Values of at least 8 characters of the variables whose names suggest secrets; the longest first."""
    values = {value.strip() for name, value in environ.items() if is_secret_name(name)}
    return sorted(
        (value for value in values if len(value) >= MIN_LENGTH), key=lambda value: (-len(value), value)
    )


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with each secret, also as JSON writes it, replaced by `[redacted]`: those given, and those
    held.
    """
    for form in _forms(_all(secrets)):
        if form in text:
            text = text.replace(form, REDACTED)
    return text


def redact_cut(text: str, secrets: Iterable[str]) -> str:
    """`redact` for a text that was cut off: its end may be the beginning of a secret."""
    forms = _forms(_all(secrets))
    text = redact(text, secrets)
    for form in forms:
        for size in range(len(form) - 1, MIN_LENGTH - 1, -1):
            if text.endswith(form[:size]):
                return text[:-size] + REDACTED
    return text


def _all(secrets: Iterable[str]) -> tuple[str, ...]:
    """The longest first: a secret may be the beginning of another one."""
    return tuple(sorted({*secrets, *_held}, key=lambda secret: (-len(secret), secret)))


@lru_cache(maxsize=16)
def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    forms = [
        form for s in secrets for form in (s, json.dumps(s)[1:-1], json.dumps(s, ensure_ascii=False)[1:-1])
    ]
    return tuple(dict.fromkeys(form for form in forms if form))

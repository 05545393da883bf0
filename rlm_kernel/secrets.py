"""Finding the secrets of this process by the names of their variables, and keeping them out of texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

REDACTED = "[redacted]"
MIN_LENGTH = 8
"""Shorter values are no secrets: replacing "1" or "test" would only spoil texts."""

_SECRET_NAME = re.compile(r"API_?KEY|ACCESS_?KEY|(?:^|_)TOKEN(?:_|$)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|_KEY$", re.IGNORECASE)
_NOT_SECRET = re.compile(r"_(?:FILE|PATH|DIR|URL|ENV)(?:_|$)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is likely to hold a secret: OPENAI_API_KEY, HF_TOKEN, AWS_SECRET_ACCESS_KEY…"""
    return bool(_SECRET_NAME.search(name)) and not _NOT_SECRET.search(name)


def known_secrets(environ: Mapping[str, str]) -> list[str]:
    """Values of at least 8 characters of the variables whose names suggest secrets; the longest first."""
    values = {value.strip() for name, value in environ.items() if is_secret_name(name)}
    return sorted((value for value in values if len(value) >= MIN_LENGTH), key=lambda value: (-len(value), value))


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with each secret, also as JSON writes it, replaced by `[redacted]`. Give the longest first."""
    for secret in secrets:
        for form in {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}:
            if form and form in text:
                text = text.replace(form, REDACTED)
    return text

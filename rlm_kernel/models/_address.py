"""Where a model is asked and with which key: as people write them, and where they were written."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from rlm_kernel.config import LLMSettings, from_dotenv

USUAL = {"openai": "https://api.openai.com/v1"}
_AROUND = " \t\r\n\v\f\0\"'`\u201c\u201d\u2018\u2019\u00a0\u200b\u200c\u200d\u2060\ufeff"
"""What copying and `.env` files leave around a value: blanks seen and unseen, quotes of all kinds."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PASSWORD = re.compile(r"//[^/@\s]+@")


@dataclass(frozen=True)
class Address:
    """The base of a provider's API; None for the one that litellm knows.

    `source`: a setting or a variable, "" for the usual one.
    """

    url: str | None
    source: str = ""

    def told(self, used: str = "") -> str:
        """For people: the address, `used` where a request went to it, without a password, and where it was
        written.
        """
        url = self.url or used.partition("?")[0]
        shown = _PASSWORD.sub("//", url) if url else "the provider's usual one"
        return f"{shown} (from {self.source})" if self.source else f"{shown} (the default)" if url else shown


@dataclass(frozen=True)
class Key:
    """A key, and the setting or variable that it is from."""

    value: str
    source: str

    @property
    def oddity(self) -> str:
        """What in it no key has, for people; "" for nothing."""
        odd = next((character for character in self.value if not "!" <= character <= "~"), None)
        return (
            ""
            if odd is None
            else f"the character U+{ord(odd):04X}"
            if odd.isprintable() and odd != " "
            else "a blank or a line end"
        )


def address_of(
    section: str, settings: LLMSettings, provider: str, environ: Mapping[str, str] | None = None
) -> Address:
    """Where a model of that provider is asked: by the settings, by the provider's variables, or by
    default.
    """
    environ = os.environ if environ is None else environ
    if settings.api_base is not None:
        return Address(_tidy_address(settings.api_base), f"{section}.api_base")
    for variable in _variables(provider):
        written = environ.get(variable, "")
        if value := _tidy(written):
            return Address(_tidy_address(value), _source(variable, written))
    return Address(USUAL.get(provider))


def key_of(
    section: str, settings: LLMSettings, provider: str, environ: Mapping[str, str] | None = None
) -> Key | None:
    """The key for a model of that provider; None where none is set, or the provider has ways of its own to
    sign in.
    """
    environ = os.environ if environ is None else environ
    if settings.api_key is not None and (value := _tidy_key(settings.api_key.get_secret_value())):
        return Key(value, f"{section}.api_key")
    variable = settings.api_key_env or f"{_prefix(provider)}_API_KEY"
    written = environ.get(variable, "")
    value = _tidy_key(written)
    return Key(value, _source(variable, written)) if value else None


def _source(variable: str, written: str) -> str:
    return f"{variable} in .env" if from_dotenv(variable, written) else variable


def _prefix(provider: str) -> str:
    return re.sub(r"\W", "_", provider).upper()


def _variables(provider: str) -> tuple[str, ...]:
    """In litellm's order."""
    names = (f"{_prefix(provider)}_API_BASE", f"{_prefix(provider)}_BASE_URL")
    return names[::-1] if provider == "openai" else names


def _tidy(value: str) -> str:
    return value.strip(_AROUND)


def _tidy_key(value: str) -> str:
    """A key without what was copied with it."""
    return re.sub(r"^bearer\s+", "", _tidy(value), flags=re.IGNORECASE)


def _tidy_address(value: str) -> str:
    """An address with a scheme, without the path that is added to it."""
    value = _tidy(value)
    if not _SCHEME.match(value):
        value = f"{'http' if _is_near(value) else 'https'}://{value.lstrip('/')}"
    value, mark, query = value.partition("#")[0].partition("?")
    return re.sub(r"/(?:(?:chat/)?completions)?/*$", "", value) + mark + query


def _is_near(value: str) -> bool:
    """Whether an address without a scheme is of this machine or its network, where nobody has
    certificates.
    """
    try:
        host = urlsplit(f"//{value.lstrip('/')}").hostname or ""
    except ValueError:
        return False
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal", ".localhost"))

"""Where a model is asked and with which key: as people write them, and where they were written."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rlm_kernel import secrets
from rlm_kernel.config import LLMSettings, from_dotenv, provider_variable
from rlm_kernel.models._catalog import providers

_AROUND = " \t\r\n\v\f\0\"'`\u201c\u201d\u2018\u2019\u00a0\u200b\u200c\u200d\u2060\ufeff"
"""What copying and `.env` files leave around a value: blanks seen and unseen, quotes of all kinds."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PASSWORD = re.compile(r"//[^/@\s]+@")
_BEFORE_A_KEY = re.compile(
    r"(?:export\s+|set\s+|\$env:)?\w*_(?:KEY|TOKEN)\s*=\s*|(?:authorization|x-api-key)\s*:\s*|bearer(?:\s+|$)",
    re.IGNORECASE,
)
"""What stands before a key where keys are copied from: files, shells, requests."""

_SURELY_A_KEY = 20
"""Characters. What is shorter and has no digit is a word, for servers that want no key."""


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
        shown = _PASSWORD.sub("//", url) if url else "the provider's default"
        return f"{shown} (from {self.source})" if self.source else f"{shown} (the default)" if url else shown


@dataclass(frozen=True)
class Key:
    """A key, and the setting or variable that it is from. From now on no trace and no error has it.

    It is not always what a variable has: of that it may be a part, without quotes say.
    """

    value: str = field(repr=False)
    source: str

    def __post_init__(self) -> None:
        if len(self.value) >= _SURELY_A_KEY or any(map(str.isdigit, self.value)):
            secrets.hold(self.value)  # a word such as "not-needed" would only spoil texts

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
    known = providers().get(provider)
    return Address(known.base if known is not None else None)


def key_of(
    section: str, settings: LLMSettings, provider: str, environ: Mapping[str, str] | None = None
) -> Key | None:
    """The key for a model of that provider, by the settings or the environment; None where neither has one.

    `_keyring.find_key` asks the keyring as well.
    """
    environ = os.environ if environ is None else environ
    if settings.api_key is not None and (value := tidy_key(settings.api_key.get_secret_value())):
        return Key(value, f"{section}.api_key")
    for variable in _key_variables(settings, provider):
        written = environ.get(variable, "")
        if value := tidy_key(written):
            return Key(value, _source(variable, written))
    return None


def _key_variables(settings: LLMSettings, provider: str) -> tuple[str, ...]:
    known = providers().get(provider)
    if settings.api_key_env or known is None:
        return (key_variable(settings, provider),)
    return tuple(dict.fromkeys([*known.key_env, provider_variable(provider)]))


def key_variable(settings: LLMSettings, provider: str) -> str:
    """The one variable whose key goes to a model: the provider's default does not count beside
    `api_key_env`, which mostly means that the address is somebody else's.
    """
    known = providers().get(provider)
    usual = known.key_env[0] if known is not None and known.key_env else provider_variable(provider)
    return settings.api_key_env or usual


def _source(variable: str, written: str) -> str:
    return f"{variable} in .env" if from_dotenv(variable, written) else variable


def _variables(provider: str) -> tuple[str, ...]:
    """In litellm's order."""
    prefix = provider_variable(provider).removesuffix("_API_KEY")
    names = (f"{prefix}_API_BASE", f"{prefix}_BASE_URL")
    known = providers().get(provider)
    return tuple(dict.fromkeys([*(known.base_env if known is not None else ()), *names]))


def _tidy(value: str) -> str:
    return value.strip(_AROUND)


def tidy_key(value: str) -> str:
    """A key without what was copied with it."""
    value = _tidy(value)
    while before := _BEFORE_A_KEY.match(value):
        value = _tidy(value[before.end() :])
    return value


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

"""The file `.env` of the current directory: settings, API keys, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlm_kernel.config.keynames import kept_in_keyring
from rlm_kernel.errors import ConfigError
from rlm_kernel.secrets import is_secret_name

DOTENV = ".env"
KEYRING = "keyring"
_taken: dict[str, str] = {}
"""Variables that load_api_keys() has put into the environment, and their values."""


def read_dotenv(cwd: Path | None = None) -> dict[str, str]:
    """The variables of `.env` in `cwd` (default: the process's own) that have a value; empty without such a
    file. Raises ConfigError.
    """
    path = (Path.cwd() if cwd is None else cwd) / DOTENV
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}",
            hint="Save it as UTF-8 text, with lines of the form NAME=value.",
        ) from None
    return {name: value for name, value in values.items() if value}


def load_api_keys(cwd: Path | None = None) -> list[str]:
    """Put the API keys (and provider addresses) of `.env` in `cwd` into os.environ, where they are not set;
    return their names.

    Settings are read by load_settings(). Other variables of the file are left alone: a folder's `.env` must
    not steer this program's PATH or Docker host. Raises ConfigError.
    """
    loaded = []
    for name, value in read_dotenv(cwd).items():
        address = name.endswith(("_API_BASE", "_BASE_URL", "_API_VERSION")) and not name.startswith("RLM_")
        if (is_secret_name(name) or address) and not os.environ.get(name):
            os.environ[name] = value
            loaded.append(name)
            _taken[name] = value
    return loaded


def from_dotenv(name: str, value: str) -> bool:
    """Whether load_api_keys() took that value of a variable of the environment from `.env`."""
    return _taken.get(name) == value


def find_api_keys(
    wanted: Iterable[str] = (), environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> dict[str, str | None]:
    """Where API keys are, by the names of their variables: "environment", ".env", "keyring" (which is not
    asked), or None for those of `wanted` that are not set.

    Of the environment these are `..._API_KEY` and what is wanted, of `.env` all that suggests a secret.
    Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    wanted = set(wanted)
    found: dict[str, str | None] = dict.fromkeys(wanted)
    found |= dict.fromkeys(kept_in_keyring(), KEYRING)
    found |= {name: DOTENV for name in read_dotenv(cwd) if is_secret_name(name) or name in wanted}
    found |= {
        name: DOTENV if from_dotenv(name, value) else "environment"
        for name, value in environ.items()
        if value.strip() and (name.endswith("_API_KEY") or name in wanted)
    }
    return {name: found[name] for name in sorted(found) if not name.startswith("RLM_")}

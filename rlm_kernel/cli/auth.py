"""`rlm auth`: puts API keys into the system's keyring, lists them, removes them. Never shows one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._help import GroupedCommand
from rlm_kernel.cli._text import json_line
from rlm_kernel.cli.options import JSON
from rlm_kernel.errors import KeyringError, UsageError
from rlm_kernel.printable import printable

auth_app = typer.Typer(help="Keep API keys in the system's keyring.", no_args_is_help=True)

_MOST = 1 << 16
"""Bytes of standard input that are read for a key."""

_LONG = 30
"""Characters that no provider's name has."""

_Provider = Annotated[
    str,
    typer.Argument(
        metavar="PROVIDER",
        help="Name that litellm uses, such as openai or anthropic. A model, or a variable such as "
        "OPENAI_API_KEY, works too.",
        show_default=False,
        autocompletion=_complete.providers,
    ),
]


@dataclass(frozen=True)
class _Row:
    """A key that is set. `provider`: None for a variable of one's own."""

    provider: str | None
    name: str
    source: str
    in_keyring: bool
    problem: KeyringError | None

    def plain(self) -> dict[str, Any]:
        return {**vars(self), "problem": self.problem.message if self.problem else None}


@auth_app.command(cls=GroupedCommand, context_settings={"allow_extra_args": True})
def add(
    context: typer.Context,
    provider: _Provider,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Read the key from standard input instead of asking for it.")
    ] = False,
) -> None:
    """Put a provider's API key into the keyring.

    rlm asks for it without showing what you type; without a terminal it reads standard input. An older key is
    replaced.
    """
    from rlm_kernel.config import find_api_keys, load_api_keys
    from rlm_kernel.models._keyring import add_key, key_name

    if context.args:
        raise UsageError(
            "Do not write a key into the command: other users and the shell's history can see it.",
            hint="If it was a real key, revoke it at the provider. Then type: rlm auth add PROVIDER",
        )
    name = key_name(_named(provider))
    written = _asked(name, only_stdin=key_stdin)
    backend = add_key(name, written)
    typer.echo(f"rlm: {name} is in the keyring ({backend}).", err=True)
    if "plaintext" in backend.lower():
        typer.echo("rlm: this keyring stores keys unencrypted, in a file.", err=True)
    load_api_keys()
    if (place := find_api_keys().get(name)) not in (None, "keyring"):
        typer.echo(f"rlm: {name} is also set in {_told(place)}, which takes precedence.", err=True)


@auth_app.command("list", cls=GroupedCommand)
def list_command(as_json: JSON = False) -> None:
    """List the API keys that are set, and where each comes from. Never shows any part of a key."""
    from rlm_kernel.config import find_api_keys, load_api_keys
    from rlm_kernel.models._keyring import keyring_problems

    load_api_keys()
    problems = keyring_problems()
    rows = [
        _Row(_provider_of(name), name, str(place), name in problems, problems.get(name))
        for name, place in find_api_keys().items()
        if name.endswith("_API_KEY") or name in problems
    ]
    if as_json:
        typer.echo(json_line({"keys": [row.plain() for row in rows]}))
        return
    for line in _lines(rows):
        typer.echo(line)
    for problem in dict.fromkeys(filter(None, problems.values())):
        typer.echo(printable(f"rlm: {problem.message}\n{problem.hint}"), err=True)


@auth_app.command(cls=GroupedCommand)
def remove(provider: _Provider) -> None:
    """Remove a provider's API key from the keyring."""
    from rlm_kernel.models._keyring import key_name, remove_key

    name = key_name(_named(provider))
    remove_key(name)
    typer.echo(f"rlm: {name} is no longer in the keyring.", err=True)


def _lines(rows: Sequence[_Row]) -> Iterator[str]:
    if not rows:
        yield "No API key is set. To add one: rlm auth add PROVIDER"
    first = max((len(row.provider or "-") for row in rows), default=0)
    second = max((len(row.name) for row in rows), default=0)
    for row in rows:
        unused = row.in_keyring and row.source != "keyring"
        note = "the one in the keyring is not used" if unused else "not available" if row.problem else ""
        yield f"{row.provider or '-':{first}}  {row.name:{second}}  {row.source}{note and f' ({note})'}"


def _named(provider: str) -> str:
    """The provider, or the variable, that is meant.

    Raises UsageError, which does not repeat what was written: it may be a key.
    """
    from rlm_kernel.models._catalog import known_providers, provider_of
    from rlm_kernel.nearest import did_you_mean, nearest

    written = provider.strip()
    if written.isupper() and written.isidentifier():
        return written
    if written.partition(":")[0] == "local":
        raise UsageError("A local model needs no key.", hint="To use it: rlm ask -m local …")
    if written.partition("/")[0] == "glm_coding":
        return "zai"
    found = provider_of(written)
    if found is None:
        near = nearest(written.partition("/")[0], known_providers()) if len(written) < _LONG else None
        hint = (
            "Use the name that litellm uses, such as openai, anthropic or openrouter, or the variable of "
            "`api_key_env`. If you typed a key there, others may have seen it."
        )
        raise UsageError("There is no provider of that name.", hint=f"{did_you_mean(near)} {hint}".strip())
    return found


def _provider_of(name: str) -> str | None:
    from rlm_kernel.models._catalog import provider_of

    provider = name.removesuffix("_API_KEY").lower()
    return provider if provider != name.lower() and provider_of(provider) == provider else None


def _asked(name: str, *, only_stdin: bool) -> str:
    if sys.stdin.isatty() and not only_stdin:
        import getpass

        return getpass.getpass(f"{name} (your typing is not shown): ", sys.stderr)
    read = sys.stdin.buffer.read(_MOST)
    encoding = "utf-16" if read[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return read.decode(encoding, "replace")


def _told(place: str | None) -> str:
    return "the environment" if place == "environment" else str(place)

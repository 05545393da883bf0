"""What Tab offers behind `%rlm` and `%%rlm`: options, commands, and variables that can be a context."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from rlm_kernel.magics.line import COMMANDS, OPTIONS


def load(shell: InteractiveShell) -> None:
    """Have IPython ask here."""

    def offered(_shell: InteractiveShell, event: Any) -> list[str]:
        return _offered(event.text_until_cursor, event.symbol, shell.user_ns)

    for magic in ("%rlm", "%%rlm"):
        shell.set_hook("complete_command", offered, str_key=magic)  # type: ignore[no-untyped-call]


def _offered(before: str, word: str, variables: Mapping[str, Any]) -> list[str]:
    if " -- " in before:
        return []  # a question
    if word.startswith("-"):
        return [name for names, _ in OPTIONS for name in names]
    first = before.split()[:-1] == ["%rlm"] or before.split() == ["%rlm"]
    return [
        *(COMMANDS if first else ()),
        *(name for name, value in variables.items() if _is_told(name, value)),
    ]


def _is_told(name: str, value: Any) -> bool:
    """Whether it is a variable of the user's that can be a context."""
    return not (
        name.startswith("_") or name in ("In", "Out") or callable(value) or isinstance(value, ModuleType)
    )

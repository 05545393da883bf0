"""The session's names in the cells' namespace: what a cell puts in their place is kept under another name,
and they are theirs again.

Models write `chunks = list(chunks(100))` and, a turn later, `chunks(50)` or `for c in chunks`. Both must come
to something: the first works, the second gets a hint that says where the list is.
"""

from __future__ import annotations

import builtins
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

_MADE = (types.ModuleType, types.FunctionType, type)
"""What may stand for an imported module or class: another of the kind, which code imported or wrote in its
place.
"""
_FORGOTTEN = object()


class Names:
    """`own` are the session's, of which `imported` may be replaced by their like.

    `variables` is the cells' namespace.
    """

    def __init__(
        self, variables: dict[str, Any], own: Mapping[str, Any], imported: Mapping[str, Any]
    ) -> None:
        self._variables = variables
        self._own, self._imported = dict(own), dict(imported)
        self._builtins = {name: value for name, value in vars(builtins).items() if not name.startswith("_")}
        self._kept: dict[str, str] = {}
        """Name of the session to the name under which a cell's value for it is."""
        self._unused: set[str] = set()
        """Those of data (`context`, `files`, `history`) that no cell has used since: one that takes them for
        its own gets no error.
        """

    def have(self, own: Mapping[str, Any]) -> None:
        """From now on these are the session's, too."""
        for name, value in own.items():
            self._own[name] = self._variables[name] = value

    def restore(self, context: Any, answer: dict[str, Any], code: str = "") -> None:
        """After a cell of that code: put back what it replaced, and say so.

        `context` is the active input (None: there is none).
        """
        vars(builtins).update(self._builtins)  # without them nothing here would work
        own = self._own | self._imported | ({"context": context} if context is not None else {})
        moved = {}
        for name in [name for name, value in own.items() if self._is_replaced(name, value)]:
            if (value := self._variables.get(name, _FORGOTTEN)) is not _FORGOTTEN:  # else it was deleted
                moved[name] = self._keep(name, value)
            self._variables[name] = own[name]
        for name in self._unused & _names_in(code) - set(moved):
            self._unused.discard(name)
            if (kept := self._kept[name]) in self._variables:
                _say(f"`{name}` is the session's here; what an earlier cell assigned to it is in `{kept}`.")
        if moved:
            self._unused |= {name for name in moved if not callable(own[name])}
            _say(_told(moved))
        if (value := self._variables.get("answer", _FORGOTTEN)) is not answer:
            self._variables["answer"] = answer
            self._take_answer(value, answer)

    def _is_replaced(self, name: str, value: Any) -> bool:
        found = self._variables.get(name, _FORGOTTEN)
        return found is not value and not (name in self._imported and isinstance(found, _MADE))

    def _keep(self, name: str, value: Any) -> str:
        kept = self._kept.get(name, f"{name}_")
        while name not in self._kept and kept in self._variables:
            kept += "_"
        self._kept[name] = kept
        self._variables[kept] = value
        return kept

    @staticmethod
    def _take_answer(value: Any, answer: dict[str, Any]) -> None:
        """`answer = …` means what `answer["content"] = …` does; and a dict of that form that one."""
        if isinstance(value, dict) and "content" in value and set(value) <= {"content", "ready"}:
            answer.update(value)
        elif value is not _FORGOTTEN:
            answer["content"] = value
            _say(
                "this cell assigned to `answer`, which is the session's dict again. The value is in "
                'answer["content"].'
            )

    def value(self, name: str) -> Any:
        """The value of a variable; of a session's name what a cell has put there, if one has.

        Raises KeyError.
        """
        value = self._variables[name]
        return self._variables.get(self._kept[name], value) if self._is_put_aside(name) else value

    def _is_put_aside(self, name: str) -> bool:
        return name in self._kept and not self._is_replaced(
            name, self._own.get(name, self._imported.get(name))
        )

    def hint(self, error: BaseException, code: str) -> str:
        """What to do about an error that comes of a name that a cell had given another value; "" if none
        does.
        """
        if not isinstance(error, (TypeError, ValueError, AttributeError, KeyError, IndexError)):
            return ""
        used = _names_in(code)
        for name, kept in self._kept.items():
            if name in used and self._is_put_aside(name):
                return f"`{name}` is the session's; what a cell assigned to it is in `{kept}`."
        if isinstance(error, TypeError) and "not callable" in str(error):
            for name in re.findall(r"\b([a-z]\w*)\s*\(", code[:_LOOKED_AT]):
                if (
                    name in self._variables
                    and hasattr(builtins, name)
                    and not callable(self._variables[name])
                ):
                    return (
                        f"A cell assigned to `{name}`, which hides Python's own: `del {name}` brings "
                        "that back."
                    )
        return ""


_LOOKED_AT = 100_000
"""Characters of a cell in which names are looked for."""


def _names_in(code: str) -> set[str]:
    return set(re.findall(r"\b[A-Za-z_]\w*\b", code[:_LOOKED_AT]))


def _told(moved: Mapping[str, str]) -> str:
    """`moved`: each name, and the one that its value has now."""
    listed, kept = (", ".join(f"`{name}`" for name in names) for names in (moved, moved.values()))
    whose = (
        f"It is the {'input' if 'context' in moved else 'helper of the session'}"
        if len(moved) == 1
        else "They are the session's"
    )
    return (
        f"this cell assigned to {listed}. {whose} again; what the cell put there is in {kept}. Use "
        "another name for results."
    )


def _say(text: str) -> None:
    sys.stderr.write(f"Note: {text}\n")

"""Lines of `%rlm` that end with a question mark: IPython would take them for a request for help."""

from __future__ import annotations

from typing import Any

from IPython.core.inputtransformer2 import EscapedCommand, MagicAssign
from IPython.core.interactiveshell import InteractiveShell

_FIRST = 0
"""Before IPython's own, where they begin at the same place."""


class _Line(EscapedCommand):
    """`%rlm … ?`."""

    priority = _FIRST

    @classmethod
    def find(cls, tokens_by_line: Any) -> Any:
        for words in map(_words, tokens_by_line):
            if _asks(words):
                return cls(words[0].start)
        return None


class _Assigned(MagicAssign):
    """`name = %rlm … ?`. It begins with the name, as the request for help would."""

    percent: int

    priority = _FIRST

    @classmethod
    def find(cls, tokens_by_line: Any) -> Any:
        for words in map(_words, tokens_by_line):
            if [word.string for word in words[1:2]] == ["="] and _asks(words[2:]):
                found = cls(words[0].start)
                found.percent = words[2].start[1]
                return found
        return None

    def transform(self, lines: list[str]) -> Any:
        self.start_col: int = self.percent
        return super().transform(lines)


def _words(line: Any) -> list[Any]:
    """A line's tokens that are seen."""
    return [token for token in line if token.string.strip()]


def _asks(words: list[Any]) -> bool:
    """Whether these are `%rlm`, and more than `%rlm?`."""
    return [word.string for word in words[:2]] == ["%", "rlm"] and (
        len(words) > 2 and words[2].start > words[1].end
    )


def load(shell: InteractiveShell) -> None:
    """Have these lines run as they stand."""
    shell.input_transformer_manager.token_transformers += [_Line, _Assigned]


def unload(shell: InteractiveShell) -> None:
    """Take that back."""
    found = shell.input_transformer_manager.token_transformers
    found[:] = [one for one in found if one.__module__ != __name__]

"""Which of some texts stand in the active input, as whole words: the host asks it of what code has in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlm_runtime import files
from rlm_runtime.lazytext import LazyText

_MOST = 4 << 30
"""Characters that are looked through in all, about: beyond them a text counts as one that does not stand
there.
"""


def standing(wanted: Sequence[str]) -> list[bool]:
    """For each of the texts, whether it stands somewhere in the active input."""
    left = _MOST
    found = []
    for one in wanted:
        pattern = re.compile(rf"(?<!\w){re.escape(one)}(?!\w)")
        there = False
        for text in files.texts().values():
            left -= text.source.end if isinstance(text, LazyText) and text.whole else len(text)
            if there or left < 0:
                break
            there = one in text and _as_word(pattern, text)
        found.append(there)
    return found


def _as_word(pattern: re.Pattern[str], text: str | LazyText) -> bool:
    if isinstance(text, str):
        return pattern.search(text) is not None
    return next(text.finditer(pattern.pattern), None) is not None

"""Inputs for child RLMs.

They are sent to the host by themselves, or as the name of a file that it knows already: never through a
model.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any, Literal

from rlm_contract import MAX_HANDED_FILES, Handed, HandedFiles

from rlm_runtime import files, wire
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import only_returns
from rlm_runtime.picturefile import Picture

_PIECE = 1 << 20
_numbers = itertools.count(1)


class Handover:
    """What is handed over.

    `given` tells the host, `same` is what a recording knows it by. `remove` it when the call has ended.
    """

    def __init__(self, context: Any, *, by_name: bool = True) -> None:
        """`by_name`: a loaded file as such.

        Raises TypeError for what is no text, no loaded file and no JSON data.
        """
        self._name = ""
        self.given: Handed | HandedFiles | None = None
        self.same = ""
        if context is None:
            return
        if by_name and (paths := _loaded_files(context)):
            self.given, self.same = {"files": paths}, json.dumps(paths)
            return
        if isinstance(context, Picture):
            raise TypeError("a picture: show it to the sub model, llm_query(question, images=[picture])")
        as_text = isinstance(context, LazyText) or (isinstance(context, str) and _plain(context))
        form: Literal["text", "json"] = "text" if as_text else "json"
        pieces = _pieces(context) if as_text else _json(context)
        import hashlib  # not with the kernel's other modules: that one has OpenSSL, and is fast

        digest = hashlib.sha256()
        self._name = f"{os.getpid()}-{next(_numbers)}"
        wire.hand(self._name, b"")
        for piece in pieces:
            digest.update(piece)
            wire.hand(self._name, piece)
        self.same = f"{form} {digest.hexdigest()}"
        self.given = {"handed": self._name, "form": form}

    def remove(self) -> None:
        if self._name:
            wire.unhand(self._name)


def _loaded_files(context: Any) -> list[str] | None:
    """The host's paths of an input that is one of the loaded files, or some of them under their names, as
    they are.
    """
    if isinstance(context, dict):
        named = {name: files.path_of(name) for name, text in context.items() if files.files.get(name) is text}
        whole = 1 < len(context) <= MAX_HANDED_FILES and len(named) == len(context)
        return list(named.values()) if whole and all(named.values()) else None
    for name, text in files.files.items():
        if text is context and (path := files.path_of(name)):
            return [path]
    return None


def _plain(text: str) -> bool:
    """Whether a file of it is read as the very same text."""
    if "\0" in text or text.startswith("\ufeff") or only_returns(text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pieces(text: Any) -> Iterator[bytes]:
    pieces = (
        text.pieces(_PIECE)
        if isinstance(text, LazyText)
        else (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
    )
    for piece in pieces:
        yield piece.encode("utf-8", "replace")


def _json(context: Any) -> Iterator[bytes]:
    if isinstance(context, dict) and any(isinstance(text, LazyText) for text in context.values()):
        raise TypeError("some of these texts are too large for memory: hand them over one by one")
    try:
        whole = json.dumps(context).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"a context is a text, a loaded file, or lists and dicts of texts and numbers: {error}"
        ) from None
    return (whole[at : at + _PIECE] for at in range(0, len(whole), _PIECE))

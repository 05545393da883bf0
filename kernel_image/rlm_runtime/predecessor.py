"""The helpers of an earlier RLM command line under their old names, for those who come from it.

No prompt tells of them. `buffers` is a list of texts that code collects: a variable as any other, which is
there from the beginning.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from rlm_runtime import files

BUFFERS = "buffers"
SIZE = 200_000
"""Characters of a chunk."""
_ROOM = Path("/tmp")
"""What code can write to."""
_NAME_AT_MOST = 200
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "a": re.ASCII}
_variables: list[MutableMapping[str, Any]] = []


def install(variables: MutableMapping[str, Any]) -> None:
    """Called once, with the cells' namespace."""
    _variables[:] = [variables]
    variables[BUFFERS] = []


def add_buffer(text: Any) -> None:
    """Put a text into `buffers`. Raises TypeError where code has made that something else than a list."""
    buffers = _variables[0].setdefault(BUFFERS, [])
    if not isinstance(buffers, list):
        raise TypeError(f"`buffers` is a {type(buffers).__name__} now: buffers = [] makes it a list again")
    buffers.append(str(text))


def is_used(variables: MutableMapping[str, Any]) -> bool:
    """Whether code has put something into `buffers`, or made it something else."""
    buffers = variables.get(BUFFERS, [])
    return type(buffers) is not list or len(buffers) > 0


def size_of(buffers: Any) -> str:
    """What there is to say of `buffers` beside how many they are."""
    if type(buffers) is not list or not all(type(text) is str for text in buffers):
        return ""
    return f", {sum(map(len, buffers)):,} characters"


def chunk_indices(size: int = SIZE, overlap: int = 0, name: str | None = None) -> list[tuple[int, int]]:
    """(start, end) of pieces of `size` characters of the active input, or of the named file, each beginning
    with the last `overlap` characters of the one before.

    Raises ValueError for sizes that make no sense, and where several files are the input.
    """
    if size <= 0 or not 0 <= overlap < size:
        raise ValueError(f"size ({size}) must be greater than overlap ({overlap}), and overlap not negative")
    whole = len(_text(name))
    starts = range(0, max(1, whole - overlap), size - overlap) if whole else ()
    return [(start, min(whole, start + size)) for start in starts]


def write_chunks(
    out_dir: Any = "chunks",
    size: int = SIZE,
    overlap: int = 0,
    prefix: str = "chunk",
    encoding: str = "utf-8",
    *,
    name: str | None = None,
) -> list[str]:
    """Write these pieces to files, and return their paths; a folder elsewhere than in /tmp is made there.

    Files in /tmp count as the kernel's memory, and are gone with the kernel. Raises what chunk_indices
    raises, and OSError.
    """
    spans, text = chunk_indices(size, overlap, name), _text(name)
    folder = Path(os.path.abspath(out_dir))
    if not folder.is_relative_to(_ROOM):
        folder = _ROOM.joinpath(*folder.parts[1:])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (start, end) in enumerate(spans):
        path = folder / f"{Path(prefix).name}_{number:04d}.txt"
        path.write_text(text[start:end], encoding=encoding, errors="replace", newline="")
        paths.append(str(path))
    print(f"{len(paths):,} files are in {folder}, in the kernel's container.")
    return paths


def _text(name: str | None) -> Any:
    if name is not None:
        return files.text(name)
    texts = files.texts()
    if len(texts) != 1:
        raise ValueError(
            f"{len(texts):,} files are the input: switch_to(name) makes one the input, or give name=…"
        )
    return next(iter(texts.values()))


def with_instruction(
    prompt: str, model: str | None, instruction: str | None = None
) -> tuple[str, str | None]:
    """The prompt and the model of `llm_query(prompt, model)`, or of `llm_query(chunk, instruction)`: what
    cannot be a model's name is an instruction, which comes first.
    """
    if isinstance(model, str) and not _could_be_model(model):
        model, instruction = None, model if instruction is None else f"{model}\n\n{instruction}"
    return (prompt if instruction is None else f"{instruction}\n\n{prompt}"), model


def _could_be_model(name: str) -> bool:
    """Names of models have no white space and no letters beyond ASCII, and do not end as sentences do."""
    return (
        len(name) <= _NAME_AT_MOST
        and name.isascii()
        and not re.search(r"\s", name)
        and not name.endswith((".", "?", "!", ":"))
    )


def with_old_options(grep: Callable[..., Any]) -> Callable[..., Any]:
    """`grep` that also takes `max_matches`, `window` (there is none: a hit is a line) and `flags` of `re`."""

    @functools.wraps(grep)
    def found(
        pattern: Any, *given: Any, max_matches: Any = None, window: Any = None, flags: int = 0, **options: Any
    ) -> Any:
        if given and isinstance(given[0], int):  # grep(pattern, max_matches, window)
            max_matches, given = given[0], given[2:]
        if max_matches is not None:
            options.setdefault("limit", max_matches)
        if marks := "".join(mark for mark, flag in _FLAGS.items() if flags & flag):
            pattern = f"(?{marks}:{pattern})"
        return grep(pattern, *given, **options)

    return found

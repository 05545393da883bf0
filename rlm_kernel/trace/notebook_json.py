"""A notebook as text: each cell serialised by itself, and the file replaced whole."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel import system
from rlm_kernel.errors import TraceError
from rlm_kernel.trace import shape
from rlm_kernel.trace.nodes import by_lines
from rlm_kernel.trace.packed import Packed


def serialised(cell: Mapping[str, Any], *, check: bool) -> str:
    """One cell as nbformat would write it, long texts by lines.

    Raises TraceError if it is to be checked, and does not hold.
    """
    if check and (fault := shape.fault_of_made(cell)):
        raise TraceError(f"The cell {cell['id']} is no valid notebook cell: {fault}")
    mark, packed = secrets.token_hex(16), Packed(())

    def left_as_written(value: Packed) -> str:
        packed.items = value.items
        return mark

    text = "  " + json.dumps(by_lines(cell), ensure_ascii=False, indent=1, default=left_as_written).replace(
        "\n", "\n  "
    )
    before, found, behind = text.partition(f'"{mark}"')
    return f"{before}{packed.text()}{behind}" if found else text


def replace(path: Path, cells: Iterable[str], metadata: Mapping[str, Any], *, durable: bool) -> None:
    """Put a notebook of serialised cells in the file's place, atomically.

    Raises OSError, and leaves nothing then.
    """
    head = json.dumps(metadata, ensure_ascii=False, indent=1).replace("\n", "\n ")
    # In the same folder, so that the replacement is atomic; one name a trace, so that no crash leaves more
    # than one behind.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Made anew: a link in its place, in a folder that came from somebody else, would lead to any file
        # there is.
        temporary.unlink(missing_ok=True)
        with temporary.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write('{\n "cells": [')
            for number, cell in enumerate(cells):  # one by one: joined they would take as much memory again
                file.write(",\n" if number else "\n")
                file.write(cell)
            file.write(f'\n ],\n "metadata": {head},\n "nbformat": 4,\n "nbformat_minor": 5\n}}\n')
            if durable:
                file.flush()
                os.fsync(file.fileno())
        system.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise

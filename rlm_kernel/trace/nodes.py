"""A notebook in memory, and the two ways in which its texts may be written: whole, or by lines.

The same as nbformat's own, for the format that we write (nbformat 4): tests hold that. nbformat itself brings
validators whose import takes longer than most commands, and is asked only for notebooks of older formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

IS_JSON = re.compile(r"^application/(.*\+)?json$")
"""Of a kind of display: its data is any JSON, and that of all others is text."""
_OF_OLDER_FORMATS = ("orig_nbformat", "orig_nbformat_minor", "signature")


class Node(dict[str, Any]):
    """A part of a notebook, whose fields are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def node_of(value: Any) -> Any:
    """A copy of JSON in which every object is a Node."""
    if isinstance(value, Mapping):
        return Node({name: node_of(one) for name, one in value.items()})
    if isinstance(value, list | tuple):
        return [node_of(one) for one in value]
    return value


def as_read(found: Mapping[str, Any]) -> Node:
    """A notebook of nbformat 4 as programs save it, with its texts whole and without what is for one program
    alone. Its form has been checked (`shape`).
    """
    notebook: Node = node_of(found)
    for name in _OF_OLDER_FORMATS:
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        cell.metadata.pop("trusted", None)
    notebook["cells"] = [Node(_with_texts(cell, _joined)) for cell in notebook.cells]
    return notebook


def by_lines(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell with its long texts by lines, as it is written. The cell stays as it is."""
    return _with_texts(cell, _split)


def _with_texts(cell: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The cell with each text changed; `change` gets its kind, too."""
    changed = {**cell, "source": change("text/plain", cell["source"])}
    if "attachments" in cell:
        changed["attachments"] = {
            name: _bundle(bundle, change) for name, bundle in cell["attachments"].items()
        }
    if cell["cell_type"] == "code" and "outputs" in cell:
        changed["outputs"] = [_output(output, change) for output in cell["outputs"]]
    return changed


def _output(output: Mapping[str, Any], change: Callable[[str, Any], Any]) -> Node:
    changed = Node(output)
    if "data" in output:
        changed["data"] = _bundle(output["data"], change)
    elif "text" in output:
        changed["text"] = change("text/plain", output["text"])
    return changed


def _bundle(bundle: Mapping[str, Any], change: Callable[[str, Any], Any]) -> Node:
    return Node({kind: change(kind, value) for kind, value in bundle.items()})


def _joined(kind: str, value: Any) -> Any:
    if isinstance(value, list) and not IS_JSON.match(kind) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value


def _split(kind: str, value: Any) -> Any:
    lines = kind.startswith("text/") or kind in ("application/javascript", "image/svg+xml")
    return value.splitlines(True) if lines and isinstance(value, str) else value

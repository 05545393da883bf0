"""Elements of XML by their names, whichever of a format's namespaces they are in."""

from __future__ import annotations

from typing import Any


def name_of(element: Any) -> str:
    """The element's name, whichever of its namespaces it is in."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def value_of(element: Any, name: str) -> str | None:
    """The attribute of this name, in whichever namespace."""
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), None)


def child_of(element: Any, *path: str) -> Any:
    """The element that a path of names leads to; None if there is none."""
    for name in path:
        element = next((child for child in element if name_of(child) == name), None)
        if element is None:
            return None
    return element

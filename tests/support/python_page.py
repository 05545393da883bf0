"""The examples of docs/python.md: where each stands, and which public names it uses."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A block of code. `heading` is that of its section, `number` its place in it, from 1."""

    heading: str
    number: int
    code: str

    @property
    def id(self) -> str:
        return f"{self.heading.lower().replace(' ', '-')}-{self.number}"

    def uses(self) -> set[str]:
        """What it uses of the package: names that it imports, and `rlm.ask`, `session.give`, `result.cost`.

        A value is told by the name of its variable, in the page as in its tests.
        """
        tree = ast.parse(self.code)
        found = {
            name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "rlm_kernel"
            for name in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add(f"{_kind(node.value)}.{node.attr}")
        return found


def _kind(value: ast.expr) -> str:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id.lower()
    if isinstance(value, ast.Name):
        return {"applied": "result"}.get(value.id, value.id)
    if isinstance(value, ast.Call | ast.Await):
        # `RLM(…).ask(…).answer`, `(await session.ask(…)).answer`
        return "result"
    return ""


def examples() -> list[Example]:
    """All, in their order."""
    text = PAGE.read_text("utf-8")
    found: list[Example] = []
    for block in _BLOCK.finditer(text):
        outside = _BLOCK.sub("", text[: block.start()])
        heading = _HEADING.findall(outside)[-1]
        number = sum(one.heading == heading for one in found) + 1
        found.append(Example(heading, number, block[1]))
    return found

"""The rooms of rlm_kernel and the arrows between them, from the imports: `python scripts/rooms.py [--write |
--check]`.

Prints each room's lines and the rooms that it imports, and every circle of modules. `--write` draws the
picture into docs/architecture.md, between two marks; `--check` fails where the picture there is not up to
date, or there is a circle.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: begin (scripts/rooms.py --write) -->", "<!-- rooms: end -->"
BESIDE = "beside"
"""The room of the single modules in rlm_kernel/."""

How = Literal["import", "late", "typing"]
"""When a module is imported: with the importing one; in a function, when it is called; never, but to say what
type something has.
"""


@dataclass(frozen=True)
class Import:
    """One module imports another."""

    source: str
    target: str
    how: How


def modules(root: Path = ROOT) -> dict[str, Path]:
    """The project's modules by dotted name: of the host's package, and of those that run in the container."""
    found = {}
    packages = [
        path.parent
        for folder in (root, root / "kernel_image")
        for path in sorted(folder.glob("rlm_*/__init__.py"))
    ]
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(found: Mapping[str, Path]) -> list[Import]:
    """Who imports whom, and how."""
    made: dict[Import, None] = {}
    for source, path in found.items():
        package = source if path.name == "__init__.py" else source.rpartition(".")[0]
        for node, how in _statements(ast.parse(path.read_text("utf-8")), "import"):
            for target in _targets(node, package, found):
                if target != source:
                    made[Import(source, target, how)] = None
    return list(made)


def _statements(node: ast.AST, how: How) -> Iterator[tuple[ast.Import | ast.ImportFrom, How]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, how
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _statements(ast.Module(child.body, []), "typing")
            yield from _statements(ast.Module(child.orelse, []), how)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _statements(child, "late" if inside and how == "import" else how)


def _targets(node: ast.Import | ast.ImportFrom, package: str, found: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in found)
        return
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    module = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        if f"{module}.{alias.name}" in found:
            yield f"{module}.{alias.name}"
        elif module in found:
            yield module


def circles(edges: list[Import]) -> list[list[str]]:
    """The groups of modules of which each reaches each other one by imports of any kind, largest first."""
    after: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        after[edge.source].add(edge.target)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = after[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    reach = {name: reached(name) for name in list(after)}
    groups = {
        frozenset(other for other in reach[name] if name in reach.get(other, ()))
        for name in reach
        if name in reach[name]
    }
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))


def room(module: str) -> str:
    """The room of a module."""
    parts = module.split(".")
    if parts[0] != "rlm_kernel":
        return parts[0]
    if parts[-1] == "__main__":
        return "cli"
    return (
        parts[1]
        if len(parts) > 2 or (len(parts) == 2 and (ROOT / "rlm_kernel" / parts[1]).is_dir())
        else BESIDE
    )


def arrows(edges: list[Import]) -> dict[tuple[str, str], int]:
    """How many imports lead from one room to another, whenever they are made."""
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for edge in edges:
        source, target = room(edge.source), room(edge.target)
        if source != target and edge.how != "typing":
            counted[source, target] += 1
    return dict(counted)


def picture(found: Mapping[str, Path], edges: list[Import]) -> str:
    """The rooms and their arrows in Mermaid.

    Arrows to the modules beside the rooms are left out: each room has one.
    """
    rooms = dict.fromkeys(sorted({room(name) for name in found}))
    lines = [f"    {name}[{name}]" for name in rooms]
    lines += [f"    {source} --> {target}" for source, target in sorted(arrows(edges)) if target != BESIDE]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def drawn(page: str, shown: str) -> str:
    """The page with the picture between the marks. Raises ValueError for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}"


def told(found: Mapping[str, Path], edges: list[Import]) -> Iterator[str]:
    """The rooms, their arrows and the circles, a line each."""
    lines: dict[str, int] = defaultdict(int)
    for name, path in found.items():
        lines[room(name)] += len(path.read_text("utf-8").splitlines())
    leads = arrows(edges)
    for name in sorted(lines):
        to = ", ".join(
            f"{target} ({number})" for (source, target), number in sorted(leads.items()) if source == name
        )
        yield f"{name}: {lines[name]:,} lines → {to or 'nothing'}"
    for group in circles(edges):
        yield f"circle: {', '.join(group)}"
        yield from (
            f"    {edge.source} → {edge.target} ({edge.how})"
            for edge in edges
            if edge.source in group and edge.target in group
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="draw the picture into docs/architecture.md")
    parser.add_argument(
        "--check", action="store_true", help="fail where the picture is not up to date, or there is a circle"
    )
    options = parser.parse_args(arguments)
    found = modules()
    edges = imports(found)
    print("\n".join(told(found, edges)))
    page = PAGE.read_text("utf-8")
    wanted = drawn(page, picture(found, edges))
    if options.write:
        PAGE.write_text(wanted, "utf-8")
    stale = options.check and page != wanted
    if stale:
        print(
            "The picture in docs/architecture.md is not up to date: python scripts/rooms.py --write",
            file=sys.stderr,
        )
    return int(stale or (options.check and bool(circles(edges))))


if __name__ == "__main__":
    sys.exit(main())

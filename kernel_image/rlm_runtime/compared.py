"""Where code compares a column with a value that none of its records has: what the column holds instead.

Such a comparison finds nothing and says nothing, and a count of it is a wrong 0: `row["status"] == "404"`
where the column holds numbers, or `row["request"] == "/a"` where the values are longer.
"""

from __future__ import annotations

import ast
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_CHANGES = frozenset({"lower", "upper", "casefold", "title", "capitalize", "strip", "lstrip", "rstrip"})
_MOST_RECORDS = 500_000
_AT_A_TIME = 1_000
"""Records between two looks at the clock."""
_SECONDS = 0.3
_SHOWN = 80
"""Characters of a value."""


class Compared(NamedTuple):
    """`changed`: the methods of str, in order, that change the column's values before they are compared."""

    column: str
    value: str | int | float
    changed: tuple[str, ...]


def never_equal(cell: ast.AST, variables: Mapping[str, Any]) -> Iterator[tuple[Compared, str]]:
    """The comparisons of a cell that hold for no record of its tables, each with a sentence about what these
    have instead; without those whose tables have nothing like it.

    `variables`: of the session, of which those are looked at that the cell names.
    """
    until = time.monotonic() + _SECONDS
    compared = list(dict.fromkeys(_comparisons(cell)))
    named = {node.id for node in ast.walk(cell) if isinstance(node, ast.Name)} if compared else set()
    tables = [variables[name] for name in sorted(named) if name in variables]
    for one in compared:
        for table in tables:
            values = _values(table, one.column)
            if values is None:
                continue
            if said := _Column(one).what_it_has(values, until):
                yield one, said
            break


def _comparisons(cell: ast.AST) -> Iterator[Compared]:
    for node in ast.walk(cell):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
            sides = node.left, node.comparators[0]
            for side, other in (sides, sides[::-1]):
                if not isinstance(other, ast.Constant) or type(other.value) not in (str, int, float):
                    continue
                column, changed = _column(side)
                if column and other.value != "":
                    yield Compared(column, other.value, changed)  # type: ignore[arg-type]


def _column(node: ast.expr) -> tuple[str, tuple[str, ...]]:
    """The column that an expression reads, and how it changes its values; "" if it is no such expression."""
    changed: list[str] = []
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "get" and node.args:
            return _text(node.args[0]), tuple(changed)
        if node.func.attr not in _CHANGES or node.args:
            return "", ()
        changed.insert(0, node.func.attr)
        node = node.func.value
        if isinstance(node, ast.Attribute) and node.attr == "str":  # df["a"].str.lower()
            node = node.value
    return (_text(node.slice), tuple(changed)) if isinstance(node, ast.Subscript) else ("", ())


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and type(node.value) is str else ""


def _values(table: Any, column: str) -> Iterable[Any] | None:
    """The column's values of a list of dicts, or of a data frame; None of anything else."""
    if type(table) is list and table and isinstance(table[0], dict):
        if not any(dict.__contains__(row, column) for row in table[:20] if isinstance(row, dict)):
            return None
        rows = itertools.islice(table, _MOST_RECORDS)
        return (dict.get(row, column) for row in rows if isinstance(row, dict))
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame) and list(table.columns).count(column) == 1:
        return iter(table[column].head(_MOST_RECORDS).tolist())
    return None


class _Column:
    """Values of a column beside the one that they are compared with."""

    def __init__(self, compared: Compared) -> None:
        self._compared = compared
        self._literal = str(compared.value).strip().casefold()
        self._alike = 0
        self._first: Any = None
        self._way = ""

    def what_it_has(self, values: Iterable[Any], until: float) -> str:
        """A sentence, if none is equal and some are like it; "" otherwise, and where the time is over."""
        look: Callable[[Any], bool] = self._look_for_text
        if type(self._compared.value) is not str:
            look = self._look_for_number
        for number, value in enumerate(values):
            if look(value):
                return ""
            if number % _AT_A_TIME == 0 and time.monotonic() > until:
                return ""
        return self._said() if self._alike else ""

    def _look_for_text(self, value: Any) -> bool:
        """Notes a value that is like the text; True if it is equal."""
        if type(value) in (int, float):
            if _number(self._literal) == value:
                self._note(value, "number")
            return False
        if type(value) is not str:
            return False
        changed = value
        for method in self._compared.changed:
            changed = getattr(changed, method)()
        if changed == self._compared.value:
            return True
        low = value.casefold()
        if self._literal in low:
            self._note(value, "longer" if low.strip() != self._literal else "case")
        return False

    def _look_for_number(self, value: Any) -> bool:
        if type(value) in (int, float, bool):
            return bool(value == self._compared.value)
        if type(value) is str and _number(value.strip()) == self._compared.value:
            self._note(value, "text")
        return False

    def _note(self, value: Any, way: str) -> None:
        self._alike += 1
        if not self._way or (way != "longer" and self._way == "longer"):  # the nearest one is shown
            self._first, self._way = value, way

    def _said(self) -> str:
        column, wanted = f"{self._compared.column!r:.80}", f"{self._compared.value!r:.80}"
        first = repr(self._first[:_SHOWN]) if type(self._first) is str else repr(self._first)
        if self._way in ("number", "text"):
            kind = "numbers" if self._way == "number" else "text"
            return f"No value in the column {column} is {wanted}: it holds {kind}. Compare with {first}."
        if self._way == "case":
            return (
                f"No value in the column {column} is {wanted}, but some are in another case or have spaces "
                f"around them, such as {first}."
            )
        have = "1 has it as a part" if self._alike == 1 else f"{self._alike:,} have it as a part"
        return (
            f"No value in the column {column} is {wanted}, but {have}, such as {first}. `in` looks for parts."
        )


def _number(said: str) -> float | None:
    try:
        return float(said)
    except ValueError:
        return None

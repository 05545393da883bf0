"""Where code compares a column with a value that none of its records has: what the column holds instead.

Such a comparison finds nothing and says nothing, and a count of it is a wrong 0: `row["status"] == "404"`
where the column holds numbers, or `row["request"] == "/a"` where the values are longer.
"""

from __future__ import annotations

import ast
import itertools
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_CHANGES = frozenset({"lower", "upper", "casefold", "title", "capitalize", "strip", "lstrip", "rstrip"})
_IN_PLACE = frozenset({"remove", "pop", "clear"})
"""Methods by which records go out of a table."""
_MOST_RECORDS = 500_000
_AT_A_TIME = 16
"""Records between two looks at the clock."""
_LONG = 20_000
"""Characters of a value that is not looked into."""
_SECONDS = 0.3
_OF_ITS_OWN = 3
"""The version of pandas from which on text has a type of its own."""
_SHOWN = 80
"""Characters of a value."""


class Compared(NamedTuple):
    """`changed`: the methods of str, in order, that change the column's values before they are compared."""

    column: str
    value: str | int | float
    changed: tuple[str, ...]


def never_equal(cell: ast.AST, variables: Mapping[str, Any]) -> Iterator[tuple[Compared, str]]:
    """The comparisons of a cell that hold for no record of its tables, each with a sentence about what these
    have instead. Without those whose tables have nothing like it, are too large to be looked through, or may
    have changed since.

    `variables`: of the session, of which those are looked at that the cell names.
    """
    until = time.monotonic() + _SECONDS
    compared = list(dict.fromkeys(_comparisons(cell, _single(cell, variables))))
    if not compared:
        return
    columns, names = _changed(cell)
    named = {node.id for node in ast.walk(cell) if isinstance(node, ast.Name)} - names
    tables = [variables[name] for name in sorted(named) if name in variables]
    for one in compared:
        if one.column in columns:
            continue
        # Which of them is meant is not known: what is said holds for all.
        told = list(_told(one, tables, until))
        if None not in told and (said := next(filter(None, told), None)):
            yield one, said


def text_is_no_object(cell: ast.AST) -> Iterator[tuple[str, str]]:
    """A comparison with the type that text had in pandas before 3: now no column of text has it."""
    pandas = sys.modules.get("pandas")
    if pandas is None or int(pandas.__version__.partition(".")[0]) < _OF_ITS_OWN:
        return
    for node in ast.walk(cell):
        if (
            isinstance(node, ast.Compare)
            and len(node.ops) == 1
            and isinstance(node.ops[0], ast.Eq | ast.NotEq)
        ):
            sides = node.left, node.comparators[0]
            objects = any(_text(side) in ("object", "O") or _is_object(side) for side in sides)
            if objects and any(isinstance(side, ast.Attribute) and side.attr == "dtype" for side in sides):
                yield (
                    "dtype",
                    "In this pandas, columns of text have the dtype str, not object: "
                    "pd.api.types.is_string_dtype(column) is True for them.",
                )
                return


def _is_object(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "object"


def _told(one: Compared, tables: Iterable[Any], until: float) -> Iterator[str | None]:
    """Of each table that has the column, as of `what_it_has`."""
    for table in tables:
        if time.monotonic() > until:
            yield None
            return
        if (values := _values(table, one.column)) is not None:
            yield _Column(one).what_it_has(values, until)


def _single(cell: ast.AST, variables: Mapping[str, Any]) -> set[str]:
    """Names of dicts that are no records of a table as far as the cell shows: no loop gives them."""
    looped: set[str] = set()
    for node in ast.walk(cell):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            looped |= {part.id for part in ast.walk(node.target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.arg):
            looped.add(node.arg)
    used = {node.id for node in ast.walk(cell) if isinstance(node, ast.Name)} - looped
    return {name for name in used if isinstance(variables.get(name), dict)}


def _changed(cell: ast.AST) -> tuple[set[str], set[str]]:
    """The columns that the cell sets, and the names of tables that it makes anew out of themselves."""
    columns: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(cell):
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            columns |= {part.value for part in ast.walk(node.slice) if _is_text(part)}  # type: ignore[attr-defined]
        elif isinstance(node, ast.Assign):
            read = _names(node.value)
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)} & read
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            in_place = node.func.attr in _IN_PLACE or any(one.arg == "inplace" for one in node.keywords)
            names |= _names(node.func.value) if in_place else set()
    return columns, names


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is str


def _comparisons(cell: ast.AST, single: Collection[str]) -> Iterator[Compared]:
    """`single`: names that stand for no column."""
    for node in ast.walk(cell):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
            sides = node.left, node.comparators[0]
            for side, other in (sides, sides[::-1]):
                if not isinstance(other, ast.Constant) or type(other.value) not in (str, int, float):
                    continue
                column, changed, of = _column(side)
                if isinstance(of, ast.Name) and of.id in single:
                    continue
                if column and other.value != "":
                    yield Compared(column, other.value, changed)  # type: ignore[arg-type]


def _column(node: ast.expr) -> tuple[str, tuple[str, ...], ast.expr]:
    """The column that an expression reads, how it changes its values, and of what it is one; "" if it is no
    such expression.
    """
    changed: list[str] = []
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "get" and node.args:
            return _text(node.args[0]), tuple(changed), node.func.value
        if node.func.attr not in _CHANGES or node.args:
            return "", (), node
        changed.insert(0, node.func.attr)
        node = node.func.value
        if isinstance(node, ast.Attribute) and node.attr == "str":  # df["a"].str.lower()
            node = node.value
    if isinstance(node, ast.Subscript):
        return _text(node.slice), tuple(changed), node.value
    return "", (), node


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and type(node.value) is str else ""


def _values(table: Any, column: str) -> Iterable[Any] | None:
    """The column's values of a list of dicts, or of a data frame; None of anything else."""
    if type(table) is list and table and isinstance(table[0], dict):
        if not any(dict.__contains__(row, column) for row in table[:20] if isinstance(row, dict)):
            return None
        rows = itertools.islice(table, _MOST_RECORDS + 1)
        return (dict.get(row, column) for row in rows if isinstance(row, dict))
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame) and list(table.columns).count(column) == 1:
        found: list[Any] = table[column].head(_MOST_RECORDS + 1).tolist()
        return found
    return None


class _Column:
    """Values of a column beside the one that they are compared with."""

    def __init__(self, compared: Compared) -> None:
        self._compared = compared
        self._literal = str(compared.value).strip().casefold()
        self._alike = 0
        self._first: Any = None
        self._way = ""

    def what_it_has(self, values: Iterable[Any], until: float) -> str | None:
        """A sentence, if none is equal and some are like it; "" if none is; None if one is equal, and where
        the time is over, or they are too many.
        """
        look: Callable[[Any], bool] = self._look_for_text
        if type(self._compared.value) is not str:
            look = self._look_for_number
        for number, value in enumerate(values):
            if look(value):
                return None
            if number % _AT_A_TIME == 0 and time.monotonic() > until:
                return None
            if number == _MOST_RECORDS:
                return None
        return self._said() if self._alike else ""

    def _look_for_text(self, value: Any) -> bool:
        """Notes a value that is like the text; True if it is equal."""
        if type(value) in (int, float):
            if _number(self._literal) == value:
                self._note(value, "number")
            return False
        if not isinstance(value, str):
            return self._equals(value)
        changed = value
        for method in self._compared.changed:
            changed = getattr(changed, method)()
        if changed == self._compared.value:
            return True
        if len(value) > _LONG:
            return False
        low = value.casefold()
        if self._literal in low:
            self._note(value, "longer" if low.strip() != self._literal else "case")
        return False

    def _look_for_number(self, value: Any) -> bool:
        if type(value) in (int, float, bool):
            return bool(value == self._compared.value)
        if not isinstance(value, str):
            return self._equals(value)
        if _number(value.strip()) == self._compared.value:
            self._note(value, "text")
        return False

    def _equals(self, value: Any) -> bool:
        """Of another type, as a Decimal is, or a number of numpy."""
        try:
            return bool(value == self._compared.value)
        except Exception:  # pandas.NA, say: the cell did not find it equal either
            return False

    def _note(self, value: Any, way: str) -> None:
        self._alike += 1
        if not self._way or (way != "longer" and self._way == "longer"):  # the nearest one is shown
            self._first, self._way = value, way

    def _said(self) -> str:
        column, wanted = f"{self._compared.column!r:.80}", f"{self._compared.value!r:.80}"
        first = repr(str(self._first[:_SHOWN])) if isinstance(self._first, str) else repr(self._first)
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

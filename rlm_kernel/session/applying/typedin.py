"""Answers that do not depend on the input: the root model read them in outputs, and typed them into its
code.

By a walk through the code, in the order in which it runs: a name that was given nothing but literals, and
what is computed of such names alone, is typed in. What a function of the code's own gives counts as computed,
and so does what stands under a condition that is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from rlm_kernel.engine import python

_PURE = {
    "abs", "bool", "dict", "float", "format", "int", "len", "list", "max", "min", "repr", "round", "set",
    "sorted", "str", "sum", "tuple", "enumerate", "range", "zip", "reversed", "Counter", "frozenset", "map",
}  # fmt: skip
_MODULES = {"json", "math", "statistics", "collections", "re", "textwrap", "datetime"}
_DELIVER = ("FINAL", "FINAL_VAR")


class TypedIn:
    """Hears of the cells as they run, and knows which names hold nothing but what was typed in."""

    def __init__(self) -> None:
        self._typed: set[str] = set()
        self._found = False

    def answer_of(self, code: str) -> bool:
        """Whether the cell, which is heard of by this, delivers an answer that was typed in."""
        tree = python.cell(code) if python.parses(code) else None
        if tree is None:
            return False
        self._found = False
        try:
            self._walk(tree.body, sure=True)
        except RecursionError:
            self._typed.clear()
        return self._found

    def _walk(self, body: Iterable[ast.stmt], *, sure: bool) -> None:
        """`sure`: it runs whatever the input is."""
        for node in body:
            self._statement(node, sure=sure)

    def _statement(self, node: ast.stmt, *, sure: bool) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                self._look(value, sure=sure)
                for target in targets:
                    self._assign(target, value, sure=sure)
            case ast.AnnAssign(target=target, value=value) if value is not None:
                self._assign(target, value, sure=sure)
            case ast.AugAssign(target=target, value=value):
                if not (sure and self._is_typed(value) and self._is_typed(target)):
                    self._forget(target)
            case ast.Expr(value=value):
                self._look(value, sure=sure)
            case ast.If(test=test, body=body, orelse=orelse):
                held = sure and self._is_typed(test)
                self._walk([*body, *orelse], sure=held)
            case ast.While(test=test, body=body, orelse=orelse):
                self._walk([*body, *orelse], sure=sure and self._is_typed(test))
            case ast.For(target=target, iter=over, body=body, orelse=orelse):
                held = sure and self._is_typed(over)
                self._assign(target, over, sure=held)
                self._walk([*body, *orelse], sure=held)
            case ast.With(items=items, body=body):
                for item in items:
                    if item.optional_vars is not None:
                        self._forget(item.optional_vars)
                self._walk(body, sure=sure)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                self._walk([*body, *orelse, *final], sure=sure)
                for handler in handlers:
                    self._walk(handler.body, sure=False)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self._typed.discard(name)
            case _:
                pass

    def _look(self, value: ast.expr, *, sure: bool) -> None:
        """At calls that deliver, and at those that change what a name holds."""
        value = value.value if isinstance(value, ast.Await) else value
        if not isinstance(value, ast.Call):
            return
        given = [*value.args, *(keyword.value for keyword in value.keywords)]
        if isinstance(value.func, ast.Name) and value.func.id in _DELIVER:
            self._found = self._found or (sure and self._delivers(value.func.id, given))
        elif isinstance(value.func, ast.Attribute) and not all(map(self._is_typed, given)):
            self._forget(value.func.value)  # found.append(line)

    def _delivers(self, how: str, given: Sequence[ast.expr]) -> bool:
        if how == "FINAL_VAR" and given and isinstance(given[0], ast.Constant):
            return str(given[0].value) in self._typed
        return bool(given) and all(map(self._is_typed, given))

    def _assign(self, target: ast.expr, value: ast.expr, *, sure: bool) -> None:
        typed = sure and self._is_typed(value)
        if isinstance(target, ast.Name):
            (self._typed.add if typed else self._typed.discard)(target.id)
        elif isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                self._assign(one, value, sure=sure)
        elif isinstance(target, ast.Starred):
            self._assign(target.value, value, sure=sure)
        elif _is_answer(target):
            self._found = self._found or (typed and not _is_flag(target))
        elif not typed:
            self._forget(target)

    def _forget(self, target: ast.expr) -> None:
        while isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
            target = target.value
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._typed.discard(node.id)

    def _is_typed(self, node: ast.expr) -> bool:
        match node:
            case ast.Constant():
                return True
            case ast.Name(id=name):
                return name in self._typed
            case ast.Call(func=func, args=args, keywords=keywords):
                given = [*args, *(keyword.value for keyword in keywords)]
                return self._is_pure(func) and all(map(self._is_typed, given))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._is_typed_each(node)
            case ast.Lambda():
                return True
            case ast.Await() | ast.Yield() | ast.YieldFrom() | ast.NamedExpr():
                return False
            case _:
                below = [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
                return all(map(self._is_typed, below))

    def _is_typed_each(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> bool:
        before = set(self._typed)
        try:
            for one in node.generators:
                if not self._is_typed(one.iter):
                    return False
                self._typed |= {name.id for name in ast.walk(one.target) if isinstance(name, ast.Name)}
            made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            return all(map(self._is_typed, [*made, *(test for one in node.generators for test in one.ifs)]))
        finally:
            self._typed = before

    def _is_pure(self, func: ast.expr) -> bool:
        if isinstance(func, ast.Name):
            return func.id in _PURE
        if not isinstance(func, ast.Attribute):
            return False
        of_module = isinstance(func.value, ast.Name) and func.value.id in _MODULES
        return of_module or self._is_typed(func.value)


def _is_answer(target: ast.expr) -> bool:
    """`answer["content"]`."""
    return (
        isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Name)
        and target.value.id == "answer"
    )


def _is_flag(target: ast.expr) -> bool:
    assert isinstance(target, ast.Subscript)
    return isinstance(target.slice, ast.Constant) and target.slice.value == "ready"

"""What to do about an error that is told best with what the session holds: which value the last cell made, in
which text a pattern found nothing, which file a name is that of, what a column holds that was compared.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from rlm_runtime import compared, labels, missed, overnames
from rlm_runtime.files import files

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

_LOOKED_AT = 20_000
"""Characters of a cell that are parsed."""
_SHOWN = 300
"""Characters of a text that was searched."""
_SHORT = 80
_FILES = 1_000
_DELIVERS = re.compile(r"\s*FINAL(?:_VAR)?\(\s*(['\"]?)(\w+)\1\s*\)\s*$")
_SEARCHES = ("search", "match", "fullmatch")
_LOOKS = re.compile(r"[=!]=|\bin\b")
"""What a cell has that looks for something."""
_SET_UP = ("load_files(", "paths = ", "question = ")


class LastCell:
    """Knows the cells that have run."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._told: set[compared.Compared | str] = set()

    def hint(self, error: BaseException, code: str) -> str:
        """One or two sentences; "" where there is nothing to say."""
        if type(error) is NameError and (asked := re.match(_DELIVERS, code[:_LOOKED_AT])):
            return self._never_set(asked[2])
        if type(error) is NameError and type(error.name) is str:
            return _is_a_file(error.name)
        if type(error) is AttributeError and "'NoneType' object has no attribute" in str(error):
            return _nothing_found(error, code)
        if missed.found_nothing(error, str(error)) and (cell := _parsed(code[:_LOOKED_AT])):
            variables = self._shell.user_ns
            told = next((said for _, said in compared.never_equal(cell, variables)), "")
            return told or missed.line_with_words(cell, variables.get("context"))
        return ""

    def after(self, result: ExecutionResult) -> None:
        """Print what is to be told of a cell that raised nothing: each thing once in a session."""
        code = result.info.raw_cell or ""
        if result.error_in_exec is not None or not _LOOKS.search(code):
            return
        with contextlib.suppress(Exception):  # values of a cell's own classes do what they want
            for said in self._remarks(code):
                print(f"Note: {said}", file=sys.stderr)

    def _remarks(self, code: str) -> Iterator[str]:
        cell = _parsed(code[:_LOOKED_AT])
        if cell is None:
            return
        variables = self._shell.user_ns
        for one, said in itertools.chain(
            compared.never_equal(cell, variables),
            compared.text_is_no_object(cell),
            overnames.looked_for(cell, variables),
        ):
            if one not in self._told:
                self._told.add(one)
                yield said

    def _never_set(self, name: str) -> str:
        """Where a name that no cell has set is to be delivered."""
        if name in self._shell.user_ns:
            return ""
        before = self._before()
        last = before.body[-1] if before is not None and before.body else None
        if last is None:
            return ""
        missing = f"No cell has set `{name}`."
        if isinstance(last, ast.Expr) and not _prints(last.value):
            shown = ast.unparse(last.value)
            if len(shown) <= _SHORT and "\n" not in shown:
                return f"{missing} FINAL({shown}) delivers what the last cell showed."
            return f"{missing} The last cell showed a value and kept it in no variable."
        made = [one for one in _assigned(before) if one in self._shell.user_ns]
        if made and made[-1] != name:
            return f"{missing} The last cell set `{made[-1]}`: FINAL({made[-1]}) delivers that."
        return ""

    def _before(self) -> ast.Module | None:
        """The cell before this one."""
        ran = self._shell.user_ns.get("In")
        if type(ran) is not list or len(ran) < 2 or type(ran[-2]) is not str:
            return None
        source: str = ran[-2]
        if len(source) > _LOOKED_AT or source.startswith(_SET_UP):
            return None
        return _parsed(source)


def _is_a_file(name: str) -> str:
    """Where a name is that of a loaded file, as in `orders` for orders.csv."""
    found = next((one for one in itertools.islice(files, _FILES) if _stem(one) == name.lower()), None)
    if found is None:
        return ""
    text = "`context`" if len(files) == 1 else f"`files[{found!r}]`"
    return f"The text of {labels.on_a_line(found)} is in {text}."


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.lower()


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _prints(node: ast.expr) -> bool:
    """It shows nothing of its own: a call of print, or of what returns nothing."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def _assigned(cell: ast.Module | None) -> list[str]:
    """The variables that the lines of a cell set, outside of functions and loops, in order."""
    found: list[str] = []
    for line in cell.body if cell is not None else ():
        targets = (
            line.targets
            if isinstance(line, ast.Assign)
            else [line.target]
            if isinstance(line, ast.AnnAssign | ast.AugAssign)
            else []
        )
        found += [target.id for target in targets if isinstance(target, ast.Name)]
    return found


def _nothing_found(error: BaseException, code: str) -> str:
    """Which text a search that found nothing went through."""
    frame, line = _own_frame(error, code)
    cell = _parsed(code[:_LOOKED_AT])
    if frame is None or cell is None:
        return ""
    for node in ast.walk(cell):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _SEARCHES
            and len(node.args) >= 2
            and node.lineno <= line <= (node.end_lineno or node.lineno)
        ):
            text = _value(node.args[1], frame)
            if type(text) is str:
                if len(text) > _SHOWN and (told := missed.line_with_words(node, text)):
                    return told
                cut = repr(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
                return f"re.{node.func.attr} found nothing in {cut}. Correct the pattern."
    return ""


def _own_frame(error: BaseException, code: str) -> tuple[FrameType | None, int]:
    """The frame of the cell in which it was raised, and the line."""
    found: tuple[FrameType | None, int] = (None, 0)
    trace = error.__traceback__
    while trace is not None:
        about: CodeType = trace.tb_frame.f_code
        if about.co_name == "<module>" and "rlm_runtime" not in about.co_filename:
            found = trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
    return found


def _value(node: ast.expr, frame: FrameType) -> Any:
    """The value of a name, of a part of it by name or by number; None for what would run more code."""
    simple = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Load, ast.UnaryOp, ast.USub)
    if not all(isinstance(part, simple) for part in ast.walk(node)):
        return None
    try:
        return eval(
            compile(ast.Expression(node), "<text>", "eval"), frame.f_globals, frame.f_locals
        )  # it is the cell's own code once more
    except Exception:
        return None

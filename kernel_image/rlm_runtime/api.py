"""The names that code in a cell has, and what happens before and after each cell."""

from __future__ import annotations

import csv
import difflib
import json
import math
import platform
import random
import re
import sys
import types
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_contract import RUN

from rlm_runtime import (
    batches,
    byname,
    citing,
    classifying,
    display,
    engine,
    files,
    habits,
    hosttools,
    pictures,
    predecessor,
    queries,
    tables,
    wide,
    wire,
)
from rlm_runtime.delivery import delivery, plain
from rlm_runtime.lastcell import LastCell
from rlm_runtime.names import Names
from rlm_runtime.pdfpages import pdf_page
from rlm_runtime.schemas import Wanted

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell

    from rlm_runtime.cells import Cells

_expected: list[Wanted] = []
_shell: list[InteractiveShell] = []
_names: list[Names] = []
_as_text: set[str] = set()
"""Names of variables that are meant as texts."""
_NO_VALUES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    types.GeneratorType,
    map,
    filter,
    zip,
)
_EMPTY = {"content": None, "ready": False}
"""The session's `answer` at the beginning."""
_MAX_VALUES = 500_000
"""Strings, lists, dicts and commas of an answer's data, which the host takes."""


class Delivered(BaseException):
    """Ends the cell once the answer is with the host.

    Not an Exception: `except Exception` in a cell must not hold it up.
    """


def budget() -> dict[str, Any]:
    """What is left of every limit of this run; None where there is no limit."""
    left: dict[str, Any] = wire.call("budget", {})
    return left


class _History(Sequence[dict[str, Any]]):
    """The conversation so far in full, a dict for each question: question, turns (reply, cells with code and
    output), answer.

    The host tells it when it is looked at, once a cell.
    """

    def __init__(self) -> None:
        self._told: tuple[str, list[dict[str, Any]]] | None = None

    def _talk(self) -> list[dict[str, Any]]:
        if self._told is None or self._told[0] != wire.current_cell:
            self._told = (wire.current_cell, wire.call("history", {}))
        return self._told[1]

    def __getitem__(self, index: Any) -> Any:
        return self._talk()[index]

    def __len__(self) -> int:
        return len(self._talk())

    def __repr__(self) -> str:
        return (
            f"<history: {len(self)} questions, the last {self[-1]['question'][:80]!r}>"
            if len(self)
            else "<history: empty>"
        )


def expect_answer(schema: dict[str, Any] | None) -> None:
    """From now on the answer must fit a JSON schema: FINAL refuses others. None: it may be anything."""
    _expected[:] = [] if schema is None else [Wanted(schema)]


def describe() -> dict[str, Any]:
    """What the host asks before the first turn: the input as `files.describe` tells it, and whether the
    answer must have a form; and of the batch that was cut off last how much of it is there.
    """
    left = batches.described(_shell[0].user_ns) if _shell else None
    asked = {"typed": bool(_expected), "cites": citing.is_expected()}
    return {**files.describe(), **asked, "partial": left, "tools": hosttools.described()}


def _deliver(value: Any) -> None:
    limit = wire.session()["max_request"]
    if _expected:
        try:
            value = _expected[0].of(value if isinstance(value, str) else plain(value, limit))
        except ValueError as wrong:
            raise ValueError(
                f"this answer does not fit what was asked for: {wrong}. The schema: {_expected[0].told}"
            ) from None
    text, data, typed = delivery(value, limit)
    given = citing.evidence(text, data if typed else None)
    beside = {"evidence": given} if given else {}
    if isinstance(data, (dict, list)):
        written = json.dumps(data, ensure_ascii=False)
        too_many = (
            written.count('"') // 2 + sum(map(written.count, ",[{")) > _MAX_VALUES
            or len(written) + len(text) > limit // 4
        )
        # A large table goes as its text; of other data it is the host that makes the text, which would take
        # twice the room.
        answer = (
            {"value": data} if not text else {"text": text} if too_many else {"text": text, "value": data}
        )
    else:
        answer = {"text": text, "value": data} if typed else {"text": text}
    try:
        wire.call("final", answer | beside)
    except wire.HostCallError as refused:
        citing.withdraw(str(refused))
        raise
    citing.delivered()


def FINAL(value: Any) -> None:
    """Deliver the answer and end the cell.

    Text goes as it is; a table whole, as CSV and as records; other values as JSON.

    Raises TypeError for what is no value, such as a function or a generator; ValueError for an empty `answer`
    and, once, for the name of a variable as a text.
    """
    __tracebackhide__ = True
    value = _content(value)
    if isinstance(value, str) and _could_mean_variable(value) and value not in _as_text:
        _as_text.add(value)
        raise ValueError(
            f"FINAL({value!r}) delivers that very text. FINAL({value}) delivers the variable. For the text "
            "call it again."
        )
    try:
        _deliver(value)
    except (TypeError, ValueError, wire.HostCallError) as wrong:
        raise wrong.with_traceback(None) from None  # how it came about is of no use to who reads it
    raise Delivered


def _content(value: Any) -> Any:
    """What is delivered of the session's `answer`: what was put into it.

    Any other value as it is. Raises ValueError if that is nothing.
    """
    if type(value) is not dict or set(value) != set(_EMPTY):
        if type(value) is str and value.strip() == str(_EMPTY):
            raise ValueError(_NOTHING)
        return value
    if value["content"] is None:
        raise ValueError(_NOTHING)
    return value["content"]


_NOTHING = (
    'nothing was put into `answer`: answer["content"] is None. Write FINAL(value) with the answer itself.'
)


def FINAL_VAR(name: Any) -> None:
    """Deliver the value of the variable of that name (or the value itself) and end the cell."""
    variables = _shell[0].user_ns
    if not isinstance(name, str) or _is_value(name):
        _as_text.update([name] if isinstance(name, str) else [])
        FINAL(name)
    name = name.strip(" \t\n`'\"")
    if name not in variables:
        close = difflib.get_close_matches(name, _made_names(), 3)
        hint = f" Did you mean {' or '.join(close)}?" if close else " SHOW_VARS() lists what there is."
        hint += " FINAL(value) delivers a value."
        raise NameError(f"FINAL_VAR: no variable named {name[:80]!r}.{hint}")
    value = _names[0].value(name)
    _as_text.update([value] if isinstance(value, str) else [])
    FINAL(value)


def _is_value(text: str) -> bool:
    """Whether a text is what a variable holds, and no name of one: FINAL_VAR(result) says which is meant."""
    if text.strip(" \t\n`'\"").isidentifier():
        return False  # Python keeps one of each such text: that it is the same tells nothing
    return any(_shell[0].user_ns[name] is text for name in _made_names())


def _could_mean_variable(text: str) -> bool:
    """Whether a text is the name of a variable that code has made, and that could be delivered."""
    return (
        text.isidentifier() and text in _made_names() and not isinstance(_shell[0].user_ns[text], _NO_VALUES)
    )


def _made_names() -> list[str]:
    hidden, own = (
        _shell[0].user_ns_hidden,
        {*NAMES, *IMPORTED, *hosttools.declared, "answer", "context", predecessor.BUFFERS},
    )
    names = _shell[0].user_ns
    made = [
        name
        for name in names
        if isinstance(name, str) and not name.startswith("_") and name not in hidden and name not in own
    ]
    return made + ([predecessor.BUFFERS] if predecessor.is_used(names) else [])


def SHOW_VARS() -> dict[str, str]:
    """The variables that code has made: name to type and size."""
    found = {}
    for name in _made_names():
        value = _shell[0].user_ns[name]
        found[name] = type(value).__name__ + _long(value)
        found[name] += predecessor.size_of(value) if name == predecessor.BUFFERS else ""
    return found


def _long(value: Any) -> str:
    if (
        not hasattr(type(value), "__len__") or type(value).__module__ == "__main__"
    ):  # what a cell wrote itself may not even end
        return ""
    try:
        return f", {len(value):,} long"
    except Exception:
        return ""


NAMES: dict[str, Any] = {
    "files": files.files,
    "load_file": files.load_file,
    "load_files": files.load_files,
    "load_object": files.load_object,
    "switch_to": files.switch_to,
    "list_files": files.list_files,
    "remove_file": files.remove_file,
    "peek": files.peek,
    "grep": predecessor.with_old_options(files.grep),
    "chunks": files.chunks,
    "records": files.records,
    "pdf_page": pdf_page,
    "llm_query": queries.llm_query,
    "llm_query_batched": queries.llm_query_batched,
    "allm_query": queries.allm_query,
    "rlm_query": queries.rlm_query,
    "rlm_query_batched": queries.rlm_query_batched,
    "cite": citing.cite,
    "expect_answer": expect_answer,
    "expect_evidence": citing.expect_evidence,
    "tools": hosttools.tools,
    "budget": budget,
    "history": _History(),
    "SHOW_VARS": SHOW_VARS,
    "FINAL": FINAL,
    "FINAL_VAR": FINAL_VAR,
    "HostCallError": wire.HostCallError,
    "LLMError": wire.LLMError,
    "BudgetExceeded": wire.BudgetExceeded,
    "FileRefused": wire.FileRefused,
    "PictureError": wire.PictureError,
    "NoRecord": wire.NoRecord,
    "ToolError": wire.ToolError,
    "Cancelled": wire.Cancelled,
    "CallFailed": wire.CallFailed,
}


IMPORTED: dict[str, Any] = {
    "re": re,
    "json": json,
    "csv": csv,
    "math": math,
    "Counter": Counter,
    "defaultdict": defaultdict,
    "add_buffer": predecessor.add_buffer,
    "chunk_indices": predecessor.chunk_indices,
    "write_chunks": predecessor.write_chunks,
    "classify": classifying.classify,
}
"""What code may use without importing it, and may have functions, classes and modules of its own in place
of.
"""


class CellHooks:
    """Keeps the namespace whole from cell to cell. Lives on the kernel's main thread."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._variables = shell.user_ns
        self._answer: dict[str, Any] = dict(_EMPTY)
        self._variables["answer"] = self._answer
        self._variables["context"] = None
        files.on_activate(lambda value: self._variables.__setitem__("context", value))
        batches.on_cut_off(lambda results: self._variables.__setitem__("partial_results", results))

    def before(self, info: ExecutionInfo) -> None:
        wire.begin_cell(getattr(info, "cell_id", None), info.raw_cell or "")
        batches.begin_cell()

    def after(self, result: ExecutionResult) -> None:
        if isinstance(result.error_in_exec, Delivered):
            result.error_in_exec = None  # to Jupyter the cell is ok
        if "_oh" not in self._variables:  # all was cleared, IPython's own names among it
            _shell[0].init_user_ns()
        _names[0].restore(files.active(), self._answer, result.info.raw_cell or "")
        batches.end_cell()
        wire.end_cell()
        try:
            if self._answer.get("ready"):
                self._answer["ready"] = False
                _deliver(_content(_EMPTY | self._answer))
        except (Exception, KeyboardInterrupt):
            _shell[0].showtraceback()
            result.error_in_exec = sys.last_value  # as it is shown: its message is bounded


def install(shell: InteractiveShell, cells: Cells) -> None:
    """Put the names into the shell's namespace, follow its cells, and tell the host that the kernel is up."""
    _shell.append(shell)
    tables.allow_long_fields()
    random.seed(0)  # a sample that a cell draws is the same at replay
    hooks = CellHooks(shell)
    shell.push(NAMES | IMPORTED, interactive=False)
    predecessor.install(shell.user_ns)
    _names.append(Names(shell.user_ns, NAMES, IMPORTED))
    hosttools.on_declared(_names[0].have)
    shell.display_formatter.mimebundle_formatter.for_type_by_name(
        "rlm_runtime.picturefile", "Picture", lambda picture, **options: pictures.shown(picture, **options)
    )
    display.hint_about(_names[0].hint)
    last = LastCell(shell)
    display.hint_about(last.hint)
    shell.user_ns_hidden.update({"answer": None, "context": None})
    shell.set_custom_exc((Delivered,), lambda *_, **__: None)
    habits.install(shell)
    byname.install()
    wide.install()
    cells.follow(lambda _: None, last.after)
    cells.follow(hooks.before, hooks.after)
    if Path(RUN, "session.json").exists():
        wire.call("hello", {"python": platform.python_version()})
        engine.leave_alone()
        if wire.session()["replayed"]:
            wire.acknowledgements()  # its thread starts now, not in the middle of a cell

"""What to do about an error, where code in a cell took the session for something that it is not.

Told as a note of the exception.
"""

from __future__ import annotations

import difflib
import itertools
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rlm_runtime import forms

_IMPORTS = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "datetime": "from datetime import datetime",
    "date": "from datetime import date",
    "timedelta": "from datetime import timedelta",
    "OrderedDict": "from collections import OrderedDict",
    "deque": "from collections import deque",
}
_OTHER_LANGUAGES = {
    "true": "True",
    "false": "False",
    "null": "None",
    "nil": "None",
    "undefined": "None",
    "NULL": "None",
}
_CHARACTERS = re.compile(
    "[\u00a0\u2000-\u200f\u2010-\u2015\u2018-\u201f\u2028-\u202f\u2032\u2033\u2060\u2212\u3000\ufeff\uff01-\uff5e]"
)
"""Quotes, dashes, spaces and the like that text has, and code has not."""
_DELIVERS = frozenset({"SUBMIT", "submit", "final_answer", "FINAL_ANSWER", "FinalAnswer", "finish"})
"""What delivers the answer elsewhere."""
_SHOWN = 5
_TEXT_METHODS = frozenset(name for name in dir(str) if not name.startswith("_"))
_MAPPING_METHODS = frozenset({"items", "keys", "values", "get"})


def hint(error: BaseException, context: Any, names: Iterable[str]) -> str:
    """One or two sentences; "" where there is nothing to say. `names`: what code could have meant."""
    if type(error).__name__ == "StdinNotImplementedError":
        return "Nobody can type here: set the value in the code."
    said = error.args[0] if error.args and type(error.args[0]) is str else ""
    if type(error).__name__ == "PicklingError":
        return _PICKLE
    if type(error).__module__ != "builtins":
        return ""  # a cell's own: nothing is known of it, and asking it anything runs code
    if isinstance(error, SyntaxError):
        return _not_python(error, said)
    if isinstance(error, NameError) and type(error.name) is str:
        if error.name in _OTHER_LANGUAGES:
            return f"In Python that is `{_OTHER_LANGUAGES[error.name]}`. json.loads(text) reads JSON."
        if error.name in _DELIVERS:
            return "FINAL(value) delivers the answer here."
        if how := _IMPORTS.get(error.name) or (
            f"import {error.name}" if error.name in sys.stdlib_module_names else ""
        ):
            return f"It must be imported in the cell first: `{how}`."
        if error.name == "rows" and isinstance(context, str) and (told := forms.form(context)):
            return f"Make it first. `context` is {told}."
        return _unknown(error.name[:80], list(names))
    if isinstance(error, ModuleNotFoundError):
        return (
            "There is no network to install it. numpy, pandas, matplotlib, bs4 and lxml are there, and all "
            "of Python's own modules."
            " llm_query asks a model."
        )
    if isinstance(error, ImportError) and error.name in sys.stdlib_module_names:
        return _OLDER
    if (module := re.match(r"module '(\w+)[\w.]*' has no attribute", said)) and module[
        1
    ] in sys.stdlib_module_names:
        return _OLDER
    if isinstance(error, FileNotFoundError):
        if _raised_in(error) == "subprocess":
            return "There is no such program here. Do it in Python."
        return "The input is in `context`, not in a file. load_file(path) loads a further one of the user's."
    if isinstance(error, KeyError) and error.args and type(error.args[0]) is slice:
        return _wrong_type(_NO_SLICE, context)  # as Pythons before 3.12 say it
    if isinstance(error, KeyError) and isinstance(context, dict):
        return f"The texts in `context` are named {_listed(context)}." if context else ""
    if "Can't pickle" in said or "Can't get local object" in said:
        return _PICKLE
    if isinstance(error, AttributeError) and "'NoneType' object" in said:
        return "re.search found nothing there. Print the text that was searched, and correct the pattern."
    if isinstance(error, IndexError) and "list index out of range" in said:
        return (
            "The list is shorter than that: a search that finds nothing gives an empty one. Print its "
            "length, or search in another way."
        )
    return _wrong_type(said, context)


_NO_SLICE = "unhashable type: 'slice'"
_HIT = (
    "What grep finds has .text (the line), .line (its number), .file, .match, .start (its place in the text) "
    "and .around(n)."
)
_OLDER = f"This is Python {sys.version_info[0]}.{sys.version_info[1]}, which does not have it."
_PICKLE = (
    "Another process gets functions by their name: write a `def` outside of others. Threads "
    "(ThreadPoolExecutor) take any."
)


def _not_python(error: SyntaxError, said: str) -> str:
    if "outside function" in said:
        return (
            "A cell is no function: put the value on the last line to show it, or deliver it by FINAL(value)."
        )
    line = error.text if type(error.text) is str else ""
    if odd := _CHARACTERS.search(line):
        return (
            f"Line {error.lineno} has the character U+{ord(odd[0]):04X} of typeset text. Write plain "
            "quotes, hyphens and spaces in code."
        )
    if "f-string" in said:
        return (
            "Quotes in the braces of an f-string must be others than those around it. Or take the value "
            "out into a variable."
        )
    if "incomplete input" in said or "was never closed" in said or "unterminated" in said:
        return "A quote or a bracket is not closed. Long texts go between triple quotes."
    return ""


def _raised_in(error: BaseException) -> str:
    """The module whose code raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""


def _unknown(name: str, known: list[str]) -> str:
    if f"{name}s" in known:
        return f"`{name}` is there inside a loop alone: `... for {name} in {name}s`."
    if close := difflib.get_close_matches(name, known, 1):
        return f"Did you mean `{close[0]}`?"
    return f"No cell has set `{name}` so far: compute it first."


def _wrong_type(said: str, context: Any) -> str:
    missing = re.search(r"'(\w+)' object has no attribute '(\w+)'", said)
    if re.search(r"got 'Record'|Record found|'Record'$|'Record' and|and 'Record'", said):
        return (
            "A record is a dict. Take one of its columns, such as row['text'], the whole line, where there "
            "is one; str(row) has all."
        )
    if isinstance(context, Mapping):
        if missing and missing[1] == "dict" and missing[2] in _TEXT_METHODS:
            return _each(context)
        if "expected string or bytes-like object, got 'dict'" in said or _NO_SLICE in said:
            return _each(context)
    elif isinstance(context, str):
        if _NO_SLICE in said:
            return "A dict has no slices. Of a record take a column: row['text'][:100] is of its line."
        if missing and missing[1] == "str" and missing[2] in _MAPPING_METHODS:
            return f"`context` is one str{_form(context)}. `context.splitlines()` has its lines."
        if "string indices must be integers" in said:
            return (
                f"A str has no names to look things up by. `context` is one str{_form(context)}: parse "
                "it first."
            )
    if "tuple indices must be integers or slices, not str" in said:
        return f"A tuple has no names: [0] is the first of its values. {_HIT}"
    if missing and missing[1] == "Hit":
        return _HIT
    if "invalid literal for int()" in said or "could not convert string to float" in said:
        return (
            r"That is no number. Find numbers by the words around them: re.findall(r'word (\d+)', "
            r"context). Counting places fails."
        )
    if "arg is an empty sequence" in said or "iterable argument is empty" in said:
        return (
            "Nothing was found, so the pattern or the condition is wrong. Print one line of the input, "
            "and compare."
        )
    if (
        "unsupported operand" in said
        or "can only concatenate str" in said
        or "not supported between instances of" in said
    ):
        return "What is read from text is text: int(...) or float(...) make numbers of it."
    return ""


def _form(context: str) -> str:
    told = forms.form(context)
    return f", {told}" if told else ""


def _each(context: Mapping[str, Any]) -> str:
    return (
        f"`context` is a dict of texts by name ({_listed(context)}): take one, or go through "
        "`context.items()`."
    )


def _listed(context: Mapping[str, Any]) -> str:
    names = [repr(name)[:80] for name in itertools.islice(context, _SHOWN)]
    return ", ".join(names) + (f" and {len(context) - _SHOWN:,} more" if len(context) > _SHOWN else "")

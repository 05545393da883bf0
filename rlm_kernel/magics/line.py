"""What stands on the line of `%%rlm` and `%rlm`: options, names of variables, and a question.

A word is what Python takes for one: spaces within brackets and quotation marks do not part it, so that
`logs["two words"]` and `-t dict[str, int]` are words. The question of `%rlm` is all that follows, as it is.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from rlm_kernel.config import from_assignments
from rlm_kernel.errors import UsageError
from rlm_kernel.nearest import did_you_mean, nearest

COMMANDS = ("status", "cost", "stop", "help")
"""Words that are no question where they stand alone behind `%rlm`."""
_OPEN, _CLOSE, _QUOTES = "([{", ")]}", "\"'"
_BRACES = re.compile(r"\{([A-Za-z_][\w.]*)\}")
Value = Callable[[str], object]
_DASHES = re.compile(r"(?:^|(?<=\s))--(?=\s|$)")

OPTIONS: Sequence[tuple[Sequence[str], dict[str, Any]]] = (
    (("-m", "--model"), {"metavar": "MODEL", "help": "root model: provider/model, or local"}),
    (("--sub-model",), {"metavar": "MODEL", "help": "model for sub-calls; default: the root model"}),
    (
        ("--as",),
        {
            "metavar": "NAME",
            "dest": "bind",
            "help": "variable for the answer: a text, or the type that -t names",
        },
    ),
    (
        ("-t", "--type"),
        {"metavar": "TYPE", "help": "type of the answer: list[str], or a pydantic model from the notebook"},
    ),
    (("--trace",), {"metavar": "FILE", "help": "write the trace to this notebook; default: in rlm-traces/"}),
    (("--timeout",), {"metavar": "SECONDS", "help": "seconds that the question may take"}),
    (
        ("--limit",),
        {
            "metavar": "NAME=VALUE",
            "action": "append",
            "help": "set a limit: cost=1, turns=20, calls=500, seconds=600",
        },
    ),
    (
        ("--set",),
        {"metavar": "KEY=VALUE", "action": "append", "help": "set any setting, such as sandbox.memory=4g"},
    ),
    (
        ("--rlm",),
        {
            "metavar": "NAME",
            "help": "ask this RLM object from the notebook, with its models and settings",
        },
    ),
    (("--cite",), {"action": "store_true", "help": "have the answer cite its evidence"}),
    (
        ("--keep",),
        {
            "action": argparse.BooleanOptionalAction,
            "help": "ask in a kernel that is kept for the next question, with its variables and the "
            "conversation",
        },
    ),
    (("--new",), {"action": "store_true", "help": "like --keep, but in a new kernel"}),
    (("-h", "--help"), {"action": "store_true", "help": "show this help"}),
)
_FLAGS = {"--cite", "--keep", "--no-keep", "--new", "-h", "--help"}
_NAMES = {name for names, _ in OPTIONS for name in names} | {"--no-keep"}
_ONE_QUESTION = {"bind": "--as", "type": "-t", "trace": "--trace", "cite": "--cite", "new": "--new"}
"""Options that settings for all cells cannot have."""


@dataclass(frozen=True)
class Options:
    """What was given; None or False where it was not.

    `changes`: settings by dotted name. `bind`, `type`, `rlm`: as written, for the notebook to look up.
    """

    changes: Mapping[str, Any]
    bind: str | None = None
    type: str | None = None
    trace: str | None = None
    rlm: str | None = None
    cite: bool = False
    keep: bool | None = None
    new: bool = False
    help: bool = False

    def refuse_without_question(self) -> None:
        """Raise UsageError for what belongs to one question, where there is none."""
        for name, option in _ONE_QUESTION.items():
            if getattr(self, name):
                raise UsageError(
                    f"{option} needs a question, and there is none.",
                    hint="Write the question after it: %rlm … QUESTION, or in the cell below %%rlm.",
                )


@dataclass(frozen=True)
class Line:
    """`names`: expressions that name variables. `question`: as written; "" if there is none. `dashes`: it
    stands behind `--`.
    """

    options: Options
    names: Sequence[str] = ()
    question: str = ""
    dashes: bool = False


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=110, max_help_position=26)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as an error of ours, instead of ending the process."""

    def __init__(self) -> None:
        super().__init__(prog="%%rlm", add_help=False, allow_abbrev=False, formatter_class=_Wide)
        for names, about in OPTIONS:
            self.add_argument(*names, **about)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", hint="%rlm -h lists the options.")


def help_text() -> str:
    """The options, for people."""
    return _Parser().format_help().partition("options:\n")[2].rstrip()


def of_cell(line: str, value: Value) -> Line:
    """The line of `%%rlm`: options and names, in any order.

    `value`: of a variable that stands in braces in an option: `-m {model}`. Raises UsageError.
    """
    given: list[str] = []
    names: list[str] = []
    parts = _Words(line)
    for word in parts:
        if word == "--":
            names += parts
        elif word.startswith("-"):
            given += _option(word, parts, value)
        else:
            names.append(word)
    return Line(_options(given), tuple(dict.fromkeys(_apart(names))))


def of_line(line: str, value: Value) -> Line:
    """The line of `%rlm`: options, and then `VARIABLE … -- QUESTION`, or a question alone.

    Raises UsageError.
    """
    given: list[str] = []
    at = 0
    while (begin := _option_at(line, at)) is not None:
        found = _Words(line, begin)
        given += _option(next(found), found, value)
        at = found.at
    options, behind = _options(given), line[at:].strip()
    if (dashes := _DASHES.search(behind)) is None:
        return Line(options, (), behind)
    names = _names(behind[: dashes.start()])
    if names is None:
        return Line(options, (), behind)
    return Line(options, names, behind[dashes.end() :].strip(), dashes=True)


def _option_at(line: str, at: int) -> int | None:
    """Where the next word begins, if that is an option."""
    found = re.compile(r"\s*(?=-)(?!--(?:\s|$))").match(line, at)
    return found.end() if found else None


def _names(head: str) -> tuple[str, ...] | None:
    """What stands before `--`; None for words of a question in which there are dashes."""
    try:
        found = tuple(dict.fromkeys(_apart(_Words(head))))
    except UsageError:  # an apostrophe
        return None
    return found if all(map(is_name, found)) else None


def _apart(words: Iterable[str]) -> Iterator[str]:
    """Names, also where commas stand between them, as in Python."""
    for word in words:
        parts = [word.rstrip(",")] if set(word) & set("[\"'") else word.split(",")
        yield from filter(None, parts)


def is_name(word: str) -> bool:
    """Whether it is the name of a variable, or of something in it: `df`, `logs[0]`, `run.notes["a b"]`."""
    try:
        node: ast.expr = ast.parse(word, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript) and not all(map(_is_plain, ast.walk(node.slice))):
            return False
        node = node.value
    return isinstance(node, ast.Name)


def _is_plain(node: ast.AST) -> bool:
    """A part of an index that calls nothing."""
    return isinstance(
        node,
        ast.Constant | ast.Slice | ast.Tuple | ast.Load | ast.UnaryOp | ast.USub | ast.Name | ast.Attribute,
    )


class _Words(Iterator[str]):
    """The words, one at a time; a word that begins with # begins a comment. `at`: where the last one ends.

    Raises UsageError at a word that does not end.
    """

    def __init__(self, line: str, at: int = 0) -> None:
        self._line = line
        self.at = at

    def __next__(self) -> str:
        begin = self.at
        while begin < len(self._line) and self._line[begin].isspace():
            begin += 1
        if begin == len(self._line) or self._line[begin] == "#":
            raise StopIteration
        self.at = _end(self._line, begin)
        return self._line[begin : self.at]


def _end(line: str, begin: int) -> int:
    quote, depth, at = "", 0, begin
    while at < len(line):
        char = line[at]
        if quote:
            at += char == "\\"
            quote = "" if char == quote else quote
        elif char in _QUOTES:
            quote = char
        elif char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth = max(0, depth - 1)
        elif char.isspace() and not depth:
            return at
        at += 1
    if quote or depth:
        raise UsageError(
            f"{'A quotation mark' if quote else 'A bracket'} is not closed in {line[begin:][:80]!r}.",
            hint="Write the question in the lines below %%rlm, or after -- with %rlm.",
        )
    return at


def _option(word: str, rest: Iterator[str], value_of: Value) -> list[str]:
    """An option with its value, as argparse takes them."""
    name, equals, value = word.partition("=")
    if name not in _NAMES:
        if re.fullmatch(r"-[mt].+", word):  # -mlocal
            return [word]
        raise UsageError(f"There is no option {name}.", hint=_instead(name))
    if name in _FLAGS:
        return [word]
    if not equals:
        found = next(rest, None)
        if found is None or found == "--":
            raise UsageError(f"{name} has no value.", hint="%rlm -h lists the options.")
        value = found
    value = _BRACES.sub(lambda found: str(value_of(found[1])), _unquoted(value))
    return [f"{name}={value}" if name.startswith("--") else f"{name}{value}"]


def _instead(name: str) -> str:
    if re.match(r"--(max-|cost|turns|calls|tokens|seconds)", name):
        return "Name the limit: --limit cost=1, --limit seconds=600"
    near = did_you_mean(nearest(name, _NAMES))
    return f"{near} %rlm -h lists the options.".lstrip()


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] in _QUOTES and value[0] == value[-1] and value[0] not in value[1:-1]
    return value[1:-1] if quoted else value


def _options(given: Sequence[str]) -> Options:
    found = vars(_Parser().parse_args(list(given)))
    limits = [f"limits.{limit}" for limit in found.pop("limit") or ()]
    if (seconds := found.pop("timeout")) is not None:
        limits.append(f"limits.seconds={seconds}")
    assigned = from_assignments([*(found.pop("set") or ()), *limits])
    changes = {key: getattr(value, "value", value) for key, value in assigned.items()}
    for option, key in (("model", "root_llm.model"), ("sub_model", "sub_llm.model")):
        if (model := found.pop(option)) is not None:
            changes[key] = model
    return Options(changes, **found)


def check_command(line: Line) -> None:
    """Raise UsageError for a question of one word in lower case: a command was meant, or a variable."""
    if line.dashes or not re.fullmatch(r"[a-z_]\w*\??", line.question):
        return
    near = did_you_mean(nearest(line.question, COMMANDS))
    raise UsageError(
        f"%rlm {line.question}: there is no such command, and a question must have more than one word.",
        hint=f"{near} The commands are {', '.join(COMMANDS)}. To ask it as a question: %rlm -- "
        f"{line.question}".lstrip(),
    )

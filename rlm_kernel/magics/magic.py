"""The magics themselves. IPython is imported here, and it alone imports this."""

from __future__ import annotations

import atexit
import functools
import keyword
import operator
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from rlm_kernel import loops
from rlm_kernel.errors import RLMError, UsageError
from rlm_kernel.magics import complete, questions
from rlm_kernel.magics.kept import Asking, Kept
from rlm_kernel.magics.line import COMMANDS, Line, Options, check_command, help_text, of_cell, of_line
from rlm_kernel.magics.variables import as_context, large_ones, look_up, value_of
from rlm_kernel.nearest import did_you_mean, nearest
from rlm_kernel.printable import printable
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.contexts import TABLES
from rlm_kernel.session.places import give_back
from rlm_kernel.session.result import Result
from rlm_kernel.session.rlm import RLM

_T = TypeVar("_T")
RESULT = "_rlm"
"""The variable that has the last result."""
_ABOUT = f"""Ask a question about variables of this notebook.

    %%rlm [OPTIONS] [VARIABLE …]          the question is the cell below
    %rlm [OPTIONS] [VARIABLE … --] QUESTION
    %rlm OPTIONS                          settings for all cells that follow
    %rlm status | cost | stop | help      show settings and the kept kernel; show costs; end the kept kernel

VARIABLE is a name: df, logs[0], run.notes. One is the context; several are a dict by name or, with tables or
paths among them, files named after them. The Result is shown, and is in `{RESULT}`.

Options:
{help_text()}
"""


@magics_class
class RLMMagics(Magics):
    """`%%rlm` and `%rlm`, with what they have been set to."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.kept = Kept()
        self._set = Options({})
        """What `%rlm OPTIONS` has set for all cells."""
        self._results: list[Result] = []

    @no_var_expand
    @line_cell_magic
    def rlm(self, line: str, cell: str | None = None) -> Result | None:
        try:
            return self._rlm(line, cell)
        except RLMError as error:
            _show_as(error, f"{type(error).__name__}: {error}")
            raise
        except KeyboardInterrupt as interrupt:
            _show_as(interrupt, "KeyboardInterrupt: the question was stopped.")
            raise  # Jupyter then runs none of the cells that wait

    rlm.__doc__ = _ABOUT

    def _rlm(self, line: str, cell: str | None) -> Result | None:
        asked = of_line(line, self._named) if cell is None else of_cell(line, self._named)
        if asked.options.help or (asked.question == "help" and not asked.dashes):
            print(_ABOUT)
        elif cell is not None:
            return self._ask(asked, cell.strip())
        elif asked.question in COMMANDS and not asked.dashes:
            self._command(asked.question)
        elif asked.question:
            self._check_forgotten(asked)
            check_command(asked)
            return self._ask(asked, asked.question)
        elif asked.dashes:
            raise UsageError("There is no question after --.", hint="%rlm VARIABLE … -- QUESTION")
        else:
            self._settle(asked.options)
        return None

    def _settle(self, options: Options) -> None:
        """Set what holds for all cells, and show it."""
        options.refuse_without_question()
        merged = _merged(self._set, options)
        self._model(merged)  # wrong settings are told now
        self._set = merged
        if options != Options({}):
            print(printable(f"Set: {self._settings()}."))
        else:
            self._command("status")

    def _command(self, name: str) -> None:
        if name == "stop":
            trace = self._run(self.kept.stop)
            said = f"The kernel has ended. Its trace: {trace}" if trace else "No kernel is kept."
        elif name == "cost":
            said = self._cost()
        else:
            said = "\n".join(
                [
                    f"set         {self._settings()}",
                    *self._run(self.kept.status),
                    f"asked       {self._cost()}",
                ]
            )
        print(printable(said))

    def _settings(self) -> str:
        """What has been set, in a line."""
        if self._set.rlm:
            return f"--rlm {self._set.rlm}{' --keep' if self._set.keep else ''}"
        settings = self._model(self._set).settings
        models = {"root": settings.root_llm.model, "sub": settings.sub_llm.model or settings.root_llm.model}
        shown = ", ".join(f"{role} {name}" for role, name in models.items() if name)
        rest = [
            f"{key}={value}" for key, value in self._set.changes.items() if not key.endswith("_llm.model")
        ]
        parts = [shown or "no model: %rlm -m MODEL", *rest, *(["--keep"] if self._set.keep else [])]
        return "; ".join(parts)

    def _cost(self) -> str:
        results = self._results
        if not results:
            return "nothing yet"
        totals = functools.reduce(operator.add, (result.totals for result in results))
        return f"{len(results)} question{'s' if len(results) > 1 else ''}: {totals.line()}"

    def _ask(self, line: Line, question: str) -> Result:
        options = _merged(self._set, line.options)
        if not question:
            raise UsageError(
                "The question is empty.", hint="Write it in the lines below %%rlm, or after %rlm."
            )
        if options.bind is not None and (not options.bind.isidentifier() or keyword.iskeyword(options.bind)):
            raise UsageError(
                f"--as {options.bind}: this is not a valid variable name.",
                hint="Choose a plain name, such as result.",
            )
        values = look_up(line.names, self._value, self._user)
        answer_type = None if options.type is None else self._type(options.type)
        rlm = self._model(options)
        for told in large_ones(values):
            print(told, flush=True)
        cite = options.cite or None
        place = None if options.trace is None else Path(options.trace).expanduser()
        if options.keep or options.new:
            if options.new:
                self._run(self.kept.stop)
            asking = Asking(question, values, answer_type, cite, place)
            result = self._run(lambda: self.kept.ask(rlm, asking))
        else:
            trace = trace_path(rlm.settings, question, place)
            try:
                context = as_context(values, trace.with_suffix(TABLES))
                result = rlm.ask(
                    question, context, trace=trace, progress=True, answer_type=answer_type, cite=cite
                )
            finally:
                give_back(trace)
        self._results.append(result)
        self._user[RESULT] = result = _BelowItsRun(**vars(result))
        if options.bind is not None:
            self._user[options.bind] = result.answer if answer_type is None else result.value
        return result

    def _check_forgotten(self, line: Line) -> None:
        """Raise UsageError where a question begins with a variable: `%rlm df How many rows?`."""
        first, _, rest = line.question.partition(" ")
        value = self._user.get(first)
        if line.dashes or value is None or callable(value) or isinstance(value, ModuleType):
            return
        raise UsageError(
            f"The question begins with {first}, which is a variable here.",
            hint=f"To ask about it: %rlm {first} -- {rest.strip()[:60] or 'QUESTION'}",
        )

    def _model(self, options: Options) -> RLM:
        """Who is asked. Raises UsageError, ConfigError."""
        if options.rlm is None:
            return RLM(options=options.changes)
        found = self._named(options.rlm)
        if not isinstance(found, RLM):
            raise UsageError(f"{options.rlm} is not an RLM.", hint=f"{options.rlm} = RLM(…)")
        return found

    def _type(self, text: str) -> Any:
        try:
            return self._value(text)
        except NameError as error:
            near = did_you_mean(nearest(error.name or text, self._user))
            raise UsageError(
                f"-t {text}: {error.name or text} is not defined in this notebook.",
                hint=near
                or "Use list[str], int, dict[str, float], or a pydantic model that a cell has defined.",
            ) from error
        except Exception as error:
            raise UsageError(
                f"-t {text} is not a type: {' '.join(str(error).split())[:200]}.",
                hint="Use list[str], int, dict[str, float], or a pydantic model that a cell has defined.",
            ) from error

    @property
    def _user(self) -> dict[str, Any]:
        """The notebook's variables."""
        assert self.shell is not None
        names: dict[str, Any] = self.shell.user_ns
        return names

    def _named(self, name: str) -> Any:
        """The value of a variable. Raises UsageError."""
        return value_of(name, self._value, self._user)

    def _value(self, expression: str) -> Any:
        assert self.shell is not None
        return self.shell.ev(expression)  # type: ignore[no-untyped-call]

    def _run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What it gives, from a loop of its own: the notebook's is busy with this cell."""
        return loops.waited_for(work)


class _BelowItsRun(Result):
    """A result that a notebook shows below the line which its run has left: that says what it cost, and where
    its trace is.
    """

    def _footer_html(self) -> str:
        return ""

    def _footer_markdown(self) -> str:
        return ""


def _merged(base: Options, given: Options) -> Options:
    """What holds for a cell: its own options, over those that were set. Raises UsageError."""
    rlm = given.rlm or (None if "root_llm.model" in given.changes else base.rlm)
    changes = {} if rlm else {**base.changes, **given.changes}
    if rlm and given.changes:
        raise UsageError(
            f"{rlm} has its own models, limits and settings.",
            hint="Leave out --rlm or the other options, or make another RLM."
            if given.rlm
            else "Leave out these options, make another RLM, or name a model: -m MODEL",
        )
    return replace(given, rlm=rlm, changes=changes, keep=base.keep if given.keep is None else given.keep)


def _show_as(error: BaseException, said: str) -> None:
    """Have IPython show an error in these words, without the calls that led to it."""
    vars(error)["_render_traceback_"] = lambda: [printable(said)]


def load(shell: InteractiveShell) -> None:
    """Register the magics: `%load_ext rlm_kernel`."""
    magics = RLMMagics(shell)
    shell.register_magics(magics)
    questions.load(shell)
    complete.load(shell)
    atexit.register(magics.kept.discard)


def unload(shell: InteractiveShell) -> None:
    """Take them away, and end the kernel that is kept: `%unload_ext rlm_kernel`."""
    magics = shell.magics_manager.registry.pop(RLMMagics.__name__, None)
    if isinstance(magics, RLMMagics):
        atexit.unregister(magics.kept.discard)
        magics.kept.discard()
        questions.unload(shell)
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("rlm", None)

"""What FINAL(...) in prose delivers: a text as it is, and the value of code, which the kernel evaluates in a
cell of the trace.

What is no answer, or cannot be told for one, is asked about; the source of code is never delivered.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.finals import ProseFinal, is_template, meaning, unmarked
from rlm_kernel.engine.protocols import Answer, CellResult

Run = Callable[[str], Awaitable[CellResult]]
_HEADING = re.compile(r"\W*FINAL(?: ANSWER)?\W*:[^\w\n]*", re.IGNORECASE)


async def in_prose(final: ProseFinal, run: Run, limit: int, *, typed: bool = False) -> Answer | str:
    """The answer; else what to say to the root model, because it is none.

    `run` has the kernel run a cell; it is called once at most.

    At most `limit` characters of what that cell printed are told. `typed`: the kernel delivers texts, too,
    because it checks their form.
    """
    text = unmarked(final.text)
    meant = meaning(text)
    name = text if final.kind == "FINAL" else (meant.text or text).strip()
    if final.kind == "FINAL_VAR" or (name.isidentifier() and not typed):
        return await _variable(name, run, limit, sure=final.kind == "FINAL_VAR")
    if (
        meant.value is None
        and is_template(text)
        and not (text[:1] in "\"'" and (meant.text or "").isidentifier())
    ):
        return say.TEMPLATE
    if not typed and not meant.source and not (meant.text or "").isidentifier():
        return Answer(meant.text or "", meant.value, typed=meant.value is not None)
    # A text that is the name of a variable is asked about by the kernel, as in any cell.
    result = await run(meant.call())
    return result.answer or say.not_evaluated(text, _printed(result, limit))


async def _variable(name: str, run: Run, limit: int, *, sure: bool) -> Answer | str:
    """The value of a variable.

    A word that names none is the answer itself, if it does not look like a variable (`sure`: it is one).
    """
    if sure and not name.isidentifier():
        return (
            say.TEMPLATE
            if is_template(name)
            else say.not_evaluated(name, "FINAL_VAR takes the name of a variable.")
        )
    result = await run(f"FINAL_VAR({name!r})")
    if result.answer is not None:
        return result.answer
    if is_template(name):  # `answer`, too: the session's own dict is refused while nothing was put into it
        return say.TEMPLATE
    words = not sure and "_" not in name and _error(result) == "NameError"
    return Answer(name) if words else say.not_evaluated(name, _printed(result, limit))


def words_of(prose: str) -> str:
    """The answer of a reply in plain words, where one was asked for."""
    words = _HEADING.sub("", prose, count=1) if _HEADING.match(prose) else prose
    return "" if is_template(words) else words.strip()


def _error(result: CellResult) -> str:
    return next((str(output["ename"]) for output in result.outputs if output["output_type"] == "error"), "")


def _printed(result: CellResult, limit: int) -> str:
    return say.truncate(say.output_text(result.outputs), limit)

"""Example turns for kinds of questions: those for questions like the one that is asked stand before it.

A small model adapts code that it has just seen in an example better than it writes its own, and takes the
last example for whatever is asked. So the host chooses, without a call of a model.
"""

from __future__ import annotations

import calendar
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rlm_kernel.engine.values import ContextInfo, Message

SHOWN = 2
"""Of them before a question at most."""
INPUTS = ("rows", "text", "files", "any")
"""For which input a pattern is: one with a form, any one text, several files, all."""
_CLOSE = 0.7
"""How near, of the nearest, another pattern must be: a small model mixes the code of two."""
_WORD = re.compile(r"[\w-]+")
_PREFERRED = 1.3
"""How much more a pattern for rows counts, where the input has rows: code over columns is the surer one."""
_COLUMN = re.compile(r"'([^'\W]{1,60})': (-?\d)?")
_NO_COLUMNS = frozenset({"line", "text"})
"""Names that `records()` itself gives."""
_MONTHS = frozenset(calendar.month_name[1:])
_KINDS = ("#column", "#number")
_MOST_FORM = 4_000
"""Characters of a form in which columns are looked for."""

_Gram = str | tuple[str, str]


@dataclass(frozen=True)
class Pattern:
    """`code` for questions such as these, over an input of that kind; it answers the first of them.

    `about`: what the root model is told of the input of the example; `output`: of the code. `finds`: it finds
    a passage, which in a short text can as well be read.
    """

    input: str
    questions: tuple[str, ...]
    code: str
    about: str = ""
    output: str = ""
    finds: bool = False


def parse_pattern(title: str, text: str, inputs: Mapping[str, str]) -> Pattern:
    """The pattern in a section of a profile: questions, a line each, a block of code, => and its output.

    `title`: for which input it is, and the name of one of the `inputs` of the profile, after "find" where it
    finds a passage. Raises ValueError.
    """
    finds = title.startswith("find ")
    kind, _, name = title.removeprefix("find ").partition(" ")
    asked, fence, code = text.partition("```repl\n")
    code, fence_end, output = code.partition("```\n")
    questions = tuple(line.strip() for line in asked.splitlines() if line.strip())
    shown = output.strip().removeprefix("=>").strip()
    if kind not in INPUTS or name not in inputs or not (questions and fence and fence_end and shown):
        raise ValueError(
            f"a pattern is `## pattern`, {' or '.join(INPUTS)} and the name of an `## input`, questions, a "
            f"line each, a ```repl block, => and its output: {text.strip()[:60]!r}"
        )
    return Pattern(kind, questions, code.rstrip(), inputs[name].strip(), shown, finds)


def nearest(patterns: Sequence[Pattern], question: str, info: ContextInfo) -> list[Pattern]:
    """The patterns for questions that are most like this one; the nearest last."""
    alike = _alike(patterns, question, info)
    near = sorted(alike, key=lambda one: alike[one])[-SHOWN:]
    return [one for one in near if alike[one] >= _CLOSE * alike[near[-1]]]


def likeness(patterns: Sequence[Pattern], question: str, info: ContextInfo) -> float:
    """How much the question is like that of the nearest pattern, if that one computes: 0 for nothing in
    common, or where the nearest one finds a passage, 1 for the same words.
    """
    alike = _alike(patterns, question, info)
    near = max(alike, key=lambda one: alike[one], default=None)
    return 0.0 if near is None or near.finds else alike[near]


def _alike(patterns: Sequence[Pattern], question: str, info: ContextInfo) -> dict[Pattern, float]:
    fitting = {"any", *(["files"] if info.kind == "dict" else ["text", *(["rows"] if info.form else [])])}
    index, rare = _index(tuple(patterns))
    asked = _vector(question, info.form, rare)
    alike: dict[Pattern, float] = {}
    for pattern, vector in index:
        if pattern.input in fitting:
            score = sum(weight * vector.get(gram, 0.0) for gram, weight in asked.items())
            score *= _PREFERRED if pattern.input == "rows" else 1
            alike[pattern] = max(alike.get(pattern, 0.0), score)
    return alike


def as_turns(near: Sequence[Pattern]) -> list[Message]:
    """The patterns as turns of examples."""
    turns: list[Message] = []
    for one in near:
        turns += [
            {"role": "user", "content": f"{one.about}\nQuestion: {one.questions[0]}\nTurn 1 of 8."},
            {"role": "assistant", "content": f"I compute it.\n```repl\n{one.code}\n```"},
            {"role": "user", "content": f"Output of the cell:\n{one.output}\nTurn 2 of 8."},
            {"role": "assistant", "content": "That answers it.\n```repl\nFINAL(result)\n```"},
        ]
    return turns


@lru_cache(64)
def _index(
    patterns: tuple[Pattern, ...],
) -> tuple[list[tuple[Pattern, dict[_Gram, float]]], dict[_Gram, float]]:
    """The vector of each question, and how rare words and pairs of words are in all of them."""
    all_questions = [(pattern, question) for pattern in patterns for question in pattern.questions]
    # A question of a pattern may be about any of the inputs.
    forms = "\n".join(sorted({pattern.about for pattern in patterns}))
    often = Counter(gram for _, question in all_questions for gram in _grams(question, forms))
    rare = {gram: math.log((1 + len(all_questions)) / count) for gram, count in often.items()}
    return [(pattern, _vector(question, forms, rare)) for pattern, question in all_questions], rare


def _grams(question: str, form: str) -> Counter[_Gram]:
    """Words and pairs of words, and pairs once more with what stands for names of columns: of numbers, and of
    other values.

    By that "the most goals" is like "the most tons" where both are columns of numbers, and not like "the most
    letters", which are to be counted.
    """
    columns, words = _columns(form), _WORD.findall(question)
    plain = [_plain(word) for word in words]
    kinds = [columns.get(_stem(word), plain[at]) for at, word in enumerate(words)]
    more = (pair for pair in itertools.pairwise(kinds) if any(kind in _KINDS for kind in pair))
    return Counter([*plain, *itertools.pairwise(plain), *more])


def _plain(word: str) -> str:
    """A word as it is compared: one with digits stands for all such, a month for all months."""
    return "#" if re.search(r"\d", word) else "#month" if word in _MONTHS else word.lower()


def _stem(word: str) -> str:
    return word.lower().removesuffix("s")


@lru_cache(64)
def _columns(form: str) -> Mapping[str, str]:
    """What stands for each name of a column, and for each word of one, by its stem; `form`: as code in the
    kernel tells it.
    """
    found: dict[str, str] = {}
    for name, number in _COLUMN.findall(form[:_MOST_FORM]):
        if name not in _NO_COLUMNS:
            kind = _KINDS[bool(number)]
            found |= {_stem(word): kind for word in [name, *name.split("_")] if len(word) > 2}
    return found


def _vector(question: str, form: str, rare: dict[_Gram, float]) -> dict[_Gram, float]:
    """Of length 1, or empty."""
    grams = _grams(question, form)
    weights = {gram: (1 + math.log(count)) * rare[gram] for gram, count in grams.items() if gram in rare}
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {gram: weight / length for gram, weight in weights.items()} if length else {}

"""Example turns for kinds of questions: those for questions like the one that is asked stand before it.

A small model adapts code that it has just seen in an example better than it writes its own, and takes the
last example for whatever is asked. So the host chooses, without a call of a model.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from rlm_kernel.engine.values import ContextInfo, Message

SHOWN = 2
"""Of them before a question at most."""
INPUTS = ("rows", "text", "files", "any")
"""For which input a pattern is: one with a form, any one text, several files, all."""
_WORD = re.compile(r"[\w-]+")

_Gram = str | tuple[str, str]


@dataclass(frozen=True)
class Pattern:
    """`code` for questions such as these, over an input of that kind; it answers the first of them.

    `about`: what the root model is told of the input of the example; `output`: of the code.
    """

    input: str
    questions: tuple[str, ...]
    code: str
    about: str = ""
    output: str = ""


def parse_pattern(title: str, text: str, inputs: Mapping[str, str]) -> Pattern:
    """The pattern in a section of a profile: questions, a line each, a block of code, => and its output.

    `title`: for which input it is, and the name of one of the `inputs` of the profile. Raises ValueError.
    """
    kind, _, name = title.partition(" ")
    asked, fence, code = text.partition("```repl\n")
    code, fence_end, output = code.partition("```\n")
    questions = tuple(line.strip() for line in asked.splitlines() if line.strip())
    shown = output.strip().removeprefix("=>").strip()
    if kind not in INPUTS or name not in inputs or not (questions and fence and fence_end and shown):
        raise ValueError(
            f"a pattern is `## pattern`, {' or '.join(INPUTS)} and the name of an `## input`, questions, a "
            f"line each, a ```repl block, => and its output: {text.strip()[:60]!r}"
        )
    return Pattern(kind, questions, code.rstrip(), inputs[name].strip(), shown)


def nearest(patterns: Sequence[Pattern], question: str, info: ContextInfo) -> list[Pattern]:
    """The patterns for questions that are most like this one; the nearest last."""
    fitting = {"any", *(["files"] if info.kind == "dict" else ["text", *(["rows"] if info.form else [])])}
    index, rare = _index(tuple(patterns))
    asked = _vector(question, rare)
    alike: dict[Pattern, float] = {}
    for pattern, vector in index:
        if pattern.input in fitting:
            score = sum(weight * vector.get(gram, 0.0) for gram, weight in asked.items())
            alike[pattern] = max(alike.get(pattern, 0.0), score)
    return sorted(alike, key=lambda one: alike[one])[-SHOWN:]


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


@cache
def _index(
    patterns: tuple[Pattern, ...],
) -> tuple[list[tuple[Pattern, dict[_Gram, float]]], dict[_Gram, float]]:
    """The vector of each question, and how rare words and pairs of words are in all of them."""
    all_questions = [(pattern, question) for pattern in patterns for question in pattern.questions]
    often = Counter(gram for _, question in all_questions for gram in _grams(question))
    rare = {gram: math.log((1 + len(all_questions)) / count) for gram, count in often.items()}
    return [(pattern, _vector(question, rare)) for pattern, question in all_questions], rare


def _grams(question: str) -> Counter[_Gram]:
    """Words and pairs of words; one with digits in it stands for all such."""
    words = ["#" if re.search(r"\d", word) else word.lower() for word in _WORD.findall(question)]
    return Counter([*words, *itertools.pairwise(words)])


def _vector(question: str, rare: dict[_Gram, float]) -> dict[_Gram, float]:
    """Of length 1, or empty."""
    weights = {
        gram: (1 + math.log(count)) * rare[gram] for gram, count in _grams(question).items() if gram in rare
    }
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {gram: weight / length for gram, weight in weights.items()} if length else {}

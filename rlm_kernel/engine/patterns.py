"""Patterns of code that a profile has for kinds of questions: those for the questions that are most like the
one that is asked stand before it.

A small model adapts code that it sees better than it writes its own, and chooses the pattern by what is
nearest to the question. So the host chooses first.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from rlm_kernel.engine.values import ContextInfo

SHOWN = 2
"""Patterns before a question at most."""
LEAST = 0.15
"""How alike questions must be, of at most 1."""
INPUTS = ("rows", "text", "files", "any")
"""For which input a pattern is: one with a form, any one text, several files, all."""
_WORD = re.compile(r"[\w-]+")

_Gram = str | tuple[str, str]


@dataclass(frozen=True)
class Pattern:
    """`code` for questions such as these, over an input of that kind; it answers the first of them."""

    input: str
    questions: tuple[str, ...]
    code: str


def parse_pattern(kind: str, text: str) -> Pattern:
    """The pattern in a section of a profile: questions, a line each, then a block of code.

    Raises ValueError.
    """
    asked, fence, code = text.partition("```repl\n")
    questions = tuple(line.strip() for line in asked.splitlines() if line.strip())
    if kind not in INPUTS or not questions or not fence or not code.rstrip().endswith("```"):
        raise ValueError(
            f"a pattern is `## pattern` and {' or '.join(INPUTS)}, questions, a line each, and a ```repl "
            f"block: {text.strip()[:60]!r}"
        )
    return Pattern(kind, questions, code.rstrip().removesuffix("```").rstrip())


def nearest(patterns: Sequence[Pattern], question: str, info: ContextInfo) -> list[tuple[str, str]]:
    """Questions and code of the patterns for questions that are most like this one; the nearest last."""
    fitting = {"any", *(["files"] if info.kind == "dict" else ["text", *(["rows"] if info.form else [])])}
    index, rare = _index(tuple(patterns))
    asked = _vector(question, rare)
    alike: dict[Pattern, float] = {}
    for pattern, vector in index:
        if pattern.input in fitting:
            score = sum(weight * vector.get(gram, 0.0) for gram, weight in asked.items())
            alike[pattern] = max(alike.get(pattern, 0.0), score)
    near = sorted((one for one in alike if alike[one] > LEAST), key=lambda one: alike[one])
    return [(one.questions[0], one.code) for one in near[-SHOWN:]]


def told(near: Sequence[tuple[str, str]]) -> str:
    """Patterns as they stand before a question; "" if there are none."""
    if not near:
        return ""
    return "\n".join(
        [
            "Code for questions like this one, over other texts (names differ):",
            *(f"{question}\n```repl\n{code}\n```" for question, code in near),
        ]
    )


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

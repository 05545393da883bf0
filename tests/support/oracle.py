"""Models that know: a root that solves the benchmark's suites, by code or by what it sees, and a sub that has
the right label of every question.

With them a run is right if and only if the machinery is: splitting, batches, sub-calls, answers of any
length, scoring.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlm_kernel.bench.trec import Pool
from tests.support import oracle_program

_PROGRAM = (Path(__file__).parent / "oracle_program.py").read_text("utf-8")
_PEAK = (
    "import resource\nprint(len(rows), 'lines; peak', "
    "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, 'MB')"
)
_QUESTION = re.compile(r"^Question: (.*?)(?=\nTurn \d+ of|\Z)", re.MULTILINE | re.DOTALL)


def root(pool: Pool) -> Callable[[list[dict[str, Any]]], str]:
    """Replies to a question of `niah`, `copy`, `oolong` or `pairs`: where it sees the whole input, the answer;
    else a look, and a cell that answers.
    """
    label = sub(pool)

    def reply(messages: list[dict[str, Any]]) -> str:
        if len(messages) == 1:
            *text, question = messages[0]["content"].rsplit("\n\n", 1)
            return _seen("".join(text), question, label)
        first = messages[1]["content"]
        found = _QUESTION.findall(first)
        assert found
        question = found[-1].strip()
        if shown := re.search(r"<(input-\w+) .*?>\n(.*)\n</\1>", first, re.DOTALL):
            return f"FINAL({_seen(shown[2], question, label)!r})"
        return f"I solve it by code.\n```repl\nimport re\nprint(len(context))\n```\n```repl\n{_code(question)}\n```"

    return reply


def _seen(text: str, question: str, label: Callable[[str], str]) -> str:
    """The answer of a model that sees the text."""
    if key := re.search(r"magic number for (\S+) mentioned", question):
        return re.search(rf"numbers for {key[1]} is: (.+?)\. ", text)[1]  # type: ignore[index]
    if chapter := re.search(r"Copy chapter (\d+) verbatim", question):
        parts = re.split(r"^=== Chapter \d+ ===\n", text, flags=re.MULTILINE)
        return parts[int(chapter[1])]

    def ask_all(prompts: list[str], schema: Any) -> list[Any]:
        return [json.loads(label(prompt)) for prompt in prompts]

    return oracle_program.answer(question, oracle_program.read(text, ask_all))


def _code(question: str) -> str:
    """The cell that answers."""
    if key := re.search(r"magic number for (\S+) mentioned", question):
        return f"FINAL(re.search(r'numbers for {key[1]} is: (.+?)\\. ', context)[1])"
    if chapter := re.search(r"Copy chapter (\d+) verbatim", question):
        return f"FINAL(re.split(r'^=== Chapter \\d+ ===\\n', context, flags=re.MULTILINE)[{chapter[1]}])"
    return (
        f"{_PROGRAM}\n\nrows = read(context, llm_query_batched)\nfound = answer({question!r}, rows)\n"
        f"{_PEAK}\nFINAL(found)"
    )


def sub(pool: Pool) -> Callable[[str], str]:
    """Labels of the questions in a prompt, each after its number, as a JSON list."""
    labels = {question: label for label, questions in pool.items() for question in questions}

    def reply(prompt: str) -> str:
        return json.dumps([labels[text] for text in re.findall(r"^\d+: (.*)$", prompt, re.MULTILINE)])

    return reply


def small_pool() -> str:
    """A file of questions with labels, of our own, in the form of the TREC question classification."""
    made = []
    for number in range(12):
        made += [
            f"ABBR:exp What does the acronym X{number}Q stand for ?",
            f"ENTY:animal Which animal has {number + 3} stripes ?",
            f"DESC:def Why is the number {number + 20} called odd or even ?",
            f"HUM:ind Who founded the village with {number + 40} wells ?",
            f"LOC:city In which town is tower no. {number + 60} ?",
            f"NUM:count How many caf\xe9s were open in 19{number + 10} ?",
        ]
    return "\n".join(made) + "\n"

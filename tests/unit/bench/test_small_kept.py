"""The kept half of the easy tasks: each answer is what its text gives, read in another way."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from calendar import month_name
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from itertools import groupby
from typing import Any

import pytest

from rlm_kernel.bench import small, small_kept, small_kept_texts
from rlm_kernel.bench.scorers import score
from rlm_kernel.bench.task import Task

pytestmark = pytest.mark.xdist_group("small-kept")  # they share what takes long to make


def asked(question: str, pattern: str) -> str:
    found = re.search(pattern, question)
    assert found, question
    return found[1]


def first_of(tally: Mapping[str, float]) -> str:
    """Who has most: there must be one alone."""
    most = max(tally.values())
    (who,) = (name for name, value in tally.items() if value == most)
    return who


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines(), delimiter=";"))


def cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \d", line)]


def tables_of(texts: Mapping[str, str], table: str) -> str:
    (file,) = (name for name, text in texts.items() if f"CREATE TABLE {table} (" in text)
    return file


def lent(text: str, question: str) -> int:
    month, year = asked(question, r"lent in (.+)\?").split()
    return sum(r["lent"].endswith(f".{list(month_name).index(month):02d}.{year}") for r in rows(text))


def largest_commit(text: str) -> str:
    return first_of(
        {
            part.split()[0]: int(asked(part, r"(\d+) insertions"))
            for part in re.split(r"(?m)^commit ", text)[1:]
        }
    )


def flows(text: str) -> dict[str, float]:
    totals: dict[str, float] = {}
    for zone, flow in re.findall(r'zone = "(\w+)"\nlitres_per_minute = (\d+)', text):
        totals[zone] = totals.get(zone, 0) + int(flow)
    return totals


READ: dict[tuple[str, int], Callable[[str, str], Any]] = {
    ("search", 0): lambda text, q: re.findall(r"SerialNumber: (\S+)", text)[0],
    ("search", 1): lambda text, q: {dish["name"]: dish["serves"] for dish in json.loads(text)}[
        asked(q, '"(.+)"')
    ],
    ("count", 0): lambda text, q: sum(valve["manual"] for valve in tomllib.loads(text)["valve"]),
    ("count", 1): lambda text, q: text.count(f"Z {asked(q, 'that ([A-Z]+) sent')} to "),
    ("count", 2): lambda text, q: text.count(f"\nAuthor: {asked(q, r'by (.+)[?]')} <"),
    ("sum", 0): lambda text, q: sum(int(c[3]) for c in cells(text) if c[2] == asked(q, r"for the (\w+):")),
    ("sum", 1): lambda text, q: sum(
        int(r["late_fee_cents"]) for r in rows(text) if r["branch"] == asked(q, r"of the (\w+) branch")
    ),
    ("sum", 2): lambda text, q: sum(
        map(int, re.findall(f" bed {asked(q, r'bed ([0-9]+)')}: drank ([0-9]+) ml", text))
    ),
    ("extremes", 0): lambda text, q: largest_commit(text),
    ("extremes", 1): lambda text, q: first_of({dish["name"]: dish["minutes"] for dish in json.loads(text)}),
    ("extremes", 2): lambda text, q: max(map(float, re.findall(r"temperature ([\d.]+)", text))),
    ("distinct", 0): lambda text, q: len(set(re.findall(r";(R\d+);", text))),
    ("distinct", 1): lambda text, q: len({c[2] for c in cells(text)}),
    ("distinct", 2): lambda text, q: len(set(re.findall(r"Failed password for \w+ from (\S+)", text))),
    ("dates", 0): lambda text, q: min(c[0] for c in cells(text) if c[2] == asked(q, r"was the (\w+) seen")),
    ("dates", 1): lambda text, q: first_of(Counter(re.findall(r"(?m)^Date: +(\d{4}-\d\d)", text))),
    ("dates", 2): lent,
    ("lines", 0): lambda text, q: text.splitlines().count("(Applause.)"),
    ("lines", 1): lambda text, q: text.splitlines()[-1],
    ("words", 0): lambda text, q: re.findall(r"\w+", text.casefold()).count(asked(q, r'word "(\w+)"')),
    ("words", 1): lambda text, q: sum(
        asked(q, r"the word (\w+)") in json.dumps(dish) for dish in json.loads(text)
    ),
    ("words", 2): lambda text, q: len(re.findall(r"\bout\.$", text, re.MULTILINE)),
    ("per-group", 0): lambda text, q: first_of(Counter(re.findall(r" to ([A-Z]+): ", text))),
    ("per-group", 1): lambda text, q: first_of(Counter(re.findall(r"(?m)^M[RS] [A-Z]+ \((\w+)\): ", text))),
    ("per-group", 2): lambda text, q: first_of(flows(text)),
}
"""How the answer is read from the one text, by kind and place in the half."""


def reread(task: Task, place: int) -> Any:
    if (task.kind, place) == ("search", 2):
        return tables_of(task.texts, asked(task.question, r"table (\w+)\."))
    if (task.kind, place) == ("lines", 2):
        return sum(line.startswith("--") for text in task.texts.values() for line in text.splitlines())
    (text,) = task.texts.values()
    return READ[task.kind, place](text, task.question)


@cache
def kept(seed: int) -> list[tuple[Task, int]]:
    """The half's thirty tasks, each with its form's place in the half."""
    forms = small.HALVES["kept"]
    made = list(small.tasks(len(small.KINDS) * small.FORMS, seed))
    numbered = [(task, int(task.id.rpartition("-")[2])) for task in made]
    return [(task, forms.index(form)) for task, form in numbered if form in forms]


@pytest.mark.parametrize("seed", range(2))
def test_each_answer_is_what_the_text_gives(seed: int) -> None:
    for task, place in kept(seed):
        if task.kind != "classify":
            found = reread(task, place)
            assert found not in (0, "", None), task.question
            assert score(task.scorer, task.expected, str(found)) == 1, (task.question, task.expected, found)


@pytest.mark.parametrize("seed", range(2))
def test_the_lines_to_understand_have_the_label_that_is_asked_for(seed: int) -> None:
    sentences = {
        "calls.txt": small_kept_texts.CALLS["fire brigade"],
        "replies.txt": small_kept_texts.REPLIES["coming"],
        "trips.txt": small_kept_texts.TRIPS["to come"],
    }
    for task, place in kept(seed):
        if task.kind == "classify":
            ((file, text),) = task.texts.items()
            numbered = [line.split(". ", 1) for line in text.splitlines()]
            right = [int(number) for number, sentence in numbered if sentence in sentences[file]]
            assert right == [task.expected] if place == 2 else len(right) == task.expected
            assert 0 < len(right) < len(numbered)
            assert len({sentence for _, sentence in numbered}) == len(numbered)


@pytest.mark.parametrize("kinds", [small_kept_texts.CALLS, small_kept_texts.REPLIES, small_kept_texts.TRIPS])
def test_no_sentence_to_understand_has_two_labels(kinds: Mapping[str, list[str]]) -> None:
    sentences = [sentence for said in kinds.values() for sentence in said]
    assert len(set(sentences)) == len(sentences)


def test_the_half_is_three_questions_of_each_kind_of_the_length_of_the_others() -> None:
    made = kept(1)
    assert Counter(task.kind for task, _ in made) == dict.fromkeys(small_kept.KINDS, 3)
    assert len({task.question for task, _ in made}) == 30
    for task, _ in made:
        length = sum(map(len, task.texts.values()))
        assert 200 < length < 1_000 if task.kind == "classify" else 50_000 < length < 550_000, task.id


def test_the_days_and_the_commits_are_in_the_order_of_their_texts() -> None:
    for task, _ in kept(1):
        if "git-log.txt" in task.texts:
            hours = re.findall(r"(?m)^Date: +(.+) \+0000", task.texts["git-log.txt"])
            assert hours == sorted(hours, reverse=True)
        if "birds.md" in task.texts:
            days = [day for day, _ in groupby(c[0] for c in cells(task.texts["birds.md"]))]
            assert days == sorted(set(days))

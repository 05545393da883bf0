"""OOLONG's questions on a window of `trec_coarse`: counting, by user, by time. Answers have no ties.

Source: the forms of questions and answers of OOLONG's synthetic tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import count as counting
from pathlib import Path
from random import Random

from rlm_kernel.bench.task import Task
from rlm_kernel.bench.trec import FIRST, LABELS, LAST, Line, Window, read_pool, window

QUESTIONS = 25
"""Questions on each window, as in the paper on recursive language models."""
_NAMES = tuple(LABELS.values())
_TRIES = 200
_AS_LABEL = "Give your final answer in the form 'Label: answer'."
_AS_USER = "Give your final answer in the form 'User: id'."
_AS_NUMBER = "Give your final answer in the form 'Answer: number'."
_AS_MONTH = "Give your final answer in the form 'Answer: Month Year'."
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

Asked = tuple[str, str]
"""A question, and its answer."""


class _Tie(Exception):
    """Two answers would be right, or none."""


def _ranked(counts: Counter[str], place: int = 0) -> str:
    """Who has most, or next to most, or (-1) least. Raises _Tie."""
    order = counts.most_common()
    value = order[place][1] if -len(order) <= place < len(order) else -1
    if [number for _, number in order].count(value) != 1:
        raise _Tie
    return order[place][0]


# Counting: over all lines, or over some of them, which `among` says


def _counted(random: Random, lines: Sequence[Line], among: str, form: int) -> Asked:
    counts = Counter(line.label for line in lines)
    if not counts:
        raise _Tie
    if form == 0:
        least = bool(random.getrandbits(1))
        if least:
            counts = Counter({label: counts[label] for label in _NAMES})
        which = "least" if least else "most"
        return f"{among}which of the labels is the {which} common? {_AS_LABEL}", _ranked(
            counts, -1 if least else 0
        )
    if form == 1:
        a, b = random.sample(_NAMES, 2)
        how = (
            "more common than"
            if counts[a] > counts[b]
            else "less common than"
            if counts[a] < counts[b]
            else "same frequency as"
        )
        asked = (
            f"{among}is label '{a}' more common, less common, or the same frequency as label '{b}'? Give "
            "your final answer in the form "
            f"'Answer: {a} is [X] {b}', where [X] is 'more common than', 'less common than' or 'same "
            "frequency as'."
        )
        return asked, f"{a} is {how} {b}"
    label = random.choice(_NAMES)
    return f"{among}how many questions have the label '{label}'? {_AS_NUMBER}", str(counts[label])


def _most_common(random: Random, made: Window) -> Asked:
    return _counted(random, made.lines, "For all questions together, ", 0)


def _compared(random: Random, made: Window) -> Asked:
    return _counted(random, made.lines, "For all questions together, ", 1)


def _number(random: Random, made: Window) -> Asked:
    return _counted(random, made.lines, "For all questions together, ", 2)


# By user


def _subset(random: Random, made: Window) -> tuple[str, list[Line]]:
    """Some users, in words, and their lines."""
    seen = list(Counter(line.user for line in made.lines))
    users = set(random.sample(seen, min(len(seen), random.randint(3, 12))))
    return f"the users {', '.join(map(str, sorted(users)))}", [
        line for line in made.lines if line.user in users
    ]


def _user_seen(random: Random, made: Window) -> Asked:
    who, lines = _subset(random, made) if random.random() < 0.5 else ("all users", list(made.lines))
    place = random.randint(0, 1)
    which = ("most often", "second most often")[place]
    return f"Of {who}, which user is seen {which}? {_AS_USER}", _ranked(
        Counter(str(line.user) for line in lines), place
    )


def _user_counted(random: Random, made: Window) -> Asked:
    who, lines = _subset(random, made)
    return _counted(random, lines, f"Among the questions of {who} alone, ", random.randint(0, 2))


def _user_of_label(random: Random, made: Window) -> Asked:
    label = random.choice(_NAMES)
    who, lines = _subset(random, made) if random.random() < 0.5 else ("all users", list(made.lines))
    counts = Counter(str(line.user) for line in lines if line.label == label)
    if not counts:
        raise _Tie
    return f"Of {who}, which user has the most questions with the label '{label}'? {_AS_USER}", _ranked(
        counts
    )


def _user_compared(random: Random, made: Window) -> Asked:
    label = random.choice(_NAMES)
    a, b = random.sample([user for user, _ in Counter(line.user for line in made.lines).most_common(40)], 2)
    counts = Counter({str(a): 0, str(b): 0})
    counts.update(str(line.user) for line in made.lines if line.user in (a, b) and line.label == label)
    return (
        f"Which of the users {a} and {b} has more questions with the label '{label}'? {_AS_USER}",
        _ranked(counts),
    )


# By time


def _date_seen(random: Random, made: Window) -> Asked:
    place = random.randint(0, 1)
    which = ("most often", "second most often")[place]
    day = _ranked(Counter(f"{line.day:%m/%d/%Y}" for line in made.lines), place)
    return f"Which date is seen {which}? Give your final answer in the form 'Date: MM/DD/YYYY'.", day


def _dates_seen(random: Random, made: Window) -> Asked:
    counts = Counter(Counter(line.day for line in made.lines).values())
    times = random.choice(list(counts))
    return f"How many dates occur exactly {times} times? {_AS_NUMBER}", str(counts[times])


def _day(random: Random) -> date:
    return date.fromordinal(random.randint(FIRST.toordinal() + 100, LAST.toordinal() - 100))


def _before_and_after(random: Random, made: Window) -> Asked:
    label, day = random.choice(_NAMES), _day(random)
    before = sum(line.label == label for line in made.lines if line.day < day)
    after = sum(line.label == label for line in made.lines if line.day > day)
    how = "more common" if before > after else "less common" if before < after else "same frequency"
    asked = (
        f"Is the label '{label}' more common, less common, or of the same frequency before {day:%b %d, %Y} "
        "as after it (the number of "
        "questions; the day itself counts as neither)? Give your final answer in the form 'Answer: [X]', "
        "where [X] is 'more common', "
        "'less common' or 'same frequency'."
    )
    return asked, how


def _in_month(random: Random, made: Window) -> Asked:
    month = random.randint(1, 12)
    lines = [line for line in made.lines if line.day.month == month]
    return _counted(
        random, lines, f"Among the questions of {_MONTHS[month - 1]} of any year, ", random.randint(0, 2)
    )


def _in_range(random: Random, made: Window) -> Asked:
    begin, end = sorted((_day(random), _day(random)))
    lines = [line for line in made.lines if begin <= line.day <= end]
    return _counted(
        random,
        lines,
        f"Among the questions from {begin:%b %d, %Y} to {end:%b %d, %Y}, both included, ",
        random.randint(0, 2),
    )


def _months(made: Window) -> dict[tuple[int, int], Counter[str]]:
    months: dict[tuple[int, int], Counter[str]] = {}
    for line in made.lines:
        months.setdefault((line.day.year, line.day.month), Counter())[line.label] += 1
    return dict(sorted(months.items()))


def _first_month(random: Random, made: Window) -> Asked:
    a, b = random.sample(_NAMES, 2)
    found = [month for month, counts in _months(made).items() if counts[a] > counts[b]]
    if not found:
        raise _Tie
    year, month = found[0]
    asked = f"What is the first month in which the label '{a}' occurs more often than '{b}'? {_AS_MONTH}"
    return asked, f"{_MONTHS[month - 1]} {year}"


def _months_more(random: Random, made: Window) -> Asked:
    a, b = random.sample(_NAMES, 2)
    found = sum(counts[a] > counts[b] for counts in _months(made).values())
    return (
        f"In how many months (of a year) does the label '{a}' occur more often than '{b}'? {_AS_NUMBER}",
        str(found),
    )


def _months_most(random: Random, made: Window) -> Asked:
    label = random.choice(_NAMES)
    found = sum(
        all(counts[label] > counts[other] for other in _NAMES if other != label)
        for counts in _months(made).values()
    )
    asked = (
        f"In how many months (of a year) is the label '{label}' the single most frequent one? {_AS_NUMBER}"
    )
    return asked, str(found)


FORMS: dict[str, Callable[[Random, Window], Asked]] = {
    "counting: most common": _most_common,
    "counting: compared": _compared,
    "counting: number": _number,
    "user: seen most": _user_seen,
    "user: counting": _user_counted,
    "user: most of a label": _user_of_label,
    "user: compared": _user_compared,
    "time: date seen most": _date_seen,
    "time: dates seen n times": _dates_seen,
    "time: before and after": _before_and_after,
    "time: in a month": _in_month,
    "time: in a range": _in_range,
    "time: first month": _first_month,
    "time: months with more": _months_more,
    "time: months with most": _months_most,
}


def tasks(length: int, count: int, seed: int, trec: Path | None) -> Iterator[Task]:
    """So many questions, 25 on each window of `length` tokens.

    A form without an answer that is no tie gives way to the next.

    Raises UsageError.
    """
    pool = read_pool(trec)
    made = window(pool, length, seed, 0)
    forms = list(FORMS)
    for place in range(count):
        if place and place % QUESTIONS == 0:
            made = window(pool, length, seed, place // QUESTIONS)
        for tried in counting():
            kind = forms[(place + tried // _TRIES) % len(forms)]
            try:
                question, answer = FORMS[kind](Random(f"oolong {seed} {length} {place} {tried}"), made)
            except _Tie:
                continue
            break
        yield Task(
            f"oolong-{seed}-{length}-{place:03d}",
            "oolong",
            kind,
            question,
            answer,
            "oolong",
            {"questions.txt": made.text},
            length=length,
        )

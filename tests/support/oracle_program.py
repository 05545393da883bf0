"""What the oracle's root model runs in the kernel: it reads OOLONG's windows and answers its questions by
code. Written from the questions' words alone, and knowing nothing of how the tasks were made; it runs in the
container as it stands here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import combinations
from typing import Any

LINE = re.compile(r"^Date: (.+?) \|\| User: (\d+) \|\| Instance: (.*)$", re.MULTILINE)
BATCH = 100
"""Questions in one prompt."""


def classify(texts: Sequence[str], ask_all: Callable[..., list[Any]]) -> list[str]:
    """The label of each question, by sub models."""
    batches = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    prompts = [
        "Say of each question which of the 6 categories its answer has. Reply with a JSON list of the "
        "categories, in order.\n" + "\n".join(f"{number}: {text}" for number, text in enumerate(batch))
        for batch in batches
    ]
    labels: list[str] = []
    for batch, reply in zip(
        batches, ask_all(prompts, schema={"type": "array", "items": {"type": "string"}}), strict=True
    ):
        assert len(reply) == len(batch), "a label for each"
        labels += reply
    return labels


def read(context: str, ask_all: Callable[..., list[Any]]) -> list[tuple[datetime, int, str]]:
    """Day, user and label of every line."""
    found = LINE.findall(context)
    labels = classify([text for _, _, text in found], ask_all)
    return [
        (datetime.strptime(day, "%b %d, %Y"), int(user), label)
        for (day, user, _), label in zip(found, labels, strict=True)
    ]


def answer(question: str, rows: list[tuple[datetime, int, str]]) -> str:
    """The final answer to one of OOLONG's questions, in the form that it asks for."""
    if "List all pairs" in question:
        return pairs(question, rows)
    quoted = re.findall(r"'([^']*)'", question)
    some = subset(question, rows)
    if found := re.search(r"user is seen (second )?most often", question):
        return f"User: {ranked(Counter(user for _, user, _ in some), int(bool(found[1])))}"
    if "which user has the most questions" in question:
        return f"User: {ranked(Counter(user for _, user, label in some if label == quoted[0]))}"
    if found := re.search(r"Which of the users (\d+) and (\d+)", question):
        two = {int(found[1]): 0, int(found[2]): 0}
        for _, user, label in rows:
            if user in two and label == quoted[0]:
                two[user] += 1
        return f"User: {max(two, key=lambda user: two[user])}"
    if found := re.search(r"Which date is seen (second )?most often", question):
        return f"Date: {ranked(Counter(day for day, _, _ in rows), int(bool(found[1]))):%m/%d/%Y}"
    if found := re.search(r"How many dates occur exactly (\d+) times", question):
        return f"Answer: {list(Counter(day for day, _, _ in rows).values()).count(int(found[1]))}"
    if found := re.search(
        r"same frequency before (.+? \d\d, \d{4}) as after", question.replace("of the same", "same")
    ):
        day = datetime.strptime(found[1], "%b %d, %Y")
        before = sum(label == quoted[0] and when < day for when, _, label in rows)
        after = sum(label == quoted[0] and when > day for when, _, label in rows)
        return f"Answer: {compared(before, after)}"
    if "month" in question and "Among the questions" not in question:
        return f"Answer: {by_month(question, quoted, rows)}"
    counts = Counter(label for _, _, label in some)
    if found := re.search(r"the (most|least) common", question):
        order = counts.most_common()
        return f"Label: {order[0][0] if found[1] == 'most' else least(counts)}"
    if "same frequency as" in question:
        a, b = re.search(
            r"is label '(.+?)' more common.+? as label "
            r"'(.+?)'",
            question,
        ).groups()  # type: ignore[union-attr]
        how = {
            "more common": "more common than",
            "less common": "less common than",
            "same frequency": "same frequency as",
        }
        return f"Answer: {a} is {how[compared(counts[a], counts[b])]} {b}"
    return f"Answer: {counts[quoted[0]]}"


ALL = (
    "abbreviation",
    "entity",
    "description and abstract concept",
    "human being",
    "location",
    "numeric value",
)


def least(counts: Counter[str]) -> str:
    return min(ALL, key=lambda label: counts[label])


def compared(first: int, second: int) -> str:
    return "more common" if first > second else "less common" if first < second else "same frequency"


def ranked(counts: Counter[Any], place: int = 0) -> Any:
    return counts.most_common()[place][0]


def subset(question: str, rows: list[tuple[datetime, int, str]]) -> list[tuple[datetime, int, str]]:
    if found := re.search(r"the users ([\d, ]+\d)(?: alone)?,", question):
        users = set(map(int, found[1].split(", ")))
        return [row for row in rows if row[1] in users]
    if found := re.search(r"the questions of (\w+) of any year", question):
        return [row for row in rows if f"{row[0]:%B}" == found[1]]
    if found := re.search(r"the questions from (.+? \d\d, \d{4}) to (.+? \d\d, \d{4}), both", question):
        begin, end = (datetime.strptime(text, "%b %d, %Y") for text in found.groups())
        return [row for row in rows if begin <= row[0] <= end]
    return rows


def by_month(question: str, quoted: list[str], rows: list[tuple[datetime, int, str]]) -> str:
    months: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    for day, _, label in rows:
        months[day.year, day.month][label] += 1
    if "single most frequent" in question:
        wanted = quoted[0]
        return str(
            sum(
                all(counts[wanted] > counts[other] for other in ALL if other != wanted)
                for counts in months.values()
            )
        )
    a, b = quoted[:2]
    more = sorted(month for month, counts in months.items() if counts[a] > counts[b])
    return f"{datetime(*more[0], 1):%B %Y}" if "first month" in question else str(len(more))


def pairs(question: str, rows: list[tuple[datetime, int, str]]) -> str:
    users: dict[int, list[tuple[datetime, str]]] = defaultdict(list)
    for day, user, label in rows:
        users[user].append((day, label))
    condition = question[question.index("such that") : question.index(". Each question")]
    if "both users" in condition:
        kinds = set(re.findall(r"'([^']+)'", condition.partition(", and for both")[0]))
        dated = re.search(
            r"all questions of the kind '(.+?)' that they have are (before|after) (.+)$", condition
        )

        def holds(lines: list[tuple[datetime, str]]) -> bool:
            if not any(label in kinds for _, label in lines):
                return False
            if dated is None:
                return True
            limit = datetime.strptime(dated[3], "%b %d, %Y")
            days = [day for day, label in lines if label == dated[1]]
            return all(day < limit if dated[2] == "before" else day > limit for day in days)

        found = set(combinations(sorted(user for user, lines in users.items() if holds(lines)), 2))
    else:
        one, other = (
            [
                (how, int(number), label)
                for how, number, label in re.findall(
                    r"(at least|exactly) (\d+) questions? of the kind '(.+?)'", part
                )
            ]
            for part in condition.split(", and the other user")
        )

        def fits(lines: list[tuple[datetime, str]], wanted: list[tuple[str, int, str]]) -> bool:
            counts = Counter(label for _, label in lines)
            return all(
                counts[label] == number if how == "exactly" else counts[label] >= number
                for how, number, label in wanted
            )

        ones = [user for user, lines in users.items() if fits(lines, one)]
        others = [user for user, lines in users.items() if fits(lines, other)]
        found = {(min(a, b), max(a, b)) for a in ones for b in others if a != b}
    return "\n".join(f"({a}, {b})" for a, b in sorted(found))

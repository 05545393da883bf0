"""Easy questions over texts of some hundred thousand characters: what a small model ought to do, in ten kinds
of work.

Each kind has twelve questions of different form over different texts. 120 tasks have each of them once; the
numbers come from the seed. All answers are computed from the records that the text was made of, and none of
them is a tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count as counting
from random import Random

from rlm_kernel.bench import small_fresh, small_kept, small_texts
from rlm_kernel.bench.small_answers import Asked, Tie, best, tie, totals, with_line
from rlm_kernel.bench.small_texts import (
    FEELINGS,
    MOODS,
    PLACES,
    PRODUCTS,
    REQUESTS,
    SERVICES,
    TELLTALE,
    WORDS,
    name,
)
from rlm_kernel.bench.task import Task

_SENSIBLE = 1_000
"""Tries of numbers until no two answers are alike."""


# The ten kinds


def _search(random: Random, form: int) -> Asked:
    if form == 0:
        _, texts = small_texts.log(random)
        user = f"u{random.randint(500, 999)}"
        line = f"2025-11-02 04:05:06 WARNING [storage] user={user} disk quota exceeded"
        return (
            "Which user is named in the line about an exceeded disk quota?",
            with_line(texts, line, random),
            user,
            "exact",
        )
    if form == 1:
        hosts, texts = small_texts.hosts(random)
        host = random.choice(hosts)
        return f"What is retention_days of {host['host']}?", texts, host["retention_days"], "number"
    if form == 2:
        modules, texts = small_texts.code(random)
        module = random.choice(modules)
        function = random.choice(module["functions"])
        if sum(function in other["functions"] for other in modules) > 1:
            raise Tie
        return f"In which file is the function {function} defined?", texts, module["file"], "exact"
    if form == 3:
        _, texts = small_texts.story(random)
        word = f"{random.choice(WORDS)}-{random.randint(10, 99)}-{random.choice(WORDS)}"
        return (
            "What is the password that the gardener whispers?",
            with_line(texts, f'The gardener whispers: the password is "{word}".', random),
            word,
            "exact",
        )
    if form == 4:
        orders, texts = small_texts.sales(random)
        order = random.choice(orders)
        return f"Which city is order {order['order']} from?", texts, order["city"], "exact"
    _, texts = small_texts.chat(random)
    who = name(random).split()[0]
    line = f"[2025-10-30 11:12] {who}: the meeting is moved to room {random.randint(10, 99)}"
    return "Who writes that the meeting is moved?", with_line(texts, line, random), who, "exact"


def _count(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = small_texts.log(random)
        return (
            "How many lines have the level ERROR?",
            texts,
            sum(r["level"] == "ERROR" for r in records),
            "number",
        )
    if form == 1:
        records, texts = small_texts.sales(random)
        city = random.choice(PLACES)
        return f"How many orders are from {city}?", texts, sum(r["city"] == city for r in records), "number"
    if form == 2:
        records, texts = small_texts.code(random)
        return (
            "How many files import socket?",
            texts,
            sum("socket" in r["imports"] for r in records),
            "number",
        )
    if form == 3:
        records, texts = small_texts.chat(random)
        who = random.choice(records)["who"]
        return f"How many messages did {who} write?", texts, sum(r["who"] == who for r in records), "number"
    if form == 4:
        records, texts = small_texts.library(random)
        author = random.choice(records)["author"]
        return (
            f"How many books are by {author}?",
            texts,
            sum(r["author"] == author for r in records),
            "number",
        )
    records, texts = small_texts.hosts(random)
    return "How many hosts are not enabled?", texts, sum(r["enabled"] == "false" for r in records), "number"


def _sum(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = small_texts.sales(random)
        product = random.choice(PRODUCTS)
        return (
            f"How many units of {product} were sold in total?",
            texts,
            sum(r["units"] for r in records if r["product"] == product),
            "number",
        )
    if form == 1:
        records, texts = small_texts.log(random)
        service = random.choice(SERVICES)
        total = sum(r["ms"] for r in records if r["service"] == service)
        return (
            f"How many milliseconds did the requests of the service {service} take in total?",
            texts,
            total,
            "number",
        )
    if form == 2:
        records, texts = small_texts.library(random)
        return (
            "How many pages do all the books have together?",
            texts,
            sum(r["pages"] for r in records),
            "number",
        )
    if form == 3:
        records, texts = small_texts.hosts(random)
        return (
            "What is the sum of memory_mb over all hosts?",
            texts,
            sum(r["memory_mb"] for r in records),
            "number",
        )
    if form == 4:
        records, texts = small_texts.sales(random)
        city = random.choice(PLACES)
        return (
            f"How many units were sold in {city} altogether?",
            texts,
            sum(r["units"] for r in records if r["city"] == city),
            "number",
        )
    records, texts = small_texts.log(random)
    user = random.choice(records)["user"]
    total = sum(r["ms"] for r in records if r["user"] == user)
    return f"Add up the milliseconds of all requests of user {user}.", texts, total, "number"


def _extremes(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = small_texts.log(random)
        return (
            "How many milliseconds did the slowest request take?",
            texts,
            max(r["ms"] for r in records),
            "number",
        )
    if form == 1:
        records, texts = small_texts.sales(random)
        return "What is the highest price in the file?", texts, max(r["price"] for r in records), "number"
    if form == 2:
        records, texts = small_texts.library(random)
        thickest = best(
            {r["title"]: r["pages"] for r in records if sum(o["title"] == r["title"] for o in records) == 1}
        )
        return "What is the title of the book with the most pages?", texts, thickest, "exact"
    if form == 3:
        records, texts = small_texts.hosts(random)
        return (
            "Which host has the least memory_mb?",
            texts,
            best({r["host"]: r["memory_mb"] for r in records}, least=True),
            "exact",
        )
    if form == 4:
        records, texts = small_texts.code(random)
        return (
            "Which file has the most lines?",
            texts,
            best({r["file"]: r["text"].count("\n") for r in records}),
            "exact",
        )
    records, texts = small_texts.chat(random)
    longest = max(len(r["text"]) for r in records)
    (who,) = (
        {r["who"] for r in records if len(r["text"]) == longest}
        if sum(len(r["text"]) == longest for r in records) == 1
        else tie()
    )
    return "Who wrote the longest message?", texts, who, "exact"


def _distinct(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = small_texts.log(random)
        return "How many different users are in the log?", texts, len({r["user"] for r in records}), "number"
    if form == 1:
        records, texts = small_texts.sales(random)
        return (
            "How many different customers are there?",
            texts,
            len({r["customer"] for r in records}),
            "number",
        )
    if form == 2:
        records, texts = small_texts.library(random)
        return (
            "By how many different authors are the books?",
            texts,
            len({r["author"] for r in records}),
            "number",
        )
    if form == 3:
        records, texts = small_texts.chat(random)
        return (
            "How many people wrote at least one message?",
            texts,
            len({r["who"] for r in records}),
            "number",
        )
    if form == 4:
        records, texts = small_texts.hosts(random)
        return "How many different regions are there?", texts, len({r["region"] for r in records}), "number"
    lines, texts = small_texts.story(random)
    return (
        "How many different words does the text have, without regard to case?",
        texts,
        len({word for line in lines for word in line}),
        "number",
    )


def _dates(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = small_texts.log(random)
        first = next(r for r in records if r["level"] == "FATAL")
        return (
            "On which date is the first line with the level FATAL? Answer as YYYY-MM-DD.",
            texts,
            f"{first['time']:%Y-%m-%d}",
            "exact",
        )
    if form == 1:
        records, texts = small_texts.sales(random)
        who = random.choice(records)["customer"]
        last = max(r["date"] for r in records if r["customer"] == who)
        return (
            f"What is the date of the last order of {who}? Answer as YYYY-MM-DD.",
            texts,
            str(last),
            "exact",
        )
    if form == 2:
        records, texts = small_texts.log(random)
        day = best(Counter(f"{r['time']:%Y-%m-%d}" for r in records if r["level"] == "ERROR"))
        return (
            "On which date are there the most lines with the level ERROR? Answer as YYYY-MM-DD.",
            texts,
            day,
            "exact",
        )
    if form == 3:
        records, texts = small_texts.sales(random)
        month = random.choice(records)["date"].strftime("%Y-%m")
        worded = datetime.strptime(month, "%Y-%m").strftime("%B %Y")
        return (
            f"How many orders are there in {worded}?",
            texts,
            sum(str(r["date"]).startswith(month) for r in records),
            "number",
        )
    if form == 4:
        records, texts = small_texts.chat(random)
        return (
            "On how many different days was a message written?",
            texts,
            len({r["time"].date() for r in records}),
            "number",
        )
    records, texts = small_texts.library(random)
    day = f"2024-{random.randint(3, 10):02d}-15"
    return (
        f"How many books were borrowed after {day}?",
        texts,
        sum(r["borrowed"] > day for r in records),
        "number",
    )


def _lines(random: Random, form: int) -> Asked:
    if form == 0:
        lines, texts = small_texts.story(random)
        return "How many lines does the file have?", texts, len(lines), "number"
    if form == 1:
        records, texts = small_texts.log(random)
        number = next(place for place, r in enumerate(records, 1) if r["level"] == "FATAL")
        return (
            "What is the number of the first line with the level FATAL? The file's first line has number 1.",
            texts,
            number,
            "number",
        )
    if form == 2:
        records, texts = small_texts.code(random)
        return (
            "How many lines contain TODO, in all files together?",
            texts,
            sum(r["text"].count("TODO") for r in records),
            "number",
        )
    if form == 3:
        records, texts = small_texts.sales(random)
        number = random.randint(200, 3_000)
        wanted = texts["sales.csv"].splitlines()[number - 1]
        return f"What is line {number} of the file? The heading is line 1.", texts, wanted, "exact"
    if form == 4:
        records, texts = small_texts.hosts(random)
        return "How many empty lines does the file have?", texts, len(records) - 1, "number"
    records, texts = small_texts.chat(random)
    return "Who wrote the last message?", texts, records[-1]["who"], "exact"


def _words(random: Random, form: int) -> Asked:
    if form in (0, 1, 3, 4):
        lines, texts = small_texts.story(random)
        tally = Counter(word for line in lines for word in line)
        if form == 0:
            word = random.choice(WORDS)
            return (
                f"How often does the word {word} occur, in any case and as a whole word?",
                texts,
                tally[word],
                "number",
            )
        if form == 1:
            return (
                "What is the most frequent word of at least 7 letters?",
                texts,
                best({w: n for w, n in tally.items() if len(w) >= 7}),
                "exact",
            )
        if form == 3:
            return (
                f"How many lines contain the word {(word := random.choice(WORDS))}, in any case?",
                texts,
                sum(word in line for line in lines),
                "number",
            )
        return "How many words does the text have?", texts, sum(tally.values()), "number"
    if form == 2:
        records, texts = small_texts.chat(random)
        word = random.choice(WORDS)
        return (
            f"How many messages contain the word {word}?",
            texts,
            sum(word in r["text"].split() for r in records),
            "number",
        )
    records, texts = small_texts.code(random)
    return (
        "How often does the word return occur in all files together?",
        texts,
        sum(len(r["functions"]) for r in records),
        "number",
    )


def _per_group(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = small_texts.log(random)
        worst = best(totals([r for r in records if r["level"] == "ERROR"], "service"))
        return "Which service has the most lines with the level ERROR?", texts, worst, "exact"
    if form == 1:
        records, texts = small_texts.sales(random)
        return (
            "In which city were the most units sold?",
            texts,
            best(totals(records, "city", lambda r: r["units"])),
            "exact",
        )
    if form == 2:
        records, texts = small_texts.library(random)
        return (
            "Which author has the most pages over all books?",
            texts,
            best(totals(records, "author", lambda r: r["pages"])),
            "exact",
        )
    if form == 3:
        records, texts = small_texts.chat(random)
        return "Who wrote the most messages?", texts, best(totals(records, "who")), "exact"
    if form == 4:
        records, texts = small_texts.hosts(random)
        return "Which region has the most hosts?", texts, best(totals(records, "region")), "exact"
    records, texts = small_texts.sales(random)
    return "Which customer placed the most orders?", texts, best(totals(records, "customer")), "exact"


def _classify(random: Random, form: int) -> Asked:
    """The answer is in no word of the text: it takes somebody who reads."""
    about, question, kinds, wanted = _READING[form]
    given = [(kind, text) for kind in kinds for text in random.sample(kinds[kind], random.randint(2, 4))]
    if form in (2, 4):
        given = [pair for pair in given if pair[0] != wanted] + [(wanted, random.choice(kinds[wanted]))]
    random.shuffle(given)
    text = "\n".join(f"{number}. {text}" for number, (_, text) in enumerate(given, 1)) + "\n"
    places = [number for number, (kind, _) in enumerate(given, 1) if kind == wanted]
    answer = places[0] if form in (2, 4) else len(places)
    return question.format(total=len(given)), {f"{about}.txt": text}, answer, "number"


_READING: tuple[tuple[str, str, dict[str, list[str]], str], ...] = (
    (
        "reviews",
        "Each line is a review of a hotel. How many of the {total} reviews are negative?",
        FEELINGS,
        "negative",
    ),
    (
        "requests",
        "Each line is a customer's message. How many of the {total} messages are about a bill or a payment?",
        REQUESTS,
        "billing",
    ),
    (
        "reviews",
        "Each line is a review of a hotel. What is the number of the review that is negative?",
        FEELINGS,
        "negative",
    ),
    (
        "letters",
        "Each line is from a letter. In how many of the {total} lines is the writer angry?",
        MOODS,
        "angry",
    ),
    (
        "requests",
        "Each line is a customer's message. What is the number of the one that is about a parcel or a "
        "delivery?",
        REQUESTS,
        "delivery",
    ),
    ("sentences", "How many of the {total} sentences are in French?", TELLTALE, "french"),
)

KINDS: dict[str, Callable[[Random, int], Asked]] = {
    "search": _search,
    "count": _count,
    "sum": _sum,
    "extremes": _extremes,
    "distinct": _distinct,
    "dates": _dates,
    "lines": _lines,
    "words": _words,
    "per-group": _per_group,
    "classify": _classify,
}
HALVES = {"tuned": (0, 2, 4), "aside": (1, 3, 5), "fresh": (6, 7, 8), "kept": (9, 10, 11)}
"""Of each kind, the forms for work on prompts, those that judged the first such work, those that were written
afterwards, over other texts (`small_fresh.py`), and those that were written after these, over other texts
again (`small_kept.py`): nothing was worked out with them.
"""
FORMS = sum(map(len, HALVES.values()))
"""Questions of each kind."""
_AFTERWARDS = {"fresh": small_fresh.KINDS, "kept": small_kept.KINDS}


def _asked(kind: str, form: int, random: Random) -> Asked:
    for half, kinds in _AFTERWARDS.items():
        if form in HALVES[half]:
            return kinds[kind](random, HALVES[half].index(form))
    return KINDS[kind](random, form)


def tasks(count: int, seed: int) -> Iterator[Task]:
    """So many tasks, kind after kind, form after form, and then again with other numbers."""
    for place in range(count):
        kind = list(KINDS)[place % len(KINDS)]
        form = place // len(KINDS) % FORMS
        for tried in counting():
            random = Random(f"{seed} {kind} {form} {place} {tried}")
            try:
                question, texts, expected, scorer = _asked(kind, form, random)
            except Tie:
                if tried < _SENSIBLE:
                    continue
                raise
            break
        yield Task(
            f"small-{seed}-{place:03d}-{kind}-{form}", "small", kind, question, expected, scorer, texts
        )

"""The kept half of the easy tasks: three more forms of each kind, over texts of other subjects and formats.

Neither the prompt of the local model nor anything else was worked out with them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random

from rlm_kernel.bench import small_kept_texts as texts_of
from rlm_kernel.bench.small_answers import Asked, best, totals, with_line
from rlm_kernel.bench.small_kept_texts import BEDS, BRANCHES, CALLS, PANTRY, REPLIES, SHIPS, SUBJECTS, TRIPS


def _search(random: Random, form: int) -> Asked:
    if form == 0:
        _, texts = texts_of.syslog(random)
        serial = f"{random.randint(1_000, 9_999)}-{random.randint(1_000, 9_999)}"
        line = f"Oct  4 02:47:13 vault kernel: usb 2-1: new USB disk found, SerialNumber: {serial}"
        question = "Someone plugged a USB disk into one of the machines. What is its serial number?"
        return question, with_line(texts, line, random), serial, "exact"
    if form == 1:
        records, texts = texts_of.recipes(random)
        dish = random.choice(records)
        return f'How many people does "{dish["name"]}" serve?', texts, dish["serves"], "number"
    records, texts = texts_of.schema(random)
    wanted = random.choice(records)
    table = random.choice(wanted["tables"])
    question = f"I need the name of the SQL file that creates the table {table}."
    return question, texts, wanted["file"], "exact"


def _count(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.valves(random)
        return "How many valves are set to manual?", texts, sum(r["manual"] for r in records), "number"
    if form == 1:
        records, texts = texts_of.radio(random)
        ship = random.choice(SHIPS)
        wanted = sum(r["sender"] == ship for r in records)
        return f"Count the radio messages that {ship} sent.", texts, wanted, "number"
    records, texts = texts_of.commits(random)
    author = random.choice(records)["author"]
    wanted = sum(r["author"] == author for r in records)
    return f"How many of these commits are by {author}?", texts, wanted, "number"


def _sum(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.birds(random)
        species = random.choice(records)["species"]
        wanted = sum(r["seen"] for r in records if r["species"] == species)
        question = f'Add up the column "seen" for the {species}: what is the total?'
        return question, texts, wanted, "number"
    if form == 1:
        records, texts = texts_of.loans(random)
        branch = random.choice(BRANCHES)
        wanted = sum(r["fee"] for r in records if r["branch"] == branch)
        question = f"What do the late fees of the {branch} branch come to, in cents?"
        return question, texts, wanted, "number"
    records, texts = texts_of.ward(random)
    bed = random.choice(BEDS)
    wanted = sum(r["ml"] for r in records if r["bed"] == bed)
    return f"How many ml were drunk in bed {bed} altogether?", texts, wanted, "number"


def _extremes(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.commits(random)
        largest = best({r["hash"]: r["added"] for r in records})
        return "Which commit has the most insertions? Give its hash.", texts, largest, "exact"
    if form == 1:
        records, texts = texts_of.recipes(random)
        slowest = best({r["name"]: r["minutes"] for r in records})
        return "Which dish takes the longest to make?", texts, slowest, "exact"
    records, texts = texts_of.ward(random)
    highest = max(r["temperature"] for r in records)
    return "What's the highest temperature anybody had on the ward?", texts, highest, "number"


def _distinct(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.loans(random)
        wanted = len({r["reader"] for r in records})
        return "How many different readers borrowed something?", texts, wanted, "number"
    if form == 1:
        records, texts = texts_of.birds(random)
        wanted = len({r["species"] for r in records})
        return "How many species of bird are in the list?", texts, wanted, "number"
    records, texts = texts_of.syslog(random)
    wanted = len({r["ip"] for r in records if r["kind"] == "failed"})
    question = 'How many distinct IP addresses are there in the lines with "Failed password"?'
    return question, texts, wanted, "number"


def _dates(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.birds(random)
        species = random.choice(records)["species"]
        first = min(r["date"] for r in records if r["species"] == species)
        question = f"When was the {species} seen for the first time? Write the date as YYYY-MM-DD."
        return question, texts, first, "exact"
    if form == 1:
        records, texts = texts_of.commits(random)
        busiest = best(Counter(f"{r['time']:%Y-%m}" for r in records))
        return "In which month were the most commits made? Answer as YYYY-MM.", texts, busiest, "exact"
    records, texts = texts_of.loans(random)
    month = random.choice(records)["lent"].replace(day=1)
    wanted = sum(r["lent"].replace(day=1) == month for r in records)
    return f"How many books were lent in {month:%B %Y}?", texts, wanted, "number"


def _lines(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.speeches(random)
        wanted = sum(r["after"] == "(Applause.)" for r in records)
        return 'On how many lines is there nothing but "(Applause.)"?', texts, wanted, "number"
    if form == 1:
        records, texts = texts_of.syslog(random)
        return "Please quote the very last line of the file.", texts, records[-1]["line"], "exact"
    records, texts = texts_of.schema(random)
    wanted = sum(r["comments"] for r in records)
    return 'Over all the SQL files, how many lines start with "--"?', texts, wanted, "number"


def _words(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.speeches(random)
        subject = random.choice(SUBJECTS)
        spoken = Counter(word for r in records for word in re.findall(r"\w+", r["text"].lower()))
        question = f'How often was the word "{subject}" spoken? Upper and lower case are the same.'
        return question, texts, spoken[subject], "number"
    if form == 1:
        records, texts = texts_of.recipes(random)
        thing = random.choice(PANTRY)
        wanted = sum(thing in item.split() for r in records for item in r["ingredients"])
        return f"In how many recipes does the word {thing} turn up?", texts, wanted, "number"
    records, texts = texts_of.radio(random)
    wanted = sum(r["last"] == "out" for r in records)
    return 'How many messages end with the word "out"?', texts, wanted, "number"


def _per_group(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.radio(random)
        return "To whom were the most messages sent?", texts, best(totals(records, "to")), "exact"
    if form == 1:
        records, texts = texts_of.speeches(random)
        loudest = best(totals(records, "party"))
        return "The members of which party gave the most speeches?", texts, loudest, "exact"
    records, texts = texts_of.valves(random)
    thirstiest = best(totals(records, "zone", lambda r: r["flow"]))
    question = "Which zone has the largest total of litres_per_minute?"
    return question, texts, thirstiest, "exact"


def _classify(random: Random, form: int) -> Asked:
    """The answer is in no word of the text: it takes somebody who reads."""
    about, question, kinds, wanted = _READING[form]
    least = 2 if len(kinds) > 2 else 3
    given = [
        (kind, text)
        for kind in kinds
        for text in random.sample(kinds[kind], random.randint(least, least + 2))
    ]
    if form == 2:
        given = [pair for pair in given if pair[0] != wanted] + [(wanted, random.choice(kinds[wanted]))]
    random.shuffle(given)
    text = "\n".join(f"{number}. {text}" for number, (_, text) in enumerate(given, 1)) + "\n"
    places = [number for number, (kind, _) in enumerate(given, 1) if kind == wanted]
    answer = places[0] if form == 2 else len(places)
    return question.format(total=len(given)), {f"{about}.txt": text}, answer, "number"


_READING: tuple[tuple[str, str, Mapping[str, list[str]], str], ...] = (
    (
        "calls",
        "Each line is a call to the emergency number. How many of the {total} callers need the fire brigade?",
        CALLS,
        "fire brigade",
    ),
    (
        "replies",
        "Each line is somebody's reply to an invitation. In how many of the {total} replies do they say that "
        "they are coming?",
        REPLIES,
        "coming",
    ),
    (
        "trips",
        "Each line is about a journey. All but one are over. What is the number of the one that is still to "
        "come?",
        TRIPS,
        "to come",
    ),
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

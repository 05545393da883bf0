"""The fresh half of the easy tasks: three more forms of each kind, over other texts.

Neither the prompt of the local model nor anything else was worked out with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random

from rlm_kernel.bench import small_fresh_texts as texts_of
from rlm_kernel.bench.small_answers import Asked, best, totals, with_line
from rlm_kernel.bench.small_fresh_texts import CITIES, GOODS, HEADLINES, MEALS, NOTES, NOUNS, STATIONS, THEMES


def _search(random: Random, form: int) -> Asked:
    if form == 0:
        _, texts = texts_of.access(random)
        ip = f"172.16.{random.randint(0, 99)}.{random.randint(1, 254)}"
        line = f'{ip} - - [03/Oct/2025:02:11:09 +0000] "GET /admin/backup.zip HTTP/1.1" 403 91'
        return "Which IP address asked for /admin/backup.zip?", with_line(texts, line, random), ip, "exact"
    if form == 1:
        records, texts = texts_of.players(random)
        player = random.choice(records)
        return f"Which club does {player['player']} play for?", texts, player["club"], "exact"
    _, texts = texts_of.tale(random)
    hidden = f"{random.choice(NOUNS)} {random.randint(100, 999)}"
    line = f"At dusk the innkeeper hides the treasure map under the {hidden}, where nobody looks."
    question = "Under what does the innkeeper hide the treasure map? Answer with noun and number alone."
    return question, with_line(texts, line, random), hidden, "exact"


def _count(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.access(random)
        wanted = sum(r["status"] == 404 for r in records)
        return "How many requests were answered with the status 404?", texts, wanted, "number"
    if form == 1:
        records, texts = texts_of.trips(random)
        city = random.choice(CITIES)
        return f"How many trips go to {city}?", texts, sum(r["to"] == city for r in records), "number"
    records, texts = texts_of.minutes(random)
    theme = random.choice(THEMES)
    wanted = sum(theme in r["themes"] for r in records)
    return f"How many of the files mention the word {theme}?", texts, wanted, "number"


def _sum(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.trips(random)
        goods = random.choice(GOODS)
        wanted = sum(r["km"] for r in records if r["cargo"] == goods)
        return f"How many kilometres were driven with {goods} altogether?", texts, wanted, "number"
    if form == 1:
        records, texts = texts_of.players(random)
        club = random.choice(records)["club"]
        wanted = sum(r["goals"] for r in records if r["club"] == club)
        return f"How many goals did all players of {club} score together?", texts, wanted, "number"
    records, texts = texts_of.access(random)
    return "How many bytes were sent in total?", texts, sum(r["bytes"] for r in records), "number"


def _extremes(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.weather(random)
        return "What was the highest wind speed?", texts, max(r["wind"] for r in records), "number"
    if form == 1:
        records, texts = texts_of.trips(random)
        longest = best({r["trip"]: r["km"] for r in records})
        return "What is the number of the trip with the most kilometres?", texts, longest, "exact"
    records, texts = texts_of.players(random)
    scorer = best({r["player"]: r["goals"] for r in records})
    return "Which player has scored the most goals?", texts, scorer, "exact"


def _distinct(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.access(random)
        wanted = len({r["ip"] for r in records})
        return "From how many different IP addresses did requests come?", texts, wanted, "number"
    if form == 1:
        records, texts = texts_of.trips(random)
        return "How many different drivers are there?", texts, len({r["driver"] for r in records}), "number"
    records, texts = texts_of.desk(random)
    return "How many different people wrote messages?", texts, len({r["who"] for r in records}), "number"


def _dates(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.weather(random)
        station = random.choice(STATIONS)
        day = best({str(r["day"]): r["temp"] for r in records if r["station"] == station}, least=True)
        question = f"On which day was it coldest at {station}? Answer as YYYY-MM-DD."
        return question, texts, day, "exact"
    if form == 1:
        records, texts = texts_of.trips(random)
        month = f"2024-{random.randint(1, 12):02d}"
        wanted = sum(r["date"].startswith(month) for r in records)
        return f"How many trips were made in the month {month}?", texts, wanted, "number"
    records, texts = texts_of.desk(random)
    busiest = best(Counter(f"{r['time']:%Y-%m-%d}" for r in records))
    return "On which date were the most messages written? Answer as YYYY-MM-DD.", texts, busiest, "exact"


def _lines(random: Random, form: int) -> Asked:
    if form == 0:
        lines, texts = texts_of.tale(random)
        number = random.randint(300, 3_000)
        return (
            f"What is line {number} of the file? The first line is line 1.",
            texts,
            lines[number - 1],
            "exact",
        )
    if form == 1:
        _, texts = texts_of.minutes(random)
        wanted = sum(text.count("\n") for text in texts.values())
        return "How many lines do all the files have together?", texts, wanted, "number"
    records, texts = texts_of.access(random)
    number = next(place for place, r in enumerate(records, 1) if r["status"] == 503)
    question = "What is the number of the first line with the status 503? The file's first line is number 1."
    return question, texts, number, "number"


def _words(random: Random, form: int) -> Asked:
    if form == 1:
        records, texts = texts_of.desk(random)
        noun = random.choice(NOUNS)
        wanted = sum(noun in r["text"].split() for r in records)
        return f"How many messages contain the word {noun}?", texts, wanted, "number"
    lines, texts = texts_of.tale(random)
    tally = Counter(word.strip(".,").lower() for line in lines for word in line.split())
    if form == 0:
        noun = random.choice(NOUNS)
        return f"How many times does the word {noun} occur in the text?", texts, tally[noun], "number"
    most = best({noun: tally[noun] for noun in tally if len(noun) >= 8})
    return "Which word of at least 8 letters is the most frequent?", texts, most, "exact"


def _per_group(random: Random, form: int) -> Asked:
    if form == 0:
        records, texts = texts_of.weather(random)
        rainy = [r for r in records if r["rain"] > 0]
        return "Which station had the most days with rain?", texts, best(totals(rainy, "station")), "exact"
    if form == 1:
        records, texts = texts_of.trips(random)
        farthest = best(totals(records, "driver", lambda r: r["km"]))
        return "Which driver drove the most kilometres in total?", texts, farthest, "exact"
    records, texts = texts_of.access(random)
    return "Which IP address made the most requests?", texts, best(totals(records, "ip")), "exact"


def _classify(random: Random, form: int) -> Asked:
    """The answer is in no word of the text: it takes somebody who reads."""
    about, question, kinds, wanted = _READING[form]
    given = [(kind, text) for kind in kinds for text in random.sample(kinds[kind], random.randint(2, 4))]
    if form == 1:
        given = [pair for pair in given if pair[0] != wanted] + [(wanted, random.choice(kinds[wanted]))]
    random.shuffle(given)
    text = "\n".join(f"{number}. {text}" for number, (_, text) in enumerate(given, 1)) + "\n"
    places = [number for number, (kind, _) in enumerate(given, 1) if kind == wanted]
    answer = places[0] if form == 1 else len(places)
    return question.format(total=len(given)), {f"{about}.txt": text}, answer, "number"


_READING: tuple[tuple[str, str, Mapping[str, list[str]], str], ...] = (
    (
        "guestbook",
        "Each line is what a guest of a restaurant wrote. How many of the {total} guests were dissatisfied?",
        MEALS,
        "displeased",
    ),
    (
        "notes",
        "Each line is a note on the board of a house. What is the number of the one that complains of noise?",
        NOTES,
        "noise",
    ),
    ("headlines", "How many of the {total} headlines are about sport?", HEADLINES, "sport"),
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

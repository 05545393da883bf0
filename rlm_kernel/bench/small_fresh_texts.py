"""What the texts of the easy tasks' fresh half are made of."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from random import Random

from rlm_kernel.bench.small_texts import Record, words

STATIONS = ("Kvitfjell", "Altmuhl", "Porto Vale", "Dunmore", "Sankt Veit", "Lille Sund", "Monte Rosso")
CITIES = ("Turin", "Lyon", "Graz", "Malmo", "Tartu", "Brno", "Vigo", "Leeds", "Gdansk")
GOODS = ("timber", "glass", "fruit", "paper", "steel", "toys")
PAGES = ("/", "/shop/boots", "/shop/tents", "/cart", "/login", "/help/returns", "/blog/winter", "/api/stock")
STATUSES = (200, 301, 404, 500, 503)
CLUBS = words("Rovers Wanderers Athletic Olympia Borough Falcons Mariners Union Lions Comets")
THEMES = words("budget roof garden library heating parking festival website insurance playground")
NOUNS = words(
    "miller harvest lighthouse orchard blacksmith compass ferry granary hedgehog islander juggler kettle "
    "locksmith meadowlark nightingale oarsman peddler quill raven shepherd thimble urchin vineyard weaver "
    "yardarm zither acorn barrel cobbler drummer ember fiddle goose hammock inkwell jetty"
)
_VERBS = words("watched carried followed painted counted forgot praised mended borrowed buried warned chased")
_PLACES = words("yesterday quietly together gladly secretly twice slowly again early badly")
_FIRST = words(
    "Agnes Boris Chiara Denis Eva Florian Gita Henrik Ines Jakub Katya Leon Mira Nils Oriana Pavel Quinn "
    "Renata Stefan Tove Umar Vera Wim Xenia Yann Zora"
)
_LAST = words(
    "Arnesen Bianchi Cermak Duarte Engel Fontaine Galli Holm Iversen Jovic Kask Lindqvist Marek Nyberg "
    "Ortega Pinto Rask Silva Tamm Ulrich Varga Wolf"
)


def person(random: Random) -> str:
    """A name."""
    return f"{random.choice(_FIRST)} {random.choice(_LAST)}"


MEALS = {
    "pleased": [
        "The soup came at once and warmed us to the toes.",
        "My father asked for the recipe of the dumplings.",
        "A table by the window, and a waiter who made us laugh.",
        "The bread alone is worth the journey.",
        "We stayed until they closed, and booked again for Sunday.",
        "Generous portions, and the fish was as fresh as can be.",
    ],
    "displeased": [
        "The meat was raw in the middle and the sauce came out of a packet.",
        "Forty minutes for a glass of water, and then it was the wrong table's.",
        "There was a hair in my salad, and nobody said sorry.",
        "The bill had two desserts on it that we never ate.",
        "My chair wobbled, the candle smoked, and the rice was burnt.",
        "Save your money and eat at home.",
    ],
}
NOTES = {
    "noise": [
        "The drums on the third floor go on until midnight.",
        "Somebody drills into the wall every Sunday at seven.",
        "The dog next door barks whenever its people are out.",
        "The party last night kept the whole house awake.",
    ],
    "parking": [
        "A white van has stood in front of the gate since Monday.",
        "Visitors leave their cars on the spaces of tenants.",
        "The line that marks my space has worn off.",
        "Please do not block the ramp of the garage.",
    ],
    "rubbish": [
        "The bins were full again on Thursday, and bags lay beside them.",
        "Who put a mattress beside the paper container?",
        "Glass does not belong into the brown bin.",
        "Crows tear the yellow sacks that are put out too early.",
    ],
}
HEADLINES = {
    "sport": [
        "Late goal sends the visitors home with a point",
        "Swimmer breaks her own record in the last heat",
        "Coach leaves after six defeats in a row",
        "Veteran wins the marathon in the rain",
        "Twins reach the final of the doubles",
    ],
    "politics": [
        "Parliament rejects the new tax by two votes",
        "Minister resigns over the bridge contract",
        "Mayor promises a tram line before the election",
        "Opposition calls for an inquiry into the ports",
        "Three parties agree on a coalition",
    ],
    "science": [
        "Telescope sees a galaxy older than any before",
        "Bees can tell faces apart, a study finds",
        "New battery lasts twice as long in the cold",
        "Fossil of a feathered lizard found in a quarry",
        "Vaccine against malaria passes its last trial",
    ],
}


def access(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Requests to a web server. The records, and the texts by name."""
    time, records = datetime(2025, random.randint(1, 9), random.randint(1, 28), 6), []
    addresses = [
        f"10.{random.randint(0, 9)}.{random.randint(0, 99)}.{random.randint(1, 254)}" for _ in range(90)
    ]
    busy = [random.randint(1, 9) for _ in addresses]
    for _ in range(random.randint(4_000, 6_000)):
        time += timedelta(seconds=random.randint(1, 200))
        status = random.choices(STATUSES, (80, 6, 8, 4, 2))[0]
        record = {"time": time, "ip": random.choices(addresses, busy)[0], "path": random.choice(PAGES)}
        records.append(record | {"status": status, "bytes": random.randint(80, 90_000)})
    lines = [
        f'{r["ip"]} - - [{r["time"]:%d/%b/%Y:%H:%M:%S} +0000] "GET {r["path"]} HTTP/1.1" '
        f"{r['status']} {r['bytes']}"
        for r in records
    ]
    return records, {"access.log": "\n".join(lines) + "\n"}


def weather(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Days at weather stations, a table with semicolons. The records, and the texts by name."""
    records = []
    for number in range(random.randint(550, 750)):
        day = date(2023, 3, 1) + timedelta(days=number)
        for station in STATIONS:
            rain = random.choice([0, 0, random.randint(1, 400)]) / 10
            wind, temperature = random.randint(0, 110), random.randint(-250, 380) / 10
            records.append({"day": day, "station": station, "temp": temperature, "rain": rain, "wind": wind})
    rows = [f"{r['day']};{r['station']};{r['temp']};{r['rain']};{r['wind']}" for r in records]
    return records, {"weather.csv": "day;station;temp_c;rain_mm;wind_kmh\n" + "\n".join(rows) + "\n"}


def trips(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Journeys of lorries, as JSON lines. The records, and the texts by name."""
    drivers = list(dict.fromkeys(person(random) for _ in range(random.randint(40, 60))))
    records: list[Record] = []
    for number in range(random.randint(3_000, 4_500)):
        start, end = random.sample(CITIES, 2)
        trip = {"trip": f"T{70_000 + number}", "driver": random.choice(drivers), "from": start, "to": end}
        day = date(2024, 1, 1) + timedelta(days=random.randint(0, 365))
        records.append(
            trip | {"km": random.randint(40, 2_900), "cargo": random.choice(GOODS), "date": str(day)}
        )
    return records, {"trips.jsonl": "".join(json.dumps(trip) + "\n" for trip in records)}


def players(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Players, as one JSON list. The records, and the texts by name."""
    names = list(dict.fromkeys(f"{person(random)} {random.choice('ABCDEFGH')}." for _ in range(1_800)))
    records: list[Record] = [
        {
            "player": name,
            "club": random.choice(CLUBS),
            "goals": random.randint(0, 240),
            "born": random.randint(1980, 2006),
        }
        for name in names
    ]
    return records, {"players.json": "[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n"}


def minutes(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Minutes of meetings, a file each. The records, and the texts by name."""
    records: list[Record] = []
    days = sorted(random.sample(range(900), random.randint(50, 70)))
    for day in days:
        held = date(2022, 1, 10) + timedelta(days=day)
        present = random.sample(_FIRST, random.randint(3, 9))
        themes = random.sample(THEMES, random.randint(2, 5))
        points = [
            f"- {theme}: {' '.join(random.choices(NOUNS, k=random.randint(20, 90)))}" for theme in themes
        ]
        text = f"# Meeting\n\nDate: {held}\nPresent: {', '.join(present)}\n\n" + "\n".join(points) + "\n"
        records.append({"file": f"minutes-{held}.md", "present": present, "themes": themes, "text": text})
    return records, {r["file"]: r["text"] for r in records}


def tale(random: Random) -> tuple[list[str], dict[str, str]]:
    """Sentences of a tale, one a line."""
    weights = [random.randint(1, 20) for _ in NOUNS]

    def sentence() -> str:
        one, other, third = random.choices(NOUNS, weights, k=3)
        return (
            f"The {one} {random.choice(_VERBS)} the {other} {random.choice(_PLACES)}, and the {third} "
            f"{random.choice(_VERBS)} nobody."
        )

    lines = [sentence() for _ in range(random.randint(4_000, 6_000))]
    return lines, {"tale.txt": "\n".join(lines) + "\n"}


def desk(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Messages to a help desk. The records, and the texts by name."""
    people = random.sample(_FIRST, random.randint(12, 18))
    weights = [random.randint(2, 12) for _ in people]
    time, records = datetime(2025, random.randint(1, 9), 1, 8), []
    for _ in range(random.randint(3_500, 4_500)):
        time += timedelta(minutes=random.choice([1, 4, 9, 30, 500]))
        text = " ".join(random.choices(NOUNS, k=random.randint(3, 15)))
        records.append({"time": time, "who": random.choices(people, weights)[0], "text": text})
    lines = [f"{r['time']:%Y-%m-%d %H:%M} | {r['who']} | {r['text']}" for r in records]
    return records, {"desk.txt": "\n".join(lines) + "\n"}

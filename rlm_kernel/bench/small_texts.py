"""What the texts of the easy tasks are made of."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

Record = dict[str, Any]
"""What a text says, by names: the answers are computed from these."""


def words(text: str) -> list[str]:
    """Those of a line."""
    return text.split()


SERVICES = ("auth", "billing", "search", "storage", "mailer")
LEVELS = ("INFO", "WARNING", "ERROR", "FATAL")
PLACES = ("Aarhus", "Bergen", "Cork", "Delft", "Evora", "Faro", "Ghent", "Haarlem")
PRODUCTS = ("lamp", "kettle", "shelf", "carpet", "mirror", "clock")
BRANCHES = ("north", "south", "east", "west", "harbour", "airport", "centre")
WORDS = words(
    "anchor basket candle doctor engine forest garden hammer island jacket kitchen ladder market needle "
    "orange pencil quarry ribbon "
    "saddle tunnel umbrella valley window yellow budget captain evening feather glacier harbour invoice "
    "journey kingdom lantern meadow "
    "network oyster passage quarter railway shelter thunder uniform village weather blanket cabinet diamond "
    "elephant fountain gradual "
    "horizon insect jungle kingfisher leather machine notebook october package quantity receipt station "
    "teacher upstairs volcano whistle"
)
_FIRST = words(
    "Anna Bruno Carla David Elsa Frank Greta Hugo Ida Jonas Karin Luis Maria Niels Olga Paul Rosa Sven "
    "Tilda Viktor Wanda Yusuf Zoe Amir "
    "Birgit Cem Dora Emil Fatima Gustav"
)
_LAST = words(
    "Ahlberg Berger Costa Dahl Eriksen Ferrari Gruber Haas Ivanov Jansen Keller Lund Moreau Novak Olsen "
    "Petrov Quist Rossi Santos Toth "
    "Urban Vogel Weber Zeman"
)


def name(random: Random) -> str:
    """A person's."""
    return f"{random.choice(_FIRST)} {random.choice(_LAST)}"


def book_title(random: Random) -> str:
    """Of a book."""
    return (
        f"The {random.choice(WORDS).capitalize()} and the {random.choice(WORDS).capitalize()} of "
        f"{random.choice(PLACES)}"
    )


FEELINGS = {
    "positive": [
        "The room was bright and quiet, and we slept wonderfully.",
        "Friendly people at the desk, and the breakfast was a joy.",
        "We will certainly come back next summer with the children.",
        "Spotless bathroom, soft bed, and a lovely view of the lake.",
        "Everything worked, and the staff helped us with the luggage.",
        "The best night's rest that I had in years.",
    ],
    "negative": [
        "The sheets were stained and the shower stayed cold.",
        "Nobody answered the phone, and we waited an hour for the key.",
        "Loud music until three in the morning; we left a day early.",
        "The carpet smelled of smoke and the heating was broken.",
        "We paid far too much for a dark room with a view of a wall.",
        "I would not stay here again even if it cost nothing.",
    ],
}
REQUESTS = {
    "billing": [
        "You charged my card twice for the same month.",
        "Please send me an invoice with our company's tax number.",
        "Why is the amount higher than what we agreed on?",
        "I want my money back for the cancelled subscription.",
        "My bank says that your debit was refused.",
    ],
    "delivery": [
        "The courier left the box in the rain at the wrong door.",
        "It was shipped ten days ago and has still not arrived.",
        "Can you bring it on Saturday, when somebody is at home?",
        "The tracking page says that it is still in the warehouse.",
        "The driver rang once and drove off with my order.",
    ],
    "login": [
        "I forgot my password and the reset mail never comes.",
        "The site says that my account is locked after three tries.",
        "How do I change the e-mail address I sign in with?",
        "The code from the authenticator app is not accepted.",
        "Since yesterday I cannot get into my profile any more.",
    ],
}
MOODS = {
    "angry": [
        "How dare you treat my mother like that!",
        "I have had enough of your excuses, and I will not put up with this a day longer.",
        "This is an outrage, and you will hear from my lawyer.",
        "You lied to my face, and I shall never forgive it.",
        "Stop wasting my time with this nonsense at once!",
    ],
    "calm": [
        "The apple trees have been in blossom since Tuesday.",
        "Thank you for the photographs; we put them on the wall.",
        "I hope that this finds you in good health.",
        "We took the early train and had coffee by the river.",
        "Your cousin sends her love, and so do the children.",
    ],
}
TELLTALE = {
    "french": [
        "Le train pour Lyon part à huit heures du matin.",
        "Nous avons mangé une soupe aux légumes hier soir.",
        "Ma sœur travaille dans une petite librairie.",
        "Il pleut depuis trois jours sans arrêt.",
        "Où avez-vous laissé les clés de la voiture ?",
    ],
    "spanish": [
        "El perro duerme debajo de la mesa.",
        "Mañana vamos a la playa con los niños.",
        "Mi abuela cocina muy bien los domingos.",
        "¿Dónde está la estación de autobuses?",
    ],
    "german": [
        "Der Zug nach Köln fährt um acht Uhr ab.",
        "Wir haben gestern Abend Suppe gegessen.",
        "Meine Schwester arbeitet in einer Buchhandlung.",
        "Es regnet seit drei Tagen.",
    ],
    "english": [
        "The dog sleeps under the table.",
        "Tomorrow we go to the beach with the children.",
        "My grandmother cooks very well on Sundays.",
        "It has been raining for three days.",
    ],
}


# The texts, each with the records that it is made of


def log(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Requests of services, as a log. The records, and the texts by name."""
    time, records = datetime(2025, random.randint(1, 9), random.randint(1, 28)), []
    weights = [random.randint(3, 9) for _ in SERVICES]
    for _ in range(random.randint(4_000, 6_000)):
        time += timedelta(seconds=random.randint(1, 300))
        level = random.choices(LEVELS, (60, 25, 10, 5))[0]
        service = random.choices(SERVICES, weights)[0]
        user = f"u{random.randint(100, 399)}"
        records.append(
            {"time": time, "level": level, "service": service, "user": user, "ms": random.randint(1, 30_000)}
        )
    lines = [
        f"{r['time']:%Y-%m-%d %H:%M:%S} {r['level']} [{r['service']}] user={r['user']} request done in "
        f"{r['ms']} ms"
        for r in records
    ]
    return records, {"server.log": "\n".join(lines) + "\n"}


def sales(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Sales of a shop, as a table. The records, and the texts by name."""
    day, records = date(2024, 1, 1), []
    customers = [name(random) for _ in range(random.randint(60, 90))]
    for number in range(random.randint(4_000, 6_000)):
        day += timedelta(days=random.random() < 0.12)
        row = {
            "date": day,
            "order": f"A-{10_000 + number}",
            "customer": random.choice(customers),
            "city": random.choice(PLACES),
        }
        records.append(
            row
            | {
                "product": random.choice(PRODUCTS),
                "units": random.randint(1, 400),
                "price": random.randint(100, 9_999) / 100,
            }
        )
    rows = [
        f"{r['date']},{r['order']},{r['customer']},{r['city']},{r['product']},{r['units']},{r['price']:.2f}"
        for r in records
    ]
    return records, {"sales.csv": "date,order,customer,city,product,units,price\n" + "\n".join(rows) + "\n"}


def library(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Books, as sections of settings. The records, and the texts by name."""
    authors = [name(random) for _ in range(random.randint(120, 160))]
    records = []
    for _ in range(random.randint(2_000, 3_000)):
        borrowed = date(2024, 1, 1) + timedelta(days=random.randint(0, 365))
        book = {
            "title": book_title(random),
            "author": random.choice(authors),
            "year": random.randint(1801, 2020),
        }
        records.append(book | {"pages": random.randint(60, 1_400), "borrowed": str(borrowed)})
    return records, {"library.jsonl": "".join(json.dumps(book) + "\n" for book in records)}


def hosts(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Machines, as JSON lines. The records, and the texts by name."""
    records: list[Record] = []
    for number in range(random.randint(900, 1_300)):
        host = {
            "host": f"host-{number:04d}",
            "region": random.choice(BRANCHES),
            "memory_mb": random.randint(1_000, 900_000),
        }
        records.append(
            host | {"retention_days": random.randint(5, 900), "enabled": random.choice(["true", "false"])}
        )
    sections = []
    for r in records:
        keys = "\n".join(f"{key} = {r[key]}" for key in ("region", "memory_mb", "retention_days", "enabled"))
        sections.append(f"[{r['host']}]\n{keys}\n")
    return records, {"hosts.ini": "\n".join(sections)}


def code(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Functions of modules, as source code. The records, and the texts by name."""
    records: list[Record] = []
    stems = random.sample([f"{a}_{b}" for a in WORDS[:20] for b in WORDS[20:40]], random.randint(40, 60))
    for stem in stems:
        imports = random.sample(["json", "os", "re", "math", "socket", "logging"], random.randint(1, 4))
        defined = [
            f"{random.choice(WORDS)}_{number}"
            for number in random.sample(range(1_000), random.randint(5, 30))
        ]
        body = []
        for function in defined:
            notes = "    # TODO: check the bounds\n" if random.random() < 0.2 else ""
            body.append(
                f"def {function}(value):\n{notes}    total = value * {random.randint(2, 99)}\n    return "
                "total\n"
            )
        text = "".join(f"import {module}\n" for module in imports) + "\n\n" + "\n\n".join(body)
        records.append({"file": f"{stem}.py", "imports": imports, "functions": defined, "text": text})
    return records, {r["file"]: r["text"] for r in records}


def chat(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Messages of people in a room. The records, and the texts by name."""
    people = list(dict.fromkeys(name(random).split()[0] for _ in range(random.randint(12, 20))))
    weights = [random.randint(2, 12) for _ in people]
    time, records = datetime(2025, random.randint(1, 9), 1, 8), []
    for _ in range(random.randint(4_000, 5_000)):
        time += timedelta(minutes=random.choice([1, 2, 3, 5, 20, 600]))
        text = " ".join(random.choices(WORDS, k=random.randint(3, 18)))
        records.append({"time": time, "who": random.choices(people, weights)[0], "text": text})
    lines = [f"[{r['time']:%Y-%m-%d %H:%M}] {r['who']}: {r['text']}" for r in records]
    return records, {"chat.txt": "\n".join(lines) + "\n"}


def story(random: Random) -> tuple[list[list[str]], dict[str, str]]:
    """Words by line."""
    weights = [random.randint(1, 30) for _ in WORDS]
    lines = [
        random.choices(WORDS, weights, k=random.randint(6, 14)) for _ in range(random.randint(4_000, 6_000))
    ]
    return lines, {"story.txt": "\n".join(" ".join(line).capitalize() + "." for line in lines) + "\n"}

"""What the texts of the easy tasks' kept half are made of."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from itertools import product
from random import Random

from rlm_kernel.bench.small_texts import Record, words

BRANCHES = ("Northgate", "Quayside", "Hilltop", "Millbrook", "Eastfield")
SHIPS = words("ALBATROSS MERIDIAN CALYPSO THISTLE BOREAS PETREL HARBOUR FORTUNE SEAHORSE")
ZONES = ("orchard", "nursery", "terrace", "glasshouse", "rosebed", "pasture")
PANTRY = words(
    "flour butter saffron cream honey garlic thyme ginger almonds vinegar mustard lentils paprika walnuts "
    "parsley olives capers raisins cinnamon yeast"
)
BEDS = range(1, 19)
SUBJECTS = words(
    "railway pension tariff fishery hospital prison bridge forest museum airport reservoir quarry "
    "university lottery archive canal embassy ferry"
)
_SPECIES = words(
    "heron curlew kingfisher lapwing avocet dunlin teal wigeon osprey bittern redshank plover sandpiper "
    "gannet kestrel merlin wheatear whimbrel nightjar dipper grebe shelduck linnet siskin jay rook hobby"
)
_HIDES = ("Gull Point", "Long Marsh", "Cinder Pool", "Reed Hide", "West Dyke")
_PARTIES = ("Coast", "Meadow", "Progress", "Heritage", "Accord")
_HOSTS = words("relay gate01 gate02 mirror vault")
_NAMES = words(
    "Abel Beatrix Casimir Delia Edgar Flora Gideon Harriet Ismael Judith Kasper Lydia Marcus Nadia Oskar "
    "Phoebe Rupert Sonja Tobias Ursula Valentin Winifred"
)
_SURNAMES = words(
    "Ashdown Brandt Carrow Dietz Elster Falk Grieve Holt Imhof Jolly Kerr Lorimer Mott Noble Oakes Pym Rusk "
    "Stead Thorne Usher Vane Wick"
)
_PARTS = words(
    "parser cache scheduler tokenizer router socket codec journal mutex planner loader renderer ledger queue"
)
_TALES = words("Salt Winter Paper Silver Northern Hidden Broken Glass Second Quiet")
_TOPICS = words("River House Orchard Letters Garden Island Winter Bridge Clock Sister")
_SENTENCES = (
    "I ask the government what it means to do about the {0}.",
    "Nobody in this chamber has forgotten the {0}, nor the {1} that was promised with it.",
    "The {0} costs us more each year than the {1} and the {2} together.",
    "{3} after {0} has been put off, and the people know it.",
    "Let the minister visit the {0} and say so again.",
    "We voted for the {0} in good faith.",
)
_SIGNALS = (
    "we make {} knots on a heading of 0{}",
    "request a pilot at buoy {} by {} minutes past",
    "fog bank ahead, reducing to {} knots, {} metres of sight",
    "{} crew on board, {} tons of cargo, all well",
    "barometer falls, wind force {}, swell from 2{}",
)
_COMMENTS = ("Kept for the yearly report.", "Filled by the night job.", "See the manual.", "Do not drop.")

CALLS = {
    "fire brigade": [
        "Thick black smoke is pouring out of the bakery's roof.",
        "A candle fell over, the curtains caught, and we ran outside.",
        "Sparks from the chimney have set the thatch alight.",
        "A car is burning in the underground garage.",
        "The pan of oil is ablaze, and the kitchen cupboards have caught.",
    ],
    "ambulance": [
        "My husband clutches his chest and cannot catch his breath.",
        "The old lady next door fell down the stairs, and her leg lies at an odd angle.",
        "Our little boy has swallowed a whole strip of grandmother's tablets.",
        "She was stung by a wasp, and now her throat is swelling shut.",
        "A cyclist lies in the road and does not wake up.",
    ],
    "police": [
        "Somebody smashed the window of my shop and emptied the till.",
        "Two men in masks just snatched a woman's handbag.",
        "A stranger is trying the door handles of all the parked cars.",
        "I came home to find the drawers turned out and my jewellery gone.",
        "The man at the counter has a knife and wants the takings.",
    ],
}
REPLIES = {
    "coming": [
        "We wouldn't miss it for the world.",
        "Put two more plates on the table for us.",
        "I have already ironed my good shirt.",
        "Try and stop me!",
        "Shall I bring the potato salad again?",
        "The sitter is booked, so you will have us both until midnight.",
    ],
    "not coming": [
        "We fly to Madeira the day before, what a pity.",
        "You will have to raise a glass without me this time.",
        "My shift starts just when your doors open, and nobody will swap.",
        "If only it were a week later!",
        "With my leg in plaster I am not leaving the sofa.",
        "Save me a slice of the cake, and tell me all about it on Monday.",
    ],
}
TRIPS = {
    "over": [
        "There is still sand from Crete in my shoes.",
        "The hotel in Bruges had the softest beds.",
        "I am going through nine hundred photographs of fjords.",
        "Never again by night bus; my back took a week to mend.",
        "The stamps of four borders are in my passport as souvenirs.",
        "Rome was hot, and we lived on ice cream.",
    ],
    "to come": [
        "The tickets for Lisbon hang on the fridge, and I count the days.",
        "I am learning my first words of Greek for the week in May that I booked.",
        "We still have to find somebody who waters the plants while we are at sea.",
        "Does anybody know what to pack for Iceland? We leave on Friday.",
        "My sister looks after the cat while we are in Vienna next month.",
    ],
}


def people(random: Random, number: int) -> list[str]:
    """So many different names."""
    return [f"{one} {other}" for one, other in random.sample(list(product(_NAMES, _SURNAMES)), number)]


def loans(random: Random) -> tuple[list[Record], dict[str, str]]:
    """What a library lent, a table with semicolons and days first. The records, and the texts by name."""
    readers = [f"R{number}" for number in random.sample(range(1_000, 9_999), random.randint(300, 500))]
    records: list[Record] = []
    for number in range(random.randint(4_000, 5_000)):
        lent = date(2024, 1, 2) + timedelta(days=number // 13)
        records.append(
            {
                "loan": 500_000 + number,
                "reader": random.choice(readers),
                "branch": random.choice(BRANCHES),
                "title": f"{random.choice(_TALES)} {random.choice(_TOPICS)}",
                "lent": lent,
                "returned": lent + timedelta(days=random.randint(1, 60)),
                "fee": random.choice([0, 0, 5 * random.randint(1, 150)]),
            }
        )
    rows = [
        f"{r['loan']};{r['reader']};{r['branch']};{r['title']};{r['lent']:%d.%m.%Y};{r['returned']:%d.%m.%Y};"
        f"{r['fee']}"
        for r in records
    ]
    heading = "loan;reader;branch;title;lent;returned;late_fee_cents\n"
    return records, {"loans.csv": heading + "\n".join(rows) + "\n"}


def syslog(random: Random) -> tuple[list[Record], dict[str, str]]:
    """What machines say of themselves. The records, and the texts by name."""
    addresses = [
        f"198.51.{random.randint(0, 99)}.{random.randint(1, 254)}" for _ in range(random.randint(120, 240))
    ]
    strangers = addresses[: random.randint(60, 110)]
    time, records = datetime(2025, random.randint(1, 9), random.randint(1, 28)), []
    for _ in range(random.randint(4_000, 5_000)):
        time += timedelta(seconds=random.randint(1, 400))
        kind = random.choice(["failed", "failed", "accepted", "cron", "kernel"])
        ip = random.choice(strangers if kind == "failed" else addresses)
        login = f"for {random.choice(_NAMES).lower()} from {ip} port {random.randint(1_024, 65_000)} ssh2"
        said = {
            "failed": f"sshd[{random.randint(300, 9_999)}]: Failed password {login}",
            "accepted": f"sshd[{random.randint(300, 9_999)}]: Accepted publickey {login}",
            "cron": f"CRON[{random.randint(300, 9_999)}]: (root) CMD (/opt/jobs/{random.choice(_PARTS)}.sh)",
            "kernel": f"kernel: eth{random.randint(0, 3)}: link is {random.choice(['up', 'down'])}",
        }[kind]
        line = f"{time:%b} {time.day:2d} {time:%H:%M:%S} {random.choice(_HOSTS)} {said}"
        records.append({"kind": kind, "ip": ip, "line": line})
    return records, {"syslog": "\n".join(r["line"] for r in records) + "\n"}


def ward(random: Random) -> tuple[list[Record], dict[str, str]]:
    """The diary of a hospital's ward, day by day. The records, and the texts by name."""
    records: list[Record] = []
    lines, highest = [], random.randint(392, 415)
    for number in range(random.randint(150, 220)):
        day = date(2024, 3, 4) + timedelta(days=number)
        lines += [f"{day:%A} {day.day} {day:%B %Y}", f"On duty: Nurse {random.choice(_SURNAMES)}"]
        for minute in sorted(random.sample(range(360, 1_320), random.randint(15, 25))):
            bed = random.choice(BEDS)
            record: Record = {"bed": bed, "ml": 0, "temperature": 0.0}
            what = random.choice(["drank", "temperature", "pulse", "slept"])
            if what == "drank":
                record["ml"] = 10 * random.randint(5, 60)
                what = f"drank {record['ml']} ml of {random.choice(['tea', 'water', 'broth', 'milk'])}"
            elif what == "temperature":
                record["temperature"] = random.randint(360, highest) / 10
                what = f"temperature {record['temperature']}"
            elif what == "pulse":
                what = f"pulse {random.randint(52, 130)}, feels {random.choice(['better', 'weak', 'well'])}"
            else:
                what = f"slept for {random.randint(20, 200)} minutes"
            records.append(record)
            lines.append(f"{minute // 60:02d}:{minute % 60:02d} bed {bed}: {what}")
        lines.append("")
    return records, {"ward-diary.txt": "\n".join(lines)}


def valves(random: Random) -> tuple[list[Record], dict[str, str]]:
    """The valves of a garden, as TOML. The records, and the texts by name."""
    records: list[Record] = [
        {
            "id": f"V-{number:04d}",
            "zone": random.choice(ZONES),
            "flow": random.randint(2, 180),
            "opens": f"{random.randint(4, 9):02d}:{random.choice((0, 15, 30, 45)):02d}:00",
            "manual": random.random() < 0.3,
        }
        for number in range(random.randint(900, 1_400))
    ]
    tables = [
        f'[[valve]]\nid = "{r["id"]}"\nzone = "{r["zone"]}"\nlitres_per_minute = {r["flow"]}\n'
        f"opens_at = {r['opens']}\nmanual = {str(r['manual']).lower()}\n"
        for r in records
    ]
    return records, {"irrigation.toml": 'garden = "Upper Lea"\n\n' + "\n".join(tables)}


def birds(random: Random) -> tuple[list[Record], dict[str, str]]:
    """What a bird-watcher saw, a table in Markdown. The records, and the texts by name."""
    species = random.sample(_SPECIES, random.randint(16, 25))
    arrives = [random.randint(0, 150) for _ in species]
    arrives[0] = 0
    records: list[Record] = []
    for number in range(random.randint(200, 260)):
        here = [kind for kind, day in zip(species, arrives, strict=True) if day <= number]
        records += [
            {
                "date": str(date(2024, 2, 20) + timedelta(days=number)),
                "hide": random.choice(_HIDES),
                "species": random.choice(here),
                "seen": random.randint(1, 60),
            }
            for _ in range(random.randint(8, 25))
        ]
    rows = [f"| {r['date']} | {r['hide']} | {r['species']} | {r['seen']} |" for r in records]
    heading = "# Birds seen\n\n| date | hide | species | seen |\n|---|---|---|---:|\n"
    return records, {"birds.md": heading + "\n".join(rows) + "\n"}


def commits(random: Random) -> tuple[list[Record], dict[str, str]]:
    """The log of a repository, newest first. The records, and the texts by name."""
    authors = people(random, random.randint(9, 15))
    weights = [random.randint(2, 12) for _ in authors]
    time = datetime(2025, random.randint(1, 9), random.randint(1, 28), 17)
    records: list[Record] = []
    verbs = ("Fix", "Add", "Rename", "Test", "Split")
    for _ in range(random.randint(1_500, 2_000)):
        time -= timedelta(minutes=random.randint(5, 900))
        one, other = random.sample(_PARTS, 2)
        records.append(
            {
                "hash": f"{random.getrandbits(48):012x}",
                "author": random.choices(authors, weights)[0],
                "time": time,
                "message": f"{random.choice(verbs)} the {one} of the {other}",
                "added": random.randint(2, 6_000),
                "deleted": random.randint(2, 6_000),
            }
        )
    entries = [
        f"commit {r['hash']}\nAuthor: {r['author']} <{r['author'].split()[0].lower()}@example.org>\n"
        f"Date:   {r['time']:%Y-%m-%d %H:%M:%S} +0000\n\n    {r['message']}\n\n"
        f" {random.randint(2, 20)} files changed, {r['added']} insertions(+), {r['deleted']} deletions(-)\n"
        for r in records
    ]
    return records, {"git-log.txt": "\n".join(entries)}


def recipes(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Recipes, as one JSON list. The records, and the texts by name."""
    ways = words("Braised Roast Pickled Stewed Smoked Stuffed Grilled Baked")
    mains = words("trout rabbit fennel pumpkin cabbage beetroot duck mackerel leek celeriac")
    sides = words("barley rice potatoes polenta dumplings noodles beans chestnuts quince turnips")
    dishes = [f"{way} {main} with {side}" for way, main, side in product(ways, mains, sides)]
    records: list[Record] = [
        {
            "name": dish,
            "serves": random.randint(2, 12),
            "minutes": random.randint(10, 1_500),
            "ingredients": [
                f"{random.randint(5, 500)} g {thing}"
                for thing in random.sample(PANTRY, random.randint(3, 10))
            ],
        }
        for dish in random.sample(dishes, random.randint(650, 790))
    ]
    return records, {"recipes.json": json.dumps(records, indent=2) + "\n"}


def radio(random: Random) -> tuple[list[Record], dict[str, str]]:
    """What ships said to each other. The records, and the texts by name."""
    weights = [random.randint(2, 12) for _ in SHIPS]
    minute = 0
    records: list[Record] = []
    for _ in range(random.randint(4_000, 5_000)):
        minute += random.randint(1, 30)
        sender, to = random.choices(SHIPS, weights)[0], random.choices(SHIPS, weights)[0]
        while to == sender:
            to = random.choice(SHIPS)
        text = random.choice(_SIGNALS).format(random.randint(2, 29), random.randint(10, 59))
        last = random.choice(["over", "over", "out"])
        clock = f"Day {minute // 1440 + 1}, {minute % 1440 // 60:02d}{minute % 60:02d}Z"
        records.append({"clock": clock, "sender": sender, "to": to, "text": text, "last": last})
    lines = [f"{r['clock']} {r['sender']} to {r['to']}: {r['text']}, {r['last']}." for r in records]
    return records, {"radio.txt": "\n".join(lines) + "\n"}


def speeches(random: Random) -> tuple[list[Record], dict[str, str]]:
    """What members of a parliament said, a paragraph each. The records, and the texts by name."""
    members = [
        (f"{random.choice(('MR', 'MS'))} {name.upper()}", random.choice(_PARTIES)) for name in _SURNAMES
    ]
    records: list[Record] = []
    for _ in range(random.randint(700, 1_000)):
        said = []
        for _ in range(random.randint(3, 10)):
            subjects = random.sample(SUBJECTS, 3)
            said.append(random.choice(_SENTENCES).format(*subjects, random.choice(SUBJECTS).capitalize()))
        member, party = random.choice(members)
        after = random.choice(["", "", "(Applause.)", "(Laughter.)"])
        records.append({"member": member, "party": party, "text": " ".join(said), "after": after})
    parts = [
        f"{r['member']} ({r['party']}): {r['text']}\n" + (f"{r['after']}\n" if r["after"] else "")
        for r in records
    ]
    return records, {"debate.txt": "\n".join(parts)}


def schema(random: Random) -> tuple[list[Record], dict[str, str]]:
    """Files that make the tables of a port's database. The records, and the texts by name."""
    things, aspects = (
        words("berth crane pilot cargo tide buoy tug dock"),
        words("plan note fee shift test stock"),
    )
    names = [f"{thing}_{aspect}" for thing, aspect in product(things, aspects)]
    random.shuffle(names)
    records: list[Record] = []
    while names:
        tables = [names.pop() for _ in range(min(len(names), random.randint(1, 2)))]
        text, comments = "", 0
        for table in tables:
            columns = "".join(
                f"    {column} {kind} NOT NULL,\n"
                for column, kind in zip(("made", "amount"), ("DATE", "INTEGER"), strict=True)
            )
            text += f"CREATE TABLE {table} (\n{columns}    label TEXT\n);\n\n"
            for _ in range(random.randint(5, 40)):
                if random.random() < 0.2:
                    text += f"-- {random.choice(_COMMENTS)}\n"
                    comments += 1
                day = date(2025, 1, 1) + timedelta(days=random.randint(0, 200))
                row = f"'{day}', {random.randint(1, 900)}, '{random.choice(_TOPICS)}'"
                text += f"INSERT INTO {table} VALUES ({row});\n"
            text += "\n"
        file = f"{len(records) + 1:03d}_{random.choice(_TALES).lower()}.sql"
        records.append({"file": file, "tables": tables, "comments": comments, "text": text})
    return records, {r["file"]: r["text"] for r in records}

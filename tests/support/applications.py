"""Six kinds of analyses as a root model writes them, each with new inputs and the answers that are right for them;
"" where the root model must be woken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WOKEN = "the root model was woken"
Made = Mapping[str, bytes | str]
"""Files by their names; of one input."""


@dataclass(frozen=True)
class Kind:
    """A question, the replies of the root model, and what it is asked of: then, and on other days."""

    question: str
    replies: Sequence[str]
    then: Made
    new: Mapping[str, tuple[Made, str]]
    sub: Callable[[str], str] = lambda _prompt: ""
    folder: bool = False
    sub_calls: Mapping[str, int] = field(default_factory=dict)


def write(made: Made, folder: Path, *, whole: bool) -> list[Path]:
    """Write the files; the paths to give: each, or `whole` the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return [folder] if whole else [folder / name for name in made]


def cell(code: str, words: str = "") -> str:
    return f"{words}\n\n```repl\n{code}\n```"


def log(*entries: tuple[str, str, int], words: str = "request to the store") -> str:
    """Lines of a log: so many of each host and level, by turns."""
    lines: list[str] = []
    for host, level, count in entries:
        lines += [
            f"2026-03-{1 + n % 28:02d} 0{n % 10}:15:00 {host} {level} {words} {n * 37 % 991}"
            for n in range(count)
        ]
    return "\n".join(sorted(lines, key=lambda line: line[6:10])) + "\n"


GREP = Kind(
    "How many errors are in the log, and which host has the most?",
    [
        cell("print(len(context))\nprint(peek(0, 400))", "First a look."),
        cell(
            "from collections import Counter\nhits = grep('ERROR')\n"
            "hosts = Counter(hit.text.split()[2] for hit in hits)\nprint(len(hits), hosts.most_common(3))"
        ),
        cell("top, count = hosts.most_common(1)[0]\nFINAL(f'{len(hits)} errors, most on {top} ({count})')"),
    ],
    {"app-01.log": log(("web-1", "INFO", 300), ("web-2", "ERROR", 31), ("web-3", "ERROR", 12))},
    {
        "another day": (
            {"app-02.log": log(("web-1", "INFO", 900), ("web-2", "ERROR", 41), ("web-9", "ERROR", 13))},
            "54 errors, most on web-2 (41)",
        ),
        "another host leads": (
            {"app-03.log": log(("web-3", "ERROR", 77), ("web-2", "ERROR", 5), ("web-1", "WARN", 50))},
            "82 errors, most on web-3 (77)",
        ),
        "another charset": (
            {
                "ärger.log": log(
                    ("web-1", "INFO", 80), ("db-1", "ERROR", 7), words="Anfrage für den Größenwahn"
                ).encode("cp1252")
            },
            "7 errors, most on db-1 (7)",
        ),
        "much larger": (
            {"big.log": log(("web-1", "INFO", 9000), ("web-7", "ERROR", 4000), ("web-2", "ERROR", 30))},
            "4030 errors, most on web-7 (4000)",
        ),
        "no error": ({"calm.log": log(("web-1", "INFO", 200))}, ""),
        "empty": ({"none.log": ""}, ""),
        "other lines": (
            {"app.jsonl": "".join(json.dumps({"level": "ERROR", "host": f"w{n}"}) + "\n" for n in range(50))},
            "",
        ),
    },
)


def table(rows: Sequence[Sequence[object]], names: str = "id,region,amount", by: str = ",") -> str:
    return "\n".join([names, *(by.join(map(str, row)) for row in rows)]) + "\n"


_ROWS = [(n, ("north", "south", "east")[n % 3], n * 10 + 0.5) for n in range(1, 40)]
CSV = Kind(
    "What is the total amount per region?",
    [
        cell("rows = records()\nprint(len(rows), rows[0])"),
        cell(
            "totals = {}\nfor row in rows:\n"
            "    totals[row['region']] = totals.get(row['region'], 0) + float(row['amount'] or 0)\n"
            "print(totals)"
        ),
        cell("FINAL('; '.join(f'{name}: {total:.1f}' for name, total in sorted(totals.items())))"),
    ],
    {"jan.csv": table(_ROWS)},
    {
        "another month": (
            {"feb.csv": table([(n, ("west", "south")[n % 2], n) for n in range(1, 21)])},
            "south: 100.0; west: 110.0",
        ),
        "another order": (
            {"mar.csv": table([(n * 1.5, n, "north") for n in range(1, 11)], "amount,id,region")},
            "north: 82.5",
        ),
        "a column more": (
            {"apr.csv": table([(n, "east", n, "x") for n in range(1, 11)], "id,region,amount,remark")},
            "east: 55.0",
        ),
        "a value is missing": (
            {"may.csv": table([(n, "east", n if n != 5 else "") for n in range(1, 11)])},
            "east: 50.0",
        ),
        "another charset": (
            {"juni.csv": table([(n, "süd", n) for n in range(1, 11)]).encode("utf-16")},
            "süd: 55.0",
        ),
        "a column is renamed": ({"jul.csv": table(_ROWS, "id,area,amount")}, ""),
        "both columns, the old one blank": (
            {"aug.csv": table([(n, "east", "", n) for n in range(1, 11)], "id,region,amount,total")},
            "",
        ),
        "no rows": ({"sep.csv": table([])}, ""),
        "with a currency": (
            {"nov.csv": table([(n, "east", f"{n} EUR") for n in range(1, 11)])},
            "east: 55.0",
        ),
        "text where numbers were": (
            {"oct.csv": table([(n, "east", f"about {n}") for n in range(1, 11)])},
            "",
        ),
    },
)


def lines(records: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


JSON_LINES = Kind(
    "Which user has spent the most, and how much?",
    [
        cell("import json\nprint(context[:200])"),
        cell(
            "spent = {}\nfor line in context.splitlines():\n    one = json.loads(line)\n"
            "    spent[one['user']] = spent.get(one['user'], 0) + one['price']\n"
            "best = max(spent, key=spent.get)\nprint(best, spent[best])"
        ),
        cell("FINAL({'user': best, 'spent': spent[best]})"),
    ],
    {"orders.jsonl": lines([{"user": f"u{n % 7}", "price": n} for n in range(1, 60)])},
    {
        "other users": (
            {"o2.jsonl": lines([{"user": f"k{n % 3}", "price": n % 5} for n in range(40)])},
            '{"user": "k0", "spent": 28}',
        ),
        "a key more": (
            {"o3.jsonl": lines([{"user": "a", "price": n, "note": "x"} for n in range(1, 11)])},
            '{"user": "a", "spent": 55}',
        ),
        "another order of keys": (
            {"o4.jsonl": lines([{"price": n, "user": f"z{n % 2}"} for n in range(1, 21)])},
            '{"user": "z0", "spent": 110}',
        ),
        "larger": (
            {"o5.jsonl": lines([{"user": f"m{n % 11}", "price": 1 + (n % 11 == 4)} for n in range(5500)])},
            '{"user": "m4", "spent": 1000}',
        ),
        "a key is renamed": ({"o6.jsonl": lines([{"user": "a", "cost": n} for n in range(1, 40)])}, ""),
        "a key is missing once": (
            {"o7.jsonl": lines([*({"user": "a", "price": n} for n in range(20)), {"user": "b"}])},
            "",
        ),
        "empty": ({"o8.jsonl": ""}, ""),
    },
)


def tickets(kinds: str) -> str:
    said = {"b": "my bill is too high", "c": "the app crashes", "d": "where is my parcel"}
    return "\n".join(f"ticket {number}: {said[kind]}" for number, kind in enumerate(kinds, 101)) + "\n"


def classified(prompt: str) -> str:
    text = prompt.rpartition("ticket")[2]
    return "billing" if "bill" in text else "bug" if "crash" in text else "delivery"


CLASSIFY = Kind(
    "How many tickets are of each kind (billing, bug, delivery)?",
    [
        cell("tickets = context.strip().splitlines()\nprint(len(tickets))\nprint(tickets[0])"),
        cell(
            "kinds = llm_query_batched([f'Say one word, billing, bug or delivery: {one}' for one in tickets])\n"
            "from collections import Counter\ncounts = Counter(kind.strip() for kind in kinds)\nprint(counts)"
        ),
        cell("FINAL(', '.join(f'{kind} {counts[kind]}' for kind in ('billing', 'bug', 'delivery')))"),
    ],
    {"monday.txt": tickets("bbcbdccbbd")},
    {
        "another day": ({"tuesday.txt": tickets("ddddcb")}, "billing 1, bug 1, delivery 4"),
        "more of them": ({"week.txt": tickets("bcd" * 20)}, "billing 20, bug 20, delivery 20"),
        "of one kind alone": ({"wed.txt": tickets("ccccc")}, "billing 0, bug 5, delivery 0"),
        "with a mark before the text": (
            {"thu.txt": tickets("bcb").encode("utf-8-sig")},
            "billing 2, bug 1, delivery 0",
        ),
        "one": ({"fri.txt": tickets("d")}, "billing 0, bug 0, delivery 1"),
        "none": ({"sat.txt": ""}, ""),
    },
    sub=classified,
)
NOTES = Kind(
    "Which notes are about the budget?",
    [
        cell("print(len(files))\nprint(list(files)[:3])\nprint(peek(0, 200, name=list(files)[0]))"),
        cell(
            "about = sorted({hit.file for hit in grep('budget', ignore_case=True)})\nprint(len(about), about)"
        ),
        cell("FINAL(f\"{len(about)} of {len(files)}: {', '.join(about)}\")"),
    ],
    {
        "one.md": "# Monday\n\nThe budget is tight this year.\n",
        "two.md": "# Tuesday\n\nLunch with the team.\n",
        "three.md": "# Wednesday\n\nBudget and staff.\n",
    },
    {
        "other notes": (
            {"a.md": "# A\n\nno money\n", "b.md": "# B\n\nbudget of spring\n"},
            "1 of 2: b.md",
        ),
        "more of them": (
            {f"n{n}.md": f"# {n}\n\n{'the Budget' if n % 4 == 0 else 'nothing'}\n" for n in range(12)},
            "3 of 12: n0.md, n4.md, n8.md",
        ),
        "another charset": (
            {"ä.md": "# Ärger\n\nfür das budget\n".encode("latin-1"), "b.md": "# b\n\nx\n"},
            "1 of 2: ä.md",
        ),
        "an empty one": ({"a.md": "", "b.md": "# b\n\nbudget\n", "c.md": "# c\n\nx\n"}, "1 of 3: b.md"),
        "none is": ({"a.md": "# a\n\nx\n", "b.md": "# b\n\ny\n"}, ""),
        "one note alone": ({"a.md": "# a\n\nbudget\n"}, ""),
        "a table among them": (
            {"a.md": "# a\n\nbudget\n", "b.csv": table(_ROWS)},
            "",
        ),
    },
    folder=True,
)
MENDED = Kind(
    "What is the average price?",
    [
        cell("rows = records()\nprint(sum(row['Price'] for row in rows) / len(rows))"),
        cell("print(list(rows[0]))", "The column has another name."),
        cell("prices = [row['price_eur'] for row in rows]\nprint(len(prices))"),
        cell("FINAL(round(sum(prices) / len(prices), 2))"),
    ],
    {"q1.csv": table([(n, n * 2.0) for n in range(1, 30)], "item,price_eur")},
    {
        "another quarter": ({"q2.csv": table([(n, n) for n in range(1, 10)], "item,price_eur")}, "5.0"),
        "another order": (
            {"q3.csv": table([(n + 0.5, n) for n in range(1, 10)], "price_eur,item")},
            "5.5",
        ),
        "a column more": (
            {"q4.csv": table([(n, 10, "kg") for n in range(1, 10)], "item,price_eur,unit")},
            "10.0",
        ),
        "between semicolons": (
            {"q5.csv": table([(n, n * 3) for n in range(1, 6)], "item;price_eur", ";")},
            "",
        ),
        "one row": ({"q6.csv": table([(1, 7), (2, 9)], "item,price_eur")}, "8.0"),
        "a column is renamed": ({"q7.csv": table([(n, n) for n in range(1, 9)], "item,price_usd")}, ""),
        "a value is missing": (
            {"q8.csv": table([(n, "" if n == 3 else n) for n in range(1, 9)], "item,price_eur")},
            "",
        ),
    },
)
KINDS = {
    "grep": GREP,
    "csv": CSV,
    "json lines": JSON_LINES,
    "classify": CLASSIFY,
    "notes": NOTES,
    "mended": MENDED,
}

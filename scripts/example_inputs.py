"""The inputs of the examples in notebooks/, made by seed: the same bytes on every machine.

The log of 100 MB is not in the repository; the others are, and come out of here unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
DAY = "2026-05-14"
KINDS = ("delivery", "payment", "account", "defect")
TWICE = "o-09419001"
"""The order that was charged twice."""


def chosen(draw: Random, among: Sequence[T]) -> T:
    """By `random()` alone, which gives the same in every version of Python."""
    return among[int(draw.random() * len(among))]


def payments_log(path: Path) -> None:
    """A day of a shop's payments, 100 MB: every order is charged once, but for those that were paid back
    before they were charged again, and TWICE.
    """
    draw = Random(14)
    blocks = [_minute(draw, 70 + 160 * (7 <= hour < 22) + int(draw.random() * 30)) for hour in range(24)]
    special: dict[int, list[str]] = {}
    for time, line in [*_twice(), *_paid_back(draw)]:
        special.setdefault(int(time[:2]) * 60 + int(time[3:5]), []).append(f"{DAY} {time} {line}\n")
    with path.open("wb") as file:
        for minute in range(24 * 60):
            when, number = f"{DAY} {minute // 60:02}:{minute % 60:02}", f"{minute // 60:02}{minute % 60:02}"
            lines = blocks[minute // 60].replace(b"@T", when.encode()).replace(b"@N", number.encode())
            if minute in special:
                more = [line.encode() for line in special[minute]]
                lines = b"".join(sorted([*lines.splitlines(keepends=True), *more]))
            file.write(lines)


def _minute(draw: Random, orders: int) -> bytes:
    """A minute of so many orders, in which `@T` stands for the minute and `@N` for its number."""
    lines = []
    for order in range(orders):
        at, name = draw.random() * 55, f"o-@N{order:04}"
        customer, cents = int(draw.random() * 9000) + 1000, int(draw.random() * 20000) + 500
        request, amount = f"request=r-@N{order:04}", f"amount={cents / 100:.2f}"
        steps = (
            f"gateway  INFO  {request} POST /orders order={name} customer=c-{customer}",
            f"payments INFO  {request} charged order={name} {amount}",
            f"ledger   INFO  {request} posted order={name} {amount}",
            f"mailer   INFO  {request} receipt sent to customer=c-{customer}",
        )
        lines += [f"@T:{at + step * 0.9:06.3f} {line}\n" for step, line in enumerate(steps)]
    return "".join(sorted(lines)).encode()


def _twice() -> list[tuple[str, str]]:
    return [
        ("09:41:12.204", f"gateway  INFO  request=r-09419001 POST /orders order={TWICE} customer=c-10377"),
        ("09:41:13.077", f"payments INFO  request=r-09419001 charged order={TWICE} amount=249.00"),
        (
            "09:41:13.081",
            f"payments WARN  request=r-09419001 connection closed before order={TWICE} was acknowledged",
        ),
        (
            "10:11:13.090",
            f"queue    WARN  no acknowledgement for 30 min: order={TWICE} delivered again "
            "as request=r-10119002",
        ),
        (
            "10:11:13.102",
            f"payments WARN  request=r-10119002 idempotency key of order={TWICE} not found: "
            "kept for 15 min only",
        ),
        ("10:11:13.811", f"payments INFO  request=r-10119002 charged order={TWICE} amount=249.00"),
        ("10:11:14.002", f"ledger   INFO  request=r-10119002 posted order={TWICE} amount=249.00"),
        ("10:11:14.950", "mailer   INFO  request=r-10119002 receipt sent to customer=c-10377"),
        (
            "18:30:41.310",
            "support  INFO  ticket=77120 customer=c-10377: my statement shows the same amount two times",
        ),
    ]


def _paid_back(draw: Random) -> list[tuple[str, str]]:
    """Forty orders that were charged two times, and that is in order."""
    found = []
    for number in range(40):
        hour, minute = int(draw.random() * 20), int(draw.random() * 60)
        order, amount = f"order=o-{hour:02}{minute:02}8{number:03}", f"{int(draw.random() * 300) + 10}.00"
        what = (("payments", "charged"), ("payments", "paid back"), ("payments", "charged"))
        for step, (who, did) in enumerate(what):
            request = f"request=r-{hour:02}{minute:02}7{step}{number:02}"
            line = f"{who} INFO  {request} {did} {order} amount={amount}"
            found.append((f"{hour + step:02}:{minute:02}:{58 + step / 10:06.3f}", line))
    return found


_TICKETS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "delivery": (
        (
            "My {} was promised for Monday, and it is Friday",
            "The courier left the {} with a neighbour I do not know",
            "Tracking has said 'on its way' for nine days; where is my {}",
            "You sent the {} to my old address",
            "The parcel with the {} never came",
            "The driver did not ring, and now the {} goes back to you",
        ),
        ("When does it arrive?", "I waited at home all day.", "Please ask the carrier."),
    ),
    "payment": (
        (
            "I was charged two times for the {}",
            "The voucher was not taken off the price of the {}",
            "My card is refused when I want to pay for the {}",
            "I sent the {} back weeks ago and still have no refund",
            "The invoice for the {} shows the wrong VAT",
            "The {} cost 20 less on the page than on my bill",
        ),
        ("Please give the money back.", "My bank says it is your side.", "I need a right invoice."),
    ),
    "account": (
        (
            "I cannot log in since I bought the {}; the password mail does not come",
            "Please change my e-mail address; the {} is the last thing I ordered with the old one",
            "My profile still has my maiden name, I saw it when I ordered the {}",
            "Delete my user profile, I only wanted the {}",
            "The site says my password is wrong, so I cannot see my order of the {}",
            "I have two logins by mistake, one with the {}; please merge them",
        ),
        ("I have tried three browsers.", "The code by SMS never works.", "Please confirm by mail."),
    ),
    "defect": (
        (
            "The {} stopped working after two days",
            "The {} makes a grinding noise and smells burnt",
            "The handle of the {} broke off the first time I used it",
            "The {} came out of the box with a crack",
            "The display of the {} stays black",
            "The {} leaks at the bottom",
        ),
        ("It cannot be repaired.", "I was careful with it.", "Is there a guarantee?"),
    ),
}
_THINGS = ("kettle", "toaster", "lamp", "mixer", "radio", "coffee grinder", "heater", "iron")


def tickets(path: Path, count: int = 60) -> dict[int, str]:
    """Write three months of tickets as a table; returns of which kind each was made, by its id."""
    draw = Random(11)
    kinds, rows = {}, ["id,date,text"]
    for number in range(1001, 1001 + count):
        month = 1 + (number - 1001) * 3 // count
        # Deliveries go wrong in the first month of a year more often than later.
        kind = "delivery" if month == 1 and draw.random() < 0.4 else chosen(draw, KINDS)
        begin, end = (chosen(draw, part) for part in _TICKETS[kind])
        day = 1 + (number - 1001) * 3 % count * 28 // count
        rows.append(f'{number},2026-{month:02}-{day:02},"{begin.format(chosen(draw, _THINGS))}. {end}"')
        kinds[number] = kind
    path.write_text("\n".join(rows) + "\n", "utf-8", newline="\n")
    return kinds


def outage_log(path: Path) -> None:
    """Two hours of four services: a certificate of the database ends at 13:07, and all others follow."""
    draw = Random(7)
    lines: list[str] = []
    for minute in range(120):
        hour, rest = 12 + minute // 60, minute % 60
        for service, begins, share, bad in _OUTAGE:
            for _ in range(8):
                failing = begins <= minute < 98 and draw.random() < share
                at = f"2026-04-07 {hour:02}:{rest:02}:{draw.random() * 60:06.3f}"
                said = chosen(draw, bad) if failing else f"INFO  ok in {int(draw.random() * 90) + 5} ms"
                lines.append(f"{at} {service:<6} {said}")
    lines += [
        "2026-04-07 12:59:59.001 pay    WARN  card network slow: 1 request took 4,100 ms",
        "2026-04-07 13:07:00.412 stock  ERROR TLS to db-2.internal failed: certificate has expired "
        "(notAfter=2026-04-07 13:07:00)",
        "2026-04-07 13:38:02.730 stock  INFO  TLS to db-2.internal ok: new certificate, notAfter=2027-04-07",
    ]
    path.write_text("\n".join(sorted(lines)) + "\n", "utf-8", newline="\n")


_OUTAGE: Sequence[tuple[str, int, float, Sequence[str]]] = (
    (
        "stock",
        67,
        0.9,
        (
            "ERROR TLS to db-2.internal failed: certificate has expired (notAfter=2026-04-07 13:07:00)",
            "ERROR reservation failed: no connection to db-2.internal",
        ),
    ),
    (
        "shop",
        69,
        0.5,
        ("ERROR checkout failed: stock did not reply in 5 s", "WARN  stock replied with status 503"),
    ),
    ("pay", 72, 0.3, ("WARN  payment held: order is not reserved", "ERROR 40 payments wait, limit 40")),
    ("mail", 200, 0.0, ("",)),
)
"""Service, minute from which it fails, share of its lines that tell of it, and what these say."""


def next_log(path: Path) -> None:
    """The log of the day after that of server.log: fewer errors, one kind that was not there before."""
    draw = Random(2)
    errors = ("timeout after 5000 ms", "certificate of the mail server has expired", "disk quota exceeded")
    lines = []
    for second in range(0, 16 * 3600, 60):
        kind, user, at = draw.random(), int(draw.random() * 40), second + int(draw.random() * 60)
        if kind < 0.06:
            level, said = "ERROR", errors[0 if second < 3 * 3600 else int(draw.random() * 3)]
        elif kind < 0.12:
            level, said = "WARNING", f"slow request, {2000 + int(draw.random() * 3000)} ms"
        else:
            level, said = "INFO", f"request served in {20 + int(draw.random() * 300)} ms"
        clock = f"{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}"
        lines.append(f"2026-03-02 {clock} {level} user{user:03} {said}")
    path.write_text("\n".join(lines) + "\n", "utf-8", newline="\n")


MADE: Mapping[str, Any] = {
    "payments.log": payments_log,
    "tickets.csv": tickets,
    "outage.log": outage_log,
    "server-next.log": next_log,
}


def make(folder: Path) -> list[Path]:
    """Make those that are not there; their paths."""
    paths = [folder / name for name in MADE]
    for path in paths:
        if not path.exists():
            MADE[path.name](path)
    return paths

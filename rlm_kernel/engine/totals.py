"""What a run has used: the one definition of every number that is shown, and the words for it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Tokens of one call or of many.

    `cached` counts the part of `prompt` that the provider had in its prefix cache, `written` another part,
    that it put there, which some providers bill at more than the usual price. `reasoning` counts the part of
    `completion` that the model wrote for itself, as far as the provider tells.

    `estimated`: the provider did not tell all of it, or told what makes no sense, so that it was reckoned
    from the characters.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    estimated: bool = False
    written: int = 0
    reasoning: int = 0

    def __add__(self, other: Usage) -> Usage:
        estimated = self.estimated or other.estimated
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            estimated,
            self.written + other.written,
            self.reasoning + other.reasoning,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt - other.prompt,
            self.completion - other.completion,
            self.cached - other.cached,
            self.estimated,
            self.written - other.written,
            self.reasoning - other.reasoning,
        )

    @property
    def total(self) -> int:
        return self.prompt + self.completion


TOKENS = ("prompt", "completion", "cached", "written", "reasoning")
"""What is counted of them, as `Usage` has it."""


@dataclass(frozen=True)
class Share:
    """What one model has used of a run: its calls, those that failed among them, tokens, and money, as of
    `Totals`.
    """

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    known_cost: float = 0.0
    unpriced: int = 0
    lost_cost: float = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(*map(operator.add, _parts(self), _parts(other)))

    def __sub__(self, other: Share) -> Share:
        return Share(*map(operator.sub, _parts(self), _parts(other)))

    @property
    def cost(self) -> float | None:
        """US dollars; None where the price of any reply is unknown."""
        return None if self.unpriced else self.known_cost

    @property
    def spent(self) -> float:
        """US dollars that count against a limit, those of calls that were given up, too."""
        return self.known_cost + self.lost_cost


class Shares(dict[str, Share]):
    """What each model has used: "root", "sub", and those beside them by their names in the settings."""

    @classmethod
    def one(cls, model: str, **counts: Any) -> Shares:
        """Of one model alone."""
        return cls({model: Share(**counts)})

    def __add__(self, other: Mapping[str, Share]) -> Shares:
        return self._with(operator.add, other)

    def __sub__(self, other: Mapping[str, Share]) -> Shares:
        return self._with(operator.sub, other)

    def _with(self, do: Callable[[Share, Share], Share], other: Mapping[str, Share]) -> Shares:
        both = {**self, **{name: do(self.get(name, Share()), share) for name, share in other.items()}}
        return Shares({name: share for name, share in both.items() if share != Share()})


@dataclass
class Totals:
    """The account of a run so far, with all child RLMs beneath it. docs/subcalls.md defines each number for
    users.

    `turns`: replies of the run's own root model, the best-effort answer too. `calls`: all other model calls:
    those of sub models, and `child_turns`, the calls of the root model in child RLMs. Of these calls `stored`
    were answered from the cache, and `failed` gave no reply. `known_cost` in US dollars is that of the
    replies whose price is known; of `unpriced` replies it is not. `lost_tokens` and `lost_cost` estimate what
    calls that were given up may have used: they count against limits and are not shown. `tool_calls`: of
    functions of the host, refused ones, too.

    `root_usage` is that of all root models, those of child RLMs too, and `sub_usage` that of sub-calls,
    whichever model they asked; `models` has it by model.
    """

    turns: int = 0
    calls: int = 0
    root_usage: Usage = field(default_factory=Usage)
    sub_usage: Usage = field(default_factory=Usage)
    known_cost: float = 0.0
    seconds: float = 0.0
    children: int = 0
    child_turns: int = 0
    stored: int = 0
    failed: int = 0
    unpriced: int = 0
    lost_tokens: float = 0.0
    lost_cost: float = 0.0
    models: Shares = field(default_factory=Shares)
    tool_calls: int = 0

    def count(self, counts: Mapping[str, float | Usage | Shares]) -> None:
        """Add to these fields of it."""
        for name, more in counts.items():
            setattr(self, name, getattr(self, name) + more)

    def __add__(self, other: Totals) -> Totals:
        return Totals(*map(operator.add, _numbers(self), _numbers(other)))

    def __sub__(self, other: Totals) -> Totals:
        return Totals(*map(operator.sub, _numbers(self), _numbers(other)))

    @property
    def cost(self) -> float | None:
        """US dollars; None where the price of any reply is unknown."""
        return None if self.unpriced else self.known_cost

    @property
    def usage(self) -> Usage:
        """Tokens of root and sub models together."""
        return self.root_usage + self.sub_usage

    @property
    def nothing(self) -> bool:
        """Whether no model was asked as far as is known."""
        return replace(self, seconds=0.0) == Totals()

    def money(self) -> str:
        """The cost for people; what is not known is never shown as nothing."""
        return _money(self.known_cost, self.unpriced, fine_dollars)

    def spending(self, dollars: Dollars | None = None) -> str:
        """What was used, for people, without turns and time: these words stand in the live line, too.
        `dollars`: how amounts are written.
        """
        dollars = dollars or fine_dollars
        money = _money(self.known_cost, self.unpriced, dollars)
        of_these = [
            f"{number:,} {what}"
            for number, what in ((self.failed, "failed"), (self.stored, "from the cache"))
            if number
        ]
        calls = counted(self.calls - self.child_turns, "sub-call") + (
            f" ({', '.join(of_these)})" if of_these else ""
        )
        children = (
            [f"{counted(self.children, 'child RLM')} with {counted(self.child_turns, 'turn')}"]
            if self.children
            else []
        )
        tools = [counted(self.tool_calls, "tool call")] if self.tool_calls else []
        return ", ".join([calls, *tools, *children, _tokens(self.usage), f"{money}{self._by_model(dollars)}"])

    def _by_model(self, dollars: Dollars) -> str:
        """The cost by model where others than root and sub were asked, the dearest first."""
        if self.models.keys() <= {"root", "sub"}:
            return ""
        by_cost = sorted(self.models.items(), key=lambda one: -one[1].known_cost)
        shown = [
            f"{name} {_money(share.known_cost, share.unpriced, dollars)}" for name, share in by_cost[:_SHOWN]
        ]
        rest = [f"{len(by_cost) - _SHOWN} more"] if len(by_cost) > _SHOWN else []
        return f" ({', '.join([*shown, *rest])})"

    def line(self, dollars: Dollars | None = None) -> str:
        """All of it for people. `dollars`: how amounts are written."""
        return f"{counted(self.turns, 'turn')}, {self.spending(dollars)}, {self.seconds:,.1f} s"

    def as_json(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "turns": self.turns,
            "calls": self.calls,
            "children": self.children,
            "child_turns": self.child_turns,
            "stored": self.stored,
            "failed": self.failed,
            "tool_calls": self.tool_calls,
            "tokens": _counts(self.usage),
            "cost": self.cost,
            "known_cost": self.known_cost,
            "seconds": round(self.seconds, 3),
            "models": {
                name: {"calls": share.calls, "tokens": _counts(share.usage), "cost": share.cost}
                for name, share in self.models.items()
            },
        }


Dollars = Callable[[float], str]
_SHOWN = 4
"""Models whose cost is in the line for people."""
_parts = operator.attrgetter(*(part.name for part in fields(Share)))
_numbers = operator.attrgetter(*(part.name for part in fields(Totals)))


def _money(known: float, unpriced: int, dollars: Dollars) -> str:
    told = dollars(known)
    return told if not unpriced else f"{told} + unknown" if known else "cost unknown"


def _tokens(usage: Usage) -> str:
    cached = f" ({usage.cached:,} cached)" if usage.cached else ""
    return f"{counted(usage.total, 'token')}{cached}"


def _counts(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in TOKENS}


def trace_dollars(amount: float) -> str:
    """As traces have amounts. `rlm verify` writes them again, also those of traces that it did not write."""
    return f"${amount:,.4f}"


def fine_dollars(amount: float) -> str:
    """With four digits behind the point, or as many as it takes to be something: `$1.2000`, `$0.00003`."""
    return few_dollars(amount) if 0 < amount < 0.001 else f"${amount:,.4f}"


def few_dollars(amount: float) -> str:
    """Less than a cent: `$0.0031`, `$0.000092`, `$0`; two digits of it, and no exponent."""
    places = min(12, max(2, 1 - math.floor(math.log10(amount)))) if amount > 0 else 0
    return f"${amount:.{places}f}".rstrip("0").rstrip(".") if places else "$0"


def counted(number: int, what: str) -> str:
    """`1 turn`, `2,000 turns`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60:,} h" + (f" {minutes % 60} min" if minutes % 60 else "")

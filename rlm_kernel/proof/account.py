"""Whether the account of a trace adds up: its totals are the sum of its turns, calls, summaries and
children.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rlm_kernel.engine.protocols import TOKENS, Shares, Totals
from rlm_kernel.proof.claims import Claim, claim, not_checked
from rlm_kernel.trace.accounts import shares_of
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.schema import CallMeta, OriginMeta

_CLOSING = ("answer", "summary")
_COUNTS = ("turns", "calls", "stored", "unpriced")


@dataclass(frozen=True)
class _Sum:
    """A number of the account: what its parts come to, and what it says."""

    name: str
    parts: float
    whole: float

    @property
    def less(self) -> bool:
        """The account says less than its parts have used."""
        return self.whole < self.parts and not self.same

    @property
    def same(self) -> bool:
        """Sums of floating-point numbers differ in their last digits by the order."""
        return math.isclose(self.parts, self.whole, rel_tol=1e-6, abs_tol=1e-9)

    def told(self) -> str:
        parts, whole = (
            f"{number:,.6f}" if isinstance(number, float) else f"{number:,}"
            for number in (self.parts, self.whole)
        )
        return f"{self.name}: the totals say {whole}, the cells come to {parts}"


def check_account(trace: TraceFile) -> Claim:
    """The claim `account`."""
    if trace.meta.totals is None:
        return not_checked("account", "the trace has no totals: its run was cut off before it had any")
    whole = trace.meta.totals.totals()
    parts = _of_cells(trace)
    sums = list(_sums(parts, whole))
    beside = _beside(trace, whole)
    faults = [one.told() for one in sums if one.less or (not one.same and not beside)]
    if not trace.meta.totals.models:
        beside = beside or "without models of their own: it was written by an older version"
    more = f"; {beside}" if beside and any(not one.same for one in sums) else ""
    return claim("account", faults, f"the totals are the sum of the cells: {whole.money()}{more}")


def _of_cells(trace: TraceFile) -> Totals:
    """What the cells have used by their own records; of a fork those that are its own."""
    forks = [origin for origin in trace.meta.origins if origin.kind == "fork"]
    own = trace.cells[own_from(trace, forks[-1]) :] if forks else trace.cells
    return TraceFile(trace.path, trace.meta.model_copy(update={"totals": None}), own, None).spent()


def own_from(trace: TraceFile, origin: OriginMeta) -> int:
    """The first cell that is a fork's own, by its place."""
    cells = trace.cells
    if origin.cell not in _CLOSING:
        return next((at + 1 for at, cell in enumerate(cells) if cell.id == origin.cell), 0)
    # It was forked behind its end: there another question was put, or the same turns went on later.
    asked = max((at for at, cell in enumerate(cells) if cell.kind == "question"), default=-1)
    answered = max((at for at, cell in enumerate(cells) if cell.id.startswith("answer-")), default=-1)
    if asked > answered:
        return asked
    later = [cell.turn for cell in cells if cell.turn and cell.started and cell.started >= origin.at]
    return next((at for at, cell in enumerate(cells) if later and cell.turn == min(later)), len(cells))


def _sums(parts: Totals, whole: Totals) -> Iterator[_Sum]:
    for name in _COUNTS:
        yield _Sum(name, getattr(parts, name), getattr(whole, name))
    # The totals count the children's children, too, whose calls stand in other traces.
    if whole.children < parts.children or not parts.children:
        yield _Sum("children", parts.children, whole.children)
    for name in TOKENS:
        yield _Sum(f"{name} tokens", getattr(parts.usage, name), getattr(whole.usage, name))
        if not whole.children:  # theirs are in one sum here, and by role there
            yield _Sum(
                f"{name} tokens of the root model",
                getattr(parts.root_usage, name),
                getattr(whole.root_usage, name),
            )
    yield _Sum("cost", parts.known_cost, whole.known_cost)
    # A child's root model has its own name in the totals, and is "root" in its cells.
    if whole.models and ("root" in whole.models or "root" not in parts.models):
        yield from _by_model(parts.models, whole.models)


def _by_model(parts: Shares, whole: Shares) -> Iterator[_Sum]:
    for name in {**whole, **parts}:
        one, other = parts.get(name), whole.get(name)
        cost = [share.known_cost if share else 0.0 for share in (one, other)]
        tokens = [share.usage.total if share else 0 for share in (one, other)]
        yield _Sum(f"cost of the model {name}", *cost)
        yield _Sum(f"tokens of the model {name}", *tokens)


def _beside(trace: TraceFile, whole: Totals) -> str:
    """Why the totals may be more than the cells have; "" where nothing says so."""
    metas = [cell.meta for cell in trace.cells if cell.meta]
    if any(meta.left_out for meta in metas):
        return "they count calls, too, of which no record is kept"
    if any(origin.kind != "fork" for origin in trace.meta.origins):
        return "they count what was under way, too, when the run was cut off"
    if whole.failed or whole.lost_tokens or any(cell.kind == "unfinished" for cell in trace.cells):
        return "they count what failed, too"
    if trace.meta.stop_reason in ("error", "interrupted") or trace.meta.status == "running":
        return "they count what was under way, too, when the run ended"
    return ""


def child_differs(call: CallMeta, child: TraceFile) -> Iterator[str]:
    """What a call of a child RLM says that the child's own trace does not."""
    if child.meta.totals is None or child.meta.origins or call.again:
        return  # it was cut off, or taken up since
    spent = child.meta.totals.totals()
    said = replace(
        Totals(),
        calls=call.calls,
        known_cost=sum(share.known_cost for share in call.models.values()) or call.cost or 0.0,
    )
    then = replace(Totals(), calls=spent.turns + spent.calls, known_cost=spent.known_cost)
    for one in (
        _Sum("calls", said.calls, then.calls),
        _Sum("cost", said.known_cost, then.known_cost),
        _Sum("tokens", call.prompt_tokens + call.completion_tokens, spent.usage.total),
        *_by_model_of(call, spent.models),
    ):
        if not one.same:
            yield (f"{one.name}: call {call.id} says {one.parts:,}, the trace of the child {one.whole:,}")


def _by_model_of(call: CallMeta, models: Mapping[str, object]) -> Iterator[_Sum]:
    if call.models and isinstance(models, Shares):
        yield from _by_model(shares_of(call.models), models)

"""Events: a listener is a function, each kind of event is told in its own words, and all who listen hear all
of them.
"""

from __future__ import annotations

from typing import get_args

import pytest

from rlm_kernel.engine import events
from rlm_kernel.engine.events import CellOutput, ChildEvent, Event, Noted, RunFinished, RunOpened
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Outcome, Totals
from rlm_kernel.session.listeners import Gate, everyone
from rlm_kernel.views.live import LiveView
from tests.support.engine import Recorder

NOTED = Noted("Write code.")


def test_each_event_says_when_it_comes_and_cannot_be_changed() -> None:
    kinds = get_args(Event)
    assert set(kinds) == {
        found
        for found in vars(events).values()
        if isinstance(found, type) and found.__module__ == events.__name__
    }
    for kind in kinds:
        assert not kind.__doc__.startswith(f"{kind.__name__}("), (
            "that is the docstring of a dataclass without one"
        )
        assert kind.__dataclass_params__.frozen


def test_all_hear_an_event_also_where_one_of_them_fails_and_the_first_failure_is_raised() -> None:
    first, second, third = (
        Recorder(Noted, ValueError("first")),
        Recorder(Noted, LookupError("second")),
        Recorder(),
    )
    with pytest.raises(ValueError, match="first"):
        everyone(first, second, None, third)(NOTED)
    assert third.events == [NOTED]
    everyone()(NOTED)  # nobody listens


def test_a_gate_passes_events_on_while_it_is_open() -> None:
    heard = Recorder()
    gate = Gate(heard)
    gate(NOTED)
    gate.open = True
    gate(CellOutput("turn-01-a", []))
    gate.listener = None
    gate(NOTED)
    assert heard.events == [CellOutput("turn-01-a", [])]


def test_events_of_a_child_that_the_view_did_not_hear_begin_are_passed_over() -> None:
    view = LiveView(quiet=True)
    view(ChildEvent(1, NOTED))
    assert view.children == {}
    view(ChildEvent(2, RunOpened("Q", Ledger(Limits()), Totals())))
    assert list(view.children) == [2]
    view(ChildEvent(2, RunFinished(Outcome(None, "interrupted"), Totals())))
    view(ChildEvent(2, NOTED))
    assert view.children == {}

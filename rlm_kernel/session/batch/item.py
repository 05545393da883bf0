"""One question of a batch, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlm_kernel.session.inputs import Context
from rlm_kernel.session.result import Result


@dataclass(frozen=True)
class Item:
    """A question of a batch.

    `id`: unique in the batch, and usable as the name of a file. `context`: as for `RLM.ask`. `schema`: a JSON
    schema that the answer must match. `changes`: settings only for this question, by dotted name. An item can
    be pickled.
    """

    id: str
    question: str
    context: Context = None
    schema: Mapping[str, Any] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a question has no result.

    `kind`: the name of the error's class (`rlm_kernel.errors`). `passing`: the reason may be temporary, so
    `--retry-failed` asks the question again.
    """

    kind: str
    message: str
    hint: str = ""
    passing: bool = False


@dataclass(frozen=True)
class Done:
    """A finished question: it has a result, which may be without an answer, or a failure.

    `trace`: path of its notebook, if it has one. `seconds`: from its start to its end. `node`: the machine
    that answered it; "" for this machine.
    """

    item: Item
    result: Result | None = None
    failure: Failure | None = None
    trace: Path | None = None
    seconds: float = 0.0
    node: str = ""

    @property
    def value(self) -> Any:
        """The answer as data, which has the `answer_type` if one was given; None if there is no answer."""
        return None if self.result is None else self.result.value

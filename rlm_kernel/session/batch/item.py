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

    `id` is its own in the batch, and a possible name of a file. `context` as of `RLM.ask`. `schema`: a JSON
    schema that the answer must fit. `changes`: settings of this question alone, by dotted name. Everything in
    it can be pickled.
    """

    id: str
    question: str
    context: Context = None
    schema: Mapping[str, Any] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a question has no result.

    `kind`: the name of the error's class (`rlm_kernel.errors`); `passing`: it may go well another time, so
    that `--retry-failed` asks it again.
    """

    kind: str
    message: str
    hint: str = ""
    passing: bool = False


@dataclass(frozen=True)
class Done:
    """What came of a question: a result, which may be without an answer, or a failure.

    `trace`: where its notebook is, if it has one; `seconds` from its start to its end; `node`: the machine
    that answered it, "" for this one.
    """

    item: Item
    result: Result | None = None
    failure: Failure | None = None
    trace: Path | None = None
    seconds: float = 0.0
    node: str = ""

    @property
    def value(self) -> Any:
        """The answer as data, of the `answer_type` if there is one; None where there is none."""
        return None if self.result is None else self.result.value

"""The lines of `--json-events`: a class for each kind of line, from which the published schema is made.

Each line is a JSON object with the fields of its class. What a field means is said once, here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from rlm_kernel.engine.protocols import CallKind, CellStatus, StopReason
from rlm_kernel.views.event_parts import About, Cost, Passage, Tokens, Used

VERSION = 1
"""Of the lines. A new field or kind of line leaves it as it is; what readers may stumble over does not."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What each line has."""

    event: Annotated[str, About("Kind of the line.")]
    at: Annotated[str, About("Time in UTC, in ISO 8601 format.")]
    seconds: Annotated[float, About("Seconds since the command began.")]
    path: Annotated[
        tuple[int, ...],
        About(
            "Which RLM this is about: [] is the root RLM, [2] its child number 2, [2, 1] the first child of "
            "that child."
        ),
    ]
    lengths: Annotated[
        dict[str, int],
        About("For each text that was cut off: its number of characters, by the name of the field."),
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Begin(Line):
    """The first line: the command begins."""

    event: Literal["begin"] = "begin"
    version: Annotated[int, About("Version of the format of these lines.")]
    rlm_kernel: Annotated[str, About("Version of rlm_kernel.")]
    command: Annotated[str, About("Name of the command, such as ask.")]


@dataclass(frozen=True, kw_only=True)
class Opened(Line):
    """A question is taken up, by the topmost RLM or by a child."""

    event: Literal["run_opened"] = "run_opened"
    question: str
    before: Annotated[Used, About("What earlier questions of the session used.")]


@dataclass(frozen=True, kw_only=True)
class TurnStarted(Line):
    """The root model is asked."""

    event: Literal["turn_started"] = "turn_started"
    turn: int


@dataclass(frozen=True, kw_only=True)
class TurnPiece(Line):
    """Some more of the root model's reply has come.

    After a `call_retried` without a call the pieces begin again.
    """

    event: Literal["turn_piece"] = "turn_piece"
    turn: int
    text: str
    thought: Annotated[bool, About("Whether the piece belongs to the model's reasoning.")]


@dataclass(frozen=True, kw_only=True)
class TurnCutOff(Line):
    """The root model's reply did not come to its end."""

    event: Literal["turn_cut_off"] = "turn_cut_off"
    turn: int
    text: str
    thoughts: str


@dataclass(frozen=True, kw_only=True)
class TurnReplied(Line):
    """The root model has replied."""

    event: Literal["turn_replied"] = "turn_replied"
    turn: int
    text: Annotated[str, About("The whole reply, code and all.")]
    thoughts: str
    model: str
    tokens: Tokens
    cost: Cost
    reply_seconds: Annotated[float, About("Seconds that the call took, including retries.")]
    attempts: int
    finish_reason: str | None
    messages: Annotated[int, About("Number of messages that were sent to the model.")]


@dataclass(frozen=True, kw_only=True)
class CellStarted(Line):
    """A cell is about to run."""

    event: Literal["cell_started"] = "cell_started"
    cell: str
    turn: Annotated[int, About("Number of the turn; 0 for a cell that loads the input.")]
    code: str


@dataclass(frozen=True, kw_only=True)
class CellOutput(Line):
    """The running cell has shown something; told five times a second at most.

    `cell_finished` has all of it.
    """

    event: Literal["cell_output"] = "cell_output"
    cell: str
    text: Annotated[str, About("The new output, as plain text.")]
    again: Annotated[bool, About("Whether the output was cleared and begins with this text.")]


@dataclass(frozen=True, kw_only=True)
class CellFinished(Line):
    """A cell has ended."""

    event: Literal["cell_finished"] = "cell_finished"
    cell: str
    turn: int
    status: CellStatus
    output: Annotated[str, About("The whole output, as plain text.")]
    cell_seconds: float
    calls: Annotated[int, About("Number of model calls in the cell.")]
    answered: Annotated[bool, About("Whether the cell delivered an answer.")]


@dataclass(frozen=True, kw_only=True)
class UserCellFinished(Line):
    """A cell that a person ran in the same kernel has ended."""

    event: Literal["user_cell_finished"] = "user_cell_finished"
    cell: str
    code: str
    status: CellStatus
    output: str
    cell_seconds: float


@dataclass(frozen=True, kw_only=True)
class CallStarted(Line):
    """Code has called a sub model, or a child RLM."""

    event: Literal["call_started"] = "call_started"
    cell: str
    call: Annotated[str, About("The call's id.")]
    kind: CallKind
    prompt: str
    schema: Annotated[str | None, About("The JSON schema that the answer must match, as JSON text.")]
    digest: Annotated[str, About("Key that the same call has in every run.")]


@dataclass(frozen=True, kw_only=True)
class CallRetried(Line):
    """A model's call failed and is tried again. `cell` and `call` are empty of the root model's."""

    event: Literal["call_retried"] = "call_retried"
    cell: str
    call: str
    reason: str
    attempt: int
    attempts: int
    wait_seconds: Annotated[float, About("Seconds until the next attempt.")]


@dataclass(frozen=True, kw_only=True)
class CallsPlanned(Line):
    """The cell's code is about to make so many calls of models in all, as far as it knows by now."""

    event: Literal["calls_planned"] = "calls_planned"
    cell: str
    calls: int
    cost: Annotated[Cost, About("Estimated cost of the calls in US dollars; null if not known.")]


@dataclass(frozen=True, kw_only=True)
class CallFinished(Line):
    """A call of the cell's code has ended, well or not.

    It asked a model, a child RLM, for a file or the budget, or delivered the answer.
    """

    event: Literal["call_finished"] = "call_finished"
    cell: str
    call: str
    kind: CallKind
    digest: str
    preview: Annotated[str, About("The beginning of the prompt.")]
    model: str | None
    answer: Annotated[
        str | None, About("The answer; JSON text if it is more than text; null for a failed call.")
    ]
    error: str | None
    error_type: Annotated[
        str | None, About("The exception that the cell saw; null if the cell ended before.")
    ]
    tokens: Tokens
    cost: Cost
    call_seconds: float
    attempts: int
    stored: Annotated[bool, About("Whether the answer came from the cache.")]
    again: Annotated[bool, About("Whether the answer was reused from an earlier cell, at no cost.")]
    truncated: Annotated[bool, About("Whether the reply was cut off at the model's token limit.")]
    trace: Annotated[str, About("For a child RLM: its trace, relative to the folder of this trace.")]


@dataclass(frozen=True, kw_only=True)
class Summarized(Line):
    """Turns were replaced by a summary in what the root model sees."""

    event: Literal["summarized"] = "summarized"
    text: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, kw_only=True)
class Noted(Line):
    """The engine has told the user or the root model something outside cells."""

    event: Literal["noted"] = "noted"
    text: str
    to_model: Annotated[bool, About("It was told to the root model, whose business it is.")]


@dataclass(frozen=True, kw_only=True)
class RunFinished(Line):
    """The topmost RLM, or a child, has ended, with an answer or without one."""

    event: Literal["run_finished"] = "run_finished"
    answer: str | None
    evidence: Annotated[list[Passage], About("The passages that support the answer.")]
    stop_reason: StopReason
    forced: Annotated[bool, About("Whether this is a best-effort answer, given because a limit was reached.")]
    detail: str
    used: Used


@dataclass(frozen=True, kw_only=True)
class QuestionRunning(Line):
    """What a question of a batch has used so far; told once a second at most, and where that has changed."""

    event: Literal["question_running"] = "question_running"
    id: str
    turns: int
    calls: int
    tokens: int
    spent: Annotated[float, About("US dollars, for calls with a known price.")]
    node: Annotated[str, About("The machine of a cluster that answers the question; empty for this machine.")]


@dataclass(frozen=True, kw_only=True)
class QuestionDone(Line):
    """A question of a batch is done, of which there is a line in the results."""

    event: Literal["question_done"] = "question_done"
    id: str
    status: Literal["answered", "no_answer", "failed"]
    error: str | None
    node: Annotated[
        str, About("The machine of a cluster that answered the question; empty for this machine.")
    ]
    done: Annotated[int, About("Number of finished questions, including those of earlier runs.")]
    failed: Annotated[int, About("Number of finished questions without an answer.")]
    running: int
    total: Annotated[int | None, About("Approximate number of all questions; null if not known.")]
    spent: Annotated[float, About("US dollars spent by this run.")]


@dataclass(frozen=True, kw_only=True)
class Said(Line):
    """Something for people: what is being set up, a remark, a warning, an error."""

    event: Literal["said"] = "said"
    text: str


@dataclass(frozen=True, kw_only=True)
class Dropped(Line):
    """So many lines are missing here, because they were not read fast enough."""

    event: Literal["dropped"] = "dropped"
    count: int


@dataclass(frozen=True, kw_only=True)
class End(Line):
    """The last line, whatever happened."""

    event: Literal["end"] = "end"
    status: Literal["answered", "no_answer", "interrupted", "failed", "done"] = "failed"
    """`done`: a command that asked nothing has done its work."""
    exit_code: int
    answer: Annotated[str | None, About("The last question's answer.")]
    evidence: Annotated[list[Passage], About("The passages that support it.")]
    stop_reason: StopReason | None
    detail: str
    used: Annotated[Used, About("What the command used, for all questions together.")]
    trace: Annotated[str | None, About("Path of the notebook; null if there is none.")]
    error: Annotated[str | None, About("What went wrong, and what to do next.")]


ANY = (
    Begin
    | Opened
    | TurnStarted
    | TurnPiece
    | TurnCutOff
    | TurnReplied
    | CellStarted
    | CellOutput
    | CellFinished
    | UserCellFinished
    | CallStarted
    | CallRetried
    | CallsPlanned
    | CallFinished
    | Summarized
    | Noted
    | RunFinished
    | QuestionRunning
    | QuestionDone
    | Said
    | Dropped
    | End
)


def json_schema() -> str:
    """The published JSON schema of a line."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(ANY)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of rlm --json-events",
        "version": VERSION,
        **adapter.json_schema(mode="serialization"),
    }
    for kind in schema["$defs"].values():  # each field is written, whatever its value
        kind["required"] = list(kind["properties"])
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"

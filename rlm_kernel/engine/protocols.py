"""The six seams of the engine: Kernel, Models, Children, Handed, Recording, Account; and, under their names,
the values that cross them.

The engine speaks to these alone. `models/`, `sandbox/`, `trace/` and `session/` implement them, and import
this module of the engine and `engine.events`, which has what a run tells; `session/` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rlm_kernel.engine.evidence import as_json as as_json
from rlm_kernel.engine.evidence import listed as listed
from rlm_kernel.engine.evidence import places_of as places_of
from rlm_kernel.engine.evidence import without_marks as without_marks
from rlm_kernel.engine.ledger import Ledger
from rlm_kernel.engine.totals import TOKENS as TOKENS
from rlm_kernel.engine.totals import Share as Share
from rlm_kernel.engine.totals import Shares as Shares
from rlm_kernel.engine.totals import Totals as Totals
from rlm_kernel.engine.totals import Usage as Usage
from rlm_kernel.engine.totals import counted as counted
from rlm_kernel.engine.totals import duration as duration
from rlm_kernel.engine.totals import few_dollars as few_dollars
from rlm_kernel.engine.totals import fine_dollars as fine_dollars
from rlm_kernel.engine.totals import trace_dollars as trace_dollars
from rlm_kernel.engine.values import CANCELLED as CANCELLED
from rlm_kernel.engine.values import MODEL_CALLS as MODEL_CALLS
from rlm_kernel.engine.values import ROLES as ROLES
from rlm_kernel.engine.values import TOLD_CALLS as TOLD_CALLS
from rlm_kernel.engine.values import UNWATCHED as UNWATCHED
from rlm_kernel.engine.values import Answer as Answer
from rlm_kernel.engine.values import CallKind as CallKind
from rlm_kernel.engine.values import CallRecord as CallRecord
from rlm_kernel.engine.values import Card as Card
from rlm_kernel.engine.values import CellResult as CellResult
from rlm_kernel.engine.values import CellStatus as CellStatus
from rlm_kernel.engine.values import Completion as Completion
from rlm_kernel.engine.values import ContextInfo as ContextInfo
from rlm_kernel.engine.values import DeclaredTool as DeclaredTool
from rlm_kernel.engine.values import Evidence as Evidence
from rlm_kernel.engine.values import HostCall as HostCall
from rlm_kernel.engine.values import HostCallHandler as HostCallHandler
from rlm_kernel.engine.values import Locate as Locate
from rlm_kernel.engine.values import Memory as Memory
from rlm_kernel.engine.values import Message as Message
from rlm_kernel.engine.values import Outcome as Outcome
from rlm_kernel.engine.values import Partial as Partial
from rlm_kernel.engine.values import PauseTimer as PauseTimer
from rlm_kernel.engine.values import Picture as Picture
from rlm_kernel.engine.values import PictureNote as PictureNote
from rlm_kernel.engine.values import ReplyText as ReplyText
from rlm_kernel.engine.values import Retry as Retry
from rlm_kernel.engine.values import Role as Role
from rlm_kernel.engine.values import StopReason as StopReason
from rlm_kernel.engine.values import Watch as Watch
from rlm_kernel.engine.values import tool_answer as tool_answer


class Models(Protocol):
    """The models of a run behind one call: the root, the sub, and those that the settings name beside them.

    Implemented by `models.calls`, and by scripted models.
    """

    def name(self, role: Role) -> str:
        """The model that plays the role, as the user named it."""

    def card(self, which: str) -> Card:
        """What is known of a model: of the root, the sub, or the one of that name beside them.

        Raises KeyError.
        """

    @property
    def others(self) -> Sequence[Card]:
        """The models beside root and sub."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """One reply.

        `model` overrides the role's own: one of `others` by the name of its card, or a `provider/model` of
        the run. `schema`, a JSON schema: the provider is told to keep to it where it can be; the reply is not
        checked against it.

        Raises ModelError, after retries where retrying helps. Safe to call concurrently; waits for a free
        slot.
        """

    async def aclose(self) -> None:
        """Free connections and processes. Idempotent."""


class Recording(Protocol):
    """The host calls of an earlier run. Implemented by `trace.recording`."""

    async def find(self, call: HostCall, digest: str) -> CallRecord | None:
        """The recorded call, None if there is none.

        Returns when its answer is due: in the order in which the calls ended then.
        """

    def has(self, cell: str) -> bool:
        """Whether the earlier run had the cell."""

    def received(self, cell: str, call_id: str) -> None:
        """Code in the kernel has the answer to that call: the next one may be given."""


class Kernel(Protocol):
    """A live kernel. Owned by one task: cells run one at a time."""

    async def set_up(self, cell_id: str, code: str) -> CellResult:
        """Run a cell that loads the input; a kernel that had to be restarted runs all of them again by
        itself.
        """

    async def describe(self, whole: int = 0) -> ContextInfo:
        """What is loaded, in constant size; with the texts themselves if they have no more than `whole`
        tokens by an estimate, names included.
        """

    async def run_cell(self, cell_id: str, code: str) -> CellResult:
        """Run code to its end, whatever that end is.

        Raises KernelError only if no kernel can be had any more.
        """

    async def interrupt(self) -> None:
        """Stop the cell in progress, which then ends with status error or timeout. No-op when idle."""

    def person_cells(self) -> Sequence[CellResult]:
        """The cells that a person has run in it since this was last asked."""


class Handed(Protocol):
    """An input that code in the kernel hands over to a child RLM. `digest` tells it from others; `size` in
    bytes.
    """

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...

    async def text(self, limit: int) -> str:
        """The input as a text of at most so many characters. Raises UsageError where it has more."""


class Children(Protocol):
    """Child RLMs: each has a kernel and a trace of its own. Implemented by `session.children`."""

    async def take(self, given: Any) -> Handed:
        """What code hands over, which is hostile. Raises UsageError, FileRefused."""

    async def ask(
        self,
        question: str,
        handed: Handed,
        schema: Mapping[str, Any] | None,
        *,
        name: str,
        model: str | None = None,
        ledger: Ledger,
        begun: Callable[[str], None],
    ) -> Outcome:
        """Have a child RLM answer, on an account of its own.

        `name` says which cell asks; `model` is the child's root model, by the role of its card, and by
        default the run's; `schema`: of the answer, if it must have one. `begun` hears the child's
        trace, as seen from the folder of its parent's, once there is one.

        Raises RLMError. Cancelling it ends the child.
        """


class Tools(Protocol):
    """What code may call on the host beside the session's own. Implemented by `session.toolbox`."""

    def has(self, name: str) -> bool:
        """Whether there is a tool of that name."""

    async def call(
        self, name: str, arguments: Mapping[str, Any], pause_timer: PauseTimer, asking: PauseTimer
    ) -> dict[str, Any]:
        """What it gives, as `rlm_contract.ToolAnswer` has it. All of the call is hostile.

        What is done in `pause_timer` takes no time of the cell's; in `asking` the user is asked.
        Raises ToolError, whatever happens.
        """


class Account(Protocol):
    """What a run uses, to be looked at while it goes on. Implemented by `engine.ledger`."""

    def totals(self) -> Totals:
        """So far, with all child RLMs."""

    def closed(self) -> Totals:
        """The same without child RLMs that are still at work: these have traces of their own, which tell what
        they have used.
        """

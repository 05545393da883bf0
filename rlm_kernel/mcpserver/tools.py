"""The tools as clients see them: names, what they are for, what they change."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.mcpserver import asked
from rlm_kernel.mcpserver.clients import Client
from rlm_kernel.mcpserver.doing import Doing, Told
from rlm_kernel.mcpserver.progress import Progress

if TYPE_CHECKING:
    import mcp_types as types

INSTRUCTIONS = (
    "Questions about input that is too large for your window: logs, books, repositories, tables, of any "
    "size. A Recursive Language Model loads it into a Python kernel in a locked container, writes code over "
    "it, has sub-models read the parts that matter, and answers with passages as evidence. Use `search` "
    "first where a regular expression will do: it costs nothing. Use `ask` for one question, session_start "
    "and session_ask for several about the same input. Pass paths; do not read the files yourself."
)
Do = Callable[[Client, Any, Sequence[Path], Progress], Coroutine[Any, Any, Told]]


@dataclass(frozen=True)
class Offered:
    """A tool. `reads_only`: it changes nothing; `again`: doing it twice is as doing it once; `outside`: it
    sends parts of the input to model providers.
    """

    title: str
    about: str
    asked: type[asked.Asked]
    do: Callable[[Doing], Do]
    reads_only: bool = False
    again: bool = False
    outside: bool = False
    ends: bool = False

    def as_tool(self, name: str) -> types.Tool:
        """As the protocol has it."""
        import mcp_types as types

        hints = types.ToolAnnotations(
            title=self.title,
            read_only_hint=self.reads_only,
            destructive_hint=self.ends,
            idempotent_hint=self.again,
            open_world_hint=self.outside,
        )
        return types.Tool(
            name=name,
            title=self.title,
            description=self.about,
            input_schema=asked.schema_of(self.asked),
            annotations=hints,
        )


TOOLS = {
    "ask": Offered(
        "Ask about a large input",
        "Answer one question about files, folders or a text that are too large for your window. A model "
        "writes code over the whole input and has sub-models read parts of it. Takes from 10 seconds to "
        "minutes and costs money (max_cost bounds it); gives the answer with evidence, cost and trace.",
        asked.Ask,
        lambda doing: doing.ask,
        outside=True,
    ),
    "session_start": Offered(
        "Keep files loaded",
        "Load files, folders or a text into a kernel that is kept, for several questions about the same "
        "input. Costs no money. Gives an id for session_ask, search and session_stop.",
        asked.SessionStart,
        lambda doing: doing.session_start,
    ),
    "session_ask": Offered(
        "Ask in a session",
        "Answer a question about a session's input. It knows the earlier questions, and variables that their "
        "code made. Costs as `ask` does.",
        asked.SessionAsk,
        lambda doing: doing.session_ask,
        outside=True,
    ),
    "session_status": Offered(
        "Look at a session",
        "What a session has loaded and has cost so far, and when it ends. Free.",
        asked.SessionNamed,
        lambda doing: doing.session_status,
        reads_only=True,
        again=True,
    ),
    "session_stop": Offered(
        "End a session",
        "End a session, and free its memory. Its trace stays.",
        asked.SessionNamed,
        lambda doing: doing.session_stop,
        ends=True,
    ),
    "search": Offered(
        "Search without a model",
        "Find the lines that match a regular expression in files and folders of any size, also in PDF, Word, "
        "spreadsheets and archives, or in a session's files. No model is asked: free, a few seconds.",
        asked.SearchAsked,
        lambda doing: doing.search,
        reads_only=True,
        again=True,
    ),
    "show_trace": Offered(
        "Show how an answer came about",
        "What was done for an answer: turns, code, outputs, calls and cost, as markdown, in parts. Free.",
        asked.ShowTrace,
        lambda doing: doing.show_trace,
        reads_only=True,
        again=True,
    ),
}

"""A chat over a session that is none: `python -m tests.support.chatting [--json]`, in a folder that keeps its
history.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rlm_kernel.cli._chat import Chat
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.config import Settings
from rlm_kernel.engine.events import Summarized
from rlm_kernel.engine.protocols import Completion, Memory, Totals, Usage
from rlm_kernel.errors import KernelError, UsageError
from rlm_kernel.session.result import Result
from rlm_kernel.session.state import SessionFolder
from rlm_kernel.session.status import SessionStatus
from rlm_kernel.views.live import LiveView

MARKDOWN = (
    "# Title\n\n**bold**, [red]not markup[/red], [link](https://x.example), \x1b[2J and &#8238; and `code`"
)


class FakeSession:
    """The face of `Session`.

    What is asked says what comes of it: see `ask`; all else is answered with itself.
    """

    name = "default"
    trace = Path("a.ipynb")
    idle = 7200.0

    def __init__(self, view: LiveView, talk: Sequence[tuple[str, str | None]] = ()) -> None:
        self.folder = SessionFolder(Path(".rlm_state"))
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.settings = Settings.model_validate({"root_llm": {"model": "some/root"}})
        self.opened = ["The kernel is as you left it."]
        self.asked: list[str] = []
        self.loaded: list[str] = []
        self.stopped = False
        self._view = view
        self._talk = list(talk)

    async def ask(self, question: str, answered: Callable[[Result], None]) -> Result:
        self.asked.append(question)
        self.used = Totals(turns=2, seconds=1.0)
        if len(self.asked) > 1:
            self._sum_up()
        answer: str | None = question
        if question in ("wait", "wait stubbornly"):
            self._view.say(f"now waiting, number {len(self.asked)}")
            try:
                await asyncio.Event().wait()
            finally:
                if question == "wait stubbornly":
                    self._view.say("does not stop")
                    await asyncio.Event().wait()
        if question == "be lost":
            raise KernelError("The kernel was lost.", hint="Ask again.")
        if question == "rebuild":
            self.opened.append("It was rebuilt.")
        if question == "markdown":
            answer = MARKDOWN
        if question == "find nothing":
            answer = None
        self._talk.append((question, answer))
        result = Result(answer, None, self.trace, "answered" if answer else "turns", False, "", self.used)
        if answer is not None:
            answered(result)
        self._finish()
        return result

    def _finish(self) -> None:
        """What is done after an answer."""

    def _sum_up(self) -> None:
        self._view(Summarized(Memory("short", 12340, 410, False, Completion("short", "some/root"))))
        self.used += Totals(root_usage=Usage(12340, 410))

    async def load(self, paths: Sequence[Path]) -> list[str]:
        self.loaded += map(str, paths)
        return [f"loaded {path}" for path in paths]

    async def undo(self) -> str:
        if not self._talk:
            raise UsageError("There is no question to undo.", hint="Ask one first.")
        self._talk.pop()
        return "It was taken back."

    async def stop(self) -> None:
        self.stopped = True

    def conversation(self) -> list[tuple[str, str | None]]:
        return self._talk

    async def status(self) -> SessionStatus:
        files = [{"name": "b.log", "characters": 1234, "active": True}, {"name": "c.log", "characters": 5}]
        variables = {"found": "list, 2 long", "other": "int"}
        now = datetime.now(UTC)
        totals = Totals(turns=5, calls=1234)
        return SessionStatus(
            self.name,
            "idle",
            self.trace,
            now,
            {},
            files,
            variables,
            len(self._talk),
            totals,
            None,
            self.idle,
            None,
        )


def chat_over(
    *, as_json: bool = False, quiet: bool = False, talk: Sequence[tuple[str, str | None]] = ()
) -> tuple[Chat, FakeSession]:
    view = LiveView(quiet=quiet, lines=False)
    session = FakeSession(view, talk)
    return Chat(session, view, quiet=quiet, as_json=as_json), session  # type: ignore[arg-type]


if __name__ == "__main__":
    over, _ = chat_over(as_json="--json" in sys.argv)
    sys.exit(run_to_end(over.run(), answered=lambda: 0 if over.settled else None))

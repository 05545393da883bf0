"""What the tools do, for one client at a time: questions, kept sessions, searches, traces.

All of it goes the ways of `rlm ask` and `rlm run`: `session.ask` and `session.manager`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.config import Settings, load_settings
from rlm_kernel.engine.protocols import Models, as_json
from rlm_kernel.engine.purse import LocalPurse
from rlm_kernel.errors import BudgetExceeded, RLMError, UsageError
from rlm_kernel.mcpserver import asked, paths
from rlm_kernel.mcpserver.clients import Client, Kept
from rlm_kernel.mcpserver.kernels import Kernels
from rlm_kernel.mcpserver.progress import Progress
from rlm_kernel.mcpserver.tracetexts import shown
from rlm_kernel.sandbox.searching import Search
from rlm_kernel.session.ask import ask, trace_name
from rlm_kernel.session.manager import open_session, stop_session
from rlm_kernel.session.result import Result
from rlm_kernel.session.session import Session
from rlm_kernel.session.status import look_at

MAX_ANSWER = 400_000
"""Characters of an answer that a client gets; the trace has it whole."""
MAX_EVIDENCE = 50
_PASSAGE = 1_000
_COMMAND = "rlm mcp"


@dataclass(frozen=True)
class Told:
    """What a tool says: text for the model, data for programs. `failed`: there is no answer."""

    text: str
    data: Mapping[str, Any]
    failed: bool = False


@dataclass(frozen=True)
class Rules:
    """What the server was started with.

    `folders`: below which clients may name paths, instead of their roots; `idle`: seconds after which an
    unused session ends; `models`: instead of those of the settings, which the caller closes.
    """

    changes: Mapping[str, Any]
    config_file: Path | None = None
    folders: Sequence[Path] = ()
    total_cost: float | None = None
    kernels: int = 4
    idle: float = 900.0
    models: Models | None = None

    def with_changes(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """All settings that are set, with what no client may change."""
        given = {name: value for name, value in changes.items() if value is not None}
        return {**self.changes, **given, "sandbox.question_files": False}

    def settings(self, changes: Mapping[str, Any]) -> Settings:
        """The settings of a call. Raises ConfigError."""
        return load_settings(self.config_file, self.with_changes(changes))


class Doing:
    """The tools of a server. One for all clients."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.purse = LocalPurse(cost=rules.total_cost, whose="The server")
        """Which all questions share."""
        self.kernels = Kernels(rules.kernels)
        self._usual = rules.settings({})

    def new_client(self) -> Client:
        """Someone who is connected from now on."""
        return Client(self.kernels, self._stop)

    async def ask(self, client: Client, given: asked.Ask, roots: Sequence[Path], progress: Progress) -> Told:
        """Answer a question, in a container of its own."""
        files = await self._files(given.paths, given.text, roots)
        settings = self.rules.settings(self._limits(given) | {"root_llm.model": given.model})
        trace = trace_name(settings, given.question).absolute()
        trace = trace.with_stem(f"{trace.stem}-{client.new_name()[1:9]}")  # many ask at the same second
        try:
            async with self.kernels.one(), progress.told():
                result = await ask(
                    given.question,
                    given.text if given.text is not None else files or None,
                    settings=settings,
                    trace=trace,
                    models=self.rules.models,
                    view=progress.hear,
                    say=progress.say,
                    purse=self.purse,
                )
        finally:
            if trace.exists():  # of a failed run, too
                client.remember(trace)
        return _answer(result)

    async def session_start(
        self, client: Client, given: asked.SessionStart, roots: Sequence[Path], progress: Progress
    ) -> Told:
        """Load files into a kernel that is kept."""
        files = await self._files(given.paths, given.text, roots)
        if not files and given.text is None:
            raise UsageError("A session needs an input.", hint="Give it `paths` or `text`.")
        await client.stop_idle(self.rules.idle)
        name = client.new_name()
        if given.text is not None:
            files = [await asyncio.to_thread(_written, client.folder / f"{name}.txt", given.text)]
        self.kernels.take()
        changes = {"root_llm.model": given.model}
        try:
            async with (
                progress.told(),
                # It may be wanted for searches alone, which need no key.
                self._opened(client, name, changes, files, True, progress, models=False) as session,
            ):
                kept = Kept(name, session.trace)
                status = await session.status()
        except BaseException:
            # Nobody has its id, so that nobody could end it.
            try:
                with contextlib.suppress(RLMError):
                    await asyncio.shield(self._stop(client, name))
            finally:
                self.kernels.give()
            raise
        client.sessions[name] = kept
        client.remember(kept.trace)
        lines = "\n".join(status.file_lines()[:20])
        idle = f"{self.rules.idle / 60:.0f} minutes"
        return Told(
            f"session {name}\nIt ends after {idle} without use. Loaded:\n{lines}",
            {"session": name, "trace": kept.trace.stem, "files": [dict(one) for one in status.files][:100]},
        )

    async def session_ask(
        self, client: Client, given: asked.SessionAsk, roots: Sequence[Path], progress: Progress
    ) -> Told:
        """Answer a question in a session."""
        async with self._using(client, given.session) as kept:
            changes = self._limits(given)
            async with (
                progress.told(),
                self._opened(client, kept.name, changes, (), False, progress) as session,
            ):
                session.purse = self.purse
                result = await session.ask(given.question)
        return _answer(result)

    async def session_status(
        self, client: Client, given: asked.SessionNamed, roots: Sequence[Path], progress: Progress
    ) -> Told:
        """What a session has and has used."""
        kept = client.session(given.session)
        status = await look_at(
            kept.name, config_file=self.rules.config_file, changes=self._changes(client, {})
        )
        told = status.as_json()
        data = {key: told[key] for key in ("session", "condition", "questions", "cost", "idle", "idle_left")}
        return Told(
            "\n".join(status.lines()), data | {"trace": kept.trace.stem, "files": list(told["files"])[:100]}
        )

    async def session_stop(
        self, client: Client, given: asked.SessionNamed, roots: Sequence[Path], progress: Progress
    ) -> Told:
        """End a session."""
        async with self._using(client, given.session) as kept:
            await client.stop(kept.name)
        return Told(
            "The session has ended; its trace is kept.", {"session": kept.name, "trace": kept.trace.stem}
        )

    async def search(
        self, client: Client, given: asked.SearchAsked, roots: Sequence[Path], progress: Progress
    ) -> Told:
        """Look for a regular expression, in a kernel, without a model."""
        wanted = Search(given.pattern, given.file, given.ignore_case, given.limit)
        if (given.session is None) == (not given.paths):
            raise UsageError("A search needs either `paths` or a `session`.")
        async with progress.told():
            if given.session is not None:
                async with (
                    self._using(client, given.session) as kept,
                    self._opened(client, kept.name, {}, (), False, progress, models=False) as session,
                ):
                    found = await session.search(wanted)
            else:
                files = await self._files(given.paths, None, roots)
                name = client.new_name()
                # Nobody will ask for its trace.
                hidden = {"trace.dir": str(client.folder / "searches")}
                async with (
                    self.kernels.one(),
                    self._opened(client, name, hidden, files, True, progress, models=False) as session,
                ):
                    try:
                        found = await session.search(wanted)
                    finally:
                        await asyncio.shield(session.stop())
        hits = [{"file": hit.file, "line": hit.line, "text": hit.text} for hit in found.hits]
        lines = [f"{hit.file}:{hit.line}: {hit.text}" for hit in found.hits]
        more = [f"There are more than {wanted.limit} hits."] if found.more else []
        return Told("\n".join([*lines, *more]) or "Nothing matches.", {"hits": hits, "more": found.more})

    async def show_trace(
        self, client: Client, given: asked.ShowTrace, roots: Sequence[Path], progress: Progress
    ) -> Told:
        """A trace as text."""
        whole = await asyncio.to_thread(shown, client, given.trace, given.cell)
        part = whole[given.offset : given.offset + given.limit]
        end = given.offset + len(part)
        rest = f"\n\n[{len(whole) - end:,} characters follow: offset={end}]" if end < len(whole) else ""
        return Told(part + rest, {"trace": given.trace, "offset": given.offset, "characters": len(whole)})

    async def _files(self, given: Sequence[str], text: str | None, roots: Sequence[Path]) -> list[Path]:
        if given and text is not None:
            raise UsageError("Give either `paths` or `text`.")
        return await asyncio.to_thread(paths.allowed, given, self.rules.folders or roots)

    def _limits(self, given: asked.Ask | asked.SessionAsk) -> dict[str, Any]:
        """A question's limits: the client's, below the server's own and what is left of its total.

        Raises BudgetExceeded where nothing is left.
        """
        try:
            self.purse.check()
        except BudgetExceeded as error:
            error.hint = "Start the server with a higher --total-cost."
            raise
        usual, total = self._usual.limits, self.rules.total_cost
        left = None if total is None else total - self.purse.spent.cost
        return {
            "limits.cost": _least(_least(usual.cost, given.max_cost), left),
            "limits.seconds": _least(usual.seconds, given.max_seconds),
            "limits.turns": given.max_turns and min(usual.turns, given.max_turns),
        }

    def _changes(self, client: Client, changes: Mapping[str, Any]) -> dict[str, Any]:
        own = {"session.dir": str(client.folder / "sessions"), "session.idle": self.rules.idle}
        return {**self.rules.with_changes(changes), **own}

    def _opened(
        self,
        client: Client,
        name: str,
        changes: Mapping[str, Any],
        files: Sequence[Path],
        new: bool,
        progress: Progress,
        *,
        models: bool = True,
    ) -> contextlib.AbstractAsyncContextManager[Session]:
        return open_session(
            name,
            paths=files,
            new=new,
            command=_COMMAND,
            config_file=self.rules.config_file,
            changes=self._changes(client, changes),
            models=self.rules.models,
            with_models=models,
            view=progress.hear,
            say=progress.say,
        )

    @contextlib.asynccontextmanager
    async def _using(self, client: Client, name: str) -> AsyncIterator[Kept]:
        """One call at a time in a session; it may have been stopped while another was waited for."""
        kept = client.session(name)
        async with kept.lock:
            client.session(name)
            try:
                yield kept
            finally:
                kept.used = time.monotonic()

    async def _stop(self, client: Client, name: str) -> None:
        await stop_session(name, config_file=self.rules.config_file, changes=self._changes(client, {}))


def _least(one: float | None, other: float | None) -> float | None:
    """The lower of two limits."""
    return min((each for each in (one, other) if each is not None), default=None)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", errors="replace")
    return path


def _answer(result: Result) -> Told:
    """An answer with what it cost, what it stands on and where its trace is."""
    answer = result.answer
    cut = answer is not None and len(answer) > MAX_ANSWER
    text = str(result)[:MAX_ANSWER] + ("\n[cut: the trace has all of it]" if cut else "")
    if result.forced:
        text += f"\n\n[Best effort: the limit of {result.stop_reason} was reached.]"
    evidence = [_short(as_json(one)) for one in result.evidence[:MAX_EVIDENCE]]
    data = {
        "answer": None if answer is None else answer[:MAX_ANSWER],
        "stop_reason": result.stop_reason,
        "forced": result.forced,
        "evidence": evidence,
        **result.totals.as_json(),
        "trace": result.trace.stem,
    }
    return Told(f"{text}\n\n[{result.totals.line()}; trace {result.trace.stem}]", data, failed=answer is None)


def _short(one: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[:_PASSAGE] if isinstance(value, str) else value for key, value in one.items()}

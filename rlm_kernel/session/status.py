"""What `rlm status` tells of a kept session.

It is a look from outside: it does not enter the session, so it works beside a command that uses it, disturbs
nothing that runs in the kernel, and does not count as use. What the kernel has was written down when the last
command left it, and nothing changes that until the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlm_kernel.config import load_settings
from rlm_kernel.engine.totals import Totals, duration
from rlm_kernel.errors import KernelError, backstop
from rlm_kernel.session.state import DEFAULT_NAME, Holder, SessionFolder, State, none_there
from rlm_kernel.trace.reader import read_trace

if TYPE_CHECKING:
    from rlm_kernel.sandbox.usage import Use
    from rlm_kernel.session.running import RunningKernel

Condition = Literal["idle", "busy", "gone"]
_TELL_SECONDS = 2.0
"""Seconds that a kernel has to tell what it has."""
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3}){0,6}"
_BUFFERS = re.compile(rf"list, (?P<count>{_NUMBER}) long, (?P<characters>{_NUMBER}) characters")
LISTED = 10
"""Files, and variables, that a list for people names."""


@dataclass(frozen=True)
class SessionStatus:
    """`condition`: idle (nothing runs), busy (`holder` uses it), gone (the container has ended; the next
    command rebuilds it).

    `files` and `variables` as the kernel tells of them; of a busy or lost one, `files` are those of the trace
    and `variables` are None. `idle` and `idle_left` in seconds.
    """

    name: str
    condition: Condition
    trace: Path
    created: datetime
    models: Mapping[str, str]
    files: Sequence[Mapping[str, Any]]
    variables: Mapping[str, str] | None
    questions: int
    totals: Totals
    use: Use | None
    idle: float
    idle_left: float | None
    holder: Holder | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm status --json` prints."""
        return {
            "session": self.name,
            "condition": self.condition,
            "trace": str(self.trace),
            "created": self.created.isoformat(),
            "models": dict(self.models),
            "files": [dict(file) for file in self.files],
            "variables": None if self.variables is None else dict(self.variables),
            "buffers": self.buffers,
            "questions": self.questions,
            **self.totals.as_json(),
            "container": None if self.use is None else asdict(self.use),
            "idle": self.idle,
            "idle_left": None if self.idle_left is None else round(self.idle_left),
            "holder": None if self.holder is None else self.holder.model_dump(mode="json"),
        }

    def lines(self) -> list[str]:
        """The same for people."""
        lines = [f"session     {self.name}: {self._condition()}", f"trace       {self.trace}"]
        models = ", ".join(f"{role} {name}" for role, name in self.models.items() if name)
        lines += [f"models      {models}"] if models else []
        lines += _column("files", self.file_lines())
        if self.variables is not None:
            lines += _column("variables", [f"{name}: {kind}" for name, kind in self.variables.items()])
        if (kept := self.buffers) is not None:
            lines.append(f"buffers     {kept['count']:,} ({kept['characters']:,} characters)")
        lines.append(f"questions   {self.questions}")
        lines.append(f"spent       {self.spent()}")
        if self.use is not None:
            limit = f" of {self.use.memory_limit / 2**20:,.0f}" if self.use.memory_limit else ""
            used = f"{self.use.memory / 2**20:,.0f}{limit} MiB of memory"
            lines.append(f"container   {used}, {duration(self.use.cpu_seconds)} of CPU time so far")
        return lines

    @property
    def buffers(self) -> dict[str, int] | None:
        """How many texts the kernel's `buffers` has, and their characters; None where that is unknown, or
        code has made it something else.
        """
        if self.variables is None:
            return None
        told = _BUFFERS.fullmatch(self.variables.get("buffers", "list, 0 long, 0 characters"))
        return told and {name: int(number.replace(",", "")) for name, number in told.groupdict().items()}

    def file_lines(self) -> list[str]:
        """The loaded files, a line each."""
        return [_file(file) for file in self.files] or ["none"]

    def spent(self) -> str:
        """What the session has used so far."""
        return self.totals.line()

    def _condition(self) -> str:
        if self.condition == "busy":
            return f"in use by {self.holder}" if self.holder else "in use"
        if self.condition == "gone":
            return "its container has ended; the next question rebuilds it from the trace"
        left = "" if self.idle_left is None else f", {duration(self.idle_left)} left"
        return f"idle; ends after {duration(self.idle)} without use{left}"


def first_of(items: Sequence[str], limit: int = LISTED) -> list[str]:
    """The first of many, and how many more there are."""
    return [*items[:limit], *([f"… and {len(items) - limit:,} more"] if len(items) > limit else [])]


def _column(name: str, items: Sequence[str]) -> list[str]:
    shown = first_of(items) or ["none"]
    return [f"{name if number == 0 else '':<12}{item}" for number, item in enumerate(shown)]


def _file(file: Mapping[str, Any]) -> str:
    size = f"{file['characters']:,} characters" if "characters" in file else f"{file.get('bytes', 0):,} bytes"
    marks = [mark for mark in ("active", "lazy") if file.get(mark)]
    return f"{file['name']}: {size}" + (f" ({', '.join(marks)})" if marks else "")


@backstop
async def look_at(
    name: str = DEFAULT_NAME, *, config_file: Path | None = None, changes: Mapping[str, Any] | None = None
) -> SessionStatus:
    """The status of a session, without rebuilding a lost one, and beside a command that uses it.

    Raises UsageError, DockerError.
    """
    settings = load_settings(config_file, changes)
    folder = SessionFolder(settings.session.dir, name)
    state = folder.read()
    if state is None:
        raise none_there(folder)
    return await status_of(state, holder=folder.holder())


async def status_of(
    state: State, running: RunningKernel | None = None, holder: Holder | None = None
) -> SessionStatus:
    """The status of a session: by its kernel if we have it (`running`), else by what can be seen from
    outside. Raises DockerError.
    """
    use, trace = await asyncio.gather(
        asyncio.to_thread(_use, state.run),
        asyncio.to_thread(read_trace, state.trace),
    )
    if running is not None:
        state = await told_by(running, state)
    known = use is not None and (holder is None or running is not None)
    files = state.files if known else None
    if files is None:
        files = [
            {"name": Path(file.path).name, "path": file.path, "bytes": file.size} for file in trace.meta.files
        ]
    left = (
        None
        if holder or use is None
        else max(0.0, state.idle - (datetime.now(UTC) - state.used).total_seconds())
    )
    return SessionStatus(
        name=state.name,
        condition="busy" if holder else "gone" if use is None else "idle",
        trace=state.trace,
        created=state.created,
        models={str(role): name for role, name in trace.meta.models.items()},
        files=files,
        variables=state.variables if known else None,
        questions=trace.questions,
        totals=trace.spent(),
        use=use,
        idle=state.idle,
        idle_left=left,
        holder=holder,
    )


async def told_by(running: RunningKernel, state: State) -> State:
    """The state with what the kernel tells of its files and variables, which stay unknown where it does not
    answer. Not while a cell runs.
    """
    variables = files = None
    with contextlib.suppress(KernelError, TimeoutError):
        if running.kernel.alive:
            async with asyncio.timeout(_TELL_SECONDS):
                told = await running.kernel.files()
                files = None if told is None else [file.model_dump(exclude_none=True) for file in told]
                variables = await running.kernel.variables()
    return state.model_copy(update={"variables": variables, "files": files})


def _use(run: Path) -> Use | None:
    """What the container of the session with that folder uses; None if it does not run. Blocking.

    Raises DockerError, and so if it is another engine's.
    """
    from docker.errors import NotFound

    from rlm_kernel.sandbox.containers import LABEL, check_engine
    from rlm_kernel.sandbox.docker_host import connect
    from rlm_kernel.sandbox.engine_errors import docker_errors
    from rlm_kernel.sandbox.rundir import RunDir
    from rlm_kernel.sandbox.usage import use_of

    with docker_errors():
        client = connect()
        try:
            session_id = run.name.removeprefix("rlm-")
            found = client.api.containers(filters={"label": f"{LABEL}.session={session_id}"})
            if not found:
                check_engine(RunDir.engine_of(run))
            return use_of(client, found[0]["Id"]) if found else None
        except NotFound:  # it ended in the meantime
            return None
        finally:
            client.close()

"""The Python interface: `RLM(...).ask(question, context=...)`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from rlm_kernel import loops
from rlm_kernel.config import load_api_keys, load_settings
from rlm_kernel.engine.approval import Approve
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import ROLES, Models
from rlm_kernel.errors import UsageError
from rlm_kernel.session.answertypes import AnswerType
from rlm_kernel.session.ask import ask, trace_path
from rlm_kernel.session.delivery import Give
from rlm_kernel.session.environment import Host, Say
from rlm_kernel.session.inputs import Context
from rlm_kernel.session.kept import NAME, Background, Kept
from rlm_kernel.session.result import Result
from rlm_kernel.session.rlm_traces import OnTraces
from rlm_kernel.session.state import DEFAULT_NAME
from rlm_kernel.session.streaming import Stream
from rlm_kernel.tools.functions import tools_of
from rlm_kernel.tools.tool import AllowCall

if TYPE_CHECKING:
    from rlm_kernel.session.batch.engine import Engine
    from rlm_kernel.session.batch.mapped import Mapped
    from rlm_kernel.session.batch.output import Ready
    from rlm_kernel.session.batch.results import Paid
    from rlm_kernel.session.batch.run import Budget
    from rlm_kernel.session.session import Session


class RLM(OnTraces):
    """Asks questions over contexts of any size.

    Each question has its own container, kernel and trace.

    Args:
        root_model, sub_model: models in the form that `rlm ask --model` and `--sub-model` take
            ("provider/model", "local"). Default: the models in the settings.
        options: further settings by dotted name, {"limits.turns": 10, "sandbox.memory": "4g"}. None means no
            limit, as in {"limits.calls": None}.
        config_file: settings file. Default: `config.json` in the working directory, if it exists.
        models: another implementation of the Models protocol, such as ScriptedModels.
        progress: show the progress of each run: in a notebook in a display that is updated in place, in a
            terminal as `rlm ask` does, elsewhere as lines on stderr. Each method also takes it for one run.
        tools: functions that code in the kernel may call; they run here, on the host. Give plain functions,
            or tools that `rlm_kernel.tool` made. Methods that ask models also take `tools`, which replace
            these for one run.
        allow_call: called before each call of a tool with the permission "ask"; returns True, False or
            "always". Default: rlm refuses such calls.

    Raises:
        ConfigError: a setting is unknown or has a bad value.
        UsageError: one of the tools cannot be a tool.
    """

    def __init__(
        self,
        root_model: str | None = None,
        sub_model: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        config_file: Path | None = None,
        models: Models | None = None,
        progress: bool = False,
        tools: Sequence[Any] = (),
        allow_call: AllowCall | None = None,
    ) -> None:
        load_api_keys()
        chosen = {name: "none" if value is None else value for name, value in (options or {}).items()}
        overrides = {"root_llm.model": root_model, "sub_llm.model": sub_model, **chosen}
        self.settings = load_settings(config_file, overrides)
        self._config_file = config_file
        self._changes = overrides
        self._models = models
        self._progress = progress
        self._tools, self._allow_call = tools_of(tools), allow_call
        self._kept: Kept | None = None
        """The kernel of an RLM that is entered, or has been."""
        self._background: Background | None = None
        """The loop of one that was entered by code without a loop of its own."""

    async def __aenter__(self) -> RLM:
        """Use one kernel for all questions inside the block; `with` does the same for code without an event
        loop. Raises UsageError if the RLM was entered already.
        """
        if self._kept is not None and not self._kept.closed:
            raise UsageError(
                "This RLM was entered already.", hint="Make another RLM, which has its own kernel."
            )
        self._kept = Kept(self.settings, self._open_kept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the running questions and remove the container; the trace is kept."""
        await self._here().close()

    def __enter__(self) -> RLM:
        if self._kept is not None and not self._kept.closed:
            raise UsageError(
                "This RLM was entered already.", hint="Make another RLM, which has its own kernel."
            )
        background = Background()
        try:
            background.run(self.__aenter__())
        except BaseException:
            background.close()
            raise
        self._background = background
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        background = self._background
        if background is None:
            raise UsageError("This RLM was entered by `async with`.", hint="Leave it with `async with`, too.")
        try:
            background.run(self.__aexit__(kind, error, trace))
        finally:
            self._background = None
            background.close()

    def _here(self) -> Kept:
        """The kernel, for who is in its event loop. Raises UsageError."""
        assert self._kept is not None
        if not self._kept.closed and self._kept.loop is not asyncio.get_running_loop():
            raise UsageError(
                "This RLM was entered in another event loop.",
                hint="In `with RLM(…)`, use ask; in `async with RLM(…)`, await aask in the same loop.",
            )
        return self._kept

    def _open_kept(
        self, changes: Mapping[str, Any], trace: Path, say: Say
    ) -> AbstractAsyncContextManager[Session]:
        return self._open(NAME, changes={**self._changes, **changes}, trace=trace, say=say)

    async def aask(
        self,
        question: str,
        context: Context = None,
        *,
        answer_type: Any = None,
        trace: Path | str | None = None,
        view: Listener | None = None,
        approve: Approve | None = None,
        progress: bool | None = None,
        cite: bool | None = None,
        answered: Give = lambda _result: None,
        tools: Sequence[Any] | None = None,
        allow_call: AllowCall | None = None,
    ) -> Result:
        """Answer a question.

        Inside `async with rlm:`, the question uses the kernel of the block, with the variables, files and
        conversation of the earlier questions; its context is loaded in addition to theirs.

        Args:
            question: the question. Code may load the paths that it names.
            context: a str, a list or dict of JSON values, a Path (file or folder), several Paths, or None.
            answer_type: a pydantic model or a Python type such as list[str]. The `value` of the result is
                checked and has this type.
            trace: path of the notebook. Default: a new file in the folder of the setting `trace.dir`.
            view: listener that gets the run's events, in addition to the trace.
            approve: called before the code spends more than `limits.ask`, if no cost limit is set; returns
                True, False or "always", and may be async. Default: the code may spend it.
            progress: show the progress of the run. Default: the value that the RLM was made with.
            cite: whether the answer must have evidence: passages of the input. Default: the setting
                `prompt.cite`.
            answered: called with the answer as soon as it is ready, before the container is removed; its
                `value` does not have the `answer_type` yet.
            tools: tools for this run, instead of those of the RLM.
            allow_call: as for the RLM, for this run.

        Returns:
            The result. If the run ends without an answer, its `answer` is None.

        Raises:
            UsageError: the type has no JSON schema.
            NoAnswer: the answer does not have the type.
            RLMError: something prevents the run.
        """
        _needs_asyncio()
        wanted = None if answer_type is None else AnswerType(answer_type)
        schema = None if wanted is None else wanted.schema
        place = None if trace is None else Path(trace)
        with self._watched(progress, view) as shown:
            if self._kept is None:
                shown.trace = place = trace_path(self.settings, question, place)
                host = Host(self.settings).asked(cite, approve)
                asking = ask(
                    question,
                    context,
                    settings=host.settings,
                    trace=place,
                    models=self._models,
                    view=shown.view,
                    approve=approve,
                    say=shown.say,
                    schema=schema,
                    answered=answered,
                    **self._with_tools({"tools": tools, "allow_call": allow_call}),
                )
            else:
                if tools is not None or allow_call is not None:
                    raise UsageError(
                        "All questions of one kernel share their tools.", hint="Give them to RLM(tools=…)."
                    )
                options: dict[str, Any] = {
                    "schema": schema,
                    "cite": cite,
                    "view": shown.view,
                    "approve": approve,
                }
                asking = self._here().ask(
                    question, context, place, say=shown.say, answered=answered, **options
                )
            result = shown.done(await asking)
        return result if wanted is None else wanted.of(result)

    def ask(self, question: str, context: Context = None, **options: Any) -> Result:
        """`aask` for code without an event loop. Inside an event loop, as in a notebook, it runs in its own
        thread.
        """
        if self._background is not None:
            return self._background.run(self.aask(question, context, **options))
        if self._kept is not None and not self._kept.closed:
            raise UsageError("This RLM was entered by `async with`.", hint="Await rlm.aask(…) instead.")
        return loops.waited_for(self.aask, question, context, **options)

    def stream(self, question: str, context: Context = None, **options: Any) -> Stream:
        """Ask as `aask` does, and give the run's events as they happen: `async for event in rlm.stream(…)`.

        The events are those in `rlm_kernel.engine.events`. After the last event, the stream's `result` has
        the result. Leaving the loop stops the run. `options`: those of `aask`.
        """
        view = options.pop("view", None)
        return Stream(lambda hear: self.aask(question, context, **options, view=hear), view)

    def map(
        self,
        questions: Iterable[Any],
        contexts: Iterable[Any] | None = None,
        *,
        files: Sequence[Path | str] = (),
        answer_type: Any = None,
        out: Path | str | None = None,
        traces: Path | str | None = None,
        jobs: int | None = None,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        retry: Literal["no", "passing", "all"] = "no",
        keep_going: bool = False,
        engine: Engine | None = None,
    ) -> Mapped:
        """Ask many questions, each in its own container: `async for done in rlm.map(…)`, or `for`.

        Args:
            questions: texts, dicts as in the files of `rlm batch`, or `Item`s. Any iterable works, even an
                endless one; another thread reads it as questions can start.
            contexts: one context for each question, as for `aask`; it replaces the question's own context.
            files: files, folders and globs that every question gets in addition to its own context.
            answer_type: as for `aask`, for questions without their own schema. An answer that does not have
                the type is a failure, `NoAnswer`.
            out: results file, as for `rlm batch --out`. Questions already in it are neither asked nor given.
            traces: folder of the traces. Default: beside `out`, or else the setting `trace.dir`.
            jobs: number of questions asked at the same time. Default: as many as fit into memory.
            max_cost: maximum cost of all questions together in US dollars, including earlier runs in `out`.
            max_tokens: maximum number of tokens, in the same way. Limits in the RLM's options apply to each
                question.
            retry: which failed questions in `out` to ask again: "passing" (they failed for a temporary
                reason), or "all" (all that failed or have no answer).
            keep_going: continue even if the first ten questions fail in the same way.
            engine: where the questions are answered. Default: on this machine.

        Returns:
            A `Done` for each question, as soon as it is ready: the `item`, and a `result` as from `aask` or a
                `failure`. Input that is not a question is a failure, too. Leaving the loop stops the running
                questions.

        Raises:
            UsageError: the type has no JSON schema.
            BudgetExceeded: the limit for all questions together is reached.
            RLMError: an error that would make every question fail.
        """
        from rlm_kernel.session.batch.mapped import Mapped
        from rlm_kernel.session.batch.output import Places, by, files_of_all, ready
        from rlm_kernel.session.batch.questions import of_program
        from rlm_kernel.session.batch.run import Budget, How

        wanted = None if answer_type is None else AnswerType(answer_type)
        how = How(Budget(max_cost, max_tokens), retry, keep_going, wanted)
        folder = self.settings.trace.dir / f"batch-{datetime.now().strftime('%Y%m%d-%H%M%S-%f')}"
        places = Places(
            None if out is None else Path(out),
            Path(traces) if traces is not None else folder if out is None else None,
        )
        models = self._models
        names = None if models is None else {str(role): models.name(role) for role in ROLES}

        def begin() -> AbstractAsyncContextManager[Ready]:
            return ready(
                of_program(questions, contexts),
                lambda paid: self._local_engine(jobs, how.budget, paid) if engine is None else engine,
                places,
                how,
                by(self.settings, names),
                files_of_all(files),
            )

        return Mapped(begin)

    def _local_engine(self, jobs: int | None, budget: Budget, paid: Paid) -> Engine:
        from rlm_kernel.session.batch.local import local_engine

        return local_engine(self.settings, jobs, budget, paid, models=self._models, **self._with_tools({}))

    def session(
        self,
        name: str = DEFAULT_NAME,
        *,
        paths: Sequence[Path] = (),
        progress: bool | None = None,
        changes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AbstractAsyncContextManager[Session]:
        """Open the session of this name in the working directory, or start it with the files.

        Use it with `async with`; the session continues afterwards. `progress`: show the progress of its
        questions. `changes`: settings by dotted name, which replace those of the RLM. `options`: those of
        `session.manager.open_session`.
        """
        progress = self._progress if progress is None else progress
        changed = {**self._changes, **(changes or {})}
        return self._open(name, paths=paths, progress=progress, changes=changed, **options)

    def _open(self, name: str, **options: Any) -> AbstractAsyncContextManager[Session]:
        from rlm_kernel.session.manager import open_session

        given: dict[str, Any] = {
            "command": "RLM.session",
            "config_file": self._config_file,
            "models": self._models,
        }
        return open_session(name, **{**given, **self._with_tools(options)})


def _needs_asyncio() -> None:
    """Raises UsageError in the event loop of another library."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "aask runs on asyncio, and this event loop is another library's.",
            hint="Use ask in a thread, as in await trio.to_thread.run_sync(rlm.ask, question)",
        ) from None

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

    Each question has a container, a kernel and a trace of its own.

    Args:
        root_model, sub_model: as `rlm ask --model` and `--sub-model` take them ("provider/model", "local").
            Default: as configured.
        options: further settings by dotted name, {"limits.turns": 10, "sandbox.memory": "4g"}; None, as in
            {"limits.calls": None}, is no limit.
        config_file: default `config.json` in the working directory, if it is there.
        models: other implementations of the Models protocol, such as ScriptedModels.
        progress: show how far each run is: in a notebook in a display that is updated in place, in a terminal
            as `rlm ask` does, elsewhere in lines on stderr. Each method takes it for one run, too.
        tools: functions that code in the kernel may call; they run here, on the host. Functions as they are,
            or as `rlm_kernel.tool` makes them. Methods that ask models take `tools` for one run, too, in
            their place.
        allow_call: asked before a call of a tool whose permission is "ask"; it says True, False or "always".
            Default: such calls are refused.

    Raises:
        ConfigError: a setting is unknown or has a bad value.
        UsageError: what is among the tools cannot be one.
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
        """Have one kernel for all questions that are asked until it is left; `with` does the same for code
        without an event loop. Raises UsageError where it has been entered already.
        """
        if self._kept is not None and not self._kept.closed:
            raise UsageError(
                "This RLM has been entered already.", hint="Make another one: it has a kernel of its own."
            )
        self._kept = Kept(self.settings, self._open_kept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the container; what is asked still is stopped. The trace stays."""
        await self._here().close()

    def __enter__(self) -> RLM:
        if self._kept is not None and not self._kept.closed:
            raise UsageError(
                "This RLM has been entered already.", hint="Make another one: it has a kernel of its own."
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
            raise UsageError("This RLM was entered by `async with`.", hint="Leave it so, too.")
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
                hint="In `with RLM(…)` use ask; in `async with RLM(…)` await aask, in the same loop.",
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

        Within `async with rlm:` it is asked in the kernel that is kept there: it has the variables, files and
        the conversation of the questions before it, and its context is loaded beside theirs.

        Args:
            question: what is asked. Paths that stand in it may be loaded.
            context: a str, a list or dict of JSON values, a Path (file or folder), several Paths, or None.
            answer_type: a pydantic model or a Python type such as list[str]; the result's `value` is then
                one, checked.
            trace: where the notebook goes; default: a name of its own in the settings' `trace.dir`.
            view: hears the run's events beside the trace.
            approve: asked before the code spends more than `limits.ask`, where there is no limit on the cost;
                it says True, False or "always", and may be async. Default: the code may.
            progress: show how far the run is; default: as the RLM was made.
            cite: whether the answer is to have evidence, passages of the input; default: the setting
                `prompt.cite`.
            answered: hears the answer as soon as it is there, before the container is removed; its `value` is
                not of the type yet.
            tools: what code may call, in place of the RLM's own.
            allow_call: as the RLM's own, in its place.

        Returns:
            What came of it. Of a run that ends without an answer, `answer` is None.

        Raises:
            UsageError: the type has no JSON schema.
            NoAnswer: the answer is not of the type.
            RLMError: what prevents a run.
        """
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
                        "The questions of one kernel have the same tools.", hint="Give them to RLM(tools=…)."
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
        """`aask` for code without an event loop; inside one, as in a notebook, it runs in a thread of its
        own.
        """
        if self._background is not None:
            return self._background.run(self.aask(question, context, **options))
        if self._kept is not None and not self._kept.closed:
            raise UsageError("This RLM was entered by `async with`.", hint="Await rlm.aask(…) instead.")
        return loops.waited_for(self.aask, question, context, **options)

    def stream(self, question: str, context: Context = None, **options: Any) -> Stream:
        """`aask` as the events of its run, as they come: `async for event in rlm.stream(…)`.

        The events are those of `rlm_kernel.engine.events`; the result is in the stream's `result` after the
        last one. Leaving the loop ends the run. `options` as of `aask`.
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
        """Ask many questions, each in a container of its own: `async for done in rlm.map(…)`, or `for`.

        Args:
            questions: texts, dicts as `rlm batch` has them in its files, or `Item`s; any iterable, an endless
                one, too. It is read in another thread, as there is room for more.
            contexts: one for each question, as of `aask`, in place of its own.
            files: files, folders and globs that every question gets beside its own context.
            answer_type: as of `aask`, for questions without a schema of their own; an answer that is none is
                a failure, `NoAnswer`.
            out: a file of results, as `rlm batch --out`. What is in it already is neither asked nor given.
            traces: the folder of the traces. Default: beside `out`, else in the settings' `trace.dir`.
            jobs: questions at one time. Default: as many as there is room for.
            max_cost: US dollars for all questions together, those of earlier runs in `out` included.
            max_tokens: tokens, likewise. Limits in the RLM's options are those of each question.
            retry: which of those in `out` that failed are asked again: "passing" (it may be over by now) or
                "all", those without an answer, too.
            keep_going: go on although the first questions all fail alike.
            engine: where they are answered; default: on this machine.

        Returns:
            What came of each, as it comes (`Done`): a `result` as of `aask`, or a `failure`, and the `item`;
                what cannot be a question is a failure, too. Leaving the loop ends what runs.

        Raises:
            UsageError: the type has no JSON schema.
            BudgetExceeded: all may use no more.
            RLMError: what would fail every question.
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
        """A session that is kept in the working directory, `async with`: taken up, or begun with the files;
        it stays afterwards.

        `progress`: of its questions. `changes`: settings by dotted name, over those of the RLM. `options` as
        of `session.manager.open_session`.
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

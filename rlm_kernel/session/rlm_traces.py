"""What an RLM does with traces: takes them up, runs them again, checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import loops
from rlm_kernel.config import Settings
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import Models
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.inputs import Context
from rlm_kernel.session.replay import Replayed, replay
from rlm_kernel.session.result import Result
from rlm_kernel.session.resume import fork, resume
from rlm_kernel.session.verify import Verified, verify
from rlm_kernel.session.watching import Watched
from rlm_kernel.tools.functions import tools_of
from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource

if TYPE_CHECKING:
    from rlm_kernel.session.regression.results import Suite
    from rlm_kernel.session.regression.several import Comparison


class OnTraces:
    """The half of `RLM` that needs a trace. `RLM` has its settings, and makes it."""

    settings: Settings
    _config_file: Path | None
    _changes: Mapping[str, Any]
    _models: Models | None
    _progress: bool
    _tools: Sequence[Tool | ToolSource]
    _allow_call: AllowCall | None

    async def aresume(self, trace: Path | str, *, progress: bool | None = None, **options: Any) -> Result:
        """Continue a run that was cut off or ended at a limit, in the same notebook. `options`: those of
        `session.resume.resume`.
        """
        with self._watched(progress, **_listeners(options), trace=Path(trace)) as shown:
            return shown.done(
                await resume(
                    Path(trace),
                    **self._configured(),
                    **self._with_tools(options),
                    view=shown.view,
                    say=shown.say,
                )
            )

    def resume(self, trace: Path | str, **options: Any) -> Result:
        """`aresume` for code without an event loop."""
        return loops.waited_for(self.aresume, trace, **options)

    async def afork(
        self,
        trace: Path | str,
        question: str = "",
        *,
        at: str | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Result:
        """Continue from a cell of a trace, in a new notebook. `options`: those of `session.resume.fork`."""
        with self._watched(progress, **_listeners(options)) as shown:
            given = {**self._configured(), **self._with_tools(options)}
            given |= {"view": shown.view, "say": shown.say}
            return shown.done(await fork(Path(trace), question, at=at, **given))

    def fork(self, trace: Path | str, question: str = "", *, at: str | None = None, **options: Any) -> Result:
        """`afork` for code without an event loop."""
        return loops.waited_for(self.afork, trace, question, at=at, **options)

    async def aapply(
        self,
        trace: Path | str,
        context: Context = None,
        *,
        progress: bool | None = None,
        **options: Any,
    ) -> Result:
        """Run a trace's code on another input, without the root model as long as this works. `options`: those
        of `session.applying.apply.apply`.
        """
        from rlm_kernel.session.applying.apply import apply

        with self._watched(progress, **_listeners(options)) as shown:
            given = {**self._configured(), **self._with_tools(options)}
            given |= {"view": shown.view, "say": shown.say}
            return shown.done(await apply(Path(trace), context, **given))

    def apply(self, trace: Path | str, context: Context = None, **options: Any) -> Result:
        """`aapply` for code without an event loop."""
        return loops.waited_for(self.aapply, trace, context, **options)

    async def areplay(self, trace: Path | str, *, progress: bool | None = None, **options: Any) -> Replayed:
        """Run a trace's cells again and compare. `options`: those of `session.replay.replay`.

        Models are asked only with `live=True`.
        """
        with self._watched(progress, **_listeners(options), trace=Path(trace)) as shown:
            given = {"tell": shown.verdict, **self._configured(), **options}
            return shown.replayed(await replay(Path(trace), **given | {"view": shown.view, "say": shown.say}))

    def replay(self, trace: Path | str, **options: Any) -> Replayed:
        """`areplay` for code without an event loop."""
        return loops.waited_for(self.areplay, trace, **options)

    async def atest(self, folder: Path | str, **options: Any) -> Suite:
        """Ask the questions of a folder's traces again, and compare the answers. `options`: those of
        `session.regression.suite.run_suite`.

        Models are asked only if the RLM was made with one or with a prompt, or with `live=True`.
        """
        from rlm_kernel.session.regression.suite import run_suite

        return await run_suite(Path(folder), **{**self._configured(), **options})

    def test(self, folder: Path | str, **options: Any) -> Suite:
        """`atest` for code without an event loop."""
        return loops.waited_for(self.atest, folder, **options)

    async def atest_models(self, folder: Path | str, models: Sequence[str], **options: Any) -> Comparison:
        """The same under each of several root models; `options` as of
        `session.regression.several.run_suites`.
        """
        from rlm_kernel.session.regression.several import run_suites

        configured = {"config_file": self._config_file, "changes": self._changes}
        return await run_suites(Path(folder), models, **{**configured, **options})

    def test_models(self, folder: Path | str, models: Sequence[str], **options: Any) -> Comparison:
        """`atest_models` for code without an event loop."""
        return loops.waited_for(self.atest_models, folder, models, **options)

    async def averify(self, trace: Path | str, *, progress: bool | None = None, **options: Any) -> Verified:
        """Check all claims of a trace, without any model. `options`: those of `session.verify.verify`."""
        with self._watched(progress, **_listeners(options), trace=Path(trace)) as shown:
            given = {"config_file": self._config_file, "changes": self._changes, **options}
            return await verify(Path(trace), **given, view=shown.view, say=shown.say)

    def verify(self, trace: Path | str, **options: Any) -> Verified:
        """`averify` for code without an event loop."""
        return loops.waited_for(self.averify, trace, **options)

    def _with_tools(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of one run, with the tools that hold for it."""
        tools, allow = options.get("tools"), options.get("allow_call")
        return {
            **options,
            "tools": self._tools if tools is None else tools_of(tools),
            "allow_call": self._allow_call if allow is None else allow,
        }

    def _configured(self) -> dict[str, Any]:
        return {"config_file": self._config_file, "changes": self._changes, "models": self._models}

    def _watched(
        self,
        progress: bool | None,
        view: Listener | None = None,
        say: Say = silent,
        *,
        trace: Path | None = None,
    ) -> Watched:
        return Watched(self._progress if progress is None else progress, view, say, trace=trace)


def _listeners(options: dict[str, Any]) -> dict[str, Any]:
    """The options that hear a run; they are taken out."""
    return {name: options.pop(name) for name in ("view", "say") if name in options}

"""The same traces under several root models, one after the other."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Models, Totals
from rlm_kernel.errors import UsageError, backstop
from rlm_kernel.models.factory import is_local
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.models import models_of
from rlm_kernel.session.regression.judging import Judge
from rlm_kernel.session.regression.results import CaseResult, Suite
from rlm_kernel.session.regression.suite import opened_judge, run_suite


@dataclass(frozen=True)
class Comparison:
    """What came of the traces under each model, by its name, in the order in which the models were given."""

    suites: Mapping[str, Suite]
    seconds: float = 0.0

    @property
    def same(self) -> bool:
        """Every trace has its expected answer under every model."""
        return all(suite.same for suite in self.suites.values())

    @property
    def spent(self) -> Totals:
        """What models were asked for, the judge among them."""
        return sum((suite.spent for suite in self.suites.values()), Totals())

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm test --json` prints for several models."""
        return {
            "same": self.same,
            "models": {model: suite.as_json() for model, suite in self.suites.items()},
            "spent": self.spent.known_cost,
            "seconds": round(self.seconds, 3),
        }


@backstop
async def run_suites(
    folder: Path,
    models: Sequence[str],
    *,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    judge: str | Models | Judge | None = None,
    max_cost_judge: float | None = None,
    out: Path | None = None,
    tell: Callable[[str, CaseResult], None] = lambda _model, _tested: None,
    say: Say = silent,
    **options: Any,
) -> Comparison:
    """Ask the questions of traces again under each model.

    Args:
        folder: with the traces, or one trace.
        models: root models, as `root_llm.model` has them. Those that `rlm-test.toml` names are not heeded.
        config_file: default `config.json` in the working directory, if it is there.
        changes: further settings by dotted name.
        judge: judges under all models.
        max_cost_judge: US dollars that the judge may use for all models together.
        out: where the new traces go: a folder for each model.
        tell: hears of each trace as soon as it is done, with the model.
        say: hears what is being set up, a line at a time.
        options: as of `suite.run_suite`.

    Raises what `suite.run_suite` raises; that a model has no key before any other is asked.
    """
    if len(set(models)) < len(models):
        raise UsageError("A model was given twice.", hint="Give each once, or `attempts` in rlm-test.toml.")
    began = time.monotonic()
    each = {model: {**(changes or {}), "root_llm.model": model} for model in models}
    for model, settings in each.items():
        if not is_local(model):
            async with models_of(await asyncio.to_thread(load_settings, config_file, settings), None, say):
                pass
    suites: dict[str, Suite] = {}
    async with opened_judge(judge, max_cost_judge, config_file, say) as asked:
        for model, settings in each.items():
            suites[model] = await run_suite(
                folder,
                config_file=config_file,
                changes=settings,
                judge=asked,
                out=None if out is None else out / _folder_of(model),
                by_wish=False,
                tell=lambda tested, model=model: tell(model, tested),  # type: ignore[misc]
                say=say,
                **options,
            )
    return Comparison(suites, time.monotonic() - began)


def _folder_of(model: str) -> str:
    """A name for the traces of a model."""
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"

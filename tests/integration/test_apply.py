"""`rlm apply`: traces of scripted root models, their code run on other inputs in real containers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import RLM
from rlm_kernel.engine.protocols import Message
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.result import Result
from tests.support.applications import KINDS, WOKEN, Kind, cell, write

pytestmark = [pytest.mark.xdist_group("apply"), pytest.mark.usefixtures("kernel_image")]


def record(kind: Kind, folder: Path) -> Path:
    """The first run's trace."""
    given = write(kind.then, folder / "then", whole=kind.folder)
    models = ScriptedModels(kind.replies, kind.sub)
    trace = folder / "first.ipynb"
    result = RLM(models=models).ask(kind.question, given, trace=trace)
    assert result.answer, result
    return trace


def waking(kind: Kind, asked: list[Sequence[Message]]) -> ScriptedModels:
    def root(messages: Sequence[Message]) -> str:
        asked.append(messages)
        return cell(f"print(len(context))\nFINAL({WOKEN!r})")

    return ScriptedModels(root, kind.sub)


def apply(kind: Kind, trace: Path, new: Any, folder: Path, **options: Any) -> Result:
    given = write(new, folder, whole=kind.folder)
    asked: list[Sequence[Message]] = []
    result = RLM(models=waking(kind, asked)).apply(trace, given, out=folder.with_suffix(".ipynb"), **options)
    assert result.applied is not None
    assert result.applied.alone == (not asked)
    return result


@pytest.mark.parametrize("name", KINDS)
def test_code_gives_the_right_answer_on_other_inputs_or_the_root_model_is_woken(
    name: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    trace = record(kind, tmp_path)
    right = wrong = 0
    for number, (what, (new, answer)) in enumerate(kind.new.items()):
        result = apply(kind, trace, new, tmp_path / f"new-{number}")
        print(name, "|", what, "|", result.answer, "|", result.applied.woken, result.applied.why)
        wrong += result.answer != (answer or WOKEN)
        right += bool(answer)
    assert right >= 4
    assert not wrong

"""What is the same of every trace, whoever writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.engine.events import CellFinished
from rlm_kernel.session.traces import new_writer
from rlm_kernel.trace.reader import read_trace
from tests.support.engine import stream
from tests.support.trace import meta, result


@pytest.mark.parametrize("taken_up", [False, True])
def test_outputs_are_kept_as_far_as_the_setting_says_and_secrets_never(
    taken_up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret-that-nobody-sees")
    path = tmp_path / "t.ipynb"
    writer = new_writer(path, meta(), load_settings(None, {"trace.outputs": "1k"}), [] if taken_up else None)
    for number in range(3):
        shown = stream(f"sk-a-secret-that-nobody-sees {'x' * 900}\n")
        writer(CellFinished(1, result(f"turn-01-{'abc'[number]}", outputs=[shown])))
    writer.close()
    kept = "".join(output.get("text", "") for cell in read_trace(path).cells for output in cell.outputs)
    assert kept.count("x") == 1_800
    assert "nobody-sees" not in path.read_text("utf-8")

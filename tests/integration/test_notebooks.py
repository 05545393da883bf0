"""The notebooks that the project ships are real: their code, run again with the recorded answers, gives their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel.engine.hostcalls import digest
from rlm_kernel.trace.schema import CellMeta, NotebookMeta

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
async def test_notebook_gives_its_outputs_again(sandbox: Any, path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    meta = NotebookMeta.model_validate(notebook.metadata.rlm)
    assert meta.status == "finished"
    (recorded,) = meta.files
    data = FOLDER / "data" / Path(recorded.path).name
    cells = [(cell, CellMeta.model_validate(cell.metadata.rlm)) for cell in notebook.cells]
    answers = {call.prompt_digest: call.answer for _, cell in cells for call in cell.calls if call.kind == "llm_query"}

    async def replay(prompt: str) -> str:
        answer: str = answers[digest("llm_query", {"prompt": prompt, "model": None})]
        return answer

    box = await sandbox(files=[data], llm=replay)
    for cell, cell_meta in cells:
        if cell.cell_type == "code":
            result = await box.run(cell.source.replace(recorded.path, str(data)))
            assert result.status == cell_meta.status == "ok"
            assert list(result.outputs) == [dict(output) | _count(result, output) for output in cell.outputs]
    assert str(box.answers[-1]["text"]) in next(cell.source for cell in notebook.cells if cell.id == "answer")


def _count(result: Any, output: Any) -> dict[str, Any]:
    return {"execution_count": result.execution_count} if output.output_type == "execute_result" else {}

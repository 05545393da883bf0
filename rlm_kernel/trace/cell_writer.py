"""How cells stand in the notebook: code with its outputs and the table of its calls, and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel import sanitize
from rlm_kernel.trace import calltable, document, dollars
from rlm_kernel.trace.reader import code_digest
from rlm_kernel.trace.saving import SavedNotebook
from rlm_kernel.trace.schema import CellMeta, NotebookMeta

MAX_OUTPUTS = 40_000_000
"""Characters of outputs of all cells together, passed by no more than the last cell's: a browser has to open
them (`trace.outputs`).
"""
_LONG = 60
"""Lines of outputs from which on they are shown folded."""
_FULL = (
    "[The outputs of the cells above have {:,} characters (trace.outputs): those of this one are left "
    "out of the trace.]\n"
)


class CellWriter(SavedNotebook):
    """A part of the notebook writer: puts cells, within the bounds of what is shown."""

    def __init__(self, path: Path, meta: NotebookMeta, secrets: Sequence[str], outputs: int | None) -> None:
        """`outputs`: characters of outputs that are kept, MAX_OUTPUTS if None."""
        super().__init__(path, meta, secrets)
        self._most = MAX_OUTPUTS if outputs is None else outputs
        self._taken: dict[str, dict[str, Any]] = {}
        self._prompts_shown: dict[str, str] = {}

    def _code_cell(
        self,
        cell_id: str,
        code: str,
        outputs: Sequence[Mapping[str, Any]],
        meta: CellMeta,
        count: int | None,
        times: Mapping[str, str],
        *,
        check: bool,
    ) -> list[dict[str, Any]]:
        """Returns the kernel's outputs as they are written.

        The table of calls is above them also while the cell runs: nobody may be left to write it later.
        """
        # Jupyter goes on after a cell with this tag.
        failed = meta.status in ("error", "timeout")
        taken = self._taken.get(cell_id, {})
        tags = [tag for tag in taken.get("tags", []) if tag not in ("parameters", "raises-exception")]
        tags += ["parameters"] if cell_id == "parameters" else ["raises-exception"] if failed else []
        source = self._writable.text(code)
        meta = meta.model_copy(update={"code_digest": code_digest(source)})
        kept = {name: value for name, value in taken.items() if name != "tags"}
        if self._full(cell_id):
            meta = meta.model_copy(update={"truncated": True})
        written = self._written(cell_id, outputs)
        ours = self._writable.meta(meta)
        calls = ours.get("calls", ())
        table = calltable.made(cell_id, meta.calls, calls, self._prompts_shown, meta.left_out)
        metadata = {
            # JupyterLab shows the outputs in a frame that scrolls; VS Code cuts long texts by itself.
            **({"scrolled": True} if _lines(written) > _LONG else {}),
            **kept,
            "execution": dict(times),
            "rlm": ours,
            **({"tags": tags} if tags else {}),
        }
        cell = {
            "cell_type": "code",
            "id": cell_id,
            "metadata": metadata,
            "source": source,
            "execution_count": count,
            "outputs": [table, *written] if table else written,
        }
        self._put(cell, check=check)
        return written

    def _full(self, cell_id: str) -> bool:
        """The other cells' outputs are as many as are kept."""
        return self._shown - self._sizes.get(cell_id, 0) > self._most

    def _written(self, cell_id: str, outputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A cell's outputs as they are written."""
        if self._full(cell_id):
            return (
                [{"output_type": "stream", "name": "stderr", "text": _FULL.format(self._most)}]
                if outputs
                else []
            )
        return [self._writable.output(output) for output in outputs]

    def _code_kind(self, cell_id: str) -> Any:
        if cell_id in ("parameters", "setup"):
            return cell_id
        if cell_id.startswith("cite-"):  # whether answers are to have evidence
            return "setup"
        taken = self._taken.get(cell_id)
        return "code" if taken is None else taken.get("rlm", {}).get("kind", "person")

    def _markdown(self, cell_id: str, parts: Sequence[str], meta: CellMeta) -> dict[str, Any]:
        """Put a cell of text; returns it."""
        if meta.thoughts.strip():
            parts = [*parts, *document.folded(self._writable.text(meta.thoughts), len(meta.thoughts))]
        source = "".join(
            part
            if isinstance(part, document.Raw)
            else dollars.shown(sanitize.markdown(self._writable.text(part)))
            for part in parts
        )
        metadata = {"rlm": self._writable.meta(meta)}
        cell = {"cell_type": "markdown", "id": cell_id, "metadata": metadata, "source": source}
        self._put(cell, check=False)
        return cell


def _lines(outputs: Sequence[Mapping[str, Any]]) -> int:
    """How many lines the texts of outputs have together."""
    found = 0
    for output in outputs:
        data = output.get("data", {})
        text = output.get("text") or data.get("text/html") or data.get("text/plain") or ""
        found += max(text.count("\n"), text.count("<tr"))
        found += sum(line.count("\n") + 1 for line in output.get("traceback", ()))
    return found

"""A trace to open in Jupyter, and what the tests of it share."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nbformat

from rlm_kernel.config import load_settings
from rlm_kernel.sandbox.docker_host import connect
from rlm_kernel.session.ask import ask
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.parts import is_made
from tests.support.story import Story

LINES = 50
TURNS = [
    [
        "print(len(context), grep('needle')[0])",
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(list(pool.map(llm_query, [f'piece {n}' for n in range(20)])))\n"
        "print(llm_query_batched(['the same'] * 3), llm_query('the same'))",
    ],
    [
        "import struct, zlib\nfrom IPython.display import HTML, Image, display\n"
        "def chunk(kind, data):\n"
        "    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n"
        "rows = b''.join(b'\\0' + bytes(range(0, 256, 2)) for _ in range(48))\n"
        "head = struct.pack('>IIBBBBB', 128, 48, 8, 0, 0, 0, 0)\n"
        "Image(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + "
        "chunk(b'IEND', b''))",
        "HTML('<table><tr><th>line</th></tr>' + ''.join(f'<tr><td>{hit.line}</td></tr>' for hit in "
        "grep('needle', limit=3)) + '</table>')",
    ],
    ["undefined_name"],
    ["FINAL(f'{len(context)} characters: {llm_query(\"the last\")}')"],
]
CODE_CELLS = 8


def make_trace(folder: Path, *, turns: Any = TURNS) -> Path:
    """Ask in a folder, of a file there; the trace."""
    (folder / "a.txt").write_text("hay\nneedle in hay\n" * LINES)
    settings = load_settings(overrides={"sandbox.memory": "1g"})
    result = asyncio.run(
        ask(
            "What is in it?",
            folder / "a.txt",
            settings=settings,
            trace=folder / "t.ipynb",
            models=Story(turns),
        )
    )
    assert result.answer == "900 characters: the last: 25"
    return result.trace


def read(path: Path) -> Any:
    return nbformat.read(path, 4)


def add_cell(notebook: Any, code: str, *tags: str) -> None:
    notebook.cells.append(nbformat.v4.new_code_cell(code, metadata={"tags": list(tags)}))


def differences(recorded: Any, now: Any) -> dict[str, str]:
    """Diffs of the cells that the recorded notebook has, by id; of those that differ."""
    ran = {cell.id: cell for cell in now.cells}
    pairs = [(cell, ran[cell.id]) for cell in recorded.cells if cell.cell_type == "code"]
    assert len(pairs) == CODE_CELLS
    assert all(new.execution_count for _, new in pairs)
    found = {old.id: compare(Ran(_of_kernel(old.outputs)), Ran(new.outputs)) for old, new in pairs}
    return {name: diff for name, diff in found.items() if diff}


def _of_kernel(outputs: list[Any]) -> list[Any]:
    """Without those that the trace's writer made."""
    return [output for output in outputs if not is_made(output)]


def text_of(cell: Any) -> str:
    """A cell's outputs of the kernel as text."""
    parts = [
        output.get("text") or output.get("data", {}).get("text/plain") or f"{output.ename}: {output.evalue}"
        for output in _of_kernel(cell.outputs)
    ]
    return "".join(parts)


def containers_of(pid: int) -> list[str]:
    """Names of the containers that a process owns."""
    client = connect()
    try:
        return [
            found.name
            for found in client.containers.list(
                ignore_removed=True, all=True, filters={"label": f"rlm-kernel.owner={pid}"}
            )
        ]
    finally:
        client.close()

"""Make the tutorial anew: notebooks/tutorial.ipynb and docs/tutorial.md, both of scripts/tutorial.md.

    python scripts/tutorial.py                     with the local model
    python scripts/tutorial.py -m openai/gpt-5     with another
    python scripts/tutorial.py --texts             the texts alone; cells and outputs stay

Each block of code is a cell that runs in a notebook of its own folder, and its true output stands behind it.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "scripts" / "tutorial.md"
NOTEBOOK = ROOT / "notebooks" / "tutorial.ipynb"
PAGE = ROOT / "docs" / "tutorial.md"
FOLDER = Path(tempfile.gettempdir()) / "rlm-tutorial"
"""Where it runs. The outputs name it, so it tells nothing of whoever made them."""
MODEL = "%rlm -m local"
"""The cell that says who answers."""
CELL_SECONDS = 1200
_BLOCK = re.compile(r"^```(python|ipython)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_WIDE = 400
"""Characters of a line of output in the page."""


class Part(NamedTuple):
    """Text, or the code of a cell. `kind`: markdown, python or ipython."""

    kind: str
    text: str


def parts(source: str) -> Iterator[Part]:
    """The source's texts and cells, in order."""
    found = _BLOCK.split(source)
    for number, text in enumerate(found):
        if number % 3 == 0 and text.strip():
            yield Part("markdown", text.strip())
        elif number % 3 == 2:
            yield Part(found[number - 1], text)


def notebook(model: str = MODEL) -> Any:
    """The notebook before its run; `model`: what stands in the place of the cell that says who answers."""
    cells = []
    for number, (kind, text) in enumerate(parts(SOURCE.read_text("utf-8")), 1):
        if kind == "markdown":
            cells.append(new_markdown_cell(text, id=f"text-{number:02}"))
        else:
            cells.append(new_code_cell(model if text == MODEL else text, id=f"cell-{number:02}"))
    made = new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


def run(made: Any, folder: Path) -> None:
    """Run it in a folder. Raises nbclient's error at a cell that fails."""
    NotebookClient(
        made, timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}}, record_timing=False
    ).execute()


def with_new_texts(kept: Any) -> Any:
    """A notebook that has run, with the texts of today. Raises SystemExit where a cell has changed, too."""
    made = notebook()
    for old, new in zip(kept.cells, made.cells, strict=True):
        if new.cell_type == "code":
            if old.source != new.source and not _says_the_same(old.source, new.source):
                raise SystemExit(f"tutorial: this cell has changed, so it must run:\n{new.source}")
            new.update({**old, "source": new.source})
    return made


def _says_the_same(one: str, other: str) -> bool:
    """Whether two cells differ in their layout alone."""
    try:
        return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except SyntaxError:  # magics
        return False


def page(made: Any) -> str:
    """The notebook as a page for docs/."""
    kinds = [part.kind for part in parts(SOURCE.read_text("utf-8"))]
    told = []
    for kind, cell in zip(kinds, made.cells, strict=True):
        if kind == "markdown":  # its links lead from notebooks/
            told.append(cell.source.replace("](../docs/", "]("))
            continue
        told.append(f"```{kind}\n{cell.source}\n```")
        told += filter(None, map(_shown, cell.outputs))
    return "\n\n".join(told) + "\n"


def _shown(output: Any) -> str:
    if output.output_type == "stream":
        return _text(output.text)
    if "text/markdown" in output.data:  # an answer
        return "\n".join(f"> {line}" if line else ">" for line in output.data["text/markdown"].split("\n"))
    plain = str(output.data["text/plain"]).replace(f"{FOLDER}/", "")
    # What a run leaves in the place where it was watched.
    return f"*{plain}*" if output.output_type == "display_data" else _text(plain)


def _text(shown: str) -> str:
    lines = [line.rstrip()[:_WIDE] for line in shown.strip("\n").split("\n")]
    text = "\n".join(lines).replace(f"{FOLDER}/", "")
    fence = "````" if "```" in text else "```"
    return f"{fence}text\n{text}\n{fence}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", default="local", help="who answers; default: local")
    parser.add_argument("--texts", action="store_true", help="the texts alone; cells and outputs stay")
    args = parser.parse_args()
    if args.texts:
        made = with_new_texts(nbformat.read(NOTEBOOK, nbformat.NO_CONVERT))  # type: ignore[no-untyped-call]
    else:
        made = run_anew(args.model)
    nbformat.write(made, NOTEBOOK)  # type: ignore[no-untyped-call]
    PAGE.write_text(page(made), encoding="utf-8")
    print(f"{NOTEBOOK.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def run_anew(model: str) -> Any:
    """The notebook, run in a folder of its own."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o755)
    made = notebook(f"%rlm -m {model}")
    run(made, FOLDER)
    return made


if __name__ == "__main__":
    main()

"""Make the examples in notebooks/ anew, each in real containers.

    python scripts/examples.py                      all of them
    python scripts/examples.py needle children      these
    python scripts/examples.py --inputs             only the inputs that are not in the repository

By default the root model's replies are those in scripts/example_runs/, as a strong model would write them,
and sub-calls go to the local model, whose answers are its own. With --root and --sub real models do it all:

    python scripts/examples.py --root openai/gpt-5 --sub openai/gpt-5-mini
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import example_inputs
import nbformat

from rlm_kernel import RLM, Result, ScriptedModels
from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Card, Completion, Message, Models, Role
from rlm_kernel.models.factory import open_models

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "scripts" / "example_runs"
FOLDER = Path(tempfile.gettempdir()) / "rlm-examples"
"""Where they are made. The notebooks name it, so it tells nothing of whoever made them."""
SCRIPTED = "scripted"
BASE = "server-log-scripted"
EDITED = ("turn-02-a", 'log[log.level == "ERROR"]', 'log[(log.level == "ERROR") & (log.time >= "08:00:00")]')
"""What a person does to BASE by hand before it is forked: in which cell, what, and what it becomes."""
_HEADING = re.compile(r"^# (Question|Turn \d+|Child, turn \d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What scripts/example_runs/NAME.md has: the question, and the replies of root model and children."""

    question: str
    turns: Sequence[str]
    child: Sequence[str]

    @classmethod
    def read(cls, name: str) -> Run:
        _, *parts = _HEADING.split((RUNS / f"{name}.md").read_text("utf-8"))
        told = [(heading, text.strip()) for heading, text in zip(parts[::2], parts[1::2], strict=True)]
        return cls(
            told[0][1],
            [text for heading, text in told if heading.startswith("Turn")],
            [text for heading, text in told if heading.startswith("Child")],
        )

    def reply(self, messages: Sequence[Message]) -> str:
        """The next one: of a child, where the question is not that of the run."""
        asked = "\n".join(str(message["content"]) for message in messages if message["role"] == "user")
        turns = self.turns if self.question in asked else self.child
        number: int = sum(message["role"] == "assistant" for message in messages)
        return turns[number % len(turns)]


class ScriptedRoot(ScriptedModels):
    """A root model by script; all else is asked of real models."""

    def __init__(self, run: Run, real: Models) -> None:
        super().__init__(run.reply, cards=[Card("root", "scripted/root"), real.card("sub")])
        self._real = real

    async def complete(
        self, messages: Sequence[Message], *, role: Role, model: str | None = None, **options: Any
    ) -> Completion:
        if role == "root":
            return await super().complete(messages, role=role, model=model, **options)
        return await self._real.complete(messages, role=role, model=model, **options)


@dataclass(frozen=True)
class Maker:
    """Who makes them: the models, by the names that the user gave."""

    root: str
    sub: str
    real: Models | None

    def rlm(self, run: Run) -> RLM:
        if self.real is not None:
            return RLM(models=ScriptedRoot(run, self.real), progress=True)
        return RLM(self.root, self.sub, progress=True)

    async def ask(self, name: str, *inputs: str) -> Result:
        run = Run.read(name)
        return await self.rlm(run).aask(
            run.question, [_input(file) for file in inputs], trace=FOLDER / f"{name}.ipynb"
        )


def _input(name: str) -> Path:
    """An input's path in the folder, where it is made, or copied from the repository."""
    path, kept = FOLDER / name, NOTEBOOKS / name
    if kept.is_dir():
        shutil.copytree(kept, path, dirs_exist_ok=True)
    elif name in example_inputs.MADE:
        example_inputs.MADE[name](path)
    else:
        shutil.copyfile(kept, path)
    return path


async def needle(maker: Maker) -> Result:
    return await maker.ask("needle", "payments.log")


async def classify(maker: Maker) -> Result:
    result = await maker.ask("classify", "tickets.csv")
    _tell_right(result, example_inputs.tickets(FOLDER / "tickets.csv"))
    return result


async def repository(maker: Maker) -> Result:
    return await maker.ask("repository", "orders")


async def children(maker: Maker) -> Result:
    return await maker.ask("children", "outage.log")


async def server_log(maker: Maker) -> Result:
    return await maker.ask(BASE, "server.log")


async def fork(maker: Maker) -> Result:
    """BASE as a person has edited it in JupyterLab and saved it, and then `rlm fork` with a question."""
    _input("server.log")
    base = _base()
    edited = FOLDER / f"{BASE}-edited.ipynb"
    notebook = nbformat.read(base, nbformat.NO_CONVERT)  # type: ignore[no-untyped-call]
    where, before, after = EDITED
    cell = next(cell for cell in notebook.cells if cell.id == where)
    if before not in cell.source:
        sys.exit(f"examples: {base.name} has no {before!r} in {where} to edit.")
    cell.source = cell.source.replace(before, after)
    nbformat.write(notebook, edited)  # type: ignore[no-untyped-call]
    for prompts in base.parent.glob(f"{BASE}.prompts*.zst"):
        shutil.copy(prompts, FOLDER)  # it stands beside the notebook that is edited
    run = Run.read("fork")
    return await maker.rlm(run).afork(edited, run.question, at=where, out=FOLDER / "fork.ipynb")


async def apply(maker: Maker) -> Result:
    """What BASE did, on the log of the next day: `rlm apply`."""
    new = _input("server-next.log")
    result = await maker.rlm(Run.read(BASE)).aapply(_base(), new, out=FOLDER / "apply.ipynb")
    print(result.applied)
    return result


def _base() -> Path:
    """BASE as it was made just now, or as it is in the repository."""
    path = FOLDER / f"{BASE}.ipynb"
    if not path.exists():
        shutil.copyfile(NOTEBOOKS / path.name, path)
    return path


EXAMPLES: Mapping[str, Any] = {
    "needle": needle,
    "classify": classify,
    "repository": repository,
    "children": children,
    BASE: server_log,
    "fork": fork,
    "apply": apply,
}


def _tell_right(result: Result, made: Mapping[int, str]) -> None:
    """How many tickets are listed, in the answer, under the kind that they were made of."""
    right = 0
    for kind, ids in re.findall(r"^\W*(\w+)\W*: *([\d, ]+)$", result.answer or "", re.MULTILINE):
        right += sum(made.get(int(number)) == kind for number in re.findall(r"\d+", ids))
    print(f"{right} of {len(made)} tickets have the kind that they were made of.")


def keep(name: str) -> None:
    """Copy a trace, with what belongs to it, to notebooks/."""
    for suffix in (".ipynb", ".prompts.zst"):
        shutil.copyfile(FOLDER / f"{name}{suffix}", NOTEBOOKS / f"{name}{suffix}")
    below = f"{name}.children"
    shutil.rmtree(NOTEBOOKS / below, ignore_errors=True)
    if (FOLDER / below).exists():
        shutil.copytree(FOLDER / below, NOTEBOOKS / below)


@contextlib.asynccontextmanager
async def maker_of(root: str, sub: str) -> AsyncIterator[Maker]:
    if root != SCRIPTED:
        yield Maker(root, sub, None)
        return
    settings = load_settings(overrides={"root_llm.model": sub, "sub_llm.model": sub})
    async with open_models(settings, lambda line: print(line, file=sys.stderr)) as real:
        yield Maker(root, sub, real)


async def make(names: Sequence[str], root: str, sub: str) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o755)
    async with maker_of(root, sub) as maker:
        for name in names:
            print(f"== {name}", flush=True)
            result = await EXAMPLES[name](maker)
            print(
                f"{result.answer}\n{result.totals.turns} turns, {result.totals.calls} calls, "
                f"{result.totals.seconds:.1f} s",
                flush=True,
            )
            if result.stop_reason != "answered":
                sys.exit(f"examples: {name} has no answer ({result.stop_reason}): {result.trace}")
            keep(name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXAMPLES)}; default: all")
    parser.add_argument("--root", default=SCRIPTED, metavar="MODEL", help="root model; default: scripted")
    parser.add_argument("--sub", default="local", metavar="MODEL", help="model for sub-calls; default: local")
    parser.add_argument(
        "--inputs", action="store_true", help="make the inputs that are missing, and nothing else"
    )
    args = parser.parse_args()
    if unknown := set(args.names) - set(EXAMPLES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(EXAMPLES)}")
    if args.inputs:
        for path in example_inputs.make(NOTEBOOKS):
            print(f"{path.relative_to(ROOT)} ({path.stat().st_size:,} bytes)")
        return
    asyncio.run(make(args.names or list(EXAMPLES), args.root, args.sub))


if __name__ == "__main__":
    main()

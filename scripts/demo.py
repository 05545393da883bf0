"""The demonstration behind `make demo`: two questions, asked for real, the first one's answer checked with
grep.

1. The local model, as root, answers a question over more than 20 MB of real text: the source of Python and of
   the packages installed here.
2. A scripted root (labelled as such) hands pieces to the local model by sub-calls.

Exits 1 if the local model fails.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Card, Completion, Message, Models, Role
from rlm_kernel.models.factory import open_models
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.ask import ask
from rlm_kernel.session.result import Result
from rlm_kernel.views.live import LiveView

FOLDER = Path("rlm-traces")
CORPUS = FOLDER / "python-library.txt"
AT_LEAST = 25_000_000
NEEDLE = "raise ValueError"
QUESTION = f'How many lines contain "{NEEDLE}"?'
RFC = re.compile(r"RFC[ -]?(\d+)")
MODULES = 8
SCRIPT = [
    """One sub-call a module, all in one batch.

```repl
names = list(context)
ask = "What is the number of the RFC that this text mentions? Reply with the number alone.\\n\\n"
replies = llm_query_batched([ask + text for text in context.values()])
for name, reply in zip(names, replies):
    print(f"{name:12} {reply!r}")
```""",
    """```repl
FINAL({name: "".join(c for c in reply if c.isdigit()) if reply else None for name, reply in zip(names, replies)})
```""",  # noqa: E501
]


def sources() -> Iterator[Path]:
    """Python's own library, then what is installed beside it."""
    for key in ("stdlib", "purelib"):
        yield from sorted(Path(sysconfig.get_path(key)).rglob("*.py"))


def make_corpus() -> None:
    """One text of many files, of at least AT_LEAST bytes."""
    FOLDER.mkdir(exist_ok=True)
    with CORPUS.open("wb") as corpus:
        for path in sources():
            corpus.write(path.read_bytes().replace(b"\0", b"").rstrip(b"\n") + b"\n")
            if corpus.tell() >= AT_LEAST:
                break
    if CORPUS.stat().st_size < 20_000_000:
        sys.exit(f"demo: only {CORPUS.stat().st_size:,} bytes of text were found on this machine.")


def first_question() -> tuple[str, float]:
    """Ask the local model by the command that a user would type; its answer and the seconds it took."""
    make_corpus()
    trace = FOLDER / "demo-local.ipynb"
    command = [
        str(Path(sys.executable).parent / "rlm"),
        "ask",
        QUESTION,
        "-f",
        str(CORPUS),
        "-m",
        "local",
        "--trace",
        str(trace),
    ]
    print(
        f"1. The local model over {CORPUS.stat().st_size:,} bytes of source text\n\n$ {shown(command)}",
        flush=True,
    )
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - started
    answer = done.stdout.strip()
    print(answer, flush=True)
    if done.returncode != 0:
        sys.exit(f"demo: the local model gave no answer (exit code {done.returncode}).")
    check = ["grep", "-c", NEEDLE, str(CORPUS)]
    counted = subprocess.run(
        check, stdout=subprocess.PIPE, text=True, env=os.environ | {"LC_ALL": "C"}, check=True
    ).stdout.strip()
    print(f"$ {shown(check)}\n{counted}")
    if re.findall(r"\d+", answer.replace(",", "")) != [counted]:
        sys.exit(
            f"demo: the local model's answer is wrong: {answer!r} instead of {counted}. The trace {trace} "
            "shows how it came about."
        )
    print("The answer is right.")
    return answer, seconds


def shown(command: Sequence[str]) -> str:
    """A command as one would type it."""
    words = [Path(command[0]).name, *command[1:]]
    return " ".join(f"'{word}'" if re.search(r"[^\w./=-]", word) else word for word in words)


class ScriptedRoot:
    """A scripted root over the real sub model. Implements `engine.protocols.Models`."""

    def __init__(self, script: Sequence[str], sub: Models) -> None:
        self._root = ScriptedModels(script)
        self._sub = sub

    def _player(self, role: Role) -> Models:
        return self._root if role == "root" else self._sub

    def name(self, role: Role) -> str:
        return self._player(role).name(role)

    def card(self, which: str) -> Card:
        return (self._root if which == "root" else self._sub).card(which)

    others: Sequence[Card] = ()

    async def complete(self, messages: Sequence[Message], *, role: Role, **options: Any) -> Completion:
        return await self._player(role).complete(messages, role=role, **options)

    async def aclose(self) -> None:
        """The sub model belongs to whoever opened it."""


def modules_with_rfc() -> dict[str, str]:
    """Modules of the standard library whose own description mentions one RFC: name to description."""
    found: dict[str, str] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = " ".join((ast.get_docstring(ast.parse(path.read_bytes())) or "").split())[:600]
        if len(set(RFC.findall(text))) == 1 and len(found) < MODULES:
            found[path.stem] = text
    return found


async def second_question(words: dict[str, str]) -> Result:
    """A scripted root, real sub-calls to the local model."""
    settings = load_settings(overrides={"root_llm.model": "local"})
    with LiveView() as view:
        async with open_models(settings, view.say) as models:
            return await ask(
                "Which RFC does each of these modules mention?",
                words,
                settings=settings,
                models=ScriptedRoot(SCRIPT, models),
                trace=FOLDER / "demo-scripted.ipynb",
                view=view,
                say=view.say,
            )


def main() -> None:
    started = time.monotonic()
    answer, seconds = first_question()
    words = modules_with_rfc()
    print(
        f"\n2. Sub-calls: the root is SCRIPTED here, the {len(words)} sub-calls go to the local model",
        flush=True,
    )
    result = asyncio.run(second_question(words))
    expected = {name: RFC.findall(text)[0] for name, text in words.items()}
    if result.value is None or result.totals.calls != len(words):
        sys.exit("demo: the second question was not answered.")
    right = sum(result.value.get(name) == number for name, number in expected.items())
    print(f"{result.answer}\n{right} of {len(expected)} are as a regular expression finds them.")
    print(
        f"\n{QUESTION} {answer} ({seconds:.0f} s; both questions {time.monotonic() - started:.0f} s)\n\n"
        f"To open the notebooks:\n  .venv/bin/pip install -c constraints.txt -e '.[lab]'\n"
        f"  .venv/bin/jupyter lab {FOLDER}/demo-local.ipynb {FOLDER}/demo-scripted.ipynb"
    )


if __name__ == "__main__":
    main()

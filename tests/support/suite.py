"""A folder of ten traces of all kinds, made with models behind an HTTP server: what `rlm test` is given."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from rlm_kernel import RLM
from tests.support.model_server import ModelServer
from tests.support.story import repl

PRICES = {
    "root_llm.input_price": 2.0,
    "root_llm.output_price": 8.0,
    "sub_llm.input_price": 0.5,
    "sub_llm.output_price": 1.0,
}
"""US dollars a million tokens."""
LOG = "".join(f"line {n} {'ERROR' if n % 7 == 0 else 'ok'} of service-{n % 3}\n" for n in range(60))
SCRIPTS: dict[str, list[str]] = {
    "How many errors are there?": [
        repl(
            "lines = context.splitlines()\n"
            "kinds = llm_query_batched([f'kind of: {line}' for line in lines])\n"
            "print(len(kinds), 'kinds')"
        ),
        repl("FINAL(sum('ERROR' in kind for kind in kinds))"),
    ],
    "Which services are named?": [
        repl("import re\nnames = sorted(set(re.findall(r'service-\\d', context)))\nprint(names)"),
        repl("FINAL('\\n'.join(f'- {name}' for name in names))"),
    ],
    "Errors by service, as JSON?": [
        repl(
            "from collections import Counter\n"
            "found = Counter(line.split()[-1] for line in context.splitlines() if 'ERROR' in line)\n"
            "print(found)"
        ),
        repl("FINAL(dict(found))"),
    ],
    "What is this file about?": [
        repl("said = llm_query('Summarize: ' + context[:200])\nprint(said)"),
        repl("FINAL('It is a log. ' + said)"),
    ],
    "What does a child say of it?": [
        repl("said = rlm_query('How long is this part?', context[:500])\nprint(said)"),
        repl("FINAL(f'The child says: {said}')"),
    ],
    "How long is this part?": [repl("print(len(context))"), repl("FINAL(f'{len(context)} characters')")],
    "How long is the file?": [repl("size = len(context)\nprint(size)"), repl("FINAL(size)")],
    "And twice that?": [repl("print(size * 2, context[:10])"), repl("FINAL(size * 2)")],
    "What is the mean line length?": [
        repl("print(undefined_name, context[:5])"),
        repl("mean = len(context) / len(context.splitlines())\nprint(mean)"),
        repl("FINAL(round(mean, 4))"),
    ],
    "What can be said in two turns?": [
        repl("print(context[:30])"),
        repl("print(context[30:60])"),
        "FINAL(best effort: a log of services)",
    ],
    "What is the largest value?": [repl("print(context)"), repl("FINAL(max(context['values']))")],
    "What do the notes say?": [
        repl("print(sorted(context))\nsaid = [llm_query('the same prompt') for _ in range(3)]\nprint(said)"),
        repl("FINAL('; '.join(said))"),
    ],
}
NAMES = ("child", "count", "error", "folder", "json", "limit", "list", "object", "questions", "text")


class Speakers:
    """What the root and sub models of the server say. `asked`: prompts of the sub model."""

    def __init__(self) -> None:
        self.scripts = dict(SCRIPTS)
        self.asked: list[str] = []
        self._count = itertools.count(1)

    def root(self, messages: list[dict[str, Any]]) -> str:
        """The next reply to the last question of the conversation."""
        texts = [str(message["content"]) for message in messages]
        places = [
            (at, question)
            for at, text in enumerate(texts)
            for question in self.scripts
            if messages[at]["role"] == "user" and question in text
        ]
        at, question = places[-1]
        said = sum(message["role"] == "assistant" for message in messages[at:])
        return self.scripts[question][said]

    def sub(self, prompt: str) -> str:
        self.asked.append(prompt)
        if prompt.startswith("kind of: "):
            return "ERROR" if "ERROR" in prompt else "fine"
        return (
            f"answer {next(self._count)}"
            if prompt == "the same prompt"
            else f"{len(prompt)} characters of a log"
        )

    def play(self, server: ModelServer) -> None:
        server.root, server.sub = self.root, self.sub


def record_all(folder: Path, data: Path) -> None:
    """Make the ten traces in the folder, with their inputs in another one."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "a.log").write_text(LOG)
    (data / "notes").mkdir()
    for name in ("one.txt", "two.txt"):
        (data / "notes" / name).write_text(f"the notes of {name}\n" * 20)
    log = data / "a.log"
    given: dict[str, tuple[str, Any]] = {
        "count": ("How many errors are there?", log),
        "list": ("Which services are named?", log),
        "json": ("Errors by service, as JSON?", log),
        "text": ("What is this file about?", log),
        "child": ("What does a child say of it?", log),
        "error": ("What is the mean line length?", log),
        "limit": ("What can be said in two turns?", log),
        "object": ("What is the largest value?", {"values": [3, 41, 7]}),
        "folder": ("What do the notes say?", data / "notes"),
    }
    for name, (question, context) in given.items():
        limits = {"limits.turns": 2} if name == "limit" else {}
        rlm = RLM("openai/root", "openai/sub", options={**PRICES, "prompt.whole": 0, **limits})
        assert rlm.ask(question, context, trace=folder / f"{name}.ipynb").answer is not None
    asyncio.run(_session(folder, log))


async def _session(folder: Path, log: Path) -> None:
    options = {**PRICES, "prompt.whole": 0, "trace.dir": str(folder), "session.dir": str(folder / ".session")}
    async with RLM("openai/root", "openai/sub", options=options).session(paths=[log]) as session:
        await session.ask("How long is the file?")
        await session.ask("And twice that?")
        trace = session.trace
        await session.stop()
    trace.rename(folder / "questions.ipynb")

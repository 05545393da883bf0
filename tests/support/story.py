"""A run with everything that a replay must give again: threads, batches, asyncio, processes, failures,
pictures, identical prompts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.config import load_settings
from rlm_kernel.engine.events import Event, TurnPiece
from rlm_kernel.errors import ModelError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.ask import ask
from rlm_kernel.session.result import Result

QUESTION = "What is in it?"
TURNS = [
    [
        "print(context[:20], len(context))\nprint({name for name in ('b', 'a', 'd', 'c')})",
        "import random\nrandom.sample(range(1000), 5)",
    ],
    [
        "from concurrent.futures import ThreadPoolExecutor, as_completed\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    in_order = list(pool.map(lambda n: llm_query(f'number {n}'), range(24)))\n"
        "    for done in as_completed([pool.submit(llm_query, f'again {n}') for n in range(16)]):\n"
        "        print(done.result())\n"
        "print(in_order)",
        "print([llm_query('the same') for _ in range(3)], llm_query_batched(['the same'] * 3))",
    ],
    [
        "import asyncio\nprint(await asyncio.gather(*(allm_query(f'async {n}') for n in range(5))))",
        "found = llm_query_batched(['good', 'bad', 'fine'])\nprint(found, [bool(item) for item in found])\n"
        "try:\n    llm_query('bad')\n"
        "except LLMError as error:\n    print('failed:', error)",
        "from multiprocessing import get_context\nwith get_context('fork').Pool(2) as pool:\n"
        "    print(pool.map(llm_query, [f'process {n}' for n in range(4)]))",
    ],
    [
        "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
        "total = 41\nprint(budget()['calls'])\nundefined_name",
    ],
    ["FINAL(f'{total + 1} in {len(context)} characters')"],
]
ANSWER = "42 in 1200 characters"
SHORT = [
    ["print(context[:20])", "total = 41\nprint(llm_query('one'), total)"],
    [
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    print(list(pool.map(lambda n: llm_query(f'number {n}'), range(12))))",
        "print(llm_query_batched(['the same'] * 5))\nundefined_name",
    ],
    ["FINAL(f'{total + 1} in {len(context)} characters')"],
]
"""The same answer by a shorter way, with 18 sub-calls."""


def repl(*codes: str) -> str:
    return "Now this.\n" + "\n".join(f"```repl\n{code}\n```" for code in codes)


class Story(ScriptedModels):
    """Plays QUESTION's run from wherever the conversation stands.

    Answers differ from call to call, and take their time.

    `asked` are the prompts that reached the sub model.
    """

    def __init__(self, turns: Sequence[Sequence[str]] = TURNS, *, slow: bool = True) -> None:
        super().__init__(
            lambda messages: repl(*turns[sum(m["role"] == "assistant" for m in messages)]), self._answer
        )
        self.asked: list[str] = []
        self._slow = slow
        self._count = itertools.count(1)

    async def _answer(self, prompt: str) -> str:
        self.asked.append(prompt)
        number = next(self._count)
        if prompt == "bad":
            raise ModelError("The model refused.", fault="refused", model="scripted/sub")
        if self._slow:
            # Later calls often end before earlier ones, as in life.
            await asyncio.sleep(0.03 + (number * 7 % 5) / 200)
        return f"{prompt}: {number}"


class KillAt:
    """A listener that kills its process, by SIGKILL, when it hears the nth event; pieces of replies do not
    count.
    """

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __call__(self, event: Event) -> None:
        self._left -= not isinstance(event, TurnPiece)
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def record(text: Path, trace: Path, *, models: Any = None, view: Any = None, **settings: Any) -> Result:
    """Run the story over a file, and leave its trace."""
    chosen = load_settings(None, {"sandbox.memory": "1g", **settings})
    return asyncio.run(ask(QUESTION, text, settings=chosen, trace=trace, models=models or Story(), view=view))


def be_killed(runtime: str, folder: str, trace: str, text: str, nth: int) -> None:
    """In a process of its own: run the story until it is killed. The session's folder stays in `runtime`."""
    os.environ["XDG_RUNTIME_DIR"] = runtime
    os.chdir(folder)
    record(Path(text), Path(trace), models=Story(SHORT), view=KillAt(nth))

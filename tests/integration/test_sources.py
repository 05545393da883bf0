"""Where prompts and an answer come from, of a run in a container whose code builds its prompts in odd ways."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from rlm_kernel.config import load_settings
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.ask import ask
from rlm_kernel.session.sources import provenance
from rlm_kernel.trace.reader import read_trace
from tests.integration.conftest import Rlm
from tests.support.passages import prose
from tests.support.story import repl

NEEDLE = "The pump in hall seven was replaced on 4 May 2031 for 48,213 euros by Hansen Brothers."
CODE = [
    "text = context['notes.txt'] if isinstance(context, dict) else context\n"
    "lines = text.splitlines()\n"
    "import json, textwrap\n"
    "at = text.index('The pump')\n"
    "start = text.rindex('\\n', 0, at - 600) + 1\n"
    "passage = text[start : at + 700]",
    "print(llm_query(f'Who replaced the pump? Read this:\\n<text>{passage}</text>'))",
    "print(llm_query(json.dumps({'task': 'dates', 'passages': [passage, 'none']})))",
    "print(llm_query('\\n'.join(f'{n:>5}| {line}' for n, line in enumerate(passage.split('\\n'), 1))))",
    "print(llm_query('Shorten this. ' + textwrap.fill(' '.join(passage.split()), 72)))",
    "parts = [lines[n : n + 12] for n in range(100, 160, 12)]\n"
    "answers = llm_query_batched(['> ' + '\\n> '.join(part) for part in parts])",
    "print(llm_query('Put together what was found, without repeating a thing: ' + ' | '.join(map(str, answers))))\n"
    "print(llm_query('What is the capital of France? One word.'))",
    "FINAL('The pump cost 48,213 euros. Hansen Brothers did the work.')",
]


def _answer(prompt: str) -> str:
    if "Put together" in prompt:
        return "Nothing of interest was found in any of the five parts of these notes."
    if prompt.startswith("> "):
        return f"This part of the notes, of {len(prompt):,} characters in all, has no dates and no names."
    return "It was replaced for 48,213 euros by Hansen Brothers." if "pump" in prompt else "Paris"


def record(folder: Path) -> Path:
    """A run over notes with a needle; the trace."""
    text = prose(random.Random(5), 60_000)
    middle = text.index("\n", 30_000) + 1
    (folder / "notes.txt").write_text(f"{text[:middle]}{NEEDLE}\n{text[middle:]}", "utf-8")
    models = ScriptedModels(
        lambda messages: repl(CODE[sum(one["role"] == "assistant" for one in messages)]), _answer
    )
    trace = folder / "t.ipynb"
    settings = load_settings(None, {"sandbox.memory": "1g"})
    asyncio.run(
        ask("What did the pump cost?", folder / "notes.txt", settings=settings, models=models, trace=trace)
    )
    return trace


def test_prompts_that_code_built_in_odd_ways_lead_to_the_bytes_of_the_file(
    kernel_image: Any, tmp_path: Path, rlm: Rlm
) -> None:
    trace = record(tmp_path)
    content = (tmp_path / "notes.txt").read_bytes()
    needle = content.index(NEEDLE.encode())
    found = provenance(read_trace(trace))
    calls = found.sources.calls
    assert found.sources.trouble == []
    assert {call.state for call in calls.values()} == {"full"}
    for number in range(1, 5):
        (passage,) = calls[number].passages
        (place,) = passage.places
        assert place.start <= needle < needle + len(NEEDLE) <= place.end, number
        assert 1_200 < place.end - place.start < 1_500
        assert place.line == content[: place.start].count(b"\n") + 1
    assert all(len(calls[number].passages) == 1 for number in range(5, 10))
    assert calls[10].passages == ()
    assert {other for one in calls[10].answers for other in one.calls} == {5, 6, 7, 8, 9}
    assert (calls[11].passages, calls[11].answers) == ((), ())
    price, who = found.answer.pieces
    assert {one.call for one in price.seen if one.call} == {1, 2, 3, 4}
    assert not price.guess
    (support,) = price.support[:1]
    assert "hall seven" in support.text
    assert any(place.start <= needle < place.end for one in price.support for place in one.passage.places)
    assert who.support
    done = rlm("show", str(trace), "--sources")
    assert "notes.txt:" in done.stdout
    told = json.loads(rlm("show", str(trace), "--sources", "--json").stdout)
    assert told["calls"][0]["passages"][0]["places"][0]["exact"] is True

"""What went to the provider is what the file of prompts and the export have: each request, to the letter."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.config import load_settings
from rlm_kernel.session.ask import ask
from rlm_kernel.session.resume import fork
from tests.integration.conftest import Rlm
from tests.support.providers.openai_chat import OpenAIServer
from tests.support.providers.roads import KEY
from tests.support.providers.server import Asked

pytestmark = pytest.mark.xdist_group("children")
ODD = 'näher \U0001f40d "quoted" \\ \t back'
TOP = [
    f"""
long = [f'{{n}}: ' + {ODD!r} * 400 for n in range(40)]
found = llm_query_batched(long) + llm_query_batched(long[:3])
typed = llm_query('A number, please.', schema=int)
print(len(found), typed)
""",
    "said = rlm_query('CHILD: who is it?', context='It was Ada. ' * 20)\nprint(said)",
    "FINAL(said)",
]
CHILD = [
    "below = rlm_query('GRANDCHILD: who?', context=context)\nprint(below, llm_query('of the child'))",
    "FINAL('Ada')",
]


def says(asked: Asked) -> str:
    """Root models play their cells one after the other; the sub model answers shortly."""
    messages = asked.body["messages"]
    if messages[0]["role"] != "system":
        return "7" if "number" in asked.text else "fine"
    child = "CHILD: who is it?" in messages[1]["content"]
    turn = sum(message["role"] == "assistant" for message in messages)
    return f"Now this.\n```repl\n{(CHILD if child else TOP)[turn]}\n```"


def plain(messages: list[dict[str, Any]]) -> str:
    return json.dumps([[one["role"], one["content"]] for one in messages])


def exported(rlm: Rlm, *words: str) -> list[dict[str, Any]]:
    done = rlm("export", "--jsonl", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_was_sent_is_what_the_export_has(kernel_image: Any, tmp_path: Path, rlm: Rlm) -> None:
    sent: list[str] = []
    schemas: list[Any] = []

    def heard(asked: Asked) -> str:
        sent.append(plain(asked.body["messages"]))
        schemas.extend([asked.schema] if asked.schema else [])
        return says(asked)

    trace, forked = tmp_path / "t.ipynb", tmp_path / "elsewhere" / "f.ipynb"
    with OpenAIServer(heard, api_key=KEY) as server:
        about = {"model": "openai/gpt-4o-mini", "api_base": f"{server.base}/v1", "api_key": KEY}
        changes = {f"root_llm.{name}": value for name, value in about.items()} | {"sandbox.memory": "512m"}
        result = asyncio.run(ask("Who?", settings=load_settings(None, changes), trace=trace))
        assert result.answer == "Ada"
        records = exported(rlm, str(trace))
        assert [record for record in records if not record["complete"]] == []
        assert all(
            record["messages"][-1] == {"role": "assistant", "content": record["reply"]} for record in records
        )
        assert Counter(plain(record["messages"][:-1]) for record in records) == Counter(sent)
        assert KEY not in json.dumps(records)
        counts = Counter((record["call"], record["trace"] == "t.ipynb") for record in records)
        assert counts == {("root", True): 3, ("root", False): 2, ("sub", True): 44, ("sub", False): 2}
        assert [json.loads(record["schema"]) for record in records if record["schema"]] == schemas
        assert len(exported(rlm, str(trace), "--no-children", "--only", "root")) == 3
        # What another program reads of the file itself.
        raw = subprocess.run(
            ["zstdcat", trace.with_name("t.prompts.zst")], capture_output=True, check=True
        ).stdout
        kept = [json.loads(line) for line in raw.splitlines()]
        assert len([one for one in kept if "call" in one]) == 42
        before = len(sent)
        asyncio.run(fork(trace, "Once more?", out=forked, at="turn-02", changes=changes))
        again = exported(rlm, str(forked), "--no-children")
        assert all(record["complete"] for record in again)
        new = Counter(plain(record["messages"][:-1]) for record in again)
        assert Counter(sent[before:]) <= new

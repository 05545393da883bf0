"""What the marks for Anthropic's cache save: the bill of a run of 12 turns, with them and without.

The prompt is the project's own for that model; the messages are as long as real ones. The tests' server keeps
its cache and writes the bill by Anthropic's rules and prices, but counts four characters as a token.

And what a conversation of several questions costs, each put by a process of its own.

    python benchmarks/caching.py
    python benchmarks/caching.py --turns 24 --output 8000 --model claude-opus-5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlm_kernel.config import load_settings
from rlm_kernel.engine.messages import SUM_UP
from rlm_kernel.engine.prompts import load_profile, profile_of, system_prompt
from rlm_kernel.engine.protocols import Card, ContextInfo
from rlm_kernel.models import _anthropic
from rlm_kernel.models._caching import CommonBeginning, in_blocks, least_chars, marked
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support.kept import begun, put
from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.server import Asked
from tests.support.providers.words import Bill

SUB = Card("sub", "anthropic/claude-sonnet-4-5", 200_000)
SONNET = {"supports_prompt_caching": True, "max_output_tokens": 64_000}


@dataclass(frozen=True)
class Run:
    """A run: its model, how many turns, and how many characters a reply and an output have."""

    model: str = "claude-sonnet-4-5"
    turns: int = 12
    reply: int = 400
    output: int = 4000
    depth: int = 1


def words(number: int, length: int) -> str:
    """A text of that length, another for each number."""
    line = f"Entry {number} of the log says that the pump of station {number * 7 % 31} was seen to. "
    return (line * (length // len(line) + 1))[: length - 1] + "."


def opening(run: Run) -> list[dict[str, Any]]:
    """The messages of a run's first call."""
    profile = load_profile(profile_of(run.model))
    info = ContextInfo("str", 5_000_000)
    system = system_prompt(profile, info, output_chars=20_000, sub=SUB, depth=run.depth)
    first = words(0, 700)
    return [
        {"role": "system", "content": system},
        *map(dict, profile.examples),
        {"role": "user", "content": first},
    ]


def send(server: AnthropicServer, body: Mapping[str, Any]) -> None:
    """One request."""
    sent = urllib.request.Request(
        _anthropic.url(server.base), json.dumps(body).encode(), _anthropic.headers("sk-test", body)
    )
    with urllib.request.urlopen(sent) as answer:
        answer.read()


def conversation(run: Run, *, marks: bool, times: int = 1) -> list[Bill]:
    """The bills of the calls of a run, or of several that begin alike and follow one another."""
    with AnthropicServer(lambda asked: words(len(asked.body["messages"]), run.reply)) as server:
        for number in range(times):
            messages = opening(run)
            messages[-1]["content"] += f" {number}"
            for turn in range(1, run.turns + 1):
                sent = marked("anthropic", run.model, SONNET, messages) if marks else messages
                send(server, _anthropic.body({"model": run.model, "messages": sent, "max_tokens": 4096}))
                reply = words(
                    len(_anthropic.body({"model": run.model, "messages": messages})["messages"]), run.reply
                )
                messages.append({"role": "assistant", "content": reply})
                messages.append({"role": "user", "content": words(100 * number + turn, run.output)})
        return list(server.bills)


def batch(
    run: Run, *, marks: bool, calls: int = 100, instructions: int = 6000, piece: int = 6000
) -> list[Bill]:
    """The bills of a batch of sub-calls with the same instructions, each with a piece of its own."""
    common = CommonBeginning(least_chars(run.model, SONNET))
    told = (words(0, 120) + "\n") * (instructions // 120)
    with AnthropicServer(lambda asked: words(1, 200)) as server:
        for number in range(calls):
            prompt = f"{told}\n{number + 1}: {words(number, piece)}"
            split = common.split(prompt) if marks else None
            content: Any = in_blocks(*split) if split else prompt
            body = _anthropic.body(
                {"model": run.model, "messages": [{"role": "user", "content": content}], "max_tokens": 1024}
            )
            send(server, body)
        return list(server.bills)


def several(run: Run, *, questions: int = 6, turns: int = 3, **options: Any) -> list[Bill]:
    """The bills of a conversation of several questions of a few turns each, after the trace alone."""

    def says(asked: Asked) -> str:
        if SUM_UP in asked.text:
            return words(1, 1600)
        turn = int(re.findall(r"Turn (\d+) of", asked.text)[-1])
        code = (
            f"say(context[:0] + 'Station {turn} was seen to. ' * {run.output // 24})"
            if turn < turns
            else "FINAL('seven')"
        )
        return f"{words(turn, run.reply)}\n```repl\n{code}\n```"

    async def converse(server: AnthropicServer, path: Path) -> None:
        for number in range(questions):
            names = {f"{role}_llm.model": f"anthropic/{run.model}" for role in ("root", "sub")}
            places = {f"{role}_llm.api_base": server.base for role in ("root", "sub")}
            keys = {f"{role}_llm.api_key": "sk-test" for role in ("root", "sub")}
            models = LitellmModels(load_settings(overrides={**names, **places, **keys}), lambda _said: None)
            profile = load_profile(profile_of(run.model))
            try:
                await put(path, f"Which of them, number {number}?", models, profile=profile, **options)
            finally:
                await models.aclose()

    with AnthropicServer(says) as server, tempfile.TemporaryDirectory() as folder:
        asyncio.run(converse(server, begun(Path(folder, "t.ipynb"))))
        return list(server.bills)


def in_short(name: str, bills: Sequence[Bill]) -> None:
    """A line of the table of conversations.

    Seconds are reckoned: one for each call, and one for 70 tokens of reply.
    """
    read, cached = sum(bill.prompt for bill in bills), sum(bill.cached for bill in bills)
    seconds = len(bills) + sum(bill.output for bill in bills) / 70
    cost = sum(bill.cost for bill in bills)
    print(f"| {name} | {len(bills)} | {read:,} | {cached / read:.0%} | ${cost:.4f} | {seconds:.0f} |")


def parts(bills: Sequence[Bill], model: str) -> dict[str, float]:
    """US dollars of a bill by what they are for."""
    price = AnthropicServer().known[model].price
    return {
        "fresh input": sum(bill.input for bill in bills) * price.input / 1e6,
        "writes (1.25)": sum(bill.written for bill in bills) * price.input * 1.25 / 1e6,
        "reads (0.1)": sum(bill.cached for bill in bills) * price.input * 0.1 / 1e6,
        "output": sum(bill.output for bill in bills) * price.output / 1e6,
        "all": sum(bill.cost for bill in bills),
    }


def compared(name: str, before: Sequence[Bill], after: Sequence[Bill], model: str) -> float:
    """The share of the bill that is left; the line of the table is printed."""
    one, other = parts(before, model), parts(after, model)
    share = other["all"] / one["all"]
    made = ", ".join(f"{part} {other[part] / other['all']:.0%}" for part in other if part != "all")
    print(f"| {name} | ${one['all']:.4f} | ${other['all']:.4f} | {share:.1%} | {made} |")
    return share


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in vars(Run()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    run = Run(**vars(parser.parse_args()))
    print("| what | without | with marks | left | of which |\n| --- | --- | --- | --- | --- |")
    for output, reply in ((2000, 400), (run.output, run.reply), (8000, 400), (4000, 1600), (20_000, 400)):
        one = Run(run.model, run.turns, reply, output, run.depth)
        name = f"{run.turns} turns, replies of {reply:,} characters, outputs of {output:,}"
        compared(name, conversation(one, marks=False), conversation(one, marks=True), run.model)
    long = Run(run.model, 30, run.reply, run.output, run.depth)
    name = f"30 turns, replies of {run.reply:,} characters, outputs of {run.output:,}"
    compared(name, conversation(long, marks=False), conversation(long, marks=True), run.model)
    three = [conversation(run, marks=marks, times=3) for marks in (False, True)]
    compared("three such runs, one after the other", *three, run.model)
    calls = [batch(run, marks=marks) for marks in (False, True)]
    compared("100 sub-calls, instructions of 6,000 characters, pieces of 6,000", *calls, run.model)

    print("\n| conversation | calls | tokens read | cached | cost | seconds |\n" + "| --- " * 6 + "|")
    for output in (300, 1000, 4000):
        one = Run(run.model, reply=run.reply, output=output)
        in_short(f"6 questions of 3 turns, outputs of {output:,} characters", several(one))


if __name__ == "__main__":
    main()

"""Questions that share a budget, each in a container of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlm_kernel import ScriptedModels
from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import Completion, Message, Usage
from rlm_kernel.engine.purse import LocalPurse
from rlm_kernel.session.many import Asker
from rlm_kernel.trace.reader import read_trace

REPLIES = ["```repl\nprint(llm_query('Read: ' + context))\n```", "```repl\nFINAL('found')\n```"]


class Priced(ScriptedModels):
    """Each reply costs 10 cents."""

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        return replace(await super().complete(messages, **options), usage=Usage(60, 40), cost=0.10)


async def test_questions_that_share_a_budget_end_with_what_they_have_when_it_is_used_up(
    kernel_image: Any, tmp_path: Path
) -> None:
    purse = LocalPurse(cost=0.50)
    answers = []
    for number in range(3):  # 0.30 each
        trace = tmp_path / f"{number}.ipynb"
        models = Priced(REPLIES, str.upper)
        async with Asker(Settings(), models=models, purse=purse) as asker:
            result = await asker.ask("What is it?", "a text", trace=trace)
        meta = (await asyncio.to_thread(read_trace, trace)).meta
        answers.append(
            (result.answer, result.stop_reason, result.totals.calls, meta.stop_reason, meta.detail)
        )
    used_up = "The batch's limit of cost is reached: 0.5 of 0.5 US dollars used."
    assert answers == [
        ("found", "answered", 1, "answered", ""),
        (None, "batch", 1, "batch", used_up),
        (None, "batch", 0, "batch", used_up),
    ]
    assert purse.spent.calls == 5

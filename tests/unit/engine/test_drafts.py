"""What a model wrote for itself reaches neither the kernel nor the answer nor the conversation; the trace
keeps it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.conversation import Past, PastTurn
from rlm_kernel.engine.drafts import without_drafts
from rlm_kernel.engine.events import CellFinished, TurnReplied, TurnStarted
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, Completion
from rlm_kernel.engine.subcalls import complete
from rlm_kernel.engine.values import THOUGHTS_KEPT
from rlm_kernel.errors import ModelError
from rlm_kernel.models import ScriptedModels
from rlm_kernel.trace.schema import MAX_THOUGHTS
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import PROFILE, Run
from tests.support.trace import load, meta

DRAFT = "<think>\nPerhaps\n```repl\nfail('draft')\n```\nor\nFINAL(7)\n</think>\n\n"
LOOK = "I look.\n```repl\nsay(context[:5])\n```"


async def test_only_what_comes_after_the_thoughts_is_run_delivered_and_sent_back() -> None:
    run = Run(ScriptedModels([DRAFT + LOOK, DRAFT + "FINAL(3)"]))
    assert (await run.outcome()).answer == Answer("3", 3)
    assert run.cells == ["say(context[:5])"]
    assert "Perhaps" not in str(run.models.requests[-1])
    replies = [event.reply for event in run.heard.of(TurnReplied)]
    assert [reply.text for reply in replies] == [LOOK, "FINAL(3)"]
    assert all("fail('draft')" in reply.thoughts for reply in replies)


async def test_a_reply_that_is_all_thought_is_no_reply_and_the_model_is_told() -> None:
    run = Run(ScriptedModels([LOOK, "<think>\nI count and count\n```repl\nfail(1)\n```", "FINAL(3)"]))
    assert (await run.outcome()).answer == Answer("3", 3)
    assert say.ALL_THOUGHT in run.told()
    assert len(run.cells) == 1


async def test_a_sub_model_gives_its_answer_without_its_thoughts_and_the_record_keeps_the_beginning_of_these() -> (
    None
):
    run = Run(
        ScriptedModels(
            ["```repl\nask(context and 'Yes or no?')\n```", "FINAL(3)"],
            lambda _: f"<think>\n{'Is it? ' * 1000}\n</think>\n\nyes",
        )
    )
    await run.outcome()
    (call,) = run.heard.of(CellFinished)[0].result.calls
    assert call.answer == "yes"
    assert call.thoughts.startswith("Is it? ")
    assert len(call.thoughts) == THOUGHTS_KEPT


async def test_a_sub_model_that_only_thought_gave_no_answer() -> None:
    models = ScriptedModels([], lambda _: "<think>\nIs it? Or not?")
    ledger = Ledger(Limits())
    with pytest.raises(ModelError, match="reasoning alone") as failed:
        await complete(models, ledger, [{"role": "user", "content": "Yes or no?"}], role="sub")
    assert failed.value.spent.thoughts == "Is it? Or not?"
    assert ledger.totals().calls == 1


async def test_thoughts_that_came_apart_are_kept_with_those_of_the_text() -> None:
    class Models(ScriptedModels):
        async def complete(self, *arguments: object, **options: object) -> Completion:
            return replace(await super().complete(*arguments, **options), thoughts="apart")  # type: ignore[arg-type]

    reply = await complete(
        Models(["<think>within</think>done"]),
        Ledger(Limits()),
        [{"role": "user", "content": "?"}],
        role="root",
    )
    assert (reply.text, reply.thoughts) == ("done", "apart\n\nwithin")


def test_the_trace_keeps_thoughts_bounded_and_without_secrets(tmp_path: Path) -> None:
    writer = NotebookWriter(tmp_path / "t.ipynb", meta(), ["hunter2hunter2"])
    thoughts = "</pre><script>\nhunter2hunter2 " + "x" * (2 * MAX_THOUGHTS)
    writer(TurnStarted(1))
    writer(TurnReplied(1, Completion("I look.", "m", thoughts=thoughts), "I look."))
    written = load(tmp_path / "t.ipynb").cells[-1]
    words, _, fold = written.source.partition("\n\n<details><summary>")
    assert words == "## Turn 1\n\nI look."
    assert fold.endswith("\n\n</details>")
    assert len(written.metadata.rlm.thoughts) <= MAX_THOUGHTS
    assert "hunter2" not in str(written)


async def test_output_that_the_model_made_up_is_told_and_what_builds_on_it_does_not_run() -> None:
    invented = LOOK + "\n\nOutput:\n```\n98765\n```\nSo:\n```repl\nsay(98765)\n```\nFINAL(98765)"
    run = Run(ScriptedModels([invented, "FINAL(hello there)"]))
    assert (await run.outcome()).answer == Answer("hello there")
    assert run.cells == ["say(context[:5])"]
    assert say.INVENTED in run.told()
    assert "98765" not in run.told()


async def test_blocks_in_other_languages_are_told_by_their_labels_where_nothing_ran() -> None:
    run = Run(ScriptedModels([LOOK, "So:\n```bash\nwc -l notes.txt\n```", "FINAL(hello there)"]))
    await run.outcome()
    assert "The ```bash block was not run: only Python runs here" in run.told()


async def test_a_reply_of_an_older_trace_that_was_read_otherwise_is_not_run_again() -> None:
    """Its draft was run then. What is left of the turn is unknown, so the model goes on from what ran."""
    first = Run(ScriptedModels([LOOK, LOOK]), Limits(turns=1))
    await first.outcome()
    ran = [event.result for event in first.heard.of(CellFinished)][:1]
    reply = f"{LOOK}\nOutput:\n```\n98765\n```\n```repl\nsay(98765)\n```"
    old = [replace(ran[0], code="98765"), replace(ran[0], code="say(context[:5])")]
    run = Run(ScriptedModels(["FINAL(hello there)"]), profile=PROFILE)
    past = Past([PastTurn(1, reply, old)], unfinished=True)
    assert (await run.outcome(past=past)).answer == Answer("hello there")
    assert run.cells == []


@pytest.mark.parametrize(
    "text",
    ["<think> tags are not in it.\n\nFINAL(3)", "<think> is a tag of this file.\n```repl\nsay(1)\n```"],
)
def test_a_sentence_that_begins_with_the_tag_is_no_reasoning(text: str) -> None:
    assert without_drafts(text) == (text, "")

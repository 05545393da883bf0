"""A reply that goes on with an output that it made up, or says the same over and over, ends there; no other
does, and what runs of it is what would have run of the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.conversation import Conversation
from rlm_kernel.engine.drafts import Voice, without_drafts
from rlm_kernel.engine.events import CallRetried, TurnCutOff, TurnPiece, TurnReplied
from rlm_kernel.engine.hearing import Hearing
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.messages import output_message
from rlm_kernel.engine.protocols import Answer, Completion, Message, Retry, Usage, Watch
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.errors import ModelError
from rlm_kernel.models import ScriptedModels
from tests.support.engine import Recorder, Run
from tests.support.growth import LIMIT, growth
from tests.support.trace import result
from tests.unit.engine.reply_corpus import CASES

CODE = "I look.\n```repl\nprint(1)\n```\n"


def heard(reply: str | Iterable[str], *, late: bool = False) -> Hearing:
    hearing = Hearing(lambda _text, _thought: None, late=late)
    for piece in [reply] if isinstance(reply, str) else reply:
        if not hearing(piece, False):
            break
    return hearing


MADE_UP = {
    "a line": "Output: 1\n",
    "in bold": "**Output:**\n1\n",
    "an observation, as in ReAct": "\nObservation: 1\nThought: done\n",
    "logs, as of smolagents": "Execution logs:\n1\nLast output from code snippet:\nNone\n",
    "as rlm's first form": "REPL output:\n1\n",
    "a block": "```output\n1\n```\n",
    "a block with a longer fence": "````tool_output\n1\n````\n",
    "in brackets": "[cell output]\n1\n",
    "Jupyter's": "Out[1]: 1\n",
    "results": "Execution result:\n1\n",
    "announced": "This prints:\n```\n1\n```\n",
    "in Chinese": "输出：\n1\n",
    "our own message": output_message([result("turn-01-a", code="print(1)")], 0, 100, [], "Turn 2 of 30."),
    "our own message of an error": output_message(
        [result("turn-01-a", code="print(1)", status="error")], 0, 100, [], "Turn 2 of 30."
    ),
}
GENUINE = {
    "a word about it": "The output will show how many there are.\nI go on then.\n",
    "more code": "Then the output is printed:\n```repl\nprint(2)\n```\n",
    "a string with a fence": '```repl\nx = """\n```\nOutput: 1\n```\nOutput: 2\n"""\n```\n',
    "a longer fence": "````repl\nx = '''\n```\nOutput: 1\n```\n'''\nprint(x)\n````\n",
    "a report in Markdown": "````markdown\n# Report\nOutput: 1\n```output\n2\n```\n````\n",
    "code in a tag": '<code>\nx = """\nOutput: 1\n"""\nprint(x)\n</code>\n',
    "words before a fence": 'Next ```repl\nx = """\nOutput: 1\n"""\nprint(x)\n```\n',
    "an answer of several lines": 'FINAL("""Report\nOutput: 1\n""")\n',
    "thoughts": "<think>\nOutput: 1\n</think>\n```repl\nprint(2)\n```\n",
    "strings that end later": "'''\n```\n'''\n```\nOutput: 1\n```repl\nx = '''\n```\n",
    "a dictionary": "```repl\nx = {\n'Output': 1,\n}\n```\n",
    "an expectation as text": "It may look so:\n```text\na, b\n```\n",
}


@pytest.mark.parametrize("name", MADE_UP)
def test_a_reply_ends_where_it_makes_up_the_output_of_its_code(name: str) -> None:
    hearing = heard(CODE + MADE_UP[name] + "\nSo it is one.\n```repl\nFINAL(1)\n```\n")
    assert (hearing.kept, hearing.why) == (CODE.rstrip(), say.INVENTED)


@pytest.mark.parametrize("name", GENUINE)
def test_a_reply_without_such_an_output_is_heard_to_its_end(name: str) -> None:
    assert heard(CODE + GENUINE[name]).kept is None


@pytest.mark.parametrize("name", MADE_UP)
def test_before_any_code_nothing_is_made_up(name: str) -> None:
    assert heard(MADE_UP[name] + "\n" + CODE).kept is None


def test_code_that_has_no_end_yet_or_is_no_python_is_not_cut() -> None:
    assert heard("```repl\nprint('''\nOutput: 1\n").kept is None
    assert heard("```repl\nprint(\n```\nOutput: 1\n").kept is None


@pytest.mark.parametrize(
    ("end", "turn"),
    [
        ("<|im_end|>", "<|im_start|>user"),
        ("<|eot_id|>", "<|start_header_id|>user<|end_header_id|>"),
        ("<end_of_turn>", "<start_of_turn>user"),
        ("</s>", "[INST] Go on. [/INST]"),
    ],
)
@pytest.mark.parametrize("reply", [CODE, "So:\nFINAL(3)", "It is three."])
def test_a_reply_ends_where_it_goes_on_with_another_turn(reply: str, end: str, turn: str) -> None:
    hearing = heard(f"{reply}{end}\n{turn}\nOutput: 1\n")
    assert (hearing.kept, hearing.why) == (reply.rstrip("\n"), "")
    assert heard(f"{CODE}```repl\nx = '''{end}\n{turn}\n'''\n```\n").kept is None
    assert heard(f"{CODE}Its turns begin with `{end}{turn}`.\n").kept is None


PARTS = st.sampled_from(
    [
        CODE,
        "```repl\nx = '''\n```\n",
        "'''\n```\n",
        '```repl\ny = """a\n',
        "```\n",
        "````python\n",
        "````\n",
        "~~~\n",
        "words\n",
        "- in a list\n",
        "  ```repl\n  print(3)\n  ```\n",
        "> quoted\n",
        "Next ```repl\nprint(4)\n```\n",
        "Then ```py\n",
        "<code>\nprint(5)\n</code>\n",
        "<code>\n",
        "</code>\n",
        "The results are:\n",
        "```text\nlook\n```\n",
        "```\n[1, 2]\n```\n",
        "FINAL(a\n",
        'FINAL("""\n',
        "FINAL(7)\n",
        "<think>\n",
        "\n",
        "\r\n",
        "<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n",
        *MADE_UP.values(),
        *GENUINE.values(),
    ]
)
REPLIES = st.lists(PARTS, max_size=9).map("".join)


@settings(max_examples=300, deadline=None)
@given(REPLIES)
def test_what_runs_of_a_reply_that_was_ended_is_what_would_have_run_of_the_whole(reply: str) -> None:
    kept = heard(reply).kept
    whole = parse_reply(without_drafts(reply)[0])
    if not whole.invented and "<|im_start|>" not in reply:
        assert kept is None
    if kept is not None:
        assert parse_reply(kept).cells == whole.cells


def without_marks(text: str) -> str:
    return text.replace("<think>", "").replace("</think>", "")


@settings(max_examples=150, deadline=None)
@given(REPLIES, st.lists(st.integers(1, 40), min_size=1))
def test_it_does_not_matter_in_which_pieces_a_reply_comes(reply: str, sizes: Sequence[int]) -> None:
    pieces, at = [], 0
    while at < len(reply):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(reply[at : at + size])
        at += size
    assert heard(pieces).kept == heard(reply).kept
    shown: list[tuple[str, bool]] = []
    voice = Voice()
    for piece in pieces:
        shown += voice.say(piece)
    words = "".join(text for text, _ in shown)
    assert without_marks(reply).startswith(without_marks(words))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_of_the_replies_of_all_models_only_those_with_made_up_outputs_end(case: object) -> None:
    kept = heard(case.reply + "\n").kept  # type: ignore[attr-defined]
    assert kept is None or case.invented or "conversation" in case.name  # type: ignore[attr-defined]
    if kept is not None:
        assert parse_reply(kept).cells == case.cells  # type: ignore[attr-defined]


def test_reasoning_before_which_a_template_has_put_the_mark_is_known_from_the_next_reply_on() -> None:
    thoughts = CODE + "Output: 1\nYes, so.\n</think>\n" + CODE
    first = heard(thoughts.replace("Output: 1", "It gives 1."))
    assert first.was_late
    assert heard(thoughts, late=True).kept is None
    assert heard(thoughts + "Output: 2\n", late=True).kept == CODE.rstrip()
    assert heard(CODE + "Output: 2\n", late=True).kept is None


def test_a_reply_that_says_the_same_over_and_over_ends_with_the_first_time() -> None:
    reply = "First.\n" + (CODE + "And again.\n") * 2_000
    hearing = heard(reply)
    assert hearing.kept is not None
    assert hearing.why == say.LOOPED
    assert parse_reply(hearing.kept).cells == ("print(1)",)
    assert hearing.kept.count("again") <= 1
    assert heard("word " * 10_000).why == say.LOOPED
    assert heard([f"line {number}\n" for number in range(5_000)]).kept is None


def test_the_marks_of_reasoning_are_shown_as_reasoning_also_where_they_come_in_pieces() -> None:
    for opener, closer in [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("◁think▷", "◁/think▷"),
        ("[THINK]", "[/THINK]"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ]:
        shown: list[tuple[str, bool]] = []
        voice = Voice()
        for sign in f"{opener}Hm, 1 < 2.\n{closer}I look at x[0].\n":
            shown += voice.say(sign)
        assert "".join(text for text, thought in shown if thought).replace("<|end|>", "") == "Hm, 1 < 2.\n"
        assert "".join(text for text, thought in shown if not thought) == "I look at x[0].\n"


WORK = {
    "lines that may begin an output": lambda size: ["```repl\nx = '''\n", *["Output: 1\n"] * size],
    "blocks": lambda size: [
        f"```repl\nprint({number})\n```\nThe output:\n```\nx\n```\n" for number in range(size)
    ],
    "single signs": lambda size: [str(number % 7) for number in range(size * 20)],
    "one line": lambda size: ["".join(map(str, range(size * 5)))],
    "open tags": lambda size: [CODE, *["<think \nOutput: 1\n"] * size],
}


@pytest.mark.parametrize("name", WORK)
def test_ten_times_the_reply_takes_about_ten_times_as_long(name: str) -> None:
    assert growth(WORK[name], heard, 500) <= LIMIT


async def test_the_model_is_told_and_only_what_counts_of_the_reply_is_kept_and_sent_back() -> None:
    invented = "I look.\n```repl\nsay(context[:5])\n```\nOutput of the cell:\n98765\n\nTurn 2 of 30.\n"
    run = Run(ScriptedModels([invented + "So:\n```repl\nfail(1)\n```", "FINAL(hello there)"]))
    assert (await run.outcome()).answer == Answer("hello there")
    assert run.cells == ["say(context[:5])"]
    assert say.INVENTED in run.told()
    assert "98765" not in str(run.models.requests[-1])
    reply = run.heard.of(TurnReplied)[0].reply
    assert (reply.text, reply.finish_reason) == (invented.partition("\nOutput")[0], "stopped")
    pieces = "".join(piece.text for piece in run.heard.of(TurnPiece) if piece.turn == 1)
    assert invented.startswith(pieces)


class Live(ScriptedModels):
    """Says pieces, and then does `end`."""

    def __init__(self, *attempts: Sequence[tuple[str, bool]], fails: ModelError | None = None) -> None:
        super().__init__([])
        self._attempts, self._fails = attempts, fails
        self.said = asyncio.Event()

    async def complete(self, messages: Sequence[Message], *, watch: Watch, **options: object) -> Completion:  # type: ignore[override]
        watch.sent()
        assert watch.heard is not None
        for attempt in self._attempts:
            if attempt is not self._attempts[0]:
                watch.retrying(Retry("server error 503", 1, 5, 0.1))
            for text, thought in attempt:
                watch.heard(text, thought)
        self.said.set()
        if self._fails:
            raise self._fails
        await asyncio.Event().wait()
        raise AssertionError


async def test_an_interrupted_reply_is_told_with_its_words_and_counted_by_them() -> None:
    models = Live([("I beg", False)], [("Hm.", True), ("<think>So", False), (".</think>I look.\n", False)])
    told, ledger = Recorder(), Ledger(Limits(tokens=10_000))
    talk = Conversation(models, ledger, told, None)
    talk.begin([{"role": "user", "content": "x" * 3_706}])
    asked = asyncio.create_task(talk.ask())
    await models.said.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert told.of(TurnCutOff) == [TurnCutOff(1, "I look.", "Hm.\n\nSo.")]
    assert told.of(CallRetried)
    assert [(piece.text, piece.thought) for piece in told.of(TurnPiece)] == [
        ("I beg", False),
        ("Hm.", True),
        ("So", True),
        (".", True),
        ("I look.\n", False),
    ]
    assert 1_000 < ledger.totals().lost_tokens < 1_020


async def test_a_reply_that_outlasts_the_run_is_told_with_its_words_and_a_last_answer_is_asked_for() -> None:
    class Slow(ScriptedModels):
        async def complete(self, *arguments: object, **options: object) -> Completion:
            reply = await super().complete(*arguments, **options)  # type: ignore[arg-type]
            if reply.text.startswith("I look"):
                await asyncio.Event().wait()
            return reply

    run = Run(Slow(["I look.", "FINAL(3)"]), Limits(seconds=0.2))
    assert (await run.outcome()).answer == Answer("3", 3)
    assert run.heard.of(TurnCutOff) == [TurnCutOff(1, "I look.", "")]
    assert "I look" not in str(run.models.requests[-1])


async def test_the_words_of_a_call_that_failed_are_told_too() -> None:
    failed = ModelError("It broke off.", fault="server", model="m", attempts=1, hint="")
    told = Recorder()
    talk = Conversation(Live([("I look.\n", False)], fails=failed), Ledger(Limits()), told, None)
    talk.begin([{"role": "user", "content": "?"}])
    with pytest.raises(ModelError, match="broke off"):
        await talk.ask()
    assert told.of(TurnCutOff) == [TurnCutOff(1, "I look.\n", "")]


async def test_signed_reasoning_goes_back_unchanged_and_after_a_reply_that_was_ended_only_what_is_whole() -> (
    None
):
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "thinking", "thinking": "S"},
    ]

    class Thinking(ScriptedModels):
        async def complete(self, *arguments: object, **options: object) -> Completion:
            reply = await super().complete(*arguments, **options)  # type: ignore[arg-type]
            return Completion(reply.text, "m", Usage(), finish_reason=reply.finish_reason, thinking=blocks)

    run = Run(
        Thinking(["```repl\nsay(context)\n```", "```repl\nsay(2)\n```\nOutput: 5\n", "FINAL(hello there)"])
    )
    await run.outcome()
    back = [message for message in run.models.requests[-1] if message["role"] == "assistant"]
    assert [message["thinking"] for message in back] == [blocks, blocks[:1]]

"""A conversation that is taken up from its trace: what the root model sees again, and what code has in
`history`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_kernel.engine import messages
from rlm_kernel.engine.events import (
    CellFinished,
    CellStarted,
    Noted,
    RunFinished,
    Summarized,
    TurnCutOff,
    TurnPiece,
    TurnReplied,
    TurnStarted,
    UserCellFinished,
)
from rlm_kernel.engine.hostcalls import HostCalls, digest
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import (
    Answer,
    CellStatus,
    Completion,
    ContextInfo,
    HostCall,
    Memory,
    Message,
    Outcome,
    Totals,
)
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import ModelError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.session.conversation import conversation, full_history, recorded, turns_of
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.taken import ended
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import INFO, Recorder, Run, locate, stream
from tests.support.kept import begun, put
from tests.support.story import repl
from tests.support.trace import STORY, call, load, meta, result, tell
from tests.unit.engine.test_pictures import PNG

SUMMARY = "The first file says hello."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.ipynb"


def plain(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Messages without the line of turns and budget that ends them."""
    return [
        (message["role"], re.sub(r"\s*(Turn \d+ of \d+\.|No turn is left\.)", "", message["content"]))
        for message in messages
    ]


LONG = repl("say(context[:5] + 'x' * 2000)")


def refuse(_: Any) -> str:
    raise ModelError("The key is wrong.", fault="auth", model="scripted/root")


# The root model's messages


async def test_the_next_question_comes_after_the_same_messages_as_were_sent_live(path: Path) -> None:
    """To the letter: what a provider has in its prefix cache is found again."""
    limits = Limits(turns=9, cost=5.0, tokens=100_000)
    replies = [LONG, repl("fail()", "say(2)"), "nothing to run", repl("FINAL(int(1))")]
    first = await put(begun(path), "What?", replies, limits=limits)
    second = await put(path, "And why?", [repl("FINAL(2)")], limits=limits)
    live, taken = first.models.requests[-1], second.models.requests[0]
    assert taken[: len(live)] == live
    assert taken[len(live)] == {"role": "assistant", "content": repl("FINAL(int(1))")}
    assert f"\n\n{messages.Asked('And why?')}\n\nTurn 1 of 9." in taken[-1]["content"]
    third = await put(path, "And then?", [repl("FINAL(3)")], limits=Limits(turns=2))
    live, taken = second.models.requests[-1], third.models.requests[0]
    assert taken[: len(live)] == live, "whatever the limits are now"


async def test_what_was_said_is_the_same_whatever_it_was(path: Path) -> None:
    """Files that were named, a person's cells, remarks, the call for a last answer, pictures."""

    def with_person(run: Run) -> None:
        def person() -> None:
            ran = result("person-01", "y = 1", outputs=[stream("z" * 300)])
            run.kernel.persons = [ran]
            run.heard(UserCellFinished(ran))

        run.kernel.variables |= {"red": PNG, "person": person}

    replies = [repl("show(red)", "say('a' * 400)", "person()"), repl("say(context)"), "FINAL(a guess)"]
    options: dict[str, Any] = {"output_chars": 300, "images": True, "limits": Limits(turns=2)}
    first = await put(begun(path), "What?", replies, sees=with_person, **options)
    second = await put(path, "And why?", [repl("FINAL(2)")], **options)
    live, taken = first.models.requests[-1], second.models.requests[0]
    assert "A person ran this" in live[3]["content"]
    assert "No more code will run" in live[-1]["content"]
    assert live[3]["images"]
    assert taken[: len(live)] == live


async def test_reasoning_comes_back_as_it_was_and_never_with_a_secret_in_it(path: Path) -> None:
    signed = [{"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}]

    class Thinking(ScriptedModels):
        async def complete(self, *given: Any, **options: Any) -> Completion:
            return replace(await super().complete(*given, **options), thinking=signed)

    async def asked(thinks: Any) -> list[Any]:
        run = await put(begun(path), "What?", thinks)
        again = await put(path, "And why?", [repl("FINAL(2)")])
        assert run.models.requests
        return [message.get("thinking") for message in again.models.requests[0]]

    assert await asked(Thinking([LONG, repl("FINAL(1)")])) == [None, None, signed, None, signed, None]
    writer = NotebookWriter(path, meta("", name="work"), ["c2lnbmVk"])
    writer(TurnReplied(1, replace(Completion("Hm.", "m"), thinking=signed), ""))
    assert "thinking" not in load(path).cells[1].metadata["rlm"]
    assert "c2lnbmVk" not in str(load(path))


async def test_an_input_that_is_another_one_now_is_told_with_the_question(path: Path) -> None:
    await put(begun(path), "What?", [LONG, repl("FINAL(1)")])
    other = ContextInfo("dict", 30, [("a.txt", 11), ("b.txt", 19)], 2, "hello world")
    second = await put(path, "And now?", [repl("FINAL(2)")], info=other)
    request = second.models.requests[0]
    assert "b.txt" not in request[1]["content"], "what was said stays"
    assert "The input is another one now.\nContext: dict, 30 characters" in request[-1]["content"]
    third = await put(path, "And then?", [repl("FINAL(3)")], info=other)
    assert "The input" not in third.told(0)
    fourth = await put(path, "And back?", [repl("FINAL(4)")])
    assert "The input is another one now.\nContext: str, 11 characters" in fourth.told(0)


async def test_an_input_that_was_shown_whole_is_not_shown_again_with_the_next_questions(path: Path) -> None:
    short = replace(INFO, head="hello\nwor", whole=[("a.txt", "hello\nworld, again")])
    first = await put(begun(path), "What?", ["FINAL(1)"], info=short)
    again = await put(path, "Of what is this?\nContext: a guard asks.", ["FINAL(2)"], info=short)
    assert again.models.requests[0][:2] == first.models.requests[0]
    less_room = await put(path, "And then?", [repl("FINAL(3)")], info=replace(short, whole=[]))
    for run in (again, less_room):
        assert "The input is" not in run.told(0)
        assert str(run.models.requests[0]).count("world, again") == 1
    same_size = replace(short, whole=[("a.txt", "hello\nworld, anew!")])
    other = await put(path, "And now?", ["FINAL(4)"], info=same_size)
    assert "The input is another one now.\nContext: str" in other.told(0)
    assert "world, anew!" in other.told(0)
    grown = replace(INFO, total_chars=90_000, items=[("a.txt", 90_000)], head="hello\nwor")
    long = await put(path, "And in it?", [repl("FINAL(5)")], info=grown)
    assert "The input is another one now.\nContext: str, 90,000" in long.told(0)


async def test_an_input_of_which_the_beginning_was_shown_is_not_told_again_where_there_is_room(
    path: Path,
) -> None:
    first = await put(begun(path), "What?", [repl("say(1)"), repl("FINAL(1)")])
    seen = replace(INFO, whole=[("a", "hello world")])
    second = await put(path, "And now?", ["FINAL(2)"], info=seen)
    assert second.models.requests[0][:2] == first.models.requests[0], "the system prompt says unseen, too"
    assert "The input is" not in second.told(0)


@pytest.mark.parametrize("room", [True, False])
async def test_what_an_earlier_question_was_shown_whole_gives_way_where_the_window_is_smaller_now(
    path: Path, room: bool
) -> None:
    seen = replace(INFO, whole=[("a", "hello world")])
    await put(begun(path), "What?", ["FINAL(1)"], info=seen, limits=Limits(turns=9))
    replies = [repl("say(context)"), repl("FINAL(2)")]

    def speak(asked: Sequence[Message]) -> str:
        if "</input-" in str(asked):
            raise ModelError("The prompt is too long.", fault="too_long", model="narrow")
        return replies.pop(0)

    now = seen if room else INFO
    second = await put(path, "And now?", ScriptedModels(speak, str.upper), info=now)
    assert not replies
    taken = second.models.requests[-1]
    assert "Starts with: 'hello world'" in taken[1]["content"]
    assert "What?" in taken[1]["content"]
    assert "And now?" in taken[3]["content"]


async def test_a_summary_stands_in_place_of_the_turns_of_earlier_questions(path: Path) -> None:
    await put(begun(path), "What?", [LONG, repl("FINAL(1)")])
    second = await put(path, "And why?", [SUMMARY, LONG, repl("FINAL(2)")], verbatim=100)
    request = second.models.requests[1]
    assert [message["role"] for message in request] == ["system", "user", "assistant", "user"]
    assert request[2]["content"] == SUMMARY
    assert plain(request)[3][1] == f"{messages.AFTER_MEMORY}\n\n{messages.Asked('And why?')}"
    third = await put(path, "And then?", [repl("FINAL(3)")])
    live = second.models.requests[-1]
    assert third.models.requests[0][: len(live)] == live
    assert "xxx" in third.models.requests[0][5]["content"]


async def test_each_summary_stays_as_it_is(path: Path) -> None:
    begun(path)
    for number in range(3):
        root = [f"Summary {number}.", LONG, repl("FINAL(1)")][number == 0 :]
        await put(path, f"Question {number}?", root, verbatim=100)
    last = await put(path, "And then?", [repl("FINAL(3)")])
    said = [message["content"] for message in last.models.requests[0] if message["role"] == "assistant"]
    assert said == ["Summary 1.", "Summary 2.", LONG, repl("FINAL(1)")]


async def test_one_summary_stands_for_several_questions_which_stay_in_their_words(path: Path) -> None:
    await put(begun(path), "First?", [LONG, repl("FINAL(1)")])
    await put(path, "Second?", [repl("FINAL(2)")])
    third = await put(path, "Third?", [SUMMARY, LONG, repl("FINAL(3)")], verbatim=100)
    assert [message["role"] for message in third.models.requests[1]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    told = third.models.requests[1][-1]["content"]
    assert told.index("Second?") < told.index("Third?")
    fourth = await put(path, "Fourth?", [repl("FINAL(4)")])
    live = third.models.requests[-1]
    assert fourth.models.requests[0][: len(live)] == live


async def test_a_summary_that_an_older_version_wrote_stands_for_the_turns_of_its_question(path: Path) -> None:
    await put(begun(path), "First?", [LONG, repl("FINAL(1)")])
    await put(path, "Second?", [LONG, repl("FINAL(2)")])
    trace = read_trace(path)
    writer = NotebookWriter(path, trace.meta, [], ended(trace.node.cells))
    writer(Summarized(Memory(SUMMARY, 100, 10, True, Completion(SUMMARY, "m"))))
    writer(RunFinished(Outcome(Answer("2"), "answered"), Totals()))
    last = await put(path, "Third?", [repl("FINAL(3)")])
    said = [message["content"] for message in last.models.requests[0] if message["role"] == "assistant"]
    assert said == [LONG, repl("FINAL(1)"), SUMMARY]


async def test_a_summary_within_a_run_is_taken_up_as_it_was_live(path: Path) -> None:
    crowded = [LONG, repl("say('y' * 2000)"), SUMMARY, repl("say('after')"), repl("FINAL(1)")]

    def root(messages_: Sequence[Message]) -> str:
        return crowded.pop(0)

    first = await put(begun(path), "What?", root, share=1300 / 128_000)
    assert crowded == [], "a summary was asked for where it was expected"
    second = await put(path, "And why?", [repl("FINAL(2)")])
    live, taken = plain(first.models.requests[-1]), plain(second.models.requests[0])
    assert ("assistant", SUMMARY) in live
    assert taken[: len(live)] == live


async def test_a_question_that_was_stopped_is_followed_by_the_next(path: Path) -> None:
    await put(begun(path), "What?", [LONG, repl("FINAL(1)")])
    trace = read_trace(path)
    writer = NotebookWriter(path, trace.meta, [], ended(trace.node.cells))
    writer.question("How long?")
    writer(TurnReplied(3, Completion(repl("say(1)", "wait()", "say(3)"), "m"), ""))
    writer(CellFinished(3, result("turn-03-a", "say(1)", outputs=[stream("1")])))
    writer(CellStarted("turn-03-b", 3, "wait()"))
    writer(RunFinished(Outcome(None, "interrupted"), Totals()))
    run = await put(path, "And why?", [repl("FINAL(2)")])
    told = run.told(0)
    assert "Output of cell 1:\n1\n\nOutput of cell 2 (it raised an error):" in told
    assert "The last block did not run, because of the error above." in told
    assert told.index(messages.STOPPED) < told.index("And why?")
    assert [cell_id for cell_id, _ in run.kernel.ran] == ["turn-04-a"], "what was stopped is not run again"


async def test_words_of_a_reply_that_was_cut_off_are_kept_and_the_turn_is_begun_anew(path: Path) -> None:
    await put(begun(path), "What?", [LONG, repl("FINAL(1)")])
    trace = read_trace(path)
    writer = NotebookWriter(path, trace.meta, ["hunter2hunter2"], ended(trace.node.cells))
    writer.question("How long?")
    for _ in range(2):
        writer(TurnStarted(3))
        writer(TurnPiece(3, "I think", False))
        writer(TurnCutOff(3, "I look <b>at\nhunter2hunter2", "Hm.\n</details><script>"))
    writer(RunFinished(Outcome(None, "interrupted"), Totals()))
    kept = load(path)
    assert [each.id for each in kept.cells][-4:] == [
        "unfinished-03-1",
        "unfinished-03-2",
        "answer",
        "summary",
    ]
    shown = next(each for each in kept.cells if each.id == "unfinished-03-1")
    assert shown.source == (
        "**Turn 3 was cut off here.** Its words do not count.\n\n> I look &lt;b>at\n> [redacted]\n\n"
        "<details><summary>Reasoning: 22 characters</summary>\n\n> Hm.\n> &lt;/details>&lt;script>\n\n"
        "</details>"
    )
    assert "hunter2" not in str(kept)
    run = await put(path, "And why?", [repl("FINAL(2)")])
    assert "I look" not in str(run.models.requests)
    assert [cell_id for cell_id, _ in run.kernel.ran] == ["turn-03-a"]


async def test_an_answered_question_is_not_said_to_have_been_stopped(path: Path) -> None:
    await put(begun(path), "What?", [LONG, repl("FINAL(1)")])
    run = await put(path, "And why?", [repl("FINAL(2)")])
    assert messages.STOPPED not in run.told(0)


async def test_the_conversation_begins_with_the_first_question_that_had_a_reply(path: Path) -> None:
    await put(begun(path), "With a wrong key?", refuse)
    await put(path, "With the right one?", [LONG, repl("FINAL(1)")])
    last = await put(path, "And then?", [repl("FINAL(2)")])
    sent = last.models.requests[0]
    assert "Question: With the right one?" in sent[1]["content"]
    assert "And then?" in sent[-1]["content"]
    assert not any("wrong key" in message["content"] for message in sent)


async def test_a_question_in_between_that_had_no_reply_is_still_there(path: Path) -> None:
    await put(begun(path), "First?", [LONG, repl("FINAL(1)")])
    await put(path, "Second?", refuse)
    run = await put(path, "Third?", [repl("FINAL(3)")])
    told = run.told(0)
    assert told.index("Second?") < told.index(messages.STOPPED) < told.index("Third?")


async def test_what_a_person_ran_and_what_was_remarked_is_told_again(path: Path) -> None:
    await put(begun(path), "First?", [LONG, repl("FINAL(1)")])
    trace = read_trace(path)
    writer = NotebookWriter(path, trace.meta, [], ended(trace.node.cells))
    writer(
        UserCellFinished(
            result("person-01", "load_files(['/b.txt'])", outputs=[stream("b.txt: 3 characters")])
        )
    )
    writer(Noted("The session was taken up again."))
    told = (await put(path, "Second?", [repl("FINAL(2)")])).told(0)
    assert (
        "A person ran this in your kernel:\n```python\nload_files(['/b.txt'])\n```\nOutput:\nb.txt: 3 "
        "characters" in told
    )
    assert told.index("b.txt: 3") < told.index("The session was taken up again.") < told.index("Second?")


def test_a_trace_of_before_there_was_memory_is_taken_up(path: Path) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    trace = read_trace(path)
    first, second = turns_of(trace.cells, recorded(trace.cells))
    assert (first.number, [done.status for done in first.results], list(first.remarks)) == (
        1,
        ["ok", "error"],
        ["Write code."],
    )
    assert (second.number, [done.status for done in second.results], list(second.remarks)) == (
        2,
        ["died"],
        ["And again.", messages.answer_given("About 5.")],
    )


def test_a_cell_that_tried_a_name_from_prose_is_no_cell_of_the_reply(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    writer(TurnReplied(1, Completion("FINAL_VAR(x)", "m"), "FINAL_VAR(x)"))
    writer(CellFinished(1, result("turn-01-final", "FINAL_VAR('x')", "error")))
    trace = read_trace(path)
    (turn,) = turns_of(trace.cells, recorded(trace.cells))
    assert (turn.reply, turn.results) == ("FINAL_VAR(x)", [])


_STEPS = ["turn", "failed turn", "note", "person", "answer", "memory", "all in memory", "question", "cut off"]


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.sampled_from(_STEPS), max_size=14))
def test_any_trace_gives_a_conversation_in_which_no_question_is_lost(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asked = asyncio.run(_random_trace(Path(folder) / "t.ipynb", steps))
        run = asyncio.run(put(Path(folder) / "t.ipynb", "The last?", [repl("FINAL(context)")]))
    (request,) = run.models.requests
    assert [message["role"] for message in request] == [
        "system",
        *["user", "assistant"] * (len(request) // 2 - 1),
        "user",
    ]
    sent = "\n".join(message["content"] for message in request)
    places = [sent.find(f"Question {number}?") for number in asked]
    assert places == sorted(places)
    assert all(sent.count(f"Question {number}?") == 1 for number in asked)
    assert sent.count("The last?") == 1


async def _random_trace(path: Path, steps: Sequence[str]) -> list[int]:
    """Write it.

    The numbers of the questions that are to be in the conversation: not those before the first that had a
    reply.
    """
    writer = NotebookWriter(path, meta("Question 0?"), [])
    numbers, turn, summed, asked = itertools.count(1), 0, 0, [0]
    for step in steps:
        if step in ("turn", "failed turn", "cut off"):
            turn += 1
            writer(TurnStarted(turn))
            writer(TurnReplied(turn, Completion(repl("say(1)", "say(2)"), "m"), ""))
            status: CellStatus = "ok" if step == "turn" else "error"
            if step == "cut off":
                writer(CellStarted(f"turn-{turn:02d}-a", turn, "say(1)"))
                writer(RunFinished(Outcome(None, "interrupted"), Totals()))
            else:
                writer(CellFinished(turn, result(f"turn-{turn:02d}-a", "say(1)", status)))
        elif step == "note":
            writer(Noted("Remarked."))
        elif step == "person":
            writer(UserCellFinished(result("person", "y = 1")))
        elif step == "answer":
            writer(RunFinished(Outcome(Answer("5"), "answered"), Totals()))
        elif step in ("memory", "all in memory"):
            since = None if step == "memory" else summed + 1
            summed = turn if since is not None else summed
            writer(Summarized(Memory(SUMMARY, 100, 10, True, Completion(SUMMARY, "m"), since)))
        else:
            number = next(numbers)
            writer.question(f"Question {number}?")
            asked = [*asked, number] if turn else [number]
    return asked if turn else []


# history


async def test_history_has_every_turn_in_full_whatever_the_root_model_sees(path: Path) -> None:
    await put(begun(path), "What?", [LONG, repl("FINAL(1)")])
    root = [SUMMARY, repl("say('because')", "fail()"), repl("FINAL(str('so'))")]
    await put(path, "And why?", root, verbatim=100)
    first, second = full_history(read_trace(path))
    assert (first["question"], first["answer"]) == ("What?", "1")
    assert [turn["reply"] for turn in first["turns"]] == [LONG, repl("FINAL(1)")]
    assert first["turns"][0]["cells"] == [
        {"code": "say(context[:5] + 'x' * 2000)", "output": "hello" + "x" * 2000}
    ]
    assert (second["question"], second["answer"]) == ("And why?", "so")
    assert second["turns"][0]["cells"] == [
        {"code": "say('because')", "output": "because"},
        {"code": "fail()", "output": "ValueError: it failed"},
    ]


async def test_history_keeps_questions_apart_that_had_no_reply(path: Path) -> None:
    await put(begun(path), "First?", refuse)
    await put(path, "Second?", [LONG, repl("FINAL(2)")])
    await put(path, "Third?", refuse)
    await put(path, "Fourth?", [repl("FINAL(4)")])
    talk = [("First?", None), ("Second?", "2"), ("Third?", None), ("Fourth?", "4")]
    assert [(asked["question"], asked["answer"]) for asked in full_history(read_trace(path))] == talk
    assert conversation(read_trace(path)) == talk
    assert [len(asked["turns"]) for asked in full_history(read_trace(path))] == [0, 2, 0, 1]


def test_history_of_a_session_without_a_question_is_empty(path: Path) -> None:
    begun(path)
    assert full_history(read_trace(path)) == []
    assert conversation(read_trace(path)) == []


async def test_beyond_its_bound_history_leaves_out_the_oldest_outputs(path: Path) -> None:
    root = [
        repl("None", "say(context[:1] * 900)"),
        repl("say('b' * 900)"),
        repl("say('c' * 900)"),
        repl("FINAL(1)"),
    ]
    await put(begun(path), "What?", root)
    (asked,) = full_history(read_trace(path), 2000)
    outputs = [ran["output"] for turn in asked["turns"] for ran in turn["cells"]]
    assert outputs == ["", "[900 characters left out here: they are in the trace]", "b" * 900, "c" * 900, ""]
    assert [turn["reply"] for turn in asked["turns"]] == root


async def test_a_cell_that_looked_at_history_sees_the_same_in_a_replay(path: Path) -> None:
    """The trace has the conversation already: the record is a digest, and a replay makes the history anew, as
    that cell saw it.
    """
    writer = NotebookWriter(path, meta("What?"), [])
    saw: dict[str, Any] = {}

    def calls(cell: str, recording: Any = None) -> HostCalls:
        history = lambda cell: full_history(read_trace(path), seen_by=cell)  # noqa: E731
        made = HostCalls(
            SubCalls(None, Ledger(Limits())),
            Recorder(),
            locate,
            recording=recording,
            history=history,
        )
        made.begin(cell)
        return made

    for turn, cell in enumerate(("turn-01-a", "turn-02-a"), 1):
        writer(TurnReplied(turn, Completion("Look.", "openai/root"), "Look."))
        writer(CellStarted(cell, turn, "print(history[0])"))
        live = calls(cell)
        for number in range(3):
            saw[cell] = await live.handlers()["history"](
                HostCall(cell, f"1-1-{number}", {}, occurrence=number)
            )
        records, _ = live.end()
        assert [set(record.answer) for record in records] == [{"sha256", "bytes"}] * 3
        writer(
            CellFinished(
                turn, result(cell, "print(history[0])", calls=records, outputs=[stream("what was seen")])
            )
        )
    assert [len(turn["cells"]) for turn in saw["turn-02-a"][0]["turns"]] == [1, 1]
    writer(Noted("later"))
    for cell, seen in saw.items():
        again = calls(cell, TraceRecording(read_trace(path).cells))
        assert await again.handlers()["history"](HostCall(cell, "9-1-1", {})) == seen


async def test_the_whole_history_in_an_older_trace_is_told_as_it_stands_there(path: Path) -> None:
    told = [{"question": "What?", "turns": [], "answer": None}]
    writer = NotebookWriter(path, meta(), [])
    record = call(kind="history", prompt_digest=digest("history", {}), answer=told, model=None, cost=None)
    writer(CellFinished(1, result("turn-01-a", "history[0]", calls=(record,))))
    again = HostCalls(
        SubCalls(None, Ledger(Limits())), Recorder(), locate, recording=TraceRecording(read_trace(path).cells)
    )
    again.begin("turn-01-a")
    assert await again.handlers()["history"](HostCall("turn-01-a", "9-1-1", {})) == told


async def test_without_a_conversation_history_is_empty() -> None:
    calls = HostCalls(SubCalls(None, Ledger(Limits())), Recorder(), locate)
    calls.begin("c")
    assert await calls.handlers()["history"](HostCall("c", "1-1-1", {})) == []

"""Where the prompts and the answer of a trace come from: from the notebook, its file of prompts and the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.events import (
    CallFinished,
    CallStarted,
    CellFinished,
    CellStarted,
    RunFinished,
    TurnReplied,
)
from rlm_kernel.engine.hostcalls import digest
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Totals
from rlm_kernel.proof.findings import CallSources, Passage
from rlm_kernel.proof.pieces import pieces, words_of
from rlm_kernel.session.sources import provenance
from rlm_kernel.session.traces import new_writer
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.schema import FileMeta
from tests.support.trace import call, meta, result, tell

TEXT = "The harbour of Marl was closed on 12 April 1873, after the ice had broken 214 of its piles. " * 1
OTHER = "Nothing else that is told of Marl in the chronicle of Adam Brenner has been believed by anybody. "


def write(
    folder: Path, prompts: list[tuple[str, str]], answer: str, *, kept: str = "full", lie: str = ""
) -> Path:
    """A trace with calls; `lie`: what the file of prompts has in place of what was asked."""
    (folder / "a.txt").write_text(OTHER + TEXT + OTHER, "utf-8")
    path = folder / "t.ipynb"
    files = [FileMeta(path=str(folder / "a.txt"), size=2 * len(OTHER) + len(TEXT))]
    writer = new_writer(path, meta(files=files), Settings(trace={"prompts": kept}))  # type: ignore[arg-type]
    tell(
        writer,
        [TurnReplied(1, Completion("I look.", "openai/root"), "I look."), CellStarted("turn-01-a", 1, "x")],
    )
    made: list[Any] = []
    for number, (prompt, said) in enumerate(prompts, 1):
        known = digest("llm_query", {"prompt": prompt, "model": None})
        tell(writer, [CallStarted("turn-01-a", f"7-1-{number}", "llm_query", lie or prompt, None, known)])
        made.append(call(number, prompt_digest=known, preview=prompt[:200], answer=said))
        tell(writer, [CallFinished("turn-01-a", made[-1])])
    tell(writer, [CellFinished(1, result("turn-01-a", "x", calls=made))])
    tell(writer, [RunFinished(Outcome(Answer(answer), "answered"), Totals(1, len(made)))])
    return path


def test_a_piece_of_the_answer_leads_to_the_call_and_to_the_passage(tmp_path: Path) -> None:
    trace = write(
        tmp_path,
        [(f"When?\n{TEXT}", "It was closed on 12 April 1873."), ("Say hello.", "Hello.")],
        "The harbour was closed in 1873. The weather was fine.",
    )
    found = provenance(read_trace(trace))
    one, two = found.sources.calls[1], found.sources.calls[2]
    assert one.state == two.state == "full"
    assert [(place.start, place.exact) for place in one.passages[0].places] == [(len(OTHER), True)]
    assert two.passages == ()
    closed, weather = found.answer.pieces
    assert [seen.call for seen in closed.seen] == [1]
    assert closed.guess, "a year alone may stand anywhere"
    assert weather.seen == ()
    (file,) = found.sources.files
    assert (file.calls, file.why) == ([1], "")
    assert file.read >= len(TEXT) - 2


def test_a_prompt_that_was_not_asked_is_not_searched(tmp_path: Path) -> None:
    trace = write(tmp_path, [("Say hello.", "Hello.")], "Hello.", lie=f"When? {TEXT}")
    found = provenance(read_trace(trace))
    assert (found.sources.calls[1].state, found.sources.calls[1].passages) == ("differs", ())
    assert any("do not match the recorded digests" in why for why in found.sources.trouble)


def test_of_a_prompt_of_which_only_the_beginning_is_kept_that_is_said(tmp_path: Path) -> None:
    trace = write(tmp_path, [(f"When? {TEXT * 3}", "1873")], "1873", kept="preview")
    found = provenance(read_trace(trace))
    assert found.sources.calls[1].state == "beginning"
    assert found.sources.calls[1].passages
    assert any("first 200 characters" in why and "rlm replay" in why for why in found.sources.trouble)


def test_a_file_that_is_gone_is_named_and_the_rest_is_told(tmp_path: Path) -> None:
    trace = write(tmp_path, [(f"When? {TEXT}", "In 1873.")], "In 1873.")
    (tmp_path / "a.txt").unlink()
    found = provenance(read_trace(trace))
    assert found.sources.files[0].why
    assert [seen.call for seen in found.answer.pieces[0].seen] == [1]


def test_answers_are_taken_apart_by_what_they_are() -> None:
    assert list(pieces('{"a": [1, {"b": "x"}], "c": null}')) == [("a[0]", "1"), ("a[1].b", "x")]
    assert [text for _, text in pieces("| a | b |\n|---|---|\n| 1 | 2 |")] == ["a | b", "1 | 2"]
    assert [text for _, text in pieces("# Title\n- One. Two follows.\n2. Three")] == [
        "Title",
        "One.",
        "Two follows.",
        "Three",
    ]
    assert words_of('It cost 48,213 euros, said "Hansen Brothers" of run_1.') == [
        "Hansen Brothers",
        "48,213",
        "run_1",
    ]


def test_characters_of_a_prompt_in_two_passages_count_once() -> None:
    passages = tuple(Passage(start, end, "", ()) for start, end in ((50, 100), (0, 60), (20, 30), (120, 130)))
    assert CallSources(1, "turn-01-a", "llm_query", 130, "full", passages).found == 110

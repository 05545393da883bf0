"""Prices in what a notebook shows are not read as formulas."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
import pytest

from rlm_kernel._version import __version__
from rlm_kernel.engine.events import RunFinished, TurnReplied, TurnStarted
from rlm_kernel.engine.protocols import Answer, Completion, Evidence, Outcome, Totals
from rlm_kernel.proof.shown import check_shown
from rlm_kernel.trace.dollars import SIGN, shown, without
from rlm_kernel.trace.prompts import open_prompts
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import meta, tell

PRICES = (
    "It rose from $5 to $10.\n\n| item | price |\n| --- | --- |\n| a | $5 |\n| b | **$6** |\n\n$x^2$ and $y$"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from $5 to $10", "from @5 to @10"),
        ("| a | $5 |\n| b | $6 |", "| a | @5 |\n| b | @6 |"),
        ("**$5**, **$6** and 7$, 8$", "**@5**, **@6** and 7@, 8@"),
        ("$5 (US$), $5M to US$", "@5 (US@), @5M to US@"),
        (r"\$5 and \$6", "@5 and @6"),
        ("$HOME:$PATH", "@HOME:@PATH"),
        ("| Price ($) | Cost ($) |", "| Price (@) | Cost (@) |"),
        ("[$], **$**, '$', $/kg and €/$", "[@], **@**, '@', @/kg and €/@"),
        ("in $M and US$", "in @M and US@"),
        ("($x$), $]0,1[$, $|x|$, $x^*$, $f'$", "($x$), $]0,1[$, $|x|$, $x^*$, $f'$"),
        ("cheap ($), dear ($$), dearer ($$)", "cheap (@), dear (@@), dearer (@@)"),
        ("a $5\n- b $6\n\n`$7` `$8` $9", "a @5\n- b @6\n\n`$7` `$8` @9"),
        ("```\n$5 $6\n```\n$7 $8", "```\n$5 $6\n```\n@7 @8"),
        ("one:\n\n    echo $a $b\n", "one:\n\n    echo $a $b\n"),
        ("[a $5](http://x/$y) https://x/?a=$b $6", "[a @5](http://x/$y) https://x/?a=$b @6"),
        ("$x^2$ and 设$2x$为 $3 \\times 4$ for $5", "$x^2$ and 设$2x$为 $3 \\times 4$ for @5"),
        ("$$\nx^2 + y\n$$", "$$\nx^2 + y\n$$"),
        ("costs $5.\n\nand $6.", "costs $5.\n\nand $6."),
    ],
)
def test_prices_are_no_formulas_and_formulas_code_and_links_stay(text: str, expected: str) -> None:
    assert shown(text) == expected.replace("@", SIGN)
    assert without(shown(text)) == without(text)


def test_the_time_grows_with_the_text() -> None:
    texts = [
        "$" * 300_000,
        "".join("`" * count + "$" for count in range(800)),
        "\n \n$$" * 60_000,
        "$" + "1 " * 150_000 + "$",
    ]
    began = time.process_time()
    for text in texts:
        shown(text)
    assert time.process_time() - began < 10


def test_a_trace_of_prices_and_one_of_before_are_what_their_records_say(tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    writer = NotebookWriter(path, meta("Is it $5 or $10?", rlm_version=__version__), [])
    reply = Completion(f"It is $5 or $6.\n\n```repl\nFINAL({PRICES!r})\n```", "m")
    passage = Evidence(1, "/a.txt", 0, 20, "R&D cost $5, P&L $6")
    ended = RunFinished(Outcome(Answer(PRICES, evidence=(passage,)), "answered"), Totals())
    tell(writer, [TurnStarted(1), TurnReplied(1, reply, "It is $5 or $6."), ended])
    sources = {cell.id: cell.source for cell in read_trace(path).cells}
    for cell in ("title", "answer"):
        assert f"from {SIGN}5 to {SIGN}10" in sources[cell]
        assert f"| b | **{SIGN}6** |" in sources[cell]
        assert "$x^2$ and $y$" in sources[cell]
    assert "<pre>R&amp;D cost &#36;5, P&amp;L &#36;6</pre>" in sources["answer"]
    assert f"# Is it {SIGN}5 or {SIGN}10?" in sources["title"]
    assert f"It is {SIGN}5 or {SIGN}6." in sources["turn-01"]

    def verdict() -> str:
        trace = read_trace(path)
        with open_prompts(trace) as prompts:
            return check_shown(trace, prompts).verdict

    assert verdict() == "holds"
    path.write_text(path.read_text().replace(SIGN, "$").replace("&#36;", "$"))
    assert verdict() == "holds"
    notebook = nbformat.read(path, 4)
    notebook.cells[0].source = notebook.cells[0].source.replace("from $5 to", "from $4 to")
    nbformat.write(notebook, path)
    assert verdict() == "broken"

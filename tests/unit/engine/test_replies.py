from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlm_kernel.engine import python
from rlm_kernel.engine.drafts import without_drafts
from rlm_kernel.engine.finals import ProseFinal, is_template, meaning
from rlm_kernel.engine.python import looks_at_input
from rlm_kernel.engine.replies import Reply, parse_reply

FENCE = "```"


@pytest.mark.parametrize("language", ["repl", "python", "py", "Python", "python3", "REPL", "repl title=a"])
def test_a_fenced_block_is_a_cell(language: str) -> None:
    assert parse_reply(f"I look.\n\n{FENCE}{language}\nprint(1)\n{FENCE}\nDone.") == Reply(
        ("print(1)",), "I look.\n\nDone.", None
    )


def test_several_blocks_are_cells_in_order() -> None:
    reply = parse_reply("a\n```repl\nx = 1\n```\nb\n```python\nprint(x)\n\n```\nc")
    assert reply.cells == ("x = 1", "print(x)\n")
    assert reply.prose == "a\nb\nc"


def test_tilde_fences_count_and_may_hold_backticks() -> None:
    assert parse_reply('~~~repl\ntext = """\n```\n"""\n~~~').cells == ('text = """\n```\n"""',)


def test_an_unclosed_fence_reaches_to_the_end() -> None:
    assert parse_reply("Now:\n```repl\nx = 1\nprint(x)") == Reply(
        ("x = 1\nprint(x)",), "Now:", None, unclosed=True
    )


def test_a_longer_fence_holds_shorter_ones() -> None:
    code = 'prompt = """\n```json\n{}\n```\n"""'
    assert parse_reply(f"````repl\n{code}\n````").cells == (code,)


def test_a_fence_further_in_than_its_block_is_part_of_the_code() -> None:
    code = 'if True:\n    prompt = """\n    ```\n    text\n    ```"""'
    assert parse_reply(f"```repl\n{code}\n```").cells == (code,)


def test_a_longer_closing_fence_closes() -> None:
    assert parse_reply("```repl\nx = 1\n`````\nafter").prose == "after"


def test_a_block_in_a_list_loses_the_indentation_of_its_fence() -> None:
    reply = parse_reply(
        "1. First\n   ```\n   for i in x:\n       print(i)\n   ```\n2. Then\n      ```repl\n      y = 2\n   "
        "   ```"
    )
    assert reply.cells == ("for i in x:\n    print(i)", "y = 2")


def test_windows_line_ends_are_line_ends() -> None:
    assert parse_reply("```repl\r\nx = 1\r\ny = 2\r\n```\r\n").cells == ("x = 1\ny = 2",)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_other_line_separators_in_a_string_stay(separator: str) -> None:
    code = f"parts = context.split('{separator}')"
    assert parse_reply(f"```repl\n{code}\n```").cells == (code,)


@pytest.mark.parametrize(
    ("block", "cells"),
    [
        ("x = 1\nprint(x)", ("x = 1\nprint(x)",)),
        ("The answer is 42.", ()),
        ("re.findall('\\d', context)", ("re.findall('\\d', context)",)),
        ("await allm_query('a')", ("await allm_query('a')",)),
        ("", ()),
        ("  \n ", ()),
    ],
)
def test_a_block_without_a_language_is_a_cell_if_it_is_python(block: str, cells: tuple[str, ...]) -> None:
    assert parse_reply(f"{FENCE}\n{block}\n{FENCE}").cells == cells


def test_blocks_of_other_languages_are_prose_and_their_labels_are_told() -> None:
    text = "So:\n```json\n{}\n```\n```bash\nls\n```\nthere"
    assert parse_reply(text) == Reply((), text, None, labels=("json", "bash"))


def test_an_empty_block_is_no_cell() -> None:
    assert parse_reply("```repl\n\n```").cells == ()


def test_inline_code_is_prose() -> None:
    assert parse_reply("I use ```x``` and `y`.\n```repl x```") == Reply(
        (), "I use ```x``` and `y`.\n```repl x```", None
    )


@pytest.mark.parametrize(
    "text", ["", "I think it is Paris.", "Wait", "answer: 42", "42", "x == y", '"quoted"']
)
def test_prose_is_no_code(text: str) -> None:
    assert parse_reply(text) == Reply((), text, None)


@pytest.mark.parametrize(
    "code",
    [
        "print(len(context))",
        "import re\nhits = re.findall('\\w', context)\nhits[:5]",
        "x = 1",
        "x = 2\nFINAL(x)",
    ],
)
def test_bare_code_without_a_fence_is_a_cell(code: str) -> None:
    assert parse_reply(f"\n{code}\n") == Reply((code,), "", None)


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("for i in x:\n\u00a0\u00a0print(i)", "for i in x:\n  print(i)"),
        ("x\u200b = '\u00a0'\nprint(x)", "x = '\u00a0'\nprint(x)"),
        ("print(“it is”, ‘so’)", "print(\"it is\", 'so')"),
        ("if 3 &lt; 4 and &quot;a&quot;:\n    print(1)", 'if 3 < 4 and "a":\n    print(1)'),
        ('x = "a"\\nprint(x)', 'x = "a"\nprint(x)'),
        ("1: if x:\n2:     print(x)", "if x:\n    print(x)"),
        ("+ if x:\n+     print(x)", "if x:\n    print(x)"),
        ("+if x:\n+    print(x)", "if x:\n    print(x)"),
        ("print('“ &lt; \\n \u00a0')", "print('“ &lt; \\n \u00a0')"),
        ("print(1", "print(1"),
    ],
)
def test_code_is_mended_only_where_it_does_not_parse_and_then_does(block: str, code: str) -> None:
    assert parse_reply(f"```python\n{block}\n```").cells == (code,)


@pytest.mark.parametrize(
    "reply",
    [
        "```python\nprint(1)\n\u00a0```\u200b\nDone.",
        "\ufeff```python\nprint(1)\n```",
        "```python\rprint(1)\r```",
        "```python\\nprint(1)\\n```",
        "```markdown\nI look.\n```python\nprint(1)\n```\n```",
        "python\nprint(1)",
        '<pre><code class="python">print(1)</code></pre>',
    ],
)
def test_code_is_found_however_its_fences_came(reply: str) -> None:
    assert parse_reply(reply).cells == ("print(1)",)


@pytest.mark.parametrize(
    ("prose", "kind", "text"),
    [
        ("FINAL(42)", "FINAL", "42"),
        ("So it is clear.\n\n  FINAL(42)  \n", "FINAL", "42"),
        ("FINAL(f(x) and (g(y)))", "FINAL", "f(x) and (g(y))"),
        ("FINAL(It's the dog's bone (isn't it))", "FINAL", "It's the dog's bone (isn't it)"),
        ("FINAL(one\ntwo (2)\nthree)\nThat's it.", "FINAL", "one\ntwo (2)\nthree"),
        ("FINAL_VAR(report)", "FINAL_VAR", "report"),
        ('FINAL_VAR("report")', "FINAL_VAR", '"report"'),
        ("FINAL(never closed", "FINAL", "never closed"),
        ("FINAL()", "FINAL", ""),
        ("FINAL(first)\nNo:\nFINAL(second)", "FINAL", "second"),
        ('FINAL("1) one, 2) two")', "FINAL", '"1) one, 2) two"'),
        ("FINAL('''1) one\n2) two''')", "FINAL", "'''1) one\n2) two'''"),
        ("FINAL('tis so (they say))", "FINAL", "'tis so (they say)"),
        ('FINAL("a" is (b))', "FINAL", '"a" is (b)'),
        ("FINAL（北京（中国））", "FINAL", "北京（中国）"),
        ("FINAL(3）", "FINAL", "3"),
        ("FINAL(len(rows))  # all of them", "FINAL", "len(rows)"),
        ("FINAL(1) one, 2) two (2))", "FINAL", "1) one, 2) two (2)"),
    ],
)
def test_an_answer_in_prose_reaches_to_its_balanced_parenthesis(prose: str, kind: str, text: str) -> None:
    found = parse_reply(prose).final
    assert found is not None
    assert (found.kind, found.text) == (kind, text)


@pytest.mark.parametrize(
    "reply",
    [
        "```repl\nFINAL(1)\n```",
        "```text\nFINAL(1)\n```",
        "I shall call FINAL(1) then.",
        "FINAL(1) is my answer.",
        "FINAL(1) is my answer (I looked twice).",
        "FINALLY(1)",
        "FINAL 1",
        "final(1)",
        "- FINAL(1)",
    ],
)
def test_other_mentions_of_final_are_no_answer_in_prose(reply: str) -> None:
    assert parse_reply(reply).final is None


def test_an_answer_beside_code_is_found_with_the_code() -> None:
    assert parse_reply("```repl\nprint(1)\n```\nFINAL(1)") == Reply(
        ("print(1)",), "FINAL(1)", ProseFinal("FINAL", "1")
    )


@pytest.mark.parametrize(
    ("code", "looks"),
    [
        ("print(context[:5])", True),
        ("hits = grep('x')", True),
        ("for piece in chunks(100): pass", True),
        ("x = 'context'", False),
        ("print(1)", False),
        ("obj.context", False),
        ("!head file", True),
    ],
)
def test_code_that_mentions_the_input_looks_at_it(code: str, looks: bool) -> None:
    assert looks_at_input(code) is looks


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "-" * 50_000 + "1",
        "a" + ".b" * 50_000,
        "1+" * 50_000 + "1",
        "f" + "(1)" * 50_000,
        "\0",
        "x\0=1",
    ],
)
def test_code_that_no_parser_can_take_is_no_error(text: str) -> None:
    assert parse_reply(text).final is None
    parse_reply(f"{FENCE}\n{text}\n{FENCE}")
    looks_at_input(text)


def test_lone_surrogates_do_not_reach_the_kernel() -> None:
    reply = parse_reply("a\ud800\n```repl\nx = '\udcff'\n```\nFINAL(\ud800)")
    "".join([*reply.cells, reply.prose, reply.final.text if reply.final else ""]).encode()


def test_a_models_invalid_escapes_warn_nobody() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert parse_reply("```\nre.findall('\\d', context)\n```").cells
        looks_at_input("'\\d' is context")
    assert caught == []


@pytest.mark.parametrize(
    "line",
    ["```" + "a" * 200_000 + "`", "```" + " " * 200_000 + "`", "FINAL(" * 30_000, 'FINAL("' + "\\" * 99_999],
)
def test_long_lines_take_no_long_time(line: str) -> None:
    started = time.monotonic()
    parse_reply(line)
    assert time.monotonic() - started < 2


_PIECES = st.sampled_from(
    [
        "```",
        "````",
        "~~~",
        "```repl\n",
        "```python",
        "`",
        "\n",
        "\r\n",
        " ",
        "    ",
        "FINAL(",
        "FINAL_VAR(",
        ")",
        "(",
        "'",
        '"',
        '"""',
        "\\",
    ]
)
_TEXT = st.lists(_PIECES | st.text(max_size=8) | st.characters(codec=None), max_size=30).map("".join)


@given(_TEXT)
def test_no_text_raises(text: str) -> None:
    reply = parse_reply(text)
    assert all(cell.strip() for cell in reply.cells)
    for cell in reply.cells:
        looks_at_input(cell)
    if reply.final:
        meaning(reply.final.text)
        is_template(reply.final.text)
    without_drafts(text)


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=40), min_size=1, max_size=5
    )
)
def test_blocks_come_back_as_they_were_written(codes: list[str]) -> None:
    assume(all(python.as_meant(code) == code for code in codes))
    # A string that is still open goes on behind a fence.
    assume(not any(quotes in code for code in codes for quotes in ("'''", '"""')))
    fence = "`" * (max(len(code) for code in codes) + 3)
    text = "\n".join(f"prose\n{fence}repl\n{code}\n{fence}" for code in codes)
    assert parse_reply(text).cells == tuple(code for code in codes if code.strip())


@given(st.text(st.characters(codec="utf-8", exclude_characters="()\"'\r"), max_size=60), st.integers(0, 5))
def test_balanced_answers_come_back_whole(text: str, depth: int) -> None:
    answer = "(" * depth + text + ")" * depth
    final = parse_reply(f"So:\nFINAL({answer})").final
    if not any(line.lstrip().startswith(("```", "~~~")) for line in text.split("\n")):
        assert final is not None
        assert final.text == answer.strip()

"""Any code, wrapped in any of the ways in which models wrap it, comes out as it was; and no reply takes long
to read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlm_kernel.engine import python
from rlm_kernel.engine.drafts import without_drafts
from rlm_kernel.engine.replies import parse_reply
from tests.support.growth import LIMIT, growth


def _lines(code: str, by: str) -> str:
    return "\n".join(by + line for line in code.split("\n"))


WRAPS: dict[str, Callable[[str], str]] = {
    "fence": lambda code: f"I look.\n```repl\n{code}\n```\nThen I go on.",
    "other label": lambda code: f"```ipython3\n{code}\n```",
    "attributes": lambda code: f'```python title="a.py"\n{code}\n```',
    "no label": lambda code: f"```\n{code}\n```\ndone",
    "longer fence": lambda code: f"````python\n{code}\n````",
    "after words": lambda code: f"Here: ```python\n{code}\n```\nThat is all.",
    "closer glued": lambda code: f"```python\n{code}```\nThat is all.",
    "closer with words": lambda code: f"```python\n{code}\n``` That is all.",
    "never closed": lambda code: f"```python\n{code}",
    "list item": lambda code: f"1. First:\n   ```python\n{_lines(code, '   ')}\n   ```\n2. Then.",
    "list marker": lambda code: f"- ```python\n{_lines(code, '  ')}\n  ```",
    "quote": lambda code: f"> ```python\n{_lines(code, '> ')}\n> ```",
    "indented": lambda code: f"So:\n\n    ```python\n{_lines(code, '    ')}\n    ```",
    "tag": lambda code: f"<execute>\n{code}\n</execute>\nThen I go on.",
    "thoughts before": lambda code: "<think>\nPerhaps:\n```python\nprint('no')\n```\nno\n</think>\n"
                                    f"```python\n{code}\n```",
    "opener missing": lambda code: f"Perhaps so (it's odd).\n</think>\n\n```python\n{code}\n```",
    "channels": lambda code: "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>```python\n"
                             f"{code}\n```<|return|>",
    "end of turn": lambda code: f"```python\n{code}\n```<|im_end|>",
    "before an output": lambda code: f"```python\n{code}\n```\nOutput:\n```\n3\n```",
    "Windows": lambda code: f"I look.\n```repl\n{code}\n```\nThen.".replace("\n", "\r\n"),
}  # fmt: skip
_INNER = st.sampled_from(
    ["```\ntext\n```", "```json\n{}\n```", "```python\nx = 1\n"
                                           "```", "~~~\na\n~~~", "    ```", "```", "<think>no</think>", "</think>", "<|im_end|>", "> q", "- a",
     "\\n \\\\", "FINAL(7)", "it's (so", "``` x", "\x0c", "\u2028", "é🎉", "`a`", "Output:", "", "# no", "{x}", "<code>", "</execute>"]
)  # fmt: skip
_STATEMENTS = st.one_of(
    st.sampled_from(["print(len(context))", "x = 1", "for i in range(3):\n    "
                                                     "print(i)", "import re", "# takes ``` off", "if True:\n"
                                                                                                 "\n    x = 2\n",
                     "parts = text.split('```')", 'y = r"\\d```"', "z = f'{x!r}'", "%time x = 1", "def f(a):\n"
                                                                                                  "    return "
                                                                                                  "(a\n        + 1)", "s = 'it\\'s'"]),
    st.builds(lambda lines, quote: f"p = f{quote}{chr(10).join(lines)}\n"
                                   f".{quote}", st.lists(_INNER, max_size=6), st.sampled_from(['"""', "'''"])),
    st.builds(lambda text: f"t = {text!r}", st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)),
)  # fmt: skip
CODES = st.lists(_STATEMENTS, min_size=1, max_size=5).map(lambda parts: "\n".join([*parts, "print(1)"]))


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@given(code=CODES)
def test_code_comes_out_of_its_wrapping_byte_for_byte(wrap: Callable[[str], str], code: str) -> None:
    assume(python.parses(code) and "</execute>" not in code if wrap is WRAPS["tag"] else python.parses(code))
    text, _ = without_drafts(wrap(code))
    assert parse_reply(text).cells == (code,)


_MEGA = 1_000_000
HOSTILE = {
    "backticks": "`" * _MEGA,
    "tildes": "~" * _MEGA,
    "quotes": ">" * _MEGA,
    "list marks": "- " * (_MEGA // 2),
    "parentheses": "(" * _MEGA,
    "an answer of parentheses": "FINAL(" + "(" * _MEGA,
    "an answer that closes for ever": "FINAL(" + ")" * _MEGA,
    "an answer of quotes": "FINAL(" + "'" * _MEGA,
    "tags": "<think>" * (_MEGA // 7),
    "tags in a tag": "<code>" + "<tool_call>" * (_MEGA // 11),
    "braces": "{" * _MEGA,
    "a fence and spaces": "```" + " " * _MEGA + "`",
    "spaces": " " * _MEGA,
    "channels": "<|channel|>" * (_MEGA // 11),
    "inline code": "`a" * (_MEGA // 2),
    "stars": "*" * _MEGA + "FINAL(",
    "a string without an end": "```python\n'''" + "x" * _MEGA,
    "words": "```python " + "a " * (_MEGA // 2) + "\nx\n```",
}
MANY = {
    "fences": "```\n",
    "labelled fences": "```python\n",
    "fences after words": "a ```\n",
    "strings without an end": "```python\n'''\n```\n",
    "escaped strings": "```python\n\\'''\n```\n",
    "lists": "- a\n",
    "quotes": "> > > a\n",
    "answers": "FINAL(\n",
    "closed answers": "FINAL(a) b\n",
    "thoughts": "a <think> b</think>\n",
    "ends of thoughts": "</think>\n",
    "tags": "<code>\n",
    "tokens": "<|python_tag|>\n",
    "ends": "<|im_end|>a\n",
    "prompts": ">>> f(x)\n",
    "indented fences": " " * 300 + "```python\n",
}


@pytest.mark.parametrize("line", ["- a\n", "1. a\n", "> a\n", "-\n"])
def test_a_megabyte_of_lists_is_read_in_a_moment(line: str) -> None:
    assert _seconds(line * (_MEGA // len(line))) < 2


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_reply_of_a_megabyte_is_read_in_a_moment(text: str) -> None:
    assert _seconds(text) < 1.5


@pytest.mark.parametrize("line", MANY.values(), ids=MANY)
def test_time_grows_with_the_length_of_a_reply(line: str) -> None:
    assert growth(lambda size: line * (size // len(line)), _read, 10_000) <= LIMIT


def _read(text: str) -> None:
    parse_reply(without_drafts(text)[0])


def _seconds(text: str) -> float:
    started = time.process_time()
    _read(text)
    return time.process_time() - started

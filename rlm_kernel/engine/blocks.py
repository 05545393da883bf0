"""The blocks of a reply: a grammar on markdown-it's CommonMark tokenizer, which knows lists and quotes.

Its rule for fences is replaced by one that reads Python. Three backticks outside of strings and comments are
no Python, so a block of code ends there and nowhere else, be it in the middle of a line. Markdown's own rule,
a line that is a fence alone, holds where the code does not parse. A text of any form costs time in proportion
to its length.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rlm_kernel.engine import python
from rlm_kernel.engine.finals import FINAL, ProseFinal, final_at

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.ruler import RuleOptionsType
    from markdown_it.rules_block import StateBlock

Language = Literal["python", "output", "other", "unknown", ""]
"""What a label says: Python; what code gave, or plain text; another language; nothing that is known; there is
none.
"""

_OPEN = re.compile(
    r"(?P<words>(?!~~~)[^`\n]*+(?:`{1,2}+(?!`)[^`\n]*+)*+)?+(?P<marks>`{3,}+|~{3,}+)[ "
    r"\t]*+(?P<info>[^`\n]*+)$"
)
_ONE_LINE = re.compile(r"(?P<marks>`{3,}+)[ \t]*+(?P<info>[^`\n]++)(?P=marks)[ \t]*+$")
_CLOSE = re.compile(r"[\s\u200b\ufeff]*+(?P<marks>`{3,}+|~{3,}+)[\s\u200b\ufeff]*+$")
_REOPEN = re.compile(r"`{3,}+[ \t]*+(?P<info>[^\s`]++)[ \t]*+$")
_LABEL = re.compile(r"[\w.+#:/-]*|\{[^{}\n]*\}")
_ATTRIBUTES = re.compile(r"""(?:\{[^{}]*\}|[\w:.-]+=(?:"[^"]*"|'[^']*'|[^\s"'=]+)|[\w.:/-]+)(?:[ ,]+|$)""")
_PYTHON = re.compile(r"i?py|repl\b|jupyter|notebook|tool_?code\b|code_?interpreter|(?:exec|run).*py")
_OUTPUT = re.compile(
    r"out(?:put)?s?\b|.*_out(?:put)?s?\b|results?\b|std(?:out|err)|observations?\b|response|plain|txt\b|text\b|none\b|logs?\b"
)
_TAG = re.compile(
    r"<(?P<name>[A-Za-z][\w:.=-]*)(?:[ "
    r"\t][^<>\n]*)?>|\[(?P<square>[A-Z_]{4,30})\]|<[|｜](?P<token>[^|｜<>\s]{1,40})[|｜]>"
)
_CALLS = frozenset(
    {
        "code",
        "python",
        "py",
        "ipython",
        "repl",
        "execute",
        "exec",
        "run",
        "tool",
        "call",
        "calls",
        "function",
        "invoke",
        "parameter",
        "arg",
    }
    | {"script", "cell", "action", "interpreter", "jupyter", "value", "argument", "pre"}
)
"""Words in the names of tags that models put around code."""
_END_TAGS_BACKWARDS = re.compile(r"\s*+(?:>[\w:.-]++/<\s*+)++")
"""End tags at the end of a text, which is searched from its end: each place of it is looked at once."""
_FENCED = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_TAGGED = 200_000
"""Characters between tags beyond which they hold no code that a model wrote."""
_LINES = 30_000
"""Lines from which on a reply is read without lists and quotes: no model writes so many."""
_LOOKS = 20
"""How often each line may be looked at on average, with 10,000 looks besides, until a reply is read without
lists and quotes: markdown-it reads some of these, of which one holds the next, again from each of their
lines.
"""
_READ_AGAIN = 3, 100_000
"""How often, and of how many characters besides, a reply may be read to its end for a string or a tag that
ends far away.
"""


@dataclass
class Block:
    """A part of a reply that is not prose: a fenced block, tagged code, or FINAL in prose.

    It has the lines `first` up to `end`.

    `label`: as it was written. `before` and `after`: words on its first and last line that are none of it.
    """

    first: int
    end: int
    code: str = ""
    label: str = ""
    language: Language = ""
    closed: bool = True
    before: str = ""
    after: str = ""
    final: ProseFinal | None = None


@dataclass
class _Found:
    """What was found so far.

    `room`: characters that may be read again. `looks`: that may be taken at lines. `open`: fences, with the
    line from which on nothing closes them.
    """

    room: int
    looks: float
    blocks: list[Block] = field(default_factory=list)
    open: dict[tuple[str, int, int], int] = field(default_factory=dict)

    def afford(self, characters: int) -> bool:
        self.room -= characters
        return self.room >= 0


def blocks_of(text: str) -> list[Block]:
    """The blocks of a text, in order. Its lines end with a line feed alone."""
    if not text.strip():
        return []
    lines = text.count("\n") + 1
    if lines <= _LINES:
        with contextlib.suppress(_TooNested):
            return _blocks(text, nested=True, looks=_LOOKS * lines + 10_000)
    return _blocks(text, nested=False, looks=float("inf"))


def _blocks(text: str, *, nested: bool, looks: float) -> list[Block]:
    found = _Found(_READ_AGAIN[0] * len(text) + _READ_AGAIN[1], looks)
    grammar = _grammar(nested)
    grammar.block.parse(text, grammar, {"found": found}, [])
    return found.blocks


class _TooNested(Exception):
    pass


@functools.cache
def _grammar(nested: bool) -> MarkdownIt:
    """`nested`: with lists and quotes, which take ten times as long for each line."""
    from markdown_it import MarkdownIt

    grammar = MarkdownIt("zero")
    ruler = grammar.block.ruler
    ruler.enable(["blockquote", "list"] if nested else [])
    above: RuleOptionsType = {"alt": ["blockquote", "list"]}
    # Behind them: the mark of a list or a quote is no word before a fence.
    ruler.after("list", "tagged", _tagged, above)
    ruler.after("list", "code_block", _fence, above)
    ruler.after("list", "final_answer", _final, above)
    ruler.at("paragraph", _line)
    ruler.enable("paragraph")
    return grammar


def _line(state: StateBlock, start: int, _end: int, _silent: bool) -> bool:
    state.line = start + 1
    return True


def _final(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """FINAL(...) at the start of a line. In a list it is a step of a plan."""
    if state.parentType == "list" or not FINAL.match(_text(state, start)):
        return False
    if silent:
        return True
    last = start + 1
    fenced = False
    while last < end and (fenced or not FINAL.match(_text(state, last))):
        fenced ^= _text(state, last).startswith(("```", "~~~"))
        last += 1
    text = state.getLines(start, last, state.blkIndent, False)
    final, length = final_at(text)
    lines = text.count("\n", 0, length) + 1
    if final is None:
        return False
    state.env["found"].blocks.append(Block(start, start + lines, final=final))
    state.line = start + lines
    return True


def _fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    found: _Found = state.env["found"]
    found.looks -= 1
    if found.looks < 0:
        raise _TooNested
    line = _text(state, start)
    if "```" not in line and "~~~" not in line:
        return False
    if (one := _ONE_LINE.match(line)) and not silent:
        return _one_line(state, start, one["info"])
    opened = _OPEN.match(line)
    if opened is None:
        return False
    if opened["words"] and (silent or not _LABEL.fullmatch(opened["info"].strip())):
        return False
    if silent:
        return True
    block = _read(state, start, end, opened, found)
    if block.before and not block.closed:
        return False  # three backticks in a sentence
    found.blocks.append(block)
    state.line = block.end
    return True


def _one_line(state: StateBlock, start: int, info: str) -> bool:
    label, _, code = info.strip().partition(" ")
    if language(label) != "python" or not python.acts(code.strip()):
        return False
    state.env["found"].blocks.append(Block(start, start + 1, code.strip(), label, "python"))
    state.line = start + 1
    return True


def _read(state: StateBlock, start: int, end: int, opened: re.Match[str], found: _Found) -> Block:
    """The fenced block that begins on that line."""
    marks, indent = opened["marks"], state.sCount[start]
    closing = _closing(state, start + 1, end, marks, indent, found)
    if opened["words"] and closing == end and not found.afford(state.eMarks[end - 1] - state.eMarks[start]):
        return Block(start, start, closed=False, before=opened["words"])
    block = Block(start, min(end, closing + 1), closed=closing < end, before=(opened["words"] or "").strip())
    block.label, first = _label_and_code(opened["info"])
    block.language = language(block.label)
    block.code = _lines(state, start + 1, closing, indent)
    if block.language not in ("other", "output") and marks[0] == "`":
        _end_by_python(state, block, end, len(marks), indent, found)
    if (
        not block.label
        and language(named := block.code.partition("\n")[0].strip()) == "python"
        and _LABEL.fullmatch(named)
    ):
        block.label, block.language, block.code = named, "python", block.code.partition("\n")[2]
    if first and block.language in ("python", "unknown") and _is_code_on_fence(first, block.code):
        block.code = f"{first}\n{block.code}" if block.code else first
    return block


def _closing(state: StateBlock, line: int, end: int, marks: str, indent: int, found: _Found) -> int:
    """The line that is a fence alone, and ends the block by Markdown's rule; `end` if there is none.

    One further in than the block is part of a text in its code. Code that is not as far in as the list item
    in which it stands belongs to the block all the same.
    """
    if line >= found.open.get((marks, indent, end), end):
        return end
    begin = line
    while line < end:
        close = _CLOSE.match(_text(state, line))
        if close and close["marks"].startswith(marks) and state.sCount[line] <= indent + 3:
            return line
        line += 1
    found.open[marks, indent, end] = begin
    return end


def _end_by_python(state: StateBlock, block: Block, end: int, marks: int, indent: int, found: _Found) -> None:
    """Where the code itself ends: after a fence in one of its strings, or before Markdown's end."""
    code = block.code
    if not block.closed and not found.afford(state.eMarks[end - 1] - state.eMarks[block.first]):
        return
    at, open_string = python.end_of_code(code, marks)
    if open_string and block.closed and found.afford(state.eMarks[end - 1] - state.eMarks[block.first]):
        code = _lines(state, block.first + 1, end, indent)
        at, _ = python.end_of_code(code, marks)
        if at is None and python.parses(code):
            block.code, block.end, block.closed = code, end, False
            return
    if at is None or not python.parses(code[:at].rstrip(" \t")):
        return
    head, line = code[:at].rstrip(" \t"), code[at:].partition("\n")[0]
    block.code = head.removesuffix("\n")
    block.end = block.first + 2 + head.count("\n")
    block.closed = True
    words = line.lstrip("`").strip()
    if (
        words
        and (reopened := _REOPEN.match(line))
        and language(reopened["info"]) in ("python", "other", "output")
    ):
        block.end -= 1  # the end of this block was left out: the next one begins here
    else:
        block.after = words


def _label_and_code(info: str) -> tuple[str, str]:
    """The label of a fence, and what follows it: attributes, or code."""
    info = info.strip()
    if info.startswith("{"):
        label, _, rest = info.partition("}")
        return label.strip("{} ").split(",")[0].split()[0] if label.strip("{} ") else "", rest.strip()
    label, _, rest = info.partition(" ")
    return label, rest.strip()


def _is_code_on_fence(first: str, code: str) -> bool:
    if code.strip() and "".join(_ATTRIBUTES.findall(first)) == first:
        return False
    return python.acts(f"{first}\n{code}" if code else first)


def _tagged(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Code between tags, or in a call of a tool that was written as text, as <code>, <tool_call> or
    <|python_tag|>.
    """
    if silent or _text(state, start)[:1] not in ("<", "["):
        return False
    tag = _TAG.match(_text(state, start))
    if (
        tag is None
        or not is_call(tag)
        or not state.env["found"].afford(state.eMarks[end - 1] - state.eMarks[start])
    ):
        return False
    text = _lines(state, start, end, state.sCount[start])
    after = _TAG.match(text)
    stop, until = tag_end(text, tag, after.end() if after else 0)
    line_end = text.find("\n", until)
    rest = text[until : line_end if line_end >= 0 else len(text)].strip()
    code = (
        code_in_tags(text[after.end() if after else 0 : stop]) if not rest or rest.startswith("<") else None
    )
    if code is None:
        return False
    lines = text.count("\n", 0, until) + 1
    closed = stop < len(text) or tag["square"] is not None
    state.env["found"].blocks.append(Block(start, start + lines, code, tag[0], "python", closed=closed))
    state.line = start + lines
    return True


def opens_call(line: str) -> bool:
    """Whether a line begins with a tag that models put around code."""
    tag = _TAG.match(line.lstrip(" \t>*-"))
    return tag is not None and is_call(tag)


def is_call(tag: re.Match[str]) -> bool:
    """Whether a tag is one that models put around code."""
    name = (tag["name"] or tag["square"] or tag["token"]).lower()
    return not _CALLS.isdisjoint(re.split(r"[^a-z]+", name))


def tag_end(text: str, tag: re.Match[str], position: int) -> tuple[int, int]:
    """Where what a tag holds ends, and where its end tag does."""
    if name := tag["name"]:
        ending = f"</{re.split('[ =]', name)[0]}>"
    elif tag["square"]:
        ending = f"[/{tag['square']}]"
    else:
        closing = re.compile(
            r"<[|｜](?:[^|｜<>\s]*end[^|｜<>\s]*|eom_id|eot_id)[|｜]>(?:\s*<[|｜][^|｜<>\s]*end[^|｜<>\s]*[|｜]>)*"
        )
        found = closing.search(text, position)
        return (found.start(), found.end()) if found else (len(text), len(text))
    at = text.find(ending, position)
    return (at, at + len(ending)) if at >= 0 else (len(text), len(text))


def code_in_tags(text: str) -> str | None:
    """The code that stands between tags: as it is, between further tags, or in JSON."""
    inner = text.strip("\n")
    if len(inner) > _TAGGED:
        return None
    if code := _code_in_part(inner):
        return code
    if _FENCED.search(inner) and "｜" not in inner:
        return None  # its fences are read as any
    begins = 0
    parts = []
    for tag in itertools.islice(filter(is_call, _TAG.finditer(inner)), 50):
        parts.append(inner[begins : tag.start()])
        begins = tag.end()
    return next(filter(None, map(_code_in_part, [*parts, *([inner[begins:]] if begins else [])])), None)


def _code_in_part(part: str) -> str | None:
    ends = _END_TAGS_BACKWARDS.match(part[::-1])
    part = part[: len(part) - (ends.end() if ends else 0)].strip("\n")
    plain = python.as_meant(part if "\n" in part else part.strip())
    if python.acts(plain):
        return plain
    brace = min((at for mark in "{[" if (at := part.find(mark)) >= 0), default=-1)
    return (
        python.code_in_json(part[brace : max(part.rfind("}"), part.rfind("]")) + 1]) if brace >= 0 else None
    )


def _text(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]


def _lines(state: StateBlock, first: int, end: int, indent: int) -> str:
    return state.getLines(first, end, indent, False) if first < end else ""


@functools.lru_cache(256)
def language(label: str) -> Language:
    """What a label stands for. Pygments knows the names and the endings of other languages."""
    word = re.split(r"[\s,;:{}(=]", label.strip().strip("{}. ").lower())[0].lstrip(".")
    if not word:
        return ""
    name = (
        _languages().get(word)
        or _languages().get(f"*.{word.rpartition('.')[2]}" if "." in word else "")
        or ""
    )
    if name == "Python Traceback" or name.endswith(("Session", "output", "only")) or _OUTPUT.match(word):
        return "output"
    if _PYTHON.match(word) or name.startswith("Python") or name == "Sage":
        return "python"
    return "other" if name else "unknown"


@functools.cache
def _languages() -> dict[str, str]:
    from pygments.lexers import get_all_lexers

    names: dict[str, str] = {"csv": "CSV", "tsv": "TSV", "mermaid": "Mermaid"}
    for name, aliases, patterns, _ in get_all_lexers(plugins=False):
        for key in (*aliases, *patterns):
            names.setdefault(key.lower(), name)
    return names

"""A root model's reply as cells to run and, perhaps, an answer given in prose."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Literal

_FENCE = re.compile(r"^[ \t]{0,3}(?P<marks>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)[^\n`]*$")
_CODE = ("repl", "python", "py", "python3", "ipython")
_FINAL = re.compile(r"^[ \t]*(?P<name>FINAL|FINAL_VAR)\(", re.MULTILINE)


@dataclass(frozen=True)
class ProseFinal:
    """FINAL(...) or FINAL_VAR(...) at the start of a line outside code. `text` is what stands between the parentheses."""

    kind: Literal["FINAL", "FINAL_VAR"]
    text: str


@dataclass(frozen=True)
class Reply:
    """What a reply asks for. `prose` is the reply without its code blocks."""

    cells: tuple[str, ...]
    prose: str
    final: ProseFinal | None


def parse_reply(text: str) -> Reply:
    """Split a reply into code blocks and prose.

    Blocks fenced as repl or python are cells, and so are blocks without a language whose text is Python. An unclosed fence reaches to
    the end. A reply that has no fence at all but is wholly Python (it must call something or assign) is one cell.
    """
    blocks, prose_lines = _split(text)
    cells = tuple(code for language, code in blocks if code.strip() and _is_cell(language, code))
    prose = "\n".join(prose_lines).strip()
    if not blocks and _is_bare_code(prose):
        return Reply((prose,), "", None)
    return Reply(cells, prose, _prose_final(prose))


def _split(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    blocks: list[tuple[str, str]] = []
    prose: list[str] = []
    fence: str | None = None
    language, code = "", list[str]()
    for line in text.splitlines():
        match = _FENCE.match(line)
        if fence is None:
            if match:
                fence, language, code = match["marks"], match["language"].lower(), []
            else:
                prose.append(line)
        elif line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            blocks.append((language, "\n".join(code)))
            fence = None
        else:
            code.append(line)
    if fence is not None:
        blocks.append((language, "\n".join(code)))
    return blocks, prose


def _is_cell(language: str, code: str) -> bool:
    return language in _CODE or (not language and _parses(code))


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _is_bare_code(text: str) -> bool:
    """Whether prose is really code without a fence. FINAL(...) alone is left to be read as an answer in prose."""
    if not text or _FINAL.match(text):
        return False
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    acts = (ast.Assign, ast.AugAssign, ast.Import, ast.ImportFrom, ast.For, ast.FunctionDef, ast.With)
    return any(isinstance(node, acts) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) for node in body)


def _prose_final(prose: str) -> ProseFinal | None:
    """The last FINAL(...) or FINAL_VAR(...) that starts a line. An unclosed one reaches to the end."""
    found = None
    position = 0
    while match := _FINAL.search(prose, position):
        end = _closing(prose, match.end())
        kind: Literal["FINAL", "FINAL_VAR"] = "FINAL" if match["name"] == "FINAL" else "FINAL_VAR"
        found = ProseFinal(kind, prose[match.end() : end].strip())
        position = max(end, match.end())
    return found


def _closing(text: str, start: int) -> int:
    """Where the parenthesis opened just before `start` closes; the end of the text if it never does.

    Counted without regard to quotes: an answer in prose is full of apostrophes.
    """
    depth = 1
    for index in range(start, len(text)):
        if text[index] == "(":
            depth += 1
        elif text[index] == ")":
            depth -= 1
            if depth == 0:
                return index
    return len(text)


def unquote(text: str) -> str:
    """An answer without the quotes of a Python string literal around it, if it is one."""
    if text[:1] in "\"'" or text[:4].lower().startswith(('f"', "f'", 'r"', "r'")):
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return text
        return value if isinstance(value, str) else text
    return text


_INPUT_NAMES = frozenset(
    {
        "context",
        "files",
        "peek",
        "grep",
        "chunks",
        "load_file",
        "load_files",
        "list_files",
        "switch_to",
        "llm_query",
        "llm_query_batched",
    }
)


def looks_at_input(code: str) -> bool:
    """Whether code mentions the input at all. Code that does not parse is taken to."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return any(isinstance(node, ast.Name) and node.id in _INPUT_NAMES for node in ast.walk(tree))

"""A root model's reply as cells to run and, perhaps, an answer given in prose."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, replace
from typing import Literal

# Possessive: a long line that is nearly a fence must not cost its length squared.
_FENCE = re.compile(r"^(?P<indent>[ \t]*+)(?P<marks>`{3,}+|~{3,}+)[ \t]*+(?P<language>[\w+-]*+)[^\n`]*+$")
_CODE = ("repl", "python", "py", "python3", "ipython")
_FINAL = re.compile(r"^[ \t]*(?P<name>FINAL|FINAL_VAR)\(", re.MULTILINE)
_LITERAL = re.compile(
    r"""\s*+[fFrR]?(?:\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}|"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')\s*+\)""", re.DOTALL
)


@dataclass(frozen=True)
class ProseFinal:
    """FINAL(...) or FINAL_VAR(...) at the start of a line outside code. `text` is what stands between the parentheses."""

    kind: Literal["FINAL", "FINAL_VAR"]
    text: str


@dataclass(frozen=True)
class Reply:
    """What a reply asks for. `prose` is the reply without its code blocks. `unclosed`: the last cell's fence is."""

    cells: tuple[str, ...]
    prose: str
    final: ProseFinal | None
    unclosed: bool = False

    def cut_off(self) -> Reply:
        """The reply, if it ended too early: code without an end is not to run."""
        return replace(self, cells=self.cells[:-1]) if self.unclosed else self

    @property
    def only_delivers(self) -> bool:
        """Its cells, if it has any, do nothing but call FINAL or FINAL_VAR with what is there."""
        return all(map(_only_delivers, self.cells))


def parse_reply(text: str) -> Reply:
    """Split a reply into code blocks and prose.

    Blocks fenced as repl or python are cells, and so are blocks without a language whose text is Python. An unclosed fence reaches to
    the end; a block in a list loses the indentation of its fence. A reply that has no fence at all but is wholly Python (it must call
    something or assign) is one cell.
    """
    # A lone surrogate, which JSON can carry, would pass neither to the kernel nor to a file.
    blocks, prose_lines, unclosed = _split(text.encode("utf-8", "replace").decode())
    cells = tuple(code for language, code in blocks if code.strip() and _is_cell(language, code))
    prose = "\n".join(prose_lines).strip()
    if not blocks and _is_bare_code(prose):
        return Reply((prose,), "", None)
    return Reply(cells, prose, _prose_final(prose), unclosed and bool(cells) and cells[-1] == blocks[-1][1])


def _split(text: str) -> tuple[list[tuple[str, str]], list[str], bool]:
    """Blocks with their languages, the lines outside, and whether the last block has no end."""
    blocks: list[tuple[str, str]] = []
    prose: list[str] = []
    fence: str | None = None
    indent, language, code = "", "", list[str]()
    # Not splitlines(): a form feed or a U+2028 in a string literal is no end of line.
    for line in text.replace("\r\n", "\n").split("\n"):
        match = _FENCE.match(line)
        if fence is None:
            if match:
                indent, fence, language, code = match["indent"], match["marks"], match["language"].lower(), []
            else:
                prose.append(line)
        elif match and _closes(match, fence, indent):
            blocks.append((language, "\n".join(code)))
            fence = None
        else:
            code.append(line.removeprefix(indent))
    if fence is not None:
        blocks.append((language, "\n".join(code)))
    return blocks, prose, fence is not None


def _closes(match: re.Match[str], fence: str, indent: str) -> bool:
    """Whether a line that looks like a fence ends the block. One further in than the block is part of a text in its code."""
    bare = not match[0].strip().strip(fence[0])
    return bare and match["marks"].startswith(fence) and len(match["indent"]) <= len(indent) + 3


def _is_cell(language: str, code: str) -> bool:
    return language in _CODE or (not language and _tree(code) is not None)


def _tree(code: str) -> ast.Module | None:
    """The syntax tree of code; None of what is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's invalid escapes are no news to the user
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_bare_code(text: str) -> bool:
    """Whether prose is really code without a fence. FINAL(...) alone is left to be read as an answer in prose."""
    if not text or _FINAL.match(text):
        return False
    tree = _tree(text)
    acts = (ast.Assign, ast.AugAssign, ast.Import, ast.ImportFrom, ast.For, ast.FunctionDef, ast.With)
    body = tree.body if tree else []
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

    Where a string literal is all that it holds, after that. Else counted without regard to quotes: an answer in prose is full of
    apostrophes.
    """
    if literal := _LITERAL.match(text, start):
        return literal.end() - 1
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
        tree = _tree(text)
        if tree and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant):
            value = tree.body[0].value.value
            return value if isinstance(value, str) else text
    return text


def _only_delivers(code: str) -> bool:
    tree = _tree(code)
    return tree is not None and all(isinstance(node, ast.Expr) and _delivers(node.value) for node in tree.body)


def _delivers(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in ("FINAL", "FINAL_VAR"):
        return False
    return not any(isinstance(inner, ast.Call) for value in node.args for inner in ast.walk(value))


_INPUT_NAMES = frozenset(
    {
        "context",
        "files",
        "peek",
        "grep",
        "chunks",
        "records",
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
    tree = _tree(code)
    return tree is None or any(isinstance(node, ast.Name) and node.id in _INPUT_NAMES for node in ast.walk(tree))

"""A root model's reply as cells to run and, perhaps, an answer given in prose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlm_kernel.engine import python
from rlm_kernel.engine.blocks import Block, blocks_of, language
from rlm_kernel.engine.finals import FINAL, ProseFinal, whole_final

_OUTPUT_SAID = re.compile(
    r"(?i)\b(?:outputs?|results?|prints?|printed|returns?|shows|stdout|observation|execution "
    r"logs?)\b[^.!?\n]*:\W*$|^\W*out ?\[\d+\]"
)
"""A line that announces what code gave."""
_IN_JSON = re.compile(r"[^`\n]*`{3}\w*\\n")
_WRAPPED = re.compile(r"(?P<marks>`{3,}|~{3,})(?:markdown|md)[ \t]*\n(?P<text>.*)\n(?P=marks)", re.DOTALL)
"""A reply that is one block of Markdown."""
_OUTPUT_LINE = re.compile(
    r"\W*(?:Output(?: of (?:the cell|cell \d+))?|Observation|Execution (?:logs?|results?)|Out "
    r"?\[\d+\])\W{0,3}:",
    re.IGNORECASE,
)
"""A line that begins what code gave, in prose. The first are our own words."""


@dataclass(frozen=True)
class Reply:
    """What a reply asks for. `prose` is the reply without its cells, and without output that it made up.

    `unclosed`: the last cell's fence is. `labels`: of blocks in other languages, which are not run.
    `invented`: it goes on with an output that no cell gave; what it built on that is left out.
    """

    cells: tuple[str, ...]
    prose: str
    final: ProseFinal | None
    unclosed: bool = False
    labels: tuple[str, ...] = ()
    invented: bool = False

    def cut_off(self) -> Reply:
        """The reply, if it ended too early: code without an end is not to run."""
        return replace(self, cells=self.cells[:-1]) if self.unclosed else self

    def after(self, ran: Sequence[str]) -> Reply:
        """The reply, of which these cells have run.

        If it is read otherwise than it was then, nothing of it is left to do.
        """
        same = self.cells[: len(ran)] == tuple(ran)
        return self if same else replace(self, cells=tuple(ran), final=None)

    @property
    def empty(self) -> bool:
        """There is nothing in it."""
        return not self.cells and not self.prose and self.final is None

    @property
    def only_delivers(self) -> bool:
        """Its cells, if it has any, do nothing but call FINAL or FINAL_VAR with what is there."""
        return all(map(python.only_delivers, self.cells))


def parse_reply(text: str) -> Reply:
    """Split a reply into cells, prose, and an answer in prose.

    Cells are blocks whose label is one of Python's, and blocks without a known label whose text is Python
    that does something. An unclosed fence reaches to the end; a block in a list or a quote loses what stands
    before it. A reply that is nothing but code without a fence, or a call of a tool in JSON, is one cell.
    """
    # A lone surrogate, which JSON can carry, would pass neither to the kernel nor to a file.
    text = _with_lines(text.encode("utf-8", "replace").decode())
    blocks = blocks_of(text)
    if all(block.final for block in blocks) and (code := _bare_code(text.strip())):
        return Reply((code,), "", None)
    reply = _Reading(text.split("\n"), blocks).reply()
    if not reply.cells and reply.final is None and (wrapped := _WRAPPED.fullmatch(text.strip())):
        inner = parse_reply(wrapped["text"])
        return inner if inner.cells or inner.final is not None else reply
    return reply


def _with_lines(text: str) -> str:
    """The text with line feeds at the ends of its lines.

    One that has none was written for an old Mac, or as a string of JSON.
    """
    text = text.replace("\r\n", "\n")
    if "\n" in text.strip():
        return text
    if "\r" in text.strip():
        return text.replace("\r", "\n")
    return text.replace("\\n", "\n") if _IN_JSON.match(text) else text


class _Reading:
    """A reply, block by block."""

    def __init__(self, lines: Sequence[str], blocks: Sequence[Block]) -> None:
        self._lines = lines
        self._blocks = blocks
        self._prose: list[str] = []
        self._ran: list[Block] = []
        self._labels: list[str] = []
        self._passed: list[Block] = []
        self._final: ProseFinal | None = None
        self._invented = False

    def reply(self) -> Reply:
        line = 0
        for block in self._blocks:
            self._words(self._lines[line : block.first])
            self._block(block)
            line = block.end
        self._words(self._lines[line:])
        cells = tuple(python.as_meant(block.code) for block in self._ran)
        prose = "\n".join(self._prose).strip()
        if not cells and self._final is None:
            cells = tuple(
                filter(
                    None,
                    [next(filter(None, (python.code_in_json(block.code) for block in self._passed)), None)],
                )
            )
            self._final = (
                None
                if cells
                else next(filter(None, (whole_final(block.code) for block in self._passed)), None)
            )
        unclosed = bool(self._ran) and self._ran[-1] is self._blocks[-1] and not self._ran[-1].closed
        return Reply(cells, prose, self._final, unclosed, tuple(self._labels), self._invented)

    def _words(self, lines: Sequence[str]) -> None:
        self._prose += lines
        if self._ran and any(map(_OUTPUT_LINE.match, lines)):
            self._invented = True

    def _block(self, block: Block) -> None:
        as_written = self._lines[block.first : block.end]
        if block.final is not None:
            self._final = block.final
            self._prose += as_written
            return
        self._prose += [block.before] if block.before else []
        if self._invented or not block.code.strip():
            pass
        elif self._is_cell(block):
            self._ran.append(block)
        elif self._is_output(block):
            self._invented = bool(self._ran) and (block.language == "output" or self._announced())
            self._passed.append(block)
        else:
            self._passed.append(block)
            self._labels += [block.label] if block.language == "other" else []
            self._prose += as_written
        self._prose += [block.after] if block.after else []

    def _is_cell(self, block: Block) -> bool:
        if block.language in ("other", "output"):
            return (
                block.language == "output"
                and python.is_transcript(block.code)
                and block.label.lower() not in ("text", "output")
            )
        if block.language == "python":
            return whole_final(block.code) is None
        code = python.as_meant(block.code)
        return python.acts(code, bare=not self._ran) and not (self._ran and self._announced())

    def _is_output(self, block: Block) -> bool:
        """Whether it stands for what code gave, and not for something that the model shows."""
        return block.language == "output" or (bool(self._ran) and block.language in ("", "unknown"))

    def _announced(self) -> bool:
        last = next((line for line in reversed(self._prose) if line.strip()), "")
        return _OUTPUT_SAID.search(last[-200:]) is not None


def _bare_code(text: str) -> str | None:
    """The code of a reply without a block, if it is wholly code.

    FINAL(...) alone is left to be read as an answer in prose.
    """
    if not text or FINAL.match(text):
        return None
    if text[0] in "{[" and (code := python.code_in_json(text)):
        return code
    label, _, rest = text.partition("\n")
    code = python.as_meant(rest if language(label) == "python" and label.isidentifier() else text)
    return code if python.acts(code) else None

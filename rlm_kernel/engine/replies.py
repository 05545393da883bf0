"""A root model's reply as cells to run and, perhaps, an answer given in prose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rlm_kernel.engine import python
from rlm_kernel.engine.blocks import Block, blocks_of, language, opens_call
from rlm_kernel.engine.finals import FINAL, ProseFinal, whole_final

OUTPUT_SAID = re.compile(
    r"(?i)\b(?:outputs?|results?|prints?|printed|returns?|shows|stdout|observation|execution "
    r"logs?)\b[^.!?\n]*:\W*$|^\W*out ?\[\d+\]"
)
"""A line that announces what code gave."""
_IN_JSON = re.compile(r"[^`\n]*`{3}\w*\\n")
_WRAPPED = re.compile(r"(?P<marks>`{3,}|~{3,})(?:markdown|md)[ \t]*\n(?P<text>.*)\n(?P=marks)", re.DOTALL)
"""A reply that is one block of Markdown."""
OUTPUT_LINE = re.compile(
    r"\W*(?:Output(?: of (?:the cell|cell \d+))?(?: \([^()\n]{1,40}\))?|Observation|Execution "
    r"(?:logs?|outputs?|results?)|(?:Last|Cell|Code|REPL|Console|Program|Printed|Tool) outputs?(?: from code "
    r"snippet)?|Std(?:out|err)|Out ?\[\d+\]|(?:执行|运行|输出)结果|输出|出力|Ausgabe|Sortie|Salida|Вывод)"
    r"\W{0,3}[:：]"
    r"|\W{0,3}\[(?:(?:cell|code|execution|tool)[ _])?(?:outputs?|results?|stdout)\]\W*$",
    re.IGNORECASE,
)
"""A line that begins what code gave, in prose. The first are our own words."""


@dataclass(frozen=True)
class Reply:
    """What a reply asks for. `prose` is the reply without its cells, and without output that it made up.

    `unclosed`: the last cell's fence is. `labels`: of blocks in other languages, which are not run.
    `made_up`: the line at which it goes on with an output that no cell gave; what it built on that is left
    out. `settled`: the blocks up to there have an end, and no prose may turn out to be one.
    """

    cells: tuple[str, ...]
    prose: str
    final: ProseFinal | None
    unclosed: bool = False
    labels: tuple[str, ...] = ()
    made_up: int | None = None
    settled: bool = field(default=True, compare=False)

    @property
    def invented(self) -> bool:
        """It has an output that no cell gave."""
        return self.made_up is not None

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
        self._made_up: int | None = None
        self._behind = 0
        """The line behind the last block."""
        self._said = -1
        """The last line of prose with words in it."""
        self._open = False
        """Prose may turn out to be a block that has no end yet."""

    def reply(self) -> Reply:
        for block in self._blocks:
            self._words(self._behind, block.first)
            self._block(block)
            self._behind = block.end
        self._words(self._behind, len(self._lines))
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
        begun = self._made_up is None and bool(self._blocks) and not self._blocks[-1].closed
        settled = not (unclosed or begun or self._open)
        return Reply(cells, prose, self._final, unclosed, tuple(self._labels), self._made_up, settled)

    def _words(self, first: int, end: int) -> None:
        self._prose += self._lines[first:end]
        for number in range(first, end):
            if self._made_up is not None:
                return
            line = self._lines[number]
            self._said = number if line.strip() else self._said
            if self._ran and OUTPUT_LINE.match(line):
                self._made_up = number
            elif "```" in line or "~~~" in line or FINAL.match(line) or opens_call(line):
                self._open = True

    def _block(self, block: Block) -> None:
        as_written = self._lines[block.first : block.end]
        if block.final is not None:
            self._final = block.final
            self._open = self._open or self._made_up is None  # it may reach further than it does yet
            self._prose += as_written
            return
        self._prose += [block.before] if block.before else []
        if block.language not in ("other", "output"):
            # What a string without an end holds is known only when it has one.
            self._open = self._open or python.end_of_code(block.code, 3)[1]
        if self._made_up is not None or not block.code.strip():
            pass
        elif self._is_cell(block):
            self._ran.append(block)
        elif self._is_output(block):
            announced = self._announced()
            if self._ran and (block.language == "output" or announced):
                by_line = announced and not block.before and self._said >= self._behind
                self._made_up = self._said if by_line else block.first
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
        return OUTPUT_SAID.search(last[-200:]) is not None


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

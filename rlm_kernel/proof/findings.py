"""What was found of where prompts and answers come from: values, as `rlm show --sources --json` has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SHOWN = 400
"""Characters of a passage that are kept to be shown."""
State = Literal["full", "unchecked", "beginning", "differs"]


@dataclass(frozen=True)
class Place:
    """Where a passage stands: bytes `start` to `end` of a file, from line `line` on (from 1).

    Args:
        path: As the trace names the file or folder.
        member: The file in a folder; "" for a file.
        start: In bytes; of a file that is packed by gzip, of what it holds.
        end: The byte behind it.
        line: The number of the line.
        exact: It stands there byte for byte, and not only in letters and digits.
    """

    path: str
    member: str
    start: int
    end: int
    line: int
    exact: bool

    @property
    def name(self) -> str:
        return f"{self.path}/{self.member}" if self.member else self.path


@dataclass(frozen=True)
class Passage:
    """A part of a text, characters `start` to `end` of it, that stands in files.

    `places`: all places that hold it, as far as they are listed; `more`: there are others beside these.
    `text`: its beginning, as the prompt has it.
    """

    start: int
    end: int
    text: str
    places: tuple[Place, ...]
    more: bool = False


@dataclass(frozen=True)
class Held:
    """A part of a prompt that stands in the answers of earlier calls, by their numbers."""

    start: int
    end: int
    calls: tuple[int, ...]


@dataclass(frozen=True)
class CallSources:
    """What a call's prompt held. `number` is that of `rlm show --calls`.

    `state` of the prompt: `full`; `unchecked` (it cannot be checked by its digest, since a secret is left
    out of it, or it is a child RLM's question); `beginning` (no more of it is kept); `differs` (the file of
    prompts has another one than was asked: nothing is looked for). `cut`: not all was looked for, because it
    repeats itself without end.
    """

    number: int
    cell: str
    kind: str
    chars: int
    state: State
    passages: tuple[Passage, ...] = ()
    answers: tuple[Held, ...] = ()
    cut: bool = False

    @property
    def found(self) -> int:
        """Characters of the prompt that stand in files: of passages that overlap, each once."""
        found = end = 0
        for one in sorted(self.passages, key=lambda one: one.start):
            found += max(0, one.end - max(end, one.start))
            end = max(end, one.end)
        return found


@dataclass
class FileSources:
    """A file of the trace, and which parts of it were in prompts.

    `why`: why it was not looked into, or "". `size`: in bytes, of a packed file of what it holds. `spans`:
    bytes that were in any prompt; `calls`: in which, by their numbers.
    """

    path: str
    member: str = ""
    sha256: str | None = None
    size: int = 0
    why: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.path}/{self.member}" if self.member else self.path

    @property
    def read(self) -> int:
        """Bytes that were in any prompt."""
        return sum(end - start for start, end in self.spans)


@dataclass(frozen=True)
class Seen:
    """A call whose answer, or a cell whose outputs hold a piece of the answer.

    `call`: its number, 0 for the cell's outputs. `words`: what of the piece stands there; `whole`: all of it.
    """

    call: int
    cell: str
    words: tuple[str, ...]
    whole: bool


@dataclass(frozen=True)
class Support:
    """A passage of files in which a piece of the answer, or words of it, stands.

    `calls`: those that had it in their prompts; none for a passage that the answer itself has to the letter.
    `text`: what stands around the words there.
    """

    calls: tuple[int, ...]
    passage: Passage
    text: str


@dataclass(frozen=True)
class Standing:
    """A number, name or quotation of the answer, and where it stands in files, so many times in all."""

    word: str
    places: tuple[Place, ...]
    count: int


@dataclass(frozen=True)
class Piece:
    """A sentence, list item, row or JSON value of the answer, and where it was seen before.

    `label`: the path of a JSON value. `seen`: the calls and cells that hold it, or its numbers and names; of
    `more` the same is true. `guess`: what they hold is so short, or so many hold it, that it may be chance.
    `support`: passages of files that hold it. `words`: where its words stand in files, whoever read them.
    """

    text: str
    label: str = ""
    seen: tuple[Seen, ...] = ()
    more: int = 0
    guess: bool = False
    support: tuple[Support, ...] = ()
    words: tuple[Standing, ...] = ()


@dataclass(frozen=True)
class AnswerSources:
    """The pieces of the last answer. `cell`: whose code delivered it; "" where none did."""

    cell: str
    pieces: tuple[Piece, ...]
    left_out: int = 0

    def as_json(self) -> dict[str, Any]:
        """As `rlm show --sources --json` has it."""
        return asdict(self)


@dataclass
class Sources:
    """`calls` by their numbers. `answer`: passages of the answer itself that stand in files, `words`: where
    words of it do. `trouble`: what is missing, in sentences.
    """

    calls: dict[int, CallSources] = field(default_factory=dict)
    files: list[FileSources] = field(default_factory=list)
    answer: tuple[Passage, ...] = ()
    words: dict[str, Standing] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As `rlm show --sources --json` has it."""
        return {
            "calls": [asdict(one) for one in self.calls.values()],
            "files": [asdict(one) | {"read": one.read} for one in self.files],
            "answer_passages": [asdict(one) for one in self.answer],
            "trouble": self.trouble,
        }


@dataclass(frozen=True)
class Provenance:
    """Where the calls' prompts and the answer of a trace come from."""

    sources: Sources
    answer: AnswerSources

    def as_json(self) -> dict[str, Any]:
        """As `rlm show --sources --json` has it."""
        return {**self.sources.as_json(), "answer": self.answer.as_json()}

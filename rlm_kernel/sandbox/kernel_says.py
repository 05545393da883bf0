"""What a kernel says to the host, read here and nowhere else in this room: Jupyter's messages, our own
questions, host calls' heads.

Code in the kernel can say anything in the kernel's name. The readers take values that were parsed
(`bounded.parse`), whichever way they came, and give typed ones, or "unknown": a field's default, None, or an
empty message that answers nobody. They never raise.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, PlainValidator
from rlm_contract import MAX_CALL_ID, MAX_CELL_ID, MAX_HANDED_FILES, MAX_PICTURES, MAX_WHOLE_TEXTS
from rlm_contract.tokens import MOST_CHARS, tokens_of_whole

from rlm_kernel import bounded
from rlm_kernel.checked import Asked, Count, Flag, Name, Text, Told, cut, each, integer, known, plain, text
from rlm_kernel.engine.protocols import ContextInfo, DeclaredTool, Partial
from rlm_kernel.printable import printable

_MAX_LITERAL = 200_000
"""Characters of a value that the kernel tells as a Python literal."""
_MAX_LINES = 200
_MAX_KINDS = 20
"""Representations of one display."""
_METADATA_CAP = 10_000
_MAX_ID = 200
"""Characters of a display's id. A longer one is none: two must not become one."""
_JSON_KIND = re.compile(r"^application/(.*\+)?json$")  # as in nbformat's schema; all other kinds hold text
_MAX_VARIABLES = 10_000
_MAX_FILES = 1_000
_MAX_ITEMS = 100
_REMARKS, _REMARK = 20, 500
_PATH = 4096
_ABOUT = 100
"""Characters of what is said of a picture."""
_MAX_TOOLS, _TOOL = 200, (64, 600, 1_000)
"""Tools, and characters of the name, signature and words of each."""
_KINDS, _KIND, _HEAD, _FORM = 10, 40, 300, 600
_BESIDE = 20
"""Tokens that the marks of a text take which is shown whole."""
_MAX_NTH = (1 << 31) - 1
_CALL = re.compile("[0-9-]+")


class _Header(Told):
    msg_type: Name = ""
    msg_id: Name = ""
    session: Name = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of Jupyter's.

    `request`: the id of what it answers, "" of what answers nothing; `session`: whose request that was.

    `content` is still to be read, by the model of its `kind`.
    """

    kind: str
    request: str
    session: str
    content: Mapping[Any, Any]

    @classmethod
    def made_of(cls, header: Any, parent: Any, content: Any) -> Message:
        """Of its parts, parsed.

        What does not fit is as if it were not there: a reply without content has failed, but is the reply.
        """
        answers = _Header.part(parent)
        return cls(
            _Header.part(header).msg_type,
            answers.msg_id,
            answers.session,
            content if type(content) is dict else {},
        )

    @classmethod
    def parse(
        cls, header: bytes | bytearray, parent: bytes | bytearray, content: bytes | bytearray
    ) -> Message:
        """Of its parts as they came."""
        return cls.made_of(*map(_parsed, (header, parent, content)))


def _parsed(data: bytes | bytearray) -> Any:
    try:
        return bounded.parse(data)
    except ValueError:
        return None


class Stream(Told):
    """`stream`."""

    name: Literal["stdout", "stderr"] = "stdout"
    text: Text = ""


class Raised(Told):
    """`error`."""

    ename: Annotated[str, cut(500)] = ""
    evalue: Text = ""
    traceback: Annotated[list[str], each(text, _MAX_LINES)] = Field(default_factory=list)


class Clear(Told):
    """`clear_output`."""

    wait: Flag = False


class Status(Told):
    """`status`."""

    execution_state: Name = ""


class Counted(Told):
    """What has the kernel's count of cells: None for what no notebook may hold."""

    execution_count: Count | None = None


class Input(Counted):
    """`execute_input`."""

    code: Text = ""


def _display_id(value: Any) -> str | None:
    found = value.get("display_id") if type(value) is dict else None
    return text(found) if type(found) is str and len(found) <= _MAX_ID else None


class Part(NamedTuple):
    """One representation of a display: a text, or JSON data of so many characters."""

    kind: str
    value: Any
    size: int


def _bundle(value: Any) -> list[Part]:
    if type(value) is not dict:
        raise ValueError("no bundle")
    return list(known(_part, list(value.items())[:_MAX_KINDS]))


def _part(item: tuple[Any, Any]) -> Part | None:
    kind, value = text(item[0])[:200], item[1]
    if type(value) is str:
        return Part(kind, text(value), len(value))
    if not _JSON_KIND.match(kind):
        return None
    data = plain(value)
    return Part(kind, data, len(json.dumps(data, ensure_ascii=False)))


def _small_object(value: Any) -> dict[str, Any]:
    data = plain(value)
    if type(data) is not dict or len(json.dumps(data, ensure_ascii=False)) >= _METADATA_CAP:
        raise ValueError("no metadata")
    return data


class Display(Counted):
    """`display_data`, `update_display_data`, `execute_result`."""

    data: Annotated[list[Part], PlainValidator(_bundle)] = Field(default_factory=list)
    metadata: Annotated[dict[str, Any], PlainValidator(_small_object)] = Field(default_factory=dict)
    display_id: Annotated[str | None, PlainValidator(_display_id), Field(alias="transient")] = None


def _expressions(value: Any) -> dict[str, Any]:
    """The values of the user expressions of a reply that are Python literals."""
    if type(value) is not dict:
        raise ValueError("no expressions")
    return {name: literal(_plain_text(told)) for name, told in value.items() if type(name) is str}


def _plain_text(expression: Any) -> str:
    data = expression.get("data") if type(expression) is dict else None
    told = data.get("text/plain") if type(data) is dict else None
    return told if type(told) is str else ""


class Reply(Counted):
    """`execute_reply`, and any other. `status` is "" where it is unknown."""

    status: Name = ""
    ename: Name = ""
    user_expressions: Annotated[dict[str, Any], PlainValidator(_expressions)] = Field(default_factory=dict)


def literal(told: str) -> Any:
    """The value of a Python literal; None for what is none. What it holds is still to be read."""
    if not told or len(told) > _MAX_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            return ast.literal_eval(told)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def variables(value: Any) -> dict[str, str] | None:
    """The names that cells have made, with type and size. None where that is unknown."""
    if type(value) is not dict:
        return None
    found = dict(known(_variable, list(value.items())[:_MAX_VARIABLES]))
    return found if found or not value else None


def _variable(item: tuple[Any, Any]) -> tuple[str, str]:
    return text(item[0])[:200], text(item[1])[:500]


class File(Told):
    """A file that is loaded. Its size in characters; of a large one in bytes."""

    name: Annotated[str, cut(_PATH)]
    path: Annotated[str, cut(_PATH)] = ""
    characters: Count | None = None
    bytes: Count | None = None
    encoding: Name = ""
    lazy: Flag = False
    active: Flag = False


def files(value: Any) -> list[File] | None:
    """The files that are loaded. None where that is unknown."""
    if type(value) is not list:
        return None
    found = list(known(File.of, value[:_MAX_FILES]))
    return found if found or not value else None


def _item(value: Any) -> tuple[str, int]:
    if type(value) not in (list, tuple) or len(value) != 2:
        raise ValueError("no item")
    return text(value[0])[:_PATH], integer(value[1])


def _named(most: int) -> Any:
    """A name, and so many characters that are told of it."""

    def read(value: Any) -> tuple[str, str]:
        if type(value) not in (list, tuple) or len(value) != 2:
            raise ValueError("no pair")
        return text(value[0])[:_PATH], text(value[1])[:most]

    return read


def _kind(value: Any) -> tuple[str, int]:
    name, count = _item(value)
    return name[:_KIND], count


def whole(value: Any, limit: int) -> Sequence[tuple[str, str]]:
    """The texts of an input that is shown whole, by their names; none if they have more tokens than `limit`
    by an estimate, or one of them is unknown.
    """
    if type(value) is not list or len(value) > MAX_WHOLE_TEXTS:
        return ()
    found = list(known(_named(limit * MOST_CHARS + 1), value))
    size = sum(tokens_of_whole(name) + tokens_of_whole(said) + _BESIDE for name, said in found)
    return found if len(found) == len(value) and size <= limit else ()


def flags(value: Any, count: int) -> list[bool]:
    """So many answers to yes or no; all no where it is anything else."""
    if type(value) is not list or len(value) != count:
        return [False] * count
    return [one is True for one in value]


def _tool(value: Any) -> DeclaredTool:
    """A tool that the kernel has: one line each of signature and words."""
    if type(value) not in (list, tuple) or len(value) != 3:
        raise ValueError("no tool")
    name, signature, doc = (
        " ".join(printable(text(part)[:most]).split()) for part, most in zip(value, _TOOL, strict=True)
    )
    if not name.isidentifier():
        raise ValueError("no name")
    return DeclaredTool(name, signature, doc)


class Described(Told):
    """What `context` is."""

    kind: Annotated[str, cut(100)] = "unknown"
    total_chars: Count = 0
    items: Annotated[list[Any], each(_item, _MAX_ITEMS)] = Field(default_factory=list)
    item_count: Count = 0
    head: Annotated[str, cut(300)] = ""
    about: Flag = False
    form: Annotated[str, cut(2_000)] = ""
    remarks: Annotated[list[str], each(text, _REMARKS)] = Field(default_factory=list)
    more_remarks: Count = 0
    pictures: Annotated[list[Any], each(_named(_ABOUT), _MAX_ITEMS)] = Field(default_factory=list)
    kinds: Annotated[list[Any], each(_kind, _KINDS)] = Field(default_factory=list)
    heads: Annotated[list[Any], each(_named(_HEAD), _KINDS)] = Field(default_factory=list)
    forms: Annotated[list[Any], each(_named(_FORM), _KINDS)] = Field(default_factory=list)
    typed: Flag = False
    cites: Flag = False
    partial: Annotated[Partial | None, PlainValidator(Partial.of)] = None
    tools: Annotated[list[Any], each(_tool, _MAX_TOOLS)] = Field(default_factory=list)

    def info(self) -> ContextInfo:
        told = [" ".join(remark[:_REMARK].split()) for remark in self.remarks]
        if self.more_remarks:
            told.append(f"{self.more_remarks:,} more remarks, which list_files() has")
        return ContextInfo(
            self.kind,
            self.total_chars,
            self.items,
            self.item_count,
            self.head,
            self.about,
            self.form,
            told,
            self.typed,
            dict(self.pictures),
            self.partial,
            self.kinds,
            self.heads,
            self.forms,
            cites=self.cites,
            tools=self.tools,
        )


@dataclass(frozen=True, slots=True)
class Head:
    """What a host call says of itself: exactly this.

    `images`: bytes of each of the pictures that follow the JSON of the body.

    No model: it is read before all else of each call, which waits meanwhile.
    """

    token: str
    cell: str
    call: str
    kind: str
    nth: int = 0
    images: Sequence[int] = ()

    @classmethod
    def of(cls, value: Any) -> Self | None:
        try:
            head = cls(**value)
            for said, most in (
                (head.token, 64),
                (head.cell, MAX_CELL_ID),
                (head.call, MAX_CALL_ID),
                (head.kind, 32),
            ):
                if type(said) is not str or len(said) > most:
                    return None
                said.encode()  # no lone surrogates
            integer(head.nth, 0, _MAX_NTH)
            if head.images and (type(head.images) is not list or len(head.images) > MAX_PICTURES):
                return None
            for size in head.images:
                integer(size, 1)
        except (TypeError, ValueError):
            return None
        return head if _CALL.fullmatch(head.call) else None

    @classmethod
    def parse(cls, frame: bytes | bytearray) -> Self | None:
        return cls.of(_parsed(frame))


def _call_id(value: Any) -> str | None:
    return value if type(value) is str and len(value) <= MAX_CALL_ID else None


class Cancelled(Told):
    """The body of `cancel`: calls that nobody waits for any more."""

    calls: Annotated[list[str], each(_call_id, bounded.MAX_VALUES)] = Field(default_factory=list)


class Spooled(Asked):
    """What is handed over to a child RLM, as the kernel sent it before."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    handed: Annotated[str, Field(pattern=r"^[0-9]{1,10}-[0-9]{1,10}$")]
    form: Literal["text", "json"]


class Named(Asked):
    """The same, as files that are loaded."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    files: Annotated[list[str], Field(min_length=1, max_length=MAX_HANDED_FILES)]


class Python(Asked):
    """What the Python of a base image says of itself."""

    glibc: Annotated[list[Name], Field(min_length=2, max_length=2)]
    version: Annotated[list[Count], Field(min_length=3)]
    implementation: Name
    machine: Name

    @classmethod
    def parse(cls, said: bytes) -> Self | None:
        return cls.of(_parsed(said))


def cell_ended(kind: str, content: Mapping[str, Any]) -> bool:
    """Whether a message says that the kernel is through with what it answers."""
    return kind == "status" and Status.part(content).execution_state == "idle"

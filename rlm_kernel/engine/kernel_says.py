"""What code in the kernel asks of the host, read here and nowhere else in this room: the bodies of host
calls.

Who asks is there to hear what is wrong: a reader gives a value, or raises UsageError, and nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from rlm_contract import (
    ENCODINGS,
    MAX_ALL_PICTURES,
    MAX_BATCHES,
    MAX_EVIDENCE,
    MAX_PICTURES,
    MAX_PREVIEW,
    MAX_QUOTE,
    PREVIEW_SIDE,
)

from rlm_kernel.bounded import MAX_DEPTH
from rlm_kernel.checked import integer, plain, text
from rlm_kernel.engine import pictures
from rlm_kernel.engine.protocols import Answer, Evidence, Message, Partial, Picture, PictureNote
from rlm_kernel.errors import UsageError

MAX_SCHEMA = 100_000
"""Characters of a JSON schema that code may send."""
MAX_PLANNED = 10_000_000
"""Calls of one cell beyond which its word of them is not passed on."""
_MAX_TOKENS = 10**13
"""Of all prompts of a batch."""
_MAX_PATH = 4096
_MAX_NAME = 200
_MAX_MARK = 10_000_000
_BYTES_OF_ONE = 4
"""Of a character, in any encoding."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Batch:
    """Calls that code is about to make, by its own word: how many, of which kind, with prompts of about
    so many tokens together. `model`: as of the calls.
    """

    kind: Literal["llm_query", "rlm_query"]
    calls: int
    tokens: int
    model: str | None

    @classmethod
    def of(cls, value: Any) -> Batch:
        """As code in the kernel tells it (`rlm_contract.Batch`), which is hostile. Raises ValueError."""
        if type(value) not in (list, tuple) or len(value) != 4 or value[0] not in ("llm_query", "rlm_query"):
            raise ValueError("no batch")
        model = _text_or_none(value[3])
        calls, tokens = integer(value[1], 0, MAX_PLANNED), integer(value[2], 0, _MAX_TOKENS)
        return cls(value[0], calls, tokens, None if model is None else model[:_MAX_NAME])


@dataclass(frozen=True)
class Query:
    """A question as code in the kernel sent it. `timeout` in seconds; `model` of an rlm_query: the child's
    root model, and it has no `images`. `previews`: what the trace shows of these, in base64. `anew`: an
    answer that was kept is of no use.
    """

    prompt: str
    model: str | None
    schema: Mapping[str, Any] | None
    timeout: float | None
    images: Sequence[Picture] = ()
    previews: Sequence[str] = ()
    anew: bool = False

    def as_message(self) -> Message:
        """What a model is sent."""
        message = {"role": "user", "content": self.prompt}
        return {**message, "images": self.images} if self.images else message

    @classmethod
    def of(cls, body: Mapping[str, Any], name: str = "prompt") -> Query:
        """Raises UsageError."""
        wrong = f"This call takes a {name} that is a text with something in it, and perhaps a model's name."
        return cls(
            _read(body, name, _words, wrong),
            _read(body, "model", _text_or_none, wrong),
            _read(
                body,
                "schema",
                _schema,
                f"A schema is a JSON schema of at most {MAX_SCHEMA:,} characters and {MAX_DEPTH} levels.",
            ),
            _read(body, "timeout", _seconds, "A timeout is a number of seconds above 0."),
            *(_pictures(body) if name == "prompt" else ((), ())),
            body.get("anew") is True,
        )

    def identity(self) -> dict[str, Any]:
        """What a recording knows the query by."""
        known: dict[str, Any] = {"prompt": self.prompt, "model": self.model}
        known |= {"images": [picture.digest for picture in self.images]} if self.images else {}
        return known if self.schema is None else known | {"schema": self.schema}

    def notes(self) -> tuple[PictureNote, ...]:
        """What the trace keeps of the pictures."""
        return tuple(map(PictureNote.of, self.images, self.previews))


def _pictures(body: Mapping[str, Any]) -> tuple[Sequence[Picture], Sequence[str]]:
    """The pictures of a call, and a preview of each, "" where there is none that will do.

    Raises UsageError.
    """
    given = body.get("images") or []
    if type(given) is not list or any(type(data) is not bytes for data in given):
        raise UsageError("Pictures are sent as bytes: llm_query(prompt, images=[...]) does that.")
    if len(given) > MAX_PICTURES or sum(map(len, given)) > MAX_ALL_PICTURES:
        raise UsageError(
            f"A call has at most {MAX_PICTURES} pictures, and {MAX_ALL_PICTURES:,} bytes of them."
        )
    try:
        found = tuple(map(pictures.read, given))
    except ValueError as wrong:
        raise UsageError(f"A picture cannot be taken: {wrong}.") from None
    told = body.get("previews")
    previews = list(map(_preview, told[: len(found)])) if type(told) is list else []
    return found, (*previews, *[""] * (len(found) - len(previews)))


def _preview(value: Any) -> str:
    """A preview in base64; "" for what is no small picture, which the trace would show to people."""
    if type(value) is not str or len(value) > 4 * MAX_PREVIEW // 3 + 4:
        return ""
    try:
        data = base64.b64decode(value, validate=True)
        pictures.read(data, most=MAX_PREVIEW, side=PREVIEW_SIDE)
    except ValueError:
        return ""
    return base64.b64encode(data).decode()


def tool_call(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a tool, and the arguments by name. Raises UsageError."""
    name = _read(body, "name", _name, "A tool is called by its name, which is a text.")
    wrong = f"The arguments of a tool are JSON data by name, without NaN and of at most {MAX_DEPTH} levels."
    return name, _read(body, "arguments", _arguments, wrong)


def _arguments(value: Any) -> dict[str, Any]:
    found = plain(value)
    if type(found) is not dict:
        raise ValueError("no object")
    return found


def path(body: Mapping[str, Any]) -> str:
    """The path of a `file` call.

    Lone surrogates in it stand for the bytes of a name that is not UTF-8. Raises UsageError.
    """
    return _read(body, "path", _path, f"A path must be a text of at most {_MAX_PATH:,} characters.")


def answer(body: Mapping[str, Any]) -> Answer:
    """What FINAL delivers.

    A value that is no plain JSON data is left to its text; a list or dict needs none. Raises UsageError.
    """
    given = body.get("value")
    try:
        value, fits = plain(given), "value" in body
    except ValueError:
        value, fits = None, False
    worded = body.get("text")
    if "text" not in body and type(given) in (list, dict):
        try:
            worded = json.dumps(given, ensure_ascii=False)
        except (ValueError, TypeError, RecursionError):
            worded = None
    try:
        return Answer(text(worded), value, typed=fits, evidence=_evidence(body))
    except ValueError:
        raise UsageError("An answer must be a text, a list or a dict, and not nested without end.") from None


def _evidence(body: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """What code gave with its answer, which is hostile. Raises UsageError."""
    given = body.get("evidence", [])
    if type(given) is not list or len(given) > MAX_EVIDENCE:
        raise UsageError(f"Evidence is a list of at most {MAX_EVIDENCE:,} passages: cite(passage) makes it.")
    try:
        found = tuple(map(_passage, given))
    except ValueError as wrong:
        raise UsageError(f"This is no passage of a file: {wrong}. cite(passage) makes them.") from None
    if len({one.mark for one in found}) < len(found):
        raise UsageError("Two passages of this answer have one mark: cite(passage) makes them.")
    return found


def _passage(value: Any) -> Evidence:
    """Raises ValueError."""
    if type(value) is not dict:
        raise ValueError("it is no object")
    where, quote = _path(value.get("path")), value.get("quote")
    start, end = integer(value.get("start")), integer(value.get("end"))
    if type(quote) is not str or not quote.strip() or len(quote) > MAX_QUOTE or text(quote) != quote:
        raise ValueError(f"its quotation is no text of at most {MAX_QUOTE:,} characters")
    unit, encoding = value.get("unit"), value.get("encoding")
    if unit not in ("bytes", "characters") or type(encoding) is not str or encoding not in ENCODINGS:
        raise ValueError("its unit or its encoding is not known")
    if not where or ".." in where.split("/"):
        raise ValueError("it has no path that is absolute")
    longest = _BYTES_OF_ONE * len(quote) if unit == "bytes" else len(quote)
    if not len(quote) <= end - start <= longest:
        raise ValueError("its span is not as long as its quotation")
    return Evidence(integer(value.get("mark"), 1, _MAX_MARK), where, start, end, quote, unit, encoding)


def received(body: Mapping[str, Any]) -> str:
    """Id of the call whose answer the kernel has; "" for what is none."""
    return _or(body.get("call"), _name, "")


def order(body: Mapping[str, Any]) -> list[str]:
    """Ids of calls, in the order in which code had their answers. What is none is passed over."""
    ids = body.get("calls")
    return [name for name in ids if type(name) is str] if type(ids) is list else []


def partial(body: Mapping[str, Any]) -> Partial | None:
    """What is left of a batch that was cut off; None where that is unknown."""
    return _or(body.get("partial"), Partial.of, None)


def planned(body: Mapping[str, Any]) -> int | None:
    """How many calls a cell makes in all; None where that is unknown."""
    return _or(body.get("calls"), _planned, None)


def batches(body: Mapping[str, Any]) -> Sequence[Batch]:
    """The calls that a cell is about to make; none where that is unknown."""
    return _or(body.get("batches"), _batches, ())


def _batches(value: Any) -> Sequence[Batch]:
    if type(value) not in (list, tuple) or len(value) > MAX_BATCHES:
        raise ValueError("no batches")
    return [Batch.of(one) for one in value]


def _read(body: Mapping[str, Any], name: str, read: Callable[[Any], _T], wrong: str) -> _T:
    try:
        return read(body.get(name))
    except ValueError:
        raise UsageError(wrong) from None


def _or(value: Any, read: Callable[[Any], _T], unknown: _T) -> _T:
    try:
        return read(value)
    except ValueError:
        return unknown


def _words(value: Any) -> str:
    words = text(value)
    if not words.strip():
        raise ValueError("nothing in it")
    return words


def _text_or_none(value: Any) -> str | None:
    return None if value is None else text(value)


def _schema(value: Any) -> Mapping[str, Any] | None:
    schema = plain(value)
    if schema is not None and (type(schema) is not dict or len(json.dumps(schema)) > MAX_SCHEMA):
        raise ValueError("no schema")
    return schema


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if not (type(value) is int or type(value) is float) or not 0 < value < 1e9:
        raise ValueError("no time")
    return value


def _path(value: Any) -> str:
    if type(value) is not str or len(value) > _MAX_PATH or "\0" in value:
        raise ValueError("no path")
    return value


def _name(value: Any) -> str:
    return text(value)[:_MAX_NAME]


def _planned(value: Any) -> int:
    return integer(value, 0, MAX_PLANNED)

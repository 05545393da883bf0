"""Readers of what a kernel says: whatever it is, they give a value or "unknown", and one wrong field costs
nothing else.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rlm_kernel import bounded, checked
from rlm_kernel.engine import kernel_says as asked
from rlm_kernel.engine.protocols import Answer
from rlm_kernel.errors import UsageError
from rlm_kernel.sandbox import kernel_says as told
from rlm_kernel.sandbox.outputs import OutputCollector


def nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


ODD = [
    *(None, True, False, 0, -1, 1 << 53, 10**400, 10**5000, -(10**5000)),
    *(0.5, math.nan, math.inf, -math.inf, 1e308),
    *(
        "",
        "\ud800",
        "a\0b",
        "x" * 100_000,
        "0x" + "f" * 20_000,
        "{1: 2}",
        "[" * 100_000,
        '"\\d"',
        "1" * 10_000,
    ),
    *(
        [],
        [1],
        [[]],
        [None, "a"],
        {},
        {1: 2},
        {"1": 2},
        {"": {}},
        {"\ud800": "\udfff"},
        {None: []},
        {(1, 2): set()},
    ),
    *(
        nested(50),
        nested(300),
        nested(900),
        nested(300, dict),
        {"msg_id": []},
        b"bytes",
        1j,
        object,
        Ellipsis,
        {1, 2},
        (1, "a"),
    ),
]
LEAVES = st.one_of(
    st.integers(0, len(ODD) - 1).map(
        lambda place: ODD[place]
    ),  # not sampled_from, which words them, and some cannot be
    st.none() | st.booleans() | st.integers() | st.integers(min_value=10**300) | st.floats(),
    st.text() | st.text(st.characters(categories=["Cs"])),
)
NAMES = st.sampled_from(
    [
        *(
            "data",
            "text/plain",
            "text",
            "name",
            "traceback",
            "ename",
            "evalue",
            "metadata",
            "transient",
            "display_id",
            "wait",
            "code",
        ),
        *(
            "execution_state",
            "execution_count",
            "status",
            "user_expressions",
            "variables",
            "value",
            "msg_id",
            "msg_type",
            "session",
        ),
        *(
            "kind",
            "items",
            "head",
            "remarks",
            "typed",
            "prompt",
            "question",
            "model",
            "schema",
            "timeout",
            "path",
            "calls",
            "call",
        ),
        *(
            "files",
            "handed",
            "form",
            "token",
            "cell",
            "nth",
            "characters",
            "bytes",
            "lazy",
            "active",
            "application/json",
            "image/png",
        ),
    ]
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=5) | st.integers(), inner, max_size=6)
    ),
    max_leaves=12,
)
OUTPUTS = (
    "stream",
    "display_data",
    "update_display_data",
    "execute_result",
    "error",
    "clear_output",
    "rlm_truncated",
    "comm_msg",
    "",
)
READERS: dict[str, Callable[[Any], Any]] = {
    "message": lambda value: told.Message.made_of(value, value, value),
    **{
        model.__name__: model.part
        for model in (told.Stream, told.Raised, told.Clear, told.Status, told.Input, told.Display)
    },
    "Reply": told.Reply.part,
    "Described": lambda value: (found := told.Described.of(value)) and found.info(),
    "Cancelled": told.Cancelled.part,
    **{model.__name__: model.of for model in (told.Head, told.Named, told.Spooled, told.File)},
    "variables": told.variables,
    "files": told.files,
    "Python": told.Python.of,
    "cell_ended": lambda value: told.cell_ended("status", value),
}
ASKED: dict[str, Callable[[Any], Any]] = {
    "llm_query": lambda body: asked.Query.of(body).identity(),
    "rlm_query": lambda body: asked.Query.of(body, "question").identity(),
    "file": asked.path,
    "final": asked.answer,
    "received": asked.received,
    "order": asked.order,
    "planned": asked.planned,
}


def can_be_used(value: Any) -> None:
    """As the host uses what was read: it goes into JSON, into texts, and to terminals."""
    if isinstance(value, told.Reply):
        value = value.model_copy(update={"user_expressions": None})  # these are still to be read
    if isinstance(value, told.Message):
        value = replace(value, content={})  # this, too
    parts = value if isinstance(value, list) else [value]
    data = [
        part.model_dump() if isinstance(part, BaseModel) else asdict(part) if is_dataclass(part) else part
        for part in parts
    ]  # type: ignore[arg-type]
    json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    repr(value)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(value=ANYTHING)
def test_whatever_a_kernel_tells_is_a_value_or_unknown(name: str, value: Any) -> None:
    can_be_used(READERS[name](value))


@pytest.mark.parametrize("name", ASKED)
@settings(max_examples=60, deadline=None)
@given(value=ANYTHING, body=st.dictionaries(NAMES, ANYTHING, max_size=5))
def test_whatever_code_asks_is_a_value_or_told_to_be_wrong(
    name: str, value: Any, body: dict[str, Any]
) -> None:
    for field in (
        "prompt",
        "question",
        "path",
        "text",
        "value",
        "call",
        "calls",
        "schema",
        "timeout",
        "model",
    ):
        try:
            found = ASKED[name]({"prompt": "p", "question": "q"} | body | {field: value})
        except UsageError:
            pass
        else:
            json.dumps(found.value if isinstance(found, Answer) else found, allow_nan=False)


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_each_odd_value_in_each_reader(value: Any) -> None:
    for read in READERS.values():
        can_be_used(read(value))
        can_be_used(
            read(dict.fromkeys(("name", "data", "kind", "items", "user_expressions", "transient"), value))
        )
    for kind in OUTPUTS:
        collector = OutputCollector()
        for content in (
            value,
            {"data": value},
            {"data": {"text/plain": value, "application/json": value, "image/png": value}},
        ):
            collector.add(kind, content)
        json.dumps(collector.outputs, allow_nan=False, ensure_ascii=False).encode()


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(OUTPUTS), content=ANYTHING)
def test_outputs_can_be_written_whatever_comes(kind: str, content: Any) -> None:
    collector = OutputCollector()
    collector.add("stream", {"name": "stdout", "text": "before"})
    collector.add(kind, content)
    json.dumps(collector.outputs, allow_nan=False, ensure_ascii=False).encode()


GENUINE: dict[str, tuple[Callable[[Any], Any], Mapping[str, Any]]] = {
    "Stream": (told.Stream.part, {"name": "stderr", "text": "t"}),
    "Raised": (told.Raised.part, {"ename": "E", "evalue": "v", "traceback": ["a"]}),
    "Input": (told.Input.part, {"code": "1", "execution_count": 3}),
    "Reply": (
        told.Reply.part,
        {
            "status": "ok",
            "ename": "E",
            "execution_count": 4,
            "user_expressions": {"v": {"data": {"text/plain": "{'a': 1}"}}},
        },
    ),
    "Display": (
        told.Display.part,
        {
            "data": {"text/plain": "p"},
            "metadata": {"m": 1},
            "transient": {"display_id": "d"},
            "execution_count": 5,
        },
    ),
    "Described": (
        told.Described.of,
        {
            "kind": "dict",
            "total_chars": 9,
            "items": [("a", 9)],
            "item_count": 1,
            "head": "h",
            "about": True,
            "form": "csv",
            "remarks": ["r"],
            "more_remarks": 2,
            "typed": True,
        },
    ),
    "File": (
        told.File.of,
        {"name": "n", "path": "/n", "characters": 5, "encoding": "utf-8", "lazy": True, "active": True},
    ),
}


NAMED = {"transient": "display_id"}


@pytest.mark.parametrize("name", GENUINE)
@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_one_wrong_field_costs_no_other(name: str, value: Any) -> None:
    read, genuine = GENUINE[name]
    whole = read(genuine)
    for field in genuine:
        if (name, field) == ("File", "name"):
            continue  # without one it is no file
        found = read({**genuine, field: value})
        for other in genuine:
            assert other == field or getattr(found, NAMED.get(other, other)) == getattr(
                whole, NAMED.get(other, other)
            ), (field, other)


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_a_wrong_part_of_a_message_costs_that_part(value: Any) -> None:
    header, parent, content = {"msg_type": "stream"}, {"msg_id": "a", "session": "s"}, {"text": "t"}
    assert told.Message.made_of(header, parent, content) == told.Message("stream", "a", "s", content)
    assert told.Message.made_of(value, parent, content).request == "a"
    assert told.Message.made_of(header, value, content).kind == "stream"
    assert told.Message.made_of(header, parent, value).request == "a"
    assert told.Message.made_of(header, parent | {"msg_id": value}, content).session == "s"


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_a_wrong_entry_costs_that_entry(value: Any) -> None:
    assert (told.variables({"a": "int", "b": value}) or {})["a"] == "int"
    assert (told.files([value, {"name": "n"}]) or [])[-1].name == "n"
    shown = told.Display.part({"data": {"application/json": value, "text/plain": "p"}, "metadata": value})
    assert ("text/plain", "p", 1) in shown.data
    described = told.Described.of({"items": [value, ("a", 1)], "remarks": [value, "r"]})
    assert described is not None
    assert described.items[-1] == ("a", 1)
    assert described.remarks[-1] == "r"


def test_nothing_is_converted() -> None:
    assert told.Counted.part({"execution_count": "7"}).execution_count is None
    assert told.Counted.part({"execution_count": True}).execution_count is None
    assert told.Counted.part({"execution_count": 7.0}).execution_count is None
    assert told.Clear.part({"wait": 1}).wait is False
    assert told.Described.of({"total_chars": "5", "typed": "yes"}) == told.Described()
    assert asked.planned({"calls": True}) is None


def test_values_that_are_all_wrong_are_unknown() -> None:
    assert told.variables({1: 2}) is None
    assert told.variables([1]) is None
    assert told.files([1]) is None
    assert told.files([]) == []
    assert told.Described.of([1]) is None


def test_a_literal_warns_of_nothing_and_is_bounded() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert told.literal(r"'\d'") == "\\d"
    assert told.literal("[" * 100_000) is None
    assert told.literal("'" + "x" * 300_000 + "'") is None
    assert told.literal("{[]: 1}") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('"\\ud800"', "\ud800"),
        (b"\xff", None),
        ("[" * 100_000, None),
        ("[" * 300 + "]" * 300, nested(299)),
        ("", None),
    ],
)
def test_what_the_parser_makes_of_odd_texts(text: str | bytes, value: Any) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    if value is None:
        with pytest.raises(ValueError, match=r"."):
            bounded.parse(data)
    elif text[0] == "[":
        assert isinstance(bounded.parse(data), list)
    else:
        assert bounded.parse(data) == value


def test_a_number_that_python_does_not_read_costs_its_field_alone() -> None:
    parts = [json.dumps(part).encode() for part in ({"msg_type": "execute_result"}, {"msg_id": "a"})]
    content = b'{"execution_count": ' + b"1" * 5000 + b', "data": {"text/plain": "p"}}'
    message = told.Message.parse(parts[0], parts[1], content)
    shown = told.Display.part(message.content)
    assert (message.request, shown.execution_count, shown.data) == ("a", None, [("text/plain", "p", 1)])


def test_a_reply_without_readable_content_is_the_reply_all_the_same() -> None:
    message = told.Message.parse(b'{"msg_type": "execute_reply"}', b'{"msg_id": "a"}', b"[" * 10_000)
    assert (message.request, told.Reply.part(message.content).status) == ("a", "")


def test_plain_data_is_as_deep_and_as_large_as_can_be_written() -> None:
    assert checked.plain(nested(checked.MAX_DEPTH)) == nested(checked.MAX_DEPTH)
    for value in (nested(checked.MAX_DEPTH + 1), [2**checked.MAX_BITS], {1: 2}, [math.nan], {"a": {1}}):
        with pytest.raises(ValueError, match="it is"):
            checked.plain(value)
    assert checked.plain({"\ud800": ["\ud800"]}) == {"?": ["?"]}
    json.dumps(checked.plain([2**checked.MAX_BITS - 1]))


def test_an_answer_whose_value_does_not_fit_is_left_to_its_text() -> None:
    for value in (nested(300), math.nan, [10**2000]):
        assert asked.answer({"text": "as text", "value": value}) == Answer("as text")
        assert not asked.answer({"text": "as text", "value": value}).typed
    assert asked.answer({"value": nested(300)}).text == "[" * 300 + "1" + "]" * 300
    assert asked.answer({"text": "None", "value": None}).typed
    with pytest.raises(UsageError):
        asked.answer({"value": nested(5000)})


def test_a_copy_of_a_genuine_body_is_read_as_it_is() -> None:
    body = {"prompt": "p", "model": "m", "schema": {"type": "string"}, "timeout": 2}
    assert asked.Query.of(copy.deepcopy(body)) == asked.Query("p", "m", {"type": "string"}, 2)

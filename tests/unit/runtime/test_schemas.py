"""Structured answers: what is asked of the model, how its reply becomes a value, and the one retry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel
from rlm_runtime import asyncwire, batches, queries, wire
from rlm_runtime.schemas import Wanted

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


class Person(BaseModel):
    name: str
    age: int


class Node(BaseModel):
    value: int
    below: list[Node] = []


# What is asked


@pytest.mark.parametrize(
    "kind", [int, list[str], {"type": "array", "items": {"type": "string"}}, {"enum": ["a", "b"]}, Node]
)
def test_what_is_sent_is_an_object_at_its_top(kind: Any) -> None:
    wanted = Wanted(kind)
    assert (wanted.sent["type"], wanted.sent["required"], wanted.sent["additionalProperties"]) == (
        "object",
        ["answer"],
        False,
    )
    assert wanted.told in wanted.ask("How many?")
    assert wanted.ask("How many?").startswith("How many?\n")


@pytest.mark.parametrize("kind", [Person, PERSON, dict[str, int]])
def test_what_is_an_object_is_sent_as_it_is(kind: Any) -> None:
    wanted = Wanted(kind)
    assert wanted.sent == wanted.schema


def test_definitions_stay_where_references_find_them() -> None:
    assert list(Wanted(list[Person]).sent["$defs"]) == ["Person"]
    assert Wanted(list[Person]).read('{"answer": [{"name": "a", "age": 1}]}') == [Person(name="a", age=1)]


@pytest.mark.parametrize(
    "kind",
    [3, object(), True, "Missing", {"type": "objekt"}, {"type": "string", "pattern": "("}, {"required": "a"}],
)
def test_what_is_neither_schema_nor_type_is_told_at_once(kind: Any) -> None:
    with pytest.raises(TypeError, match="schema"):
        Wanted(kind)


def test_the_second_question_says_what_was_wrong_with_the_reply() -> None:
    wanted = Wanted(int)
    again = wanted.ask_again("How many?", "many " * 1000, ValueError("it holds no JSON"))
    assert again.startswith(wanted.ask("How many?"))
    assert "it holds no JSON" in again
    assert "many many" in again
    assert len(again) < len(wanted.ask("How many?")) + 500


# What comes back


@pytest.mark.parametrize(
    ("kind", "reply", "value"),
    [
        (int, "42", 42),
        (int, ' {"answer": 42}\n', 42),
        (int, "I count them.\n```json\n42\n```", 42),
        (int, '```\n{"answer": 42}\n```\nThat is it.', 42),
        (int, '```json\n1\n```\nNo:\n```json\n{"answer": 2}\n```', 2),
        (float, "1", 1.0),
        (bool, "true", True),
        (list[str], '["a", "ä"]', ["a", "ä"]),
        (list[str], 'Here: {"answer": ["a"]}, as you wished.', ["a"]),
        (dict[str, int], '{"answer": 1}', {"answer": 1}),
        (Person, '{"name": "Ann", "age": 7}', Person(name="Ann", age=7)),
        (Person, 'Ann {the first} is it: {"name": "Ann", "age": 7}', Person(name="Ann", age=7)),
        (Node, '{"value": 1, "below": [{"value": 2}]}', Node(value=1, below=[Node(value=2)])),
        (PERSON, '{"name": "Ann"}', {"name": "Ann"}),
        ({"type": ["integer", "null"]}, '{"answer": null}', None),
        ({"enum": ["a", "b"]}, '"b"', "b"),
    ],
)
def test_a_reply_that_fits_becomes_a_value(kind: Any, reply: str, value: Any) -> None:
    found = Wanted(kind).read(reply)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "reply", "wrong"),
    [
        (int, "forty-two", "it holds no JSON"),
        (int, "", "it holds no JSON"),
        (int, '"many"', "valid integer"),
        (int, '{"answer": 1.5}', "integer"),
        (int, '{"answer": 1, "sure": true}', "integer"),
        (list[str], '["a", "b', "it holds no JSON"),
        (list[str], "[1, 2]", "string"),
        (Person, '{"name": "Ann"}', "age"),
        (PERSON, '{"name": 1}', r"\['name'\]: 1 is not of type 'string'"),
        (PERSON, '{"name": "Ann", "age": 7}', "Additional properties"),
        (int, "9" * 5000, "it holds no JSON"),
        (Person, json.dumps({"name": "x" * 10_000, "age": "y" * 10_000}), "age"),
    ],
)
def test_a_reply_that_does_not_fit_is_refused_in_few_words(kind: Any, reply: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as caught:
        Wanted(kind).read(reply)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (Person, {"name": "Ann", "age": 7}, Person(name="Ann", age=7)),
        (Person, '{"name": "Ann", "age": 7}', Person(name="Ann", age=7)),
        (str, "plain words", "plain words"),
        (int, "42", 42),
        (list[int], (1, 2), [1, 2]),
        (PERSON, '```json\n{"name": "Ann"}\n```', {"name": "Ann"}),
    ],
)
def test_a_delivered_answer_may_be_the_value_or_its_json(kind: Any, value: Any, found: Any) -> None:
    assert Wanted(kind).of(value) == found


@pytest.mark.parametrize("value", [{1, 2}, object(), [1, "a"]])
def test_a_delivered_answer_that_does_not_fit_is_refused(value: Any) -> None:
    for kind in (list[int], {"type": "array", "items": {"type": "integer"}}):
        with pytest.raises(ValueError, match=r"."):
            Wanted(kind).of(value)


# Asking, and asking again


class Host:
    """In place of the wire: `reply` says what the model answers, or raises.

    `bodies` are the requests, in order.
    """

    def __init__(self, reply: Callable[[str], str]) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[object] = []
        self.seconds: list[float | None] = []

    def call(self, _kind: str, body: dict[str, Any], same: object = None) -> str:
        self.bodies.append(body)
        self.keys.append(same)
        return self.reply(body["prompt"])

    async def acall(self, kind: str, body: dict[str, Any], same: object = None) -> str:
        return self.call(kind, body, same)

    def call_many(
        self,
        kind: str,
        items: Iterable[batches.Item],
        results: list[Any],
        places: Sequence[int],
        *,
        read: Callable[[int, Any], Any],
        deadline: batches.Deadline | None = None,
        about: tuple[int, str | None] = (0, None),
    ) -> None:
        self.seconds.append(deadline.left() if deadline else None)
        for place, item in zip(places, items, strict=True):
            try:
                results[place] = read(place, self.call(kind, *item))
            except wire.HostCallError as error:
                results[place] = wire.CallFailed(error)
        refused = [
            one.error
            for place in places
            if isinstance(one := results[place], wire.CallFailed)
            and isinstance(one.error, wire.BudgetExceeded)
        ]
        if places and len(refused) == len(places):
            raise refused[0]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], Host]:
    def make(reply: Callable[[str], str]) -> Host:
        made = Host(reply)
        monkeypatch.setattr(wire, "call", made.call)
        monkeypatch.setattr(batches, "call_many", made.call_many)
        monkeypatch.setattr(asyncwire, "call", made.acall)
        return made

    return make


def one(prompt: str, **options: Any) -> Any:
    return queries.llm_query(prompt, **options)


def awaited(prompt: str, **options: Any) -> Any:
    return asyncio.run(queries.allm_query(prompt, **options))


def batched(prompt: str, **options: Any) -> Any:
    found = queries.llm_query_batched([prompt], **options)[0]
    if isinstance(found, wire.CallFailed):
        assert not found
        raise found.error
    return found


ROADS = pytest.mark.parametrize("ask", [one, awaited, batched])
_AGAIN = "Your last reply was not taken"


@ROADS
def test_a_fitting_reply_is_asked_for_once(host: Any, ask: Any) -> None:
    made = host(lambda _: "7")
    assert ask("How many?", schema=int) == 7
    (body,) = made.bodies
    assert body["schema"] == Wanted(int).sent
    assert body["prompt"] == Wanted(int).ask("How many?")


@ROADS
def test_without_a_schema_nothing_is_added_and_text_stays_text(host: Any, ask: Any) -> None:
    made = host(lambda _: "7")
    assert ask("How many?") == "7"
    assert made.bodies == [{"prompt": "How many?", "model": None}]


@ROADS
def test_a_reply_that_does_not_fit_is_asked_for_once_more(host: Any, ask: Any) -> None:
    made = host(lambda prompt: "7" if _AGAIN in prompt else "seven")
    assert ask("How many?", schema=int) == 7
    assert [_AGAIN in body["prompt"] for body in made.bodies] == [False, True]
    assert "'seven'" in made.bodies[1]["prompt"]
    assert made.keys[0] != made.keys[1], "a replay must tell them apart"


@ROADS
def test_two_replies_that_do_not_fit_are_a_typed_failure(host: Any, ask: Any) -> None:
    made = host(lambda _: "seven")
    with pytest.raises(
        wire.LLMError, match=r"does not fit the schema, twice: it holds no JSON\. It began: 'seven'"
    ):
        ask("How many?", schema=int)
    assert len(made.bodies) == 2


@ROADS
def test_a_failed_call_is_not_asked_again(host: Any, ask: Any) -> None:
    def fail(_prompt: str) -> str:
        raise wire.LLMError("the model is down")

    made = host(fail)
    with pytest.raises(wire.LLMError, match="the model is down"):
        ask("How many?", schema=int)
    assert len(made.bodies) == 1


@ROADS
def test_what_is_no_schema_costs_no_call(host: Any, ask: Any) -> None:
    made = host(lambda _: "7")
    with pytest.raises(TypeError):
        ask("How many?", schema=3)
    assert made.bodies == []


def test_of_a_batch_only_what_did_not_fit_is_asked_again(host: Any) -> None:
    def reply(prompt: str) -> str:
        name = prompt.split("\n")[0]
        if name == "down":
            raise wire.LLMError("the model is down")
        return {"good": "1", "late": "2" if _AGAIN in prompt else "two", "bad": "?"}[name]

    made = host(reply)
    found = queries.llm_query_batched(["good", "late", "bad", "down", "good"], schema=int)
    assert [found[0], found[1], found[4]] == [1, 2, 1]
    assert [type(item) for item in found[2:4]] == [wire.CallFailed] * 2
    assert "twice" in str(found[2])
    assert "the model is down" in str(found[3])
    assert [body["prompt"].split("\n")[0] for body in made.bodies[5:]] == ["late", "bad"]


def test_a_batchs_second_round_that_the_budget_refuses_costs_only_its_items(host: Any) -> None:
    def reply(prompt: str) -> str:
        if _AGAIN in prompt:
            raise wire.BudgetExceeded("The limit of calls is reached.")
        return prompt[0]

    host(reply)
    found = queries.llm_query_batched(["1", "x", "2", "y"], schema=int)
    assert (found[0], found[2]) == (1, 2)
    assert [type(item.error) for item in (found[1], found[3])] == [wire.BudgetExceeded] * 2


def test_a_batchs_second_round_has_what_is_left_of_its_time(host: Any) -> None:
    made = host(lambda _: "?")
    queries.llm_query_batched(["a"], schema=int, timeout=5.0)
    first, second = made.seconds
    assert first is not None
    assert second is not None
    assert 0.0 < second <= first <= 5.0


@pytest.mark.parametrize("ask", [one, awaited])
def test_a_calls_time_out_is_sent_with_each_attempt(host: Any, ask: Any) -> None:
    made = host(lambda prompt: "7" if _AGAIN in prompt else "?")
    ask("How many?", schema=int, timeout=2.5)
    assert [body["timeout"] for body in made.bodies] == [2.5, 2.5]


# Hostile replies and odd schemas


def test_a_reply_nested_without_end_costs_only_its_own_item(host: Any) -> None:
    host(lambda prompt: "[" * 100_000 if prompt.startswith("bad") else "[1]")
    found = queries.llm_query_batched(["good", "bad"], schema=list[int])
    assert found[0] == [1]
    assert isinstance(found[1], wire.CallFailed)


@pytest.mark.parametrize(
    "schema",
    [{"items": {"$ref": "#/nowhere"}}, {"items": {"$ref": "https://example.org/schema"}}, {"$ref": "#"}],
)
def test_a_reference_that_leads_nowhere_is_told_before_any_call(host: Any, schema: Any) -> None:
    made = host(lambda _: "[1]")
    with pytest.raises(TypeError, match="schema"):
        queries.llm_query("Which?", schema=schema)
    assert made.bodies == []


@pytest.mark.parametrize(
    ("kind", "reply"), [(list[int], "As [1] says, it is [4, 5]."), (list[str], 'In [1]: ["a", "b"]')]
)
def test_of_several_pieces_of_json_among_words_the_one_that_is_the_answer_is_taken(
    kind: Any, reply: str
) -> None:
    assert Wanted(kind).read(reply) in ([4, 5], ["a", "b"])


def test_definitions_of_older_drafts_stay_where_references_find_them() -> None:
    schema = {
        "type": "array",
        "items": {"$ref": "#/definitions/x"},
        "definitions": {"x": {"type": "integer"}},
    }
    assert Wanted(Wanted(schema).sent).read('{"answer": [1]}') == {"answer": [1]}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize("depth", [100, 200, 1000, 100_000])
def test_a_schema_that_is_nested_too_deep_is_refused_by_name(depth: int) -> None:
    with pytest.raises(TypeError, match=r"nested more than 100 levels deep.*\$defs"):
        Wanted(nested(depth))


def test_a_schema_or_type_that_holds_itself_or_is_too_deep_is_refused_by_name() -> None:
    round_and_round: dict[str, Any] = {"type": "object"}
    round_and_round["properties"] = {"a": round_and_round}
    with pytest.raises(TypeError, match="nested more than"):
        Wanted(round_and_round)
    kind: Any = str
    for _ in range(1000):
        kind = list[kind]
    with pytest.raises(TypeError, match="nested too deep"):
        Wanted(kind)


def test_a_schema_of_many_levels_is_taken_and_a_reply_that_is_too_deep_is_told() -> None:
    assert Wanted(nested(60)).read('{"answer": []}') == []
    reply: Any = "x"
    for _ in range(5000):
        reply = {"a": reply}
    with pytest.raises(ValueError, match="nested too deep"):
        Wanted({"type": "object", "properties": {"a": {"$ref": "#"}}}).check(reply)

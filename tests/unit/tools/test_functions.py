"""What the model is told of a function, how its arguments are checked, and what it may give."""

from __future__ import annotations

import asyncio
import datetime
import enum
import functools
import math
import threading
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pydantic
import pytest

from rlm_kernel.errors import ToolError, UsageError
from rlm_kernel.tools.functions import tool, tools_of
from rlm_kernel.tools.tool import Tool, ToolResult


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Order:
    item: str
    count: int = 1


class Customer(pydantic.BaseModel):
    name: str


async def call(function: Any, **arguments: Any) -> Any:
    return (await tool(function).call(arguments)).value


def weather(
    city: str, days: int = 3, *, unit: Unit = Unit.C, when: datetime.date | None = None
) -> dict[str, Any]:
    """The weather of a city.

    Of some days.
    """
    return {"city": city, "days": days, "unit": unit, "when": when}


def test_the_signature_is_told_without_modules_and_an_enum_as_its_values() -> None:
    made = tool(weather)
    assert made.name == "weather"
    assert made.signature == (
        "(city: str, days: int = 3, *, unit: Literal['celsius', 'fahrenheit'] = 'celsius', "
        "when: date | None = None) -> dict[str, Any]"
    )
    assert made.doc == "The weather of a city.\n\nOf some days."
    assert made.parameters["required"] == ["city"]


def test_a_default_that_is_no_plain_value_is_not_shown() -> None:
    secret = object()

    def search(text: str, key: Any = secret, way: Any = Path("/home/me/secret")) -> None: ...

    assert tool(search).signature == "(text: str, key: Any = ..., way: Any = ...) -> None"


def test_what_values_of_own_classes_look_like_is_told() -> None:
    def buy(order: Order, customer: Customer | None = None) -> None: ...

    assert "Order = dict(item: str, count: int)" in tool(buy).doc
    assert "Customer = dict(name: str)" in tool(buy).doc


async def test_arguments_become_what_the_hints_say() -> None:
    found = await call(weather, city="Ulm", unit="fahrenheit", when="2026-01-02")
    assert found == {"city": "Ulm", "days": 3, "unit": Unit.F, "when": datetime.date(2026, 1, 2)}

    def buy(order: Order, customer: Customer) -> list[Any]:
        return [order, customer]

    assert await call(buy, order={"item": "tea"}, customer={"name": "Ada"}) == [
        Order("tea"),
        Customer(name="Ada"),
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"city": 5}, "city: Input should be a valid string"),
        ({"city": "Ulm", "days": None}, "days: Input should be a valid integer"),
        ({"city": "Ulm", "unit": "kelvin"}, "unit: Input should be 'celsius' or 'fahrenheit'"),
        ({}, "the argument 'city' is missing"),
        ({"city": "Ulm", "hours": 3}, "there is no argument 'hours'"),
        ({"city": "Ulm", "self": 3}, "there is no argument 'self'"),
    ],
)
async def test_a_wrong_argument_is_told_with_how_the_function_is_called(
    arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ToolError) as error:
        await tool(weather).call(arguments)
    assert told in str(error.value)
    assert "weather(city: str" in str(error.value)


async def test_none_is_taken_only_where_the_hint_says_so() -> None:
    def kept(text: Optional[str], cold: bool = False) -> Any:  # noqa: UP045 - as people write it
        return [text, cold]

    assert await call(kept, text=None) == [None, False]
    with pytest.raises(ToolError, match="cold: Input should be a valid boolean"):
        await call(kept, text=None, cold=None)


async def test_positional_and_keyword_arguments_of_every_kind_reach_the_function() -> None:
    def every(a: int, /, b: int = 2, *more: int, c: int, d: int = 4, **rest: str) -> list[Any]:
        return [a, b, more, c, d, rest]

    assert await call(every, a=1, c=3) == [1, 2, (), 3, 4, {}]
    assert await call(every, a=1, b=5, more=[6, 7], c=3, rest={"x": "y"}) == [1, 5, (6, 7), 3, 4, {"x": "y"}]
    with pytest.raises(ToolError, match=r"more\[?.*valid integer"):
        await call(every, a=1, b=2, more=["x"], c=3)
    with pytest.raises(ToolError, match="with all before it given"):
        await call(every, a=1, more=[6], c=3)

    def late(a: int = 1, b: int = 2) -> list[int]:
        return [a, b]

    assert await call(late, b=5) == [1, 5]


async def test_functions_without_hints_and_with_hints_of_unknown_names_take_anything() -> None:
    def plain(x, y=2):  # type: ignore[no-untyped-def]
        return [x, y]

    assert tool(plain).signature == "(x, y=2)"
    assert await call(plain, x={"a": 1}) == [{"a": 1}, 2]

    def unknown(x: NotThere) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return x

    assert await call(unknown, x=3) == 3

    class Odd:
        pass

    def odd(x: Odd) -> Any:
        return x

    assert await call(odd, x=3) == 3


async def test_methods_partials_lambdas_objects_and_builtins_are_tools() -> None:
    class Shop:
        """Sells."""

        def price(self, item: str) -> str:
            """Its price."""
            return f"{item}: 3"

        async def __call__(self, item: str) -> str:
            return f"sold {item}"

    shop = Shop()
    assert tool(shop.price).signature == "(item: str) -> str"
    assert await call(shop.price, item="tea") == "tea: 3"
    assert tool(shop).name == "Shop"
    assert tool(shop).doc == "Sells."
    assert await call(shop, item="tea") == "sold tea"
    part = functools.partial(weather, "Ulm")
    assert (tool(part).name, tool(part).doc[:11]) == ("weather", "The weather")
    assert (await call(part, days=1))["city"] == "Ulm"
    assert await call(lambda x: x + 1, x=2) == 3
    assert await call(math.sqrt, x=9) == 3.0
    assert await call(max, args=[1, 5, 2]) == 5


async def test_a_decorated_function_keeps_its_signature() -> None:
    def twice(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> int:
            return 2 * function(*args, **kwargs)

        return inner

    @twice
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert (tool(add).signature, tool(add).doc) == ("(a: int, b: int = 1) -> int", "Adds.")
    assert await call(add, a=2) == 6


async def test_a_coroutine_behind_a_wrapper_is_awaited() -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    assert await call(functools.partial(later, 4)) == 4
    assert await call(lambda x: later(x), x=5) == 5


async def test_a_sync_function_holds_nobody_up_and_one_that_never_ends_is_left_behind() -> None:
    begun, go = threading.Event(), threading.Event()

    def waits() -> str:
        begun.set()
        go.wait()
        return "done"

    task = asyncio.create_task(tool(waits).call({}))
    await asyncio.to_thread(begun.wait)
    assert await call(lambda: "meanwhile") == "meanwhile"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
async def test_what_a_function_in_a_thread_raises_comes_out_as_it_is(error: BaseException) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)):
        await tool(fails).call({})


async def test_a_stop_iteration_is_an_error_like_others() -> None:
    with pytest.raises(ToolError, match="StopIteration"):
        await call(lambda: next(iter([])))


async def test_paths_become_files_and_generators_lists() -> None:
    assert await tool(lambda: Path("a")).call({}) == ToolResult(files=(Path("a"),))
    assert await tool(lambda: [Path("a"), Path("b")]).call({}) == ToolResult(files=(Path("a"), Path("b")))

    def counts() -> Iterator[int]:
        yield from range(3)

    def endless() -> Iterator[int]:
        while True:
            yield 1

    assert await call(counts) == [0, 1, 2]
    with pytest.raises(ValueError, match="more than 500,000 items"):
        await call(endless)


def test_what_cannot_be_a_tool_is_refused_by_name() -> None:
    async def streams() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(UsageError, match="streams is an async generator"):
        tool(streams)
    with pytest.raises(UsageError, match="a str, which cannot be a tool"):
        tools_of(["weather"])
    with pytest.raises(UsageError, match="list of functions"):
        tools_of(weather)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot have a time limit of 0 seconds"):
        tool(weather, seconds=0)

    def field(x: int = pydantic.Field(3)) -> int:
        return x

    with pytest.raises(UsageError, match="Annotated"):
        tool(field)


def test_a_tool_of_another_library_is_refused_and_where_its_function_is_is_told() -> None:
    class StructuredTool:  # as LangChain's: not to be called
        name = "multiply"

        def __init__(self, func: Callable[..., Any]) -> None:
            self.func = func

    class SimpleTool:  # as smolagents': its call takes anything
        def __call__(self, *args: Any, sanitize: bool = False, **kwargs: Any) -> Any: ...

        def forward(self, city: str) -> str:
            return city

    for made, where in ((StructuredTool(weather), "it.func"), (SimpleTool(), "it.forward")):
        with pytest.raises(UsageError, match=f"A {type(made).__name__} of") as refused:
            tool(made)
        assert where in refused.value.hint


def test_an_object_that_wraps_a_function_is_told_as_that() -> None:
    class Task:  # as Celery's
        """A task of a queue."""

        def __init__(self, function: Callable[..., Any]) -> None:
            functools.update_wrapper(self, function)
            del self.__doc__
            self.run = function

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.run(*args, **kwargs)

    plain = tool(weather)
    for made in (tool(Task(weather)), tool(functools.lru_cache(weather))):
        assert (made.name, made.signature, made.doc) == ("weather", plain.signature, plain.doc)


def test_an_object_that_wraps_a_function_without_arguments_is_a_tool() -> None:
    def today() -> str:
        return "Monday"

    class Cached:  # as joblib's
        def __init__(self, function: Callable[..., Any]) -> None:
            functools.update_wrapper(self, function)
            self.func = function

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.func(*args, **kwargs)

    assert tool(Cached(today)).signature == "() -> str"


def test_what_hints_say_of_arguments_is_told() -> None:
    def find(
        city: Annotated[str, "The city's\n name"], most: Annotated[int, pydantic.Field(description="At most")]
    ) -> None:
        """Finds."""

    assert tool(find).doc == "Finds.\n\ncity: The city's name\n\nmost: At most"


def test_a_tool_says_what_else_holds_for_it() -> None:
    made = tool(weather, name="forecast", doc="Tells.", permission="ask", seconds=5, children=True)
    assert (made.name, made.doc, made.permission, made.seconds, made.children) == (
        "forecast",
        "Tells.",
        "ask",
        5,
        True,
    )
    assert tools_of([made]) == [made]
    assert isinstance(tools_of([weather])[0], Tool)


class Row(typing.TypedDict):
    id: int
    name: str


async def test_a_typed_dict_is_checked_field_by_field() -> None:
    def put(row: Row) -> Any:
        return row

    assert await call(put, row={"id": 1, "name": "tea"}) == {"id": 1, "name": "tea"}
    with pytest.raises(ToolError, match=r"row\['name'\]: Field required"):
        await call(put, row={"id": 1})


def test_annotated_and_literal_hints_reach_the_schema() -> None:
    def page(number: Annotated[int, pydantic.Field(ge=1)], kind: Literal["a", "b"] = "a") -> None: ...

    made = tool(page)
    assert made.signature == "(number: int, kind: Literal['a', 'b'] = 'a') -> None"
    assert made.parameters["properties"]["number"]["minimum"] == 1
    assert typing.cast(Any, made.parameters)["properties"]["kind"]["enum"] == ["a", "b"]

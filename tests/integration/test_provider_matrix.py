"""What rlm promises of models holds for each provider, on both roads: asked directly, and through litellm.

`ROADS` are servers that check a request as the provider does, and bill it.
"""

from __future__ import annotations

import base64
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from rlm_kernel import RLM
from rlm_kernel.config import load_settings
from rlm_kernel.engine.protocols import Completion, Message, Picture, Retry, Watch
from rlm_kernel.models import _direct, litellm_models
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support.model_layer import failing
from tests.support.providers.anthropic_messages import AnthropicServer
from tests.support.providers.roads import KEY, ROADS, SCHEMA, Road, png
from tests.support.providers.server import ProviderServer
from tests.support.providers.words import Call, Reply
from tests.support.sandbox import until

# litellm's streams read attributes that pydantic has deprecated, and write what is not of the declared type.
# Its first call to Ollama leaves a connection open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SYSTEM: Message = {"role": "system", "content": "Be brief."}
LONG: Message = {"role": "system", "content": "You answer by the rules. " * 400}
"""Ten thousand characters: more than every provider's least for a cache."""
HELLO: Message = {"role": "user", "content": "hello"}
DIRECT = [name for name, road in ROADS.items() if _direct.can(road.model.split("/")[0], None)]
WAYS = [(name, way) for name in ROADS for way in ("direct", "litellm") if way == "litellm" or name in DIRECT]


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """What litellm leaves open is collected here, and is no matter of other files."""
    yield
    gc.collect()


@dataclass
class Case:
    """A provider on one road."""

    name: str
    direct: bool
    road: Road
    server: ProviderServer
    _opened: list[LitellmModels]

    def models(
        self, model: str = "", said: Callable[[str], None] = lambda _: None, **more: Any
    ) -> LitellmModels:
        """Models of which the root is the provider's, or `model`."""
        settings = {
            "root_llm.model": model or self.road.model,
            "root_llm.api_base": self.server.base + self.road.path,
            "root_llm.api_key": KEY,
            "root_llm.retries": 0,
            "root_llm.extra": dict(self.road.options),
            **{f"root_llm.{name}": value for name, value in more.items()},
        }
        made = LitellmModels(load_settings(overrides=settings, environ={}), said)
        self._opened.append(made)
        return made

    def bills(self, replies: list[Completion]) -> None:
        """The replies' tokens and prices are those of the server's last bills."""
        for reply, bill in zip(replies, self.server.bills[-len(replies) :], strict=True):
            used = reply.usage
            assert not used.estimated
            assert (used.prompt, used.completion) == (bill.prompt, bill.output)
            if self.name != "ollama":  # which tells nothing of its cache
                assert used.cached == bill.cached
            assert used.written == bill.written + bill.written_1h
            if bill.cost:
                assert reply.cost == pytest.approx(bill.cost)


@pytest_asyncio.fixture(params=WAYS, ids=[f"{name}-{way}" for name, way in WAYS])
async def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    name, way = request.param
    if way == "litellm":
        monkeypatch.setattr(litellm_models, "can_go_direct", lambda *_: False)
    road, opened = ROADS[name], []
    with road.server(api_key=KEY if road.variable else None) as server:
        yield Case(name, way == "direct", road, server, opened)
        for models in opened:
            await models.aclose()


class Ear:
    """Hears the pieces of a reply; enough after so many characters."""

    def __init__(self, most: int = 10**9) -> None:
        self.text, self.thoughts, self.pieces = "", "", 0
        self._most = most

    def anew(self, _retry: Retry) -> bool:
        self.text = ""
        return True

    def __call__(self, piece: str, thought: bool) -> bool:
        self.pieces += 1
        if thought:
            self.thoughts += piece
        else:
            self.text += piece
        return len(self.text) < self._most


async def heard(
    models: LitellmModels, messages: list[Message], most: int = 10**9, **more: Any
) -> tuple[Completion, Ear]:
    ear = Ear(most)
    return await models.complete(messages, role="root", watch=Watch(heard=ear), **more), ear


async def test_a_reply_is_the_same_plain_and_streamed_and_ends_where_who_listens_has_heard_enough(
    case: Case,
) -> None:
    case.server.says = lambda asked: f"You said: {asked.text}, and I say it in some pieces."
    models = case.models()
    plain = await models.complete([SYSTEM, HELLO], role="root")
    assert models._endpoints["root"].direct is case.direct
    streamed, ear = await heard(models, [SYSTEM, HELLO])
    case.bills([plain, streamed])
    said = "You said: hello, and I say it in some pieces."
    assert plain.text == streamed.text == ear.text == said
    assert ear.pieces > 2
    assert (plain.usage, plain.cost, plain.finish_reason) == (
        streamed.usage,
        streamed.cost,
        streamed.finish_reason,
    )
    assert plain.thoughts == streamed.thoughts == ear.thoughts == ""
    case.server.fail("idle", at=6)
    begun, ear = await heard(models, [SYSTEM, HELLO], 4)
    assert begun.text == ear.text != said
    assert said.startswith(begun.text)
    assert begun.finish_reason == "stopped"
    assert begun.usage.estimated
    # Of OpenRouter's prices nothing is known but what it says at a reply's end.
    assert (begun.cost is None) is (plain.cost is None or case.name == "openrouter")
    await until(lambda: not case.server.clock.sleepers, 10)  # the server sees that nobody reads any more


async def test_a_conversation_reads_the_cache_turn_after_turn_and_costs_what_is_billed(case: Case) -> None:
    case.server.says = lambda asked: "I looked at this part of it. " * 20
    models = case.models()
    messages, replies = [LONG], []
    for turn in range(4):
        messages = [*messages, {"role": "user", "content": f"Output {turn}: " + "line of output\n" * 100}]
        watch = Watch(heard=Ear()) if turn % 2 else Watch()
        replies.append(await models.complete(messages, role="root", watch=watch))
        messages = [*messages, {"role": "assistant", "content": replies[-1].text}]
    case.bills(replies)
    cached = [reply.usage.cached for reply in replies]
    assert sorted(cached) == cached
    if case.name != "ollama":
        assert cached[1] > 2000
        assert cached[3] > cached[1] > cached[0] == 0
    written = [reply.usage.written for reply in replies]
    assert all(written) if case.road.marks else not any(written)


async def test_thoughts_come_apart_are_counted_and_go_back_to_who_wants_them(case: Case) -> None:
    case.server.says = lambda asked: Reply("42", "Six times seven it is.")
    hidden = case.name in ("openai", "azure")
    for level in ("low", "high"):
        models = case.models(case.road.thinker, reasoning=level, max_tokens=8000)
        plain = await models.complete([SYSTEM, HELLO], role="root")
        streamed, ear = await heard(models, [SYSTEM, HELLO])
        case.bills([plain, streamed])
        for reply in (plain, streamed):
            assert (reply.text, reply.thoughts) == ("42", "" if hidden else "Six times seven it is.")
            if case.name != "ollama":  # which tells none
                assert reply.usage.reasoning == 6
        assert (ear.text, ear.thoughts) == (streamed.text, streamed.thoughts)
        assert plain.thinking == streamed.thinking
        assert bool(plain.thinking) is (case.name in ("anthropic", "openrouter"))
        back: Message = {"role": "assistant", "content": "42", "thinking": plain.thinking or ({"a": 1},)}
        again = await models.complete([SYSTEM, HELLO, back, HELLO], role="root")
        assert again.text == "42"
        sent = str(case.server.requests[-1].body)
        assert ("Six times seven" in sent) is bool(plain.thinking)
    if case.name in ("anthropic", "gemini", "openrouter"):
        models = case.models(case.road.thinker, thinking_tokens=2000, max_tokens=8000)
        assert (await models.complete([SYSTEM, HELLO], role="root")).text == "42"
        assert "2000" in str(case.server.requests[-1].body)


async def test_a_schema_holds_where_it_is_taken(case: Case) -> None:
    case.server.says = ['{"n": 7}', '{"n": 7}', "The number is seven."]
    models = case.models()
    plain = await models.complete([SYSTEM, HELLO], role="root", schema=SCHEMA)
    streamed, ear = await heard(models, [SYSTEM, HELLO], schema=SCHEMA)
    free = await models.complete([SYSTEM, HELLO], role="root", schema=SCHEMA)
    case.bills([plain, streamed, free])
    assert plain.text == streamed.text == ear.text == '{"n": 7}'
    assert free.text == ("The number is seven." if case.name == "deepseek" else '{"n": 0}')


async def test_a_picture_is_seen_or_refused_before_anything_is_sent(case: Case) -> None:
    seen: list[int] = []

    def says(asked: Any) -> str:
        seen.append(asked.images)
        return "I see it."

    case.server.says = says
    picture = Picture(base64.b64decode(png()), "image/png", 64, 48)
    shown: list[Message] = [{"role": "user", "content": "what?", "images": [picture]}]
    if case.road.seer != "-":
        models = case.models(case.road.seer)
        for reply in (await models.complete(shown, role="root"), (await heard(models, shown))[0]):
            assert reply.text == "I see it."
        assert seen == [1, 1]
    elif case.models().card("root").sees is False:
        error = await failing(case.models().complete(shown, role="root"))
        assert "takes no pictures" in str(error)
        assert not case.server.requests


async def test_parameters_arrive_or_it_is_told_that_they_do_not(case: Case) -> None:
    told: list[str] = []
    models = case.models(
        said=told.append,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop=["END"],
        max_tokens=1000,
        headers={"X-Team": "a"},
    )
    assert (await models.complete([SYSTEM, HELLO], role="root")).text == "echo: hello"
    sent = case.server.requests[-1]
    assert sent.headers["x-team"] == "a"
    for name, value in (
        ("temperature", 0.5),
        ("top_p", 0.9),
        ("seed", 7),
        ("stop", "END"),
        ("max_tokens", 1000),
    ):
        assert str(value) in str(sent.body) or any(name in line for line in told), name


PASSING = ("overloaded", "html", "cut", "malformed", "empty_choices", "stream_error")


async def test_a_fault_that_passes_is_tried_again_and_one_that_stays_is_told_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm_models, "FIRST_WAIT", 0.001)
    case.server.says = lambda asked: "a reply in some pieces, of which the last are missed"
    models = case.models(retries=1)
    for streams in (False, True):
        for kind in PASSING if streams else PASSING[:-1]:
            case.server.fail(kind, at=3)
            ear = Ear()
            watch = Watch(heard=ear, retrying=ear.anew) if streams else Watch()
            reply = await models.complete([SYSTEM, HELLO], role="root", watch=watch)
            assert reply.text == "a reply in some pieces, of which the last are missed", kind
            assert reply.attempts == 2, kind
            assert not streams or ear.text == reply.text
        watch = Watch(heard=Ear()) if streams else Watch()
        case.server.fail("content_list")
        reply = await models.complete([SYSTEM, HELLO], role="root", watch=watch)
        assert reply.text.startswith("a reply")
        # litellm does not read it in forms other than OpenAI's, so the call is made again.
        assert reply.attempts == 1 or (case.name in ("anthropic", "gemini", "ollama") and not case.direct)
        case.server.fail("no_usage")
        reply = await models.complete([SYSTEM, HELLO], role="root", watch=watch)
        if case.name in ("anthropic", "gemini") and not (case.direct or streams):
            assert reply.attempts == 2  # litellm does not read it
        else:
            assert (reply.usage.estimated, reply.cost) == (True, None)
        asked = len(case.server.requests)
        case.server.fail("too_long")
        error = await failing(models.complete([SYSTEM, HELLO], role="root", watch=watch))
        assert (error.fault, len(case.server.requests) - asked) == ("too_long", 1)


async def test_the_code_of_a_tool_is_in_the_reply_and_two_messages_of_one_role_are_taken(case: Case) -> None:
    case.server.says = lambda asked: Reply(calls=[Call("python", {"code": "print(6 * 7)"})])
    models = case.models()
    for reply in (
        await models.complete([SYSTEM, HELLO], role="root"),
        (await heard(models, [SYSTEM, HELLO, HELLO]))[0],
    ):
        assert "```repl\nprint(6 * 7)\n```" in reply.text


async def test_a_run_of_twelve_turns_has_its_marks_reads_the_cache_and_costs_what_is_billed(
    kernel_image: Any, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

    def says(asked: Any) -> str:
        turn = len(server.bills)
        code = (
            "FINAL('read')"
            if turn == 11
            else f"print(*context.splitlines()[{turn * 4}:{turn * 4 + 4}], sep='\\n')"
        )
        return f"I read on.\n```repl\n{code}\n```"

    lines = [
        f"line {number} of the log says that the pump of station {number % 31} runs" for number in range(99)
    ]
    with AnthropicServer(says, api_key=KEY) as server:
        models = {"root_llm.api_base": server.base}
        result = await RLM("anthropic/claude-sonnet-4-5", options=models).aask(
            "What is it?", "\n".join(lines)
        )
    assert (result.answer, len(server.bills)) == ("read", 12)
    assert result.totals.cost == pytest.approx(server.cost)
    for request in server.requests:
        blocks = [*request.body["system"], *(b for m in request.body["messages"] for b in m["content"])]
        marks = [number for number, block in enumerate(blocks) if "cache_control" in block]
        assert 2 <= len(marks) <= 4
        assert marks[-1] == len(blocks) - 1
        assert marks[0] < len(request.body["system"])
    cached = [bill.cached for bill in server.bills]
    assert cached == sorted(set(cached))
    assert all(bill.input == 0 for bill in server.bills), (
        "all of a prompt is read from the cache or written to it"
    )
    uncached = sum((bill.prompt * 3 + bill.output * 15) / 1e6 for bill in server.bills)
    assert server.cost < 0.3 * uncached

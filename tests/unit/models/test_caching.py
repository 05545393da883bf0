"""What of a prompt is marked for a provider's cache, and which beginning prompts have in common."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.models import _anthropic
from rlm_kernel.models._caching import (
    MARK,
    MARKS,
    CommonBeginning,
    Writers,
    _common,
    cache_key,
    in_blocks,
    least_chars,
    marked,
    takes_marks,
)
from tests.support.growth import LIMIT, growth
from tests.support.providers.anthropic_rules import MODELS, blocks_of, check_marks, check_messages, marks

CLAUDE = {"supports_prompt_caching": True}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Rules."},
    {"role": "user", "content": "An example."},
    {"role": "assistant", "content": "A reply."},
    {"role": "user", "content": "The question."},
]


def marked_texts(messages: list[dict[str, Any]]) -> list[str]:
    blocks = [block for message in messages for block in blocks_of(message["content"])]
    return [block.get("text", block["type"]) for block in blocks if block.get("cache_control")]


@pytest.mark.parametrize(
    ("provider", "name", "entry", "takes"),
    [
        ("anthropic", "claude-sonnet-4-5", CLAUDE, True),
        ("anthropic", "claude-unheard-of-9", None, True),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", CLAUDE, True),
        ("bedrock", "anthropic.claude-v2", {}, False),
        ("bedrock_converse", "amazon.nova-pro-v1:0", CLAUDE, True),
        ("bedrock", "amazon.nova-new-v1:0", None, False),
        ("bedrock", "meta.llama3-70b-instruct-v1:0", {}, False),
        ("vertex_ai", "claude-opus-4-5@20251101", CLAUDE, True),
        ("vertex_ai", "gemini-2.5-pro", CLAUDE, False),
        ("azure_ai", "claude-opus-4-5", CLAUDE, True),
        ("azure_ai", "gpt-5.5", CLAUDE, False),
        ("openrouter", "anthropic/claude-sonnet-4.5", {}, True),
        ("openrouter", "openrouter/anthropic/claude-sonnet-4.5", None, True),
        ("openrouter", "qwen/qwen3-max", None, True),
        ("openrouter", "google/gemini-2.5-pro", CLAUDE, False),
        ("openrouter", "openai/gpt-5", None, False),
        ("gemini", "gemini-2.5-flash", CLAUDE, False),
        ("openai", "gpt-5", CLAUDE, False),
        ("openai", "claude-behind-a-gateway", None, False),
        ("minimax", "MiniMax-M2.5", CLAUDE, False),
        ("deepseek", "deepseek-chat", CLAUDE, False),
        ("ollama_chat", "qwen3:8b", None, False),
    ],
)
def test_marks_are_for_those_that_cache_only_what_is_marked(
    provider: str, name: str, entry: Any, takes: bool
) -> None:
    assert takes_marks(provider, name, entry) is takes
    before = copy.deepcopy(TALK)
    found = marked(provider, name, entry, TALK)
    assert before == TALK
    assert marked_texts(found) == (["Rules.", "A reply.", "The question."] if takes else [])
    assert takes or found == TALK


def test_a_single_prompt_has_no_marks_but_its_own() -> None:
    alone = [{"role": "user", "content": "A piece, read once."}]
    assert marked("anthropic", "claude-sonnet-4-5", CLAUDE, alone) == alone
    alone[0]["content"] = in_blocks("Instructions.", "A piece.")  # type: ignore[assignment]
    assert marked("anthropic", "claude-sonnet-4-5", CLAUDE, alone) == alone


@pytest.mark.parametrize(
    ("messages", "texts"),
    [
        ([], []),
        ([{"role": "system", "content": ""}, {"role": "user", "content": "q"}], ["q"]),
        ([{"role": "system", "content": "s"}, {"role": "user", "content": "  \n"}], ["s"]),
        ([*TALK[:3], {"role": "user", "content": []}], ["Rules.", "A reply."]),
        ([*TALK[:2], {"role": "assistant", "content": None}], ["Rules.", "An example."]),
        (
            [
                TALK[0],
                {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "text", "text": ""}]},
            ],
            ["Rules.", "t"],
        ),
        (
            [TALK[0], {"role": "user", "content": [{"type": "thinking", "thinking": "x", "signature": "s"}]}],
            ["Rules."],
        ),
        (
            [TALK[0], {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            ["Rules.", "image_url"],
        ),
    ],
)
def test_no_mark_is_on_what_takes_none(messages: list[dict[str, Any]], texts: list[str]) -> None:
    found = marked("anthropic", "claude-sonnet-4-5", CLAUDE, messages)
    assert marked_texts([m for m in found if m["content"] is not None]) == texts
    assert [m["role"] for m in found] == [m["role"] for m in messages]


def test_a_slow_conversation_is_kept_for_an_hour_at_anthropic() -> None:
    def kept(provider: str, messages: list[dict[str, Any]], slow: bool) -> set[str]:
        found = marked(provider, "claude-sonnet-4-5", CLAUDE, messages, slow=slow)
        blocks = [block for message in found for block in blocks_of(message["content"])]
        return {block["cache_control"].get("ttl", "5m") for block in blocks if "cache_control" in block}

    own = [*TALK[:3], {"role": "user", "content": in_blocks("Instructions.", "A piece.")}]
    assert kept("anthropic", TALK, True) == {"1h"}
    assert kept("anthropic", TALK, False) == kept("bedrock", TALK, True) == {"5m"}
    assert kept("anthropic", own, True) == {"5m"}


CONTENTS = st.one_of(
    st.text(max_size=3),
    st.lists(
        st.fixed_dictionaries(
            {"type": st.just("text"), "text": st.text(max_size=2)},
            optional={"cache_control": st.just(MARK)},
        ),
        max_size=3,
    ),
)


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), CONTENTS), max_size=8),
    st.booleans(),
)
def test_a_marked_conversation_is_taken_whatever_it_is(said: list[tuple[str, Any]], thoughts: bool) -> None:
    messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in said]
    for message in messages:
        if thoughts and message["role"] == "assistant":
            message["thinking_blocks"] = [{"type": "thinking", "thinking": "t", "signature": "s"}]
    given_marks = len(marked_texts(messages))
    found = marked("anthropic", "claude-sonnet-4-5", CLAUDE, messages)
    assert len(marked_texts(found)) <= max(MARKS, given_marks)
    if given_marks <= MARKS:
        body = _anthropic.body({"model": "claude-sonnet-4-5", "messages": found})
        check_marks(body, check_messages(body, MODELS["claude-sonnet-4-5"]))
        assert all(
            block.get("type") == "text"
            for _, block in marks(body, body["messages"])
            if "cache_control" in block
        )


def test_the_key_is_that_of_the_system_prompt_and_for_openai_alone() -> None:
    key = cache_key("openai", None, TALK)
    assert key is not None
    assert len(key) <= 64
    assert key == cache_key("openai", "https://api.openai.com/v1", [TALK[0], TALK[3]])
    assert key != cache_key("openai", None, [{"role": "system", "content": "Others."}])
    for provider, base in (
        ("openai", "http://127.0.0.1:8000/v1"),
        ("openai", "https://api.openai.com.evil.example/v1"),
        ("azure", None),
        ("openrouter", None),
        ("hosted_vllm", None),
    ):
        assert cache_key(provider, base, TALK) is None
    assert cache_key("openai", None, TALK[1:]) is None
    assert cache_key("openai", None, []) is None


def test_the_least_is_the_models() -> None:
    assert least_chars("claude-opus-5", {"prompt_cache_min_tokens": 512}) == 2048
    assert least_chars("us.anthropic.claude-haiku-4-5-20251001-v1:0", None) == 4096 * 4
    assert least_chars("anthropic/claude-opus-4.5", {}) == 4096 * 4
    assert least_chars("claude-sonnet-4-5", {}) == 1024 * 4


INSTRUCTIONS = "Name the failures that this part of the log reports.\n" * 100 + "\nLog:\n"


def test_what_prompts_begin_with_in_common_is_split_off_and_stays_as_it_is() -> None:
    common = CommonBeginning()
    prompts = [f"{INSTRUCTIONS}{n}: a piece of its own\n{n}" for n in range(50)]
    assert common.split(prompts[0]) is None
    for prompt in prompts[1:]:
        assert common.split(prompt) == (INSTRUCTIONS, prompt.removeprefix(INSTRUCTIONS))


def test_a_beginning_found_by_accident_gives_way_to_the_true_one() -> None:
    common = CommonBeginning()
    common.split(INSTRUCTIONS + "Monday\nx1 a")
    assert common.split(INSTRUCTIONS + "Monday\nx2 b") == (INSTRUCTIONS + "Monday\n", "x2 b")
    assert common.split(INSTRUCTIONS + "Tuesday\nx3 c") == (INSTRUCTIONS, "Tuesday\nx3 c")
    assert common.split(INSTRUCTIONS + "Wednesday\nx4 d") == (INSTRUCTIONS, "Wednesday\nx4 d")


def test_questions_on_a_document_share_the_document_too() -> None:
    common = CommonBeginning()
    document = "A line of the document.\n" * 1000
    common.split(INSTRUCTIONS + "first piece")
    assert common.split(INSTRUCTIONS + "second piece") == (INSTRUCTIONS, "second piece")
    common.split(INSTRUCTIONS + document + "who?")
    for question in ("when?", "where?"):
        assert common.split(INSTRUCTIONS + document + question) == (INSTRUCTIONS + document, question)
    assert common.split(INSTRUCTIONS + "third piece") == (INSTRUCTIONS, "third piece")


@pytest.mark.parametrize(
    "prompts",
    [
        ["short", "short"],
        ["x" * 5000, "x" * 5000],  # no end of a word
        ["a " * 2000 + "1", "a " * 2000 + "2"],  # below the least
        ["a" * 4095 + "\n" + "b", "c" * 4095 + "\n" + "b"],
        [" " * 9000, " " * 9000 + "x"],
    ],
)
def test_what_is_too_short_or_has_no_end_of_a_word_is_left_whole(prompts: list[str]) -> None:
    common = CommonBeginning()
    assert [common.split(prompt) for prompt in prompts] == [None] * len(prompts)


@given(st.lists(st.text("ab \n", max_size=60), max_size=12))
def test_a_split_prompt_is_the_same_prompt(prompts: list[str]) -> None:
    common = CommonBeginning(8)
    for prompt in prompts:
        found = common.split(prompt)
        if found is not None:
            assert "".join(found) == prompt
            assert len(found[0]) >= 8
            assert found[0].strip()
            assert found[1].strip()


@given(st.text("ab", max_size=50), st.text("ab", max_size=50), st.text("ab", max_size=5))
def test_the_common_beginning_is_found_exactly(begin: str, one: str, other: str) -> None:
    a, b = begin + one, begin + other
    pairs = zip(a, b, strict=False)
    length = next((at for at, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
    assert _common(a, b) == length
    long = "x" * 30_000
    assert _common(long + a, long + b) == 30_000 + length


def test_the_time_grows_with_the_prompts_and_no_faster() -> None:
    def make(size: int) -> list[str]:
        # Of one length each: what is behind the beginning is not looked at, and large prompts that no
        # cache of the processor holds would be measured instead.
        return [INSTRUCTIONS + f"{n:06} " * 50 for n in range(size)]

    def work(prompts: list[str]) -> None:
        common = CommonBeginning()
        for prompt in prompts:
            common.split(prompt)

    assert growth(make, work, 100) < LIMIT


async def test_calls_that_begin_alike_wait_for_the_first_to_write_it() -> None:
    now, order = 0.0, []
    writers = Writers(clock=lambda: now)

    async def call(name: str, beginning: str = "the same") -> None:
        async with writers.turn(beginning):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(call("a"), call("b"), call("c"), call("other", ""))
    assert order[:3] == ["a begins", "other begins", "a ends"]
    order.clear()
    await asyncio.gather(call("d"), call("e"))  # it is in the cache now
    assert order[:2] == ["d begins", "e begins"]
    now, order = 301.0, []
    await asyncio.gather(call("f"), call("g"))
    assert order[:2] == ["f begins", "f ends"]


async def test_a_first_call_that_fails_keeps_nobody_waiting() -> None:
    writers = Writers()

    async def fail() -> None:
        async with writers.turn("the same"):
            await asyncio.sleep(0)
            raise OSError

    async def call() -> str:
        async with writers.turn("the same"):
            return "done"

    first, second = await asyncio.gather(fail(), call(), return_exceptions=True)
    assert isinstance(first, OSError)
    assert second == "done"

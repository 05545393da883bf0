"""The prompt profiles: which model has which, and what each tells."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path
from typing import Any, get_args

import pytest

import rlm_kernel.engine.prompts as prompts
from rlm_kernel.config import Settings, load_settings
from rlm_kernel.engine.prompts import (
    PROFILES,
    SHORT_WINDOW,
    ProfileName,
    load_profile,
    parse_profile,
    profile_of,
    system_prompt,
)
from rlm_kernel.engine.protocols import ContextInfo
from rlm_kernel.engine.values import Card
from rlm_kernel.errors import ConfigError
from rlm_kernel.models import ScriptedModels
from rlm_kernel.session.models import profile_for

FOLDER = Path(prompts.__file__).parent
INFO = ContextInfo("str", 11, [("a.txt", 11)], 1, "hello world")
WITH_CHILDREN: tuple[ProfileName, ...] = ("default", "batching", "short")


def prompt(name: ProfileName, window: int | None = 128_000, **options: Any) -> str:
    return system_prompt(
        load_profile(name), INFO, output_chars=20_000, sub=Card("sub", "a/sub", window), **options
    )


# Which one


@pytest.mark.parametrize(
    ("model", "window", "profile"),
    [
        ("gpt-5", 272_000, "default"),
        ("openai/gpt-4o-mini", 128_000, "default"),
        ("openai/gpt-oss-20b", 131_072, "default"),
        ("o3", 200_000, "default"),
        ("anthropic/claude-sonnet-4-5", 200_000, "default"),
        ("us.anthropic.claude-opus-4-20250514-v1:0", 200_000, "default"),
        ("gemini/gemini-2.5-pro", 1_048_576, "default"),
        ("openai/glm-4.7", None, "default"),
        ("openrouter/deepseek/deepseek-v3.2", 163_840, "default"),
        ("together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", None, "default"),
        ("mistral/mistral-large-latest", None, "default"),
        ("openai/my-model", None, "default"),
        ("", None, "default"),
        ("fireworks_ai/accounts/fireworks/models/qwen3-coder-480b-a35b-instruct", 262_144, "batching"),
        ("openrouter/qwen/qwen3-coder", None, "batching"),
        ("hosted_vllm/Qwen/Qwen3-30B-A3B", None, "batching"),
        ("together_ai/Qwen/QwQ-32B", 131_072, "batching"),
        ("ollama/deepseek-coder:33b", None, "batching"),
        ("hosted_vllm/Qwen/Qwen3-8B", None, "short"),
        ("hosted_vllm/Qwen/Qwen3-8B", SHORT_WINDOW, "short"),
        ("hosted_vllm/Qwen/Qwen3-8B", 131_072, "batching"),
        ("ollama/llama3:8b", None, "short"),
        ("ollama/qwen2.5-coder:1.5b", None, "short"),
        ("ollama/phi4", None, "short"),
        ("azure_ai/Phi-3-medium-128k-instruct", 128_000, "default"),
        ("gemini/gemma-3-27b-it", None, "short"),
        ("gemini/gemma-4-31b-it", 262_144, "default"),
        ("ollama/mistral-7b-instruct", None, "short"),
        ("mistral/open-mixtral-8x7b", None, "short"),
        ("ollama/dolphin-mistral-24b", None, "default"),
        ("azure/gpt-4", 8_192, "short"),
        ("qwen/qwen-max", 30_720, "short"),
    ],
)
def test_a_models_name_and_window_choose_its_profile(model: str, window: int | None, profile: str) -> None:
    assert profile_of(model, window) == profile


def configured(**options: Any) -> Settings:
    return load_settings(overrides={name.replace("__", "."): value for name, value in options.items()})


class Windowed(ScriptedModels):
    def card(self, which: str) -> Card:
        return Card(which, f"test/{which}", {"root": 32_768, "sub": None}[which])


def test_the_settings_choose_and_the_window_counts_once_it_is_known() -> None:
    assert profile_for(configured()).name == "default"
    assert profile_for(configured(root_llm__model="local")).name == "small"
    assert profile_for(configured(root_llm__model="local:0.5b"), Windowed([])).name == "small"
    assert profile_for(configured(root_llm__model="openai/x", root_llm__window=16_000)).name == "short"
    assert profile_for(configured(root_llm__model="openai/x")).name == "default"
    assert profile_for(configured(root_llm__model="openai/x"), Windowed([])).name == "short"
    assert (
        profile_for(configured(root_llm__model="local", prompt__profile="batching"), Windowed([])).name
        == "batching"
    )
    with pytest.raises(ConfigError, match=r"prompt\.profile"):
        configured(prompt__profile="large")


def test_the_settings_know_the_profiles() -> None:
    known = get_args(type(Settings().prompt).model_fields["profile"].annotation)[0]
    assert get_args(known) == PROFILES
    assert {path.stem for path in FOLDER.glob("*.md")} == {
        *PROFILES,
        "recursion",
        "pictures",
        "seen",
        "unseen",
    }


def test_a_file_of_the_users_is_a_profile(tmp_path: Path) -> None:
    own = tmp_path / "own.md"
    text = (
        "---\noutput_chars: 500\n---\nWork on `context`.\n{recursion}\n## user\nHow many?\n\n## "
        "assistant\n```repl\nFINAL(1)\n```\n"
    )
    own.write_text(text)
    profile = profile_for(configured(prompt__profile=str(own)))
    assert (profile.name, profile.output_chars, profile.head_chars) == (str(own), 500, 300)
    assert [message["role"] for message in profile.examples] == ["user", "assistant"]
    assert "rlm_query" in system_prompt(profile, INFO, output_chars=500, sub=Card("sub", "a/sub"), depth=1)
    own.write_text(text.replace("Work", "Labour"))
    assert profile_for(configured(prompt__profile=str(own))).digest != profile.digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no system prompt"),
        ("---\noutput_chars: 500\n---\n", "no system prompt"),
        ("---\noutput_chars: many\n---\nWork.", "no number of output_chars or"),
        ("---\ncolour: 7\n---\nWork.", "no number of"),
        ("Work.\n## user\nHow many?\n", "take turns"),
        ("Work.\n## assistant\nTwo.\n## user\nHow many?\n", "take turns"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_in_words(tmp_path: Path, text: str, why: str) -> None:
    own = tmp_path / "own.md"
    own.write_text(text)
    with pytest.raises(ConfigError, match=why):
        profile_for(configured(prompt__profile=str(own)))


def test_a_profile_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.md cannot be used: No such file"):
        profile_for(configured(prompt__profile="nowhere.md"))


# What they tell


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("window", [None, 4_096, 128_000, 1_048_576])
@pytest.mark.parametrize("depth", [0, 2])
def test_nothing_is_left_unfilled_and_the_examples_are_python(
    name: ProfileName, window: int | None, depth: int
) -> None:
    text = prompt(name, window, depth=depth)
    cells = re.findall(r"```repl\n(.*?)```", text, re.DOTALL)
    for cell in cells:
        ast.parse(cell)
    outside = re.sub(r"```repl\n.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    assert not re.findall(r"\{\w+\}", outside)
    assert not {"example_chunk", "recursion", "sub_chars", "piece_chars"} & set(
        re.findall(r"\{(\w+)\}", text)
    )


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_child_rlms_are_told_of_where_they_are_allowed(name: ProfileName) -> None:
    assert "rlm_query" not in prompt(name)
    assert "child" not in prompt(name, depth=0)
    told = prompt(name, depth=1)
    assert "\n- `rlm_query(question, context=None)`" in told
    assert "rlm_query_batched(questions, contexts)" in told
    assert "\n\n-" not in told, "it stands in the list"


OTHERS = (
    Card("fast", "openai/tiny", 100_000, 0.15, 0.6, about="labels,\n {recursion} short extractions"),
    Card("far-away", "a/b"),
)


@pytest.mark.parametrize("name", get_args(ProfileName))
def test_other_models_are_told_of_where_there_are_any(name: ProfileName) -> None:
    assert "model=" not in prompt(name, depth=1)
    told = prompt(name, others=OTHERS)
    assert 'such as `llm_query(prompt, model="fast")`' in told
    assert "without model=: the sub model (a/sub; reads about " in told
    assert (
        '  - "fast" (openai/tiny; reads about 280,000 characters; $0.15 for a million tokens read, $0.6 '
        "written): labels, {recursion} short extractions\n"
    ) in told
    assert '  - "far-away" (a/b)\n' in told
    assert "rlm_query" not in told
    assert ("child's root model" in prompt(name, others=OTHERS, depth=1)) == (name != "small")
    if name != "small":
        assert "\n\n-" not in told, "it stands in the list"


def test_a_profile_of_the_users_without_the_place_has_them_at_its_end() -> None:
    mine = parse_profile("my.md", "Answer by code.\n")
    told = system_prompt(mine, INFO, output_chars=500, sub=Card("sub", "a/sub"), others=OTHERS)
    assert told.startswith("Answer by code.\n\n- Other models")
    assert told.endswith('"far-away" (a/b)\n')


def test_the_small_profile_is_the_same_at_any_depth() -> None:
    assert prompt("small", depth=3) == prompt("small", None)


@pytest.mark.parametrize("name", WITH_CHILDREN)
@pytest.mark.parametrize(
    ("window", "characters"),
    [
        (1_048_576, "2,900,000"),
        (128_000, "350,000"),
        (32_768, "91,000"),
        (8_192, "22,000"),
        (None, "100,000"),
    ],
)
def test_the_sub_models_window_is_told_in_characters(
    name: ProfileName, window: int | None, characters: str
) -> None:
    text = prompt(name, window)
    assert f"about {characters} characters" in text
    assert ("a guess: its window is not known" in text) == (window is None)


@pytest.mark.parametrize(
    ("name", "window", "piece"),
    [
        ("default", 128_000, 100_000),
        ("default", 32_768, 52_000),
        ("batching", 1_048_576, 200_000),
        ("batching", 128_000, 200_000),
        ("batching", 32_768, 52_000),
        ("batching", None, 57_000),
        ("short", 128_000, 15_000),
        ("short", 8_192, 13_000),
    ],
)
def test_pieces_fit_the_sub_model_whatever_is_in_them(
    name: ProfileName, window: int | None, piece: int
) -> None:
    text = prompt(name, window)
    assert f"chunks({piece})" in text
    assert (f"about {piece:,} characters" in text) or name == "default"


def test_a_short_profile_is_short() -> None:
    assert len(prompt("short", depth=1)) < 0.7 * len(prompt("default", depth=1))
    assert load_profile("short").output_chars < 10_000


def test_the_digest_is_that_of_all_texts() -> None:
    def digest(*names: str) -> str:
        return hashlib.sha256(
            "\0".join((FOLDER / name).read_text("utf-8") for name in names).encode()
        ).hexdigest()

    assert load_profile("small").digest == digest("small.md")
    for name in WITH_CHILDREN:
        unseen = ["unseen.md"] if name != "short" else []
        told = ("recursion.md", "pictures.md", *unseen, "seen.md")
        assert load_profile(name).digest == digest(f"{name}.md", *told)
    assert len({load_profile(name).digest for name in PROFILES}) == len(PROFILES)


def test_the_local_models_words_are_those_that_were_tried() -> None:
    assert load_profile("small").digest == "df7eb5d70f0cc82e0839c33b4c8277d8518b2a8a0d733ec417b3eae789644e86"


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_it_is_told_how_many_items_go_into_a_prompt_and_what_a_cut_off_batch_leaves(
    name: ProfileName,
) -> None:
    told = prompt(name)
    for words in (
        "`name=",
        "number the",
        "schema=dict[int, str]",
        "missing",
        "count by code",
        "`partial_results`",
    ):
        assert words in told, words


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_the_time_of_a_cell_is_told_where_it_has_an_end(name: ProfileName) -> None:
    assert "compute for" not in prompt(name)
    assert " A cell may compute for 300 seconds, " in prompt(name, cell_seconds=300.0)
    assert "compute for 2.5 seconds" in prompt(name, cell_seconds=2.5)

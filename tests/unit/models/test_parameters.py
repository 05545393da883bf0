"""From settings to the parameters of a request: the rules of providers, what is told, what a refusal teaches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.config import LLMSettings
from rlm_kernel.models import _anthropic
from rlm_kernel.models._adapting import TOLD, adapt, apply, folded
from rlm_kernel.models._faults import Failure
from rlm_kernel.models._parameters import request_parameters
from tests.support.providers.anthropic_rules import MODELS, check_parameters
from tests.support.providers.words import Refused

SONNET: dict[str, Any] = {"supports_reasoning": True, "max_output_tokens": 64_000}
ADAPTIVE: dict[str, Any] = {**SONNET, "supports_adaptive_thinking": True, "supports_legacy_thinking": True}
OPUS: dict[str, Any] = {
    **SONNET,
    "supports_adaptive_thinking": True,
    "supports_sampling_params": False,
    "supports_xhigh_reasoning_effort": True,
}
GPT5 = {"supports_reasoning": True, "supports_minimal_reasoning_effort": True}
GPT51 = {
    "supports_reasoning": True,
    "supports_none_reasoning_effort": True,
    "default_reasoning_effort": "none",
}
PLAIN: dict[str, Any] = {"mode": "chat"}
CLAUDES = {
    "claude-haiku-4-5": SONNET,
    "claude-sonnet-4-5": SONNET,
    "claude-sonnet-4-6": ADAPTIVE,
    "claude-opus-5": OPUS,
}


def asked(provider: str, name: str, entry: Any, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    return request_parameters(LLMSettings(**settings), provider, name, entry)


@pytest.mark.parametrize(
    ("where", "settings", "found", "told"),
    [
        (("openai", "gpt-4o", PLAIN), {}, {}, []),
        (
            ("openai", "gpt-4o", PLAIN),
            {
                "temperature": 0.0,
                "top_p": 0.5,
                "seed": 0,
                "stop": ["x"],
                "max_tokens": 9,
                "service_tier": "flex",
            },
            {
                "temperature": 0.0,
                "top_p": 0.5,
                "seed": 0,
                "stop": ["x"],
                "max_tokens": 9,
                "service_tier": "flex",
            },
            [],
        ),
        (
            ("openai", "gpt-4o", PLAIN),
            {
                "headers": {"X-A": "b"},
                "temperature": 0.1,
                "extra": {"temperature": 0.7, "logit_bias": {"1": 2}},
            },
            {"extra_headers": {"X-A": "b"}, "temperature": 0.7, "logit_bias": {"1": 2}},
            [],
        ),
        (("openai", "gpt-4o", PLAIN), {"reasoning": "low"}, {}, ["reasoning"]),
        (("openai", "gpt-4o", PLAIN), {"reasoning": "off"}, {}, []),
        (("openai", "served-by-vllm", None), {"reasoning": "low"}, {"reasoning_effort": "low"}, []),
        (
            ("openai", "gpt-5-mini", GPT5),
            {"temperature": 0.3, "top_p": 0.5, "stop": ["x"], "max_tokens": 9, "seed": 1},
            {"max_completion_tokens": 9, "seed": 1},
            ["stop", "temperature", "top_p"],
        ),
        (("openai", "gpt-5-mini", GPT5), {"temperature": 1}, {"temperature": 1}, []),
        (
            ("openai", "gpt-5-mini", GPT5),
            {"reasoning": "off"},
            {"reasoning_effort": "minimal"},
            ["reasoning"],
        ),
        (("openai", "gpt-5-mini", GPT5), {"reasoning": "max"}, {"reasoning_effort": "high"}, ["reasoning"]),
        (
            ("openai", "o3", {"supports_reasoning": True}),
            {"reasoning": "minimal"},
            {"reasoning_effort": "low"},
            ["reasoning"],
        ),
        (
            ("openai", "gpt-5.1", GPT51),
            {"reasoning": "off", "temperature": 0.3},
            {"reasoning_effort": "none", "temperature": 0.3},
            [],
        ),
        (("openai", "gpt-5.1", GPT51), {"temperature": 0.3}, {"temperature": 0.3}, []),
        (
            ("openai", "gpt-5.1", GPT51),
            {"temperature": 0.3, "reasoning": "low"},
            {"reasoning_effort": "low"},
            ["temperature"],
        ),
        (("openai", "gpt-5-chat-latest", PLAIN), {"temperature": 0.3}, {"temperature": 0.3}, []),
        (("azure", "o4-mini", {}), {"max_tokens": 9}, {"max_completion_tokens": 9}, []),
        (("openai", "gpt-5", GPT5), {"thinking_tokens": 9}, {}, ["thinking_tokens"]),
        (("anthropic", "claude-sonnet-4-5", SONNET), {"seed": 4}, {}, ["seed"]),
        (("bedrock", "meta.llama3", {}), {"seed": 4}, {}, ["seed"]),
        (("mistral", "mistral-large", PLAIN), {"service_tier": "flex"}, {}, ["service_tier"]),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"reasoning": "off"},
            {"thinking": {"type": "disabled"}},
            [],
        ),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"thinking_tokens": 0},
            {"thinking": {"type": "disabled"}},
            [],
        ),
        (
            ("anthropic", "claude-fable-5", {**OPUS, "thinking_always_on": True}),
            {"reasoning": "off"},
            {},
            ["reasoning"],
        ),
        (
            ("anthropic", "claude-3-haiku", PLAIN),
            {"reasoning": "low", "thinking_tokens": 5},
            {},
            ["reasoning", "thinking_tokens"],
        ),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"reasoning": "low", "temperature": 0.2, "top_p": 0.5},
            {"reasoning_effort": "low"},
            ["top_p", "temperature"],
        ),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"reasoning": "high", "thinking_tokens": 3000},
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            ["reasoning"],
        ),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"thinking_tokens": 10},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            ["thinking_tokens"],
        ),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"reasoning": "low", "max_tokens": 600},
            {"max_tokens": 600},
            ["reasoning"],
        ),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"reasoning": "high", "max_tokens": 3000},
            {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 2999}},
            ["reasoning"],
        ),
        (
            ("anthropic", "claude-sonnet-4-6", ADAPTIVE),
            {"reasoning": "xhigh"},
            {"reasoning_effort": "high"},
            ["reasoning"],
        ),
        (
            ("anthropic", "claude-opus-5", OPUS),
            {"thinking_tokens": 9000},
            {"thinking": {"type": "enabled", "budget_tokens": 9000, "display": "summarized"}},
            ["thinking_tokens"],
        ),
        (
            ("anthropic", "claude-opus-5", OPUS),
            {"temperature": 0.2, "top_p": 0.5},
            {},
            ["temperature", "top_p"],
        ),
        (("anthropic", "claude-sonnet-4-5", SONNET), {"stop": ["a", " "]}, {"stop": ["a"]}, ["stop"]),
        (
            ("anthropic", "claude-sonnet-4-5", SONNET),
            {"temperature": 1.5},
            {"temperature": 1},
            ["temperature"],
        ),
        (
            ("gemini", "gemini-2.5-flash", SONNET),
            {"reasoning": "max"},
            {"reasoning_effort": "high"},
            ["reasoning"],
        ),
        (("gemini", "gemini-2.5-flash", SONNET), {"reasoning": "off"}, {"reasoning_effort": "none"}, []),
        (
            ("gemini", "gemini-2.5-flash", SONNET),
            {"thinking_tokens": 200},
            {"thinking": {"type": "enabled", "budget_tokens": 200}},
            [],
        ),
        (
            ("openrouter", "x/y", None),
            {"thinking_tokens": 200},
            {"extra_body": {"reasoning": {"max_tokens": 200}}},
            [],
        ),
        (
            ("ollama_chat", "qwen3:8b", None),
            {"thinking_tokens": 200, "reasoning": "low"},
            {"reasoning_effort": "low"},
            ["thinking_tokens"],
        ),
    ],
)
def test_the_settings_become_what_the_provider_takes_and_the_rest_is_told(
    where: tuple[str, str, Any], settings: dict[str, Any], found: dict[str, Any], told: list[str]
) -> None:
    parameters, said = asked(*where, **settings)
    assert parameters == found
    assert [sentence.split("sub_llm.")[-1].split()[0] for sentence in said] == told
    assert all(sentence.endswith(".") for sentence in said)


def test_the_sentence_says_who_takes_what_and_what_becomes_of_the_setting() -> None:
    _, said = asked("anthropic", "claude-sonnet-4-5", SONNET, seed=4)
    assert said == ["anthropic does not support a seed: sub_llm.seed is left out."]
    settings = LLMSettings(reasoning="xhigh")
    _, said = request_parameters(settings, "anthropic", "claude-sonnet-4-6", ADAPTIVE, "root_llm")
    assert said == ['claude-sonnet-4-6 has no level "xhigh": root_llm.reasoning is "high".']


def test_what_is_made_of_the_settings_is_no_part_of_them() -> None:
    settings = LLMSettings(extra={"metadata": {"user_id": "u"}}, stop=["x"], headers={"a": "b"})
    before = copy.deepcopy(settings)
    found, _ = request_parameters(settings, "openai", "gpt-4o", None)
    found["metadata"]["more"] = found["extra_headers"]["c"] = "d"
    found["stop"].append("y")
    assert settings == before


@given(
    st.sampled_from(sorted(CLAUDES)),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
            "top_p": st.sampled_from([0.0, 0.5, 0.97, 1.0]),
            "seed": st.integers(0, 5),
            "stop": st.lists(st.sampled_from(["END", "\n", ""]), max_size=3),
            "reasoning": st.sampled_from(["off", "minimal", "low", "medium", "high", "xhigh", "max"]),
            "thinking_tokens": st.integers(0, 40_000),
            "max_tokens": st.integers(1, 64_000),
        },
    ),
)
def test_whatever_is_set_claude_takes_the_request_without_a_refusal(
    name: str, settings: dict[str, Any]
) -> None:
    found, told = asked("anthropic", name, CLAUDES[name], **settings)
    request = {"model": name, "messages": [{"role": "user", "content": "hello"}], **found}
    body = _anthropic.body(request, CLAUDES[name])
    try:
        check_parameters(body, name, MODELS[name])
    except Refused as refused:
        pytest.fail(f"{refused.body} of {body}")
    for setting, value in (("temperature", settings.get("temperature")), ("top_p", settings.get("top_p"))):
        left_out = value is not None and setting not in body
        assert not left_out or any(f".{setting} " in sentence for sentence in told)


# What a refusal teaches

ASKED: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "q"}],
    "temperature": 0.5,
    "top_p": 0.5,
    "seed": 1,
    "stop": ["x"],
    "max_tokens": 100,
    "reasoning_effort": "low",
    "service_tier": "flex",
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "logit_bias": {"1": 2},
    "extra_body": {"min_p": 0.1, "guided_regex": "a"},
}


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("Unsupported value: 'temperature' does not support 0.5 with this model.", "temperature"),
        ("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.", "temperature"),
        ("`temperature` is deprecated for this model.", "temperature"),
        ("temperature: Input should be less than or equal to 1", "temperature"),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"),
        ("`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.", "top_p"),
        ("Unsupported parameter: 'top_p' is not supported with this model.", "top_p"),
        ("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
        ("stop_sequences: each stop sequence must contain non-whitespace", "stop"),
        ("seed: Extra inputs are not permitted", "seed"),
        ("Unrecognized request argument supplied: seed", "seed"),
        ("Unrecognized request arguments supplied: foo, service_tier", "service_tier"),
        ("service_tier: Input should be 'auto' or 'standard_only'", "service_tier"),
        ("Unrecognized request argument supplied: reasoning_effort", "reasoning_effort"),
        (
            "Unsupported value: 'reasoning.effort' does not support 'none' with this model.",
            "reasoning_effort",
        ),
        ("This model does not support the effort parameter.", "reasoning_effort"),
        ('"llama3.1:8b" does not support thinking', "reasoning_effort"),
        ("`max_tokens` must be greater than `thinking.budget_tokens`.", "thinking"),
        ("Budget 0 is invalid. This model only works in thinking mode.", "reasoning_effort"),
        ("The thinking budget 100 is invalid. Please choose a value between 128 and 32768.", "thinking"),
        ('"thinking.type.enabled" is not supported for this model.', "thinking"),
        ("Unknown name \"thinkingConfig\" at 'generation_config': Cannot find field.", "thinking"),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'logit_bias'), 'msg': 'Extra inputs'}]", "logit_bias"),
        ("min_p is not supported by this server", "min_p"),
        ("messages: Input should be a valid list", None),
        ("the prompt must not ask to stop the seed of a plant", None),
    ],
)
def test_what_a_refusal_names_is_left_out_from_then_on(said: str, change: str | None) -> None:
    request = copy.deepcopy(ASKED)
    assert adapt(request, Failure("bad_request", said), schemas=True) == change
    if change is None:
        assert request == ASKED
        return
    assert change not in request
    assert change not in request["extra_body"]
    assert TOLD[change].endswith(".")
    again = copy.deepcopy(ASKED)
    apply(again, change)
    assert again == request
    assert "guided_regex" in ASKED["extra_body"]
    assert "min_p" in ASKED["extra_body"]


def test_every_parameter_can_be_refused_one_after_the_other() -> None:
    request = copy.deepcopy(ASKED)
    for name in [name for name in ASKED if name not in ("model", "messages", "extra_body", "max_tokens")]:
        refusal = Failure("bad_request", f"Unsupported parameter: '{name}' is not supported with this model.")
        assert adapt(request, refusal, schemas=True) == name
        assert adapt(request, refusal, schemas=True) is None
    assert set(request) == {"model", "messages", "extra_body", "max_tokens"}


def test_a_conversation_without_a_system_role_keeps_marks_pictures_and_thoughts() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    thoughts = [{"type": "thinking", "thinking": "t", "signature": "s"}]
    found = folded(
        [
            {"role": "system", "content": [{"type": "text", "text": "Rules.", **mark}]},
            {"role": "user", "content": "See."},
            {"role": "user", "content": [picture]},
            {"role": "assistant", "content": "Yes.", "thinking_blocks": thoughts},
        ]
    )
    assert found == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Rules.", **mark},
                {"type": "text", "text": "See."},
                picture,
            ],
        },
        {"role": "assistant", "content": "Yes.", "thinking_blocks": thoughts},
    ]


@pytest.mark.parametrize(
    "said",
    [
        "messages.3.content.0: Invalid `signature` in `thinking` block",
        "messages.1.content.5: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be "
        "modified. These blocks must remain as they were in the original response.",
        "messages.1.content.0: Invalid `data` in `redacted_thinking` block",
        "Invalid value: 'reasoning_details' could not be verified",
    ],
)
def test_reasoning_of_earlier_that_is_not_taken_back_is_left_out(said: str) -> None:
    signed = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "thinking": signed},
        {"role": "user", "content": "c"},
    ]
    request: dict[str, Any] = {"messages": messages, "thinking": {"type": "enabled"}}
    assert adapt(request, Failure("bad_request", said), schemas=True) == "thoughts"
    assert request["thinking"], "the model thinks on"
    assert not any("thinking" in message for message in request["messages"])
    assert "thinking" in messages[1], "what was given stays as it is"
    assert adapt(request, Failure("bad_request", said), schemas=True) != "thoughts"

"""Addresses, keys, proxies and replies, without HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.config import LLMSettings
from rlm_kernel.engine.protocols import Usage
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.models._adapting import folded
from rlm_kernel.models._address import address_of, key_of
from rlm_kernel.models._faults import Failure, of_error
from rlm_kernel.models._http import Exchange
from rlm_kernel.models._proxies import proxy_for
from rlm_kernel.models._reading import Read, parse, read
from rlm_kernel.models._usage import usage

URL = "http://models.example:8000/v1/chat/completions"


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        (URL, {}, None),
        (URL, {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        (URL, {"http_proxy": "p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        (URL, {"https_proxy": "http://p:1"}, None),
        (URL, {"all_proxy": " 'http://p:1' "}, "http://p:1"),
        (URL, {"ALL_PROXY": "socks5://s:1", "http_proxy": "http://p:1"}, "http://p:1"),
        (URL, {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        (URL, {"HTTP_PROXY": "http://p:1", "NO_PROXY": "models.example"}, None),
        (URL, {"HTTP_PROXY": "http://p:1", "NO_PROXY": ".example , other"}, None),
        (URL, {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*.example"}, None),
        (URL, {"HTTP_PROXY": "http://p:1", "no_proxy": "models.example:8000"}, None),
        (URL, {"HTTP_PROXY": "http://p:1", "no_proxy": "models.example:9000"}, "http://p:1"),
        (URL, {"HTTP_PROXY": "http://p:1", "no_proxy": "ls.example,xmodels.example"}, "http://p:1"),
        ("http://10.1.2.3/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://10.1.2.3:81/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3:80"}, "http://p:1"),
        (
            "http://11.1.2.3/v1",
            {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8,nonsense/99"},
            "http://p:1",
        ),
        ("http://[::1]:8000/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "[::1]"}, None),
        ("http://[::1]:8000/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "::1"}, None),
        ("https://models.example/v1", {"https_proxy": "http://p:1"}, "http://p:1"),
    ],
)
def test_the_proxy_is_the_one_of_the_environment(
    url: str, variables: dict[str, str], proxy: str | None
) -> None:
    found = proxy_for(url, variables)
    assert (found.url if found else None) == proxy


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://h:1/v1/", "http://h:1/v1"),
        ('"http://h:1/v1"\r\n', "http://h:1/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
        ("https://h/v1/chat/completions?version=1", "https://h/v1?version=1"),
        ("https://h/v1/completions#top", "https://h/v1"),
        ("localhost:8000/v1", "http://localhost:8000/v1"),
        ("192.168.1.4:8000", "http://192.168.1.4:8000"),
        ("ollama:11434/v1", "http://ollama:11434/v1"),
        ("//api.example.com/v1", "https://api.example.com/v1"),
        ("\u201chttps://api.example.com/v1\u201d", "https://api.example.com/v1"),
    ],
)
def test_an_address_is_taken_as_people_write_it(written: str, url: str) -> None:
    assert address_of("root_llm", LLMSettings(), "openai", {"OPENAI_BASE_URL": written}).url == url
    assert address_of("root_llm", LLMSettings(api_base=written), "openai", {}).url == url


def test_an_address_says_where_it_came_from() -> None:
    variables = {"OPENAI_BASE_URL": "https://me:pw@h/v1", "OPENAI_API_BASE": "http://b/v1"}
    assert (
        address_of("sub_llm", LLMSettings(), "openai", variables).told()
        == "https://h/v1 (from OPENAI_BASE_URL)"
    )
    assert (
        address_of("sub_llm", LLMSettings(api_base="http://h"), "openai", variables).told()
        == "http://h (from sub_llm.api_base)"
    )
    assert (
        address_of("sub_llm", LLMSettings(), "openai", {}).told() == "https://api.openai.com/v1 (the default)"
    )
    assert address_of("sub_llm", LLMSettings(), "cohere", {}).told() == "the provider's default"


@pytest.mark.parametrize("written", ["sk-1", " sk-1\r\n", "'sk-1'", "Bearer sk-1", "\u200bsk-1\u00a0"])
def test_a_key_is_taken_without_what_was_copied_with_it(written: str) -> None:
    key = key_of("root_llm", LLMSettings(), "openrouter", {"OPENROUTER_API_KEY": written})
    assert key is not None
    assert (key.value, key.oddity) == ("sk-1", "")


def test_a_conversation_without_a_system_role_has_user_and_assistant_in_turns() -> None:
    roles = ["system", "user", "user", "assistant", "user"]
    messages = [{"role": role, "content": str(number)} for number, role in enumerate(roles)]
    assert [(message["role"], message["content"]) for message in folded(messages)] == [
        ("user", "0\n\n1\n\n2"),
        ("assistant", "3"),
        ("user", "4"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "Your input exceeds the context window of this model",
        "Requested token count exceeds the model's maximum context length of 131072 tokens.",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens",
        "Please reduce the length of the messages or completion.",
        "Input length 131393 exceeds the maximum allowed input length of 131040 tokens.",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "The number of tokens to keep from the initial prompt is greater than the context length",
        "prompt token count of 70000 exceeds the limit of 64000",
        "invalid params, context window exceeds limit",
        "Your request exceeded model token limit: 262144 (requested: 300000)",
        "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
        "Input is too long for requested model.",
        "Prompt too long: 5152 tokens exceeds max_seq_len 2048 (leave room for output tokens)",
        "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000",
        "Range of input length should be [1, 30720]",
        "max_tokens must be at least 1, got -33.",
        "Input validation error: `inputs` must have less than 4095 tokens. Given: 9000",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` "
        "tokens",
        "The decoder prompt (length 9001) is longer than the maximum model length of 8192.",
    ],
)
def test_the_words_for_a_prompt_that_is_too_long_are_known(words: str) -> None:
    assert of_error({"error": {"message": words}}, 400).fault == "too_long"
    assert of_error({"error": {"message": words, "code": 400}}, 200).fault == "too_long"


@pytest.mark.parametrize(
    ("status", "words", "fault"),
    [
        (400, "Too many tokens, please wait before trying again.", "rate_limit"),
        (429, "Rate limit reached: context length exceeded per minute", "rate_limit"),
        (408, "The request took too long.", "timeout"),
        (403, "You have exceeded your token quota.", "auth"),
        (500, "The server had an error.", "server"),
        (
            400,
            "max_tokens is too large: 77. This model supports at most 64 completion tokens.",
            "bad_request",
        ),
        (400, "Model unloaded.", "server"),
        (400, "No models loaded.", "unknown_model"),
        (400, "API key not valid. Please pass a valid API key.", "auth"),
        (400, "Budget has been exceeded! Max budget: 10.0", "auth"),
        (400, "The plain HTTP request was sent to HTTPS port", "connection"),
        (403, "Your input was flagged", "refused"),
        (404, "No endpoints found that support the requested parameters", "bad_request"),
    ],
)
def test_other_limits_are_no_prompt_that_is_too_long(status: int, words: str, fault: str) -> None:
    assert of_error({"error": {"message": words}}, status).fault == fault


@pytest.mark.parametrize(
    ("headers", "words", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "1"}, "Slow down.", 0.25),
        ({"retry-after": "nan"}, "Slow down.", None),
        ({}, "You exceeded your current quota. Please retry in 31.5s.", 31.5),
        ({}, "Please try again in 10m4.8s.", 604.8),
        ({}, "Please try again in 250ms.", 0.25),
        ({}, "Please try again in a while.", None),
    ],
)
def test_a_wait_is_read_from_headers_and_words(
    headers: dict[str, str], words: str, seconds: float | None
) -> None:
    found = of_error({"error": {"message": words}}, 429, headers)
    assert (found.fault, found.retry_after, found.retry) == ("rate_limit", seconds, True)


def test_an_error_packed_in_a_gateways_error_is_told() -> None:
    raw = json.dumps({"error": {"message": "The inner words."}})
    found = of_error(
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}, 400
    )
    assert found.said == "Provider returned error The inner words."


def ended(text: str | None, finish: str | None, native: str | None = None) -> Any:
    choice = {"finish_reason": finish, "native_finish_reason": native, "message": {"content": text}}
    return read({"choices": [choice]}, code=True)


@pytest.mark.parametrize("native", ["max_tokens", "MAX_TOKENS", "model_context_window_exceeded"])
def test_a_cut_is_known_by_the_word_of_the_provider_behind_a_gateway(native: str) -> None:
    assert ended("half", "stop", native).finish == "length"


@pytest.mark.parametrize("finish", ["network_error", "abort", "insufficient_system_resource"])
def test_a_reply_that_broke_off_is_no_whole_one(finish: str) -> None:
    found = ended("half", finish)
    assert (found.fault, found.retry) == ("server", True)


def test_a_tool_call_that_the_provider_did_not_hand_on_is_told_to_the_root_model() -> None:
    assert ended(None, "error", "MALFORMED_FUNCTION_CALL").tools == ("a function",)


def test_streams_are_read_to_their_end_and_not_taken_for_whole_where_they_have_none() -> None:
    chunks = [{"choices": [{"delta": {"content": part}}]} for part in ("hel", "lo")]
    lines = [json.dumps(chunk) for chunk in [*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]]
    whole = parse(Exchange(URL, status=200, body="\n".join(lines).encode()))
    assert isinstance(whole, dict)
    assert read(whole, code=False) == Read("hello", "stop")
    cut = parse(Exchange(URL, status=200, body="\n\n".join(f"data: {line}" for line in lines[:2]).encode()))
    assert isinstance(cut, dict)
    found = read(cut, code=False)
    assert isinstance(found, Failure)
    assert found.retry


def test_a_page_that_says_the_body_is_too_large_is_a_prompt_that_is_too_long() -> None:
    found = parse(Exchange(URL, status=413, body=b"<html><title>413 Request Entity Too Large</title></html>"))
    assert isinstance(found, Failure)
    assert found.fault == "too_long"


def test_a_count_that_no_call_can_have_is_none() -> None:
    assert usage({"usage": {"prompt_tokens": 2**70, "completion_tokens": 1e300}}, 2, 1) == Usage(
        2, 1, 0, True
    )


def completion(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": None, **message}}]}


CODE = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1).filter(
    lambda text: text.strip()
)


@given(CODE, st.booleans())
def test_any_code_of_a_tool_call_comes_out_as_it_was(code: str, packed: bool) -> None:
    arguments: Any = {"code": code}
    function = {"name": "python", "arguments": json.dumps(arguments) if packed else arguments}
    found = read(completion(tool_calls=[{"function": function}]), code=True)
    assert isinstance(found, Read)
    if not code.lstrip().startswith(("```", "~~~")):
        assert parse_reply(found.text).cells == (code.rstrip(),)


_NAMES = """choices message content text type error code usage finish_reason tool_calls function name arguments prompt_tokens
completion_tokens total_tokens detail delta reasoning base_resp status_code refusal thinking"""
NAMES = st.sampled_from(_NAMES.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=20,
)
ODD = st.sampled_from([b"data: {", b"data: 1\n\ndata: []", b"[[", b"{" * 9000, b":\n", b"\xff\xfe<"])


@given(st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_nothing_that_is_json_breaks_the_reader(found: dict[str, Any], code: bool) -> None:
    assert isinstance(read(found, code=code), Read | Failure)
    assert isinstance(usage(found, 10, 10), Usage)


@given(st.binary(max_size=80) | ODD, st.sampled_from([200, 302, 400, 404, 500]))
def test_no_bytes_break_the_reader(body: bytes, status: int) -> None:
    found = parse(Exchange(URL, status=status, body=body))
    assert isinstance(found, dict | Failure)

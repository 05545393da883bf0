"""What providers really send, over real HTTP: one table, on both roads."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rlm_kernel.engine.protocols import Usage
from rlm_kernel.models.litellm_models import LitellmModels
from tests.support import openai_wire as wire
from tests.support.model_layer import HELLO, Make, failing
from tests.support.model_server import ModelServer


def reply(content: Any, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """The least of a chat completion."""
    return {"choices": [{"finish_reason": finish, "message": {"content": content, **message}}]}


def called(name: str, arguments: Any) -> dict[str, Any]:
    return reply(
        None,
        "tool_calls",
        tool_calls=[{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}],
    )


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. FINAL(9)"}]}
STREAM = b"".join(
    b"data: " + json.dumps(chunk).encode() + b"\n\n"
    for chunk in (
        {"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "So."}}]},
        {"choices": [{"index": 0, "delta": {"content": "hel"}}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
    )
)
WHOLE = json.dumps(reply("hello")).encode()


@pytest.mark.parametrize(
    ("body", "text", "thoughts"),
    [
        (
            reply([THINKING, {"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]),
            "hello",
            "Hm. FINAL(9)",
        ),
        (reply(["hel", "lo"]), "hello", ""),
        (reply([{"type": "output_text", "text": {"value": "hello", "annotations": []}}]), "hello", ""),
        (reply({"type": "text", "text": "hello"}), "hello", ""),
        (reply({"label": "a", "n": 1}), '{"label": "a", "n": 1}', ""),
        (reply(42), "42", ""),
        (reply("hello", reasoning_content="So."), "hello", "So."),
        (
            reply("hello", reasoning="So.", reasoning_details=[{"type": "reasoning.text", "text": "So."}]),
            "hello",
            "So.",
        ),
        (reply("hello", finish=None, odd={"a": [1]}), "hello", ""),
        ({"choices": [{"text": "hello"}]}, "hello", ""),
        ({"choices": [{"message": "hello"}], "extra": [None]}, "hello", ""),
        (
            {"choices": [{"index": "0", "message": {"content": ""}}, {"message": {"content": "hello"}}]},
            "hello",
            "",
        ),
        (
            {**reply("hello"), "error": None, "id": None, "created": "now", "model": 7, "object": 1},
            "hello",
            "",
        ),
        (b"\xef\xbb\xbf" + WHOLE, "hello", ""),
        (b"\n\n  \r\n" + WHOLE + b"\n\n", "hello", ""),
        (b": PROCESSING\n\n: PROCESSING\n\n" + WHOLE, "hello", ""),
        (STREAM + b"data: [DONE]\n\n", "hello", "So."),
        (gzip.compress(WHOLE, mtime=0), "hello", ""),
        (json.dumps(reply("a\nb")).replace("\\n", "\n").encode(), "a\nb", ""),
    ],
)
async def test_a_reply_is_read_by_the_fields_that_are_needed(
    make: Make, openai_env: ModelServer, body: Any, text: str, thoughts: str
) -> None:
    openai_env.send(body, content_type="text/event-stream" if body is STREAM else "text/plain")
    found = await make(sub_llm__retries=0).complete(HELLO, role="sub")
    assert (found.text, found.thoughts) == (text, thoughts)


async def test_a_packed_reply_is_unpacked_where_it_says_so(make: Make, openai_env: ModelServer) -> None:
    openai_env.send(gzip.compress(WHOLE, mtime=0), encoding="gzip")
    assert (await make(sub_llm__retries=0).complete(HELLO, role="sub")).text == "hello"


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2}, Usage(7, 2)),
        ({"prompt_tokens": "7", "completion_tokens": 2.0, "total_tokens": "nine"}, Usage(7, 2)),
        ({"completion_tokens": 2, "total_tokens": 9}, Usage(7, 2)),
        ({"input_tokens": 7, "output_tokens": 2, "prompt_cache_hit_tokens": 5}, Usage(7, 2, 5)),
        ({"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(7, 2)),
        (None, Usage(21, 1, 0, True)),
        ("many", Usage(21, 1, 0, True)),
        ({"prompt_tokens": -5, "completion_tokens": float("nan")}, Usage(21, 1, 0, True)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(21, 1, 0, True)),
        ({"prompt_tokens": True, "completion_tokens": []}, Usage(21, 1, 0, True)),
    ],
)
async def test_usage_that_makes_no_sense_is_estimated_and_marked(
    make: Make, openai_env: ModelServer, told: Any, usage: Usage
) -> None:
    openai_env.send({**reply("hello"), "usage": told})
    found = await make(sub_llm__retries=0, sub_llm__input_price=10, sub_llm__output_price=100).complete(
        HELLO, role="sub"
    )
    assert found.usage == usage
    assert (found.cost is None) is usage.estimated


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS", "incomplete", "model_length"])
async def test_a_reply_that_was_cut_is_marked_however_the_provider_calls_it(
    make: Make, openai_env: ModelServer, finish: str
) -> None:
    openai_env.send(reply("1. alpha\n2. be", finish))
    assert (await make().complete(HELLO, role="sub")).cut


# Tool calls that nobody offered


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (called("python", '{"code": "print(1)"}'), "```repl\nprint(1)\n```"),
        (called("functions.python:0", "print(1)"), "```repl\nprint(1)\n```"),
        (called("python<|channel|>analysis", {"input": "print(1)"}), "```repl\nprint(1)\n```"),
        (called("execute_code", '{"code": "print("hi")\nx = 1"}'), '```repl\nprint("hi")\nx = 1\n```'),
        (called("notebook_edit", '{"source": ["a = 1", "print(a)"]}'), "```repl\na = 1\nprint(a)\n```"),
        (called("anything", '{"script": "s = \'```\'", "timeout": 5}'), "````repl\ns = '```'\n````"),
        (called("code_interpreter", '"```python\\nprint(1)\\n```"'), "```repl\nprint(1)\n```"),
        (reply(None, function_call={"name": "python", "arguments": "print(1)"}), "```repl\nprint(1)\n```"),
        (
            reply([{"type": "tool_use", "name": "repl", "input": {"code": "print(1)"}}]),
            "```repl\nprint(1)\n```",
        ),
        (
            reply(None, function_call={"name": "run", "arguments": '{"code": "print(1)"'}),
            "```repl\nprint(1)\n```",
        ),
    ],
)
async def test_the_code_of_a_tool_that_runs_python_is_in_the_root_models_reply(
    make: Make, openai_env: ModelServer, body: Any, text: str
) -> None:
    openai_env.send(body)
    found = await make(root_llm__retries=0).complete(HELLO, role="root")
    assert (found.text, found.tools) == (text, ())


async def test_other_tools_are_named_and_are_no_error_of_the_root_model(
    make: Make, openai_env: ModelServer
) -> None:
    models = make(root_llm__retries=0)
    openai_env.send(called("search", '{"query": "alpha"}'))
    found = await models.complete(HELLO, role="root")
    assert found.tools == ("search",)
    assert found.text == '[called a tool: search({"query": "alpha"})]'
    openai_env.send(called("bash", '{"script": "ls"}'))
    assert (await models.complete(HELLO, role="root")).tools == ("bash",)


async def test_a_sub_model_that_calls_a_tool_gives_its_text_or_an_error_that_says_so(
    make: Make, openai_env: ModelServer
) -> None:
    models = make(sub_llm__retries=0)
    openai_env.send(reply("hello", tool_calls=[{"function": {"name": "search", "arguments": "{}"}}]))
    assert (await models.complete(HELLO, role="sub")).text == "hello"
    openai_env.send(called("search", "{}"))
    problem = await failing(models.complete(HELLO, role="sub"))
    assert problem.fault == "empty"
    assert "called a tool (search)" in problem.message


# Errors, pages, and other things in a reply's place

DIED = {"message": "It died.", "code": 502}
BROKE = "Insufficient credits. Add more at the shop."


@pytest.mark.parametrize(
    ("body", "fault", "words", "retried"),
    [
        ({"error": {"message": BROKE, "code": 402}}, "auth", BROKE, False),
        ({"error": {"message": BROKE, "code": "402"}, "choices": None, "id": "x"}, "auth", BROKE, False),
        ({"error": BROKE}, "auth", BROKE, False),
        ({"choices": [{"finish_reason": "error", "error": DIED, "message": {"content": "ha"}}]}, "server", "It died", True),
        (reply("", error=DIED), "server", "It died", True),
        ({"error": {"message": "Provider error", "code": 429, "metadata": {"raw": "Slow down."}}}, "rate_limit", "Slow down", True),
        ({"message": "Slow down.", "code": 429}, "rate_limit", "Slow down", True),
        ({"detail": "Not authenticated"}, "auth", "Not authenticated", False),
        ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "auth", "login fail", False),
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None}, "rate_limit", "rate limit", True),
        ({"object": "error", "message": "The context length is "
                                        "exceeded.", "code": 400}, "too_long", "context length", False),
        ([{"error": {"code": 503, "message": "Overloaded."}}], "server", "Overloaded", True),
        ({"error": {"message": '{"error": {"message": "The inner words.", "code": '
                               '401}}', "code": 401}}, "auth", "The inner words", False),
        (b'data: {"error": {"message": "It died.", "code": 500}}\n\n'
         b'data: [DONE]\n\n', "server", "It died", True),
        (b"no healthy upstream", "server", "no healthy upstream", True),
        (b"", "server", "no body", True),
    ],
)  # fmt: skip
async def test_what_the_provider_said_in_a_200_is_told_and_retried_where_that_may_help(
    make: Make, openai_env: ModelServer, body: Any, fault: str, words: str, retried: bool
) -> None:
    openai_env.send(body, times=2)
    problem = await failing(make(sub_llm__retries=1).complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts) == (fault, 1 + retried)
    assert words in problem.message


async def test_an_error_beside_a_whole_reply_is_none(make: Make, openai_env: ModelServer) -> None:
    openai_env.send({**reply("hello"), "error": {"message": "a warning"}})
    assert (await make(sub_llm__retries=0).complete(HELLO, role="sub")).text == "hello"


PAGE = b"<!doctype html>\n<html><head><title>Sign  in</title></head><body>...</body></html>"


@pytest.mark.parametrize("status", [200, 403, 404])
async def test_a_web_page_is_told_with_the_address_and_where_that_came_from(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    base = openai_env.url.removesuffix("/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    openai_env.send(PAGE, status=status, content_type="text/html; charset=utf-8")
    problem = await failing(make(sub_llm__retries=2).complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts) == ("connection", 1)
    assert "a web page (HTML) titled 'Sign in'" in problem.message
    assert f"{base} (from OPENAI_BASE_URL)" in problem.hint
    assert f"set OPENAI_BASE_URL to {base}/v1" in problem.hint


async def test_a_gateways_own_page_may_pass(make: Make, openai_env: ModelServer) -> None:
    openai_env.send(
        b"<html><head><title>502 Bad Gateway</title></head></html>", status=502, content_type="text/html"
    )
    found = await make(sub_llm__retries=1).complete(HELLO, role="sub")
    assert (found.text, found.attempts) == ("echo: hello", 2)


async def test_xml_is_told(make: Make, openai_env: ModelServer) -> None:
    openai_env.send(
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', content_type="application/xml"
    )
    assert "XML" in (await failing(make(sub_llm__retries=0).complete(HELLO, role="sub"))).message


# What a model does not take


NO_SYSTEM = [
    (400, {"object": "error", "message": "System role not "
                                         "supported", "type": "BadRequestError", "param": None, "code": 400}),
    (400, {"error": {"message": "Developer instruction is not enabled for "
                                "models/gemma-3-27b-it", "code": 400}}),
    (400, {"error": {"message": "Unsupported value: 'messages[0].role' does not support 'system' with this "
                                "model."}}),
    (400, {"detail": "System messages are not allowed"}),
    (400, {"error": "Only user and assistant roles are supported!"}),
    (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "unexpected value; permitted: 'user', "
                                                                      "'assistant'; role 'system'"}]}),
    (500, {"error": {"code": 500, "message": "Jinja Exception: Conversation roles must alternate "
                                             "user/assistant/..."}}),
    (200, {"error": {"message": "System role not supported", "code": 400}}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "refusal"), NO_SYSTEM)
async def test_a_model_without_a_system_role_gets_the_instructions_in_the_first_message_from_then_on(
    make: Make, openai_env: ModelServer, said: list[str], status: int, refusal: dict[str, Any]
) -> None:
    def root(messages: list[dict[str, str]]) -> str | bytes:
        system = any(message["role"] == "system" for message in messages)
        return wire.response(status, wire.encode(refusal)) if system else messages[0]["content"]

    openai_env.root = root
    models = make(root_llm__retries=0)
    for _ in range(2):
        assert (await models.complete(HELLO, role="root")).text == f"{HELLO[0]['content']}\n\nhello"
    assert [request.body["messages"][0]["role"] for request in openai_env.requests] == [
        "system",
        "user",
        "user",
    ]
    assert said == [
        "openai/root does not accept the system role; rlm puts the instructions into the first "
        "message from now on."
    ]


@pytest.mark.parametrize(
    ("message", "setting", "sent"),
    [
        (
            "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) "
            "value is supported.",
            "temperature",
            {},
        ),
        ("`temperature` is deprecated for this model.", "temperature", {}),
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_tokens",
            {"max_completion_tokens": 77},
        ),
        ("max_tokens is too large: 77. This model supports at most 64 completion tokens.", "max_tokens", {}),
    ],
)
async def test_a_parameter_that_is_refused_is_left_out_from_then_on_and_told_once(
    make: Make, openai_env: ModelServer, said: list[str], message: str, setting: str, sent: dict[str, Any]
) -> None:
    models = make(**{f"sub_llm__{setting}": 77 if setting == "max_tokens" else 0.5, "sub_llm__retries": 0})
    openai_env.fail("bad_request", message=message)
    for _ in range(2):
        assert (await models.complete(HELLO, role="sub")).text == "echo: hello"
    known = {"model", "messages"}
    assert [{k: v for k, v in r.body.items() if k not in known} for r in openai_env.requests[1:]] == [
        sent,
        sent,
    ]
    assert setting in openai_env.requests[0].body
    assert len(said) == 1


async def test_a_refusal_of_something_else_changes_nothing(
    make: Make, openai_env: ModelServer, said: list[str]
) -> None:
    openai_env.fail("bad_request", message="The system is not available to this account.", times=1)
    problem = await failing(make(sub_llm__retries=0, sub_llm__temperature=0.5).complete(HELLO, role="sub"))
    assert (problem.fault, len(openai_env.requests), said) == ("bad_request", 1, [])


# The window


@pytest.mark.parametrize(
    ("status", "error", "window"),
    [
        (400, {"message": "request (9000 tokens) exceeds the available context size, try "
                          "increasing it", "n_ctx": 6000}, 6000),
        (400, {"message": "This model's maximum context length is 8,192 tokens. However, your prompt has "
                          "9000 tokens."}, 8192),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 213462 tokens > 200000 "
                                                           "maximum"}, 200_000),
        (400, {"message": "The input token count (1196265) exceeds the maximum number of tokens allowed "
                          "(1048575)."}, 1_048_575),
        (400, {"message": "Trying to keep 5000 tokens when context the overflows. It is loaded with context "
                          "length of only 4096"}, 4096),
        (400, {"message": "prompt too long; exceeded max context length by 3000 tokens"}, None),
        (500, {"message": "Input length (265330) exceeds model's maximum context length (262144)."}, 262_144),
        (413, {"message": "Request too large for model"}, None),
    ],
)  # fmt: skip
async def test_a_prompt_that_is_too_long_tells_its_size_and_the_limit_which_is_learnt(
    make: Make, openai_env: ModelServer, status: int, error: dict[str, Any], window: int | None
) -> None:
    models = make()
    openai_env.send({"error": error}, status=status)
    problem = await failing(models.complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts) == ("too_long", 1)
    assert re.search(r"The prompt has 85 characters \(about (1\d|2\d) tokens\)", problem.hint)
    assert (f"{window:,} tokens" if window else "not known") in problem.hint
    assert models.card("sub").window == window


async def test_too_many_tokens_a_minute_are_no_prompt_that_is_too_long(
    make: Make, openai_env: ModelServer
) -> None:
    openai_env.send({"message": "Too many tokens, please wait before trying again."}, status=400)
    assert (await make(sub_llm__retries=1).complete(HELLO, role="sub")).attempts == 2


# Addresses, keys, proxies


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        "{}?version=1",
        "{}/chat/completions?version=1",
        ' "{}" ',
        "'{}/'",
        "{}/chat/completions",
        "{}\r",
        "\u201c{}\u201d",
    ],
)
async def test_an_address_is_taken_as_people_write_it(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", written.format(openai_env.url))
    assert (await make(sub_llm__retries=0).complete(HELLO, role="sub")).text == "echo: hello"


async def test_an_address_without_a_scheme_gets_one(make: Make, openai_env: ModelServer) -> None:
    models = make(sub_llm__api_base=openai_env.url.removeprefix("http://"))
    assert (await models.complete(HELLO, role="sub")).text == "echo: hello"


@pytest.mark.parametrize("around", ["{}\r", "{}\n", ' "{}" ', "Bearer {}", "\ufeff{}\u200b"])
async def test_a_key_is_taken_without_what_was_copied_with_it(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", around.format(openai_env.api_key))
    assert (await make(sub_llm__retries=0).complete(HELLO, role="sub")).text == "echo: hello"


async def test_a_key_that_cannot_be_one_is_told_before_any_call(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc\u2026xyz")
    problem = await failing(make().warm_up())
    assert (problem.fault, openai_env.requests) == ("auth", [])
    assert "OPENAI_API_KEY has the character U+2026" in problem.message


async def test_https_to_a_server_that_speaks_http_is_told(make: Make) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        problem = await failing(make(sub_llm__api_base=address).complete(HELLO, role="sub"))
    assert (problem.fault, problem.attempts) == ("connection", 1)
    assert "http://" in problem.hint
    assert "sub_llm.api_base" in problem.hint


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "localhost, 127.0.0.0/8", "127.0.0.1:{port}"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
async def test_an_address_in_no_proxy_is_asked_without_one(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch, exempt: str, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", exempt.format(port=openai_env.port))
    assert (await make(sub_llm__retries=0).complete(HELLO, role="sub")).text == "echo: hello"


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(("variable", "scheme"), [("http_proxy", "http"), ("ALL_PROXY", "socks5h")])
async def test_a_proxy_that_does_not_serve_is_named_with_its_variable(
    make: Make, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    where = f"127.0.0.1:{dead_port()}"
    monkeypatch.setenv(variable, f"{scheme}://user:secret@{where}")
    problem = await failing(make(sub_llm__retries=0).complete(HELLO, role="sub"))
    assert problem.fault == "connection"
    assert f"{scheme}://{where} ({variable})" in problem.hint
    assert "secret" not in str(problem)
    assert "add 127.0.0.1 to NO_PROXY" in problem.hint


@pytest.mark.usefixtures("no_proxies")
async def test_a_proxy_is_used(make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "http_proxy", f"127.0.0.1:{openai_env.port}"
    )  # the server takes whole addresses, as proxies do
    models = make(sub_llm__api_base="http://models.example/v1", sub_llm__retries=0)
    assert (await models.complete(HELLO, role="sub")).text == "echo: hello"
    assert openai_env.requests[-1].path == "http://models.example/v1/chat/completions"


# The other wires that litellm speaks


@pytest.mark.parametrize(
    ("body", "text", "tools"),
    [
        ({"content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn"}, "hello", ()),
        ({"content": [{"type": "text", "text": "hello"}], "stop_reason": "max_tokens"}, "hello", ()),
        (
            {
                "content": [
                    {"type": "tool_use", "id": "t1", "name": "python", "input": {"code": "print(1)"}}
                ],
                "stop_reason": "tool_use",
            },
            "```repl\nprint(1)\n```",
            (),
        ),
    ],
)
async def test_anthropics_wire_comes_to_the_same(
    openai_env: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    body: dict[str, Any],
    text: str,
    tools: tuple[str, ...],
    make: Make,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", openai_env.api_key or "")
    openai_env.api_key = None  # this wire has it in another header
    models = make(
        root_llm__model="anthropic/claude-3-5-haiku-latest",
        root_llm__api_base=openai_env.url,
        root_llm__retries=0,
    )
    whole = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "usage": {"input_tokens": 7, "output_tokens": 2},
        **body,
    }
    openai_env.send(whole)
    found = await models.complete(HELLO, role="root")
    assert (found.text, found.tools, found.usage) == (text, tools, Usage(7, 2))
    assert found.cut is (body["stop_reason"] == "max_tokens")
    refusal = {"type": "invalid_request_error", "message": "prompt is too long: 9000 tokens > 8000 maximum"}
    openai_env.send({"type": "error", "error": refusal}, status=400)
    assert (await failing(models.complete(HELLO, role="root"))).fault == "too_long"
    assert models.card("root").window == 8000


async def test_litellm_goes_its_own_way_outside_of_our_calls(make: Make, openai_env: ModelServer) -> None:
    models: LitellmModels = make()
    await models.complete(HELLO, role="sub")
    import litellm

    async def ask() -> Any:
        return await litellm.acompletion(
            model="openai/sub",
            messages=HELLO,
            api_base=openai_env.url,
            api_key=openai_env.api_key,
            num_retries=0,
        )

    found = await asyncio.create_task(ask())
    assert found.choices[0].message.content == "echo: hello"


def test_event_loops_in_several_threads_do_not_meet(
    make: Make, openai_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", openai_env.api_key or "")

    async def ask() -> list[str]:
        models = make(sub_llm__model="openrouter/sub", sub_llm__api_base=openai_env.url, sub_llm__retries=0)
        try:
            replies = await asyncio.gather(*(models.complete(HELLO, role="sub") for _ in range(20)))
        finally:
            await models.aclose()
        return [reply.text for reply in replies]

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: asyncio.run(ask()), range(3)))
    assert found == [["echo: hello"] * 20] * 3

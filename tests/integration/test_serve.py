"""The endpoint as its clients see it: the official client of OpenAI's, plain HTTP, and real containers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from rlm_kernel.engine.protocols import Completion, Usage
from rlm_kernel.errors import UsageError
from rlm_kernel.models.scripted import ScriptedModels
from rlm_kernel.serve import answering
from rlm_kernel.trace.reader import read_trace
from tests.support.sandbox import until
from tests.support.serving import ChatTalk, Served, served
from tests.support.story import repl

pytestmark = [
    pytest.mark.usefixtures("kernel_image", "in_folder"),
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TABLE = base64.b64encode(b"city,people\nBonn,3\nUlm,4\n").decode()


@pytest.fixture
def in_folder(isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mine(docker_client: Any) -> Callable[[], int]:
    """How many containers this test has now; kept sessions of tests before it may still be there."""

    def there() -> set[str]:
        label = {"label": f"rlm-kernel.owner={os.getpid()}"}
        return {one["Id"] for one in docker_client.api.containers(all=True, filters=label)}

    others = there()

    def count() -> int:
        return len(there() - others)

    return count


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def say(server: Served, *messages: Any, **options: Any) -> Any:
    """An answer, or the pieces of a stream."""
    given: Any = [user(one) if isinstance(one, str | list) else one for one in messages]
    asking = server.client(options.pop("key", "none"))
    return await asking.chat.completions.create(model=options.pop("model", "rlm"), messages=given, **options)


def traces() -> list[Path]:
    return sorted(Path("rlm-traces").glob("*.ipynb"))


async def test_a_question_is_answered_with_usage_and_the_name_of_its_trace() -> None:
    async with served() as server:
        answer = await say(server, "run: print(2); FINAL(1 + 1)")
    assert answer.choices[0].message.content == "2"
    assert answer.choices[0].finish_reason == "stop"
    assert "FINAL(1 + 1)" in answer.choices[0].message.reasoning_content
    assert answer.object == "chat.completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert [answer.rlm["trace"]] == [path.name for path in traces()]
    assert "-serve-local-" in answer.rlm["trace"]


async def test_the_synchronous_client_is_answered_and_finds_the_models() -> None:
    def ask(url: str) -> tuple[list[str], str | None]:
        with OpenAI(base_url=url, api_key="none", max_retries=0) as asking:
            names = [model.id for model in asking.models.list()]
            assert asking.models.retrieve("rlm").owned_by == "rlm_kernel"
            messages: Any = [user("run: FINAL('yes')")]
            return names, asking.chat.completions.create(model="rlm", messages=messages).choices[
                0
            ].message.content

    async with served() as server:
        assert await asyncio.to_thread(ask, server.url) == (["rlm"], "yes")


async def test_a_stream_has_the_run_as_reasoning_then_the_answer_then_its_usage() -> None:
    async with served() as server:
        stream = await say(
            server, "run: print('seen'); FINAL('done')", stream=True, stream_options={"include_usage": True}
        )
        pieces = [piece async for piece in stream]
    deltas = [piece.choices[0].delta for piece in pieces if piece.choices]
    assert deltas[0].role == "assistant"
    assert all(delta.role in (None, "assistant") for delta in deltas)
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
    assert "seen" in reasoning
    assert "".join(delta.content or "" for delta in deltas) == "done"
    finishes = [piece.choices[0].finish_reason for piece in pieces if piece.choices]
    assert finishes[-1] == "stop"
    assert set(finishes[:-1]) == {None}
    assert pieces[-1].choices == []
    assert pieces[-1].usage.total_tokens >= 0
    assert len({piece.id for piece in pieces}) == len({piece.created for piece in pieces}) == 1


async def test_every_line_of_a_stream_is_an_event_or_a_comment_and_done_is_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "ALIVE_SECONDS", 0.05)
    body = {
        "model": "rlm",
        "stream": True,
        "messages": [user("run: import time; time.sleep(1); FINAL('a\\r\\nb\u2028c')")],
    }
    async with served() as server, httpx.AsyncClient(timeout=60) as http:
        response = await http.post(f"{server.url}/chat/completions", json=body)
    lines = response.text.split("\n")
    assert all(line == "" or line.startswith((": ", "data: ")) for line in lines)
    assert any(line.startswith(":") for line in lines), "nothing was said while the code ran"
    assert lines[-3:] == ["data: [DONE]", "", ""]
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in told) == "a\r\nb\u2028c"
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-rlm-trace"] == traces()[0].name


async def test_a_chat_that_goes_on_has_its_variables_and_one_trace(mine: Callable[[], int]) -> None:
    async with served() as server:
        first = await say(server, "run: kept = 41; FINAL(kept)")
        answer = first.choices[0].message.content
        thought = {"role": "assistant", "content": f"<think>some\nreasoning</think>\n {answer} "}
        second = await say(server, "run: kept = 41; FINAL(kept)", thought, "run: kept += 1; FINAL(kept)")
        assert second.choices[0].message.content == "42"
        assert second.rlm["trace"] == first.rlm["trace"]
        assert mine() == 1
    assert mine() == 0


async def test_a_chat_that_was_edited_gets_another_kernel_with_what_was_said() -> None:
    async with served() as server:
        await say(server, "run: kept = 1; FINAL(kept)")
        other = {"role": "assistant", "content": "something else"}
        again = await say(server, "run: kept = 1; FINAL(kept)", other, "run: FINAL('kept' in globals())")
    assert again.choices[0].message.content == "False"
    # Both traces may be of the same second.
    assert any("Assistant: something else" in read_trace(trace).meta.question for trace in traces())


async def test_kernels_of_chats_that_were_not_used_for_longest_end(mine: Callable[[], int]) -> None:
    async with served(serve__chats=1) as server:
        await say(server, "run: FINAL('first')")
        await say(server, "run: FINAL('second')")
        await until(lambda: mine() == 1)


async def test_a_chat_that_is_idle_loses_its_kernel(mine: Callable[[], int]) -> None:
    async with served(serve__idle=0.1) as server:
        await say(server, "run: FINAL('first')")
        await until(lambda: mine() == 0)


async def test_long_messages_and_files_are_the_context_and_the_same_file_is_loaded_once() -> None:
    file = {
        "type": "file",
        "file": {"filename": "../../etc/towns.csv", "file_data": f"data:text/csv;base64,{TABLE}"},
    }
    seen = {"type": "text", "text": "run: FINAL(sorted(files))"}
    long = "word " * 2_000
    async with served() as server:
        first = await say(server, [{"type": "text", "text": long}, file, seen])
        answer = first.choices[0].message.content
        assert json.loads(answer.replace("'", '"')) == ["message-1.txt", "towns.csv"]
        told = {"role": "assistant", "content": answer}
        again = [file, {"type": "text", "text": "run: FINAL(len(files))"}]
        second = await say(server, [{"type": "text", "text": long}, file, seen], told, again)
        assert second.choices[0].message.content == "2"
    kept = traces()[0].with_suffix(".files")
    assert sorted(path.name for path in kept.iterdir()) == ["message-1.txt", "towns.csv"]


async def test_pictures_of_a_message_are_files() -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}"}}
    async with served() as server:
        answer = await say(server, [picture, {"type": "text", "text": "run: FINAL('seen')"}])
    assert answer.choices[0].message.content == "seen"
    assert (traces()[0].with_suffix(".files") / "image-1.png").read_bytes() == base64.b64decode(DOT)


async def test_a_file_that_cannot_be_read_is_told_without_the_paths_of_the_machine(tmp_path: Path) -> None:
    file = {"type": "file", "file": {"filename": "broken.png", "file_data": "iVBORw0KGgo="}}
    async with served() as server:
        with pytest.raises(openai.BadRequestError) as told:
            await say(server, [file, {"type": "text", "text": "run: FINAL(1)"}])
        messages = [
            {"role": "user", "content": [file, {"type": "text", "text": "run: FINAL(1)"}]},
            {"role": "user", "content": "run: FINAL(sorted(files))"},
        ]
        answer = await server.client().chat.completions.create(model="rlm", messages=messages)
        assert answer.choices[0].message.content == "[]"  # the chat goes on without it
    assert "broken.png" in told.value.message
    assert str(tmp_path) not in told.value.message


async def test_an_answer_has_the_form_that_a_schema_gives() -> None:
    schema = {"type": "object", "properties": {"people": {"type": "integer"}}, "required": ["people"]}
    form = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}
    async with served() as server:
        answer = await say(server, "run: FINAL({'people': 7})", response_format=form)
    assert json.loads(answer.choices[0].message.content) == {"people": 7}


async def test_a_schema_is_a_question_of_its_chat_with_the_chats_variables(mine: Callable[[], int]) -> None:
    schema = {"type": "object", "properties": {"kept": {"type": "integer"}}, "required": ["kept"]}
    form = {"type": "json_schema", "json_schema": {"name": "kept", "schema": schema}}
    asked = ["run: kept = 41; FINAL({'kept': kept})", "run: kept += 1; FINAL(kept)"]
    async with served() as server:
        first = await say(server, asked[0], response_format=form)
        answer = first.choices[0].message.content
        assert json.loads(answer) == {"kept": 41}
        told = {"role": "assistant", "content": answer}
        second = await say(server, asked[0], told, asked[1])
        assert second.choices[0].message.content == "42"
        assert second.rlm["trace"] == first.rlm["trace"]
        assert mine() == 1


async def test_an_answer_has_the_tokens_that_a_request_wants_at_most_and_its_chat_goes_on() -> None:
    async with served() as server:
        first = await say(server, "run: kept = 'äöü' * 9; FINAL(kept)", max_tokens=2)
        assert first.choices[0].finish_reason == "length"
        answer = first.choices[0].message.content
        assert answer == "äöüä"
        told = {"role": "assistant", "content": answer}
        again = ["run: kept = 'äöü' * 9; FINAL(kept)", told, "run: FINAL(len(kept))"]
        second = await say(server, *again, max_tokens=2)
    assert second.choices[0].message.content == "27"
    assert second.choices[0].finish_reason == "stop"


async def test_files_go_with_their_chat_where_none_are_to_be_kept(mine: Callable[[], int]) -> None:
    file = {"type": "file", "file": {"filename": "a.csv", "file_data": TABLE}}
    async with served(serve__files_days=0) as server:
        answer = await say(server, [file, {"type": "text", "text": "run: FINAL(len(files))"}])
        kept = Path("rlm-traces", answer.rlm["trace"]).with_suffix(".files")
        assert (kept / "a.csv").exists()
    assert not kept.exists()
    assert len(traces()) == 1


async def test_files_of_chats_that_only_wait_give_way_and_those_at_work_do_not() -> None:
    def named(name: str, code: str) -> list[Any]:
        data = base64.b64encode(name.encode() * 300).decode()
        return [
            {"type": "file", "file": {"filename": f"{name}.txt", "file_data": data}},
            {"type": "text", "text": f"run: {code}"},
        ]

    async with served(serve__files="2000") as server:
        first = await say(server, named("first", "FINAL(1)"))
        waited = Path("rlm-traces", first.rlm["trace"]).with_suffix(".files")
        slow = asyncio.create_task(say(server, named("slow", "import time; time.sleep(600)")))
        await until(lambda: not waited.exists())
        with pytest.raises(openai.APIStatusError) as full:
            await say(server, named("third", "FINAL(3)"))
        assert full.value.status_code == 503
        with pytest.raises(openai.APIStatusError) as large:
            await say(server, named("largest", "FINAL(4)"))
        assert large.value.status_code == 413
        slow.cancel()


async def test_a_title_is_asked_of_the_sub_model_and_leaves_no_trace() -> None:
    asked = "### Task:\nGenerate a concise, 3-5 word title with an emoji.\n<chat_history>\nUSER: hi\n</chat_history>"
    async with served(ScriptedModels([], lambda _: '{"title": "A chat"}')) as server:
        answer = await say(server, asked)
    assert answer.choices[0].message.content == '{"title": "A chat"}'
    assert traces() == []


async def test_a_run_that_fails_is_an_error_of_the_client_library_in_a_stream_too() -> None:
    async with served(ScriptedModels([])) as server:
        with pytest.raises(openai.InternalServerError):
            await say(server, "Why?")
        with pytest.raises(openai.APIError):
            async for _ in await say(server, "Why?", stream=True):
                pass


async def test_other_models_lead_under_their_names_and_unknown_ones_are_not_found() -> None:
    models = ScriptedModels([], str, others={"fast": lambda _: repl("FINAL('fast')")})
    async with served(models, models__fast__model="scripted/fast") as server:
        assert (await say(server, "Who?", model="rlm/fast")).choices[0].message.content == "fast"
        with pytest.raises(openai.NotFoundError) as missing:
            await say(server, "Who?", model="gpt-4o")
    assert missing.value.code == "model_not_found"


class Priced(ChatTalk):
    """Each reply costs a dollar."""

    async def complete(self, *arguments: Any, **options: Any) -> Completion:
        from dataclasses import replace

        return replace(await super().complete(*arguments, **options), cost=1.0, usage=Usage(100, 10))


async def test_each_key_has_its_own_traces_kernels_and_limits(tmp_path: Path) -> None:
    keys = {"ann": {"key": "a" * 20, "cost": 1.5}, "bob": {"key": "b" * 20}}
    (file := tmp_path / "keys.json").write_text(json.dumps(keys))
    async with served(Priced(), serve__keys=file) as server:
        with pytest.raises(openai.AuthenticationError):
            await say(server, "run: FINAL(1)", key="c" * 20)
        first = await say(server, "run: mine = 1; FINAL(mine)", key="a" * 20)
        assert "-serve-ann-" in first.rlm["trace"]
        told = {"role": "assistant", "content": "1"}
        asked = ["run: mine = 1; FINAL(mine)", told, "run: FINAL('mine' in globals())"]
        theirs = await say(server, *asked, key="b" * 20)
        assert theirs.choices[0].message.content == "False"
        await say(server, "run: FINAL(2)", key="a" * 20)
        with pytest.raises(openai.RateLimitError) as spent:
            await say(server, "run: FINAL(3)", key="a" * 20)
    assert spent.value.code == "insufficient_quota"
    used = json.loads((tmp_path / "keys.json.used").read_text())
    assert used["ann"]["cost"] >= 1.5
    assert used["ann"]["tokens"] == 220


async def test_a_function_that_is_forced_is_called_with_the_answer() -> None:
    parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tools: Any = [{"type": "function", "function": {"name": "Count", "parameters": parameters}}]
    asked = {"tools": tools, "tool_choice": {"type": "function", "function": {"name": "Count"}}}
    async with served() as server:
        answer = await say(server, "run: FINAL({'n': 3})", **asked)
        stream = await say(server, "run: FINAL({'n': 3})", stream=True, **asked)
        pieces = [piece async for piece in stream]
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("Count", {"n": 3})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (None, "tool_calls")
    (told,) = [piece.choices[0].delta.tool_calls for piece in pieces if piece.choices[0].delta.tool_calls]
    assert (told[0].index, told[0].function.name, json.loads(told[0].function.arguments)) == (
        0,
        "Count",
        {"n": 3},
    )
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


async def test_code_counts_in_a_pasted_text_alone_and_not_in_the_question() -> None:
    log = "".join(f"2026-11-29 {n} {'failed' if n % 7 else 'ok'}\n" for n in range(300))
    question = "How many lines failed? run: FINAL([context.count('failed'), len(context.splitlines())])"
    async with served() as server:
        for pasted in (f"{log}\n{question}", f"{question}\n\n{log}", f"{question}\n```\n{log}```"):
            answer = await say(server, pasted)
            assert json.loads(answer.choices[0].message.content) == [log.count("failed"), 300]


async def test_questions_of_one_key_at_one_time_use_what_is_left_together_and_say_when_that_is_used_up(
    tmp_path: Path,
) -> None:
    keys = {"ann": {"key": "a" * 20, "cost": 5.0, "at_once": 3}}
    (file := tmp_path / "keys.json").write_text(json.dumps(keys))
    calls = "run: print(len([llm_query(str(n)) for n in range({})])); FINAL('done')"
    async with served(Priced(), serve__keys=file, serve__at_once=3) as server:
        dear, cheap = await asyncio.gather(
            say(server, calls.format(3), key="a" * 20), say(server, calls.format(0), key="a" * 20)
        )
        assert [one.choices[0].message.content for one in (dear, cheap)] == ["done", "done"], (
            "a question may use more than an equal share"
        )
        with pytest.raises(openai.RateLimitError):
            await say(server, "Generate a concise, 3-5 word title for this chat.", key="a" * 20)
    assert json.loads((tmp_path / "keys.json.used").read_text())["ann"]["cost"] == 5.0


async def test_a_question_whose_keys_money_ends_meanwhile_ends_as_it_is_and_says_why(tmp_path: Path) -> None:
    (file := tmp_path / "keys.json").write_text(json.dumps({"ann": {"key": "a" * 20, "cost": 3.0}}))
    async with served(Priced(), serve__keys=file, serve__at_once=3) as server:
        endless = "run: [llm_query(str(n)) for n in range(50)]; FINAL('done')"
        both = await asyncio.gather(*(say(server, endless, key="a" * 20) for _ in range(2)))
    assert {one.choices[0].finish_reason for one in both} == {"length"}
    assert all("The key ann's limit of cost is reached" in one.choices[0].message.content for one in both)
    assert json.loads((tmp_path / "keys.json.used").read_text())["ann"]["cost"] <= 4.0


async def test_who_waits_is_told_its_place_and_who_finds_no_place_comes_again_later() -> None:
    async with served(serve__at_once=1, serve__waiting=1) as server:
        slow = asyncio.create_task(say(server, "run: import time; time.sleep(3); FINAL('slow')"))
        await until(lambda: server.service.turns.taken == 1)
        stream = await say(server, "run: FINAL('next')", stream=True)
        with pytest.raises(openai.RateLimitError) as busy:
            await say(server, "run: FINAL('none')")
        assert int(busy.value.response.headers["retry-after"]) > 0
        pieces = [piece.choices[0].delta async for piece in stream]
        assert (await slow).choices[0].message.content == "slow"
    assert "number 1 in the queue" in "".join(getattr(one, "reasoning", None) or "" for one in pieces)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_run_and_its_container(
    mine: Callable[[], int], stream: bool
) -> None:
    async with served() as server:
        body = {"model": "rlm", "stream": stream, "messages": [user("run: import time; time.sleep(600)")]}
        async with httpx.AsyncClient(timeout=60) as http:
            asking = asyncio.create_task(http.post(f"{server.url}/chat/completions", json=body))
            await until(lambda: mine() == 1)
            asking.cancel()
        await until(lambda: mine() == 0 and server.service.turns.inside == 0, 75)


async def test_the_end_of_the_server_is_told_to_its_clients_and_leaves_nothing(
    mine: Callable[[], int],
) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        async with served() as server:
            body = {"model": "rlm", "messages": [user("run: import time; time.sleep(600)")]}
            asking = asyncio.create_task(http.post(f"{server.url}/chat/completions", json=body))
            await until(lambda: mine() == 1)
        response = await asking
    assert response.status_code == 503
    assert mine() == 0


async def test_files_of_the_machine_are_not_loaded_because_a_question_names_them(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the password")
    async with served(sandbox__allow=[str(tmp_path)]) as server:
        asked = f"In {secret}, what stands?\nrun: FINAL(open({str(secret)!r}).read())"
        answer = await say(server, f"{asked}; load_file({str(secret)!r})")
    assert "the password" not in str(answer)


async def test_without_keys_no_other_machine_is_answered() -> None:
    with pytest.raises(UsageError):
        async with served(serve__host="0.0.0.0"):
            pass


def test_the_command_serves_until_it_is_told_to_end(openai_env: Any, tmp_path: Path) -> None:
    openai_env.root = lambda _messages: repl("FINAL('served')")
    command = [sys.executable, "-m", "rlm_kernel", "serve", "-m", "openai/root", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2]
            with OpenAI(base_url=url, api_key="none", max_retries=0) as asking:
                messages: Any = [user("What?")]
                answer = asking.chat.completions.create(model="rlm", messages=messages)
            assert answer.choices[0].message.content == "served"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 130
        finally:
            process.kill()

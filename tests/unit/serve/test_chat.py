"""What becomes of the chats that programs send: question, conversation, context."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.serve.chat import Chat, compose, read_chat, without_earlier
from rlm_kernel.serve.parts import Attached, distinct, file_name
from rlm_kernel.serve.refusals import Refused

LONG = 4_000


def chat(*messages: Any, **more: Any) -> Chat:
    given = [{"role": "user", "content": one} if isinstance(one, str | list) else one for one in messages]
    return read_chat(json.dumps({"model": "rlm", "messages": given, **more}).encode())


def told(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_a_short_question_is_itself() -> None:
    composed = compose(chat("How many?"), LONG)
    assert composed.text == "How many?"
    assert composed.files == []


def test_a_file_that_was_pasted_is_context_and_the_question_at_either_end_is_none_of_it() -> None:
    pasted = "row\n" * 5_000
    for text in (f"{pasted}How many rows?", f"How many rows?\n{pasted}"):
        composed = compose(chat(text), LONG)
        assert "How many rows?" in composed.text
        assert len(composed.text) < 3_000
        assert [file.data.decode() for file in composed.files] == [pasted]


def test_a_chat_that_goes_on_is_not_told_again() -> None:
    composed = compose(chat("First?", told("One."), "Second?"), LONG, goes_on=True)
    assert composed.text == "Second?"
    whole = compose(chat("First?", told("One."), "Second?"), LONG).text
    assert "User: First?" in whole
    assert "Assistant: One." in whole


def test_the_question_comes_first_and_instructions_of_some_length_stay_in_view() -> None:
    instructions = "Be brief. " * 1_300
    composed = compose(
        chat({"role": "system", "content": instructions}, "Earlier?", told("Yes."), "Why?"), LONG
    )
    assert composed.text.startswith("Why?")
    assert instructions in composed.text
    assert composed.files == []
    longer = compose(chat({"role": "system", "content": instructions * 2}, "Why?"), LONG)
    assert [file.name for file in longer.files] == ["instructions.txt"]


def test_changed_instructions_are_told_in_a_chat_that_goes_on_and_others_are_not() -> None:
    asked = chat({"role": "developer", "content": "Be brief."}, "Why?")
    assert "Be brief." in compose(asked, LONG).text
    assert "Be brief." not in compose(asked, LONG, goes_on=True, instructed="Be brief.").text
    assert "Be brief." in compose(asked, LONG, goes_on=True, instructed="Be long.").text


def test_calls_of_tools_in_a_history_are_part_of_the_conversation() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = chat(
        "Look.",
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "name": "look", "content": "seen"},
        "And now?",
    )
    text = compose(asked, LONG).text
    assert "look" in text
    assert "Tool: seen" in text


@pytest.mark.parametrize(
    "content", ["What?", [{"type": "text", "text": "What?"}], {"type": "text", "text": "What?"}, ["What?"]]
)
def test_content_is_read_in_each_form_that_programs_send(content: Any) -> None:
    assert chat({"role": "user", "content": content, "name": "ann"}).question.text == "What?"


@pytest.mark.parametrize("kind", ["thinking", "reasoning", "redacted_thinking"])
def test_thoughts_that_programs_send_back_are_no_part_of_what_was_said(kind: str) -> None:
    answer = [{"type": kind, kind: "Two and two …"}, {"type": "text", "text": "4"}]
    assert chat("2+2?", told(answer), "Why?").known_as("a") == chat("2+2?", told("4"), "Why?").known_as("a")


def test_an_instruction_behind_an_answer_is_what_is_asked() -> None:
    for role in ("system", "developer"):
        asked = chat("How many?", told("Two."), {"role": role, "content": "Sum this up."})
        assert (asked.question.text, asked.instructions, len(asked.before)) == ("Sum this up.", "", 2)
    asked = chat("How many?", {"role": "system", "content": "In German."})
    assert (asked.question.text, asked.instructions) == ("How many?", "In German.")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "tool_use", "name": "look"},
    ],
)
def test_a_part_that_was_refused_does_not_end_the_chat(part: dict[str, Any]) -> None:
    content = [part, {"type": "text", "text": "What is it?"}]
    with pytest.raises(Refused):
        chat(content)
    asked = chat(content, told("An error."), "Then tell me this.")
    assert asked.question.text == "Then tell me this."
    assert "could not be read" in asked.before[0].text


def test_files_of_earlier_messages_can_be_left_out_and_those_asked_about_not() -> None:
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "YQ=="}}
    asked = chat([file, {"type": "text", "text": "One?"}], told("No."), "Two?")
    (attached,) = asked.before[0].files
    less = without_earlier(asked, {attached.digest})
    assert less is not None
    assert (less.before[0].files, "a.pdf could not be read" in less.before[0].text) == ([], True)
    assert without_earlier(asked, {"another"}) is None
    assert without_earlier(chat([file]), {attached.digest}) is None


def test_a_schema_beside_json_object_counts() -> None:
    schema = {"type": "object", "required": ["n"]}
    for beside, wanted in (({"schema": schema}, schema), ({}, {"type": "object"})):
        assert chat("?", response_format={"type": "json_object", **beside}).schema == wanted


def test_a_chat_is_known_again_by_what_was_said() -> None:
    known = chat("First?").known_as("ann", "One.")
    for answer in ("One.", " One.\n", "<think>so\nso</think>\nOne."):
        assert chat("First?", told(answer), "Second?").known_as("ann") == known
    for other in (
        chat("First?", told("Two."), "Second?").known_as("ann"),
        chat("First!", told("One."), "Second?").known_as("ann"),
        chat("First?", told("One."), "Second?").known_as("bob"),
        chat("First?", told("One."), "Second?", user="eve").known_as("ann"),
        chat("First?", told("One."), "Second?", model="rlm/fast").known_as("ann"),
    ):
        assert other != known


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("### Task:\nGenerate a concise, 3-5 word title with an emoji", True),
        ("### Task:\nGenerate 1-3 broad tags categorizing the main themes", True),
        ("### Task:\nSuggest 3-5 relevant follow-up questions", True),
        ("Provide a concise, 5-word-or-less title for the conversation", True),
        ("### Task:\nRespond to the user query using the provided context", False),
        ("Which title does the third chapter have?", False),
        ("Write a short story about a title fight.\n" + "word " * 1_000, False),
        ("Please write a five word title summarizing our conversation, without quotes.", True),
        ("Given this, please reply with a title for the chat that is 3-4 words.\n\nA reply.", True),
        ("From the chat history, give this conversation a name.\nKeep it short.\n\nuser: hi", True),
        ("Suggest me a title for this chat:\n\nuser: hi\n\nTitle:", True),
        ("Extract a concise chat title from these lines", True),
        ("Provide a concise description of this session in 4 words or less.", True),
        ("List the name and title of everyone in this conversation.", False),
        ("Give each conversation in the file a title, and count them.", False),
        ("Give me the title of this conversation's main document.", False),
        ("Extract every chat title from chats.json.", False),
        ("Make a table with session title, length and count.", False),
        ("Summarize this discussion in three sentences, and name the decisions.", False),
        ("How many words does the title of this thread have?", False),
        ("Write a short summary with a title and three points.", False),
        ("Write a short function that returns the title of a page.", False),
        ("Create a short list of tags for each product.", False),
        ("Give a short answer: what is the title of part 3?", False),
        ("Extract a session title from each row.", False),
        ("Name the topic of the discussion.", False),
        ("### Task\nCreate a table of sales by month", False),
        ("根据文件生成一份报告，包含标题和目录", False),
    ],
)
def test_titles_and_tags_that_programs_want_are_told_from_questions(text: str, side: bool) -> None:
    assert chat(text).side_request(LONG) is side


@pytest.mark.parametrize(
    ("instructions", "side"),
    [
        ("You chat well. You summarize the user's conversation into a title within 10 words.", True),
        ("You are a title generator. You output ONLY a title.\n" + "- Rules.\n" * 300, True),
        ("You are a chat thread titling assistant.\nGoal: a very short title.", True),
        ("总结给出的会话，将其总结为 10 字内标题。", True),
        ("Titles are in italics. Talk about the conversation of the user.", False),
        ("You write code. Generate a title for the branch, then answer. Keep the chat short.", False),
        ("You are an expert in conversation analysis.", False),
        ("Be kind. When asked, generate a title for this conversation.", False),
        ("You are an assistant. Always give a brief title before your answer.", False),
        ("Give short answers, and name the title of the document.", False),
        ("You help.\n" * 100 + "After your answer, suggest a title for the conversation.", False),
    ],
)
def test_instructions_that_are_all_about_titles_are_told_from_others(instructions: str, side: bool) -> None:
    asked = chat({"role": "system", "content": instructions}, "How many errors has the log?")
    assert asked.side_request(LONG) is side


def test_a_title_of_a_long_chat_is_no_question_in_it() -> None:
    asked = chat("word " * 10_000, told("Two."), "Write a title for this conversation.")
    assert asked.side_request(LONG)


def test_a_title_that_is_wanted_for_a_file_of_the_chat_is_a_question() -> None:
    file = {"type": "file", "file": {"filename": "a.txt", "file_data": "YQ=="}}
    attached = [file, {"type": "text", "text": "What is it?"}]
    assert not chat(attached, told("A report."), "Write a short title for it.").side_request(LONG)
    assert chat(attached, told("A report."), "Write a short title for this chat.").side_request(LONG)
    assert chat("What is it?", told("A report."), "Write a short title for it.").side_request(LONG)


@pytest.mark.parametrize("start", ["", "#", "\n" * 1_000_000 + "#"])
def test_a_message_of_spaces_is_told_from_a_title_at_once(start: str) -> None:
    message = {"role": "user", "content": f"{start}{' ' * 1_000_000}x"}
    assert not read_chat(json.dumps({"messages": [message]}).encode()).side_request(4_000)


def test_the_same_file_again_is_one_and_others_of_its_name_have_numbers() -> None:
    files = [Attached("a.csv", b"1"), Attached("A.csv", b"2"), Attached("b.csv", b"1")]
    assert [file.name for file in distinct(files)] == ["a.csv", "A-2.csv"]


def test_halves_of_characters_are_replaced() -> None:
    assert read_chat(b'{"messages":[{"role":"user","content":"a\\ud83d"}]}').question.text == "a\ufffd"


def test_base64_of_each_kind_is_a_file() -> None:
    data = b"\xfb\xff\xfe text"
    for given_as in (
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        "data:application/pdf;base64," + base64.b64encode(data).decode() + "\n",
    ):
        part = {"type": "file", "file": {"filename": "x", "file_data": given_as}}
        assert chat([part]).question.files[0].data == data


@given(st.text(max_size=300), st.sampled_from(["", ".txt"]))
def test_any_name_is_one_of_a_file_in_its_folder(name: str, ending: str) -> None:
    made = file_name(name, ending)
    assert made
    assert not made.startswith((".", "-"))
    assert not set(made) & set('/\\\0\n\r:"')
    assert len(made.encode()) <= 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["role", "content", "type", "text", "file", "image_url", "url"]), inner
            )
        ),
        max_leaves=20,
    )
)
def test_any_messages_are_read_or_refused(messages: Any) -> None:
    body = json.dumps({"messages": messages}).encode()
    with contextlib.suppress(Refused):
        assert compose(read_chat(body), LONG).text


@pytest.mark.parametrize(
    ("given_as", "most"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8, "max_tokens": 7}, 8),
        ({"max_completion_tokens": None, "max_tokens": 7}, 7),
    ],
)
def test_the_most_tokens_of_an_answer_are_read_under_both_names(
    given_as: dict[str, Any], most: int | None
) -> None:
    body = {"messages": [{"role": "user", "content": "Why?"}], **given_as}
    assert read_chat(json.dumps(body).encode()).most == most


@pytest.mark.parametrize("value", [0, -2, 1.5, "100", True, [1]])
def test_a_number_of_tokens_that_is_none_is_refused(value: Any) -> None:
    body = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": value}
    with pytest.raises(Refused) as refused:
        read_chat(json.dumps(body).encode())
    assert (refused.value.status, refused.value.param) == (400, "max_tokens")


def function(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.mark.parametrize(
    ("tools", "choice", "call"),
    [
        ([function("Person", type="object")], "required", "Person"),
        ([function("a"), function("b")], {"type": "function", "function": {"name": "b"}}, "b"),
        ([function("a")], "auto", ""),
        ([function("a")], None, ""),
        ([function("a")], "none", ""),
        ([function("a")], "any", "a"),
        ([function("a")], {"type": "auto"}, ""),
        ([function("a")], {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, ""),
        ([function("a")], {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}, "a"),
    ],
)
def test_a_function_that_is_forced_is_the_form_of_the_answer(tools: Any, choice: Any, call: str) -> None:
    asked = chat("Who?", tools=tools, tool_choice=choice)
    assert asked.call == call
    assert (asked.schema is not None) is bool(call)


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([function("a"), function("b")], "required"),
        ([function("a")], {"type": "function", "function": {"name": "b"}}),
        ([function("a")], {"type": "allowed_tools"}),
        ([function("a")], "always"),
        ([], "required"),
        (None, "required"),
        ([1, {"function": 2}, {"function": {"name": 3}}], "required"),
        ([{"function": {"name": "a", "parameters": 3}}], "required"),
        ([function("a")], 7),
    ],
)
def test_what_forces_no_single_function_is_refused(tools: Any, choice: Any) -> None:
    with pytest.raises(Refused) as refused:
        chat("Who?", tools=tools, tool_choice=choice)
    assert refused.value.param in ("tool_choice", "tools")

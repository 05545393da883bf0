"""Long messages as people and programs send them: what is asked is told from what was pasted."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.serve.asking import is_label
from rlm_kernel.serve.chat import Composed, compose, read_chat
from rlm_kernel.serve.pasted import outside_of, pasted

LONG = 4_000
LOG = "".join(
    f"2026-11-29T10:{n // 60:02}:{n % 60:02} {'ERROR failed' if n % 7 == 0 else 'INFO ok'} GET /a?q={n}\n"
    for n in range(600)
)
PROSE = "\n\n".join(
    f'Chapter {n}\n\n"Who are you?" said the caterpillar of the garden number {n}.\nNobody answered it, and it '
    "went away to smoke. What a day it was!"
    for n in range(60)
)
CODE = "".join(
    f'def function_{n}(x: int) -> int:\n    """Return it."""\n    return x + {n}\n\n\n' for n in range(100)
)
TABLE = "id,city,people\n" + "".join(f"{n},Bonn,{n % 9}\n" for n in range(800))
CHAT = "".join(f"[10:{n % 60:02}] {'Ann' if n % 2 else 'Bob'}: are you coming at {n}?\n" for n in range(300))
TALK = (
    "".join(f"And were you there at {n}?\n\nI was, as I told you before.\n\n" for n in range(99)) + "Why so?"
)
README = "# How to run it\n\n" + "## Install\n\nType `make`.\n\n```\nmake\n```\n\n" * 120
MAIL = "".join(f"> Dear all, this is line {n} of the mail.\n" for n in range(200))


def composed(content: Any, **more: Any) -> Composed:
    messages = [{"role": "user", "content": content}]
    return compose(read_chat(json.dumps({"messages": messages, **more}).encode()), LONG)


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


RAG = (
    "### Task:\nRespond to the user query using the provided context, incorporating inline citations.\n\n"
    "### Guidelines:\n- If you don't know the answer, clearly state that.\n\n<context>\n{}</context>\n\n"
    "<user_query>\nHow many requests failed?\n</user_query>\n"
)
MESSAGES: dict[str, tuple[Any, str, list[str]]] = {
    "a log, then a question": (f"{LOG}\nHow many requests failed?", "How many requests failed?", [LOG]),
    "a question, then a log": (f"How many requests failed?\n\n{LOG}", "How many requests failed?", [LOG]),
    "no blank line before the question": (f"{LOG}How many failed?", "How many failed?", [LOG]),
    "no blank line behind the question": (f"How many failed in this log?\n{LOG}", "How many failed", [LOG]),
    "no question mark": (f"{LOG}\n\ncount the failed requests pls", "count the failed requests pls", [LOG]),
    "two sentences of a request": (
        f"{LOG}\nCount the failed requests.\nAnswer with the number alone.\n",
        "Count the failed requests.\nAnswer with the number alone.",
        [LOG],
    ),
    "a greeting and an introduction": (
        f"Hi there,\n\nI have a log of last night. How many requests failed?\n\nHere it is:\n\n{LOG}",
        "Hi there,\n\nI have a log of last night. How many requests failed?\n\nHere it is:",
        [LOG],
    ),
    "several questions with numbers": (
        f"{LOG}\nAnswer these questions:\n\n1. How many failed?\n2. Which was the first?\n\nThanks!",
        "Answer these questions:\n\n1. How many failed?\n2. Which was the first?\n\nThanks!",
        [LOG],
    ),
    "a fenced block": (
        f"How many failed?\n```log\n{LOG}```\nOnly the number, please.",
        "Only the number, please.",
        [LOG],
    ),
    "two fenced blocks": (
        f"What differs?\n~~~\n{LOG}~~~\nand\n~~~\n{TABLE}~~~\n",
        "What differs?",
        [LOG, TABLE],
    ),
    "documents in tags, the question last": (
        f'<documents>\n<document index="1">\n<source>a.log</source>\n<document_content>\n{LOG}</document_content>\n'
        f"</document>\n</documents>\n\nHow many failed?",
        "How many failed?",
        [LOG],
    ),
    "a chat program's template of retrieved passages": (RAG.format(LOG), "How many requests failed?", [LOG]),
    "a library's template of retrieved passages": (
        "Use the following pieces of context to answer the question at the end. If you don't know, say so.\n\n"
        f"{PROSE}\n\nQuestion: Who smokes?\nHelpful Answer:",
        "Question: Who smokes?\nHelpful Answer:",
        [f"{PROSE}\n"],
    ),
    "labels of context and question": (
        f"Context:\n{LOG}\n\nQuestion: How many?",
        "Question: How many?",
        [LOG],
    ),
    "quotes around a text": (f'Summarize this text: """{PROSE}"""', "Summarize this text:", [PROSE]),
    "lines of dashes around a text": (
        f"Summarize the text between the lines.\n---\n{PROSE}\n---\n",
        "Summarize the text between the lines.",
        [f"{PROSE}\n"],
    ),
    "marks of a template around a context": (
        f"You answer by the context.\n--- CONTEXT START ---\n{LOG}--- CONTEXT END ---\nUSER QUERY: How many?",
        "USER QUERY: How many?",
        [LOG],
    ),
    "a quoted mail": (
        f"Can you answer this mail for me?\n\n{MAIL}",
        "Can you answer this mail for me?",
        [MAIL],
    ),
    "parts of the content": (
        [text_part(PROSE), text_part(LOG), text_part("What have these in common?")],
        "What have these in common?",
        [PROSE, LOG],
    ),
    "a file that a library puts into a part of its own": (
        [
            text_part("How many people are there?"),
            text_part(f'-----BEGIN FILE id="a1b2" type="text/csv"-----\n{TABLE}-----END FILE id="a1b2"-----'),
        ],
        "How many people are there?",
        [TABLE],
    ),
    "code": (f"Find the bug in this code:\n\n{CODE}", "Find the bug in this code:", [CODE.rstrip() + "\n"]),
    "a table, in German": (f"{TABLE}\nWie viele Menschen sind es?", "Wie viele Menschen sind es?", [TABLE]),
    "a chat, in Chinese": (f"请总结这段对话：\n\n{CHAT}", "请总结这段对话", [CHAT]),
    "a chat with questions in it": (f"Summarize this chat:\n{CHAT}", "Summarize this chat:", [CHAT]),
    "a readme": (
        f"{README}\nPlease translate this to French.",
        "Please translate this to French.",
        [README[:-1]],
    ),
    "carriage returns": (
        f"{LOG}\nHow many failed?".replace("\n", "\r\n"),
        "How many failed?",
        [LOG.replace("\n", "\r\n")],
    ),
}


TEMPLATES = [
    "Context:\n{}\n---\nNow here is the question you need to answer.\n\nQuestion: How many failed?\n",
    "You have the following information:\nDOCUMENT:\n{}\n--\nQUESTION:\nHow many failed?\n--\nINSTRUCTIONS:\n"
    "Answer by the DOCUMENT alone.\n",
    "Use the following context, inside <context></context> XML tags.\n\t<context>\n{}\n\t</context>\n\n\tWhen you "
    "answer:\n\t- If you don't know, say so.\n\tQuery: How many failed?",
    "You answer by the context alone.\n\nCONTEXT:\n\n{}\n\nQuestion: How many failed?\n\nAnswer:\n",
    "\n[SYSTEM INSTRUCTION]\nYou answer the query by the context.\n--- CONTEXT START ---\n\n{}\n--- CONTEXT END "
    "---\nINSTRUCTIONS:\n1. Use all of it.\nUSER QUERY: How many failed?\n",
    "Context information is below.\n---------------------\n{}\n---------------------\nGiven this and no prior "
    "knowledge, answer the query.\nQuery: How many failed?\nAnswer: ",
    "Use these pieces of context to answer the question. \nIf you don't know, say so.\n----------------\n{}\n\nHow "
    "many failed?",
    'How many failed?\n\n<attachments>\n<attachment name="a.log">\n{}\n</attachment>\n</attachments>',
    "Answer the question by the relevant context.\nContext:\n    [CONTEXT 0]:\n{}\n[END CONTEXT 0]\n\nHow many "
    "failed?",
    "## Log\n{}\n\n## Task\nHow many failed?",
    "**Question:** How many failed?\n\n**Log:**\n{}",
    "<question>How many failed?</question>\n\n{}",
    "How many failed?\n\n{}\n\nHow many failed?",
    "You are an engineer. Tell me from the log below how many failed.\n\n{}",
    "Hallo,\n\nkannst du mir sagen, wie viele fehlschlugen? Danke! How many failed?\n\n{}",
    "{}\n\nsee https://example.org/a?b=c and tell me how many failed",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("text", [LOG, CODE], ids=["log", "code"])
def test_templates_of_other_programs_are_told_from_the_text_in_them(template: str, text: str) -> None:
    found = composed(template.format(text))
    assert [file.data.decode().strip() for file in found.files] == [text.strip()]
    assert "how many failed" in found.text.lower()
    assert "leave it out when you count" not in found.text


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_asked_is_told_from_what_was_pasted(name: str) -> None:
    message, asked, texts = MESSAGES[name]
    found = composed(message)
    assert asked in found.text
    assert len(found.text) < LONG + 1_000
    if texts:
        assert [file.data.decode() for file in found.files] == texts
        assert "leave it out when you count" not in found.text


@pytest.mark.parametrize(
    "message",
    [
        f"Summarize this:\n{TALK}",  # the last line of the talk is a question, too
        f"{PROSE}\n\nWhat became of the gardener?\n\n{PROSE}",
        LOG,
        CODE,
        LOG.replace("\n", " ") + "How many failed?",
        "How many failed? " + LOG.replace("\n", " "),
        f"Who was it?\n\n{PROSE}\n\nWhat a day was it?",
    ],
)
def test_where_it_is_not_certain_the_whole_message_is_the_file_and_that_is_said(message: str) -> None:
    found = composed(message)
    assert [file.data.decode() for file in found.files] == [message]
    assert "at its beginning or its end" in found.text
    assert "leave it out when you count" in found.text
    assert message[:500] in found.text
    assert message[-500:] in found.text


def test_the_same_message_earlier_in_a_chat_is_the_same_file() -> None:
    asked = f"{LOG}\nHow many requests failed?"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "86"}]
    later = read_chat(json.dumps({"messages": [*messages, {"role": "user", "content": "Sure?"}]}).encode())
    again = compose(later, LONG)
    assert [file.data for file in again.files] == [file.data for file in composed(asked).files]
    assert "How many requests failed?" in again.text


BITS = [
    "How many?", "Count them.", "Question: who?", "```", "~~~~", "---", '"""', "> quoted", "<document>",
    "</document>", "<context>", "", "", "2026 a line of a log", "Some words of a person.", "Thanks!", "Ann: so?",
    "\r", "\t", "x = 1;", "Here it is:", "\ud83d".encode("utf-8", "replace").decode(), "总结", "word " * 50,
]  # fmt: skip


@given(
    st.lists(st.sampled_from(BITS) | st.text(max_size=30), max_size=40),
    st.integers(0, 300),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_no_character_is_lost_whatever_the_message(bits: list[str], long: int, ends: str) -> None:
    text = ends.join(bits)
    spans = pasted(text, bits if ends == "\n" else [text], long)
    outside = outside_of(text, spans)
    inside = [text[span.start : span.end] for span in spans]
    assert "".join(itertools.chain(*itertools.zip_longest(outside, inside, fillvalue=""))) == text
    assert not spans or sum(map(len, outside)) <= long
    assert all(len(one) > long // 2 for one in inside)


@pytest.mark.parametrize(
    "bit",
    ["<document ", "<document>", "</document>", "```\n", "~~~ a\n", '"""', "---\n", "-", "--- a ---\n", "> \n", "\n", " ", "?", "? ",
     "a? ", "- - ", "please ", "count ", "a: ", "Question:\n", "\r\n\r\n", "(", "1. ", "the the ", "你"],
)  # fmt: skip
def test_a_message_that_was_made_to_take_long_is_read(bit: str) -> None:
    text = bit * (300_000 // len(bit))  # by time that grows with its square these would be minutes
    for message in (text, f"{text}\nHow many?", f"<document>{text}", f"How many?\n{text}"):
        pasted(message, [message], LONG)


@pytest.mark.parametrize(
    "line", ["~" * 60_000 + "`", "#" + " " * 1_900 + "x", "question" + " " * 1_900 + "x"]
)
def test_a_line_that_was_made_to_be_tried_in_many_ways_is_read(line: str) -> None:
    asked = ["How many?", *[line] * 2]
    message = f"{line}\n" * (200_000 // len(line))
    pasted(message, [message], LONG)
    pasted("\n".join([*asked, LOG]), [*asked, LOG], LONG)
    assert not is_label("A" + " " * 3_000_000 + "a")

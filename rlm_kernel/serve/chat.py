"""A request of a chat program, read: what is asked, what was said before, and what of it is context."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlm_kernel import bounded
from rlm_kernel.serve.parts import Attached, clean, content_of, distinct
from rlm_kernel.serve.pasted import outside_of, pasted
from rlm_kernel.serve.refusals import bad
from rlm_kernel.serve.titles import is_for_the_program

MAX_MESSAGES = 10_000
_INSTRUCTING = ("system", "developer")
_ROLES = {
    **dict.fromkeys(_INSTRUCTING, "Instructions"),
    "user": "User",
    "assistant": "Assistant",
    "tool": "Tool",
    "function": "Tool",
}
_THOUGHTS = re.compile(
    r"\A\s*(?:<think(?:ing)?>.*?</think(?:ing)?>|<details[^>]{0,200}type=\"reasoning\".*?</details>)",
    re.DOTALL,
)
_SHOWN = 4
"""A long message shows a part of so many of what is not long, at its beginning and at its end."""
_TALK = 4
"""Earlier messages, and instructions, stand in the question as long as they are not so many times long."""
_SOMEWHERE = (
    "(A long message. What it asks stands in it, most likely at its beginning or its end, and is in its file "
    "{name}, too: leave it out when you count or search there.)"
)


@dataclass(frozen=True)
class Said:
    """A message. `text` without what its files hold; the `parts` of its content, with line ends between,
    make it.
    """

    role: str
    text: str
    files: Sequence[Attached] = ()
    parts: Sequence[str] = ()

    def digest(self) -> str:
        """The same for what is said in the same words, whatever spaces and thoughts a program adds."""
        text = _THOUGHTS.sub("", self.text) if self.role == "assistant" else self.text
        whole = [self.role, " ".join(text.split()), *(file.digest for file in self.files)]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


@dataclass(frozen=True)
class Chat:
    """What a request asks. `before` and `after` are messages around the question, without instructions.

    `call`: the function that the answer is to call, whose arguments fit the `schema`; "" for none.
    """

    model: str
    question: Said
    instructions: str = ""
    before: Sequence[Said] = ()
    after: Sequence[Said] = ()
    schema: Mapping[str, Any] | None = None
    call: str = ""
    stop: Sequence[str] = ()
    stream: bool = False
    usage: bool = False
    user: str = ""
    most: int | None = None

    def known_as(self, key: str, answer: str | None = None) -> str:
        """What tells the chat apart: all that was said before the question, or up to its `answer`."""
        said = list(self.before)
        if answer is not None:
            said += [self.question, Said("assistant", answer)]
        whole = [key, self.user, self.model, *(one.digest() for one in said)]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()

    def side_request(self, long: int) -> bool:
        """Whether a chat program asks for a title, tags or the like, which is no question of the user's."""
        if self.question.files or self.schema is not None:
            return False
        before = sum(len(one.text) for one in self.before)
        files = any(one.files for one in self.before)
        return is_for_the_program(self.question.text, self.instructions, before, long, files=files)

    @property
    def is_aside(self) -> bool:
        """Whether a program asks about the chat, as to sum it up, where the user's next question comes."""
        return self.question.role != "user" and any(one.role == "user" for one in self.before)


@dataclass(frozen=True)
class Composed:
    """A question as an RLM is asked it, and the files of its context."""

    text: str
    files: Sequence[Attached] = ()
    instructions: str = field(default="", repr=False)


def compose(chat: Chat, long: int, *, goes_on: bool = False, instructed: str = "") -> Composed:
    """Short messages are the question, files and what was pasted into long ones its context.

    `goes_on`: the kernel has heard what was said before, and these instructions.
    """
    files: list[Attached] = []

    def shortened(said: Said, name: str, most: int = long) -> str:
        files.extend(said.files)
        if len(said.text) <= most:
            return said.text
        text, made = _parted(said, name, long) if said.role == "user" else _kept(said.text, name, long)
        files.extend(made)
        return text

    asked = shortened(chat.question, f"message-{len(chat.before) + 1}")
    parts = [asked or "Say what the attached files are about."]
    earlier = [] if goes_on else [*chat.before, *chat.after]
    lines = [
        f"{_ROLES[one.role]}: {shortened(one, f'message-{number}')}" for number, one in enumerate(earlier, 1)
    ]
    if talk := "\n\n".join(lines):
        if len(talk) > _TALK * long:
            talk, made = _kept(talk, "conversation", long)
            files += made
        parts.append(f"What was said before this question:\n{talk}")
    if chat.instructions and not (goes_on and chat.instructions == instructed):
        told = shortened(Said("system", chat.instructions), "instructions", _TALK * long)
        parts.append(f"Instructions of the chat program:\n{told}")
    found = distinct(files)
    if found:
        names = ", ".join(file.name for file in found[:50])
        more = f" and {len(found) - 50} more" if len(found) > 50 else ""
        parts.insert(1, f"(Files of this chat: {names}{more}.)")
    return Composed("\n\n".join(parts), found, chat.instructions)


def without_earlier(chat: Chat, lost: Collection[str]) -> Chat | None:
    """The chat without files of earlier messages, by their digests; None where it has none of them. What a
    user asks about now is not left out.
    """
    lost = set(lost) - {file.digest for file in chat.question.files}

    def left(one: Said) -> Said:
        names = [file.name for file in one.files if file.digest in lost]
        notes = [f"[The file {name} could not be read, and is not there.]" for name in names]
        files = [file for file in one.files if file.digest not in lost]
        return replace(one, text="\n".join(filter(None, [one.text, *notes])), files=files)

    if not any(file.digest in lost for one in (*chat.before, *chat.after) for file in one.files):
        return None
    return replace(chat, before=list(map(left, chat.before)), after=list(map(left, chat.after)))


def _kept(text: str, name: str, long: int) -> tuple[str, list[Attached]]:
    """A long text as a file, and what is shown of it."""
    file = Attached(f"{name}.txt", text.encode())
    about = f"{len(text):,} characters, all of which are in the file {file.name}"
    return _ends(text, about, long // _SHOWN), [file]


def _parted(said: Said, name: str, long: int) -> tuple[str, list[Attached]]:
    """What a long message of the user's asks, and as files what was pasted into it. No character is lost."""
    spans = pasted(said.text, said.parts, long)
    if not spans:
        text, made = _kept(said.text, name, long)
        return f"{_SOMEWHERE.format(name=made[0].name)}\n{text}", made
    asked, files = outside_of(said.text, spans), list[Attached]()
    pieces = [asked[0].strip()]
    for number, (span, behind) in enumerate(zip(spans, asked[1:], strict=True), 1):
        numbered = f"{name}-{number}" if len(spans) > 1 else name
        text, made = _kept(said.text[span.start : span.end], numbered, long // len(spans))
        files += made
        pieces += [text, behind.strip()]
    return "\n\n".join(piece for piece in pieces if piece), files


def _ends(text: str, about: str, shown: int) -> str:
    parts = f"[{about}; it begins:]", text[:shown], "[…; it ends:]", text[-shown:], "[End of what is shown.]"
    return "\n".join(parts)


def read_chat(body: bytes | bytearray) -> Chat:
    """The chat of a request's body. Blocking, if it is large. Raises Refused."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise bad("The body is not UTF-8.") from None
    try:
        given = bounded.parse(body)
    except bounded.TooMuch as error:
        raise bad(f"The body cannot be read: {error}.") from None
    except ValueError:
        raise bad("The body is not JSON.") from None
    if not isinstance(given, dict):
        raise bad("The body must be a JSON object.")
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages must be a list with at least one message.", "messages")
    if len(messages) > MAX_MESSAGES:
        raise bad(f"A chat can have at most {MAX_MESSAGES:,} messages.", "messages")
    asking = [
        number for number, one in enumerate(messages) if isinstance(one, dict) and one.get("role") == "user"
    ]
    last = asking[-1] if asking else 0
    said = [_said(message, number, earlier=number < last) for number, message in enumerate(messages)]
    _refuse_what_is_not_done(given)
    options = given.get("stream_options")
    call, schema = _forced(given)
    return Chat(
        model=_text(given, "model") or "rlm",
        **_around_question(said),
        schema=schema or _schema(given.get("response_format")),
        call=call,
        stop=_stops(given.get("stop")),
        stream=_flag(given, "stream"),
        usage=isinstance(options, dict) and options.get("include_usage") is True,
        user=_text(given, "user"),
        most=_most(given),
    )


def _around_question(said: Sequence[Said]) -> dict[str, Any]:
    """The last message of the user is the question; without one, the last that says anything. So it is where
    that is an instruction behind an answer, as to sum up the chat: the user's question was answered.
    """
    saying = [number for number, one in enumerate(said) if one.text.strip() or one.files]
    if not saying:
        raise bad("All messages are empty.", "messages")
    asking = [number for number in saying if said[number].role == "user"] or saying
    last = [said[number].role for number in saying[-2:]]
    told_last = len(last) == 2 and last[0] == "assistant" and last[1] in _INSTRUCTING
    at = saying[-1] if told_last else asking[-1]
    told = [one for number, one in enumerate(said) if one.role in _INSTRUCTING and number != at]
    others = [
        [one for one in some if one.role not in _INSTRUCTING and (one.text or one.files)]
        for some in (said[:at], said[at + 1 :])
    ]
    return {
        "question": said[at],
        "instructions": "\n\n".join(one.text for one in told if one.text),
        "before": others[0],
        "after": others[1],
    }


def _said(message: Any, number: int, *, earlier: bool) -> Said:
    where = f"messages[{number}]"
    if not isinstance(message, dict):
        raise bad("A message must be an object with a role and a content.", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad(f"A role must be one of {', '.join(_ROLES)}.", f"{where}.role")
    parts, files = content_of(message.get("content"), f"{where}.content", earlier=earlier)
    text = "\n".join(parts)
    calls = message.get("tool_calls")
    for call in calls[:100] if isinstance(calls, list) else ():
        text += f"\n[calls the tool {clean(json.dumps(call, ensure_ascii=False))[:1_000]}]"
    return Said(role, text, tuple(files), parts)


def _refuse_what_is_not_done(given: Mapping[str, Any]) -> None:
    """What would change the answer, and cannot be done, is refused; docs/serve.md has the table."""
    if given.get("n") not in (None, 1):
        raise bad("There is only one answer to a question: n must be 1.", "n")
    if given.get("logprobs") or given.get("top_logprobs"):
        raise bad("This server has no log probabilities.", "logprobs")
    if given.get("function_call") not in (None, "auto", "none"):
        raise bad("An RLM calls no functions of its clients.", "function_call")
    kinds = given.get("modalities")
    if given.get("audio") is not None or (isinstance(kinds, list) and kinds != ["text"]):
        raise bad("This server answers only with text.", "modalities")


def _forced(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """The name of the only function that may be called, and the schema of its arguments; "" where an answer
    in words will do.

    So libraries ask for data: the answer then is that call. Raises Refused for a choice among several.
    """
    choice, tools = _chosen(given.get("tool_choice")), given.get("tools")
    if choice in (None, "auto", "none"):
        return "", None
    listed = (
        [one.get("function") for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []
    )
    functions = {
        one["name"]: one for one in listed if isinstance(one, dict) and isinstance(one.get("name"), str)
    }
    wanted = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(wanted, dict):
        functions = {name: one for name, one in functions.items() if name == wanted.get("name")}
    if len(functions) != 1 or not (choice == "required" or isinstance(wanted, dict)):
        raise bad(
            "An RLM calls no tools of its clients. tool_choice must be auto or none, or force one function "
            "of tools, whose arguments are then the answer.",
            "tool_choice",
        )
    ((name, function),) = functions.items()
    schema = function.get("parameters") or {"type": "object"}
    if not isinstance(schema, dict) or not bounded.shallow(schema):
        raise bad("The parameters of the function are not a JSON schema, or are nested too deep.", "tools")
    return clean(name)[:200], schema


def _chosen(choice: Any) -> Any:
    """A tool_choice in its plainest form: programs write the same in several."""
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools")
        kind = allowed.get("mode") if isinstance(allowed, dict) else kind
    return "required" if kind == "any" else kind if kind in ("auto", "none", "required") else choice


def _schema(given: Any) -> Mapping[str, Any] | None:
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None
    inner = given.get("json_schema") if kind == "json_schema" else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if kind == "json_object":  # clients of llama.cpp give it a schema
        schema = given.get("schema") or {"type": "object"}
    if not isinstance(schema, dict):
        raise bad(
            "response_format must be text, json_object, or json_schema with a schema.", "response_format"
        )
    if not bounded.shallow(schema):
        raise bad("The schema is nested too deep.", "response_format")
    return schema


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or len(stops) > 16 or not all(isinstance(one, str) for one in stops):
        raise bad("stop must be a text, or a list of at most 16 texts.", "stop")
    return tuple(one for one in stops if one)


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if not isinstance(value, bool | None):
        raise bad(f"{name} must be true or false.", name)
    return bool(value)


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str | None):
        raise bad(f"{name} must be a text.", name)
    return clean(value or "")[:500]


def _most(given: Mapping[str, Any]) -> int | None:
    """Tokens of the answer; programs say -1 for no limit."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = given.get(name)
        if value is None or value == -1:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise bad(f"{name} must be a whole number, 1 or more.", name)
        return value
    return None

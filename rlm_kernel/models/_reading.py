"""A provider's reply, read by the fields that are needed and tolerant of all others. Both roads end here.

What a chat completion looks like is agreed on in name alone: texts come as parts, thoughts under five names,
errors inside a 200, streams that nobody asked for, counts that are texts. Nothing here raises for what a
provider sends.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from rlm_kernel.bounded import TooMuch
from rlm_kernel.checked import writable
from rlm_kernel.models._bounds import load
from rlm_kernel.models._faults import Failure, of_error, words
from rlm_kernel.models._http import Exchange
from rlm_kernel.models._parts import body_of, first, of, plain_text, said_in
from rlm_kernel.models._streams import Chunks, Events
from rlm_kernel.models._tool_calls import in_text, tool_calls

_CUT = frozenset(
    {"length", "max_tokens", "model_length", "max_output_tokens", "incomplete", "token_limit", "max_length"}
) | {"model_context_window_exceeded"}
"""How providers say that a reply reached the limit of tokens."""
_WHOLE = frozenset(
    {"stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed", "finished", "done"}
)
_REFUSED = frozenset(
    {
        "content_filter",
        "safety",
        "recitation",
        "prohibited_content",
        "blocklist",
        "spii",
        "refusal",
        "sensitive",
    }
)
_BROKEN = frozenset({"error", "network_error", "abort", "insufficient_system_resource", "engine_overloaded"})
"""How they say that it broke off on their side."""
_BAD_TOOL = frozenset({"malformed_function_call", "unexpected_tool_call"})
"""How they say that the model called a tool, and that nothing of it is handed on."""
_BEGIN = 4000
"""Characters of a body that are looked at where it is no JSON."""
_COMMENTS = re.compile(r"(?::[^\n]*+(?:\n\s*+|\Z))*+")
"""Lines of an event stream by which a gateway keeps the connection alive."""
_EVENT = re.compile(r"(?:data|event|id|retry):")
_COUNTS = re.compile(
    rb'"(?:usage|usage_?metadata|billed_units|\w{0,20}(?:eval_count|tokens?))"\s{0,9}:', re.IGNORECASE
)
"""Names of counts, in any provider's form."""
_CALLS = 100
"""Tool calls of a reply; one that has more is none."""
_BLOCKS = 100
"""Blocks of reasoning of a reply; of one that has more none goes back."""
_REASON = 100
"""Characters of a reason to finish."""


@dataclass(frozen=True)
class Read:
    """What a reply says.

    `finish`: why it ended, "length" where it was cut at the limit of tokens. `thinking`: as of `Completion`.
    `tools`: names of tools that it called although none was offered, but those that run code, whose code is
    in the text.
    """

    text: str
    finish: str | None = None
    thoughts: str = ""
    tools: tuple[str, ...] = ()
    thinking: tuple[Mapping[str, Any], ...] = ()


def parse(exchange: Exchange) -> dict[str, Any] | Failure:
    """The JSON object of a reply, whatever is around it; else what came instead."""
    if exchange.status >= 400 or 300 <= exchange.status < 400:
        return _refusal(exchange)
    found = _json(exchange.body, exchange.stopped)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, dict):
        return found
    if found is not None:
        return Failure(
            "server", f"the reply is JSON, but no chat completion: {_shown(exchange.body)}", retry=True
        )
    return _no_json(exchange)


def _refusal(exchange: Exchange) -> Failure:
    """What a status that is no success says."""
    if exchange.status < 400:
        return _redirect(exchange)
    found = _json(exchange.body)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if found is not None:
        failure = of_error(found, exchange.status, exchange.headers)
        return replace(failure, elsewhere=exchange.status in (404, 405))
    text = _text(exchange.body).strip()
    page = _page(exchange)
    said = (
        f"status {exchange.status}, {page}"
        if page
        else f"status {exchange.status}{f': {words(text)}' if text else ', without a word'}"
    )
    # A server's or a gateway's own trouble comes as a page, too, and so does a limit: those may pass.
    failure = of_error(page or text, exchange.status, exchange.headers)
    failure = replace(failure, said=said)
    if failure.retry or failure.fault == "too_long":
        return failure
    return replace(failure, fault="connection", elsewhere=True) if page else replace(failure, elsewhere=True)


def _redirect(exchange: Exchange) -> Failure:
    location = exchange.headers.get("location", "")
    said = f"status {exchange.status}, a redirect"
    try:
        target = urlsplit(urljoin(exchange.url, location))
        shown = (
            f"{target.scheme}://{target.netloc.rpartition('@')[2]}{target.path}"
            if location and target.netloc
            else ""
        )
    except ValueError:
        shown = ""
    if not shown:
        return Failure("connection", f"{said} to {'no address' if location else 'nowhere'}", elsewhere=True)
    shown = words(shown)
    return Failure("connection", f"{said} to {shown}, which was not followed", moved=shown)


def _no_json(exchange: Exchange) -> Failure:
    if page := _page(exchange):
        return Failure("connection", f"the address gives {page}", elsewhere=True)
    text = _text(exchange.body).strip()
    if not text:
        return Failure("server", "the reply has no body", retry=True)
    if text.startswith(("{", "[")):
        return Failure(
            "server", f"the reply is not valid JSON{_why(text)}: {_shown(exchange.body)}", retry=True
        )
    return Failure(
        "server",
        f"the reply is plain text, and no chat completion: {_shown(exchange.body)}",
        retry=True,
        elsewhere=True,
    )


def _page(exchange: Exchange) -> str:
    """What page it is, if it is one: HTML, or XML as storage servers and old gateways send it."""
    text = _text(exchange.body[: 2 * _BEGIN]).lstrip()[:_BEGIN]
    start = text[:300].lower()
    html = (
        "<!doctype html" in start
        or "<html" in start
        or "<head" in start
        or "text/html" in exchange.headers.get("content-type", "")
    )
    if html and text.startswith("<"):
        title = re.search(r"<title[^<>]*>(.*?)</title>|<h1[^<>]*>(.*?)</h1>", text, re.IGNORECASE | re.DOTALL)
        name = " ".join(re.sub(r"<[^<>]*>", " ", (title[1] or title[2] or "")).split())[:100] if title else ""
        return (
            f"a web page (HTML) titled {name!r}, not a model's reply"
            if name
            else "a web page (HTML), not a model's reply"
        )
    return f"XML, not a model's reply: {_shown(exchange.body)}" if start.startswith("<") else ""


def _shown(body: bytes) -> str:
    return repr(" ".join(_text(body[: 2 * _BEGIN]).split())[:200])


def _why(text: str) -> str:
    """Which limit a text that is no JSON is over; "" for none."""
    try:
        load(text, first=True)
    except TooMuch as error:
        return f" ({error})"
    except ValueError:
        pass
    return ""


def _text(body: bytes) -> str:
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return body.decode("utf-16", "replace")
    return body.decode("utf-8-sig", "replace")


def _json(body: bytes, stopped: bool = False) -> Any:
    """The JSON value of a body, or what the events of a stream come to; None for none."""
    text = _text(body).lstrip("\ufeff \t\r\n\0")
    if begun := _COMMENTS.match(text):
        text = text[begun.end() :]
    if _EVENT.match(text):
        return _joined(text, stopped)
    try:
        # Whatever follows an object is left; a page that begins with a number is none.
        found = load(text, first=text.startswith(("{", "[")))
    except ValueError:
        return None
    lone = isinstance(found, dict) and "message" not in (choice := first(found.get("choices")))
    return _joined(text, stopped) if lone and "delta" in choice else found  # a chunk on each line


def _joined(text: str, stopped: bool) -> Any:
    """One completion of all chunks of an event stream; the last whole object where they are no chunks."""
    chunks, stream = Chunks(), Events()
    for chunk in stream.all(text.encode("utf-8", "replace")):
        chunks.add(chunk)
    chunks.ended = stream.ended
    return chunks.completion(stopped=stopped)


def events(body: bytes) -> Iterator[dict[str, Any]] | None:
    """The JSON objects of an event stream; None for a body that is none."""
    text = _text(body).lstrip("\ufeff \t\r\n\0")
    if begun := _COMMENTS.match(text):
        text = text[begun.end() :]
    return Events().all(text.encode("utf-8", "replace")) if _EVENT.match(text) else None


# Errors inside a reply


def error_in(found: Mapping[str, Any]) -> Any:
    """The error that a reply with a good status holds; None for none.

    Where there is text all the same, it is none.
    """
    choice = first(found.get("choices"))
    message = body_of(choice)
    ended = str(choice.get("finish_reason") or choice.get("native_finish_reason") or "")[:_REASON].lower()
    broken = ended in _BROKEN
    for holder in (found, choice, message):
        if holder.get("error") and (broken or not said_in(choice)[0].strip()):
            return holder["error"]
    if broken and _native(choice) not in _BAD_TOOL:
        return {
            "message": "the provider ended the reply with an "
            f"error{f' ({ended})' if ended != 'error' else ''}"
        }
    base = found.get("base_resp")
    if isinstance(base, Mapping) and base.get("status_code") not in (None, 0, "0"):
        return base
    if found.get("choices"):
        return None
    errors = found.get("errors")
    for name, value in (
        ("errors", errors),
        ("detail", found.get("detail")),
        ("message", found.get("message")),
        ("msg", found.get("msg")),
    ):
        if value and (isinstance(value, str) or name in ("errors", "detail")):
            return dict(found) if name not in ("errors", "detail") or found.get("code") else value
    return dict(found) if found.get("error_msg") or found.get("object") == "error" else None


# A completion


def read(found: Mapping[str, Any], *, code: bool) -> Read | Failure:
    """What a completion says, or why that is nothing.

    `code`: that of a tool that runs code is put into the text, as a block.
    """
    if error := error_in(found):
        return of_error(error, 200)
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices:
        if "choices" in found:
            return Failure("empty", "the reply has no choices", retry=True)
        return Failure(
            "server",
            f"the reply is JSON, but no chat completion: {json.dumps(found, default=str)[:200]}",
            retry=True,
        )
    choice = first(choices)
    message = body_of(choice)
    text, thoughts, calls, refusal = said_in(choice)
    thoughts = "\n\n".join(filter(None, [*_thoughts(message), thoughts]))
    finish = _finish(choice, found)
    refusal = (
        refusal
        or plain_text(message.get("refusal"))
        or plain_text(of(message, "provider_specific_fields").get("refusal"))
    )
    if refusal:
        return Failure("refused", words(refusal))
    if finish in _REFUSED:
        return Failure("refused", "the provider's content filter stopped the reply")
    tools: tuple[str, ...] = ()
    if code and not text.strip() and _native(choice) in _BAD_TOOL:
        return Read(f"[called a tool: {_native(choice)}]", "stop", thoughts, ("a function",))
    if len(calls := [*tool_calls(message), *calls]) > _CALLS:
        return Failure(
            "server", f"the reply calls {len(calls):,} tools, and at most {_CALLS} are read", retry=True
        )
    if calls:
        if not code and not text.strip():
            names = ", ".join(sorted({call.name for call in calls}))
            return Failure(
                "empty",
                f"it called a tool ({names}) instead of writing text, and no tool was offered",
                retry=True,
            )
        if code:
            text, tools = in_text(text, calls)
    if text.strip():
        return Read(writable(text), finish, writable(thoughts), tools, _blocks(message))
    if finish == "length":
        return Failure("empty", "the limit on reply tokens was reached before any text")
    why = f" ({_native(choice)})" if _native(choice) in _BAD_TOOL else ""
    return Failure("empty", f"reasoning, but no text{why}" if thoughts else f"no text{why}", retry=True)


def _thoughts(message: Mapping[str, Any]) -> list[str]:
    """The model's reasoning beside the reply, once, though some gateways send it under several names."""
    names = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks")
    found = (plain_text(message.get(name)).strip() for name in names)
    return list(dict.fromkeys(filter(None, found)))


def _blocks(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The blocks of reasoning that go back to the model: Anthropic's, which are signed, and as gateways pass
    them on. Others are litellm's own.
    """
    for name in ("thinking_blocks", "reasoning_details"):
        found = message.get(name)
        if isinstance(found, list) and 0 < len(found) <= _BLOCKS:
            signed = name == "reasoning_details"
            return tuple(
                block
                for block in found
                if isinstance(block, Mapping) and (signed or block.get("signature") or block.get("data"))
            )
    return ()


def _finish(choice: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    told = choice.get("finish_reason") or choice.get("stop_reason") or found.get("stop_reason")
    if _native(choice) in _CUT:
        return "length"
    if not isinstance(told, str) or not told:
        return None
    told = writable(told[:_REASON].lower())
    return "length" if told in _CUT else "stop" if told in _WHOLE else told


def _native(choice: Mapping[str, Any]) -> str:
    """Why a reply ended by the word of the provider behind a gateway, or before litellm made it OpenAI's; ""
    where that is not told.
    """
    return str(choice.get("native_finish_reason") or "")[:_REASON].lower()


def counts(exchange: Exchange) -> bool:
    """Whether a reply in any provider's form, as far as it is kept, has a count of tokens."""
    return not exchange.body or bool(_COUNTS.search(exchange.body))


def native_finish(found: Mapping[str, Any]) -> str | None:
    """Why a reply in a provider's own form ended: Anthropic's, Gemini's, Ollama's. litellm makes one reason
    of several.
    """
    candidate = first(found.get("candidates"))
    told = found.get("stop_reason") or found.get("done_reason") or candidate.get("finishReason")
    return told if isinstance(told, str) else None

"""Where the lines of a chat come from: an editor in a terminal, else standard input."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.cli._signals import stop_on_signals
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completion
    from prompt_toolkit.key_binding import KeyBindings

_FENCES = ("```", '"""')
_LAST_WORD = re.compile(r"(?:\\.|[^\s\\])*$")
_NO_TEXT = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|O.|[^\[O])?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Sequences of keys such as the arrows', marks of pasted text, and control characters but tab and newline."""
_TO_ESCAPE = re.compile(r"([\s\"'\\])")
PROMPT = "› "


class Terminal:
    """Line editing with a history that stays, and messages of several lines.

    `is_free`: a message asks no model.
    """

    def __init__(self, history: Path, commands: list[str], is_free: Callable[[str], bool]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory

        class Completer(WordCompleter):
            """Commands at the beginning, and paths after /load."""

            def get_completions(self, document: Any, event: Any) -> Any:
                if document.text.startswith("/load "):
                    yield from _paths(document.text_before_cursor, event)
                elif document.text.startswith("/"):
                    yield from super().get_completions(document, event)

        self._is_free = is_free
        self._began = False
        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(history)),
            completer=Completer(commands, sentence=True),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation=lambda *_: "  ",
        )

    async def line(self) -> str:
        """The next message.

        What was typed while a question was answered is there to be edited; by itself only what is free is
        sent.

        Raises EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C.
        """
        from prompt_toolkit.input.typeahead import get_typeahead

        from rlm_kernel.cli._terminal import typed_ahead

        left = "".join(press.data for press in get_typeahead(self._session.app.input))
        keys = left + typed_ahead(sys.stdin.fileno())
        ahead, began, self._began = typed(keys), self._began, True
        if (
            ahead
            and "\n" not in ahead
            and keys.endswith(("\n", "\r"))
            and (not began or self._is_free(ahead))
        ):
            print(f"{PROMPT}{printable(ahead)}")
            return ahead
        try:
            text: str = await self._session.prompt_async(PROMPT, default=ahead)
        finally:
            stop_on_signals()  # the editor has taken the handler of SIGINT away
        return text


def typed(keys: str) -> str:
    """The text that keys are, without those that are none, and without blank lines around it."""
    return _NO_TEXT.sub("", keys.replace("\r", "\n")).strip()


def _paths(before: str, event: Any) -> Iterator[Completion]:
    """What the last word of a line may become, as a shell would write it."""
    from prompt_toolkit.completion import Completion, PathCompleter
    from prompt_toolkit.document import Document

    word = _LAST_WORD.search(before)
    path = re.sub(r"\\(.)", r"\1", word[0]) if word else ""
    for found in PathCompleter(expanduser=True).get_completions(Document(path), event):
        yield Completion(_TO_ESCAPE.sub(r"\\\1", found.text), found.start_position, display=found.display)


def _keys() -> KeyBindings:
    """Enter sends; Esc Enter begins a new line, as does Enter behind a backslash or in an open ``` or
    triple-quoted block, and a line's end in a text that is pasted, also in a terminal that does not mark it
    as such.
    """
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor(1)
            buffer.insert_text("\n")
        elif is_open(buffer.text) or _more_came(event):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _more_came(event: Any) -> bool:
    """Other keys came with this one: nobody types so fast, a text is pasted."""
    from prompt_toolkit.keys import Keys

    from rlm_kernel.cli._terminal import is_more_typed

    queued = any(
        press.key is not Keys.CPRResponse and press.data != "_Flush"
        for press in event.key_processor.input_queue
    )
    return queued or is_more_typed(event.app.input.fileno())


def is_open(text: str) -> bool:
    """A block was begun and not ended."""
    return any(text.count(fence) % 2 for fence in _FENCES)


class Pipe:
    """A message a line.

    A block between ``` or triple quotes, and a line that ends in a backslash, go on with the next one.
    """

    async def line(self) -> str:
        """The next message. Raises EOFError."""
        text = ""
        while True:
            line = await asyncio.to_thread(_read_line)
            read = line.decode(errors="replace").replace("\r\n", "\n")  # as programs of Windows end lines
            if not read and not text:
                raise EOFError
            text += read
            if read.endswith("\\\n"):
                text = text[:-2] + "\n"
            elif not read or not is_open(text):
                return text.rstrip("\n")


def _read_line() -> bytes:
    try:
        return sys.stdin.buffer.readline()
    except OSError:  # closed, a folder, a terminal that is gone: there is nothing more to read
        return b""

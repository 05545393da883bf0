"""What models were sent in full, in a file beside the notebook: `NAME.prompts.zst`, JSON lines in zstd.

A message of a root model, and the prompt of a call, stand there once, by their digests. A turn has the
messages that are new, and how many of those of the turn before it keeps:

    {"message": DIGEST, "role", "content", "images"?, "thinking"?}
    {"turn": NUMBER, "keep": COUNT, "messages": [DIGEST, ...]}
    {"memory": DIGEST, "keep", "messages"}           of a summary of turns; DIGEST is the sha256 of its text
    {"call": DIGEST, "kind", "prompt", "schema"?}    DIGEST is the call's `prompt_digest`
    {"sent": DIGEST, "prompt"}                       what went to a model where that is another text

The file may be a stranger's, as the notebook may.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rlm_kernel import system
from rlm_kernel.engine.protocols import Message
from rlm_kernel.pathtext import spelled
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.zstd_log import lines_of

ENDING = ".prompts.zst"
MAX_FILE = 4 << 30
"""Bytes of such a file that are read, and bytes that it may have unpacked."""
MAX_LINE = 128 << 20
"""Bytes of one line: a prompt has 16 MiB at most, each of which JSON may write as six."""
MAX_LINES = 2_000_000
MAX_DIGESTS = 1_000_000
"""Of messages, in the lines of turns."""
_IN_MEMORY = 16 << 20
"""Bytes of unpacked lines that are kept in memory; more go into a temporary file."""
_STEM = 230
"""Bytes of a notebook's name that are in that of the file."""
_KEY = re.compile(rb'\{"(message|call|sent)":"([0-9a-f]{64})"')
_TURN = re.compile(r"(?:turn-)?([0-9]{1,9})(?:-.*)?")


def own_name(notebook: Path, number: int = 1) -> str:
    """The name of a notebook's file of prompts, or the one with a number where that is taken."""
    stem = notebook.stem.encode("utf-8", "surrogateescape")[:_STEM].decode("utf-8", "ignore")
    return f"{stem}{f'-{number}' if number > 1 else ''}{ENDING}"


def is_own(name: str, notebook: Path) -> bool:
    """Whether a file of prompts has its name by this notebook, and not by one that it was copied from."""
    stem = own_name(notebook).removesuffix(ENDING)
    return bool(re.fullmatch(rf"{re.escape(stem)}(-[0-9]+)?{re.escape(ENDING)}", name))


def is_beside(name: str) -> bool:
    """Whether this can be the name of a file of prompts: a name alone, and no path."""
    plain = name.endswith(ENDING) and "/" not in name and "\\" not in name and "\0" not in name
    return plain and len(name.encode("utf-8", "replace")) < 256 and system.is_possible_name(name)


def open_beside(notebook: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """The file of prompts that a notebook names, open: a plain file and no link. Raises OSError."""
    if not is_beside(name):
        raise OSError(22, "the trace names a file of prompts that is not a file next to it", name[:100])
    path = spelled(Path(os.path.realpath(notebook)).with_name(name))
    file = system.open_plain(path, flags)
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and found.st_size <= MAX_FILE:
        return file
    os.close(file)
    raise OSError(22, f"it is not a regular file of at most {MAX_FILE:,} bytes", name)


def digests_in(file: int, most: int, keep: int) -> dict[bytes, None]:
    """What lines are in the first bytes (unpacked) of such a file; the last of them, of so many."""
    found: dict[bytes, None] = {}
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        with contextlib.suppress(ValueError):  # the rest is not known, and written once more
            for line in lines_of(stream, most=most, longest=MAX_LINE):
                if key := _KEY.match(line):
                    found[short(key[1].decode(), key[2].decode())] = None
                    if len(found) > keep:
                        del found[next(iter(found))]
    return found


def short(kind: str, digest: str) -> bytes:
    """By which a line is known: few bytes, of which a million fit into memory."""
    return kind[:1].encode() + bytes.fromhex(digest)


def digest_of(text: str) -> str:
    """sha256 (hex) of a text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


class PromptFile:
    """What models were sent, by the file beside a trace; nothing where there is none.

    A context manager. `trouble` says why there is less than the trace says, or "". The file is read when it
    is first asked, and unpacked, beyond some megabytes into a temporary file.
    """

    def __init__(self, file: int | None = None, trouble: str = "") -> None:
        self._file = file
        self.trouble = trouble
        self._lines: IO[bytes] | None = None
        self._places: dict[bytes, tuple[int, int]] = {}
        self._turns: dict[int | str, int] = {}
        self._deltas: list[tuple[int, Sequence[str], int]] = []
        self._digest_count = 0

    def __enter__(self) -> PromptFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        if self._file is not None:
            os.close(self._file)
        if self._lines is not None:
            self._lines.close()
        self._file = self._lines = None

    def messages_of_call(self, digest: str) -> Sequence[Message] | None:
        """What a call with this `prompt_digest` sent, without its pictures; None where that is not there."""
        sent = self._line("sent", digest) or self._line("call", digest)
        prompt = sent.get("prompt") if sent else None
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else None

    def call(self, digest: str) -> Mapping[str, Any] | None:
        """What a call with this `prompt_digest` was, as code made it; None where that is not there."""
        return self._line("call", digest)

    def has_sent(self, digest: str) -> bool:
        """Whether a child's question went to a model in a wording of its own, which is known."""
        return self._line("sent", digest) is not None

    def schema_of_call(self, digest: str) -> Mapping[str, Any] | None:
        """The JSON schema that a call gave for its answer; None for none."""
        schema = (self.call(digest) or {}).get("schema")
        return schema if isinstance(schema, dict) else None

    def messages_of_turn(self, turn: int | str) -> Sequence[Message] | None:
        """All that the root model was sent in a turn, by its number or the id of one of its cells; None where
        that is not there. `images` are what is told of them: digest, media_type, size, width, height.
        """
        number = turn if isinstance(turn, int) else int(found[1]) if (found := _TURN.fullmatch(turn)) else -1
        return self._messages(number)

    def messages_of_memory(self, text: str) -> Sequence[Message] | None:
        """What the root model was sent when it wrote this summary; None where that is not there."""
        return self._messages(digest_of(text))

    def _messages(self, name: int | str) -> Sequence[Message] | None:
        self._read()
        if name not in self._turns:
            return None
        messages = [self._line("message", digest) for digest in self._digests(self._turns[name])]
        if not all(map(_is_message, messages)):
            return None
        return [
            {name: value for name, value in message.items() if name != "message"}
            for message in messages
            if message
        ]

    def _digests(self, at: int) -> list[str]:
        """The messages of a turn, from its delta and those that it goes on from."""
        parts: list[Sequence[str]] = []
        most: int | None = None
        while at >= 0:
            keep, new, before = self._deltas[at]
            parts.append(new if most is None else new[: max(0, most - keep)])
            most = keep if most is None else min(most, keep)
            if not most:
                break
            at = before
        return [digest for new in reversed(parts) for digest in new]

    def _line(self, kind: str, digest: str) -> dict[str, Any] | None:
        import msgspec

        self._read()
        place = self._places.get(short(kind, digest)) if re.fullmatch("[0-9a-f]{64}", digest) else None
        if place is None or self._lines is None:
            return None
        self._lines.seek(place[0])
        try:
            found = msgspec.json.decode(self._lines.read(place[1]))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get(kind) == digest else None

    def _read(self) -> None:
        """Unpack the file, once."""
        if self._file is None or self._lines is not None:
            return
        self._lines = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        place = 0
        with open(self._file, "rb", closefd=False) as stream:
            try:
                for number, line in enumerate(lines_of(stream, most=MAX_FILE, longest=MAX_LINE)):
                    if number >= MAX_LINES:
                        raise ValueError(f"it has more than {MAX_LINES:,} lines")
                    if key := _KEY.match(line):
                        self._lines.write(line)
                        self._places[short(key[1].decode(), key[2].decode())] = place, len(line)
                        place += len(line)
                    elif line.startswith((b'{"turn":', b'{"memory":')):
                        self._take_turn(line)
            except ValueError as error:
                self.trouble = f"the file of prompts is not read to its end: {error}"
            except OSError as error:
                self.trouble = f"the file of prompts cannot be unpacked: {error.strerror or error}"

    def _take_turn(self, line: bytes) -> None:
        import msgspec

        try:
            found = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        name = found.get("turn", found.get("memory"))
        keep, new = found.get("keep"), found.get("messages")
        texts = isinstance(new, list) and all(isinstance(digest, str) for digest in new)
        if type(name) in (int, str) and type(keep) is int and texts:
            self._digest_count += len(new)
            if self._digest_count > MAX_DIGESTS:
                raise ValueError(f"its turns name more than {MAX_DIGESTS:,} messages")
            self._deltas.append((max(0, keep), tuple(new), len(self._deltas) - 1))
            self._turns[name] = len(self._deltas) - 1


def _is_message(found: dict[str, Any] | None) -> bool:
    return found is not None and isinstance(found.get("role"), str) and isinstance(found.get("content"), str)


def open_prompts(trace: TraceFile) -> PromptFile:
    """What the models of a trace were sent in full; empty where it has no such file, or none that may be
    opened: then `trouble` says why.
    """
    if not trace.meta.prompts:
        return PromptFile()
    try:
        return PromptFile(open_beside(trace.path, trace.meta.prompts))
    except FileNotFoundError:
        return PromptFile(
            trouble=f"the full prompts are missing: {trace.meta.prompts[:200]} is not next to the trace"
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return PromptFile(trouble=f"the trace's file of prompts is not opened: {why}")

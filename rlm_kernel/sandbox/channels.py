"""The kernel's sockets, as a Jupyter client uses them, in bounded memory whatever code in the kernel sends.

One message at a time is read, when it is asked for. Of the rest the stream holds some, and the kernel's
ZeroMQ drops what is too much.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import Any, Literal, Self, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.session import DELIM, Session
from pydantic import BaseModel, ValidationError

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox import zmtp
from rlm_kernel.sandbox.kernel_says import Message
from rlm_kernel.sandbox.stream import Stream

MAX_IOPUB = 24 << 20
"""Bytes of one message of outputs: pictures are the largest (`outputs.PICTURE_CAP`)."""
MAX_SHELL = 8 << 20
"""Bytes of one reply."""
_MAX_FRAMES = 64
_MAX_SENDS = 100
"""Messages that may wait for a kernel that does not read."""
_MAX_HEADER = 64 << 10
"""Bytes of the signature, the headers and the metadata of a message."""


class Channel:
    """One socket of the kernel. `limit` in bytes of one message."""

    def __init__(self, connection: zmtp.Connection, session: Session, limit: int) -> None:
        self._connection = connection
        self._session = session
        self._limit = limit
        self._sends: set[asyncio.Task[None]] = set()
        self.malformed = 0
        """Messages that were no Jupyter messages."""

    def send(self, message: dict[str, Any]) -> None:
        """Have a message sent, in order, as fast as the kernel takes it.

        If it takes none any more, it is lost: `exited` will say so.
        """
        if len(self._sends) == _MAX_SENDS:
            return
        task = asyncio.create_task(self._connection.send(*self._session.serialize(message)))
        self._sends.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if not task.cancelled():
            task.exception()

    async def next(self) -> Message | None:
        """The next message that is signed; None for one that was passed over as too large.

        Raises ConnectionError.

        Code in a cell knows the session's key and can send anything.
        """
        while True:
            frames = await self._connection.message(self._limit, _MAX_FRAMES)
            if frames is None:
                return None
            if (message := self._message(frames)) is not None:
                return message
            self.malformed += 1

    def _message(self, frames: list[bytes | bytearray]) -> Message | None:
        # Not the session's own `deserialize`: it looks for dates in all texts of the headers, and adapts old
        # versions of the protocol.
        parts = frames[frames.index(DELIM) + 1 :] if DELIM in frames else []
        if len(parts) < 5 or any(len(part) > _MAX_HEADER for part in parts[:4]):
            return None
        signature, header, parent, metadata, content = parts[:5]
        if not compare_digest(signature, self._session.sign([header, parent, metadata, content])):
            return None
        return Message.parse(header, parent, content)

    def close(self) -> None:
        for task in self._sends:
            task.cancel()
        self._connection.close()


class Connection(BaseModel, strict=True):
    """What connection.json says, in Jupyter's form."""

    transport: Literal["ipc", "tcp"]
    ip: str
    key: str
    signature_scheme: Literal["hmac-sha256"]
    shell_port: int
    iopub_port: int
    stdin_port: int
    control_port: int
    hb_port: int

    @classmethod
    def read(cls, file: Path) -> KernelConnectionInfo | None:
        """As Jupyter takes it; None if the file is gone or damaged."""
        try:
            found = cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None
        return cast(KernelConnectionInfo, found.model_dump())


@dataclass(frozen=True)
class Channels:
    """The three sockets that a run uses. Nobody reads `control`."""

    session: Session
    shell: Channel
    iopub: Channel
    control: Channel

    @classmethod
    async def connect(cls, stream: Stream, session: Session) -> Self:
        """Connect to the kernel's sockets. Raises KernelError."""
        opened = {name: zmtp.Connection(stream.open(name)) for name in ("shell", "iopub", "control")}
        try:
            async with asyncio.TaskGroup() as group:
                for name, connection in opened.items():
                    group.create_task(connection.shake_hands(b"SUB" if name == "iopub" else b"DEALER"))
            await opened["iopub"].send(b"\x01")  # subscribes to everything
        except BaseException as error:
            for connection in opened.values():
                connection.close()
            why = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            if not isinstance(why, OSError):  # it was given up
                raise
            raise KernelError(
                f"The kernel's sockets do not answer: {why}.", hint="`rlm doctor` checks the installation."
            ) from why
        limits = {"shell": MAX_SHELL, "iopub": MAX_IOPUB, "control": MAX_SHELL}
        return cls(
            session,
            **{name: Channel(connection, session, limits[name]) for name, connection in opened.items()},
        )

    def close(self) -> None:
        for channel in (self.shell, self.iopub, self.control):
            channel.close()

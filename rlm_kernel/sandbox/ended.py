"""How a kernel's container has ended: by the last word of its first process, else by the engine's; and what
that means to people.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rlm_contract import EXIT_LEASE, EXIT_OOM

from rlm_kernel.checked import integer, text
from rlm_kernel.errors import DockerError, KernelError, RLMError
from rlm_kernel.sandbox.dial import TAIL
from rlm_kernel.sandbox.engine_errors import start_hint

if TYPE_CHECKING:
    from docker.models.containers import Container

CHECK = "`rlm doctor` checks the installation; `rlm image build --force` builds the image again."
_TELL_SECONDS = 2.0
"""In which an engine tells the end of a container whose stream has ended."""
_KILLED = 128 + 9
"""The status when the machine killed the first process itself: as it starts, that is for memory."""


@dataclass(frozen=True)
class Ended:
    """`status`: of the container, as a shell gives it; None where nobody knows it.

    `lost`: the engine, or the way to it, failed. `words`: the last ones of the container, or why the engine
    failed.
    """

    status: int | None = None
    lost: bool = False
    words: str = ""

    @classmethod
    def told(cls, payload: bytes) -> Self:
        """By the first process, which may say anything."""
        try:
            said = json.loads(payload)
            return cls(integer(said["status"], 0, 255), words=text(said["words"])[-TAIL:])
        except (ValueError, TypeError, KeyError, RecursionError):
            return cls()

    @classmethod
    def asked(cls, container: Container) -> Self:
        """By the engine, of a container whose stream has ended. Blocking, for _TELL_SECONDS at most."""
        from docker.errors import APIError, NotFound

        try:
            told = container.wait(timeout=_TELL_SECONDS, condition="not-running")
            failed = str((told.get("Error") or {}).get("Message") or "")
            if failed:
                return cls(lost=True, words=failed)
            status = int(told["StatusCode"])
            return cls(status, lost=status == EXIT_LEASE)  # it took its owner, which we are, for gone
        except NotFound:
            return cls()
        except APIError as error:
            return cls(lost=True, words=str(error.explanation or error))
        except Exception:  # the engine is gone, or says nonsense; or the container runs on
            return cls(lost=True)

    @property
    def _engine_said(self) -> str:
        return self.words.strip().rstrip(".") or "the connection to its container broke"

    def why(self, memory: int) -> str:
        """What became of a kernel that had so many bytes, as the model is told."""
        if self.lost:
            return f"The Docker engine failed, and the kernel was lost with it: {self._engine_said}."
        if self.status is None:
            return "The kernel died: its container is gone, and the Docker engine does not know why."
        if self.status == EXIT_OOM:
            return (
                f"The kernel died: out of memory (its limit is {memory / (1 << 30):.3g} GiB). Work on "
                "pieces, and keep only results."
            )
        if self.status > 128:
            number = self.status - 128
            broke = " (compiled code broke, or a recursion had no end)" if number == signal.SIGSEGV else ""
            return f"The kernel died: killed by signal {number}{broke}."
        return (
            f"The kernel died: its process ended with status {self.status} (code must not exit the process)."
        )

    def as_it_started(self, memory: int) -> RLMError:
        """The error of a start, with so many bytes."""
        if self.lost and self.status is None:
            what = f"The Docker engine was lost while it started the kernel's container: {self._engine_said}."
            return DockerError(what, hint=start_hint())
        if self.status in (EXIT_OOM, _KILLED):
            return KernelError(
                "The container is too small: its kernel was killed as it started, with "
                f"{memory / (1 << 20):,.0f} MiB of memory "
                "(sandbox.memory).",
                hint="Give it more memory: RLM_SANDBOX__MEMORY=2g, which is the default.",
            )
        how = (
            "its status is not known; perhaps its memory is too small"
            if self.status is None
            else f"status {self.status}"
        )
        return KernelError(
            f"The kernel's container ended as it started ({how}).\n{self.words}".strip(), hint=CHECK
        )

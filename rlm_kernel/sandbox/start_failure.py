"""A container that did not start: what became of it, and the error that tells it."""

from __future__ import annotations

from dataclasses import dataclass

from rlm_kernel.errors import DockerError, KernelError, RLMError
from rlm_kernel.sandbox.containers import LOST, UNKNOWN
from rlm_kernel.sandbox.docker_host import start_hint

EXIT_OOM = 97
"""The container's status when the kernel was killed for memory (`rlm_runtime.__main__`)."""
_KILLED = 128 + 9
"""The container's status when the machine killed its first process, which is for memory, too."""


@dataclass(frozen=True)
class Ended:
    """How a start came to nothing. `status` of the container, if it is known; `lost`: the engine could not be spoken to;
    `ended`: the stream did; `engine_said`: why the engine knows no more; `words`: the last ones of the container.
    """

    status: int | None
    lost: bool
    ended: bool
    engine_said: str
    words: str

    def as_error(self, memory: int, seconds: float) -> RLMError:
        """`memory` (bytes) and `seconds` are what the container had."""
        if self.status == LOST or self.lost:
            why = f": {self.engine_said}" if self.engine_said else ""
            return DockerError(f"The Docker engine was lost while it started the kernel's container{why}.", hint=start_hint())
        if self.status in (EXIT_OOM, _KILLED):
            return KernelError(
                f"The container is too small: its kernel was killed as it started, with {memory / (1 << 20):,.0f} MiB of memory "
                "(sandbox.memory).",
                hint="Give it more: RLM_SANDBOX__MEMORY=2g, which is the default.",
            )
        how = "its status is not known" if self.status in (UNKNOWN, None) else f"status {self.status}"
        what = (
            f"The kernel's container ended as it started ({how})."
            if self.ended or self.status is not None
            else f"The kernel did not start within {seconds:.0f} s."
        )
        return KernelError(
            f"{what}\n{self.words}".strip(), hint="`rlm doctor` checks the set-up; `rlm image build --force` makes the image anew."
        )

"""Recursive Language Models on a real Jupyter kernel.

>>> from rlm_kernel import RLM
>>> result = RLM(root_model="local").ask("How many errors?", context=Path("server.log"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_kernel._version import __version__
from rlm_kernel.errors import (
    BudgetExceeded,
    CallCancelled,
    ConfigError,
    DockerError,
    FileRefused,
    ImageError,
    InternalError,
    KernelError,
    KeyringError,
    LocalModelError,
    ModelError,
    NoAnswer,
    NoRecord,
    RecordedFailure,
    RLMError,
    SetupError,
    TextWanted,
    ToolError,
    TraceError,
    TraceNotWritten,
    UsageError,
    WorkerLost,
)

if TYPE_CHECKING:
    from rlm_kernel.models.scripted import ScriptedModels
    from rlm_kernel.session.batch.item import Done, Failure, Item
    from rlm_kernel.session.replay import Replayed
    from rlm_kernel.session.result import Result
    from rlm_kernel.session.rlm import RLM
    from rlm_kernel.tools.functions import tool
    from rlm_kernel.tools.tool import Tool, ToolResult

__all__ = [
    "RLM",
    "BudgetExceeded",
    "CallCancelled",
    "ConfigError",
    "DockerError",
    "Done",
    "Failure",
    "FileRefused",
    "ImageError",
    "InternalError",
    "Item",
    "KernelError",
    "KeyringError",
    "LocalModelError",
    "ModelError",
    "NoAnswer",
    "NoRecord",
    "RLMError",
    "RecordedFailure",
    "Replayed",
    "Result",
    "ScriptedModels",
    "SetupError",
    "TextWanted",
    "Tool",
    "ToolError",
    "ToolResult",
    "TraceError",
    "TraceNotWritten",
    "UsageError",
    "WorkerLost",
    "__version__",
    "tool",
]

_LATE = {
    "Done": "rlm_kernel.session.batch.item",
    "Failure": "rlm_kernel.session.batch.item",
    "Item": "rlm_kernel.session.batch.item",
    "RLM": "rlm_kernel.session.rlm",
    "Replayed": "rlm_kernel.session.replay",
    "Result": "rlm_kernel.session.result",
    "ScriptedModels": "rlm_kernel.models.scripted",
    "Tool": "rlm_kernel.tools.tool",
    "ToolResult": "rlm_kernel.tools.tool",
    "tool": "rlm_kernel.tools.functions",
}
"""Imported when first asked for: `import rlm_kernel` stays fast."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(ipython: Any) -> None:
    """Called by `%load_ext rlm_kernel`: from then on the notebook has `%%rlm` and `%rlm`."""
    _magics().load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Called by `%unload_ext` and `%reload_ext`."""
    _magics().unload(ipython)


def _magics() -> Any:
    import importlib

    return importlib.import_module("rlm_kernel.magics.magic")

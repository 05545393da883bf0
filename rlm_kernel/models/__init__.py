"""The models: litellm behind one async call, the embedded local model, and scripted ones.

Imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlm_kernel.models.litellm_models import LitellmModels
    from rlm_kernel.models.scripted import ScriptedModels

__all__ = ["LitellmModels", "ScriptedModels"]

_HOMES = {"LitellmModels": "rlm_kernel.models.litellm_models", "ScriptedModels": "rlm_kernel.models.scripted"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

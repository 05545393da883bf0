"""What a kernel imports before its first cell: no more than it needs there, as each question starts one.

Much of what ipykernel imports is for others: a debugger, the clients of kernels, dates in forms that no
message has. While it is imported, stand-ins are in place of these. Afterwards they are gone, so that code in
a cell has the real ones.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from types import ModuleType
from typing import Any

from rlm_runtime import bundle

_CLIENT = "jupyter_client"
_WITHOUT_OPENSSL = ("hashlib", "hmac")
_OF_PACKAGES = ("__all__", "__version__")
"""Special names that only the code of a package gives; Python asks all modules for the others."""


@contextlib.contextmanager
def imports(*, debugger: bool) -> Iterator[None]:
    """Within this ipykernel is imported and its kernel made, before any code that is not trusted runs.

    `debugger`: one can attach to the kernel later.
    """
    stand_ins: dict[str, Any] = {} if debugger else {"debugpy.server": None}
    stand_ins |= {
        "dateutil.parser": _module("dateutil.parser", isoparse=_isoparse),
        "dateutil.tz": _module("dateutil.tz", tzlocal=lambda: import_module("dateutil.tz").tzlocal()),
        "packaging.version": _module(
            "packaging.version", Version=lambda text: import_module("packaging.version").Version(text)
        ),
        "_hashlib": None,  # OpenSSL: what signs Jupyter's messages has Python's own digests
    }
    gc.disable()  # nothing of what is imported is garbage
    sys.modules.update(stand_ins)
    try:
        with contextlib.nullcontext() if debugger else bundle.installed(bundle.KERNEL):
            _open_lazily(
                _CLIENT,
                write_connection_file="connect",
                find_connection_file="connect",
                BlockingKernelClient="blocking.client",
            )
            yield
    finally:
        for name, stand_in in stand_ins.items():
            if name in sys.modules and sys.modules[name] is stand_in:
                del sys.modules[name]
        for name in _WITHOUT_OPENSSL:
            sys.modules.pop(name, None)
        gc.freeze()  # nor will it be
        gc.enable()


def _module(name: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(names)
    return module


def _isoparse(text: str) -> Any:
    """The date of a message's header. Those of Jupyter's programs are as Python itself reads them."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return import_module("dateutil.parser").isoparse(text)


def _open_lazily(name: str, **known: str) -> None:
    """Have a package whose own code runs once something of it is asked for that no import of its modules has
    brought, and is not `known` to be in one of them.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    package, loader = importlib.util.module_from_spec(spec), spec.loader

    def missing(wanted: str) -> Any:
        if wanted in known:
            return getattr(import_module(f"{name}.{known[wanted]}"), wanted)
        if wanted.startswith("__") and wanted not in _OF_PACKAGES:
            raise AttributeError(wanted)
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, wanted)

    package.__dict__["__getattr__"] = missing
    sys.modules[name] = package

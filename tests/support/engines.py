"""The engines that rlm is tried on, by name.

`EACH` are the parameters of a test that runs on all of them, `REMOTE` on those elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.far_engine import Desktop, Ssh, Tls
from tests.support.own_engine import GVisor, OwnEngine, Remapped
from tests.support.rootless import Podman, Rootless, RootlessPodman

ENGINES: dict[str, type[OwnEngine]] = {
    "local": OwnEngine,
    "tls": Tls,
    "ssh": Ssh,
    "desktop": Desktop,
    "gvisor": GVisor,
    "userns-remap": Remapped,
    "rootless": Rootless,
    "podman": Podman,
    "rootless-podman": RootlessPodman,
}
QUICK = ("tls",)
"""Those of `make test`; the others are of `make test-hostile`."""


def parameters(names: Iterable[str]) -> list[Any]:
    """For the fixture `engine`.

    The tests of an engine share it, in one process, and have the time to load an image into it.
    """
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.xdist_group(f"engine {name}"),
                pytest.mark.timeout(300),
                *([] if name in QUICK else [pytest.mark.hostile]),
            ],
        )
        for name in names
    ]


EACH = parameters(ENGINES)
REMOTE = parameters(name for name, kind in ENGINES.items() if kind.far)

"""Where questions are answered: `--engine` of `rlm batch` and `rlm bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from rlm_kernel.cli.options import SANDBOX, option
from rlm_kernel.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlm_kernel.config import Settings
    from rlm_kernel.session.batch.engine import Engine
    from rlm_kernel.session.batch.results import Paid
    from rlm_kernel.session.batch.run import Budget
    from rlm_kernel.session.environment import Say

ENGINE = Annotated[
    str,
    option(
        SANDBOX,
        "--engine",
        metavar="local|ray|ray://HOST:PORT",
        help="Where the questions are answered: on this machine, or by the nodes of a Ray cluster.",
    ),
]
LOCAL = "local"


@dataclass(frozen=True)
class Where:
    """What the command line says of the engine. `jobs`: questions at one time, None for as many as there is
    room for.
    """

    name: str
    jobs: int | None
    budget: Budget


def checked_engine(name: str) -> str:
    """Raises UsageError."""
    if name in (LOCAL, "ray") or name.startswith("ray://"):
        return name
    raise UsageError(f"There is no engine {name!r}.", hint="Choose local, ray, or ray://HOST:PORT.")


def engine_of(
    settings: Settings, where: Where, paid: Paid, say: Say, tools: Mapping[str, Any], models: Any = None
) -> Engine:
    """The engine, which is not open yet.

    `paid`: by earlier runs; `tools` as of Asker. `models`: those of this process, where they are open; a
    cluster has its own.
    """
    if where.name == LOCAL:
        from rlm_kernel.session.batch.local import local_engine

        return local_engine(settings, where.jobs, where.budget, paid, say=say, models=models, **tools)
    from rlm_kernel.session.batch.ray_engine import OnRay, RayEngine

    address, left = None if where.name == "ray" else where.name, where.budget.left(paid)
    return RayEngine(
        where.budget.of_each(settings),
        OnRay(address, left.cost, left.tokens, where.jobs),
        tools=tools,
        say=say,
    )

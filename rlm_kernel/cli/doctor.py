"""`rlm doctor`: checks the installation, says what to type for what is missing, and with `--fix` does it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import platform
import shutil
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli.options import JSON, SettingsOptions, with_options
from rlm_kernel.errors import LocalModelError, SetupError

if TYPE_CHECKING:
    from docker import DockerClient

    from rlm_kernel.config import SandboxSettings, Settings


_INDENT = 24
"""Columns before what a line tells."""


@dataclass(frozen=True)
class Check:
    """One thing of the set-up.

    `needed`: `rlm ask` fails without it. `fix` is what to type, empty when nothing need be.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


@with_options
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Install, start and build what is missing; each step is announced.")
    ] = False,
    local_model: Annotated[
        bool, typer.Option("--local-model", help="With --fix: also download the local model (1.1 GB).")
    ] = False,
    as_json: JSON = False,
    *,
    options: SettingsOptions,
) -> None:
    """Check the installation, and say how to fix it.

    Exit code 3 if `rlm ask` cannot work.
    """
    from rlm_kernel.config import load_api_keys

    load_api_keys()
    settings = options.settings()
    sandbox = settings.sandbox
    failed = _fix(sandbox, local_model) if fix else None
    checks = [replace(check, fix="") if check.ok else check for check in _checks(settings)]
    ready = all(check.ok for check in checks if check.needed)
    if as_json:
        json.dump({"ready": ready, "checks": [asdict(check) for check in checks]}, sys.stdout, indent=2)
        typer.echo()
    else:
        for check in checks:
            typer.echo(
                _wrapped(
                    f"{'ok' if check.ok else 'MISSING' if check.needed else '-':8}{check.name:16}"
                    f"{check.detail}",
                    _INDENT,
                )
            )
            if not check.ok and check.fix:
                typer.echo(_wrapped(f"{'':{_INDENT}}→ {check.fix}", _INDENT + 2))
    if failed is not None:
        raise failed
    if not ready:
        raise typer.Exit(SetupError.exit_code)


def _wrapped(line: str, indent: int) -> str:
    """In a terminal, lines that are too long go on below their own beginning; elsewhere each stays one
    line.
    """
    if not sys.stdout.isatty():
        return line
    width = max(shutil.get_terminal_size().columns, indent + 20)
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def _say(line: str) -> None:
    typer.echo(f"rlm doctor: {line}", err=True)


def _fix(sandbox: SandboxSettings, local_model: bool) -> SetupError | None:
    """Do what can be done; the error that stopped it, to be raised after the report."""
    from rlm_kernel.sandbox.engine_setup import ensure_engine
    from rlm_kernel.sandbox.image import ensure_image

    weights = threading.Thread(
        target=_pull_weights, daemon=True
    )  # beside the image: one waits for the network, one for the disk
    if local_model:
        weights.start()
    try:
        with closing(ensure_engine(_say)) as client:
            if sandbox.image is None:
                ensure_image(client, base=sandbox.base, progress=_say)
    except SetupError as error:
        return error
    finally:
        if local_model:
            weights.join()
    return None


def _pull_weights() -> None:
    """Fetch the local model. A failure is told and no more: other models may be at hand."""
    from rlm_kernel.models.weights import is_pulled, pull

    if is_pulled("local"):
        return
    _say("downloading the local model (1.1 GB, once)")
    try:
        pull("local", progress=_tenths(_say))
    except LocalModelError as error:
        _say(str(error))


def _tenths(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """A progress callback for bytes that says something at each tenth."""
    said = 0

    def progress(done: int, total: int) -> None:
        nonlocal said
        if total and done * 10 // total > said:
            said = done * 10 // total
            say(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    return progress


def _checks(settings: Settings) -> Iterator[Check]:
    from rlm_kernel.sandbox.docker_host import connect

    sandbox = settings.sandbox

    yield _check_python()
    try:
        client = connect()
    except SetupError as error:
        yield Check("docker", False, error.message, error.hint)
        yield Check("image", False, "unknown without Docker", "rlm doctor --fix")
    else:
        with closing(client):
            yield from _check_docker(client, sandbox)
    yield _check_local_model()
    yield _check_keys()
    yield from _check_keyring()
    if settings.mcp.servers:
        yield from _check_mcp_servers(settings)


def _check_mcp_servers(settings: Settings) -> Iterator[Check]:
    from rlm_kernel.cli.tools import started_servers

    for server in started_servers(settings):
        name, needed = f"mcp {server.name}", settings.mcp.servers[server.name].required
        if server.problem is None:
            yield Check(name[:16], True, f"starts, with {len(server.tools)} tools (rlm tools)", needed=needed)
        else:
            yield Check(name[:16], False, server.problem.message, server.problem.hint, needed)


def _check_python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check(
        "python", ok, f"{platform.python_version()} in {sys.prefix}", "Install Python 3.11 or later."
    )


def _check_docker(client: DockerClient, sandbox: SandboxSettings) -> Iterator[Check]:
    from rlm_kernel.sandbox.docker_host import engine_facts
    from rlm_kernel.sandbox.engine_address import find
    from rlm_kernel.sandbox.engine_errors import docker_errors
    from rlm_kernel.sandbox.image import find_image, image_tag, inspect_image
    from rlm_kernel.sandbox.isolation import engine_has, is_rootless, isolation, missing_limits

    with docker_errors():
        facts = client.info()
        kind = "podman" if engine_facts(client).podman else "engine"
    traits = ["rootless" if is_rootless(facts) else "rootful"]
    traits += [
        f"cgroup v{facts.get('CgroupVersion', '1')} ({facts.get('CgroupDriver', '?')})",
        facts.get("OperatingSystem", ""),
    ]
    yield Check("docker", True, f"{kind} {facts['ServerVersion']}, {', '.join(traits)}")
    address = find()
    yield Check(
        "reached",
        address.is_safe,
        f"{address}: {address.way}",
        "Set up certificates for it (DOCKER_TLS_VERIFY), or connect by ssh.",
        False,
    )
    yield _check_room(facts, sandbox)
    limits = missing_limits(facts)
    detail = f"the engine cannot limit {', '.join(limits)}" if limits else "memory, CPU and pids"
    yield Check("limits", not limits, detail, "Enable cgroups. A rootless engine needs cgroups version 2.")
    seccomp, tight = engine_has(facts, "seccomp"), sandbox.seccomp == "tight"
    detail = "few system calls" if tight else "the engine's default profile"
    yield Check(
        "seccomp",
        seccomp,
        detail if seccomp else "off",
        "Enable seccomp in the engine, or set sandbox.seccomp to engine.",
        tight,
    )
    found = isolation(facts, sandbox)
    yield Check(
        "isolation", found.grade != "D", f"{found.grade}: {found.because}", found.better, needed=False
    )
    if sandbox.image is None:
        wanted, image, fix = image_tag(sandbox.base), find_image(client, sandbox.base), "rlm image build"
    else:
        wanted, image, fix = (
            sandbox.image,
            inspect_image(client, sandbox.image),
            f"docker pull {sandbox.image}",
        )
    if image is None:
        yield Check("image", False, f"{wanted} is missing", fix)
        return
    yield Check("image", True, f"{image.tag}, Python {image.python or '?'}, {image.size / 1e6:.0f} MB")
    yield from _check_sandbox(client, wanted, sandbox)


def _check_room(facts: Mapping[str, Any], sandbox: SandboxSettings) -> Check:
    """Of the engine's machine, which may be another one, or a virtual one in this."""
    from rlm_kernel.config import parse_size
    from rlm_kernel.sandbox.room import SHARE

    memory = parse_size(sandbox.memory)
    total, cpus = int(facts.get("MemTotal") or 0), int(facts.get("NCPU") or 0)
    fitting = int(total * SHARE) // memory
    detail = (
        f"{total / (1 << 30):.1f} GiB and {cpus} CPUs: {fitting} kernels at once, of "
        f"{memory / (1 << 30):.3g} GiB each"
    )
    more = (
        "Give the virtual machine more memory (Docker Desktop: Settings, Resources), or the kernel less: "
        "RLM_SANDBOX__MEMORY=1g."
    )
    return Check(
        "memory",
        fitting > 0 or not total,
        detail if total else "the engine does not say",
        more,
        needed=False,
    )


def _check_sandbox(client: DockerClient, image: str, sandbox: SandboxSettings) -> Iterator[Check]:
    """One container tells of both: whether it is heard, and which folders it sees."""
    from rlm_kernel.sandbox.engine_errors import hint_for
    from rlm_kernel.sandbox.probe import folders_of, sandbox_problem

    folders = _folders()
    shares = folders_of(path for path, copied in folders.items() if not copied)
    problem = sandbox_problem(client, image, sandbox, shares)
    if problem is None:
        yield Check("sandbox", True, "a locked container starts, and rlm can talk to it")
        yield Check("files", True, _told(folders, shares.unseen), needed=False)
        return
    runtime = f"Remove the setting sandbox.runtime ({sandbox.runtime}). " if sandbox.runtime else ""
    fix = hint_for(problem) or f"{runtime}See the engine's log, or use another engine (DOCKER_HOST)."
    yield Check("sandbox", False, f"a locked container failed: {problem}", fix)


def _folders() -> dict[Path, bool]:
    """The folders where people's files mostly are, each with whether it is closed to the container's user."""
    from rlm_kernel.sandbox.late_mounts import readable_inside

    found: dict[Path, bool] = {}
    for place in (Path.cwd, Path.home, lambda: Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError, RuntimeError):  # it is not there, or nobody knows
            path = place().resolve(strict=True)
            found[path] = not readable_inside(path.stat())
    return found


def _told(folders: Mapping[Path, bool], unseen: Sequence[Path]) -> str:
    """Which of them the engine sees, and what is done for the others."""
    ways = {
        "visible to the engine, so mounted": [
            path for path, copied in folders.items() if not copied and path not in unseen
        ],
        "not visible to the engine, so sent to it once": unseen,
        "not readable for the container's user, so copied first": [
            path for path, copied in folders.items() if copied
        ],
    }
    return "; ".join(f"{', '.join(map(str, paths))}: {way}" for way, paths in ways.items() if paths)


def _check_local_model() -> Check:
    from rlm_kernel.models.weights import is_pulled, weights_path

    if importlib.util.find_spec("xllamacpp") is None:
        return Check(
            "local model",
            False,
            "xllamacpp is not installed",
            "pip install 'rlm-kernel[local]'",
            needed=False,
        )
    if not is_pulled("local"):
        return Check("local model", False, "its weights are not downloaded", "rlm models pull", needed=False)
    return Check("local model", True, str(weights_path("local")), needed=False)


def _check_keys() -> Check:
    from rlm_kernel.config import find_api_keys

    keys = [f"{name} ({place})" for name, place in find_api_keys().items() if name.endswith("_API_KEY")]
    detail = ", ".join(keys) if keys else "none in the environment, .env or the keyring"
    return Check(
        "API keys",
        bool(keys),
        detail,
        "rlm auth add openai (or another provider), export OPENAI_API_KEY=…, or `--model local`",
        needed=False,
    )


def _check_keyring() -> Iterator[Check]:
    """Whether it gives the keys that were put there; a machine without such keys needs none."""
    from rlm_kernel.models._keyring import keyring_problems

    problems = keyring_problems()
    if problem := next(filter(None, problems.values()), None):
        yield Check("keyring", False, problem.message, problem.hint, needed=False)
    elif problems:
        yield Check("keyring", True, f"gives {', '.join(problems)}", needed=False)

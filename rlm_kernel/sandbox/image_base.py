"""What the kernel image is built from: a base image with Python, and wheels for that Python, both found by
the host.
"""

from __future__ import annotations

import hashlib
import importlib.util
import queue
import re
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_contract import base_python

from rlm_kernel import system
from rlm_kernel.errors import ImageError
from rlm_kernel.sandbox import containers, kernel_says
from rlm_kernel.sandbox.debian import bootstrap_base
from rlm_kernel.sandbox.docker_host import has_image

if TYPE_CHECKING:
    from docker import DockerClient

DEFAULT_BASE = "python:3.12-slim"
PIP = "pip==26.3"
"""Installs the wheels inside the build; it comes as a wheel too."""
OLDEST_PYTHON = (3, 11)
REGISTRY_SECONDS = 20
"""A registry that says nothing for this long counts as out of reach."""

Progress = Callable[[str], None]

_GLIBC = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


@dataclass(frozen=True)
class Base:
    """A base image that the engine has, and the Python in it."""

    name: str
    version: tuple[int, int, int]
    machine: str
    glibc: tuple[int, int]

    @property
    def python(self) -> str:
        """Such as `3.12.4`."""
        return ".".join(map(str, self.version))

    def platforms(self) -> list[str]:
        """The wheel platform tags that fit, newest first."""
        major, newest = self.glibc
        oldest = 5 if self.machine in ("x86_64", "i686") else 17
        tags = [f"manylinux_{major}_{minor}_{self.machine}" for minor in range(newest, oldest - 1, -1)]
        return [
            *tags,
            *(f"{name}_{self.machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")),
        ]


def find_base(client: DockerClient, base: str | None, progress: Progress) -> Base:
    """Have the base image: the local one, else pulled, else (default base only) made from the host's package
    archive.

    Raises:
        ImageError: it cannot be had, or its Python does not fit.
    """
    wanted = base or DEFAULT_BASE
    reason = None if has_image(client, wanted) else _pull(client, wanted, progress)
    if reason is None:
        return _probe(client, wanted)
    if base is not None:
        raise ImageError(
            f"The base image {base} is missing and cannot be pulled: {reason}",
            hint="Name one that `docker images` lists, or load it first (`docker load -i FILE`).",
        )
    progress(f"{wanted} cannot be pulled: {reason}")
    return _probe(client, bootstrap_base(client, reason, progress))


def fetch_wheels(base: Base, requirements: Path, progress: Progress) -> Path:
    """The directory with every wheel of `requirements` for `base`'s Python, and pip's own; fetched once, then
    kept.

    Raises:
        ImageError: pip is missing or cannot get a wheel.
    """
    tags = base.platforms()
    abi = f"cp{base.version[0]}{base.version[1]}"
    key = hashlib.sha256(
        "\n".join([requirements.read_text("utf-8"), PIP, base.python, *tags]).encode()
    ).hexdigest()[:12]
    wheels = wheels_dir() / key
    if wheels.is_dir():
        return wheels
    if importlib.util.find_spec("pip") is None:
        raise ImageError(
            f"rlm needs pip to fetch the wheels for the kernel image, and {sys.executable} has no pip.",
            hint=f"Type `{sys.executable} -m ensurepip`, then try again.",
        )
    progress(f"fetching wheels for Python {base.python} on {base.machine}")
    wheels.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{key}-", dir=wheels.parent) as scratch:
        partial = Path(scratch, "wheels")
        options = [
            "--only-binary=:all:",
            "--no-deps",
            "--implementation=cp",
            f"--python-version={base.python}",
        ]
        options += [f"--abi={name}" for name in (abi, "abi3", "none")] + [f"--platform={tag}" for tag in tags]
        _run_pip(["download", "--dest", str(partial), *options, "-r", str(requirements), PIP], progress)
        try:
            partial.rename(wheels)
        except OSError:
            if not wheels.is_dir():  # else another process was faster
                raise
    return wheels


def wheels_dir() -> Path:
    """Where fetched wheels are kept, in a folder for each set; KEY-* is one that is being fetched."""
    return system.cache_dir() / "wheels"


def _run_pip(arguments: list[str], progress: Progress) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line.rstrip())
            if line.startswith(("Collecting", "ERROR")):
                progress(line.rstrip())
    if pip.returncode:
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-5:]
        raise ImageError(
            "pip could not fetch the wheels for the kernel image:\n" + "\n".join(errors),
            hint="Check that pip can reach its package index from this machine (`pip config list`), then "
            "try again.",
        )


def _pull(client: DockerClient, name: str, progress: Progress) -> str | None:
    """Pull `name`; None when it is here now, else why not."""
    progress(f"pulling {name}")
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    # A thread, because docker-py waits for the engine's first word without a time-out while the engine tries
    # the registry.
    threading.Thread(target=_pull_events, args=(client, name, events.put), daemon=True).start()
    while True:
        try:
            event = events.get(timeout=REGISTRY_SECONDS)
        except queue.Empty:
            return f"the registry did not answer for {REGISTRY_SECONDS} s"
        if event is None:
            return None
        if "error" in event:
            return str(event["error"]).strip()
        if event.get("status") in ("Pull complete", "Download complete"):
            progress(f"{event['status']} {event.get('id', '')}")


def _pull_events(client: DockerClient, name: str, put: Callable[[dict[str, Any] | None], None]) -> None:
    import docker

    _, _, tail = name.rpartition("/")
    tag = None if ":" in tail or "@" in tail else "latest"
    try:
        for event in client.api.pull(name, tag=tag, stream=True, decode=True):
            put(event)
        put(None)
    except (docker.errors.DockerException, OSError) as error:
        put({"error": getattr(error, "explanation", None) or str(error)})


def _probe(client: DockerClient, name: str) -> Base:
    """Ask the Python in `name` what it is."""
    import docker

    fit = (
        f"Name a glibc-based image with CPython {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later: `rlm "
        "image build --base IMAGE`."
    )
    try:
        with containers.made(
            client,
            f"rlm-probe-{secrets.token_hex(4)}",
            image=name,
            command=["-c", Path(base_python.__file__).read_text("utf-8")],
            labels=containers.owner_labels(),
            entrypoint=["python3"],
            network_mode="none",
            user="65534:65534",
            log_config={"type": "json-file"},
        ) as container:
            container.start()
            status = container.wait()["StatusCode"]
            answer: bytes = container.logs(stdout=True, stderr=False)
            said = container.logs(stdout=False, stderr=True).decode(errors="replace").strip()
        if status:
            raise ImageError(
                f"The base image {name} has no working python3: {said or f'it ended with status {status}'}",
                hint=fit,
            )
    except docker.errors.DockerException as error:
        raise ImageError(f"The base image {name} has no working python3: {error}", hint=fit) from error
    facts = kernel_says.Python.parse(answer)
    if facts is None:
        raise ImageError(
            f"The base image {name} has no working python3: it did not report its version.", hint=fit
        )
    library, number = facts.glibc
    version = (facts.version[0], facts.version[1], facts.version[2])
    glibc = _GLIBC.match(number)
    if facts.implementation != "cpython" or version < OLDEST_PYTHON or library != "glibc" or glibc is None:
        found = (
            f"{facts.implementation} {'.'.join(map(str, version))} on {library or 'another C library'} "
            f"{number}"
        )
        raise ImageError(f"The base image {name} cannot be used: {found}.", hint=fit)
    return Base(name, version, facts.machine, (int(glibc[1]), int(glibc[2])))

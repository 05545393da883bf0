"""What a Debian-like host can do for itself as root: install packages, and make a base image from its own
package archive.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.errors import ImageError, SetupError
from rlm_kernel.sandbox.docker_host import has_image
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.system import is_root

if TYPE_CHECKING:
    from docker import DockerClient

_BASE_PACKAGES = "python3,ca-certificates"
_UNNEEDED = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
)


def is_root_on_debian() -> bool:
    """Whether packages of Debian can be installed here."""
    return is_root() and shutil.which("apt-get") is not None


def apt_install(package: str, why: str, progress: Callable[[str], None]) -> None:
    """Install `package`, which is said through `progress` before it happens.

    Raises:
        SetupError: apt-get failed.
    """
    progress(f"installing the package {package} with apt-get: {why}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-y"]
    _run([*apt, "update"], environment, check=False)  # a broken third-party source need not matter
    _run([*apt, "install", "--no-install-recommends", package], environment)


def bootstrap_base(client: DockerClient, why: str, progress: Callable[[str], None]) -> str:
    """The name of a minimal image with Python, made once from this host's package archive.

    Raises:
        ImageError: this host cannot; `why` says why one was needed.
    """
    suite = _os_release().get("VERSION_CODENAME", "")
    if not (suite and is_root_on_debian()):
        raise ImageError(
            f"There is no base image for the kernel: rlm cannot reach a registry ({why}), and can make one "
            "here only as root on Debian or Ubuntu.",
            hint="Load an image that has Python 3.11 or later (`docker load -i FILE`), then type `rlm image "
            "build --base IMAGE`.",
        )
    name = f"rlm-kernel-base:{suite}"
    if not has_image(client, name):
        _make_base(client, name, suite, progress)
    return name


def _make_base(client: DockerClient, name: str, suite: str, progress: Callable[[str], None]) -> None:
    if shutil.which("mmdebstrap") is None:
        apt_install(
            "mmdebstrap", "rlm needs it to make the base image from this host's package archive", progress
        )
    progress(f"making the base image {name} from this host's package archive (a minute or so)")
    options = [
        "--variant=minbase",
        f"--include={_BASE_PACKAGES}",
        *(f"--dpkgopt=path-exclude={path}" for path in _UNNEEDED),
    ]
    with tempfile.TemporaryDirectory(prefix="rlm-base-") as scratch:
        tar, sources = Path(scratch, "base.tar"), Path(scratch, "sources.list")
        sources.write_text("\n".join(archive_sources(Path("/etc/apt"), suite)) + "\n")
        mirror = [str(sources)] if sources.stat().st_size > 1 else []
        try:
            _run(
                ["mmdebstrap", "--quiet", *options, suite, str(tar), *mirror],
                {**os.environ, "TMPDIR": scratch},
            )
        except SetupError as error:
            raise ImageError(
                f"The base image could not be made: {error.message}",
                hint="Load one that has Python 3.11 or later (`docker load -i FILE`), then type `rlm image "
                "build --base IMAGE`.",
            ) from error
        with docker_errors():
            client.api.import_image_from_file(str(tar), repository=name)  # podman takes no `tag` beside it


def archive_sources(etc_apt: Path, suite: str) -> Iterator[str]:
    """The one-line apt sources of the distribution's own archive: `suite`, its updates and its security,
    nothing of third parties.
    """
    ours = {suite, f"{suite}-updates", f"{suite}-security"}
    files = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    for path in files:
        if not path.is_file():
            continue
        text = path.read_text("utf-8", errors="replace")
        entries = (
            _stanzas(text) if path.suffix == ".sources" else _lines(text) if path.suffix == ".list" else []
        )
        for options, uri, its_suite, components in entries:
            if its_suite in ours and "main" in components.split():
                yield f"deb {options}{uri} {its_suite} {components}"


_Entry = tuple[str, str, str, str]


def _lines(text: str) -> Iterator[_Entry]:
    for match in re.finditer(r"^deb\s+(\[[^]]*]\s+)?(\S+)\s+(\S+)\s+([^#\n]+)", text, re.MULTILINE):
        yield match[1] or "", match[2], match[3], match[4].strip()


def _stanzas(text: str) -> Iterator[_Entry]:
    without_comments = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields = {
            m[1].lower(): m[2].strip()
            for m in re.finditer(r"^([\w-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", stanza, re.MULTILINE)
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
            continue
        key = fields.get("signed-by", "")
        options = f"[signed-by={key}] " if key.startswith("/") and len(key.split()) == 1 else ""
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield options, uri, suite, " ".join(fields.get("components", "").split())


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _run(command: list[str], environment: dict[str, str], *, check: bool = True) -> None:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if check and done.returncode:
        tail = "\n".join((done.stderr or done.stdout).splitlines()[-10:])
        raise SetupError(
            f"`{' '.join(command[:4])} …` failed with status {done.returncode}:\n{tail}",
            hint="Run this command yourself, then try again.",
        )

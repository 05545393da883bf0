"""What `rlm doctor` says where Docker is missing, and what `--fix` may and may not do."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from typer.testing import CliRunner, Result

from rlm_kernel.cli import app
from rlm_kernel.config import SandboxSettings, note_kept
from rlm_kernel.errors import DockerError, SetupError
from rlm_kernel.sandbox import docker_host, engine_errors, engine_setup, late_mounts, probe, shares
from rlm_kernel.sandbox.container_spec import SandboxSpec
from tests.support import keyrings
from tests.support.terminal import Terminal

# docker-py leaves its socket open when the engine is not there.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
NO_ENGINE = "unix:///nonexistent/docker.sock"


@pytest.fixture(autouse=True)
def _leaks_stay_in_the_test_that_made_them() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def rlm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `rlm` where no Docker engine is."""
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_a_missing_engine_is_said_with_what_to_type_and_ends_with_3(rlm: Callable[..., Result]) -> None:
    result = rlm("doctor")
    assert result.exit_code == 3
    assert f"There is no Docker engine at {NO_ENGINE}" in result.stdout
    assert "→ Correct or unset DOCKER_HOST" in result.stdout


def test_the_report_is_one_json_object_with_names_of_keys_and_never_their_values(
    rlm: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    Path(".env").write_text("ANTHROPIC_API_KEY=sk-of-the-file\n")
    # The file's keys are put into os.environ: known to monkeypatch, they go again.
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")
    result = rlm("doctor", "--json")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ready"] is False
    assert checks["python"] == {
        "name": "python",
        "ok": True,
        "detail": checks["python"]["detail"],
        "fix": "",
        "needed": True,
    }
    assert checks["docker"]["fix"]
    assert checks["API keys"]["detail"] == "ANTHROPIC_API_KEY (.env), OPENAI_API_KEY (environment)"
    assert "sk-of" not in result.stdout


def test_a_keyring_that_is_locked_is_said_with_what_to_do(
    rlm: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note_kept("OPENAI_API_KEY")
    keyrings.use("Locked", monkeypatch, tmp_path / "ring.json")
    checks = {check["name"]: check for check in json.loads(rlm("doctor", "--json").stdout)["checks"]}
    assert checks["API keys"]["detail"] == "OPENAI_API_KEY (keyring)"
    assert (checks["keyring"]["ok"], checks["keyring"]["needed"]) == (False, False)
    assert "locked" in checks["keyring"]["detail"]
    assert "Unlock it" in checks["keyring"]["fix"]


def test_a_missing_key_or_local_model_is_no_failure(rlm: Callable[..., Result]) -> None:
    checks = json.loads(rlm("doctor", "--json").stdout)["checks"]
    optional = {check["name"]: check for check in checks if not check["needed"]}
    assert {"API keys", "local model"} <= set(optional)
    assert not optional["local model"]["ok"]
    assert optional["local model"]["fix"]


def test_fix_reports_and_then_fails_where_the_named_engine_does_not_answer(
    rlm: Callable[..., Result],
) -> None:
    result = rlm("doctor", "--fix")
    assert "MISSING" in result.stdout
    assert isinstance(result.exception, DockerError)


def test_folders_are_seen_or_sent_or_copied_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The engine is one that refuses to mount what lies in the folder at the top of `tmp_path`, and sees all
    else.
    """
    tried: list[list[str]] = []

    def refuses(_client: DockerClient, spec: SandboxSpec) -> None:
        mounted = [source for source, _ in spec.shares.binds()]
        tried.append(mounted)
        for path in mounted:
            if path.startswith(os.path.join(*tmp_path.parts[:2], "")):
                raise DockerError(f"The Docker engine refused: bind source path does not exist: {path}")

    monkeypatch.setattr(shares, "_unseen", set())
    monkeypatch.setattr(probe, "_try", refuses)
    monkeypatch.setattr(
        late_mounts, "readable_inside", lambda status: not os.path.samestat(status, os.stat("/etc"))
    )
    monkeypatch.setattr(Path, "home", lambda: Path("/etc"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/usr")
    monkeypatch.chdir(tmp_path)
    client: Any = None
    sandbox, files = importlib.import_module("rlm_kernel.cli.doctor")._check_sandbox(
        client, "image", SandboxSettings()
    )
    here = os.path.realpath(tmp_path)
    assert sandbox.ok
    assert files.detail == (
        f"/usr: visible to the engine, so mounted; {here}: not visible to the engine, so sent to it once; "
        "/etc: not readable for the container's user, so copied first"
    )
    assert tried == [[here, "/usr"], ["/usr"]]


def test_why_a_container_fails_comes_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_client: DockerClient, _spec: SandboxSpec) -> None:
        raise DockerError("The Docker engine refused: opening seccomp profile failed: permission denied")

    monkeypatch.setattr(probe, "_try", refuses)
    client: Any = None
    (failed,) = importlib.import_module("rlm_kernel.cli.doctor")._check_sandbox(
        client, "image", SandboxSettings()
    )
    assert not failed.ok
    assert "opening seccomp profile failed" in failed.detail
    assert "RLM_SANDBOX__SECCOMP=engine" in failed.fix


@pytest.mark.parametrize("columns", [80, 120])
async def test_in_a_terminal_lines_are_folded_to_its_width(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
    monkeypatch.setenv("COLUMNS", str(columns))
    async with Terminal(sys.executable, "-m", "rlm_kernel", "doctor") as terminal:
        await terminal.type("", "--model local`")
    lines = terminal.text.splitlines()
    assert [line for line in lines if len(line) > columns and " " in line.strip()] == []
    assert any(line.startswith(" " * 26) for line in lines) == (columns == 80)


def _no_engine() -> DockerClient:
    raise DockerError("There is no Docker engine.")


def test_nothing_is_installed_where_the_user_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("RLM_INSTALL_DOCKER", "0")
    monkeypatch.setattr(engine_setup, "connect", _no_engine)
    monkeypatch.setattr(engine_setup, "is_root_on_debian", lambda: True)
    with pytest.raises(SetupError, match="RLM_INSTALL_DOCKER=0 is set") as caught:
        engine_setup.ensure_engine(print)
    assert "apt-get install docker.io" in caught.value.hint


def test_installing_and_starting_are_announced_before_they_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    engine = object()
    happened: list[str] = []

    def apt_install(package: str, why: str, progress: Callable[[str], None]) -> None:
        progress(f"installing {package}")
        happened.append("apt")

    def succeeds(command: list[str]) -> bool:
        happened.append(" ".join(command))
        return True

    monkeypatch.setattr(
        engine_setup,
        "connect",
        lambda: engine if happened[-1].endswith(("start docker", "docker start")) else _no_engine(),
    )
    happened.append("begin")
    monkeypatch.setattr(engine_setup, "is_root_on_debian", lambda: True)
    monkeypatch.setattr(engine_setup, "_find", lambda _program: None)
    monkeypatch.setattr(engine_setup, "apt_install", apt_install)
    monkeypatch.setattr(engine_setup, "_succeeds", succeeds)
    assert engine_setup.ensure_engine(lambda line: happened.append(f"said: {line}")) is engine
    assert happened[1:4] == ["said: There is no Docker engine.", "said: installing docker.io", "apt"]
    assert happened[4].startswith("said: starting Docker Engine")
    assert len(happened) == 6


def test_each_way_of_not_reaching_an_engine_has_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def message(host: str) -> str:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(DockerError) as caught:
            docker_host.connect()
        assert caught.value.hint
        return caught.value.message

    assert "There is no Docker engine" in message(f"unix://{tmp_path}/none.sock")
    assert "No Docker engine answers" in message("tcp://127.0.0.1:1")
    assert "not the address" in message("nonsense://x")


def test_no_permission_on_the_socket_is_told_apart() -> None:
    with pytest.raises(DockerError, match="No permission") as caught, engine_errors.docker_errors():
        raise ConnectionError("Connection aborted.", PermissionError(13, "Permission denied"))
    assert "docker group" in caught.value.hint


def test_an_engine_that_does_not_answer_is_told_apart() -> None:
    with pytest.raises(DockerError, match="did not answer"), engine_errors.docker_errors():
        raise TimeoutError


def test_the_commands_load_without_docker_and_models() -> None:
    code = (
        "import sys, rlm_kernel.cli; sys.exit(str({'docker', 'litellm', 'jupyter_client', 'nbformat', "
        "'xllamacpp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"

"""Which engine is meant: DOCKER_HOST, DOCKER_CONTEXT, the current context, the usual socket; as the docker
command finds it.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import docker_host, engine_address, engine_errors


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "XDG_RUNTIME_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def context(home: Path, name: str, host: str, **endpoint: Any) -> Path:
    """Make one. Gives the folder of its certificates, which is not there yet."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    folder = home / "contexts/meta" / digest
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(
        json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, **endpoint}}})
    )
    return home / "contexts/tls" / digest / "docker"


def test_without_anything_it_is_the_usual_one() -> None:
    assert engine_address.find() == engine_address.Address(engine_address.USUAL, engine_address.USUAL_SOURCE)


def test_the_current_context_is_meant_and_the_environment_goes_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context(home, "desktop-linux", "unix:///home/me/.docker/run/docker.sock")
    context(home, "far", "ssh://me@far")
    (home / "config.json").write_text('{"currentContext": "desktop-linux"}')
    assert (
        str(engine_address.find())
        == "unix:///home/me/.docker/run/docker.sock (the docker context desktop-linux)"
    )
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert engine_address.find().url == "ssh://me@far"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert engine_address.find().url == engine_address.USUAL
    monkeypatch.setenv("DOCKER_HOST", "tcp://other:2375")
    assert str(engine_address.find()) == "tcp://other:2375 (DOCKER_HOST)"


def test_a_context_is_found_where_docker_has_no_configuration_beside_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context(home, "far", "ssh://me@far")
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert engine_address.find().url == "ssh://me@far"


@pytest.mark.parametrize("named", ["environment", "configuration"])
def test_a_context_that_is_not_there_is_told_and_no_other_engine_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    if named == "environment":
        monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    else:
        (home / "config.json").write_text('{"currentContext": "gone"}')
    with pytest.raises(DockerError, match="There is no docker context gone") as caught:
        docker_host.connect()
    assert "docker context ls" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, "\xff"])
def test_a_damaged_file_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    context(home, "far", "ssh://me@far")
    next(home.glob("contexts/meta/*/meta.json")).write_bytes(text.encode("latin-1"))
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    with pytest.raises(DockerError, match=r"cannot be read|does not contain a JSON object"):
        engine_address.find()


@pytest.mark.parametrize(
    "host",
    [
        "nonsense://x",
        "tcp://",
        "unix://",
        "ssh://",
        "ssh://me:secret@far",
        "ssh://-oProxyCommand=x",
        "ssh://far:port",
        "ssh://far?x",
        "://",
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(DockerError, match=r"not (the|an ssh) address") as caught:
        docker_host.connect()
    assert "secret" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("host", "environment", "base"),
    [
        ("tcp://far:1234", {}, "http://far:1234"),
        ("far", {}, "http://far:2375"),
        ("tcp://far", {"DOCKER_TLS_VERIFY": "1"}, "https://far:2376"),
        ("tcp://far:99/", {"DOCKER_TLS": "1"}, "https://far:99"),
        ("https://far", {}, "https://far:2376"),
        ("tcp://[::1]:99", {}, "http://[::1]:99"),
        ("tcp://[::1]", {}, "http://[::1]:2375"),
        ("tcp://far", {"DOCKER_TLS_VERIFY": ""}, "http://far:2375"),
    ],
)
def test_an_engine_over_tcp_has_its_usual_port_and_tls_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, host: str, environment: dict[str, str], base: str
) -> None:
    for name, value in {"DOCKER_HOST": host, **environment}.items():
        monkeypatch.setenv(name, value)
    assert engine_address.find().base_url == base


def test_a_contexts_own_certificates_are_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = context(home, "far", "tcp://far:2376")
    files.mkdir(parents=True)
    (files / "ca.pem").touch()
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert engine_address.find().tls == engine_address.Tls(files / "ca.pem", None, None, verify=True)
    context(home, "unsafe", "tcp://far:2376", SkipTLSVerify=True)
    monkeypatch.setenv("DOCKER_CONTEXT", "unsafe")
    tls = engine_address.find().tls
    assert tls is not None
    assert tls.context().verify_mode is ssl.CERT_NONE


def test_certificates_that_cannot_be_used_are_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("DOCKER_HOST", "tcp://127.0.0.1:1"),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", str(home)),
    ):
        monkeypatch.setenv(name, value)
    (home / "ca.pem").write_text("nothing")
    with pytest.raises(DockerError, match="certificates for the Docker engine cannot be used"):
        docker_host.connect()


def test_engines_that_may_be_meant_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home}/none.sock")
    (home / "podman").mkdir()
    (home / "podman/podman.sock").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    assert f"export DOCKER_HOST=unix://{home}/podman/podman.sock" in engine_errors.start_hint()

"""The pod of docs/kubernetes: it has the form that Kubernetes documents, keeps to the pod security standard
"restricted", and has every lock of the Docker container, or the page says that it has not.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
import yaml
from rlm_contract import COMMAND, FILES, RUN

from rlm_kernel.config import parse_size
from rlm_kernel.sandbox.container_spec import SandboxSpec, container_options
from rlm_kernel.sandbox.shares import Shares

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
DOCUMENTS = list(yaml.safe_load_all((ROOT / "docs/kubernetes/pod.yaml").read_text("utf-8")))
POD = next(one for one in DOCUMENTS if one["kind"] == "Pod")
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
"""Of Kubernetes: the first with the websocket protocol that the page needs, and the last that is known."""


def of_kind(kind: str) -> Any:
    return next(one for one in DOCUMENTS if one["kind"] == kind)


def size(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


# The form


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one["kind"])
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_each_object_has_the_documented_form_and_no_unknown_field(
    document: dict[str, Any], version: str
) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda spec: spec.update(hostNetworks=False),
        lambda spec: spec["containers"][0].update(stdin="yes"),
        lambda spec: spec["containers"][0]["securityContext"].update(readOnlyRootFileSystem=True),
        lambda spec: spec["volumes"][0]["emptyDir"].update(limit="1Gi"),
    ],
)
def test_a_field_that_does_not_exist_is_found(wrong: Callable[[Any], None]) -> None:
    pod = copy.deepcopy(POD)
    wrong(pod["spec"])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, NEWEST, strict=True)


# The pod security standard


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What of "restricted" a pod breaks, "baseline" included.

    The rules are those of https://kubernetes.io/docs/concepts/security/pod-security-standards/, for Linux and
    one form of pod: no ephemeral containers, and no rule that needs a field which ours has not.
    """
    spec = pod["spec"]
    own = spec.get("securityContext", {})
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    if own.get("windowsOptions") or own.get("seLinuxOptions") or own.get("appArmorProfile"):
        yield "other systems of security"
    if own.get("sysctls"):
        yield "sysctls"
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim"}
    kinds |= {"projected", "secret"}
    if any(set(volume) - {"name"} - kinds for volume in spec.get("volumes", [])):
        yield "volume types"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container.get("securityContext", {})
        if context.get("privileged"):
            yield "privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield "privilege escalation"
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            yield "capabilities"
        if context.get("runAsNonRoot", own.get("runAsNonRoot")) is not True:
            yield "running as non-root"
        if context.get("runAsUser", own.get("runAsUser")) == 0:
            yield "running as the user 0"
        seccomp = context.get("seccompProfile", own.get("seccompProfile", {}))
        if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
            yield "seccomp"
        if context.get("procMount", "Default") != "Default":
            yield "/proc"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield "host ports"
        probes = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
        if any(name in container for name in probes):
            yield "probes, which may name a host"


def test_the_pod_keeps_to_the_restricted_standard_and_its_namespace_enforces_it() -> None:
    assert list(violations(POD)) == []
    assert of_kind("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"].get("namespace", "rlm-kernels") for one in DOCUMENTS} == {"rlm-kernels"}


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (lambda spec: spec.update(hostPID=True), "host namespaces"),
        (lambda spec: spec["securityContext"].pop("seccompProfile"), "seccomp"),
        (lambda spec: spec["securityContext"].pop("runAsNonRoot"), "running as non-root"),
        (lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"), "capabilities"),
        (
            lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
            "privilege escalation",
        ),
        (lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volume types"),
    ],
)
def test_a_lock_that_is_given_up_breaks_the_standard(broken: Callable[[Any], Any], rule: str) -> None:
    pod = copy.deepcopy(POD)
    broken(pod["spec"])
    assert list(violations(pod)) == [rule]


# The Docker container

SPEC = POD["spec"]
CONTAINER = SPEC["containers"][0]
NONE = {"auto_remove", "log_config", "pids_limit", "ulimits"}
"""Options of Docker's without a counterpart in the pod; the page has a line for each."""
OURS = {"name", "labels", "mounts", "image", "use_config_proxy"}
"""What is no lock, or means the client of Docker; `mounts` are checked by what they are."""


def options(tmp_path: Path) -> dict[str, Any]:
    run: Any = SimpleNamespace(session_id="s", container_name="c", path=tmp_path, idle=0.0)
    ready: Any = None
    return container_options(SandboxSpec("image", run, ready, lambda _: None, shares=Shares()))


def in_memory(path: str) -> int:
    """Bytes of the memory that is mounted there."""
    (name,) = (one["name"] for one in CONTAINER["volumeMounts"] if one["mountPath"] == path)
    (found,) = (one["emptyDir"] for one in SPEC["volumes"] if one["name"] == name)
    assert found["medium"] == "Memory"
    return size(found["sizeLimit"])


def same(amount: str) -> str:
    """A resource that the pod asks for is the most that it gets."""
    limits, requests = CONTAINER["resources"]["limits"], CONTAINER["resources"]["requests"]
    assert limits == requests
    return str(limits[amount])


COUNTERPARTS: dict[str, Callable[[Any], bool]] = {
    "command": lambda it: CONTAINER["command"] == it == list(COMMAND),
    "entrypoint": lambda it: it == [] and "args" not in CONTAINER,
    "environment": lambda it: {one["name"]: one["value"] for one in CONTAINER["env"]} == it,
    "user": lambda it: (
        {"0"}.isdisjoint(it.split(":"))
        and SPEC["securityContext"]["runAsUser"] == SPEC["securityContext"]["runAsGroup"] > 0
    ),
    "working_dir": lambda it: CONTAINER["workingDir"] == it,
    "init": lambda it: it is False and SPEC["shareProcessNamespace"] is False,
    "stdin_open": lambda it: CONTAINER["stdin"] is it is True and CONTAINER["tty"] is False,
    "detach": lambda it: CONTAINER["stdinOnce"] is not it and it is False,
    "network_mode": lambda it: it == "none" and _cut_off(),
    "network_disabled": lambda it: it is False and _cut_off(),
    "runtime": lambda it: it is None and "runtimeClassName" not in SPEC,
    "read_only": lambda it: CONTAINER["securityContext"]["readOnlyRootFilesystem"] is it is True,
    "cap_drop": lambda it: CONTAINER["securityContext"]["capabilities"] == {"drop": it},
    "security_opt": lambda it: (
        it[0] == "no-new-privileges"
        and CONTAINER["securityContext"]["allowPrivilegeEscalation"] is False
        and SPEC["securityContext"]["seccompProfile"]["type"] == "Localhost"
    ),
    "privileged": lambda it: CONTAINER["securityContext"]["privileged"] is it is False,
    "ipc_mode": lambda it: it == "private" and SPEC["hostIPC"] is False,
    "mem_limit": lambda it: size(same("memory")) == it,
    "memswap_limit": lambda it: size(same("memory")) == it,
    "nano_cpus": lambda it: int(same("cpu")) * 1e9 == it,
    "shm_size": lambda it: in_memory("/dev/shm") == parse_size(it),
    "tmpfs": lambda it: (
        {
            path: f"size={in_memory(path)}," in f"{told},".replace("1m,", f"{1 << 20},")
            for path, told in it.items()
        }
        == dict.fromkeys(("/tmp", RUN), True)
    ),
}


def _cut_off() -> bool:
    policy = of_kind("NetworkPolicy")["spec"]
    return (
        policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        and not SPEC["hostNetwork"]
        and SPEC["dnsConfig"]["nameservers"] == ["127.0.0.1"]
        and SPEC["dnsPolicy"] == "None"
    )


def test_every_option_of_the_docker_container_has_its_counterpart_or_is_told_to_have_none(
    tmp_path: Path,
) -> None:
    given = options(tmp_path)
    assert set(given) == set(COUNTERPARTS) | NONE | OURS
    assert [name for name, holds in COUNTERPARTS.items() if not holds(given[name])] == []


def test_the_page_tells_of_every_option_without_a_counterpart() -> None:
    table = PAGE.split("## What has no counterpart")[1].split("\n## ")[0]
    named = {
        name
        for line in table.splitlines()
        if line.startswith("| ")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert named >= NONE
    assert not named & set(COUNTERPARTS)


def test_files_are_read_only_and_nothing_else_than_memory_can_be_written() -> None:
    mounts = {one["mountPath"]: one for one in CONTAINER["volumeMounts"]}
    assert set(mounts) == {"/tmp", RUN, "/dev/shm", FILES}
    assert mounts[FILES]["readOnly"] is True
    (files,) = (one for one in SPEC["volumes"] if one["name"] == mounts[FILES]["name"])
    assert files["persistentVolumeClaim"]["readOnly"] is True


def test_code_gets_no_account_and_no_addresses_of_the_cluster() -> None:
    assert SPEC["automountServiceAccountToken"] is False
    assert of_kind("ServiceAccount")["automountServiceAccountToken"] is False
    assert SPEC["enableServiceLinks"] is False
    assert "RoleBinding" not in {one["kind"] for one in DOCUMENTS}


def test_a_pod_ends_by_itself_and_is_not_started_again() -> None:
    assert SPEC["restartPolicy"] == "Never"
    assert 0 < SPEC["activeDeadlineSeconds"] <= 86_400


# System calls


def test_the_profile_of_system_calls_is_that_of_the_docker_container_in_the_form_of_the_oci() -> None:
    file = ROOT / "scripts" / "kubernetes_seccomp.py"
    spec = importlib.util.spec_from_file_location("kubernetes_seccomp", file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = (ROOT / "docs/kubernetes/seccomp.json").read_text("utf-8")
    assert text.strip() == made.profile(), (
        "python scripts/kubernetes_seccomp.py > docs/kubernetes/seccomp.json"
    )
    profile = json.loads(text)
    fields = {"names", "action", "errnoRet", "args"}
    assert set(profile) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert all(set(rule) <= fields for rule in profile["syscalls"]), (
        "a runtime passes over what it does not know"
    )


def test_new_namespaces_are_refused_whatever_stands_in_the_other_arguments_of_clone() -> None:
    profile = json.loads((ROOT / "docs/kubernetes/seccomp.json").read_text("utf-8"))
    rules = [rule for rule in profile["syscalls"] if "clone" in rule["names"]]
    assert [[(test["index"], test["op"], test["valueTwo"]) for test in rule["args"]] for rule in rules] == [
        [(0, "SCMP_CMP_MASKED_EQ", 0)]
    ]

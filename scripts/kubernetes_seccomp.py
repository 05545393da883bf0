"""The profile of system calls in the form that container runtimes of Kubernetes read: `python
scripts/kubernetes_seccomp.py > docs/kubernetes/seccomp.json`.

They read the form of the OCI's runtime specification, in which a rule holds for every machine. Docker's form
has rules for some machines alone; read as the other form, such a rule would hold for all.
"""

from __future__ import annotations

import json

from rlm_kernel.sandbox.syscalls import seccomp_profile

MACHINES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]


def profile() -> str:
    """As JSON. Of the rules that differ by machine, those of s390x are left out."""
    given = json.loads(seccomp_profile())
    rules = [rule for rule in given["syscalls"] if "includes" not in rule]
    for rule in rules:
        rule.pop("excludes", None)
    made = {name: given[name] for name in ("defaultAction", "defaultErrnoRet")}
    return json.dumps(made | {"architectures": MACHINES, "syscalls": rules}, indent=1)


if __name__ == "__main__":
    print(profile())

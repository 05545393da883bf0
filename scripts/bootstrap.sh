#!/bin/sh
# Makes .venv with the project (editable), the local model's runtime and the development tools. Called by the Makefile.
# PYTHON names the interpreter; otherwise the first of the usual names that is 3.11 or later.
set -eu
cd "$(dirname "$0")/.."

say() { echo "bootstrap: $*" >&2; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if new_enough "$python"; then echo "$python"; return; fi
    done
    say "Python 3.11 or later is needed; name it with PYTHON=..."
    exit 3
}

# Debian's python3 comes without ensurepip, which is in python3-venv.
make_venv() {
    if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            say "$1 lacks ensurepip: install python3-venv (as root: apt-get install python3-venv)"
            exit 3
        fi
        say "installing the package python3-venv with apt-get: $1 lacks ensurepip"
        DEBIAN_FRONTEND=noninteractive apt-get -q -y update >&2 || say "apt-get update failed; going on"
        DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends python3-venv >&2
    fi
    say "making .venv with $("$1" --version)"
    "$1" -m venv --clear .venv
}

python=$(find_python)
if ! new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    make_venv "$python"
fi
say "installing the project and its tools into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local,dev]'

#!/bin/sh
# Rootless engines for the tests of them: what is there is used as it is. Called by the Makefile. Without them those tests are skipped.
set -eu

say() { echo "engines: $*" >&2; }

there() {
    for name in rootlesskit newuidmap podman crun; do
        command -v "$name" >/dev/null || return 1
    done
}

if there; then exit; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "the tests of rootless engines are skipped: they need root, rootlesskit, uidmap, podman and crun"
    exit
fi
say "installing the packages rootlesskit, uidmap, podman and crun with apt-get: the tests of rootless engines need them"
DEBIAN_FRONTEND=noninteractive apt-get -q -y update >&2 || say "apt-get update failed; going on"
DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends rootlesskit uidmap podman crun >&2
there || { say "they are not all there after that"; exit 3; }

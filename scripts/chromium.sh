#!/bin/sh
# A Chromium for the test of JupyterLab: what is there is used as it is. Called by the Makefile.
set -eu

say() { echo "chromium: $*" >&2; }

there() {
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null; then return; fi
    done
    return 1
}

if there; then exit; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "the test of JupyterLab needs Chromium or Google Chrome: install one (as root on Debian: apt-get install chromium)"
    exit 3
fi
say "installing the packages chromium and fonts-liberation with apt-get: the test of JupyterLab needs a browser"
DEBIAN_FRONTEND=noninteractive apt-get -q -y update >&2 || say "apt-get update failed; going on"
DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends chromium fonts-liberation >&2
there

#!/bin/sh
# What the tests of other engines need: what is there is used as it is. Called by the Makefile. A test whose engine is not there is skipped.
set -eu

# A program, and the package that has it.
NEEDED="rootlesskit=rootlesskit newuidmap=uidmap podman=podman crun=crun runsc=runsc bindfs=bindfs fusermount3=fuse3
ssh=openssh-client sshd=openssh-server"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
POLICY=/usr/sbin/policy-rc.d

say() { echo "engines: $*" >&2; }

missing() {
    for pair in $NEEDED; do
        command -v "${pair%%=*}" >/dev/null || echo "${pair#*=}"
    done
}

install_one() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$1" >&2 || say "$1 cannot be installed: its tests are skipped"
}

packages=$(missing | tr '\n' ' ')
if [ -z "$packages" ]; then exit; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "some tests of other engines are skipped: they need root and the packages ${packages% }"
    exit
fi
say "installing with apt-get, for the tests of other engines: ${packages% }"
DEBIAN_FRONTEND=noninteractive apt-get -q -y update >&2 || say "apt-get update failed; going on"
if [ ! -e "$POLICY" ]; then # the tests start their own sshd: the machine's stays off
    trap 'rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
fi
for package in $packages; do
    install_one "$package"
    if [ "$package" = openssh-server ] && [ -d /run/systemd/system ]; then systemctl disable ssh >&2 || true; fi
done

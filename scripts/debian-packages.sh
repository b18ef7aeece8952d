#!/usr/bin/env bash
# Install the Debian packages that building and testing need, if they are missing.
#
#   scripts/debian-packages.sh
#
# A C compiler and make build SQLite, mimalloc and the curve library; capnproto and libcapnp-dev
# build the reference miner; python3 runs docs/receiver.py in a test, e2fsprogs and mount make the
# small disks of others; the rest is used by the scripts. As root, missing ones are installed; as
# another user, they are named.
set -euo pipefail

say() { printf 'debian-packages: %s\n' "$*" >&2; }

packages=(
    gcc g++ make libc6-dev pkg-config ca-certificates capnproto libcapnp-dev util-linux procps
    python3 e2fsprogs mount
)

if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system; make sure these or their like are there: ${packages[*]}"
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ "$state" == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $EUID -ne 0 ]]; then
    say "missing: ${missing[*]}"
    say "run as root: apt-get install --no-install-recommends ${missing[*]}"
    exit 1
fi
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null

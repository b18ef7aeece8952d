#!/usr/bin/env bash
# Build the reference implementation's SV2 miner for the interoperability tests and print its path.
#
#   scripts/mining-device.sh
#
# It is built once, from the cargo registry, into
#   ${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}/mining_device
# and not part of the workspace: its dependencies are not ours. $MINING_DEVICE_EXE wins if set.
set -euo pipefail

version=0.6.0

say() { printf 'mining-device: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

if [[ -n "${MINING_DEVICE_EXE:-}" ]]; then
    [[ -x "$MINING_DEVICE_EXE" ]] || fail "MINING_DEVICE_EXE=$MINING_DEVICE_EXE is not executable"
    printf '%s\n' "$MINING_DEVICE_EXE"
    exit 0
fi

cache=${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}
root=$cache/mining_device
program=$root/bin/mining_device

installed() {
    [[ -x "$program" ]] && grep -qs "\"integration_tests_sv2 $version " "$root/.crates.toml"
}

if ! installed; then
    mkdir -p "$cache"
    # One build at a time; whoever waited finds the result of the other.
    exec 9>"$cache/mining_device.lock"
    flock 9
    if ! installed; then
        if ! command -v capnp >/dev/null; then
            "$(dirname "$0")/debian-packages.sh"
            command -v capnp >/dev/null || fail "capnp is missing; install Cap'n Proto"
        fi
        say "building version $version, once; this takes some minutes"
        CARGO_TARGET_DIR=$cache/build-mining-device \
            cargo install integration_tests_sv2 --version "$version" --bin mining_device \
            --locked --root "$root" </dev/null >&2
        # Nothing needs the intermediate files again.
        rm -rf "$cache/build-mining-device"
    fi
fi
printf '%s\n' "$program"

#!/usr/bin/env bash
# Run cargo-deny, from PATH or from the cache; it is built into the cache once if it is nowhere.
#
#   scripts/cargo-deny.sh check licenses bans sources
set -euo pipefail

version=0.20.2
cache=${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}

if command -v cargo-deny >/dev/null; then
    exec cargo deny "$@"
fi
if [[ ! -x "$cache/cargo-deny/bin/cargo-deny" ]]; then
    mkdir -p "$cache"
    exec 9>"$cache/cargo-deny.lock"
    flock 9
    if [[ ! -x "$cache/cargo-deny/bin/cargo-deny" ]]; then
        printf 'cargo-deny: building version %s, once\n' "$version" >&2
        CARGO_TARGET_DIR=$cache/build-cargo-deny \
            cargo install cargo-deny --version "$version" --locked \
            --root "$cache/cargo-deny" </dev/null >&2
        rm -rf "$cache/build-cargo-deny"
    fi
fi
exec "$cache/cargo-deny/bin/cargo-deny" "$@"

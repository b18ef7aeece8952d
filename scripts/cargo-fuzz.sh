#!/usr/bin/env bash
# Run fuzz targets one after another, each for a number of seconds.
#
#   scripts/cargo-fuzz.sh SECONDS TARGET...
#
# cargo-fuzz is taken from PATH or built into the cache once. RUSTC_BOOTSTRAP=1 lets the stable
# compiler instrument the code. What is found stays in fuzz/corpus and fuzz/artifacts, which are
# not committed; fuzz/seeds is where every run begins.
set -euo pipefail

if [[ $# -lt 2 ]]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
seconds=$1
shift

version=0.13.2
cache=${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}
if ! command -v cargo-fuzz >/dev/null; then
    if [[ ! -x "$cache/cargo-fuzz/bin/cargo-fuzz" ]]; then
        printf 'cargo-fuzz: building version %s, once\n' "$version" >&2
        CARGO_TARGET_DIR=$cache/build-cargo-fuzz \
            cargo install cargo-fuzz --version "$version" --locked \
            --root "$cache/cargo-fuzz" </dev/null >&2
        rm -rf "$cache/build-cargo-fuzz"
    fi
    PATH=$cache/cargo-fuzz/bin:$PATH
fi

cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1
for target in "$@"; do
    folders=("fuzz/corpus/$target")
    mkdir -p "${folders[0]}"
    [[ ! -d "fuzz/seeds/$target" ]] || folders+=("fuzz/seeds/$target")
    cargo fuzz run "$target" "${folders[@]}" -- "-max_total_time=$seconds"
done

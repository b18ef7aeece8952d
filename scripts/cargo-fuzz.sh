#!/usr/bin/env bash
# Run fuzz targets, each for a number of seconds, as many at a time as there are processors.
#
#   scripts/cargo-fuzz.sh SECONDS TARGET...
#
# cargo-fuzz is taken from PATH or built into the cache once. RUSTC_BOOTSTRAP=1 lets the stable
# compiler instrument the code. What is found stays in fuzz/corpus and fuzz/artifacts, which are
# not committed; fuzz/seeds is where every run begins. A finding fails the run, and the command
# that repeats it is printed.
set -euo pipefail

if [[ $# -lt 2 ]]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
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
# Coverage alone: docs/testing.md says why no sanitizer. The workspace's own build is left alone.
options=(--sanitizer none --target-dir "$cache/fuzz-target")
cargo fuzz build "${options[@]}"

# One target: its log goes to a file of its own, so that two at a time can be told apart.
run_one() {
    local target=$1 log=fuzz/artifacts/$1.log folders=("fuzz/corpus/$1")
    mkdir -p "${folders[0]}" fuzz/artifacts
    [[ ! -d "fuzz/seeds/$target" ]] || folders+=("fuzz/seeds/$target")
    # No input may take long or much memory: what hangs or grows is a finding, too.
    if cargo fuzz run "$target" "${options[@]}" "${folders[@]}" -- \
        "-max_total_time=$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 \
        >"$log" 2>&1 </dev/null; then
        printf '%-14s %s\n' "$target" "$(grep '^Done' "$log" | tail -n 1)"
        return
    fi
    local input
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    grep -A 4 -E "panicked at|ERROR: libFuzzer|^error" "$log" | head -n 40 >&2
    printf '%s: a finding, or a target that does not run (all of it: %s)\n' "$target" "$log" >&2
    [[ -z $input ]] || printf 'again: RUSTC_BOOTSTRAP=1 cargo fuzz run %s %s %s\n' \
        "$target" "${options[*]}" "$input" >&2
    return 1
}

failed=0
running=()
for target in "$@"; do
    run_one "$target" &
    running+=($!)
    if [[ ${#running[@]} -ge $(nproc) ]]; then
        wait "${running[0]}" || failed=1
        running=("${running[@]:1}")
    fi
done
for job in "${running[@]}"; do
    wait "$job" || failed=1
done
exit "$failed"

# Sourced by the scripts that build a program of the reference implementation: mining-device.sh and
# translator.sh. Not run by itself.
#
# Each program is built once, from the cargo registry, into
#   ${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}/NAME
# and is not part of the workspace: its dependencies are not ours. The programs have many
# dependencies in common, so they are built in one folder, which goes when the last one is there.

programs=(mining_device translator_sv2)
cache=${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
fail() { say "$*"; exit 1; }

# installed NAME CRATE VERSION
installed() {
    [[ -x "$cache/$1/bin/$1" ]] && grep -qs "\"$2 $3 " "$cache/$1/.crates.toml"
}

# reference_program NAME CRATE VERSION [flags of cargo install]: builds it once, prints its path.
reference_program() {
    local name=$1 crate=$2 version=$3
    if ! installed "$name" "$crate" "$version"; then
        mkdir -p "$cache"
        # One build at a time; whoever waited finds the result of the other.
        exec 9>"$cache/reference-program.lock"
        flock 9
        if ! installed "$name" "$crate" "$version"; then
            build_program "$@"
        fi
        exec 9>&-
    fi
    printf '%s\n' "$cache/$name/bin/$name"
}

build_program() {
    local name=$1 crate=$2 version=$3
    shift 3
    if [[ "$name" == mining_device ]] && ! command -v capnp >/dev/null; then
        "$(dirname "$0")/debian-packages.sh"
        command -v capnp >/dev/null || fail "capnp is missing; install Cap'n Proto"
    fi
    say "building version $version, once; this takes some minutes"
    CARGO_TARGET_DIR=$cache/build-reference \
        cargo install "$crate" --version "$version" --bin "$name" --locked --force \
        --root "$cache/$name" "$@" </dev/null >&2
    local each
    for each in "${programs[@]}"; do
        [[ -x "$cache/$each/bin/$each" ]] || return 0
    done
    # Nothing needs the intermediate files again.
    rm -rf "$cache/build-reference"
}

# named_program VARIABLE: if the variable names a program, prints that and ends the script.
named_program() {
    local path=${!1:-}
    [[ -n "$path" ]] || return 0
    [[ -x "$path" ]] || fail "$1=$path is not executable"
    printf '%s\n' "$path"
    exit 0
}

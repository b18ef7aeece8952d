#!/usr/bin/env bash
# Fetch a real Bitcoin node for the tests and print the path of its `bitcoind`.
#
#   scripts/get-node.sh
#
# A node that is already here wins: $BITCOIND_EXE, then `bitcoind` on PATH, then the cache. Else
# Bitcoin Knots (a Bitcoin Core with wallet and ZMQ) is unpacked from Debian packages into
#   ${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}/node
# by apt with a state of its own, so that the system's packages, lists and libraries stay as they
# are. The node runs with the C library of its own suite, through that suite's loader.
#
#   NODE_SUITE    Debian suite to take it from (testing)
#   NODE_MIRROR   package mirror (the one this system uses)
set -euo pipefail

say() { printf 'get-node: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

if [[ -n "${BITCOIND_EXE:-}" ]]; then
    [[ -x "$BITCOIND_EXE" ]] || fail "BITCOIND_EXE=$BITCOIND_EXE is not an executable file"
    printf '%s\n' "$BITCOIND_EXE"
    exit 0
fi
if on_path=$(command -v bitcoind); then
    printf '%s\n' "$on_path"
    exit 0
fi

cache=${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}
node=$cache/node
if [[ -x "$node/bin/bitcoind" ]] && "$node/bin/bitcoind" -version >/dev/null 2>&1; then
    printf '%s\n' "$node/bin/bitcoind"
    exit 0
fi

for program in apt-get dpkg-deb find; do
    command -v "$program" >/dev/null ||
        fail "$program is missing; install a Bitcoin node yourself and set BITCOIND_EXE to it"
done
case $(uname -m) in
    x86_64) loader_name=ld-linux-x86-64.so.2 ;;
    aarch64) loader_name=ld-linux-aarch64.so.1 ;;
    *) fail "no recipe for $(uname -m); install a Bitcoin node and set BITCOIND_EXE to it" ;;
esac

suite=${NODE_SUITE:-testing}
mirror=${NODE_MIRROR:-}
if [[ -z "$mirror" ]]; then
    # The archive that this system is installed from; the security archive has no such suite.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        grep -v -- '-security' | head -n 1) || true
fi
[[ -n "$mirror" ]] || fail "this system names no Debian mirror; set NODE_MIRROR to one"

# Everything is made beside its final place and moved there whole, so that an interrupted or a
# second run never leaves or sees half a node.
mkdir -p "$cache"
exec 9>"$cache/node.lock"
flock 9
work=$(mktemp -d "$cache/node.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/apt/{lists,archives}/partial "$work/root" "$work/bin"
: >"$work/apt/status"
cat >"$work/apt/node.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
cat >"$work/apt/apt.conf" <<CONF
Dir::State "$work/apt";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt";
Dir::Cache::archives "$work/apt/archives";
Dir::Etc::sourcelist "$work/apt/node.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
CONF

say "fetching bitcoin-knots from Debian $suite (about 26 MB)"
export APT_CONFIG=$work/apt/apt.conf
apt-get -qq update >&2
# Against an empty status file apt resolves the whole closure, C library included.
apt-get -qq -y --download-only install bitcoin-knots >&2
for package in "$work"/apt/archives/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done

loader=$(find "$work/root" -name "$loader_name" -path '*-linux-gnu*' -print -quit)
[[ -n "$loader" ]] || fail "the packages hold no $loader_name"
libraries=$(dirname "${loader#"$work"/}")
for program in bitcoind bitcoin-cli; do
    [[ -x "$work/root/usr/bin/$program" ]] || fail "the packages hold no $program"
    cat >"$work/bin/$program" <<WRAPPER
#!/bin/sh
here=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
exec "\$here/$libraries/$loader_name" --library-path "\$here/$libraries" \\
    "\$here/root/usr/bin/$program" "\$@"
WRAPPER
    chmod +x "$work/bin/$program"
done
rm -rf "$work/apt"
version=$("$work/bin/bitcoind" -version | head -n 1) || fail "the unpacked node does not run"
rm -rf "$node"
mv "$work" "$node"
trap - EXIT
say "$version"
printf '%s\n' "$node/bin/bitcoind"

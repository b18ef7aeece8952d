#!/usr/bin/env bash
# Start a private Bitcoin node on loopback and print its pid once it answers.
#
#   scripts/start-node.sh DIR RPC_PORT [bitcoind options...]
#
# The chain is regtest, or $NODE_CHAIN (`signet` means a signet of your own with the trivial
# challenge, whose blocks need about five million hashes each). ZMQ hashblock is published on
# RPC_PORT + 1 unless NODE_ZMQ=0. The program is what scripts/get-node.sh prints.
#
#   RPC cookie:  DIR/.cookie
#   stop:        kill PID
set -euo pipefail

if [[ $# -lt 2 ]]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
directory=$1
rpc_port=$2
shift 2
chain=${NODE_CHAIN:-regtest}
bitcoind=$("$(dirname "$0")/get-node.sh")

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
: >"$directory/bitcoin.conf" # so that settings of this user's own node are not read

options=(
    "-$chain" "-datadir=$directory" -server -listen=0 -connect=0 -dnsseed=0 -natpmp=0 -discover=0
    -printtoconsole=0 -rpcbind=127.0.0.1 -rpcallowip=127.0.0.1 "-rpcport=$rpc_port"
    "-rpccookiefile=$directory/.cookie"
    # Regtest turns these on, and each new transaction and block then costs a walk of the mempool.
    -checkmempool=0 -checkblockindex=0
    # Bitcoin Knots keeps templates far below a full block unless told otherwise.
    -blockmaxweight=4000000
)
if "$bitcoind" -help | grep -q -- '-blockmaxsize'; then
    options+=(-blockmaxsize=4000000)
fi
if [[ "$chain" == signet ]]; then
    options+=(-signetchallenge=51)
fi
if [[ "${NODE_ZMQ:-1}" != 0 ]]; then
    options+=("-zmqpubhashblock=tcp://127.0.0.1:$((rpc_port + 1))")
fi

"$bitcoind" "${options[@]}" "$@" >"$directory/output.log" 2>&1 </dev/null &
pid=$!

answers() {
    local cookie
    cookie=$(cat "$directory/.cookie" 2>/dev/null) || return 1
    curl -sf -m 2 -u "$cookie" -H 'Content-Type: application/json' \
        -d '{"method":"getblockcount","params":[]}' "http://127.0.0.1:$rpc_port/" >/dev/null
}

for _ in $(seq 300); do
    if answers; then
        printf '%s\n' "$pid"
        exit 0
    fi
    if ! kill -0 "$pid" 2>/dev/null; then
        printf 'start-node: the node ended at once:\n' >&2
        tail -n 5 "$directory/output.log" >&2
        exit 1
    fi
    sleep 0.1
done
printf 'start-node: no answer on port %s within 30 s\n' "$rpc_port" >&2
kill "$pid"
exit 1

#!/usr/bin/env bash
# Build the reference implementation's SV2 miner for the interoperability tests and print its path.
#
#   scripts/mining-device.sh
#
# It is built once, from the cargo registry, into
#   ${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}/mining_device
# $MINING_DEVICE_EXE wins if set.
set -euo pipefail
source "$(dirname "$0")/reference-program.sh"

named_program MINING_DEVICE_EXE
reference_program mining_device integration_tests_sv2 0.6.0

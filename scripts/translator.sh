#!/usr/bin/env bash
# Build the reference implementation's translator, which lets SV1 miners mine at an SV2 server, for
# the interoperability tests and print its path.
#
#   scripts/translator.sh
#
# It is built once, from the cargo registry, into
#   ${RESERVEGRID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reservegrid}/translator_sv2
# $TRANSLATOR_EXE wins if set.
set -euo pipefail
source "$(dirname "$0")/reference-program.sh"

named_program TRANSLATOR_EXE
# Without its only feature, monitoring: that one can search the networks that its configuration
# names for miners, and it brings half of the dependencies.
reference_program translator_sv2 translator_sv2 0.6.0 --no-default-features

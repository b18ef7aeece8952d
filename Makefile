# The commands people type. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PROGRAMS := sv2-gateway template-manager pool-verifier reference-backend reservegrid loadgen
PACKAGES := $(addprefix -p ,$(PROGRAMS))
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

# Seconds per fuzz target, seeds of the simulator, seconds of the soak, options of the demo, kills
# of the gateway, seconds of each turn with and without stuck readers.
TIME ?= 60
SEEDS ?= 200
SEED ?=
SOAK_SECONDS ?= 3600
MINERS ?= 24
KILLS ?= 200
TURN ?= 60
DEMO ?=

.PHONY: help build run test prepare lint format licences sim bench fuzz docs
.PHONY: soak soak-demo soak-translator crash export-million bench-readers bench-journal

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## all programs, release profile, into target/release
	cargo build --release $(PACKAGES)

run: build ## the demo: all programs, a simulated chain, hashing miners (q stops; DEMO="--miners 100")
	target/release/reservegrid demo --miners $(MINERS) $(DEMO)

test: prepare ## every test, with a real node and a foreign miner
	cargo test --workspace

prepare: ## what the tests need beside Rust: system packages, a Bitcoin node, reference programs
	scripts/debian-packages.sh
	scripts/get-node.sh
	scripts/mining-device.sh
	scripts/translator.sh

lint: format licences ## formatting, clippy, licences
	cargo clippy --workspace --all-targets -- -D warnings

format: ## formatting only
	cargo fmt --all --check

licences: ## licences, banned crates and sources of everything that is linked
	scripts/cargo-deny.sh check licenses bans sources

sim: ## the simulator: SEEDS=200, or one with a trace: SEED=42
	SEEDS=$(SEEDS) $(if $(SEED),SEED=$(SEED)) cargo test --test sim -- --nocapture

bench: ## benchmarks; each prints what it measured
	cargo bench --bench wire --bench share --bench cores --bench wake

bench-journal: build ## the same load with the journal on the disk and in memory, in turn
	cargo bench --bench journal_cost

bench-readers: build ## acknowledgements with and without stuck readers, TURN=60 seconds each
	SECONDS=$(TURN) cargo bench --bench stuck_readers

crash: ## kill -9 of the gateway under load, KILLS=200 times, and not one share lost
	cargo build --workspace
	KILLS=$(KILLS) cargo test -p sv2-gateway --test crash -- --nocapture

export-million: ## an export of a million shares, and the memory that it takes
	cargo build --workspace
	EXPORT_SHARES=1000000 cargo test -p sv2-gateway --test export -- --nocapture

fuzz: ## every fuzz target for TIME=60 seconds
	scripts/cargo-fuzz.sh $(TIME) $(FUZZ_TARGETS)

soak: build ## the demo and the translator for SOAK_SECONDS=3600; fails if one was not healthy
	scripts/translator.sh
	cargo build --workspace
	cargo test --test translator --no-run
	$(MAKE) --jobs=2 soak-demo soak-translator

soak-demo:
	target/release/reservegrid demo --screen plain --miners $(MINERS) --duration $(SOAK_SECONDS) $(DEMO)

soak-translator:
	TRANSLATOR_SECONDS=$(SOAK_SECONDS) cargo test --test translator -- --nocapture

docs: ## the API pages of our own crates, into target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

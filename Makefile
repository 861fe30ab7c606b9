# Aljibe: what a person runs. Everything is built with one profile (release), into a folder outside the clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/aljibe/target

.PHONY: help build test demo bench bench-peers bench-limits bench-snapshots bench-disk bench-compaction bench-compaction-model bench-qos bench-iscsi bench-mirror vm-mirror faults-mirror soak fmt lint doc

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the program (release)
	@scripts/install-deps.sh build
	cargo build --release --locked

test: ## Install what is missing; format, lints, documentation, fuzz smoke, then every test
	@scripts/install-deps.sh test
	@scripts/test.sh

demo: ## A disk image in a volume: written, read back, checked; servers made of it; a kill -9 that loses nothing
	@scripts/install-deps.sh demo
	cargo build --release --locked
	@scripts/demo.sh

bench: bench-peers bench-limits bench-snapshots bench-compaction bench-qos bench-iscsi bench-mirror ## Every benchmark with a peer or a promised number, one after the other (some hours)

bench-peers: ## The fio matrix against nbdkit, qemu-nbd, qemu-storage-daemon and nbd-server (over an hour)
	@scripts/install-deps.sh test
	cargo build --release --locked
	python3 benches/peers/run.py $(BENCH_ARGS)

bench-limits: ## Restart after a kill, and what idle volumes cost, against their promised numbers
	@scripts/install-deps.sh test
	cargo build --release --locked
	/usr/bin/python3 benches/limits/run.py $(BENCH_ARGS)

bench-snapshots: ## What snapshots, their deletion and clones cost, against their promised numbers
	@scripts/install-deps.sh test
	cargo build --release --locked
	python3 benches/snapshots/run.py $(BENCH_ARGS)

bench-disk: ## What this disk says to the engine's open questions (docs/decisions)
	@scripts/install-deps.sh test
	python3 benches/disk/run.py $(BENCH_ARGS)

bench-compaction: ## What compaction costs writers, and how soon it gives space back, against their promised numbers
	@scripts/install-deps.sh test
	cargo build --release --locked
	python3 benches/compaction/run.py $(BENCH_ARGS)

bench-compaction-model: ## Write amplification of compaction, by a model without a disk (some minutes; docs/decisions)
	python3 benches/compaction/model.py $(BENCH_ARGS)

bench-qos: ## What a flooding neighbour costs a quiet volume, and what ceilings and shares cost, against their promised numbers
	@scripts/install-deps.sh test
	cargo build --release --locked
	python3 benches/qos/run.py $(BENCH_ARGS)

bench-mirror: ## What a mirror of two sites costs, and how long switches and failovers take, against their promised numbers
	@scripts/install-deps.sh test
	cargo build --release --locked
	/usr/bin/python3 benches/mirror/run.py $(BENCH_ARGS)

bench-iscsi: ## iSCSI beside Debian's tgt on the same disk: speed, and processor time of each I/O, against the promised ratios (root)
	@scripts/install-deps.sh test
	cargo build --release --locked
	python3 benches/iscsi/run.py $(BENCH_ARGS)

vm-mirror: ## A virtual machine whose disk is mirrored, through planned switches and the loss of a site (software emulation, a minute)
	@scripts/install-deps.sh vm
	cargo build --release --locked
	/usr/bin/python3 tests/mirror/vm.py --aljibe $(CARGO_TARGET_DIR)/release/aljibe --linux "$$(scripts/vm-linux.sh $(CARGO_TARGET_DIR)/vm-linux)"

faults-mirror: ## Two sites under cuts, stalls, a flapping link, stops, kills and a lost witness, and clients that check every answer (20 minutes)
	@scripts/install-deps.sh test
	cargo build --release --locked
	/usr/bin/python3 tests/mirror/faults.py --aljibe $(CARGO_TARGET_DIR)/release/aljibe $(FAULTS_ARGS)
	/usr/bin/python3 tests/mirror/faults.py --aljibe $(CARGO_TARGET_DIR)/release/aljibe --pass-on $(FAULTS_ARGS)

soak: ## 10,000 seeds of the simulator (ALJIBE_SIM_SEEDS=n for another number)
	@scripts/install-deps.sh build
	ALJIBE_SIM_SEEDS=$${ALJIBE_SIM_SEEDS:-10000} cargo test --release --locked -p sim --tests -- --nocapture

fmt: ## Format every source
	cargo fmt --all

lint: ## Format check and clippy, as `make test` runs them
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

doc: ## Build the documentation of every crate
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

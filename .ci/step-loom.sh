#!/usr/bin/env bash
# The models: every interleaving of each protocol between threads, within the bounds that each model states.
cd "$(dirname "$0")/.." || exit
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=target/loom exec cargo test -p besom-loom-tests --release --no-fail-fast

#!/usr/bin/env bash
# The models: every interleaving of each protocol between threads, within the bounds that each model states.
cd "$(dirname "$0")/.." || exit
RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=target/loom exec cargo test -p besom-loom-tests --release

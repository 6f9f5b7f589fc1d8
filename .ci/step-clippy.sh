#!/usr/bin/env bash
# No warning, in any crate, target or feature, nor under the model checker's configuration.
set -e
cd "$(dirname "$0")/.." || exit
cargo clippy --workspace --all-targets -- -D warnings
cargo clippy -p besom --lib --features c-library -- -D warnings
cargo clippy -p besom-tests --benches --features bench -- -D warnings
RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=target/loom cargo clippy -p besom-loom-tests --all-targets -- -D warnings

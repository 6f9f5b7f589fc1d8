#!/usr/bin/env bash
# Every Rust test, optimised. Without link-time optimisation, which takes minutes for each test program; the library
# as it ships is what the C tests are linked with.
cd "$(dirname "$0")/.." || exit
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=target/tests
BESOM_STRESS_SECONDS=${BESOM_STRESS_SECONDS:-5} exec cargo test --workspace --release --no-fail-fast

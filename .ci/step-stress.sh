#!/usr/bin/env bash
# Random histories on eight threads with verification on: a minute, or BESOM_STRESS_SECONDS.
cd "$(dirname "$0")/.." || exit
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=target/tests
BESOM_STRESS_SECONDS=${BESOM_STRESS_SECONDS:-60} exec cargo test -p besom-tests --release --test stress -- --nocapture

#!/usr/bin/env bash
# Random histories on eight threads with verification on, then last pointers moved around while cycles run, then statistics
# read in a loop against eight threads, and while anybody does anything: half a minute
# each, or BESOM_STRESS_SECONDS.
cd "$(dirname "$0")/.." || exit
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=target/tests
export BESOM_STRESS_SECONDS=${BESOM_STRESS_SECONDS:-30}
exec cargo test -p besom-tests --release --test stress --test torture --test stats --test stats_torture -- --nocapture

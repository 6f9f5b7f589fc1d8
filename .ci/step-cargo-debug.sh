#!/usr/bin/env bash
# Every Rust test with debug assertions. The long stress has a step of its own.
cd "$(dirname "$0")/.." || exit
BESOM_STRESS_SECONDS=${BESOM_STRESS_SECONDS:-5} exec cargo test --workspace --no-fail-fast

#!/usr/bin/env bash
# Every Rust test as it ships.
cd "$(dirname "$0")/.." && BESOM_STRESS_SECONDS=${BESOM_STRESS_SECONDS:-5} exec cargo test --workspace --release

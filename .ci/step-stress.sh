#!/usr/bin/env bash
# Random histories on eight threads with verification on: a minute, or BESOM_STRESS_SECONDS.
cd "$(dirname "$0")/.." || exit
BESOM_STRESS_SECONDS=${BESOM_STRESS_SECONDS:-60} exec cargo test -p besom-tests --release --test stress -- --nocapture

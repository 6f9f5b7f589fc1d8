#!/usr/bin/env bash
# The benchmarks build and run. So small a scale measures nothing: `make bench` does.
cd "$(dirname "$0")/.." || exit
make -s lib || exit
# The Rust one without link-time optimisation, beside the tests.
export CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 CARGO_TARGET_DIR=target/tests
N=1 DEPTH=10 SCALE=0.01 PEERS=malloc exec tests/bench/run.sh

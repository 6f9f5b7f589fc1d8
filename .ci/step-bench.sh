#!/usr/bin/env bash
# The benchmarks build and run. So small a scale measures nothing: `make bench` does.
cd "$(dirname "$0")/.." || exit
make -s lib && N=1 DEPTH=10 SCALE=0.01 PEERS=malloc exec tests/bench/run.sh

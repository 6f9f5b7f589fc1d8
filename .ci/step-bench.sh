#!/usr/bin/env bash
# The benchmarks build and run, with the peers that are here. So small a scale measures nothing: `make bench` does. And a
# bound that does not hold is told from one that does.
cd "$(dirname "$0")/.." || exit
make -s lib || exit
bounds() { printf '%s\n' "$@" | awk -F'|' -f tests/bench/samples.awk -f tests/bench/bounds.awk; }
stop='latency|64 MiB, 1 thread: longest stop|us' rate='mark|graph, 1 worker, per CPU|M objects/s'
large='latency|1024 MiB, 1 thread: longest stop|us'
bounds "$stop|besom|9" "$stop|besom|30" "$stop|besom|10" "$stop|go|10" "$rate|besom|15" "$rate|go|10" "$large|besom|15" >/dev/null ||
    { echo "bounds.awk: bounds that hold do not"; exit 1; }
for broken in "$stop|besom|11 $stop|go|10" "$rate|besom|14 $rate|go|10" "$stop|besom|10 $large|besom|16" "$stop|besom|10"; do
    lines=${broken/ latency/$'\n'latency}
    ! bounds "${lines/ mark/$'\n'mark}" >/dev/null || { echo "bounds.awk: bounds that do not hold do: $broken"; exit 1; }
done
# The Rust one without link-time optimisation, beside the tests.
export CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 CARGO_TARGET_DIR=target/tests
N=1 DEPTH=10 SCALE=0.01 PEERS='besom-stw go libgc libgc-inc malloc' exec tests/bench/run.sh

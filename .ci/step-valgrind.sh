#!/usr/bin/env bash
# The C tests under valgrind, shortened.
cd "$(dirname "$0")/.." && make -s lib && VALGRIND=1 exec tests/c/run.sh

#!/usr/bin/env bash
# The C interface from outside: every test program as C11 and as C++17.
cd "$(dirname "$0")/.." && make -s lib && exec tests/c/run.sh

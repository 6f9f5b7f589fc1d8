#!/usr/bin/env bash
# The C interface from outside: every test program as C11 and as C++17; then misuse, and the statistics, of the library
# with debug assertions.
cd "$(dirname "$0")/.." || exit
make -s lib && make -s lib CHECKED=1 || exit
tests/c/run.sh
status=$?
CHECKED=1 LIBDIR=target/checked tests/c/run.sh misuse misuse_calls misuse_specials stats || status=1
exit $status

#!/usr/bin/env bash
# The interpreter: the language, its programs' outputs, its limits.
cd "$(dirname "$0")/.." && make -s scheme && exec tests/scheme/run.sh target/c/bin/scheme

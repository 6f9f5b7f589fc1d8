#!/usr/bin/env bash
# README and the book do what they say.
cd "$(dirname "$0")/.." && make -s all && exec tests/readme/run.sh

#!/usr/bin/env bash
# Programs against an installed tree, by pkg-config and by CMake.
cd "$(dirname "$0")/.." && exec tests/install/run.sh

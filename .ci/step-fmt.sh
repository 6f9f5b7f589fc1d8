#!/usr/bin/env bash
# Every Rust file is as rustfmt has it.
cd "$(dirname "$0")/.." && exec cargo fmt --all -- --check

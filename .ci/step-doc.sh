#!/usr/bin/env bash
# The documentation of all crates, private items too, without a warning.
cd "$(dirname "$0")/.." && RUSTDOCFLAGS='-D warnings' exec cargo doc --workspace --no-deps --document-private-items

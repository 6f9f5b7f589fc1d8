#!/usr/bin/env bash
# The static library and the interpreter build; the interpreter without a warning.
cd "$(dirname "$0")/.." && exec make all WARNINGS='-Wall -Wextra -Werror'

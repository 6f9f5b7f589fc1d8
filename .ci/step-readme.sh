#!/usr/bin/env bash
# The README does what it says: its first command runs, and its C program compiles as it stands and runs. (Its second
# command is the one that runs this.)
set -u
cd "$(dirname "$0")/.." || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
try() {
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); echo "ok   readme: $name"
    else failed=$((failed + 1)); echo "FAIL readme: $name"; tail -20 "$work/log" | sed 's/^/     /'; fi
}
program() {
    awk '/^```c$/ { on = 1; next } /^```/ && on { exit } on' README.md >"$work/embed.c" && [ -s "$work/embed.c" ] \
        && gcc -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror -I target/c/include "$work/embed.c" target/c/libbesom.a \
            -lpthread -ldl -lm -o "$work/embed" && "$work/embed"
}
short_enough() { [ "$(wc -l <"$work/embed.c")" -le 40 ]; }
gcbench() { make gcbench && grep -qi 'cycles' "$work/log"; }
links() { # files that the README points to
    grep -oE '\]\([^)#]+' README.md | sed 's/](//' | grep -v '^http' | while read -r f; do
        [ -e "$f" ] || { echo "no such file: $f"; exit 1; }
    done
}
try "names both commands" bash -c 'grep -q "make gcbench" README.md && grep -q "make test" README.md'
try "make gcbench prints statistics" gcbench
try "its C program compiles and runs" program
try "which is short" short_enough
try "its links lead somewhere" links
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

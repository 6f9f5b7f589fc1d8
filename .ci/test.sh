#!/usr/bin/env bash
# Runs the steps named (fmt, clippy, ...), or all of them in this order, and goes on after a failure. Prints what each says,
# its time, and at the end what failed and 'N passed, N failed': tests where a step counts them, else the step.
set -u
cd "$(dirname "$0")/.." || exit
steps=("$@")
[ $# -gt 0 ] || steps=(fmt clippy doc lib exports cargo-debug cargo-release c install scheme readme bench loom valgrind checkers races stress)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 bad=()
begin=$(date +%s.%N)
for step in "${steps[@]}"; do
    echo "==== $step"
    start=$(date +%s.%N)
    ".ci/step-$step.sh" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    # Rust's harness counts each test binary, the scripts print one total.
    read -r p f < <(awk '/^test result: / { p += $4; f += $6 } /^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3 }
                         END { print p + 0, f + 0 }' "$log")
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    if [ "$status" -eq 0 ] && [ "$p" -eq 0 ]; then p=1; fi
    if [ "$status" -ne 0 ] || [ "$f" -ne 0 ]; then bad+=("$step"); verdict=FAIL; else verdict=ok; fi
    passed=$((passed + p)) failed=$((failed + f))
    printf '==== %-4s %s: %d passed, %d failed, %.1f s\n' $verdict "$step" "$p" "$f" \
        "$(echo "$(date +%s.%N) - $start" | awk '{ print $1 - $3 }')"
done
printf 'all steps: %.1f s\n' "$(echo "$(date +%s.%N) - $begin" | awk '{ print $1 - $3 }')"
[ ${#bad[@]} -eq 0 ] || echo "failed steps: ${bad[*]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# Runs the steps named (fmt, clippy, ...), or all of them in this order, and goes on after a failure. Those joined by a plus
# run side by side: none measures time closely. Prints what each says, its time, and at the end what failed and
# 'N passed, N failed': tests where a step counts them, else the step.
set -u
cd "$(dirname "$0")/.." || exit
steps=("$@")
[ $# -gt 0 ] || steps=(fmt clippy doc lib exports cargo-debug cargo-release install readme bench c+loom valgrind+races checkers+scheme stress)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 bad=()
begin=$(date +%s.%N)
# run <step>: its output, which is kept, and its status and seconds
run() {
    local start status
    start=$(date +%s.%N)
    ".ci/step-$1.sh" 2>&1 | tee "$logs/$1"
    status=${PIPESTATUS[0]}
    echo "$status $(echo "$(date +%s.%N) - $start" | awk '{ print $1 - $3 }')" >"$logs/$1.status"
}
# count <step>: what came of it
count() {
    local status=1 seconds=0 p f verdict
    read -r status seconds <"$logs/$1.status"
    # Rust's harness counts each test binary, the scripts print one total.
    read -r p f < <(awk '/^test result: / { p += $4; f += $6 } /^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3 }
                         END { print p + 0, f + 0 }' "$logs/$1")
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    if [ "$status" -eq 0 ] && [ "$p" -eq 0 ]; then p=1; fi
    if [ "$status" -ne 0 ] || [ "$f" -ne 0 ]; then bad+=("$1"); verdict=FAIL; else verdict=ok; fi
    passed=$((passed + p)) failed=$((failed + f))
    printf '==== %-4s %s: %d passed, %d failed, %.1f s\n' $verdict "$1" "$p" "$f" "$seconds"
}
for group in "${steps[@]}"; do
    first=${group%%+*}
    # Of what is to be built for both, there is one.
    [ "$first" = "$group" ] || make -s lib scheme
    read -ra others <<<"$(echo "${group#"$first"}" | tr + ' ')"
    for step in ${others[@]+"${others[@]}"}; do run "$step" >/dev/null & done
    echo "==== $first"
    run "$first"
    count "$first"
    wait
    for step in ${others[@]+"${others[@]}"}; do
        echo "==== $step"
        cat "$logs/$step"
        count "$step"
    done
done
printf 'all steps: %.1f s\n' "$(echo "$(date +%s.%N) - $begin" | awk '{ print $1 - $3 }')"
[ ${#bad[@]} -eq 0 ] || echo "failed steps: ${bad[*]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

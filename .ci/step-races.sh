#!/usr/bin/env bash
# Race detectors on C programs that use the library: ThreadSanitizer on those with threads, helgrind on those
# that are not too slow, where nothing may be reported but what tests/c/helgrind.supp explains; both on races that were
# planted, which they must find; and ThreadSanitizer on the statistics' ring in Rust.
set -u
cd "$(dirname "$0")/.." || exit
make -s lib || exit
libdir=target/c work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
export CHECK_SHORT=1
while read -r name; do unset "$name"; done < <(compgen -e BESOM_)

# verdict <name> <status that it must have> <status> <log> [what the log must say]
verdict() {
    if [ "$3" -eq "$2" ] && { [ $# -lt 5 ] || grep -q "$5" "$4"; }; then
        passed=$((passed + 1)); echo "ok   races: $1"
    else
        failed=$((failed + 1)); echo "FAIL races: $1: status $3, expected $2${5:+, and '$5'}"; head -60 "$4" | sed 's/^/     /'
    fi
}
# build <source> <out> [options]
build() {
    local source=$1 out=$2
    shift 2
    gcc -std=c11 -O1 -g -Wall -Wextra "$@" -I "$libdir/include" "tests/c/$source.c" "$libdir/libbesom.a" -pthread -ldl -lm -o "$out"
}
helgrind() {
    timeout 600 valgrind -q --tool=helgrind --fair-sched=yes --read-inline-info=no --error-exitcode=66 \
        --suppressions=tests/c/helgrind.supp "$@"
}

for program in stats metrics timeline procs roots walk threads alloc specials barrier; do
    build $program "$work/tsan" -fsanitize=thread || { failed=$((failed + 1)); continue; }
    TSAN_OPTIONS=exitcode=66 timeout 300 "$work/tsan" >"$work/log" 2>&1
    verdict "$program (ThreadSanitizer)" 0 $? "$work/log"
done
for program in stats metrics timeline procs roots walk specials; do
    build $program "$work/plain" || { failed=$((failed + 1)); continue; }
    # A look at a native stack reads what other frames of the thread left there.
    BESOM_SCAN_NATIVE_STACKS=0 helgrind "$work/plain" >"$work/log" 2>&1
    verdict "$program (helgrind)" 0 $? "$work/log"
done

build races/planted "$work/tsan" -fsanitize=thread || exit
build races/planted "$work/plain" || exit
# Each with the function that a report must name: the racing one, or that of ours which the library calls.
for race in counter:race_on_a_counter object:race_on_an_object walk:visit trace:trace roots:trace heap_roots:trace; do
    TSAN_OPTIONS=exitcode=66 timeout 300 "$work/tsan" "${race%:*}" >"$work/log" 2>&1
    verdict "a planted race is found: ${race%:*} (ThreadSanitizer)" 66 $? "$work/log" "${race#*:} .*planted\.c"
    helgrind "$work/plain" "${race%:*}" >"$work/log" 2>&1
    verdict "a planted race is found: ${race%:*} (helgrind)" 66 $? "$work/log" "${race#*:} .*planted\.c"
done
for none in exit stop fill; do
    TSAN_OPTIONS=exitcode=66 timeout 300 "$work/tsan" $none >"$work/log" 2>&1
    verdict "no race is found: $none (ThreadSanitizer)" 0 $? "$work/log"
    [ $none = fill ] && continue # helgrind sees the store in the library, and the trace function's read
    helgrind "$work/plain" $none >"$work/log" 2>&1
    verdict "no race is found: $none (helgrind)" 0 $? "$work/log"
done

# The suppressions name every exported function, but those that go on in another at once (`entry!`), and those that
# touch no memory but the program's own, which is to be watched.
{
    sed -n '/^entry! {/,/^}/s/^    \(besom_[a-z_]*\)(.*/\1/p' runtime/src/ffi/*.rs
    sed -n 's/^   fun:\(besom_[a-z_]*\)$/\1/p' tests/c/helgrind.supp
    printf 'besom_%s\n' status_name version options_init write_slow write_value_slow write_range
} | sort >"$work/named"
nm -g --defined-only "$libdir/libbesom.a" | sed -n 's/.* T \(besom_.*\)/\1/p' | sort | diff "$work/named" - >"$work/log"
verdict "helgrind.supp names the exported functions" 0 $? "$work/log"

# The ring itself, instrumented, its records watched as plain memory. Rust's ThreadSanitizer is not stable, so a compiler
# without it is no failure.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
flags='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg race_check'
if echo 'fn main() {}' | rustc $flags --target "$host" -o "$work/probe" - 2>/dev/null && "$work/probe"; then
    for test in race_check ring_wait ring_oracle; do
        TSAN_OPTIONS="exitcode=66 suppressions=$PWD/stats/tests/tsan.supp" RUSTFLAGS=$flags CARGO_TARGET_DIR=target/tsan \
            timeout 600 cargo test -q -p besom-stats --target "$host" --test $test -- --test-threads=1 >"$work/log" 2>&1
        verdict "$test (Rust, ThreadSanitizer)" 0 $? "$work/log" '^test result: ok\. [1-9]'
    done
else
    echo "     The ring under ThreadSanitizer is left out: this rustc has none"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

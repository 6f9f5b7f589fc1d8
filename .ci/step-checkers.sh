#!/usr/bin/env bash
# Memory checkers on C programs that use the library: AddressSanitizer and memcheck must report each fault of
# tests/c/checkers/faulty.c at its line, and nothing in sound.c, nor in the interpreter.
set -u
cd "$(dirname "$0")/.." || exit
make -s lib scheme || exit
libdir=target/c work=$(mktemp -d) faulty=tests/c/checkers/faulty.c
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
export CHECK_SHORT=1
# A compiler's default may have C locals elsewhere than on the stack, where a scan does not find them.
export ASAN_OPTIONS=exitcode=66:detect_stack_use_after_return=0
ulimit -c 0
while read -r name; do unset "$name"; done < <(compgen -e BESOM_)

# verdict <name> <status that it must have> <status> <log> [what the log must say, in lines one after another]...
verdict() {
    local name=$1 expected=$2 status=$3 log=$4 line=0 found problem=
    shift 4
    [ "$status" -eq "$expected" ] || problem="status $status, expected $expected"
    for pattern in "$@"; do
        found=$(tail -n +$((line + 1)) "$log" | grep -nEm 1 -- "$pattern" | cut -d: -f1)
        [ -n "$found" ] || { problem="$problem; no '$pattern' after line $line"; break; }
        line=$((line + found))
    done
    if [ -z "$problem" ]; then
        passed=$((passed + 1)); echo "ok   checkers: $name"
    else
        failed=$((failed + 1)); echo "FAIL checkers: $name: ${problem#; }"; head -60 "$log" | sed 's/^/     /'
    fi
}
# build <source> <out> [options]
build() {
    local source=$1 out=$2
    shift 2
    gcc -std=c11 -O1 -g -Wall -Wextra -Werror "$@" -I "$libdir/include" "tests/c/checkers/$source.c" "$libdir/libbesom.a" \
        -pthread -ldl -lm -o "$out"
}
memcheck() {
    timeout 600 valgrind -q --error-exitcode=66 --fair-sched=yes --num-callers=25 "$@"
}
# The line that ends in a mark.
line() {
    grep -nE "[ /]$1( |\$)" $faulty | cut -d: -f1
}

for program in faulty sound; do
    build $program "$work/$program.asan" -fsanitize=address && build $program "$work/$program" || exit
done

"$work/sound.asan" >"$work/log" 2>&1
verdict "nothing is wrong (AddressSanitizer)" 0 $? "$work/log"
memcheck "$work/sound" >"$work/log" 2>&1
status=$?
grep -q '^==' "$work/log" && status=65
verdict "nothing is wrong (memcheck)" 0 $status "$work/log"

while read -r name; do
    at="faulty\.c:$(line "FAULT:$name")(\)|$)"
    case $name in *_write | *overrun | never_allocated | neighbours_live) how=WRITE ;; *) how=READ ;; esac
    error=use-after-poison status=66
    [ "$name" = heap_freed ] && error=SEGV
    timeout 60 "$work/faulty.asan" "$name" >"$work/log" 2>&1
    verdict "$name (AddressSanitizer)" 66 $? "$work/log" "^==.*ERROR: AddressSanitizer: $error on" "$how" "^ +#[0-3] .*$at"

    case $name in *watched) how=WRITE ;; esac
    allocated=("Invalid ${how,,} of size")
    allocated+=("(at|by) .*$at")
    born=$(line "BORN:$name") dead=$(line "DEAD:$name")
    [ -n "$born" ] && allocated+=("Address .* inside a block of size .* free'd" "by .*faulty\.c:$dead\)" \
                                  "Block was alloc'd at" "by .*faulty\.c:$born\)")
    # After an address that is not mapped any more the signal ends it, whose status the shell has.
    [ "$name" = heap_freed ] && status=139
    [ "$name" = array_overrun ] && allocated=("came to its end") status=0
    { memcheck "$work/faulty" "$name" >"$work/log" 2>&1; } 2>/dev/null
    verdict "$name (memcheck)" $status $? "$work/log" "${allocated[@]}"
done < <("$work/faulty" list)

scheme=runtime/examples/scheme
gcc -std=gnu11 -O1 -g -fsanitize=address -Itarget/c -I"$libdir/include" $scheme/*.c "$libdir/libbesom.a" -lpthread -ldl -lm \
    -o "$work/scheme" || exit
for program in threads wordcount; do
    memcheck target/c/bin/scheme $scheme/programs/$program.scm >"$work/log" 2>&1
    status=$?
    diff $scheme/programs/$program.out "$work/log" >"$work/diff" || status=65
    verdict "the interpreter's $program (memcheck)" 0 $status "$work/diff"
    # It leaves to exit what it has of malloc.
    ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 "$work/scheme" $scheme/programs/$program.scm >"$work/log" 2>&1
    status=$?
    diff $scheme/programs/$program.out "$work/log" >"$work/diff" || status=65
    verdict "the interpreter's $program (AddressSanitizer)" 0 $status "$work/diff"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

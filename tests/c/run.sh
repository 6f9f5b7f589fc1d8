#!/usr/bin/env bash
# Compiles each test program as C11 and as C++17, without a warning, and runs it; of misuse* the cases, each of
# which must abort with its one line; then the address-space limit. Prints a line a test and 'N passed, N failed'.
#
#   tests/c/run.sh [program...]           the programs named, or all
#   LIBDIR=dir tests/c/run.sh             the library and its header elsewhere than target/c
#   VALGRIND=1 tests/c/run.sh             C11 only, under valgrind, shortened
set -u
cd "$(dirname "$0")/../.." || exit
libdir=${LIBDIR:-target/c}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ulimit -c 0
while read -r name; do unset "$name"; done < <(compgen -e BESOM_)

pass() { passed=$((passed + 1)); printf 'ok   %s\n' "$1"; }
fail() { failed=$((failed + 1)); printf 'FAIL %s\n' "$1"; }

# compile <program> <language> <out>
compile() {
    local how wrap=()
    case $2 in
        C11) how=(gcc -std=c11 -O2 -x c) ;;
        C++17) how=(g++ -std=c++17 -O1 -x c++) ;;
    esac
    [ "$1" = oom_every_mmap ] && wrap=('-Wl,--wrap=mmap' '-Wl,--wrap=mmap64' '-Wl,--wrap=mprotect' '-Wl,--wrap=pthread_create')
    "${how[@]}" -g -Wall -Wextra -Wpedantic -Werror -I "$libdir/include" "tests/c/$1.c" -x none \
        "$libdir/libbesom.a" -pthread -ldl -lm "${wrap[@]}" -o "$3"
}

# outcome <label> <log> <exit status>: the program's own 'ok' and 'FAIL' lines, and whether it came to its end.
outcome() {
    local line seen=0
    while IFS= read -r line; do
        case $line in
            'ok '*) seen=1; pass "$1 ${line#ok }" ;;
            'FAIL '*) seen=1; fail "$1 ${line#FAIL }" ;;
            *) printf '     %s\n' "$line" ;;
        esac
    done <"$2"
    if [ "$3" -ne 0 ] && ! grep -q '^FAIL ' "$2"; then
        fail "$1: ended with status $3"
    elif [ "$seen" -eq 0 ]; then
        fail "$1: printed no test"
    fi
}

# misuse <label> <program>
misuse() {
    local name pattern status problem
    while IFS=$'\t' read -r name pattern; do
        { timeout 60 "$2" "$name" >"$work/out" 2>"$work/err" </dev/null; } 2>/dev/null
        status=$?
        problem=
        [ "$status" -eq 134 ] || problem="status $status, expected 134 (SIGABRT)"
        [ "$(wc -l <"$work/err")" -eq 1 ] || problem="$problem; $(wc -l <"$work/err") lines on stderr, expected 1"
        grep -Eq -- "$pattern" "$work/err" || problem="$problem; stderr is '$(head -c 300 "$work/err")', expected /$pattern/"
        [ -s "$work/out" ] && problem="$problem; stdout is '$(head -c 300 "$work/out")'"
        if [ -z "$problem" ]; then pass "$1 misuse $name"; else fail "$1 misuse $name: ${problem#; }"; fi
    done < <("$2" list)
}

# memcheck <label> <program> [NAME=value] [valgrind's options]
memcheck() {
    local label=$1 program=$2 status set=()
    shift 2
    case ${1:-} in [A-Z]*=*) set=("$1"); shift ;; esac
    env "${set[@]}" timeout 900 valgrind -q --error-exitcode=99 --fair-sched=yes --leak-check=no --num-callers=30 "$@" \
        "$work/$program" >"$work/log" 2>"$work/err" </dev/null
    status=$?
    grep '^FAIL ' "$work/log" && status=98
    if [ $status -eq 0 ] && ! grep -q '^==' "$work/err"; then
        pass "$label"
    else
        head -60 "$work/err"
        fail "$label: status $status"
    fi
}

programs=("$@")
[ $# -gt 0 ] || for f in tests/c/*.c; do programs+=("$(basename "$f" .c)"); done

if [ -n "${VALGRIND:-}" ]; then
    export CHECK_SHORT=1 CHECK_WATCHED=1
    for p in "${programs[@]}"; do
        # misuse aborts on purpose; the two that count mappings or processors would measure valgrind.
        case $p in misuse* | oom_every_mmap | procs) continue ;; esac
        compile "$p" C11 "$work/$p" || { fail "$p (valgrind): does not compile"; continue; }
        # What the stacks hold differs from build to build: so they are not scanned, but for the scan's own test.
        case $p in
            header_layout | env) memcheck "$p (valgrind)" "$p" ;;
            roots)
                memcheck "$p (valgrind)" "$p" BESOM_SCAN_NATIVE_STACKS=0
                memcheck "$p (valgrind, with native stacks)" "$p" CHECK_NATIVE=1
                ;;
            *) memcheck "$p (valgrind)" "$p" BESOM_SCAN_NATIVE_STACKS=0 ;;
        esac
    done
else
    for p in "${programs[@]}"; do
        for language in C11 C++17; do
            label="$p ($language)"
            if ! compile "$p" $language "$work/$p"; then
                fail "$label: does not compile"
            elif [[ $p == misuse* ]]; then
                misuse "($language)" "$work/$p"
            else
                { timeout 600 "$work/$p" >"$work/log" 2>"$work/err" </dev/null; } 2>/dev/null
                status=$?
                outcome "$label" "$work/log" $status
                sed 's/^/     stderr: /' "$work/err"
            fi
        done
        if [[ $p != misuse* ]] && [ "$p" != env ] && compile "$p" C11 "$work/$p"; then
            # Again in the other mode. env sets the variables itself.
            { BESOM_MODE=stop_the_world timeout 600 "$work/$p" >"$work/log" 2>"$work/err" </dev/null; } 2>/dev/null
            status=$?
            outcome "$p (stop the world)" "$work/log" $status
            sed 's/^/     stderr: /' "$work/err"
        fi
        case $p in
            misuse_calls)
                # Every function of the header that takes a mutator: but those that only frames and detaching are about, and
                # the poll, which looks when something is wanted of it.
                sed '/Inside the fast paths ===/,$d' "$libdir/include/besom.h" |
                    sed -n 's/^[A-Za-z].*[ *]\(besom_[a-z_]*\)(besom_mutator \*m[,)].*/\1/p' |
                    grep -v -e besom_frames_ -e besom_detach -e besom_safepoint | sort >"$work/takes"
                if "$work/$p" functions | sort | diff "$work/takes" - >"$work/log"; then
                    pass "$p has every function"
                else
                    fail "$p has every function of the header: $(tr '\n' ' ' <"$work/log")"
                fi
                ;;
            alloc | roots | layouts | stats | walk)
                # Again where the reservation cannot have its usual size.
                compile "$p" C11 "$work/$p" || continue
                { (ulimit -v 2097152 && exec timeout 600 "$work/$p") >"$work/log" 2>"$work/err" </dev/null; } 2>/dev/null
                status=$?
                outcome "$p (ulimit -v 2097152)" "$work/log" $status
                sed 's/^/     stderr: /' "$work/err"
                ;;
        esac
    done
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

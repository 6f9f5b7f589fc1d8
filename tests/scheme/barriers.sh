#!/bin/sh
# barriers.sh [quick | TEXT]: takes away the write barriers of the interpreter one at a time, and sees whether BESOM_VERIFY=marks
# catches it. For each place that calls besom_write, besom_write_value, besom_write_range or store, it compiles an interpreter in
# which that one place stores plainly, and runs the program that the table below names, with cycles back to back.
#
# A barrier hands in what a store overwrites. So it matters where that may be the last way to an object which a thread took
# from there a moment ago; where it may not, the table says why. A place that matters must be caught, in one of five runs;
# one that does not must not be, and the table must have each place of the sources once.
#
# Needs `make scheme` before. Without an argument: all places, a minute and a half; by hand, when a store has come or gone. quick:
# those marked +, some ten seconds, for every commit. TEXT: those whose call begins with it.
# The whole run, on 2 processors: of 52 places 25 matter, and all of these were caught.
root=$(cd "$(dirname "$0")/../.." && pwd)
source=$root/runtime/examples/scheme built=$root/target/c
[ -f "$built/libbesom.a" ] && [ -f "$built/prelude.inc" ] || { echo "barriers.sh: make scheme first" >&2; exit 2; }
which=${1:-all}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
CC=${CC:-gcc}
flags="-std=gnu11 -O1 -w -I$source -I$built -I$built/include"

# <program that catches it, or -> | <file> | <how the call begins> [| why it cannot matter]
cat >"$work/table" <<'TABLE'
vectors+|vm.c|store(v, x, &VECTOR(x)->item[UNFIX(y)], acc)
vectors|vectors.c|store(v, argv[0], &FIELD(argv[0], i), argv[2])
vectors|vectors.c|store(v, argv[0], &FIELD(argv[0], start), argv[1])
vectors+|vectors.c|besom_write_range(
pairs+|vm.c|store(v, x, &CAR(x), acc)
pairs|vm.c|store(v, x, &CDR(x), acc)
pairs|lists.c|store(v, pair_arg(v, "set-car!", argv[0])
pairs|lists.c|store(v, pair_arg(v, "set-cdr!", argv[0])
variables+|vm.c|store(v, x, &FIELD(x, 0), acc)
variables|vm.c|store(v, s, &GLOBAL_AT(s), acc)
variables|analyze.c|store(v, s, &SYMBOL(s)->value, macro)
macros|analyze.c|store(v, t->value, &SYMBOL(t->value)->value, UNBOUND)
records+|vm.c|store(v, argv[0], slot, argv[1])
records|control.c|store(v, argv[0], &FIELD(argv[0], 0), argv[1])
threads|threads.c|store(v, argv[0], &FIELD(argv[0], field), argv[1])
threads|threads.c|store(v, m, &FIELD(m, MUTEX_OWNER), FALSE)
symbols|heap.c|store(v, globals[G_SYMBOLS], bucket, link)
tables|tables.c|store(v, l, &CDR(l), *to)
tables+|tables.c|besom_write(m, t, &t->buckets, wider)
tables|tables.c|store(v, entry, &CDR(entry), value)
tables|tables.c|besom_write_value(v->m, buckets, to, link)
tables|tables.c|store(v, before, &CDR(before), CDR(l))
tables|tables.c|besom_write_value(v->m, buckets, bucket, CDR(l))
guardians|guardians.c|besom_write_value(m, PAIR(queue), &CDR(queue), link)
guardians|guardians.c|store(v, argv[0], &CDR(argv[0]), CDR(link))
-|guardians.c|besom_write_value(m, PAIR(link), &CAR(link), x)|over the #f of a link that waits
-|guardians.c|besom_write_value(m, PAIR(link), &CDR(link), CDR(queue))|over the () of a link that waits
-|guardians.c|store(v, argv[1], &CAR(argv[1]), FIX(|over #f
-|tables.c|besom_write_value(m, wider, to, l)|the new buckets are from this call, without a safepoint since
-|tables.c|store(v, link, &CDR(link), *to)|over the () of a new pair
-|heap.c|besom_write_value(v->m, NULL, &globals[which], x)|over nothing, at the start; but for the reserve, which nobody reads
-|heap.c|store(v, s, &SYMBOL(s)->name, copy)|over the 0 of a new symbol
-|heap.c|store(v, s, &SYMBOL(s)->value, UNBOUND)|over the 0 of a new symbol
-|heap.c|store(v, link, &CDR(link), *bucket)|over the () of a new pair
-|heap.c|store(v, s, &SYMBOL(s)->value, p)|at the start: over the mark of an unbound variable
-|scheme.h|besom_write_value(v->m, ADDRESS(object), slot, x)|what `store` is: its calls are taken one by one
-|analyze.c|store(v, s, &SYMBOL(s)->value, SPECIAL(|at the start: over the mark of an unbound variable
-|analyze.c|store(v, last, &CDR(last), p)|over the () of a new pair
-|forms.c|store(v, last, &CDR(last), d_)|over the () of a new pair
-|lists.c|store(v, last, &CDR(last), p)|over the list that is appended to, which the stack holds
-|ports.c|besom_write(v->m, p, &p->buffer, bigger)|over a buffer that nobody holds across a safepoint
-|ports.c|store(v, s, &SYMBOL(s)->value, globals[standard[i].global])|at the start: over the mark of an unbound variable
-|reader.c|store(v, last, &CDR(last), |over the () of a new pair
-|threads.c|store(v, t, &FIELD(t, THREAD_RESULT), result)|over #f: a thread ends once
-|threads.c|store(v, t, &FIELD(t, THREAD_STATE), FIX(|over a fixnum
-|threads.c|store(v, m, &FIELD(m, MUTEX_OWNER), owner == FALSE ? TRUE : owner)|over #f, or a thread that has ended, which mutex-state does not tell
-|vm.c|store(v, acc, &CLOSURE(acc)->free[A], fp[*ip++])|over the mark of a variable before its time
TABLE

# The places: <file> <line> <which of the line> <the call>
for file in "$source"/*.c "$source"/*.h; do
    awk -v file="${file##*/}" '{
        text = $0; sub(/\/\*.*/, "", text)
        if (text ~ /^static inline void store\(/) { sub(/store/, "     ", text) } # its definition
        for (k = 1; match(text, /(^|[^A-Za-z_])(besom_write(_value|_range)?|store)\(/); k++) {
            text = substr(text, RSTART); sub(/^[^bs]/, "", text)
            print file "\t" NR "\t" k "\t" text
            text = substr(text, 2)
        }
    }' "$file"
done >"$work/places"

# A plain store in the place of each.
cat >"$work/plain.h" <<'C'
#include <besom.h>
#include <string.h>
static inline void plain_word(void *slot, uint64_t x) { *(volatile uint64_t *)slot = x; }
#define PLAIN_store(v, object, slot, x) plain_word(slot, x)
#define PLAIN_besom_write(m, object, slot, x) plain_word(slot, (uint64_t)(uintptr_t)(x))
#define PLAIN_besom_write_value(m, object, slot, x) plain_word(slot, x)
#define PLAIN_besom_write_range(m, object, to, from, words) memmove(to, from, (words) * 8)
C

# link <program>: from the objects in $work.
link() { $CC "$work"/*.o "$built/libbesom.a" -lpthread -ldl -lm -o "$1"; }
for file in "$source"/*.c; do
    # shellcheck disable=SC2086
    $CC $flags -c "$file" -o "$work/$(basename "$file" .c).o" || exit 2
done
link "$work/whole" || exit 2

# run <interpreter> <program>: its status; what verification says is in $work/err.
run() {
    (
        cd "$root/tests/scheme" || exit 2
        BESOM_MODE=concurrent BESOM_VERIFY=marks BESOM_GC_PERCENT=1 timeout 120 "$1" "barrier-$2.scm" >"$work/out" 2>"$work/err"
        exit $?
    ) 2>/dev/null # the shell tells of an abort
    status=$?
    [ "$status" != 0 ] || cmp -s "$work/out" "$root/tests/scheme/barrier-$2.out" || status=wrong
}
failed=0 caught=0 harmless=0
fail() { echo "FAIL $*"; failed=$((failed + 1)); }

for program in "$root"/tests/scheme/barrier-*.scm; do
    program=${program##*/barrier-}
    [ "$which" = all ] || [ "$which" = quick ] || break
    run "$work/whole" "${program%.scm}"
    [ "$status" = 0 ] || { fail "with all barriers: $program, status $status"; head -2 "$work/err"; }
done

tab=$(printf '\t')
while IFS=$tab read -r file line nth call; do
    row=$(awk -F'|' -v file="$file" -v call="$call" '$2 == file && index(call, $3) == 1' "$work/table")
    printf '%s\n' "$row" >>"$work/used"
    case $row in
    '') fail "$file:$line: not in the table: $call"; continue ;;
    *'
'*) fail "$file:$line: twice in the table: $call"; continue ;;
    esac
    program=${row%%|*} why=${row##*|}
    case $which in
    all) ;;
    quick) [ "$program" != "${program%+}" ] || continue ;;
    *) case $call in "$which"*) ;; *) continue ;; esac ;;
    esac
    program=${program%+}
    [ "$file" != scheme.h ] || { harmless=$((harmless + 1)); continue; }
    base=${file%.c}
    awk -v at="$line" -v nth="$nth" 'NR != at { print; next } {
        for (k = 1; match($0, /(^|[^A-Za-z_])(besom_write(_value|_range)?|store)\(/); k++) {
            skip = substr($0, RSTART, 1) ~ /[bs]/ ? 0 : 1
            printf "%s", substr($0, 1, RSTART - 1 + skip) (k == nth ? "PLAIN_" : "") substr($0, RSTART + skip, 1)
            $0 = substr($0, RSTART + skip + 1)
        }
        print
    }' "$source/$file" >"$work/$file"
    mv "$work/$base.o" "$work/kept"
    # shellcheck disable=SC2086
    $CC $flags -include "$work/plain.h" -c "$work/$file" -o "$work/$base.o" && link "$work/broken" || { fail "$file:$line: does not compile"; mv "$work/kept" "$work/$base.o"; continue; }
    grep -q PLAIN_ "$work/$file" || fail "$file:$line: nothing was taken away"
    mv "$work/kept" "$work/$base.o"
    if [ "$program" = - ]; then
        for program in vectors tables symbols threads; do
            run "$work/broken" "$program"
            [ "$status" = 0 ] || { fail "$file:$line: '$why', but $program: $(head -1 "$work/err")"; break; }
        done
        harmless=$((harmless + 1))
        echo "ok   $file:$line cannot matter: $why"
        continue
    fi
    try=1
    while run "$work/broken" "$program"; [ "$status" = 0 ] && [ "$try" -lt 5 ]; do try=$((try + 1)); done
    if grep -q '^besom: verify: .*not marked' "$work/err"; then
        caught=$((caught + 1))
        echo "ok   $file:$line caught by barrier-$program, run $try: $call" | cut -c1-120
    else
        fail "$file:$line: barrier-$program does not catch it, status $status: $call"
    fi
done <"$work/places"
while IFS= read -r row; do
    grep -qxF -- "$row" "$work/used" || fail "no place for this line of the table: $row"
done <"$work/table"
echo "barriers: $caught caught, $harmless cannot matter, $failed failed"
[ "$failed" = 0 ]

#!/bin/sh
# timeline.sh PATH_TO_SCHEME: --gc-timeline writes a file that is JSON and has the cycles of the run, whatever ends it.
scheme=${1:?usage: timeline.sh PATH_TO_SCHEME}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failed=0
fail() { echo "FAIL timeline: $1"; failed=1; }
cat >"$work/count.c" <<'C'
/* count FILE KEY VALUE: how often an object of the file has that member. */
#include "json.h"
int main(int argc, char **argv)
{
    char *text = argc == 4 ? json_file(argv[1]) : NULL;
    const long n = text != NULL ? json_count(text, argv[2], argv[3]) : -1;
    printf("%ld\n", n);
    return n < 0;
}
C
${CC:-gcc} -std=c11 -Wall -Wextra -Werror -I "$here/../c" "$work/count.c" -o "$work/count" || exit 2

# expect <status> <least cycles> <arguments...>: the program's status, and its file's cycles as --gc-stats counts them, which it
# does after the file: a cycle that goes on beside the program may end in between.
expect() {
    want=$1 least=$2
    shift 2
    rm -f "$work/file"
    "$scheme" --gc-stats --gc-timeline "$work/file" "$@" >"$work/out" 2>"$work/err"
    got=$?
    [ "$got" = "$want" ] || fail "status $got, expected $want: $*"
    counted=$(awk '$1 == "cycles" { print $2 }' "$work/err")
    if cycles=$("$work/count" "$work/file" '"name"' '"cycle"'); then
        [ "$cycles" = "$counted" ] || [ "$cycles" = $((counted - 1)) ] || fail "$cycles cycles in the file, $counted counted: $*"
        [ "$cycles" -ge "$least" ] || fail "only $cycles cycles: $*"
    else
        fail "no JSON: $*"
    fi
}
cat >"$work/lists.scm" <<'S'
(define (build n) (let loop ((i 0) (l '())) (if (= i n) l (loop (+ i 1) (cons i l)))))
(define kept (build 100000))
(do ((i 0 (+ i 1))) ((= i 50)) (build 100000))
(if (pair? (cdr (command-line))) (car 'not-a-pair))
S
expect 0 3 "$work/lists.scm"
expect 70 3 "$work/lists.scm" and fail
expect 0 0 -e 5
expect 3 0 -e '(exit 3)'
[ "$("$work/count" "$work/file" '"name"' '"process_name"')" = 1 ] || fail "no name of the process"

status() { # <status> <arguments...>
    want=$1
    shift
    "$scheme" "$@" >/dev/null 2>"$work/err"
    got=$?
    [ "$got" = "$want" ] || fail "status $got, expected $want: $*"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "$(wc -l <"$work/err") lines of error: $*"
}
status 73 --gc-timeline "$work/no such directory/file" -e 5
[ ! -w /dev/full ] || status 74 --gc-timeline /dev/full -e 5
"$scheme" -e 5 --gc-timeline >/dev/null 2>&1
[ $? = 64 ] || fail "a file is missing, and nothing said"
[ "$failed" = 0 ] && echo "ok   timeline"
exit "$failed"

#!/bin/sh
# status.sh PATH_TO_SCHEME: exit statuses of runs that cannot do their work.
scheme=${1:?usage: status.sh PATH_TO_SCHEME}
failed=0
expect() {
    want=$1
    shift
    "$@" >"${out:-/dev/null}" 2>/dev/null
    got=$?
    [ "$got" = "$want" ] || { echo "FAIL status $got, expected $want: $*"; failed=1; }
}
expect 70 "$scheme" /tmp
expect 70 "$scheme" /no/such/file
expect 64 "$scheme" --heap-limit 99999999999999999999 -e 5
expect 64 "$scheme" --no-such-option
expect 3 "$scheme" -e '(exit 3)'
expect 0 "$scheme" -e 5
[ ! -w /dev/full ] || out=/dev/full expect 74 "$scheme" -e 5
exit "$failed"

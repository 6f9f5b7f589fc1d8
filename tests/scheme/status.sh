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
for option in -e --heap-limit --metrics --gc-timeline; do
    expect 64 "$scheme" "$option"
    "$scheme" "$option" 2>&1 | grep -qx -- "scheme: unknown option '$option', or its value is missing" || { echo "FAIL $option without a value"; failed=1; }
done
expect 3 "$scheme" -e '(exit 3)'
expect 0 "$scheme" -e 5
[ ! -w /dev/full ] || out=/dev/full expect 74 "$scheme" -e 5

# --metrics: the file is there at the end, whatever the end is.
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
has() { # <file> <line, as a basic regular expression>
    grep -q -- "$2" "$1" || { echo "FAIL $1 has no line /$2/"; failed=1; }
}
expect 0 "$scheme" --metrics "$dir/m.prom" -e '(make-vector 100000 0)'
has "$dir/m.prom" '^# TYPE besom_heap_allocs_bytes_total counter$'
has "$dir/m.prom" '^besom_heap_allocs_bytes_total [1-9][0-9]*$'
has "$dir/m.prom" '^besom_gc_pauses_seconds_bucket{le="+Inf"} [0-9]*$'
expect 0 "$scheme" --metrics="$dir/m.json" -e 5
has "$dir/m.json" '^{"besom/.*"besom/heap/allocs:bytes":{"kind":"counter",.*}}$'
expect 70 "$scheme" --metrics "$dir/error.prom" -e '(car 5)'
has "$dir/error.prom" '^besom_heap_live_bytes '
expect 7 "$scheme" --metrics "$dir/exit.json" -e '(exit 7)'
has "$dir/exit.json" '^{"besom/'
full='(let loop ((l (list))) (loop (cons (make-vector 1000 0) l)))'
expect 70 "$scheme" --heap-limit 8m -e "$full"
# Beside the program another's cycle may serve as well as one for the limit.
expect 70 env BESOM_MODE=stop_the_world "$scheme" --heap-limit 8m --metrics "$dir/full.prom" -e "$full"
has "$dir/full.prom" '^besom_gc_cycles_limit_total [1-9]'
has "$dir/full.prom" '^besom_memory_limit_hard_bytes 8388608$'
expect 74 "$scheme" --metrics /no/such/directory/m.prom -e 5
expect 3 "$scheme" --metrics /no/such/directory/m.prom -e '(exit 3)'
[ ! -w /dev/full ] || expect 74 "$scheme" --metrics /dev/full -e 5
expect 64 "$scheme" --metrics
"$scheme" --metrics /no/such/directory/m.prom -e 5 2>&1 | grep -qx 'scheme: cannot write /no/such/directory/m.prom: No such file or directory' ||
    { echo "FAIL --metrics: no line says what cannot be written"; failed=1; }
exit "$failed"

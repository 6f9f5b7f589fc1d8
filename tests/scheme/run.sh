#!/bin/sh
# run.sh PATH_TO_SCHEME: runs every program here and in the example's programs/, and compares standard output with *.out and,
# where there is a *.err, standard error with it; *.args holds options. A program must exit with status 0, or with the one in
# *.status. The last line is 'N passed, N failed'.
scheme=${1:?usage: run.sh PATH_TO_SCHEME}
case $scheme in /*) ;; *) scheme=$PWD/$scheme ;; esac
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp) && err=$(mktemp) || exit 2
trap 'rm -f "$out" "$err"' EXIT
passed=0 failed=0
for directory in "$here" "$here/../../runtime/examples/scheme/programs"; do
    cd "$directory" || exit 2
    for file in *.scm; do
        base=${file%.scm} want=0 input=/dev/null args=
        [ -f "$base.status" ] && want=$(cat "$base.status")
        [ -f "$base.args" ] && args=$(cat "$base.args")
        [ -f "$base.in" ] && input=$base.in file=
        # shellcheck disable=SC2086
        timeout "${SCHEME_TEST_TIMEOUT:-120}" "$scheme" $args $file <"$input" >"$out" 2>"$err"
        status=$?
        problem=
        [ "$status" = "$want" ] || problem="exit status $status, expected $want"
        cmp -s "$out" "$base.out" || problem="${problem:+$problem; }output differs"
        [ ! -f "$base.err" ] || cmp -s "$err" "$base.err" || problem="${problem:+$problem; }errors differ"
        if [ -z "$problem" ]; then
            echo "ok   $base"
            passed=$((passed + 1))
        else
            echo "FAIL $base: $problem"
            diff "$base.out" "$out" | head -5
            [ ! -f "$base.err" ] || diff "$base.err" "$err" | head -5
            [ -f "$base.err" ] || head -3 "$err"
            failed=$((failed + 1))
        fi
    done
done
for script in status timeline; do
    if "$here/$script.sh" "$scheme"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

#!/bin/sh
# run.sh PATH_TO_SCHEME: runs every program here and in the example's programs/, and compares standard output with *.out and,
# where there is a *.err, standard error with it; *.args holds options. A program must exit with status 0, or with the one in
# *.status. Each runs in both modes, and once more in each with a collection at every 97th allocation; then a program that
# would take minutes or hours gets the arguments of short/, and is compared with the output there, if
# there is one. The last line is 'N passed, N failed'.
scheme=${1:?usage: run.sh PATH_TO_SCHEME}
case $scheme in /*) ;; *) scheme=$PWD/$scheme ;; esac
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp) && err=$(mktemp) || exit 2
trap 'rm -f "$out" "$err"' EXIT
passed=0 failed=0
ulimit -n 256 # ports-dropped.scm opens many more files, and must not run out of descriptors
all() { # <what to say of it> <directory> <environment...>
    label=$1
    cd "$2" || exit 2
    shift 2
    for file in *.scm; do
        base=${file%.scm} want=0 input=/dev/null args='' behind='' expected=${file%.scm}.out
        [ -f "$base.status" ] && want=$(cat "$base.status")
        [ -f "$base.args" ] && args=$(cat "$base.args")
        [ -f "$base.in" ] && input=$base.in file=
        case $* in
            *EVERY*)
                [ -f "$here/short/$base.args" ] && behind=$(cat "$here/short/$base.args")
                [ -f "$here/short/$base.out" ] && expected=$here/short/$base.out
                ;;
        esac
        # shellcheck disable=SC2086
        env "$@" timeout "${SCHEME_TEST_TIMEOUT:-120}" "$scheme" $args $file $behind <"$input" >"$out" 2>"$err"
        status=$?
        problem=
        [ "$status" = "$want" ] || problem="exit status $status, expected $want"
        cmp -s "$out" "$expected" || problem="${problem:+$problem; }output differs"
        [ ! -f "$base.err" ] || cmp -s "$err" "$base.err" || problem="${problem:+$problem; }errors differ"
        if [ -z "$problem" ]; then
            echo "ok   $base, $label"
            passed=$((passed + 1))
        else
            echo "FAIL $base, $label: $problem"
            diff "$expected" "$out" | head -5
            [ ! -f "$base.err" ] || diff "$base.err" "$err" | head -5
            [ -f "$base.err" ] || head -3 "$err"
            failed=$((failed + 1))
        fi
    done
}
for mode in concurrent stop_the_world; do
    all "$mode" "$here" BESOM_MODE="$mode"
    all "$mode" "$here/../../runtime/examples/scheme/programs" BESOM_MODE="$mode"
    for directory in "$here" "$here/../../runtime/examples/scheme/programs"; do
        all "$mode, collect_every" "$directory" BESOM_MODE="$mode" BESOM_COLLECT_EVERY=97
    done
done
for script in status timeline; do
    if "$here/$script.sh" "$scheme"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done
if "$here/barriers.sh" quick; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

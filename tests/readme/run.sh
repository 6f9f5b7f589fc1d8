#!/usr/bin/env bash
# README and the book do what they say: README's commands run as they are printed, its C program is the example file
# and compiles without warnings, the guide's program compiles and runs, links lead somewhere, and every line with
# which the library aborts has its row in docs/messages.md.
#
# `make test` is the one command that is not run: it is the one that runs this. README_GCBENCH=0 leaves `make gcbench` out
# too. LIBDIR is where a library is when it is not in target/c (README's own commands are left out then).
set -u
cd "$(dirname "$0")/../.." || exit
libdir=${LIBDIR:-target/c}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
try() { # <name> <command...>
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); echo "ok   readme: $name"
    else failed=$((failed + 1)); echo "FAIL readme: $name"; tail -20 "$work/log" | sed 's/^/     /'; fi
}
blocks() { # <file> <language>: the fenced blocks of that language, one after the other
    awk -v fence="^\`\`\`$2\$" '$0 ~ fence { on = 1; next } /^```/ { on = 0 } on' "$1"
}
compile() { # <source> <program>
    gcc -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror -I "$libdir/include" "$1" "$libdir/libbesom.a" -lpthread -ldl -lm -o "$2"
}
two_commands() { grep -qx 'make gcbench' "$work/commands" && grep -qx 'make test' "$work/commands"; }
example_is_readmes() { blocks README.md c | diff - runtime/examples/embed-c/first.c; }
short() { [ "$(wc -l <runtime/examples/embed-c/first.c)" -le 30 ]; }
first() { compile runtime/examples/embed-c/first.c "$work/first" && "$work/first"; }
guide() { blocks docs/guide.md c >"$work/guide.c" && compile "$work/guide.c" "$work/guide" && "$work/guide"; }
guide_short_of_memory() { BESOM_COLLECT_EVERY=1000 BESOM_CLOBBER_FREE=1 BESOM_VERIFY=both "$work/guide"; }
gcbench() { bash -c "$1" </dev/null >"$work/said" 2>&1; local status=$?; cat "$work/said"; [ $status -eq 0 ] && grep -Eq 'cycles +[0-9]' "$work/said"; }
links() { # relative links and their anchors' files
    local file target bad=0
    for file in README.md docs/*.md; do
        while read -r target; do
            [ -e "$(dirname "$file")/$target" ] || { echo "$file: no such file: $target"; bad=1; }
        done < <(grep -oE '\]\([^)#]+' "$file" | sed 's/](//' | grep -v '^http')
    done
    [ $bad -eq 0 ]
}
book_is_listed() {
    local file bad=0
    for file in docs/*.md; do
        [ "$file" = docs/README.md ] || grep -qF "(${file#docs/})" docs/README.md || { echo "$file: not in docs/README.md"; bad=1; }
    done
    [ $bad -eq 0 ]
}
# Every text given to fatal(), with its arguments as dots: each part between two arguments that has two words or more must
# stand in messages.md, where the arguments are written as <name>.
messages() {
    local bad=0 n=0 text
    # shellcheck disable=SC2016
    perl -0777 -ne 's{^\s*//.*$}{}mg; while (/fatal\(format_args!\(\s*"((?:[^"\\]|\\.)*)"/g) { print "$1\n" }' \
        {stats,alloc-core,gc,runtime}/src/*.rs {alloc-core,gc,runtime}/src/*/*.rs | sort -u >"$work/fatal"
    sed 's/<[a-zA-Z]*>/{}/g; s/0x{}/{}/g; s/`//g' docs/messages.md >"$work/messages"
    while read -r text; do
        n=$((n + 1))
        text=$(sed 's/{[^}]*}/{}/g' <<<"$text")
        grep -qF -- "$text" "$work/messages" || { echo "no row for: $text"; bad=1; }
    done <"$work/fatal"
    [ $bad -eq 0 ] && [ $n -gt 20 ]
}

blocks README.md sh >"$work/commands"
try "names both commands" two_commands
if [ -z "${LIBDIR:-}" ]; then
    while read -r command; do
        case $command in
            'make test') ;;
            'make gcbench') [ "${README_GCBENCH:-1}" = 0 ] || try "$command (prints statistics)" gcbench "$command" ;;
            *) try "$command" bash -c "$command </dev/null" ;;
        esac
    done <"$work/commands"
fi
try "its C program is the example" example_is_readmes
try "which has 30 lines" short
try "compiles without warnings and runs" first
try "the guide's C blocks are a program" guide
try "which passes with every check on" guide_short_of_memory
try "links lead somewhere" links
try "every chapter is in the book's table of contents" book_is_listed
try "every fatal message has its row in docs/messages.md" messages
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

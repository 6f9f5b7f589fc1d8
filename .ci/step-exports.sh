#!/usr/bin/env bash
# libbesom.a defines the functions that besom.h declares and no other global name, and needs only libc, libpthread,
# libdl, libm and the compiler's own runtime.
set -u
cd "$(dirname "$0")/.." || exit
lib=${LIBDIR:-target/c}/libbesom.a
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
verdict() { # <name> <file that must be empty>
    if [ -s "$2" ]; then
        failed=$((failed + 1)); echo "FAIL exports: $1"; head -20 "$2" | sed 's/^/     /'
    else
        passed=$((passed + 1)); echo "ok   exports: $1"
    fi
}
[ -f "$lib" ] || { echo "$lib is missing: make lib"; exit 1; }
nm -g --defined-only "$lib" | awk 'NF == 3 { print $3 }' | sort -u >"$work/defined"
# The header's declarations: what the preprocessor leaves of it, without the inline definitions' own names.
gcc -std=c11 -E -P -x c runtime/include/besom.h | tr '\n' ' ' | sed 's/{[^{}]*}//g; s/{[^{}]*}//g; s/{[^{}]*}//g' \
    | tr ';' '\n' | grep -v 'static inline' | grep -v typedef | grep -oE '\bbesom_[a-z_]+ *\(' | tr -d ' (' | sort -u >"$work/declared"
gcc -std=c11 -E -P -x c runtime/include/besom.h | tr '\n' ' ' | grep -oE 'static inline [^;{]*[ *]besom_[a-z_]+\(' \
    | grep -oE 'besom_[a-z_]+\($' | tr -d '(' | sort -u >"$work/inline"
comm -23 "$work/declared" "$work/inline" >"$work/expected"
[ "$(wc -l <"$work/expected")" -ge 30 ] && : >"$work/few" || echo "only $(wc -l <"$work/expected") functions found in besom.h" >"$work/few"
verdict "besom.h declares the interface" "$work/few"
comm -23 "$work/expected" "$work/defined" >"$work/missing"
verdict "every function of besom.h is defined" "$work/missing"
comm -13 "$work/expected" "$work/defined" >"$work/extra"
verdict "no other global name is defined" "$work/extra"
# A program that calls every one of them links with these libraries alone.
{
    echo '#include <besom.h>'
    echo 'typedef void (*any)(void);'
    echo 'any all[] = {'
    sed 's/.*/(any)&,/' "$work/expected"
    echo '}; int main(void) { return all[0] == 0; }'
} >"$work/all.c"
gcc -std=c11 -I runtime/include "$work/all.c" "$lib" -lpthread -ldl -lm -o "$work/all" 2>"$work/link"
verdict "it links with -lpthread -ldl -lm alone" "$work/link"
ldd "$work/all" | awk '{ print $1 }' | grep -vE '^(linux-vdso|libc|libpthread|libdl|libm|libgcc_s|/lib64/ld-linux)' >"$work/needs"
verdict "and needs no other shared library" "$work/needs"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

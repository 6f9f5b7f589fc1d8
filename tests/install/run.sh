#!/usr/bin/env bash
# Installs into a temporary tree and builds a program against it: by pkg-config in C and C++, by CMake, and from a
# tree that was staged with DESTDIR and moved. Prints a line a test and 'N passed, N failed'.
set -u
cd "$(dirname "$0")/../.." || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
try() { # <name> <command...>: what it prints must be the program's line, if it prints anything
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1)); echo "ok   install: $name"
    else
        failed=$((failed + 1)); echo "FAIL install: $name"; sed 's/^/     /' "$work/log" | tail -20
    fi
}
runs() { "$1" >"$work/said" && grep -qx 'besom [0-9.]*: swept clean' "$work/said"; }
flags() { PKG_CONFIG_PATH=$work/usr/lib/pkgconfig pkg-config "$@" besom; }
by_pkg_config() { # <compiler...>
    # shellcheck disable=SC2046
    "$@" tests/install/program.c -x none $(flags --cflags --libs) -Wall -Wextra -Wpedantic -Werror -o "$work/program" \
        && runs "$work/program"
}
by_cmake() { # <prefix>
    rm -rf "$work/build"
    cmake -S tests/install -B "$work/build" -DCMAKE_PREFIX_PATH="$1" && cmake --build "$work/build" \
        && runs "$work/build/program"
}
refused_by_cmake() { # a version that is not there
    mkdir -p "$work/newer" && sed 's/Besom 0.1/Besom 0.99/' tests/install/CMakeLists.txt >"$work/newer/CMakeLists.txt" \
        && cp tests/install/program.c "$work/newer/" \
        && ! cmake -S "$work/newer" -B "$work/newer/build" -DCMAKE_PREFIX_PATH="$work/usr"
}
only_these() {
    (cd "$work/usr" && find . -type f | sort) >"$work/files"
    diff - "$work/files" <<END
./include/besom.h
./lib/cmake/Besom/BesomConfig.cmake
./lib/cmake/Besom/BesomConfigVersion.cmake
./lib/libbesom.a
./lib/pkgconfig/besom.pc
./share/besom/helgrind.supp
END
}
same_suppressions() { cmp tests/c/helgrind.supp "$work/usr/share/besom/helgrind.supp"; }
nothing_left() { [ -d "$work/usr" ] && [ -z "$(find "$work/usr" -type f)" ]; }
version_agrees() { [ "$(flags --modversion)" = "$(sed -n 's/^#define BESOM_VERSION_STRING "\(.*\)"/\1/p' "$work/usr/include/besom.h")" ]; }

try "make install" make -s install PREFIX="$work/usr" DESTDIR=
try "these files and no others" only_these
try "helgrind's suppressions are those that are tested" same_suppressions
try "pkg-config's version is the header's" version_agrees
try "a C11 program by pkg-config" by_pkg_config gcc -std=c11 -x c
try "a C++17 program by pkg-config" by_pkg_config g++ -std=c++17 -x c++
try "a program by CMake" by_cmake "$work/usr"
try "CMake refuses a newer version" refused_by_cmake
try "make install with DESTDIR" make -s install PREFIX=/opt/besom DESTDIR="$work/stage"
try "a program by CMake from the staged tree" by_cmake "$work/stage/opt/besom"
try "make uninstall" make -s uninstall PREFIX="$work/usr" DESTDIR=
try "nothing is left" nothing_left
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

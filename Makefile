# Besom.  make gcbench: build all and run the interpreter on a benchmark.  make test: every test.
#
#   make lib       target/c/libbesom.a and target/c/include/besom.h
#   make scheme    target/c/bin/scheme, the interpreter in C
#   make bench     the table of benchmarks, against the peers that are installed
#   make install   PREFIX=/usr/local DESTDIR=
#   make lib CHECKED=1     the library with debug assertions, in target/checked

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
CC = gcc
CFLAGS ?= -O2 -g
WARNINGS = -Wall -Wextra
LIBS = -lpthread -ldl -lm

CHECKED ?=
OUT := target/$(if $(CHECKED),checked,c)
# Where cargo puts its output: the library is taken from there.
CARGO_OUT := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/$(if $(CHECKED),debug,release)
RUST_SOURCES := Cargo.toml Cargo.lock $(wildcard */Cargo.toml) $(shell find stats/src alloc-core/src gc/src runtime/src -name '*.rs')
SCHEME := runtime/examples/scheme
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: all lib scheme gcbench test bench install uninstall clean
.DELETE_ON_ERROR:
all: lib scheme

gcbench: all
	$(OUT)/bin/scheme --gc-stats $(SCHEME)/programs/gcbench.scm

test:
	@.ci/test.sh

bench: lib
	@tests/bench/run.sh

lib: $(OUT)/libbesom.a $(OUT)/include/besom.h

$(OUT)/include/besom.h: runtime/include/besom.h
	@mkdir -p $(@D)
	cp $< $@

# One object that keeps only the besom_* names: the rest (Rust's own library, allocator and all) cannot clash with
# the program's. What no besom_* function reaches is dropped. The sections with LLVM's bitcode go first: they serve
# nobody here, and some binutils fail on those of a newer LLVM than theirs.
$(OUT)/libbesom.a: $(RUST_SOURCES)
	@mkdir -p $(@D)
	$(CARGO) rustc $(if $(CHECKED),,--release) -p besom --lib --crate-type staticlib --features c-library
	objcopy -R .llvmbc -R .llvmcmd $(CARGO_OUT)/libbesom.a $(OUT)/rust.a
	nm -g --defined-only $(OUT)/rust.a | sed -n 's/.* [TDBRV] \(besom_[a-z_]*\)$$/-u \1/p' | sort -u > $(OUT)/names
	ld -r --whole-archive --gc-sections @$(OUT)/names $(OUT)/rust.a -o $(OUT)/besom.o
	objcopy -w --keep-global-symbol='besom_*' $(OUT)/besom.o
	rm -f $@
	ar rcsD $@ $(OUT)/besom.o
	rm -f $(OUT)/besom.o $(OUT)/rust.a $(OUT)/names

scheme: $(OUT)/bin/scheme
# The part of the interpreter that is in Scheme, as a C string.
$(OUT)/prelude.inc: $(SCHEME)/prelude.scm
	@mkdir -p $(@D)
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/"&\\n"/' $< > $@

$(OUT)/bin/scheme: $(wildcard $(SCHEME)/*.c $(SCHEME)/*.h) $(OUT)/prelude.inc $(OUT)/libbesom.a $(OUT)/include/besom.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 $(CFLAGS) $(WARNINGS) -I$(OUT) -I$(OUT)/include $(wildcard $(SCHEME)/*.c) $(OUT)/libbesom.a $(LIBS) -o $@

install: lib
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/lib/cmake/Besom \
	    $(DESTDIR)$(PREFIX)/share/besom
	install -m 644 $(OUT)/include/besom.h $(DESTDIR)$(PREFIX)/include/besom.h
	install -m 644 $(OUT)/libbesom.a $(DESTDIR)$(PREFIX)/lib/libbesom.a
	install -m 644 tests/c/helgrind.supp $(DESTDIR)$(PREFIX)/share/besom/helgrind.supp
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' packaging/besom.pc.in \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/besom.pc
	sed -e 's|@VERSION@|$(VERSION)|' packaging/BesomConfig.cmake.in \
	    > $(DESTDIR)$(PREFIX)/lib/cmake/Besom/BesomConfig.cmake
	sed -e 's|@VERSION@|$(VERSION)|' packaging/BesomConfigVersion.cmake.in \
	    > $(DESTDIR)$(PREFIX)/lib/cmake/Besom/BesomConfigVersion.cmake

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/besom.h $(DESTDIR)$(PREFIX)/lib/libbesom.a
	rm -f $(DESTDIR)$(PREFIX)/lib/pkgconfig/besom.pc
	rm -rf $(DESTDIR)$(PREFIX)/lib/cmake/Besom $(DESTDIR)$(PREFIX)/share/besom

clean:
	rm -rf target
